"""Cells end to end on random models made here: every registered pair, determinism, failures, what is kept."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.assets.models import load_model
from harness.cell import run_cell
from harness.contracts import HarnessError
from harness.grid import cross_product
from harness.machine.stopping import Interrupted
from harness.registry import REWARDS, TASKS, unsupported
from harness.settings.profiles import load_profile
from harness.store.checkpoint import Checkpoints
from harness.store.frames import load
from harness.store.record import CellStore
from harness.workers.grid import run_grid
from harness.workers.local import InProcess
from tests.helpers.cells import cut_after, ignore, make_cell, settings_of_task
from tests.helpers.command import flags, run_harness

PAIRS = [("lambada_es", reward) for reward in REWARDS.names()] + [(task, "adam_metagrad") for task in TASKS.names()]


@pytest.mark.parametrize(("task", "reward"), sorted(set(PAIRS)))
def test_every_task_and_reward_runs_to_the_end(task, reward, quick, tmp_path):
    record = run_cell(make_cell(task, reward, quick() | settings_of_task(task)), tmp_path, ignore)
    assert record.status == "done", record.reason
    assert record.steps_done == 2 and record.rollouts == 8
    assert record.headline is not None and record.floor is not None
    wide, long = load(tmp_path)
    assert set(long[long["phase"] == "validation"]["step"]) == {0, 1, 2}
    assert {"reward_raw_std", "zero_spread", "seconds_reward"} <= set(long[long["phase"] == "train"]["measure"])
    assert (CellStore.of(tmp_path, record).folder / "samples.jsonl").read_text().count("\n") == 3 * 4


@pytest.mark.parametrize("keep", ["all", 3, 0])
def test_rollouts_are_kept_with_what_they_earned_and_where_they_come_from(keep, quick, tmp_path):
    record = run_cell(make_cell("lambada_es", "levenshtein", quick(keep__rollouts=keep)), tmp_path, ignore)
    assert record.status == "done", record.reason
    store = CellStore.of(tmp_path, record)
    kept = store.rollouts()
    assert len(kept) == {"all": 8, 3: 6, 0: 0}[keep]
    for sample in store.samples():
        assert sample["title"].startswith("Article number") and len(sample["article"]) == 8
        assert sample["finish"] in ("stop", "length") and sample["seed"] == 0
    if keep != "all":
        return
    _, long = load(tmp_path)
    means = long[long["measure"] == "reward_raw_mean"].set_index("step")["value"]
    for step, rows in kept.groupby("step"):
        assert rows["reward_value"].mean() == pytest.approx(means[step], rel=1e-6)
        assert rows["index"].tolist() == [0, 1, 2, 3] and rows["article"].nunique() == 2
        assert rows["advantage"].abs().sum() > 0 and rows.groupby("article")["advantage"].sum().abs().max() < 1e-3
    assert set(kept["finish"]) <= {"stop", "length"} and kept["title"].str.startswith("Article number").all()


@pytest.mark.parametrize(
    ("family", "tied", "dtype"),
    [("gpt2", True, "float32"), ("llama", False, "float32"), ("llama", True, "bfloat16"), ("qwen", False, "bfloat16")],
)
def test_the_generator_is_kept_as_it_was_trained(
    family, tied, dtype, quick, make_model, make_tokenizer, tmp_path, monkeypatch
):
    """What transformers loads gives the trainer's logits to the last bit, and a further cell starts from it."""
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.assets import fingerprint
    from harness.training.grpo import GeneratorTrainer

    model = tmp_path / "base"
    make_model(family, tied=tied).save_pretrained(model)
    template = "{{ day }}: {% for message in messages %}{{ message['content'] }}{% endfor %}"
    make_tokenizer(template).save_pretrained(model)
    changes = quick(generator__dtype=dtype, generator__template_values={"day": "Monday"}, generator__temperature=0.8)
    changes |= {"generator.model": str(model), "grpo.lr": 0.01}
    trainers = []
    train = GeneratorTrainer.train
    monkeypatch.setattr(GeneratorTrainer, "train", lambda self, **more: trainers.append(self) or train(self, **more))
    record = run_cell(make_cell("norm", "naive", changes), tmp_path / "runs", ignore)
    assert record.status == "done", record.reason
    folder = CellStore.of(tmp_path / "runs", record).folder / "generator"
    assert record.generator_sha256 == fingerprint(str(folder)) and record.generator_step == 2
    said = json.loads((folder / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only"} & set(said), "the fingerprint would depend on how it was read"
    kept = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert {weight.dtype for weight in kept.parameters()} == {getattr(torch, dtype)}
    assert (kept.get_output_embeddings().weight is kept.get_input_embeddings().weight) == tied
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) == (not tied)
    trained = trainers[0].accelerator.unwrap_model(trainers[0].model)
    trained = trained if dtype == "float32" else trainers[0]._bfloat16_copy.current()
    ids = torch.tensor([[65, 66, 67, 68]])
    with torch.no_grad():
        assert torch.equal(kept.eval()(ids).logits, trained.eval()(ids).logits)
        assert not torch.equal(kept(ids).logits, load_model(str(model), dtype=dtype)(ids).logits)
    tokenizer, drawing = AutoTokenizer.from_pretrained(folder), kept.generation_config
    chat = [{"role": "user", "content": "Say"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "Monday: Say"
    assert (drawing.do_sample, drawing.temperature, drawing.max_new_tokens, drawing.top_p) == (True, 0.8, 12, 1.0)
    assert kept.config.use_cache
    card = (folder / "README.md").read_text()
    assert record.identity in card and str(tmp_path) not in card + (folder / "config.json").read_text()
    further = run_cell(
        make_cell("norm", "naive", changes | {"generator.model": str(folder), "grpo.steps": 1}),
        tmp_path / "more",
        ignore,
    )
    assert further.status == "done" and further.assets[str(folder)] == record.generator_sha256


def test_no_generator_is_kept_where_none_is_asked_for(quick, tmp_path):
    record = run_cell(make_cell("norm", "naive", quick(keep__generator="none")), tmp_path, ignore)
    assert record.status == "done" and (record.generator_step, record.generator_sha256) == (None, "")
    assert not (CellStore.of(tmp_path, record).folder / "generator").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Exception("I/O (os error 28)")])
def test_a_generator_that_cannot_be_written_stops_the_run_and_is_written_by_the_next(
    error, quick, tmp_path, monkeypatch
):
    """With the words of the system, and of a library that is written in Rust."""
    from transformers import PreTrainedModel

    from harness.store.atomic import StorageError

    def full(self, folder, **more):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise error

    cell = make_cell("norm", "naive", quick(grpo__checkpoint_every=1))
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="generator: .*make room"):
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        run_cell(cell, tmp_path, ignore)
    store = CellStore.of(tmp_path, cell.record())
    assert store.read().status == "running" and not list(store.folder.glob("*generator*"))
    left = store.folder / ".generator.x.tmp" / "new"
    left.mkdir(parents=True)  # what a kill in the midst of it leaves
    (left / "model.safetensors").write_bytes(b"half")
    (store.folder / "generator").mkdir()  # and one between its name and the record
    record = run_cell(cell, tmp_path, ignore)
    assert record.status == "done" and (store.folder / "generator" / "model.safetensors").is_file()
    assert not list(store.folder.glob(".*"))


