"""The runner end to end on random models made here: every registered pair, determinism, failures, interruption, CLI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cell import run_cell
from harness.grid import plan_grid
from harness.planning.cells import CellPlan
from harness.registry import REWARDS, TASKS, unsupported
from harness.settings.profiles import load_profile, parse_assignment, resolve
from harness.store.frames import load
from harness.store.record import CellStore
from harness.workers.grid import run_grid
from harness.workers.local import InProcess


def plan(task: str, reward: str, assignments: dict, seed: int = 0) -> CellPlan:
    return CellPlan(
        "tiny", task, reward, seed, resolve(load_profile("tiny"), task, reward, assignments), given=assignments
    )


def ignore(*_):
    pass


PAIRS = [("lambada_es", reward) for reward in REWARDS.names()] + [(task, "adam_metagrad") for task in TASKS.names()]


@pytest.mark.parametrize(("task", "reward"), sorted(set(PAIRS)))
def test_every_task_and_reward_runs_to_the_end(task, reward, quick, tmp_path):
    extra = {} if TASKS.get(task).name.startswith("lambada") else {"target.model": "embedded:target"}
    record = run_cell(plan(task, reward, quick() | extra), tmp_path, ignore)
    assert record.status == "done", record.reason
    assert record.steps_done == 2 and record.rollouts == 8
    assert record.headline is not None and record.floor is not None
    wide, long = load(tmp_path)
    assert set(long[long["phase"] == "validation"]["step"]) == {0, 1, 2}
    assert {"reward_raw_std", "zero_spread", "seconds_reward"} <= set(long[long["phase"] == "train"]["measure"])
    assert (CellStore.of(tmp_path, record).folder / "samples.jsonl").read_text().count("\n") == 3 * 4


@pytest.mark.parametrize("family", ["llama", "qwen"])
def test_other_model_shapes_run(family, quick, tmp_path):
    record = run_cell(plan("lambada_es", "adam_metagrad", quick(family)), tmp_path, ignore)
    assert record.status == "done", record.reason


def curves(folder: Path):
    _, long = load(folder)
    keep = long[~long["measure"].str.startswith("seconds")]
    return keep[["step", "phase", "measure", "value"]].reset_index(drop=True)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(quick, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run_cell(plan("norm", "naive", quick(), seed), tmp_path / name, ignore).status == "done"
    assert curves(tmp_path / "a").equals(curves(tmp_path / "b"))
    assert not curves(tmp_path / "a").equals(curves(tmp_path / "c"))


@pytest.mark.parametrize(
    "changes",
    [{"grpo__updates_per_step": 2}, {"grpo__microbatch": 1}, {"inner__cross_group": False}, {"inner__steps": 2}],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_of_the_runner_run(changes, quick, tmp_path):
    record = run_cell(plan("lambada_es", "adam_metagrad", quick(**changes)), tmp_path, ignore)
    assert record.status == "done", record.reason


def test_microbatches_of_the_generator_give_the_same_numbers(quick, tmp_path):
    for name, microbatch in (("whole", None), ("one", 1)):
        run_cell(plan("norm", "naive", quick(grpo__microbatch=microbatch)), tmp_path / name, ignore)
    whole, one = curves(tmp_path / "whole"), curves(tmp_path / "one")
    both = whole.merge(one, on=["step", "phase", "measure"])
    loss = both[(both["phase"] == "train") & (both["measure"] == "reward_raw_mean")]
    assert loss["value_x"].to_numpy() == pytest.approx(loss["value_y"].to_numpy(), rel=1e-3)


def test_a_reward_that_returns_nan_fails_the_cell_and_names_the_example(quick, tmp_path, register):
    register(
        "test_nan", lambda prompts, completions, completion_ids, **c: [float("nan")] + [0.0] * (len(completions) - 1)
    )
    record = run_cell(plan("norm", "test_nan", quick()), tmp_path, ignore)
    assert record.status == "failed"
    assert "not finite" in record.reason and "#0 nan" in record.reason


def test_a_reward_that_raises_fails_the_cell_and_keeps_the_traceback(quick, tmp_path, register):
    def broken(prompts, completions, completion_ids, **columns):
        raise RuntimeError("the reward broke")

    register("test_broken", broken)
    record = run_cell(plan("norm", "test_broken", quick()), tmp_path, ignore)
    assert record.status == "failed" and "the reward broke" in record.reason
    assert "Traceback" in (CellStore.of(tmp_path, record).folder / "error.txt").read_text()


def test_a_reward_steers_the_generator(quick, tmp_path, register):
    """GRPO on "write many e's" raises their share: the whole loop learns, signs included."""

    def letters(prompts, completions, completion_ids, **columns):
        return [sum(t == 68 for t in ids) / len(ids) for ids in completion_ids]

    register("test_letters", letters)
    changes = quick(
        grpo__steps=25, grpo__prompts_per_step=8, grpo__rollouts_per_prompt=4, grpo__lr=0.03, validation__every=25
    )
    record = run_cell(plan("norm", "test_letters", changes), tmp_path, ignore)
    _, long = load(tmp_path)
    mean = long[long["measure"] == "reward_raw_mean"].sort_values("step")["value"].to_numpy()
    assert record.status == "done", record.reason
    assert mean[-3:].mean() > 3 * mean[:3].mean() + 0.05


def test_unsupported_pairs_become_rows_before_anything_loads(tmp_path):
    pairs = [(t, r) for t in TASKS for r in REWARDS if unsupported(t, r)]
    profile = load_profile("tiny")
    for task, reward in pairs:
        plans = plan_grid(profile, [task.name], [reward.name], [0], {})
        (record,) = run_grid(plans, tmp_path, ignore, InProcess())
        assert record.status == "unsupported" and record.reason


def test_finished_cells_are_kept_and_fresh_runs_again(quick, tmp_path):
    plans = [plan("norm", "naive", quick())]
    seen: list[dict] = []
    (first,) = run_grid(plans, tmp_path, ignore, InProcess())
    (again,) = run_grid(plans, tmp_path, lambda p, e: seen.append(e), InProcess())
    assert again == first and [event["event"] for event in seen] == ["end"]
    (fresh,) = run_grid(plans, tmp_path, ignore, InProcess(), policy="fresh")
    assert fresh.provenance["started"] >= first.provenance["finished"]
    assert fresh.final == first.final


def harness(*arguments: str, cwd: Path, **popen) -> subprocess.Popen:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **popen,
    )


def flags(assignments: dict) -> list[str]:
    return [part for key, value in assignments.items() if value is not None for part in ("--set", f"{key}={value}")]


def test_the_command_runs_two_workers_and_prints_the_table(quick, tmp_path):
    process = harness(
        "run", "--task", "lambada_es", "--reward", "naive,levenshtein", "--workers", "2", *flags(quick()), cwd=tmp_path
    )
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "untuned generator" in out and "levenshtein" in out and "target_language" in out
    assert "Traceback" not in err
    table = (tmp_path / "runs" / "tiny" / "table.md").read_text()
    assert "untuned generator" in table
    for name in ("wide.csv", "wide.parquet", "long.csv", "long.parquet"):
        assert (tmp_path / "runs" / "tiny" / name).stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interruption_stores_what_there_was(number, quick, tmp_path):
    changes = quick(grpo__steps=100000)
    process = harness("run", "--task", "norm", "--reward", "naive", *flags(changes), cwd=tmp_path)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not list(tmp_path.rglob("curves.parquet")):
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Interrupted" in err and "Traceback" not in err
    wide, long = load(tmp_path / "runs")
    assert wide["status"].tolist() == ["interrupted"] and len(long)


BAD = {
    "task": (["--task", "lambada_xx"], "lambada_"),
    "reward": (["--task", "lambada_es", "--reward", "adam_metagrat"], "adam_metagrad"),
    "profile": (["--task", "lambada_es", "--profile", "tinny"], "tiny"),
    "setting": (["--task", "lambada_es", "--set", "grpo.stebs=1"], "grpo.steps"),
    "type": (["--task", "lambada_es", "--set", "grpo.steps=1.5"], "integer"),
    "seeds": (["--task", "lambada_es", "--seeds", "a-b"], "--seeds"),
    "model": (["--task", "lambada_es", "--set", "generator.model=./no-such-model"], "no-such-model"),
    "articles": (["--task", "lambada_es", "--set", "data.articles=./none.jsonl"], "none.jsonl"),
    "empty": (["--task", "lambada_es", "--set", "data.articles=./empty.jsonl"], "no text"),
    "malformed": (["--task", "lambada_es", "--set", "data.articles=./malformed.jsonl"], "line 2"),
    "few": (["--task", "lambada_es", "--set", "data.articles=./one.jsonl"], "too few"),
    "broken model": (["--task", "lambada_es", "--set", "target.model=./broken"], "broken"),
    "no weights": (["--task", "lambada_es", "--set", "target.model=./bare"], "safetensors"),
    "value of an option": (
        ["--task", "67", "--set", "task.options.lambda=abc"],
        "task.options.lambda must be a number",
    ),
    "out": (["--task", "lambada_es", "--out", "file/runs"], "--out"),
    "track": (["--task", "lambada_es", "--track", "mlflow"], "tensorboard"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(case, tmp_path, model_folder):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "one.jsonl").write_text('{"text": "only one"}\n')
    (tmp_path / "malformed.jsonl").write_text('{"text": "fine"}\nnot json\n')
    (tmp_path / "file").write_text("in the way")
    for name in ("broken", "bare"):
        (tmp_path / name).mkdir()
        for item in model_folder("llama").iterdir():
            (tmp_path / name / item.name).write_bytes(item.read_bytes())
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\x00" * 40)
    (tmp_path / "bare" / "model.safetensors").unlink()
    arguments, words = BAD[case]
    process = harness("run", *arguments, cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, (out, err)
    assert words in err and "Traceback" not in err and err.startswith("Error:") and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("text", "value"),
    [("grpo.lr=2e-4", 2e-4), ("generator.prompt=Say: <article>", "Say: <article>"), ("a={b: 1}", {"b": 1})],
)
def test_values_of_set_are_read_as_meant(text, value):
    assert parse_assignment(text)[1] == value
