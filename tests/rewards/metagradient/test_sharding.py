"""Processes that each hold a part of every vector give what one process gives, and hold no more than their part.

One set of three gloo processes runs everything, as a group of three and as a group of its first two.
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rewards.metagradient import (
    InnerOptimizer,
    MetagradientError,
    NonFiniteError,
    NoScoredTokensError,
    TorchOptRule,
    metagradient,
    sharding,
    train,
)
from rewards.metagradient.testing import COMMON, Double, build, lm_metric, make_batches, oracle, patch_metric, relative
from tests.helpers.command import forked

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")

OPTIMIZERS = {
    "adamw": InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6, weight_decay=0.1),
    "adam": InnerOptimizer("adam", lr=1e-2, eps_root=1e-6, weight_decay=0.1),
    "sgd": InnerOptimizer("sgd", lr=1e-2),
    "nesterov": InnerOptimizer("sgd", lr=1e-2, momentum=0.9, nesterov=True),
}
SIZES = (3, 4)
"""Examples of the steps. Of the second the last one has no scored token, and of three ranks one then has two."""


def head_of(model) -> str:
    return next(n for n, p in model.named_parameters() if p is model.get_output_embeddings().weight)


def patch(model):
    return patch_metric(model, head_of(model))


def named_patch(model):
    metric = patch(model)
    metric.reads = (head_of(model),)
    return metric


def norms(model):
    """Reads parameters without the model, one of them in another dtype."""
    return lambda params: sum(p.square().sum() for p in params.values()) + params[head_of(model)].float().norm()


CASES: dict[str, dict[str, Any]] = {  # `ranks`: of the group that runs it
    "gpt2-tied-3-adamw": {"ranks": 3},
    "gpt2-untied-1-adamw": {"tied": False, "steps": 1, "ranks": 3},
    "llama-tied-1-adamw": {"kind": "llama", "steps": 1, "ranks": 3},
    "llama-untied-3-adamw": {"kind": "llama", "tied": False, "ranks": 3},
    "llama-untied-3-sgd": {"kind": "llama", "tied": False, "name": "sgd", "ranks": 3},
}
CASES |= {
    "adam": {"name": "adam"},
    "nesterov": {"name": "nesterov"},
    "microbatches": {"microbatch": 1},
    "a patch": {"metric": patch},
    "a patch at one step": {"metric": patch, "tied": False, "steps": 1},
    "a patch that is named": {"metric": named_patch, "tied": False},
    "a named patch at one step": {"metric": named_patch, "tied": False, "steps": 1},
    "norms": {"metric": norms, "kind": "llama"},
    "tokens": {"per_token": True, "tied": False, "metric": patch},
    "tokens at one step": {"per_token": True, "tied": False, "metric": named_patch, "steps": 1},
    "recomputed": {"vectors": 11.1, "plan": {"gradients": "recomputed"}},
    "not recorded": {"vectors": 4.1, "plan": {"recorded": False}, "steps": 1},
    "bfloat16": {"dtype": torch.bfloat16, "name": "sgd"},
    "fewer examples than ranks": {"sizes": (1, 2), "ranks": 3},
    "two microbatches on one rank and one on the others": {"microbatch": 1, "ranks": 3},
}


DEFAULTS = {"kind": "gpt2", "tied": True, "steps": 3, "name": "adamw", "metric": lm_metric, "sizes": SIZES}
DEFAULTS |= {"vectors": None, "plan": {}, "ranks": 2, "dtype": torch.float64}


def result(case: dict[str, Any], group: dist.ProcessGroup | None = None) -> tuple[Tensor, ...]:
    """(value, weights in batch order, losses); of a group, from the shares of all its ranks."""
    case = DEFAULTS | case
    kind, tied, steps, name, metric, sizes, vectors, plan, _, dtype = (case.pop(k) for k in DEFAULTS)
    model, batches, optimizer = build(kind, tied, dtype), make_batches(steps, sizes), OPTIMIZERS[name]
    wide = dtype is torch.float64
    metric, precision = metric(model if wide else build(kind, tied, dtype).float()), Double() if wide else nullcontext()
    if group is None:
        with precision:
            found = metagradient(model, batches, metric, optimizer, **case)
        return torch.tensor(found.value), found.weights, found.losses
    rank, count = dist.get_rank(group), dist.get_world_size(group)
    if vectors:  # of this rank's size
        case["memory_budget"] = int(vectors * 8 * sum(-(-p.numel() // count) for p in model.parameters()))
    mine = [{k: v[rank::count] for k, v in batch.items()} for batch in batches]
    with precision:
        found = metagradient(model, mine, metric, optimizer, process_group=group, sharded=True, **case)
    assert all(getattr(found.plan, key) == value for key, value in plan.items()), found.plan
    steps_of = torch.arange(sum(len(b["labels"]) for b in batches)).split([len(b["labels"]) for b in batches])
    places = torch.cat([part[rank::count] for part in steps_of])
    whole = torch.zeros(2, sum(map(len, steps_of)), dtype=torch.float64)
    whole[:, places] = torch.stack([found.weights, found.losses]).double()
    dist.all_reduce(whole, group=group)
    return torch.tensor(found.value), whole[0], whole[1]


class Live(TorchDispatchMode):
    """Bytes of the storages that are made inside and still there: `now`, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return out

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def held(group: dist.ProcessGroup | None = None) -> tuple[int, int]:
    """(bytes that a call holds at most beside the model, those of gathered tensors among them)."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=6, n_embd=48, n_head=2, n_positions=16, **COMMON)
    model, batches = transformers.GPT2LMHeadModel(config).double().eval(), make_batches(3, (6,))
    metric, live, gathered, whole = lm_metric(model), Live(), Live(), sharding.Cut.whole
    options = {} if group is None else {"process_group": group, "sharded": True}
    if group is not None:
        rank, count = dist.get_rank(group), dist.get_world_size(group)
        batches = [{k: v[rank::count] for k, v in batch.items()} for batch in batches]

    def counted(self, *args):
        found = whole(self, *args)
        for tensor in found:
            gathered.add(tensor)
        return found

    sharding.Cut.whole = counted
    try:
        with live:
            metagradient(model, batches, metric, OPTIMIZERS["adamw"], memory_budget=10**9, **options)
    finally:
        sharding.Cut.whole = whole
    return live.most, gathered.most


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g * weight, (g * x).sum((0, 1))


class Custom(torch.nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.weight = norm.weight

    def forward(self, x):
        return Scale.apply(x, self.weight)


def failures(group: dist.ProcessGroup) -> dict[str, str]:
    """What each mistake says, on this rank."""
    model, batches = build("gpt2"), make_batches(2)
    empty = [{"input_ids": b["input_ids"], "labels": torch.full_like(b["labels"], -100)} for b in batches]
    torchopt = pytest.importorskip("torchopt")
    wild = InnerOptimizer("sgd", lr=1e200)
    calls = {
        "empty": (NoScoredTokensError, empty, OPTIMIZERS["sgd"]),
        "rule": (MetagradientError, batches, TorchOptRule(torchopt.adam(1e-2))),
        "infinite": (NonFiniteError, batches, wild),
    }
    said = {}
    custom = build("gpt2")
    custom.transformer.ln_f = Custom(custom.transformer.ln_f)
    with pytest.raises(MetagradientError) as caught:
        metagradient(custom, batches, lm_metric(model), OPTIMIZERS["sgd"], process_group=group, sharded=True)
    said["custom"] = str(caught.value)
    broken, one_token = build("gpt2", tied=False), [{k: v.clone() for k, v in b.items()} for b in batches]
    with torch.no_grad():
        broken.transformer.wte.weight[5] = torch.nan
    for batch in one_token:
        batch["input_ids"].masked_fill_(batch["input_ids"] == 5, 6)
        batch["input_ids"][0, 0] = 6 if dist.get_rank(group) else 5
    with pytest.raises(NonFiniteError) as caught:
        metagradient(broken, one_token, lm_metric(model), OPTIMIZERS["sgd"], process_group=group, sharded=True)
    said["one rank"] = str(caught.value)
    for name, (error, given, optimizer) in calls.items():
        with pytest.raises(error) as caught:
            metagradient(model, given, lm_metric(model), optimizer, process_group=group, sharded=True)
        said[name] = str(caught.value)
    return said


def trained(group: dist.ProcessGroup | None = None) -> dict[str, Tensor]:
    model, batches = build("llama"), make_batches(2)
    options = {} if group is None else {"process_group": group, "sharded": True}
    if group is not None:
        rank, count = dist.get_rank(group), dist.get_world_size(group)
        batches = [{k: v[rank::count] for k, v in batch.items()} for batch in batches]
    with Double():
        found = train(model, batches, OPTIMIZERS["adamw"], **options)
    return {name: value.detach() * 1 for name, value in found.items()}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    try:
        for ranks in (2, 3):
            group = dist.new_group(list(range(ranks)))
            if rank < ranks:
                mine = {name: case for name, case in CASES.items() if case.get("ranks", 2) == ranks}
                out = {name: result(case, group) for name, case in mine.items()}
                out |= {"held": held(group), "trained": trained(group), "failures": failures(group)}
                torch.save(out, Path(folder, f"{ranks}-{rank}.pt"))
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def outs(tmp_path_factory) -> dict[int, list[dict[str, Any]]]:
    """Ranks -> what each of them found."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(worker, (str(folder),), nprocs=3, start_method=forked().get_start_method())
    load = lambda ranks, rank: torch.load(folder / f"{ranks}-{rank}.pt", weights_only=True)
    return {ranks: [load(ranks, rank) for rank in range(ranks)] for ranks in (2, 3)}