def test_many_sampled_texts_are_a_table(quick, tmp_path):
    changes = quick(validation__samples=99, validation__prompts=20, grpo__steps=1)
    cell = make_cell("lambada_es", "levenshtein", changes)
    record = run_cell(cell, tmp_path, ignore)
    store = CellStore.of(tmp_path, record)
    assert (store.folder / "samples.parquet").exists() and not (store.folder / "samples.jsonl").exists()
    found = store.samples()
    assert [row["index"] for row in found] == [*range(20)] * 2 and {"language", "finish"} <= found[0].keys()


def test_a_cell_counts_its_work_by_the_tokens_it_read_and_wrote(quick, tmp_path, monkeypatch):
    from harness.training import steps
    from tests.helpers.cells import write_articles

    seen = []
    step_work = steps.step_work
    monkeypatch.setattr(steps, "step_work", lambda *given: seen.append(given[-2]) or step_work(*given))
    articles = write_articles(tmp_path / "a.jsonl", line="Article {letter}{letter}")
    changes = {"data__articles": str(articles), "generator__max_completion_tokens": 5, "inner__max_tokens": 4}
    record = run_cell(make_cell("lambada_es", "adam_metagrad", quick(**changes)), tmp_path, ignore)
    _, long = load(tmp_path)
    written = long[long["measure"] == "completion_tokens"]["value"].tolist()
    assert [lengths.rollout for lengths in seen] == written
    assert {lengths.prompt for lengths in seen} == {len("Say: Article aa")}  # a byte a token
    assert [lengths.trained for lengths in seen] == [min(4, tokens) for tokens in written]
    phases = {"generation", "reward", "update", "validation"}
    assert record.flops.keys() == record.floor_seconds.keys() == phases
    assert min(record.flops.values()) > 0 and min(record.floor_seconds.values()) > 0


