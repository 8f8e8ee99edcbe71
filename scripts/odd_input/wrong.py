"""What is silently wrong: weights, scales, what a reward returns, damaged tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from scripts.odd_input.world import QUICK, Badly, Case, Expected, Said, World, call, command, flags


def weights(world: World) -> Iterator[Case]:
    """Models whose tensors are not those of their architecture."""
    from safetensors.torch import load_file, save_file

    from harness import assets

    whole = load_file(world.model / "model.safetensors")

    def load(change: Callable[[dict[str, Any]], None]) -> str:
        folder = world.new() / "model"
        shutil.copytree(world.model, folder)
        tensors = dict(whole)
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

        def both() -> None:
            assets.check_model(str(folder))
            assets.load_model(str(folder))

        return call(both)

    def rename(name: str, to: str) -> Callable[[dict[str, Any]], None]:
        return lambda tensors: tensors.update({to: tensors.pop(name)})

    names = sorted(whole)
    for name in names[::3]:
        yield Case(f"without {name}", "refused", lambda name=name: load(lambda t: t.pop(name)))
        yield Case(f"{name} renamed", "refused", lambda name=name: load(rename(name, f"old.{name}")))
        cut = lambda t, name=name: t.update({name: t[name][:-1].clone()})
        yield Case(f"{name} of another shape", "refused", lambda cut=cut: load(cut))
    for number in range(10):
        extra = lambda t, number=number: t.update(
            {f"transformer.h.{90 + number}.extra.weight": whole[names[0]].clone()}
        )
        yield Case(f"unexpected tensor {number}", "refused", lambda extra=extra: load(extra))
    yield Case("all renamed", "refused", lambda: load(lambda t: [t.update({f"x.{n}": t.pop(n)}) for n in list(t)]))
    yield Case("as it is", "works", lambda: load(lambda t: None))
    yield Case("in another order", "works", lambda: load(lambda t: [t.update({n: t.pop(n)}) for n in reversed(names)]))


def trained(world: World, function: Callable[[int], Any], *, task: str = "norm") -> tuple[Said, Any]:
    """The command's end and the record of one quick cell whose reward returns `function(completions)`."""
    from harness.registry import REWARDS, register_reward
    from harness.store.frames import find_cells

    name = f"odd_{next(world.numbers)}"
    REWARDS.names()
    register_reward(name, summary="odd")(
        lambda context: lambda prompts, completions, completion_ids, **columns: function(len(completions))
    )
    runs = world.new()
    said = command("run", "--task", task, "--reward", name, "--workers", "0", "--out", str(runs), *flags(QUICK))
    cells = find_cells(runs)
    return said, (cells[0].read(), cells[0].curves()) if cells else (None, None)


def scales(world: World) -> Iterator[Case]:
    """Rewards of every size that a float has."""

    def run(scale: float, offset: float) -> str:
        said, (record, curves) = trained(world, lambda n: [offset + scale * k for k in range(n)])
        if record is None or record.status not in ("done", "failed"):
            raise Badly(f"the cell is {record and record.status}: {said.err[-300:]}")
        if record.status == "failed":
            return "refused" if said.code == 1 and record.reason else Badly("no reason")
        norm = curves.loc[curves["measure"] == "grad_norm", "value"]
        if record.zero_spread or not (norm > 0).any():
            raise Badly(f"done, with zero spread {record.zero_spread} and gradients {norm.tolist()}")
        return said.outcome()

    for power in range(-320, 309, 17):
        usual: Expected = "works" if -30 < power < 30 else "either"
        yield Case(f"rewards near 1e{power}", usual, lambda power=power: run(float(f"1e{power}"), 0.0))
        yield Case(f"rewards near -1e{power}", usual, lambda power=power: run(-float(f"1e{power}"), 0.0))


