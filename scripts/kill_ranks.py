"""A cell of two processes of a launcher, killed over and over and started again: the same bits in the end?

    python scripts/kill_ranks.py [--kills 20] [--ranks 2] [--steps 6] [--seed 0]

The cell runs once undisturbed. Then launches of it are killed at random moments: one rank by SIGKILL, all at once with
their launcher as a machine that goes, or the launcher by SIGTERM, which is passed on and waited for. Each starts where
the one before left it; a cell that reaches its end is compared with the undisturbed one (curves without seconds, texts,
rollouts, the generator's hash) and begun anew. Prints the counts as JSON; exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

SETTINGS = {
    "grpo.prompts_per_step": 4,
    "grpo.updates_per_step": 1,
    "grpo.microbatch": 8,
    "grpo.checkpoint_every": 1,
    "generator.max_completion_tokens": 24,
    "validation.every": 2,
    "validation.prompts": 6,
    "data.article_count": 32,
    "keep.rollouts": "all",
}
WAYS = ("a rank", "all at once", "SIGTERM")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6, help="GRPO steps of the cell")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-ranks-"))
    try:
        found = trial(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))
    return 1 if found["lost"] else 0


def trial(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    begun, draw = time.monotonic(), random.Random(options.seed)
    counts: Counter[str] = Counter()
    lost: list[str] = []
    whole, cut = folder / "whole", folder / "cut"
    if code := launch(whole, options).wait():
        raise SystemExit(f"The undisturbed launch ended with code {code}.")
    span, expected = time.monotonic() - begun, outcome(whole)
    ways = [WAYS[number % len(WAYS)] for number in range(options.kills)]
    while ways:
        process = launch(cut, options)
        try:
            process.wait(draw.uniform(0.3 * span, span))
        except subprocess.TimeoutExpired:
            disturb(process, ways[0], draw)
            counts[ways.pop(0)] += 1
            process.wait()
        else:
            finish(process.returncode, cut, expected, counts, lost)
    while (cut / "tiny").exists() or not counts["compared"]:
        finish(launch(cut, options).wait(), cut, expected, counts, lost)
    return {"kills": dict(counts), "ranks": options.ranks, "seconds": round(time.monotonic() - begun), "lost": lost}


def finish(code: int, cut: Path, expected: dict[str, Any], counts: Counter[str], lost: list[str]) -> None:
    """A launch has ended by itself: the cell is done, and as it should be. Then it begins anew."""
    if code:
        lost.append(f"a launch that nobody disturbed ended with code {code}")
    elif (found := outcome(cut)) != expected:
        lost.append("other than undisturbed: " + ", ".join(name for name in expected if found[name] != expected[name]))
    counts["compared"] += 1
    shutil.rmtree(cut)


def launch(out: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    words = ["-m", "torch.distributed.run", f"--nproc-per-node={options.ranks}", "--rdzv-backend=c10d", "--standalone"]
    words += [
        "-m",
        "harness",
        "run",
        "--task",
        "norm",
        "--reward",
        "adam_metagrad",
        "--workers",
        "0",
        "--out",
        str(out),
    ]
    words += [f"--set={key}={value}" for key, value in (SETTINGS | {"grpo.steps": options.steps}).items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *words], env=environment, **quiet)


def disturb(process: subprocess.Popen[bytes], way: str, draw: random.Random) -> None:
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if way == "SIGTERM" or not ranks:
        process.send_signal(signal.SIGTERM)
        return
    victims = [int(draw.choice(ranks))] if way == "a rank" else [process.pid, *map(int, ranks)]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)


def outcome(out: Path) -> dict[str, Any]:
    """The cell without times."""
    from harness.store.frames import find_cells

    (cell,) = find_cells(out)
    record, curves = cell.read(), cell.curves()
    return {
        "status": record.status,
        "curves": curves[~curves["measure"].str.startswith("seconds")].to_csv(),
        "texts": cell.samples(),
        "rollouts": cell.rollouts().to_csv(),
        "generator": record.generator_sha256,
        "files": sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()),
    }


if __name__ == "__main__":
    raise SystemExit(main())
