"""Signals judged by retraining: the truth itself, toy signals that land at 0 and at 1, what is kept, the command."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.contracts import HarnessError, TaskContext, completion_text
from harness.registry import TASKS
from harness.settings.profiles import load_profile, profile_names, resolve
from harness.signals import truth
from harness.signals.pool import build_pool
from harness.signals.records import SCHEMA_VERSION, PoolRecord, Spec, load, read
from harness.signals.run import fidelity_cells, run_fidelity
from harness.signals.truth import Retraining, in_float64
from harness.training.inner import InnerTrainer
from reports import signals
from tasks import lambada
from tests.helpers.cells import keys, write_articles
from tests.helpers.command import flags, run_harness, start_harness

SPEC = Spec(pool=16, subsets=40, removals=20, draws=4)


@pytest.fixture(scope="module")
def articles(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "articles.jsonl"
    return write_articles(path, "Article number {i} is about the river {letter} of region {square}.")


@pytest.fixture
def quick(model_folder, articles):
    """`quick(**more)` -> assignments for seconds on a random 2-layer model."""

    def make(**more):
        model = str(model_folder("gpt2"))
        return {
            "generator.model": model,
            "target.model": model,
            "data.articles": str(articles),
            "generator.prompt": "Say: <article>",
            "generator.max_prompt_tokens": 48,
            "generator.max_completion_tokens": 12,
            "grpo.rollouts_per_prompt": 4,
            "inner.max_tokens": 16,
            "validation.prompts": 8,
        } | keys(more)

    return make


@pytest.fixture
def register(register_factory):
    return register_factory


def cells(task: str, rewards: list[str], given: dict, spec: Spec = SPEC, seed: int = 0):
    return fidelity_cells(load_profile("tiny"), [task], rewards, [seed], given, spec)[0]


def measured(out: Path) -> dict[str, signals.Row]:
    return {row.reward: row for row in signals.rows(load(out)) if not row.own}


# ---------------------------------------------------------------------------------------------------------------- truth

TEXTS = ["the river a", "", "one two three four", "zzz", "a longer text about rivers", "b"]
OPTIMIZERS = {
    "adamw": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1},
    "adam": {"name": "adam", "lr": 1e-3, "weight_decay": 0.1, "eps_root": 1e-10},
    "sgd": {"name": "sgd", "lr": 1e-2, "momentum": 0.9},
    "authors": {"name": "adamw", "lr": 1e-3},
}


@pytest.fixture
def retraining(make_model, make_tokenizer):
    def make(optimizer: dict, **inner):
        settings = resolve(load_profile("tiny"), "norm", "").inner.model_copy(update=inner)
        trainer = InnerTrainer(make_model("gpt2"), make_tokenizer(), settings).with_optimizer(**optimizer)
        task = TASKS.get("norm").factory(TaskContext())
        return Retraining(in_float64(trainer), task, TEXTS)

    return make


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_combined_gradients_are_real_retrainings(name, retraining):
    """The shortcut for T = 1 gives what training the target again gives, parameter by parameter and in Phi."""
    quirks = {"fixed_length": 128, "summed_microbatches": 8} if name == "authors" else {}
    truth = retraining(OPTIMIZERS[name], **quirks)
    assert truth.one_step is not None
    weights = torch.rand(5, len(TEXTS), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
    for row, params in zip(weights, truth.one_step.trained(weights), strict=True):
        real = truth.inner.train(TEXTS, weights=row)
        assert all(torch.allclose(params[key], real[key], rtol=1e-9, atol=1e-12) for key in real)
    parts = [[0, 2, 3], [0, 1, 2, 4, 5], list(range(6)), [4]]
    quickly, quickly_weighted = truth.subsets(parts), truth.weighted(weights)
    truth.one_step = None
    assert quickly == pytest.approx(truth.subsets(parts), rel=1e-12)
    assert quickly_weighted == pytest.approx(truth.weighted(weights), rel=1e-12)


def test_a_loss_that_looks_at_its_neighbours_is_retrained_in_full(retraining, monkeypatch):
    whole = InnerTrainer.train

    def neighbourly(self, texts, weights=None):
        return whole(self, [text + "!" * len(texts) for text in texts], weights)

    monkeypatch.setattr(InnerTrainer, "train", neighbourly)
    assert retraining(OPTIMIZERS["adamw"]).one_step is None


def test_several_steps_are_retrained_in_full(retraining):
    truth = retraining(OPTIMIZERS["adamw"], steps=2)
    assert truth.one_step is None
    ones = torch.ones(1, len(TEXTS), dtype=torch.float64)
    assert truth.weighted(ones) == pytest.approx(truth.subsets([range(len(TEXTS))]), rel=1e-12)
    assert truth.weighted(2 * ones) != truth.weighted(ones)


def test_large_targets_are_retrained_in_full(retraining, monkeypatch):
    monkeypatch.setattr(truth, "MOST_BYTES", 1000)
    assert retraining(OPTIMIZERS["adamw"]).one_step is None


# ----------------------------------------------------------------------------------------------------------------- toys


def random_numbers(context):
    rng = random.Random(3)
    return lambda prompts, completions, completion_ids, **columns: [rng.gauss(0, 1) for _ in completions]


def exact_leave_one_out(context):
    """What Phi loses without the text, by retraining, for every batch anew."""

    def reward(prompts, completions, completion_ids, **columns):
        texts = [completion_text(each) for each in completions]
        truth = Retraining(in_float64(context.load_inner()), context.task, texts)
        everyone = range(len(texts))
        (whole,) = truth.subsets([everyone])
        return [whole - phi for phi in truth.subsets([[j for j in everyone if j != i] for i in everyone])]

    return reward


@pytest.mark.parametrize("task", ["norm", "lambada_es"])
def test_random_numbers_land_at_0_and_exact_leave_one_out_at_1(task, quick, register, tmp_path):
    register("test_random", random_numbers)
    register("test_exact", exact_leave_one_out)
    # Plain SGD at a small rate is linear in the texts, so that leaving one out says all there is to say.
    given = quick(grpo__rollouts_per_prompt=8)
    given |= {"task.options.metric_examples": 4} if task.startswith("lambada") else {}
    given |= {"inner.optimizer.name": "sgd", "inner.optimizer.lr": 1e-3}
    spec = Spec(pool=64, subsets=100, removals=100, draws=2)
    run_fidelity(cells(task, ["test_random", "test_exact"], given, spec), tmp_path)
    found = measured(tmp_path)
    toy, exact = found["test_random"].found, found["test_exact"].found
    for name in ("halves", "small change", "leave one out", "leave part out", "repeatability"):
        assert abs(toy[name].mean) < 0.38, name  # three standard deviations of a random order of 64 texts
    assert exact["leave one out"].mean == pytest.approx(1.0)
    assert exact["own groups"].mean == pytest.approx(1.0) and exact["mixed groups"].mean == pytest.approx(1.0)
    assert all(exact[name].mean > 0.98 for name in ("halves", "leave part out", "small change"))
    (judged,) = load(tmp_path)
    (truth,), rng = judged.truths.values(), np.random.default_rng(0)
    scores = [signals.spearman(signals.sums(rng.normal(size=64), judged.pool.halves), truth.halves) for _ in range(400)]
    assert abs(np.mean(scores)) < 0.03 and 0.09 < np.std(scores) < 0.2  # 0 on average, and as wide as the legend says


def test_task_and_rewards_get_no_more_references_than_asked(quick, register, tmp_path, monkeypatch):
    seen, likelihoods = [], []

    def counting(context):
        seen.append(len(context.task.references()))
        return lambda prompts, completions, completion_ids, **columns: [float(len(ids)) for ids in completion_ids]

    original = lambada.Lambada._likelihood
    monkeypatch.setattr(
        lambada.Lambada, "_likelihood", lambda *given: likelihoods.append(original(*given)) or likelihoods[-1]
    )
    register("test_counting", counting)
    few, more = (Spec(pool=16, subsets=10, removals=10, draws=2, references=n) for n in (3, 4))
    run_fidelity(cells("lambada_es", ["test_counting"], quick(), few), tmp_path)
    assert seen == [3] and likelihoods and all(len(each.counts) == 3 for each in likelihoods)
    assert cells("lambada_es", [], quick(), few).identity != cells("lambada_es", [], quick(), more).identity


def test_signals_before_any_rl_come_before_a_late_warm_up(quick):
    given = quick(inner__warmup_steps=3)
    assert cells("norm", ["naive"], given).rewards[0].settings.inner.warmup_steps == 3
    late = cells("norm", ["naive"], given | {"inner.warmup_after": 1})
    assert [each.settings.inner.warmup_steps for each in (late.base, *late.rewards)] == [0, 0]


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("task", TASKS.names())
def test_trainings_on_a_pool_have_batches_no_smaller_than_a_step_s(task, profile):
    (cell,) = fidelity_cells(load_profile(profile), [task], ["naive", "adam_metagrad"], [0], {}, Spec())
    whole = resolve(load_profile(profile), task, "")
    for each in (cell.base, *cell.rewards):
        inner, groups = each.settings.inner, each.settings.grpo.rollouts_per_prompt
        assert inner.steps == 1 or 64 / inner.steps >= whole.grpo.rollouts_per_step / whole.inner.steps
        assert inner.steps <= 64 // groups  # naive's sets can be split
    assert cell.steps_of_a_run == whole.inner.steps


def test_inner_steps_that_are_given_are_kept_whatever_the_pool(quick):
    given = quick(
        grpo__prompts_per_step=16, grpo__rollouts_per_prompt=4, grpo__updates_per_step=1, inner__warmup_steps=9
    )
    given = {key: value for key, value in given.items() if key != "inner.steps"}
    spec = Spec(pool=16, subsets=10, removals=10, draws=2)

    def inner(**changes):
        return cells("uuid", [], given | {"inner.warmup_after": 0} | changes, spec).base.settings.inner

    assert (inner().steps, inner().warmup_steps) == (32 // 4, 9)  # the warm-up was given
    assert inner(**{"inner.steps": 5}).steps == 5
    del given["inner.warmup_steps"]
    assert inner().warmup_steps == 96 // 4


@pytest.mark.parametrize(
    ("task", "reward"), [*((task, "adam_metagrad") for task in TASKS.names()), ("norm", "sgd_metagrad")]
)
def test_metagradients_predict_small_changes_of_every_task(task, reward, quick, tmp_path):
    """They are derivatives of the very thing, so a small enough change is predicted. Small means small: the pool is
    random bytes of an untrained generator, and Adam's update bends where a gradient passes through 0."""
    given = quick(target__model="embedded:target", inner__steps=1)
    given |= {"reward.options.standardise_steps": False}  # standardised, they are no derivatives
    given |= {"task.options.metric_examples": 4} if task.startswith("lambada") else {}
    spec = Spec(pool=16, subsets=10, removals=10, draws=2, changes=(0.001,))
    run_fidelity(cells(task, [reward], given, spec), tmp_path)
    row = next(row for row in signals.rows(load(tmp_path)) if row.own == (reward == "sgd_metagrad"))
    (score, error), (_, largest) = row.scores[0.001], row.scores[1.0]
    assert score >= 0.9 and error < 0.2 and error < largest
    assert signals.is_derivative(row) and signals.holds_to(row.scores) is not None


