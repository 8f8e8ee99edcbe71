"""The seeds of all that is generated, made from a cell's seed, so that no two purposes share random numbers.

Validations take 10,000 numbers a cell seed, one a GRPO step, from 10,000 on: no run is longer than that, and numbers
below 10,000 are what users give as seeds, which training uses as they are. A fidelity pool starts where the validations
of cell seed 1 do; the two never meet in one cell. Rollouts of training have streams of their own (`rollout_seed`).
"""

from __future__ import annotations

STEPS_PER_SEED = 10_000
"""More than any run has GRPO steps (the paper's longest has 3,840)."""
UPDATES_PER_SEED = 1_000_003
"""More than any run has optimizer updates (the paper's longest, `qr`, some 150,000). A prime, so that seeds of
neighbouring cells have no common period."""
POOL_START = 20_000
DATASET_START = 2**60


def validation_seed(seed: int, step: int) -> int:
    """Of the held-out rollouts after GRPO step `step` (0: the untuned generator)."""
    return STEPS_PER_SEED * (seed + 1) + step


def rollout_seed(seed: int, update: int) -> int:
    """Of the training rollouts made before optimizer update `update`, where the harness draws them itself: each row
    hashes it with its own number (harness/training/generation.py)."""
    return UPDATES_PER_SEED * seed + update


def dataset_seed(seed: int) -> int:
    """Of a generated data set's rows (harness/generated): beyond those of every training's rollouts."""
    return DATASET_START + seed


def pool_seed(seed: int) -> int:
    """Of a fidelity pool's rollouts."""
    return POOL_START + seed