@pytest.mark.parametrize("name", CASES)
def test_ranks_equal_one_process(name, outs):
    expected = result(CASES[name])
    for out in outs[CASES[name].get("ranks", 2)]:
        for got, wanted in zip(out[name], expected, strict=True):
            assert relative(got, wanted) <= (0.03 if name == "bfloat16" else 1e-10)


def test_a_case_equals_the_oracle(outs):
    model, batches = build("llama", tied=False), make_batches(3, SIZES)
    with Double():
        _, expected = oracle(model, batches, lm_metric(model), OPTIMIZERS["adamw"])
    assert relative(outs[3][0]["llama-untied-3-adamw"][1], expected) <= 1e-9


def test_a_rank_holds_its_part_and_a_layer(outs):
    whole, _ = held()
    largest = 8 * (48 * 4 * 48 + 4 * 48)  # the first layer of an MLP, its bias too, float64
    for ranks, found in outs.items():
        for out in found:
            most, gathered = out["held"]
            assert most <= whole * (1 / ranks + 0.05), f"{most / whole:.3f} of one process's bytes with {ranks} ranks"
            assert gathered <= 3 * largest, f"{gathered / largest:.2f} layers whole at a time"


def test_what_a_sharded_training_ends_with_is_whole_wherever_it_is_used(outs):
    expected = trained()
    for found in outs.values():
        for out in found:
            assert list(out["trained"]) == list(expected)
            assert all(relative(out["trained"][name], value) <= 1e-12 for name, value in expected.items())


def test_every_rank_is_told_what_went_wrong(outs):
    for found in outs.values():
        for out in found:
            said = out["failures"]
            assert "No token of step 0" in said["empty"]
            assert "TorchOptRule cannot be sharded" in said["rule"] and "adamw" in said["rule"]
            assert "not finite" in said["infinite"] and "loss of inner step 0" in said["one rank"]
            assert "custom autograd function" in said["custom"]


def test_alone_it_says_what_it_takes():
    model = build("gpt2")
    with pytest.raises(MetagradientError, match="process_group"):
        metagradient(model, make_batches(1), lm_metric(model), OPTIMIZERS["sgd"], sharded=True)