def returns(world: World) -> Iterator[Case]:
    """What rewards return and raise, and texts that are none."""
    import numpy as np
    import torch

    def leave(error: BaseException) -> Callable[[int], Any]:
        def reward(count: int) -> Any:
            raise error

        return reward

    def run(function: Callable[[int], Any]) -> str:
        said, (record, _) = trained(world, function)
        if record is None or record.status not in ("done", "failed"):
            raise Badly(f"code {said.code}, the cell is {record and record.status}: {said.err[-300:]}")
        if record.status == "failed" and (said.code != 1 or not record.reason):
            raise Badly(f"failed with code {said.code} and the reason {record.reason!r}")
        return "works" if record.status == "done" and said.code == 0 else "refused"

    good = {
        "floats": lambda n: [float(k) for k in range(n)],
        "whole numbers": lambda n: list(range(n)),
        "NumPy floats": lambda n: list(np.arange(n, dtype=np.float32)),
        "an array": lambda n: np.arange(n, dtype=float),
        "a tensor": lambda n: torch.arange(n).float(),
        "a tuple": lambda n: tuple(range(n)),
        "tensors": lambda n: list(torch.arange(n).float()),
    }
    bad = {
        "a dict": lambda n: dict.fromkeys(range(n), 0.5),
        "a dict of texts": lambda n: {str(k): 0.5 for k in range(n)},
        "a set": lambda n: set(range(n)),
        "a text": lambda n: "1" * n,
        "bytes": lambda n: bytes(range(n)),
        "texts": lambda n: ["0.5"] * n,
        "a number": lambda n: 0.5,
        "nothing": lambda n: None,
        "too few": lambda n: [0.5] * (n - 1),
        "too many": lambda n: [0.5] * (n + 1),
        "none at all": lambda n: [],
        "nested": lambda n: [[0.5]] * n,
        "complex": lambda n: [1j] * n,
        "a plane": lambda n: np.zeros((n, 2)),
        "objects": lambda n: [object()] * n,
        "NaN": lambda n: [float("nan")] * n,
        "infinity": lambda n: [float("inf")] + [0.0] * (n - 1),
        "huge": lambda n: [10**400] * n,
        "exit 0": leave(SystemExit(0)),
        "exit 1": leave(SystemExit(1)),
        "exit with words": leave(SystemExit("bye")),
        "exit": leave(SystemExit()),
        "a generator's end": leave(GeneratorExit()),
        "no more": leave(StopIteration()),
        "out of memory": leave(MemoryError()),
        "too deep": leave(RecursionError("deep")),
        "assertion": leave(AssertionError()),
        "lone surrogate": leave(ValueError("bad \ud800 text")),
        "lines": leave(ValueError("one\ntwo\x1b[31m")),
        "a megabyte": leave(ValueError("x" * 2**20)),
        "no text": leave(ValueError()),
        "an error that cannot be shown": leave(type("E", (Exception,), {"__str__": lambda self: 1 / 0})()),
    }
    for name, function in good.items():
        yield Case(f"a reward returns {name}", "works", lambda function=function: run(function))
    for name, function in bad.items():
        yield Case(f"a reward returns or raises {name}", "refused", lambda function=function: run(function))
    yield from parquets(world)


def parquets(world: World) -> Iterator[Case]:
    """Tables of texts whose texts are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def run(values: list[Any], kind: Any, option: str) -> str:
        path = world.new("texts.parquet")
        pq.write_table(pa.table({"text": pa.array(values, type=kind)}), path)
        given = ["--task", "lambada_es", "--reward", "levenshtein", "--workers", "0", "--out", str(world.new())]
        chosen = {option: str(path)} | ({"data.validation_articles": str(path)} if option == "data.articles" else {})
        return command("run", *given, *flags(QUICK | chosen)).outcome()

    texts = world.articles
    tables = {
        "nulls": ([None] * 24, pa.string()),
        "some nulls": ([*texts[:20], None], pa.string()),
        "whole numbers": (list(range(24)), pa.int64()),
        "numbers": ([0.5] * 24, pa.float64()),
        "truth": ([True] * 24, pa.bool_()),
        "bytes": ([b"\xff\xfe"] * 24, pa.binary()),
        "lists": ([["a"]] * 24, pa.list_(pa.string())),
        "empty texts": ([""] * 24, pa.string()),
        "blanks": ([" \n"] * 24, pa.string()),
        "none": ([], pa.string()),
        "only null": ([None] * 24, pa.null()),
    }
    for (name, (values, kind)), option in product(tables.items(), ("data.articles", "data.references")):
        yield Case(f"{option} of {name}", "refused", lambda a=(values, kind, option): run(*a))
    yield Case("articles of texts", "works", lambda: run(texts, pa.string(), "data.articles"))
    yield Case("articles of large texts", "works", lambda: run(texts, pa.large_string(), "data.articles"))
