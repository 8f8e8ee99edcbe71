"""Two gloo processes with their shares of every batch give what one process gives."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rewards.metagradient import InnerOptimizer, NoScoredTokensError, metagradient, train
from rewards.metagradient.testing import build, lm_metric, make_batches
from tests.helpers.command import forked

OPTIMIZER = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-4)
SHARES = [(0, 3), (3, 4)]


def share(batches, rank):
    """Unequal shares, the second with an example that has no scored token."""
    return [{k: v[slice(*SHARES[rank])] for k, v in batch.items()} for batch in batches]


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        model = build("gpt2").float()
        batches, metric, group = share(make_batches(3, (4,)), rank), lm_metric(model), dist.group.WORLD
        out = {}
        for name, options in {"graphs": {}, "tight": {"memory_budget": 200_000}, "micro": {"microbatch": 2}}.items():
            found = metagradient(model, batches, metric, OPTIMIZER, process_group=group, **options)
            out[name] = (found.value, found.weights, found.plan.strategy)
        out["theta"] = train(model, batches, OPTIMIZER, process_group=group)
        empty = [{"input_ids": b["input_ids"], "labels": torch.full_like(b["labels"], -100)} for b in batches]
        try:
            train(model, empty, OPTIMIZER, process_group=group)
        except NoScoredTokensError as error:
            out["error"] = str(error)
        torch.save(out, os.path.join(folder, f"{rank}.pt"))
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_equal_one(tmp_path):
    mp.start_processes(worker, (str(tmp_path),), nprocs=2, start_method=forked().get_start_method())
    outs = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    model, batches = build("gpt2").float(), make_batches(3, (4,))
    expected = metagradient(model, batches, lm_metric(model), OPTIMIZER)
    theta = train(model, batches, OPTIMIZER)
    for name in ("graphs", "tight", "micro"):
        joined = torch.cat([torch.cat([outs[0][name][1].view(3, 3), outs[1][name][1].view(3, 1)], 1)]).flatten()
        assert torch.allclose(joined, expected.weights, rtol=2e-4, atol=1e-6 * float(expected.weights.abs().max()))
        assert all(out[name][0] == pytest.approx(expected.value, rel=1e-5) for out in outs)
        assert outs[0][name][2] == outs[1][name][2]
    assert outs[0]["tight"][2] != outs[0]["graphs"][2]
    for name, parameter in theta.items():
        assert torch.equal(outs[0]["theta"][name], outs[1]["theta"][name])
        assert torch.allclose(outs[0]["theta"][name], parameter, rtol=1e-4, atol=1e-5)
    assert all("step 0" in out["error"] for out in outs)
