"""Rewards under two processes, as a launcher starts them: each has all rollouts and computes all rewards, and the
engine shares out the trainings.

    python -m harness.kit.ranks ASKED.json SAID.json     what each of the two does
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.kit.findings import Fault
from harness.machine import processes
from harness.machine.devices import cuda_devices

COUNT = 2
PATIENCE = 600
"""Seconds that they may take, starting included."""
POLL = 0.05
GRACE = 10
"""Seconds that one may take to end by itself after another one failed: it may be waiting for it."""

Asked = tuple[str, str, str, Mapping[str, Any]]
"""(word that the reward is found by, word of the task, reward, settings given)."""


def under_two_processes(asked: Sequence[Asked]) -> list[list[list[float]]]:
    """For each reward, what each of the two processes finds for the world's batch. Raises Fault where one fails."""
    with tempfile.TemporaryDirectory() as scratch:
        question = Path(scratch) / "asked.json"
        question.write_text(json.dumps(asked))
        port = _free_port()
        with ExitStack() as logs:
            ranks = [_start(question, number, port, logs) for number in range(COUNT)]
            _wait(ranks)
        for number, rank in enumerate(ranks):
            if rank.returncode:
                told = (Path(scratch) / f"errors-{number}").read_text(errors="replace").strip().splitlines()
                last = told[-1][:300] if told else "no message"
                raise Fault(f"Process {number} of two ended with {rank.returncode}: {last}")
        found = [json.loads((Path(scratch) / f"said-{number}").read_text()) for number in range(COUNT)]
    return [list(lists) for lists in zip(*found, strict=True)]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _start(question: Path, number: int, port: int, logs: ExitStack) -> subprocess.Popen[bytes]:
    environment = os.environ | {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(COUNT)}
    environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    if cuda_devices() < COUNT:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # two processes cannot share a GPU: both work on the CPU
    command = [sys.executable, "-m", "harness.kit.ranks", str(question), str(question.with_name(f"said-{number}"))]
    errors = logs.enter_context(question.with_name(f"errors-{number}").open("wb"))
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until both have ended. Where one failed the other may wait for it for ever, so it is ended soon."""
    deadline = time.monotonic() + PATIENCE
    try:
        while any(rank.poll() is None for rank in ranks) and time.monotonic() < deadline:
            if any(rank.poll() for rank in ranks):
                deadline = min(deadline, time.monotonic() + GRACE)
            time.sleep(POLL)
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
            rank.wait()


def main(question: Path, answer: Path) -> None:
    """Joins the other process and writes the rewards, one list a reward."""
    from harness.kit.subjects import named
    from harness.kit.world import World, task_for
    from harness.machine.libraries import quiet

    quiet()
    processes.join_group()
    found = []
    for word, task, reward, given in json.loads(question.read_text()):
        named(word)  # a file registers what it brings
        world = World(task_for(reward, task), reward, given)
        found.append(world.rewards(world.batch))
    answer.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