# ----------------------------------------------------------------------------------------------------------------- pool


def test_the_pool_is_what_grpo_sees(quick, model_folder):
    from harness.assets.models import load_model, load_tokenizer
    from harness.planning.cells import make_task

    cell = cells("lambada_es", [], quick(grpo__rollouts_per_prompt=8)).base
    folder = str(model_folder("gpt2"))
    generator, tokenizer = load_model(folder), load_tokenizer(folder)
    make = lambda seed: build_pool(cell.settings, make_task(cell), generator, tokenizer, size=64, seed=seed)
    pool = make(0)
    assert pool == make(0) and pool.texts != make(1).texts
    assert pool.groups == [i // 8 for i in range(64)]
    assert pool.sources[:32] == ["generator"] * 32 and pool.mixed() == [False] * 32 + [True] * 32
    rows = [pool.sources[start : start + 8] for start in range(32, 64, 8)]
    assert all(sorted(row) == sorted(["generator", "article", "other", "target"] * 2) for row in rows)
    assert len({tuple(row) for row in rows}) > 1, "a text's source must not be told by its place"
    assert all(len(tokenizer(text)["input_ids"]) <= 14 for text in pool.texts)  # 12, and what a cut adds at a seam


def test_too_few_articles_are_named(quick, tmp_path):
    with pytest.raises(HarnessError, match="validation.prompts"):
        run_fidelity(cells("norm", ["naive"], quick(), Spec(pool=64)), tmp_path)


# -------------------------------------------------------------------------------------------------------- keeping, rows


def test_signals_share_one_truth_and_nothing_is_measured_twice(quick, tmp_path, monkeypatch):
    given = quick()
    (first,) = run_fidelity(cells("norm", ["adam_metagrad"], given), tmp_path)
    monkeypatch.setattr(truth, "Retraining", None)  # a second truth of the same training would fail
    again = run_fidelity(cells("norm", ["adam_metagrad", "naive", "fasttext"], given), tmp_path)
    assert again[0] == first and [record.status for record in again] == ["done", "done", "unsupported"]
    assert again[1].truths == first.truths and "reference" in again[2].reason
    assert len(list(tmp_path.rglob("truth-*.json"))) == 1 and len(list(tmp_path.rglob("pool.json"))) == 1


def test_another_inner_training_gets_its_own_truth(quick, tmp_path):
    (record,) = run_fidelity(cells("norm", ["sgd_metagrad"], quick()), tmp_path)
    assert len(record.truths) == 2 and len(list(tmp_path.rglob("truth-*.json"))) == 2
    own, task = sorted(signals.rows(load(tmp_path)), key=lambda row: not row.own)
    assert own.found["halves"].mean > 0.9 and "leave one out" in task.found and "leave one out" not in own.found
    assert own.training.startswith("sgd") and task.training.startswith("adamw")


def test_a_broken_reward_costs_its_own_row_only(quick, register, tmp_path):
    def broken(context):
        raise RuntimeError("the reward broke")

    register("test_broken", broken)
    register(
        "test_nan", lambda context: lambda prompts, completions, completion_ids, **c: [float("nan")] * len(completions)
    )
    found = run_fidelity(cells("norm", ["test_broken", "test_nan", "naive"], quick()), tmp_path)
    assert [record.status for record in found] == ["failed", "failed", "done"]
    assert "the reward broke" in found[0].reason and "not finite" in found[1].reason
    text = signals.markdown(signals.rows(load(tmp_path)))
    assert "the reward broke" in text and "naive" in text


def test_settings_and_sizes_change_the_identity_and_the_place_does_not(quick):
    base = cells("norm", [], quick()).identity
    assert cells("norm", [], quick()).identity == base
    changed = [
        cells("norm", [], quick(inner__steps=2)),
        cells("norm", [], quick(), Spec(pool=32)),
        cells("norm", [], quick(), seed=1),
        cells("uuid", [], quick()),
    ]
    assert len({base, *(cell.identity for cell in changed)}) == 5


@pytest.mark.parametrize("content", ["not json", json.dumps({"schema_version": SCHEMA_VERSION + 1}), "[]"])
def test_a_damaged_or_newer_pool_is_one_row(content, tmp_path):
    path = tmp_path / "tiny" / "fidelity" / "norm" / "seed0-x" / "pool.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    (judged,) = load(tmp_path)
    assert [(s.task, s.reward, s.status) for s in judged.signals] == [("norm", "(unknown)", "damaged")]
    assert "pool.json" in judged.signals[0].reason and judged.pool.profile == "tiny"
    with pytest.raises(HarnessError, match="pool.json"):
        read(path, PoolRecord)


def test_the_command_prints_and_stores_the_table(quick, tmp_path):
    arguments = (
        "--task",
        "norm",
        "--reward",
        "adam_metagrad,embedding",
        "--seeds",
        "0,1",
        "--pool",
        "16",
        "--subsets",
        "10",
    )
    code, out, err = run_harness("fidelity", *arguments, *flags(quick()), cwd=tmp_path)
    assert code == 0, err
    assert "adam_metagrad" in out and "the task has no reference texts" in out and "Traceback" not in err
    folder = tmp_path / "runs" / "tiny" / "fidelity"
    assert "over seeds" in (folder / "table.md").read_text()
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"table.md", "measures.parquet"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interruption_ends_the_workers_and_keeps_what_is_stored(number, quick, tmp_path):
    arguments = ("--task", "norm,67", "--reward", "naive", "--pool", "16", "--subsets", "20000", "--workers", "2")
    process = start_harness("fidelity", *arguments, *flags(quick()), cwd=tmp_path)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None and not list(tmp_path.rglob("pool.json")):
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)  # the workers hold its pipes: this returns when they are gone too
    assert process.returncode == 128 + number, err
    assert "Interrupted" in err and "Traceback" not in err
    assert list(tmp_path.rglob("pool.json"))


@pytest.mark.parametrize(
    "arguments", [["--reward", "adam_metagrat"], ["--set", "inner.stebs=1"], ["--out", "file/runs"]]
)
def test_bad_input_of_the_command_is_one_sentence_and_exit_code_2(arguments, quick, tmp_path, nothing_loads):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run_harness("fidelity", "--task", "norm", *arguments, *flags(quick()), cwd=tmp_path)
    assert code == 2 and err.startswith("Error:") and "Traceback" not in err, err
