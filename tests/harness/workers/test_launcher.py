"""Two gloo processes on one cell of the miniature: the same rollouts, rewards and result as one process."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch.distributed

from harness.machine import processes
from harness.store.frames import find_cells
from harness.store.record import CellRecord
from tests.helpers.command import ROOT, run_harness, start

SMALL = {
    "grpo.steps": 2,
    "grpo.prompts_per_step": 4,
    "grpo.rollouts_per_prompt": 4,
    "grpo.updates_per_step": 1,
    "grpo.microbatch": 8,
    "generator.max_completion_tokens": 24,
    "validation.every": 2,
    "validation.prompts": 6,
    "generator.true_positions": True,
    "grpo.shared_prompts": True,
    "data.article_count": 32,
}


CUT = SMALL | {"grpo.steps": 4, "grpo.checkpoint_every": 1, "validation.every": 2, "keep.rollouts": "all"}
CELLS = {  # name -> (task, reward, settings)
    "a sharded inner batch": ("lambada_es", "adam_metagrad", {"task.options.metric_examples": 16}),
    # Sharded training, two steps, sets of ranks.
    "two steps": ("67", "naive", {"inner.steps": 2, "validation.inner_steps": 2}),
    # Weights and states of the target divided among the processes.
    "divided": (
        "lambada_es",
        "adam_metagrad",
        {"task.options.metric_examples": 8, "inner.steps": 2, "inner.sharded": True},
    ),
    # The last step after a warm-up.
    "credit by token": (
        "uuid",
        "adam_metagrad",
        {"inner.steps": 2, "inner.warmup_after": 1, "inner.warmup_steps": 2},
    ),
}
ALL_CELLS = """
import json, sys
import harness

for out, task, reward, given in json.loads(sys.argv[1]):
    harness.run(task, reward, set=given, out=out, workers=0, progress=False)
"""


def launch(ranks: int, *command: str) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d", "--standalone"]
    return start([*launcher, *command], ROOT)


def finish(process: subprocess.Popen[str], timeout: float = 600) -> None:
    out, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, out[-2000:] + errors[-4000:]


def grid(task: str, reward: str, out: Path, settings: dict[str, Any]) -> list[str]:
    """The command `run`."""
    given = [f"--set={key}={value}" for key, value in settings.items()]
    return ["run", "--task", task, "--reward", reward, "--out", str(out), "--workers", "0", *given]


def run_alone(task: str, reward: str, out: Path, settings: dict[str, Any]) -> None:
    code, said, errors = run_harness(*grid(task, reward, out, settings), cwd=ROOT)
    assert code == 0, said[-2000:] + errors[-4000:]


def curves(out: Path) -> pd.Series:
    found = pd.read_parquet(next(out.rglob("curves.parquet")))
    return found[~found["measure"].str.startswith("seconds")].set_index(["step", "phase", "measure"])["value"]


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    """Folder of folders, `name` -> results of two processes, which have done one cell after the other: `CELLS`, and
    what is cut short elsewhere, undisturbed."""
    folder = tmp_path_factory.mktemp("launched")
    script = folder / "cells.py"
    script.write_text(ALL_CELLS)
    orders = [
        [str(folder / name), task, reward, SMALL | more | {"keep.rollouts": "all"}]
        for name, (task, reward, more) in CELLS.items()
    ]
    orders.append([str(folder / "undisturbed"), "norm", "adam_metagrad", CUT])
    finish(launch(2, str(script), json.dumps(orders)), timeout=1800)
    return folder


@pytest.mark.parametrize("name", CELLS)
def test_two_processes_give_what_one_gives(name, launched, tmp_path):
    task, reward, more = CELLS[name]
    alone = {key: value for key, value in more.items() if key != "inner.sharded"} | {"keep.rollouts": "all"}
    run_alone(task, reward, tmp_path, SMALL | alone)
    one, two = curves(tmp_path), curves(launched / name)
    assert set(one.index) == set(two.index)
    exact = [
        key
        for key in one.index
        if key[2] in ("zero_spread", "empty_fraction", "distinct_fraction", "completion_tokens")
    ]
    assert (one[exact] == two[exact]).all()  # the same texts
    assert len(list((launched / name).rglob("cell.json"))) == 1
    # TRL's entropy is a mean of microbatches' means, which hold other rows, of other lengths, with two processes.
    of_rows = one.index.get_level_values("measure") == "entropy"
    for keys, tolerance in ((one.index[~of_rows], 2e-3), (one.index[of_rows], 1e-2)):
        pd.testing.assert_series_equal(one[keys], two[keys], rtol=tolerance, atol=1e-6)
    rewards = [key for key in one.index if key[0] == 1 and key[2].startswith("reward_raw")]
    rounding = 1e-6 * one[rewards].abs().max()  # standardised rewards have a mean of 0
    pd.testing.assert_series_equal(one[rewards], two[rewards], rtol=1e-4, atol=rounding)
    first = [find_cells(runs)[0].rollouts().query("step == 1") for runs in (tmp_path, launched / name)]
    a, b = (rows.sort_values("index").reset_index(drop=True) for rows in first)
    assert list(a["text"]) == list(b["text"])
    assert a["reward_value"].corr(b["reward_value"]) >= 1 - 1e-6


def outcome(out: Path) -> tuple[CellRecord, dict[str, Any]]:
    """The cell's record, and its content without times."""
    (cell,) = find_cells(out)
    measured = cell.curves()
    kept = {"curves": measured[~measured["measure"].str.startswith("seconds")].to_csv(), "samples": cell.samples()}
    return cell.read(), kept | {"rollouts": cell.rollouts().to_csv(), "generator": cell.read().generator_sha256}


