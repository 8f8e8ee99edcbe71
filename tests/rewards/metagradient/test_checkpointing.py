"""The cost model, and that no plan changes the numbers."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from small_models import build, lm_metric, make_batches

from rewards.metagradient import InnerOptimizer, MemoryBudgetError, allocator, checkpointing, metagradient
from rewards.metagradient.checkpointing import Costs, Tier, choose
from rewards.metagradient.gradients import Objective

MB = 1 << 20
OPTIMIZER = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6)


def costs(**changes) -> Costs:
    return Costs(
        **{"vector": MB, "slots": 2, "graph": 10 * MB, "gradient_seconds": 1.0, "update_seconds": 0.01} | changes
    )


def test_plenty_of_memory_keeps_every_graph():
    found = choose(8, costs(), [Tier("memory", 1000 * MB)])
    assert (found.strategy, found.graphs, found.extra_passes) == ("unrolled", 8, 0)


def test_no_more_graphs_than_pay_however_large_the_budget():
    found = choose(96, costs(graphs_at_most=45 * MB), [Tier("memory", 10_000 * MB)])
    assert (found.strategy, found.graphs, found.extra_passes) == ("kept", 4, 0)
    assert choose(4, costs(graphs_at_most=45 * MB), [Tier("memory", 10_000 * MB)]).strategy == "unrolled"


def test_the_engine_asks_for_no_more_graphs_than_pay(monkeypatch):
    model = build("gpt2")
    batches, metric = make_batches(3), lm_metric(model)
    kept = metagradient(model, batches, metric, OPTIMIZER).plan
    monkeypatch.setattr(checkpointing, "GRAPHS_AT_MOST", 1)
    few = metagradient(model, batches, metric, OPTIMIZER).plan
    assert (kept.graphs, few.graphs) == (2, 0) and kept.recorded and few.recorded  # a recording is no such graph


def test_more_graphs_pay_where_freed_memory_stays(monkeypatch):
    before = checkpointing.graphs_at_most("cpu")
    monkeypatch.setattr(allocator, "_keeps_freed_memory", True)
    assert before == 2 << 30 and checkpointing.graphs_at_most("cpu") == 8 << 30
    assert checkpointing.graphs_at_most("cuda") == float("inf")


def test_the_first_step_keeps_its_recording_where_that_is_smaller_than_a_graph():
    def found(budget: int, **changes):
        chosen = choose(4, costs(**{"recording": 6 * MB} | changes), [Tier("memory", budget * MB)])
        return chosen.strategy, chosen.recorded, chosen.graphs

    assert found(100) == ("unrolled", True, 3)
    assert found(40) == ("kept", True, 2)
    assert found(40, recording=20 * MB) == ("kept", False, 2)
    assert found(14) == ("kept", False, 0)


def test_less_memory_less_kept():
    names = [choose(64, costs(graph=500 * MB), [Tier("memory", n * MB)]).strategy for n in (400, 150, 60)]
    assert names == ["kept", "replayed", "recomputed"]


def test_the_disk_is_used_where_memory_is_too_small_or_recomputation_dearer():
    tiers = [Tier("memory", 8 * MB), Tier("disk", 10**12, 1e-9)]
    found = choose(64, costs(graph=500 * MB), tiers)
    assert found.strategy == "spilled" and found.spilled_bytes > 0 and found.bytes <= 8 * MB
    cheap = choose(
        64, costs(graph=500 * MB, gradient_seconds=1e-6, update_seconds=0.0), [Tier("memory", 60 * MB), tiers[1]]
    )
    assert cheap.strategy == "recomputed"


def test_too_small_a_budget_says_what_it_takes():
    with pytest.raises(MemoryBudgetError, match="the least is .* spill_dir") as caught:
        choose(64, costs(), [Tier("memory", 3 * MB)])
    least = int(str(caught.value).split("the least is ")[1].split(" ")[0].replace(",", ""))
    assert choose(64, costs(), [Tier("memory", least)]).bytes <= least
    with pytest.raises(MemoryBudgetError):
        choose(64, costs(), [Tier("memory", least - 1)])


@given(
    steps=st.integers(1, 300),
    slots=st.integers(0, 3),
    graph=st.integers(1, 100 * MB),
    budget=st.integers(100 * MB, 3000 * MB),
    single=st.booleans(),
    disk=st.booleans(),
    recording=st.none() | st.integers(1, 100 * MB),
)
def test_every_plan_respects_its_budget(steps, slots, graph, budget, single, disk, recording):
    tiers = [Tier("memory", budget)] + [Tier("disk", 10**10, 2e-9)] * disk
    known = costs(slots=slots, graph=graph, single_pass=single, recording=recording)
    try:
        found = choose(steps, known, tiers)
    except MemoryBudgetError:
        assume(False)
    assert found.bytes <= budget and 1 <= found.segment <= steps and 0 <= found.graphs <= steps - found.recorded
    assert found.extra_passes <= 1
    more = choose(steps, known, [Tier("memory", 2 * budget), *tiers[1:]])
    assert more.seconds <= found.seconds


def forced(monkeypatch, **changes):
    """Every call plans with these fields, whatever the cost model says."""
    from dataclasses import replace

    from rewards.metagradient import engine

    original = engine.choose
    monkeypatch.setattr(engine, "choose", lambda *args: replace(original(*args), **changes))


PLANS = {
    "kept": {"segment": 1, "gradients": "memory", "graphs": 0},
    "nothing_recorded": {"segment": 1, "gradients": "memory", "graphs": 0, "recorded": False},
    "some_graphs": {"segment": 1, "gradients": "memory", "graphs": 2},
    "replayed_2": {"segment": 2, "gradients": "memory", "graphs": 0},
    "replayed_all": {"segment": 5, "gradients": "memory", "graphs": 1},
    "recomputed_1": {"segment": 1, "gradients": "recomputed", "graphs": 0, "joint": True},
    "recomputed_2": {"segment": 2, "gradients": "recomputed", "graphs": 0, "joint": True},
    "recomputed_3_apart": {"segment": 3, "gradients": "recomputed", "graphs": 2, "joint": False},
    "disk": {"segment": 2, "gradients": "disk", "checkpoints": "disk", "graphs": 0},
    "disk_gradients": {"segment": 5, "gradients": "disk", "checkpoints": "memory", "graphs": 1},
}


@pytest.mark.parametrize("changes", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("microbatch", [None, 2])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_no_plan_changes_a_bit(monkeypatch, tmp_path, changes, microbatch, name):
    model, batches = build("gpt2"), make_batches(5)
    optimizer = InnerOptimizer(name, lr=1e-2, eps_root=1e-6)
    metric = lm_metric(model)
    expected = metagradient(model, batches, metric, optimizer, microbatch=microbatch)
    assert expected.plan.strategy == "unrolled"
    forced(monkeypatch, **changes)
    found = metagradient(model, batches, metric, optimizer, microbatch=microbatch, spill_dir=str(tmp_path))
    assert found.value == expected.value
    if changes["graphs"] or changes["gradients"] != "recomputed":
        assert torch.allclose(found.weights, expected.weights, rtol=1e-12, atol=0)
    assert torch.equal(found.losses, expected.losses)
    assert list(tmp_path.iterdir()) == []


def test_budget_of_the_caller_reaches_the_plan(tmp_path):
    model, batches = build("gpt2"), make_batches(6)
    metric = lm_metric(model)
    vector = 8 * sum(p.numel() for p in model.parameters())
    free = metagradient(model, batches, metric, OPTIMIZER)
    for budget in (30 * vector, 20 * vector, 15 * vector):
        found = metagradient(model, batches, metric, OPTIMIZER, memory_budget=budget)
        assert found.plan.bytes <= found.plan.budget == budget
        assert torch.allclose(found.weights, free.weights, rtol=1e-10, atol=0)
    with pytest.raises(MemoryBudgetError, match="raise it"):
        metagradient(model, batches, metric, OPTIMIZER, memory_budget=2 * vector)
    spilled = metagradient(model, batches, metric, OPTIMIZER, memory_budget=5 * vector, spill_dir=str(tmp_path))
    assert spilled.plan.strategy == "spilled" and torch.allclose(spilled.weights, free.weights, rtol=1e-10, atol=0)


@pytest.mark.parametrize("vectors", [15, 20, 30])
def test_a_busy_machine_plans_and_computes_the_same(vectors, monkeypatch):
    model, batches = build("gpt2"), make_batches(6)
    metric = lm_metric(model)
    budget = vectors * 8 * sum(p.numel() for p in model.parameters())
    quick = metagradient(model, batches, metric, OPTIMIZER, memory_budget=budget)
    first = Objective.first
    monkeypatch.setattr(Objective, "first", lambda *a, **k: time.sleep(0.5) or first(*a, **k))
    slow = metagradient(model, batches, metric, OPTIMIZER, memory_budget=budget)
    assert slow.plan == quick.plan and torch.equal(slow.weights, quick.weights)


def test_a_failure_leaves_no_files(tmp_path, monkeypatch):
    model, batches = build("gpt2"), make_batches(3)
    forced(monkeypatch, segment=1, gradients="disk", checkpoints="disk", graphs=0)

    def metric(params):
        raise KeyError("mine")

    with pytest.raises(KeyError):
        metagradient(model, batches, metric, OPTIMIZER, spill_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_default_budget_is_a_share_of_what_is_free():
    (memory,) = checkpointing.free_tiers(torch.device("cpu"), None, None)
    assert 0 < memory.free <= checkpointing.host_free()