@pytest.mark.parametrize("family", ["llama", "qwen"])
def test_other_model_shapes_run(family, quick, tmp_path):
    record = run_cell(make_cell("lambada_es", "adam_metagrad", quick(family)), tmp_path, ignore)
    assert record.status == "done", record.reason


def curves(folder: Path):
    _, long = load(folder)
    keep = long[~long["measure"].str.startswith("seconds")]
    return keep[["step", "phase", "measure", "value"]].reset_index(drop=True)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(quick, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run_cell(make_cell("norm", "naive", quick(), seed), tmp_path / name, ignore).status == "done"
    assert curves(tmp_path / "a").equals(curves(tmp_path / "b"))
    assert not curves(tmp_path / "a").equals(curves(tmp_path / "c"))


@pytest.mark.parametrize(
    "changes",
    [{"grpo__updates_per_step": 2}, {"grpo__microbatch": 1}, {"inner__cross_group": False}, {"inner__steps": 2}],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_of_the_runner_run(changes, quick, tmp_path):
    record = run_cell(make_cell("lambada_es", "adam_metagrad", quick(**changes)), tmp_path, ignore)
    assert record.status == "done", record.reason


def test_microbatches_of_the_generator_give_the_same_numbers(quick, tmp_path):
    """The weights after two updates, and the gradient's norm in each: Adam's step alone hides a wrong scale."""
    many = {"generator__max_completion_tokens": 96, "grpo__prompts_per_step": 4}  # so that some rollouts end earlier

    def two_updates(microbatch):
        runs = tmp_path / str(microbatch)
        changes = {"grpo__microbatch": microbatch, "grpo__steps": 3, "grpo__checkpoint_every": 1, "grpo__lr": 0.01}
        cell = make_cell("norm", "naive", quick(**changes, **many))
        with pytest.raises(Interrupted):
            run_cell(cell, runs, cut_after(3))
        checkpoint, _ = Checkpoints(CellStore.of(runs, cell.record()).folder / "checkpoints").newest()
        assert checkpoint.step == 2
        weights = [value.flatten() for name, value in sorted(checkpoint.tensors.items()) if name.startswith("model.")]
        measured = curves(runs).query("phase == 'train' and step <= 2 and measure == 'grad_norm'")
        lengths = curves(runs).query("phase == 'train' and step <= 2 and measure == 'completion_tokens'")["value"]
        assert lengths.max() < 96, "with rollouts of one length, a wrong weight of each would not show"
        return torch.cat(weights), measured["value"].to_numpy()

    start = [value.flatten() for name, value in sorted(load_model(quick()["generator.model"]).named_parameters())]
    (whole, measured), (one, measured_one) = two_updates(None), two_updates(1)
    assert measured_one == pytest.approx(measured, rel=1e-4) and measured.min() > 1e-3
    assert (one - whole).norm() < 1e-3 * (whole - torch.cat(start)).norm()


def test_a_reward_that_returns_nan_fails_the_cell_and_names_the_example(quick, tmp_path, register):
    register(
        "test_nan", lambda prompts, completions, completion_ids, **c: [float("nan")] + [0.0] * (len(completions) - 1)
    )
    record = run_cell(make_cell("norm", "test_nan", quick()), tmp_path, ignore)
    assert record.status == "failed"
    assert "not finite" in record.reason and "#0 nan" in record.reason


def test_a_reward_that_raises_fails_the_cell_and_keeps_the_traceback(quick, tmp_path, register):
    def broken(prompts, completions, completion_ids, **columns):
        raise RuntimeError("the reward broke")

    register("test_broken", broken)
    record = run_cell(make_cell("norm", "test_broken", quick()), tmp_path, ignore)
    assert record.status == "failed" and "the reward broke" in record.reason
    assert "Traceback" in (CellStore.of(tmp_path, record).folder / "error.txt").read_text()


class Unshown(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (GeneratorExit(), "GeneratorExit: "),
        (RuntimeError("a lone \ud800 surrogate"), "RuntimeError: a lone \\ud800 surrogate"),
        (HarnessError("a \udcff one\nand more"), "a \\udcff one"),
        (Unshown(), "Unshown: its message cannot be shown (RuntimeError)"),
        (ValueError("x" * 10**6), "x [...]"),
    ],
    ids=["exit", "generator", "surrogate", "sentence", "unshown", "long"],
)
def test_whatever_a_reward_raises_is_stored_as_the_reason(error, words, quick, tmp_path, register):
    def broken(prompts, completions, completion_ids, **columns):
        raise error

    register("test_broken", broken)
    record = run_cell(make_cell("norm", "test_broken", quick(grpo__steps=1)), tmp_path, ignore)
    assert record.status == "failed" and words in record.reason and len(record.reason) < 2200
    store = CellStore.of(tmp_path, record)
    assert store.read().reason == record.reason
    if not isinstance(error, HarnessError):
        assert "Traceback" in (store.folder / "error.txt").read_text(encoding="utf-8")


def test_a_reward_that_exits_ends_its_cell_and_not_the_command(quick, tmp_path, register):
    register("test_exit", lambda prompts, completions, completion_ids, **columns: sys.exit(0))
    arguments = ["--task", "norm", "--reward", "test_exit", "--workers", "0", *flags(quick(grpo__steps=1))]
    found = run_harness("run", *arguments, cwd=tmp_path)
    assert found.code == 1 and "failed: In step 1: SystemExit: 0" in found.out


def test_code_that_ends_the_program_elsewhere_is_a_sentence_and_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.planning.cells.unsupported", lambda *_: sys.exit(0))
    found = run_harness("run", "--task", "norm", "--reward", "naive", "--dry-run", cwd=tmp_path)
    assert found.code == 2 and "ended the program" in found.err


def labelled(monkeypatch, **more):
    """Evaluations of the task norm have these labels, arrays or files too, made of the rollouts."""
    from tasks.norm import Norm

    evaluate = Norm.evaluate

    def changed(self, rollouts, inner):
        return replace(evaluate(self, rollouts, inner), **{name: make(rollouts) for name, make in more.items()})

    monkeypatch.setattr(Norm, "evaluate", changed)


def test_labels_of_other_kinds_are_stored_as_plain_ones(quick, tmp_path, monkeypatch):
    labels = lambda rollouts: {
        "count": np.arange(len(rollouts)),
        "parts": [{"a": np.float32(0.5), 1: (torch.tensor(2), float("nan"))}] * len(rollouts),
        "odd \ud800": ["\udcff \u2028 \x85"] * len(rollouts),
    }
    labelled(monkeypatch, labels=labels)
    record = run_cell(make_cell("norm", "naive", quick(grpo__steps=1)), tmp_path / "runs", ignore)
    assert record.status == "done", record.reason
    first = CellStore.of(tmp_path / "runs", record).samples()[1]
    assert first["count"] == 1 and first["parts"] == {"a": 0.5, "1": [2, "nan"]}
    assert first["odd \\ud800"] == "\\udcff \u2028 \x85"
    from reports import site

    page = site.build(tmp_path / "runs", tmp_path / "site").read_text(encoding="utf-8")
    assert "count: 1" in page


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"labels": lambda rollouts: {"x": [object()] * len(rollouts)}},
            "label 'x' is a object, which cannot be stored",
        ),
        ({"labels": lambda rollouts: {"x": "abcd"[: len(rollouts)]}}, "label 'x' must have one entry"),
        ({"labels": lambda rollouts: {"x": [1]}}, "label 'x' must have one entry"),
        ({"labels": lambda rollouts: {"text": rollouts}}, "label 'text' has the name of something else"),
        ({"arrays": lambda rollouts: {"x": np.array([object()])}}, "array 'x' of object"),
        ({"files": lambda rollouts: {"x" * 300: b""}}, "plain file name"),
        ({"files": lambda rollouts: {"x": 5}}, "store a int as 'x'"),
    ],
)
def test_what_cannot_be_stored_ends_the_cell_with_the_reason(more, words, quick, tmp_path, monkeypatch):
    labelled(monkeypatch, **more)
    record = run_cell(make_cell("norm", "naive", quick(grpo__steps=1)), tmp_path, ignore)
    assert record.status == "failed" and words in record.reason
    assert CellStore.of(tmp_path, record).read() == record