def cut_short(out: Path) -> str:
    """A launch of two whose launcher gets SIGTERM after the first checkpoint, and passes it on; what it said."""
    process = launch(2, "-m", "harness", *grid("norm", "adam_metagrad", out, CUT))
    while not list(out.rglob("step-*.safetensors")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    return errors


def test_a_cut_cell_resumes_with_as_many_processes_to_the_same_bits_and_with_others_too(launched, tmp_path):
    """`scripts/kill_ranks.py` does it with SIGKILL as well, over and over."""
    two, one = tmp_path / "two", tmp_path / "one"
    errors = cut_short(two)
    cut, _ = outcome(two)
    assert cut.status == "interrupted" and 1 <= cut.steps_done < 4, errors[-2000:]
    newest = max(path.name for path in two.rglob("step-*.safetensors"))
    assert newest.startswith(f"step-{cut.steps_done:08d}"), "it saves before it ends"
    shutil.copytree(two, one)
    finish(launch(2, "-m", "harness", *grid("norm", "adam_metagrad", two, CUT)))
    run_alone("norm", "adam_metagrad", one, CUT)
    _, undisturbed = outcome(launched / "undisturbed")
    record, found = outcome(two)
    assert [entry["step"] for entry in record.provenance["resumed"]] == [cut.steps_done]
    assert not record.provenance["resumed"][0]["differs"] and found == undisturbed
    assert not list(two.rglob("*.tmp")) and not list(two.rglob("checkpoints"))
    record, found = outcome(one)
    assert record.provenance["resumed"][0]["differs"] == ["processes"]
    whole, mine = (pd.read_csv(io.StringIO(each["curves"])) for each in (undisturbed, found))
    first = mine["step"] <= cut.steps_done
    pd.testing.assert_frame_equal(whole[first], mine[first])
    assert len(whole) == len(mine)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:52456. This is typically caused by"), True),
        (torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ConnectionResetError("Connection reset by peer"), False),  # of a reward's own host, say
    ],
)
def test_a_lost_peer_is_told_from_a_fault(error, lost, monkeypatch):
    assert not processes.is_lost_peer(error), "alone there is no peer"
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    assert processes.is_lost_peer(error) == lost
