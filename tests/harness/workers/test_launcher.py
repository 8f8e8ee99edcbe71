"""Two gloo processes on one cell of the miniature: the same rollouts, rewards and result as one process."""

from __future__ import annotations

import io
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


def run(out: Path, processes: int, task: str, reward: str, **more) -> pd.DataFrame:
    given = [f"--set={key}={value}" for key, value in (SMALL | more).items()]
    command = ["run", "--task", task, "--reward", reward, "--out", str(out), "--workers", "0", *given]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--rdzv-backend=c10d", "--standalone"]
    if processes == 1:
        code, out_text, errors = run_harness(*command, cwd=ROOT)
    else:
        process = start([*launcher, "-m", "harness", *command], ROOT)
        out_text, errors = process.communicate(timeout=600)
        code = process.returncode
    assert code == 0, out_text[-2000:] + errors[-4000:]
    curves = pd.read_parquet(next(out.rglob("curves.parquet")))
    return curves[~curves["measure"].str.startswith("seconds")].set_index(["step", "phase", "measure"])["value"]


@pytest.mark.parametrize(
    ("task", "reward", "more"),
    [
        ("lambada_es", "adam_metagrad", {"task.options.metric_examples": 16}),  # a sharded inner batch
        ("67", "naive", {"inner.steps": 2, "validation.inner_steps": 2}),  # sharded training, two steps, sets of ranks
        # Weights and states of the target divided among the processes.
        ("lambada_es", "adam_metagrad", {"task.options.metric_examples": 8, "inner.steps": 2, "inner.sharded": True}),
        # Credit by token, the last step after a warm-up.
        ("uuid", "adam_metagrad", {"inner.steps": 2, "inner.warmup_after": 1, "inner.warmup_steps": 2}),
    ],
)
def test_two_processes_give_what_one_gives(task, reward, more, tmp_path):
    more |= {"keep.rollouts": "all"}
    alone = {key: value for key, value in more.items() if key != "inner.sharded"}
    one, two = run(tmp_path / "1", 1, task, reward, **alone), run(tmp_path / "2", 2, task, reward, **more)
    assert set(one.index) == set(two.index)
    exact = [
        key
        for key in one.index
        if key[2] in ("zero_spread", "empty_fraction", "distinct_fraction", "completion_tokens")
    ]
    assert (one[exact] == two[exact]).all()  # the same texts
    assert len(list((tmp_path / "2").rglob("cell.json"))) == 1
    # TRL's entropy is a mean of microbatches' means, which hold other rows, of other lengths, with two processes.
    of_rows = one.index.get_level_values("measure") == "entropy"
    for keys, tolerance in ((one.index[~of_rows], 2e-3), (one.index[of_rows], 1e-2)):
        pd.testing.assert_series_equal(one[keys], two[keys], rtol=tolerance, atol=1e-6)
    rewards = [key for key in one.index if key[0] == 1 and key[2].startswith("reward_raw")]
    rounding = 1e-6 * one[rewards].abs().max()  # standardised rewards have a mean of 0
    pd.testing.assert_series_equal(one[rewards], two[rewards], rtol=1e-4, atol=rounding)
    first = [find_cells(tmp_path / n)[0].rollouts().query("step == 1") for n in ("1", "2")]
    a, b = (rows.sort_values("index").reset_index(drop=True) for rows in first)
    assert list(a["text"]) == list(b["text"])
    assert a["reward_value"].corr(b["reward_value"]) >= 1 - 1e-6


CUT = SMALL | {"grpo.steps": 4, "grpo.checkpoint_every": 1, "validation.every": 2, "keep.rollouts": "all"}


def launch(out: Path, ranks: int) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d", "--standalone"]
    given = [f"--set={key}={value}" for key, value in CUT.items()]
    grid = ["run", "--task", "norm", "--reward", "adam_metagrad", "--out", str(out), "--workers", "0"]
    return start([*(launcher if ranks > 1 else []), "-m", "harness", *grid, *given], ROOT)


def outcome(out: Path) -> tuple[CellRecord, dict[str, Any]]:
    """The cell's record, and its content without times."""
    (cell,) = find_cells(out)
    curves = cell.curves()
    kept = {"curves": curves[~curves["measure"].str.startswith("seconds")].to_csv(), "samples": cell.samples()}
    return cell.read(), kept | {"rollouts": cell.rollouts().to_csv(), "generator": cell.read().generator_sha256}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    process = launch(folder, 2)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    return outcome(folder)[1]


def cut_short(out: Path) -> str:
    """A launch of two whose launcher gets SIGTERM after the first checkpoint, and passes it on; what it said."""
    process = launch(out, 2)
    while not list(out.rglob("step-*.safetensors")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    return errors


def test_a_cut_cell_resumes_with_as_many_processes_to_the_same_bits_and_with_others_too(undisturbed, tmp_path):
    """`scripts/kill_ranks.py` does it with SIGKILL as well, over and over."""
    two, one = tmp_path / "two", tmp_path / "one"
    errors = cut_short(two)
    cut, _ = outcome(two)
    assert cut.status == "interrupted" and 1 <= cut.steps_done < 4, errors[-2000:]
    newest = max(path.name for path in two.rglob("step-*.safetensors"))
    assert newest.startswith(f"step-{cut.steps_done:08d}"), "it saves before it ends"
    shutil.copytree(two, one)
    for out, ranks in ((two, 2), (one, 1)):
        process = launch(out, ranks)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]
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
