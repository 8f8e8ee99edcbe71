"""The numbers that stored results were made with, and that they do not meet."""

from __future__ import annotations

from harness.training.seeds import pool_seed, rollout_seed, validation_seed


def test_the_seeds_of_stored_results():
    assert (validation_seed(0, 0), validation_seed(7, 12)) == (10_000, 80_012)
    assert (rollout_seed(0, 5), rollout_seed(7, 12)) == (5, 7_000_033)
    assert pool_seed(3) == 20_003


def test_cells_share_no_validation_and_no_rollouts():
    steps, updates = range(0, 10_000, 97), range(0, 50_000, 501)
    validations = [validation_seed(seed, step) for seed in range(20) for step in steps]
    rollouts = [rollout_seed(seed, update) for seed in range(20) for update in updates]
    assert len(set(validations)) == len(validations) and len(set(rollouts)) == len(rollouts)
    assert min(validations) >= 10_000  # what users give as seeds of training stays below
