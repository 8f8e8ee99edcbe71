"""How long the report takes and how large it gets: a generated result set of 200 cells, made into a page.

    python scripts/bench_report.py [--cells 200] [--keep FOLDER]

The numbers in these results are random; they are made here, in the tests and nowhere else. Targets: at most 20 s and a
page of at most 5 MB. Prints one line of JSON and ends with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.settings.profiles import load_profile, resolve
from harness.store.record import CellRecord, CellStore, identity

MOST_SECONDS = 20.0
MOST_BYTES = 5_000_000

REWARDS = ("adam_metagrad", "sgd_metagrad", "naive", "embedding", "fasttext", "levenshtein")
TASKS = ("lambada_de", "lambada_es", "lambada_fr", "lambada_it", "67", "qr", "norm", "uuid")
LEVEL = {
    "adam_metagrad": 0.92,
    "sgd_metagrad": 0.7,
    "naive": 0.05,
    "embedding": 0.3,
    "fasttext": 0.6,
    "levenshtein": 0.1,
}
HEADLINES = {
    "67": ("pixel_accuracy", "fraction", "higher", 1.0),
    "qr": ("pixel_accuracy", "fraction", "higher", 1.0),
    "norm": ("norm_change", "", "lower", None),
    "uuid": ("uuid_exact", "fraction", "higher", 1.0),
}
NEEDS_REFERENCES = ("embedding", "fasttext", "levenshtein")
WORDS = "la noche era fría y miró el jardín the old town lies north of a river and was founded in".split()


def generate(
    runs: Path,
    *,
    tasks: Sequence[str] = ("lambada_es", "67"),
    rewards: Sequence[str] = REWARDS,
    seeds: Iterable[int] = (0, 1, 2),
    variants: Sequence[int | None] = (None,),
    steps: int = 25,
    noise: float = 0.02,
    shift: Mapping[tuple[str, str], float] | None = None,
    assignments: Mapping[str, Any] | None = None,
    salt: int = 0,
    inject: str = "",
    texts: int = 3,
    more_measures: int = 0,
) -> int:
    """Writes random but plausible cells through the store; returns how many.

    `shift` moves the headline of a (task, reward), for planted regressions; `salt` is another measurement noise under
    the same seeds; `inject` is put into every text that a run could have made; `texts` are kept at every validation;
    `more_measures` of no meaning are added to training and to validation.
    """
    profile = load_profile("tiny")
    count = 0
    for task in tasks:
        for reward in rewards:
            for inner in variants:
                # As a grid over T has them: validated alike, after the longest.
                over = {"inner.steps": inner, "validation.inner_steps": max(filter(None, variants))} if inner else {}
                given = dict(assignments or {}) | over
                settings = resolve(profile, task, reward, given)
                for seed in seeds:
                    headline = HEADLINES.get(task, ("target_language", "fraction", "higher", 1.0))
                    record = CellRecord(
                        profile="tiny",
                        task=task,
                        reward=reward,
                        variant=f"T={inner}" if inner else "",
                        seed=seed,
                        identity=identity(task, reward, seed, settings, {}),
                        status="done",
                        settings=settings.model_dump(mode="json"),
                        given=given,
                        measure=headline[0],
                        unit=headline[1],
                        direction=headline[2],
                        ceiling=headline[3],
                        provenance=_provenance(),
                    )
                    if reward in NEEDS_REFERENCES and not task.startswith("lambada"):
                        record.status, record.reason = "unsupported", f"the task has no reference texts{inject}"
                        CellStore.of(runs, record).write(record)
                    else:
                        move = (shift or {}).get((task, reward), 0.0)
                        random = np.random.default_rng([_code(task), _code(reward), seed, inner or 0, salt])
                        _finish(runs, record, random, steps, noise, move, inject, texts, more_measures)
                    count += 1
    return count


def _rollout(step: int, random: np.random.Generator, inject: str) -> dict[str, Any]:
    """A kept rollout of training."""
    text, title = (" ".join(random.choice(WORDS, count)) + inject for count in (40, 6))
    reward, advantage = random.normal(size=2)
    said = {"finish": "length", "title": title, "article": f"{int(random.integers(16**8)):08x}"}
    return {"step": step, "index": 0, "text": text, "reward_value": 1e-9 * reward, "advantage": advantage, **said}


def _finish(
    runs: Path,
    record: CellRecord,
    random: np.random.Generator,
    steps: int,
    noise: float,
    move: float,
    inject: str,
    texts: int,
    more_measures: int,
) -> None:
    level = LEVEL.get(record.reward, 0.5) + move
    rows: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    arrays: dict[int, dict[str, np.ndarray]] = {}
    store = CellStore.of(runs, record)
    for step in range(steps + 1):
        grown = level * (1 - np.exp(-3 * step / steps))
        if step:
            train = {
                "reward_raw_mean": (1e-9 * grown, ""),
                "zero_spread": (0.02, "fraction"),
                "entropy": (3 - grown, "nats"),
                "grad_norm": (1.0 + noise * random.normal(), ""),
                "seconds_generation": (2.0 + 0.1 * random.random(), "s"),
                "seconds_reward": (1.6 + 0.1 * random.random(), "s"),
                "seconds_update": (1.2, "s"),
                **{f"more_{i}": (random.normal(), "") for i in range(more_measures)},
            }
            for measure, (value, unit) in train.items():
                rows.append(
                    {"step": step, "phase": "train", "measure": measure, "value": value, "unit": unit, "direction": ""}
                )
        if step % 5 and step != steps:
            continue
        values = _measures(record, grown, random, noise)
        values |= {f"more_{i}": float(random.normal()) for i in range(more_measures)}
        for measure, value in values.items():
            direction = record.direction if measure == record.measure else ""
            rows.append(
                {
                    "step": step,
                    "phase": "validation",
                    "measure": measure,
                    "value": value,
                    "unit": record.unit if measure == record.measure else "",
                    "direction": direction,
                }
            )
        if step == 0:
            record.initial, record.floor = values, values[record.measure]
        record.final, record.headline = values, values[record.measure]
        for index in range(texts):
            text = " ".join(random.choice(WORDS, 40)) + inject
            samples.append({"step": step, "index": index, "text": text, "language": "Spanish" + inject})
        if record.measure == "pixel_accuracy":
            arrays[step] = _arrays(record.task, random)
    if texts:
        store.write_rollouts(record, [_rollout(step, random, inject) for step in range(1, steps + 1)])
    record.steps_done, record.rollouts, record.zero_spread = steps, steps * 128, float(random.uniform(0, 0.1))
    record.seconds = {
        "load": 2.0,
        "generation": 50.0,
        "reward": 40 + 10 * random.random(),
        "update": 30.0,
        "validation": 8.0,
        "total": 135.0 + 5 * random.random(),
    }
    record.flops = {"generation": 1e11, "reward": 0.0, "update": 4e12, "validation": 8e10}
    record.floor_seconds = {phase: flops / 2e11 for phase, flops in record.flops.items()}
    record.peak_memory_bytes = int(9e8 + 1e8 * random.random())
    store.write_curves(record, rows)
    store.write_samples(samples)
    if arrays:
        store.write_arrays(arrays)
    store.write(record)


def _measures(record: CellRecord, grown: float, random: np.random.Generator, noise: float) -> dict[str, float]:
    def share(value: float) -> float:
        return float(np.clip(value + noise * random.normal(), 0, 1))

    if record.measure == "pixel_accuracy":
        return {"pixel_accuracy": share(0.5 + grown / 2), "phi": float(-0.7 + grown / 4)}
    if record.task == "norm":
        return {
            "norm_change": float(-grown - noise * abs(random.normal())),
            "norm_change_relative": float(-grown / 100),
        }
    if record.task == "uuid":
        return {
            "uuid_exact": share(grown**4),
            **{f"component_{i}": share(grown ** (1 + i / 2)) for i in range(1, 6)},
            "longest_piece_max": float(36 * grown),
        }
    collapse = 0.5 if record.reward == "fasttext" else 0.1
    return {
        "target_language": share(0.02 + grown),
        "fraction_english": share(0.95 - grown),
        "bigram_entropy": float(9 * (1 - collapse * grown) + noise * random.normal()),
        "distinct_2": share(0.8 - collapse * grown),
        "empty_fraction": 0.0,
    }


def _arrays(task: str, random: np.random.Generator) -> dict[str, np.ndarray]:
    """What the picture tasks draw from."""
    shape = (21, 21) if task == "qr" else (6, 7)
    return {"target": random.choice(np.array([-1, 1], dtype=np.int8), shape), "delta": random.normal(size=shape)}


def _provenance() -> dict[str, Any]:
    return {
        "commit": "0" * 40,
        "dirty": False,
        "python": "3.11",
        "platform": "generated",
        "device": "none",
        "cores": 2,
        "threads": 1,
        "packages": {"torch": "0"},
        "started": "2026-01-01T00:00:00+00:00",
    }


def _code(text: str) -> int:
    return zlib.crc32(text.encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="keep results and page in this folder")
    arguments = parser.parse_args()
    seeds = range(-(-arguments.cells // (len(TASKS) * 5)))
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.keep or Path(scratch)
        cells = generate(
            place / "runs", tasks=TASKS, rewards=REWARDS[:5], seeds=seeds, steps=120, texts=8, more_measures=10
        )
        from reports import site

        start = time.perf_counter()
        page = site.build(place / "runs", place / "site")
        spent, size = time.perf_counter() - start, page.stat().st_size
    print(
        json.dumps(
            {
                "cells": cells,
                "seconds": round(spent, 2),
                "bytes": size,
                "most_seconds": MOST_SECONDS,
                "most_bytes": MOST_BYTES,
            }
        )
    )
    return int(spent > MOST_SECONDS or size > MOST_BYTES)


if __name__ == "__main__":
    raise SystemExit(main())