def test_a_cell_whose_results_cannot_be_stored_says_so(quick, tmp_path, monkeypatch):
    """The last resort, for what nobody has thought of: the record alone."""

    def refuse(self, *arguments):
        raise TypeError("no such \ud800 column")

    monkeypatch.setattr(CellStore, "write_curves", refuse)
    record = run_cell(make_cell("norm", "naive", quick(grpo__steps=1)), tmp_path, ignore)
    stored = CellStore.of(tmp_path, record).read()
    assert stored == record and record.status == "failed" and "could not be stored (TypeError: no such" in record.reason


def test_a_reward_steers_the_generator(quick, tmp_path, register):
    """GRPO on "write many e's" raises their share: the whole loop learns, signs included."""

    def letters(prompts, completions, completion_ids, **columns):
        return [sum(t == 68 for t in ids) / len(ids) for ids in completion_ids]

    register("test_letters", letters)
    changes = quick(
        grpo__steps=25, grpo__prompts_per_step=8, grpo__rollouts_per_prompt=4, grpo__lr=0.03, validation__every=25
    )
    record = run_cell(make_cell("norm", "test_letters", changes), tmp_path, ignore)
    _, long = load(tmp_path)
    mean = long[long["measure"] == "reward_raw_mean"].sort_values("step")["value"].to_numpy()
    assert record.status == "done", record.reason
    assert mean[-3:].mean() > 3 * mean[:3].mean() + 0.05


def test_unsupported_pairs_become_rows_before_anything_loads(tmp_path, nothing_loads):
    pairs = [(t, r) for t in TASKS for r in REWARDS if unsupported(t, r)]
    assert pairs
    profile = load_profile("tiny")
    for task, reward in pairs:
        cells = cross_product(profile, [task.name], [reward.name], [0], {})
        (record,) = run_grid(cells, tmp_path, ignore, InProcess())
        assert record.status == "unsupported" and record.reason


def test_finished_cells_are_kept_and_fresh_runs_again(quick, tmp_path):
    cells = [make_cell("norm", "naive", quick())]
    seen: list[dict] = []
    (first,) = run_grid(cells, tmp_path, ignore, InProcess())
    (again,) = run_grid(cells, tmp_path, lambda p, e: seen.append(e), InProcess())
    assert again == first and [event["event"] for event in seen] == ["end"]
    (fresh,) = run_grid(cells, tmp_path, ignore, InProcess(), policy="fresh")
    assert fresh.provenance["started"] >= first.provenance["finished"]
    assert fresh.final == first.final
