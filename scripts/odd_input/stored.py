"""Damaged checkpoints, and odd surroundings: vocabularies, clocks, rewards that fail."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.odd_input.world import QUICK, Badly, Case, Expected, World, call, command, flags, mutated, process
from scripts.odd_input.wrong import trained


def checkpoints(world: World) -> Iterator[Case]:
    """An interrupted cell with any of its files changed goes on, or starts again, and ends with the same numbers."""
    from harness.cell import run_cell
    from harness.store.frames import find_cells

    runs, cell = world.interrupted
    start = next(path.parent for path in runs.rglob("cell.json"))
    names = sorted(str(path.relative_to(start)) for path in start.rglob("*") if path.is_file())

    def final(place: Path) -> Any:
        stored = find_cells(place)[0]
        record, curves = stored.read(), stored.curves()
        kept = curves[~curves["measure"].str.startswith("seconds")]
        return (
            record.status,
            record.headline,
            kept[["step", "measure", "value"]].to_csv(),
            [row["text"] for row in stored.samples()],
        )

    expected: list[Any] = []

    def resume(change: Callable[[Path], None]) -> str:
        if not expected:
            run_cell(cell, world.folder / "whole", lambda event: None)
            expected.append(final(world.folder / "whole"))
        place = world.new() / "runs"
        shutil.copytree(runs, place)
        change(place / start.relative_to(runs))
        outcome = call(run_cell, cell, place, lambda event: None)
        if outcome == "works" and final(place) != expected[0]:
            raise Badly(f"other numbers: {final(place)[:2]}")
        return outcome

    def rewrite(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        return lambda folder: (folder / name).write_bytes(content((folder / name).read_bytes())) and None

    for name in names:
        usual: Expected = "works" if name.startswith("checkpoints") else "either"
        for how, change in {
            "empty": lambda data: b"",
            "cut": lambda data: data[:-9],
            "zeros": lambda data: bytes(len(data)),
        }.items():
            yield Case(f"{name[:30]} {how}", usual, lambda a=(name, change): resume(rewrite(*a)))
        for number in range(3):
            seed = world.random.random()
            change = lambda data, seed=seed: mutated(data, random.Random(seed))
            yield Case(f"{name[:30]} mutated {number}", usual, lambda a=(name, change): resume(rewrite(*a)))
        yield Case(f"without {name[:30]}", usual, lambda name=name: resume(lambda folder: (folder / name).unlink()))
        pipe = lambda folder, name=name: ((folder / name).unlink(), os.mkfifo(folder / name)) and None
        yield Case(f"{name[:30]} a pipe", usual, lambda pipe=pipe: resume(pipe))
    yield Case("as it is", "works", lambda: resume(lambda folder: None))


SMALL = [
    "run",
    "--task",
    "norm",
    "--reward",
    "naive",
    *(part for pair in QUICK.items() for part in ("--set", f"{pair[0]}={pair[1]}")),
]


def surroundings(world: World) -> Iterator[Case]:
    """A machine that lacks something, as processes of their own."""

    def grid(*, before: str = "", workers: str = "0", **variables: str | None) -> str:
        out = world.new()
        line = f"{before} HARNESS {' '.join(SMALL)} --workers {workers} --out {out}"
        said = process(shell=line, **variables)
        outcome = said.outcome((0, 1))
        statuses = [json.loads(path.read_text())["status"] for path in out.rglob("cell.json")]
        if (
            "running" in statuses
            or (said.code == 1 and statuses != ["failed"])
            or (outcome == "works" and not statuses)
        ):
            raise Badly(f"code {said.code}, cells {statuses}: {said.err[-300:]}")
        return outcome if said.code != 1 else "refused"

    yield Case("as usual", "works", grid)
    for workers in "01":
        yield Case(f"HOME unset, {workers} workers", "works", lambda w=workers: grid(HOME=None, workers=w))
        yield Case(f"HOME nowhere, {workers} workers", "works", lambda w=workers: grid(HOME="/nonexistent", workers=w))
        yield Case(f"LC_ALL=C, {workers} workers", "works", lambda w=workers: grid(LC_ALL="C", LANG="C", workers=w))
        yield Case(
            f"64 open files, {workers} workers", "works", lambda w=workers: grid(before="ulimit -n 64;", workers=w)
        )
        yield Case(
            f"no files of more than 100 kB, {workers} workers",
            "refused",
            lambda w=workers: grid(before="ulimit -f 100;", workers=w),
        )
        yield Case(
            f"2 GB of memory, {workers} workers",
            "either",
            lambda w=workers: grid(before="ulimit -v 2000000;", workers=w),
        )
        yield Case(
            f"TMPDIR nowhere, {workers} workers", "either", lambda w=workers: grid(TMPDIR="/nonexistent", workers=w)
        )
        yield Case(
            f"TMPDIR a file, {workers} workers", "either", lambda w=workers: grid(TMPDIR="/etc/passwd", workers=w)
        )
        yield Case(
            f"the clock an hour back, {workers} workers",
            "works",
            lambda w=workers: grid(PYTHONSTARTUP="", TZ="UTC+23", workers=w),
        )
    for number in (12, 16, 24, 32, 48):
        yield Case(f"{number} open files", "either", lambda n=number: grid(before=f"ulimit -n {n};"))
    yield Case("the clock set back within a run", "works", lambda: clock_back(world))
    yield Case("other vocabularies for generator and target", "works", lambda: other_vocabulary(world))
    for name in ("sleeps", "forks", "threads"):
        yield Case(f"a reward that {name}", "works", lambda name=name: strange_reward(world, name))


def clock_back(world: World) -> str:
    """time.time goes back an hour at every call."""
    usual, calls = time.time, iter(range(10**9))
    time.time = lambda: usual() - 3600 * next(calls)
    try:
        said, (record, _) = trained(world, lambda n: list(range(n)))
    finally:
        time.time = usual
    return said.outcome() if record.status == "done" else "refused"


def other_vocabulary(world: World) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate([*alphabet, "<end>"])}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    folder = world.new()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", bos_token="<end>").save_pretrained(folder)
    GPT2LMHeadModel(GPT2Config(vocab_size=257, n_positions=128, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    out = world.new()
    given = [
        "--task",
        "norm",
        "--reward",
        "adam_metagrad",
        "--workers",
        "0",
        "--out",
        str(out),
        *flags(QUICK | {"target.model": str(folder)}),
    ]
    return command("run", *given).outcome()


def strange_reward(world: World, how: str) -> str:
    def reward(count: int) -> list[float]:
        if how == "sleeps":
            time.sleep(1)
        elif how == "forks":
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        else:
            threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(50)]
            [thread.start() for thread in threads], [thread.join() for thread in threads]
        return list(map(float, range(count)))

    said, (record, _) = trained(world, reward)
    return said.outcome() if record.status == "done" else "refused"
