"""Two gloo processes on one cell of the miniature: the same rollouts, rewards and result as one process. And of such
processes the first decides, stores and tells."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

import pandas as pd
import pytest

from harness.store.record import CellRecord
from harness.workers.launcher import Ranks

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "grpo.steps": 2,
    "grpo.prompts_per_step": 4,
    "grpo.rollouts_per_prompt": 4,
    "grpo.updates_per_step": 1,
    "grpo.microbatch": 8,
    "generator.max_completion_tokens": 24,
    "validation.every": 2,
    "validation.prompts": 6,
    "generator.shared_prefix": True,
    "generator.true_positions": True,
    "grpo.shared_prompts": True,
    "data.article_count": 32,
}


def run(out: Path, processes: int, task: str, reward: str, **more) -> pd.DataFrame:
    given = [f"--set={key}={value}" for key, value in (SMALL | more).items()]
    command = ["run", "--task", task, "--reward", reward, "--out", str(out), "--workers", "0", *given]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--rdzv-backend=c10d", "--standalone"]
    start = [*launcher, "-m", "harness"] if processes > 1 else ["-m", "harness"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *start, *command], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    curves = pd.read_parquet(next(out.rglob("curves.parquet")))
    return curves[~curves["measure"].str.startswith("seconds")].set_index(["step", "phase", "measure"])["value"]


@pytest.mark.parametrize(
    ("task", "reward", "more"),
    [
        ("lambada_es", "adam_metagrad", {"task.options.metric_examples": 16}),  # a sharded inner batch
        ("67", "naive", {"inner.steps": 2, "validation.inner_steps": 2}),  # sharded training, two steps, sets of ranks
        # Credit by token, the last step after a warm-up.
        ("uuid", "adam_metagrad", {"inner.steps": 2, "inner.warmup_after": 1, "inner.warmup_steps": 2}),
    ],
)
def test_two_processes_give_what_one_gives(task, reward, more, tmp_path):
    one, two = (run(tmp_path / str(count), count, task, reward, **more) for count in (1, 2))
    assert set(one.index) == set(two.index)
    exact = [
        key
        for key in one.index
        if key[2] in ("zero_spread", "empty_fraction", "distinct_fraction", "completion_tokens")
    ]
    assert (one[exact] == two[exact]).all()  # the same texts
    assert len(list((tmp_path / "2").rglob("cell.json"))) == 1
    pd.testing.assert_series_equal(one.sort_index(), two.sort_index(), rtol=2e-3, atol=1e-6)
    rewards = [key for key in one.index if key[0] == 1 and key[2].startswith("reward_raw")]
    pd.testing.assert_series_equal(one[rewards], two[rewards], rtol=1e-4, atol=1e-12)


@dataclass(frozen=True)
class Noted:
    """A job that every rank notes in `folder`, with where it would store."""

    name: str
    folder: Path
    how: str = "done"
    scratch: Path | None = None

    def settled(self):
        return CellRecord(**FIELDS, status="done") if self.how == "kept" else None

    def together(self, scratch):
        return replace(self, scratch=scratch)

    def run(self, tell, *, wait):
        rank = os.environ["RANK"]
        (self.folder / f"{self.name}-{rank}").write_text(f"{wait} {self.scratch and self.scratch.is_dir()}")
        tell({"event": "step", "rank": rank})
        return CellRecord(**FIELDS, status="failed" if self.how == f"fails on {rank}" else "done", reason="no luck")


FIELDS = {"profile": "p", "task": "t", "reward": "r", "seed": 0, "identity": "i"}


def rank_of_two(rank: int, port: int, folder: Path, kinds: list[str]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    jobs = [Noted(str(number), folder, how) for number, how in enumerate(kinds)]
    told = []
    records = Ranks().run(jobs, lambda job, event: told.append([job.name, event["event"], event.get("kept")]))
    said = {"statuses": [record.status for record in records], "told": told}
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


def two_ranks(folder: Path, kinds: list[str]) -> list[int | None]:
    """The exit codes of two ranks that do the jobs; a rank that is left waiting is ended, as a launcher does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=rank_of_two, args=(rank, port, folder, kinds)) for rank in range(2)]
    for process in ranks:
        process.start()
    ready = wait([process.sentinel for process in ranks], timeout=120)
    assert ready, "no rank has come to an end"
    if any(process.exitcode for process in ranks):
        for process in ranks:
            process.join(timeout=5)
            process.terminate()
    for process in ranks:
        process.join(timeout=60)
    return [process.exitcode for process in ranks]


def test_rank_0_decides_and_tells_and_the_others_follow(tmp_path):
    assert two_ranks(tmp_path, ["done", "kept", "done"]) == [0, 0]
    first, other = (json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in range(2))
    assert first["statuses"] == ["done"] * 3 and other == {"statuses": [], "told": []}
    assert first["told"] == [
        ["1", "end", True],
        *([name, event, None] for name in "02" for event in ("start", "step", "end")),
    ]
    notes = {path.name: path.read_text() for path in tmp_path.glob("?-?")}
    assert notes == {"0-0": "True None", "0-1": "True True", "2-0": "True None", "2-1": "True True"}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_alone_ends_so_that_the_launcher_ends_the_others(rank, tmp_path):
    assert two_ranks(tmp_path, [f"fails on {rank}", "done"])[rank] == 1
    assert not (tmp_path / "said-0.json").exists() and not (tmp_path / f"1-{rank}").exists()
