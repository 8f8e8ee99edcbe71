"""The plan's counts against PyTorch's own FLOP counter, its totals, and what the command prints; all offline."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from harness.contracts import HarnessError, MetricOf
from harness.grid import cross_product
from harness.machine.devices import DATASHEETS, Device
from harness.machine.terminal import Terminal
from harness.planning.cost import (
    Lengths,
    PhaseWork,
    Work,
    dtypes,
    estimate,
    forward,
    inner_forwards,
    step_work,
    validation_work,
)
from harness.planning.preflight import preflight
from harness.planning.shapes import Shape, known_assets, shape_from_config, shape_of
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import load_profile, resolve
from harness.training.steps import Meter, RolloutStats, StepReport
from rewards.metagradient import InnerOptimizer, metagradient, train
from rewards.metagradient.checkpointing import Costs, Tier, choose

aten = torch.ops.aten

SLOW = Device("test", 2**34, {"float32": 1e10, "bfloat16": 1e10}, 1e10, 1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
def test_forward_flops_and_parameters_are_those_of_the_model(family, tied, make_model):
    model = make_model(family, tied=tied)
    model.set_attn_implementation("eager")  # what the counter sees into
    shape = shape_from_config(model.config.to_dict())
    count = sum(p.numel() for p in model.parameters())
    assert shape.parameters == pytest.approx(count, rel=0.06)  # norms and biases weigh more in a 16-wide model
    ids = torch.zeros(3, 10, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    mine = forward(shape, 30, span=10, scored=30, bytes_each=4).flops  # the model computes masked scores too
    assert mine == pytest.approx(counter.get_total_flops(), rel=0.01)


class Products(TorchDispatchMode):
    """FLOPs of the products of linear layers, those that add to something included."""

    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.mm.out, aten.addmm.out):
            left, right = args[-2:]
            self.flops += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reads", ["head", "all"])
@pytest.mark.parametrize(
    ("steps", "by_token", "kept"),
    [(0, False, True), (1, False, True), (1, True, True), (3, False, True), (3, True, True), (2, True, False)],
)
def test_an_inner_training_s_products_are_those_that_are_counted(steps, by_token, kept, reads, make_model):
    """Of the engine itself; no steps: of one plain training step. `kept`: graphs are."""
    model = make_model("llama", tied=False)
    shape = shape_from_config(model.config.to_dict())
    head = model.get_output_embeddings().weight
    name = next(name for name, value in model.named_parameters() if value is head)
    batches = [{"input_ids": (ids := torch.randint(5, 15, (8, 32))), "labels": ids} for _ in range(steps or 1)]
    metric = lambda params: sum(value.square().sum() for value in params.values())
    metric = MetricOf((name,), metric) if reads == "head" else metric
    optimizer = InnerOptimizer("adamw", lr=1e-3)
    vector = 4 * sum(value.numel() for value in model.parameters())
    with Products() as counted:
        if steps:
            budget = None if kept else 20 * vector  # for states, not for graphs
            metagradient(model, batches, metric, optimizer, per_token=by_token, memory_budget=budget)
        else:
            train(model, batches, optimizer, only=(name,) if reads == "head" else None)
    found = inner_forwards(steps or 1, metagradient=bool(steps), by_token=by_token, head_alone=reads == "head")
    read, again = 8 * 31, 0 if kept else found.again  # nothing is predicted from the last token of a text
    mine = 2 * read * (shape.body * (found.body + again) + shape.head * (found.head + again))
    assert counted.flops == pytest.approx(mine, rel=0.01)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("meta-llama/Llama-3.2-1B-Instruct", 1236), ("openai-community/gpt2", 124), ("Qwen/Qwen2.5-0.5B-Instruct", 494)],
)
def test_known_shapes_have_the_published_size(name, millions):
    assert Shape(**known_assets()[name]["shape"]).parameters / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize("profile", ["tiny", "small", "paper"])
@pytest.mark.parametrize("task", TASKS.names())
@pytest.mark.parametrize("reward", REWARDS.names())
def test_every_cell_can_be_estimated(profile, task, reward):
    one = estimate(resolve(load_profile(profile), task, reward), task, reward, SLOW)
    assert one.hours > 0 and one.memory > 0
    assert [phase.name for phase in one.phases] == ["generation", "reward", "update", "validation"]
    if reward in ("embedding", "fasttext", "levenshtein"):
        assert one.phases[1].flops == 0


@pytest.mark.parametrize("task", ["lambada_es", "67"])
@pytest.mark.parametrize("reward", ["adam_metagrad", "naive", "embedding"])
def test_texts_of_full_length_are_the_plan_and_shorter_ones_are_less(task, reward):
    settings = resolve(load_profile("tiny"), task, reward)
    target = shape_of("embedded:target")
    shapes = shape_of("embedded:generator"), target.untied() if settings.target.untie_head else target
    whole = Lengths.allowed(settings)
    planned = {phase.name: phase.flops for phase in estimate(settings, task, reward, SLOW).phases}
    found = step_work(settings, task, reward, shapes, whole, 0) | {
        "validation": validation_work(settings, task, shapes, whole)
    }
    assert {name: work.flops for name, work in found.items()} == planned
    for name, flops in planned.items():
        work = found[name]
        assert work.floor_seconds(SLOW, settings) == pytest.approx(flops / 1e10)
        assert flops == 0 or work.seconds(SLOW, settings) > work.floor_seconds(SLOW, settings)
    short = Lengths(whole.prompt / 2, whole.rollout / 2, whole.trained / 2, referred=10)
    for name, work in step_work(settings, task, reward, shapes, short, 0).items():
        assert work.flops == 0 if planned[name] == 0 else 0.1 * planned[name] < work.flops < 0.51 * planned[name]


def test_each_model_has_the_rate_of_its_own_dtype():
    settings = resolve(load_profile("paper"), "67", "naive")
    assert dtypes(settings) == ("bfloat16", "tf32")
    device = Device("test", 1, {"float32": 1.0, "tf32": 2.0, "bfloat16": 8.0}, 1.0, 0.0, share=0.5)
    work = PhaseWork(Work(flops=16), Work(flops=16))
    assert (work.flops, work.floor_seconds(device, settings)) == (32, 2 + 8)
    assert work.seconds(device, settings) == 4 + 16


def test_a_meter_counts_what_was_read_and_written():
    settings = resolve(load_profile("tiny"), "uuid", "naive")
    shapes = shape_of("embedded:generator"), shape_of("embedded:target")
    meter = Meter(settings, "uuid", "naive", shapes, SLOW, referred=None, held_out=30, tokens_seen=1000)
    rollouts = settings.grpo.rollouts_per_step

    def step(seen: int, rollout: float, warmed: bool = False) -> dict[str, float]:
        stats = RolloutStats(rollouts, 0, 0, 0, 0, 0, 0, 0)
        logs = {"num_tokens": seen, "completions/mean_length": rollout}
        return {name: work.flops for name, work in meter.step(StepReport(1, stats, logs, {}), warmed).items()}

    def expected(prompt: float, rollout: float, warmed: float = 0) -> dict[str, float]:
        lengths = Lengths(prompt, rollout, rollout)
        return {k: w.flops for k, w in step_work(settings, "uuid", "naive", shapes, lengths, warmed).items()}

    assert step(1000 + rollouts * (40 + 20), 20) == expected(40, 20)
    assert step(1000 + rollouts * (40 + 20 + 50 + 30), 30, warmed=True) == expected(50, 30, 1)
    assert expected(50, 30, 1)["reward"] > 1.9 * expected(50, 30)["reward"]
    assert meter.validation(20).flops == validation_work(settings, "uuid", shapes, Lengths(30, 20, 20)).flops
    padded = settings.model_copy(update={"inner": settings.inner.model_copy(update={"trained_padding": 0})})
    meter = Meter(padded, "uuid", "naive", shapes, SLOW, referred=None, held_out=30)
    assert step(rollouts * 60, 20)["reward"] > 2 * expected(40, 20)["reward"]  # padding that is trained on counts


def test_a_plan_grows_as_its_settings_do():
    def planned(**given):
        settings = resolve(load_profile("paper"), "67", "adam_metagrad", {f"grpo.{k}": v for k, v in given.items()})
        return estimate(settings, "67", "adam_metagrad", DATASHEETS["h200"])

    base, twice = (planned(steps=steps, shared_prompts=False) for steps in (10, 20))
    assert twice.rollouts == 2 * base.rollouts
    assert twice.hours > 1.2 * base.hours
    # The update alone of 98,304 rollouts is about 6e17 FLOP (6 per weight and token), and again a third for old
    # log-probabilities.
    assert base.phases[2].flops == pytest.approx(6e17 * 4 / 3, rel=0.3)
    # A quarter of the prompts and all rollouts: 1024 / 4 + 128 of 1024 + 128 tokens, at a little more attention.
    shared = planned(steps=10, shared_prompts=True).phases[2].flops
    assert shared / base.phases[2].flops == pytest.approx((1024 / 4 + 128) / 1152, rel=0.15)


def test_a_sharded_training_divides_its_states_among_the_ranks_and_gathers_a_layer(monkeypatch):
    shape, each = shape_of("meta-llama/Llama-3.2-1B-Instruct"), 4

    def planned(sharded, ranks):
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        given = {"inner.sharded": sharded, "target.dtype": "float32", "generator.offload": "always"}
        settings = resolve(load_profile("paper"), "lambada_es", "adam_metagrad", given)
        return {p.name: p.memory for p in estimate(settings, "lambada_es", "adam_metagrad", DATASHEETS["h200"]).phases}

    whole = planned(False, 8)
    assert whole == planned(False, 1)
    two, eight = planned(True, 2), planned(True, 8)
    vector = shape.parameters * each
    # Between two and eight ranks only the vectors shrink: at least the weights, three times, and Adam's two moments.
    fewer = (two["validation"] - eight["validation"]) / (vector * (1 / 2 - 1 / 8))
    assert fewer == pytest.approx(round(fewer)) and fewer >= 5
    gathered = 4 * shape.hidden * shape.vocab * each
    assert whole["validation"] - eight["validation"] == pytest.approx(vector * (1 + fewer * 7 / 8) - gathered, rel=1e-6)
    assert eight["reward"] < whole["reward"]


def test_a_sharded_training_of_one_process_is_refused(monkeypatch, tmp_path):
    cells = cross_product(load_profile("tiny"), ["norm"], ["naive"], [0], {"inner.sharded": True})
    with pytest.raises(HarnessError, match="inner.sharded=true .* torchrun --nproc-per-node N"):
        preflight(cells, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not preflight(cells, tmp_path)[0].blocked


def test_metagradients_through_many_steps_fit_an_h200():
    """T = 96 on GPT-2 with 1024 examples a step: the engine finds a plan within half of the device's memory."""
    shape = shape_of("openai-community/gpt2").untied()
    vector = shape.parameters * 4
    graph = 60 * 2**30  # of a step, in microbatches: kept for none unless there is room
    cell = choose(96, Costs(vector, 2, graph, 1.0, 0.01, single_pass=False), [Tier("memory", 60 * 2**30)])
    assert cell.bytes <= 60 * 2**30 and cell.extra_passes <= 1.0


def test_unknown_models_and_devices_are_one_sentence(tmp_path):
    with pytest.raises(HarnessError, match="fetch"):
        shape_of("nobody/no-such-model")
    with pytest.raises(HarnessError, match="h200"):
        from harness.machine.devices import device

        device("h2000")
    with pytest.raises(HarnessError, match="hidden size"):
        shape_from_config({"model_type": "llama"})


def test_dry_run_prints_the_plan_without_any_model(tmp_path, monkeypatch, capsys, nothing_loads):
    from harness.assets import hub
    from harness.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_snapshot", lambda *a, **k: pytest.fail("a dry run asked the hub"))
    monkeypatch.setattr(app, "console", Terminal(width=200))
    app.app(["run", "--profile", "paper", "--task", "lambada_es", "--dry-run", "--on", "h200"], standalone_mode=False)
    shown = capsys.readouterr().out
    for words in (
        "6 cells",
        "122880",
        "generation",
        "GiB",
        "Llama 3.2 Community",
        "huggingface.co/meta-llama",
        "H200",
        " h",
        "14.8 GB for the generators that are kept",  # six of 1.24e9 weights in bfloat16
    ):
        assert words in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("profile", ["tiny", "small", "paper"])
def test_list_settings_of_a_profile(profile, capsys):
    from harness.cli import app

    app.app(["list", "--settings", "--profile", profile, "--task", "67"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "inner.optimizer.eps_root" in shown and "task.options.lambda" in shown


def test_dry_run_says_which_cells_are_kept(tmp_path, capsys, monkeypatch):
    from harness.cli import app
    from harness.planning.cells import Cell
    from harness.settings.profiles import load_profile, resolve
    from harness.store.record import CellStore

    record = Cell("tiny", "norm", "naive", 3, resolve(load_profile("tiny"), "norm", "naive", {})).record()
    record.status = "done"
    CellStore.of(tmp_path, record).write(record)
    asked = ["run", "--task", "norm", "--reward", "naive", "--seeds", "3-4", "--out", str(tmp_path), "--dry-run"]
    monkeypatch.setattr(app, "console", Terminal(width=120))
    app.app(asked, standalone_mode=False)
    rows = [line for line in capsys.readouterr().out.splitlines() if "norm/naive seed" in line and "│" in line]
    assert ["kept" in row for row in rows] == [True, False]


def test_a_warm_up_is_planned_for():
    def planned(**given):
        given["reward.options.credit"] = "text"  # to tokens, one step costs two forward passes more
        return estimate(resolve(load_profile("tiny"), "uuid", "adam_metagrad", given), "uuid", "adam_metagrad", SLOW)

    plain = planned(**{"inner.warmup_steps": 0, "inner.steps": 1})
    warm = planned(**{"inner.warmup_steps": 88, "inner.warmup_after": 0, "inner.steps": 1})
    half = planned(**{"inner.warmup_steps": 88, "inner.warmup_after": 32, "grpo.steps": 64, "inner.steps": 1})
    one = planned(**{"inner.warmup_steps": 0, "inner.steps": 96})
    for phase in (1, 3):  # reward and validation
        assert plain.phases[phase].flops < warm.phases[phase].flops
    assert warm.phases[1].flops < one.phases[1].flops  # training forward is less than a metagradient back
    assert 2 * half.phases[1].flops == pytest.approx(plain.phases[1].flops + warm.phases[1].flops, rel=1e-6)
    assert half.phases[3] == warm.phases[3]


def test_a_target_for_every_rank_costs_a_metric_each():
    def scored(**given):
        settings = resolve(load_profile("tiny"), "lambada_es", "adam_metagrad", given)
        return estimate(settings, "lambada_es", "adam_metagrad", SLOW).phases[1].flops

    few, many = {"task.options.metric_examples": 100}, {"task.options.metric_examples": 200}
    one = scored(**many) - scored(**few)
    apart = scored(**many, **{"inner.cross_group": False}) - scored(**few, **{"inner.cross_group": False})
    groups = resolve(load_profile("tiny"), "lambada_es", "adam_metagrad").grpo.rollouts_per_prompt
    assert apart == pytest.approx(groups * one) and one > 0


def test_shorter_inner_trainings_get_fewer_texts_and_more_steps():
    given = {"validation.every": 6, "grpo.prompts_per_step": 192, "grpo.updates_per_step": 24}
    cells = cross_product(load_profile("tiny"), ["67"], ["adam_metagrad"], [0], given, [1, 8, 96])
    base = resolve(load_profile("tiny"), "67", "adam_metagrad", given).grpo
    for cell, steps in zip(cells, (1, 8, 96), strict=True):
        grpo, validation = cell.settings.grpo, cell.settings.validation
        assert grpo.prompts_per_step == base.prompts_per_step * steps / 96
        assert grpo.steps == base.steps * 96 / steps
        assert (validation.every, validation.inner_steps) == (6 * 96 / steps, 96)
    for cell in cross_product(
        load_profile("tiny"), ["67"], ["naive"], [0], given | {"validation.scaled": False}, [1, 8, 96]
    ):
        assert cell.settings.validation.every == 6, "as the authors: every so many GRPO steps at every T"


@pytest.mark.parametrize(
    ("task", "reward", "given", "message"),
    [
        (
            "uuid",
            "adam_metagrad",
            {"inner.warmup_steps": 65, "validation.prompts": 64},
            "64 texts into 65 .* raise validation.prompts or lower inner.warmup_steps",
        ),
        (
            "uuid",
            "naive",
            {"inner.steps": 33, "inner.warmup_steps": 0, "grpo.prompts_per_step": 32, "grpo.updates_per_step": 8},
            "32 texts into 33 .* grpo.prompts_per_step or lower inner.steps",
        ),
        (
            "uuid",
            "naive",
            {"validation.inner_steps": 65, "validation.prompts": 64, "inner.warmup_steps": 0},
            "64 texts into 65 .* lower validation.inner_steps",
        ),
    ],
)
def test_too_few_texts_for_the_inner_steps_are_said_before_the_run(
    task, reward, given, message, tmp_path, nothing_loads
):
    with pytest.raises(HarnessError, match=message):
        preflight(cross_product(load_profile("tiny"), [task], [reward], [0], given), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [[], [1, 24]])
def test_a_quick_run_is_small_other_and_called_so(steps, tmp_path, nothing_loads):
    from harness.registry import REWARDS, TASKS

    pairs = load_profile("tiny"), TASKS.names(), REWARDS.names(), [0], {}, steps
    usual, quick = cross_product(*pairs), cross_product(*pairs, quick=True)
    assert len(usual) == len(quick)
    for cell in preflight(quick, tmp_path):
        # With T as an axis, uuid's shorter trainings have fewer texts than its warm-up has steps.
        assert not cell.blocked or (steps and cell.task == "uuid")
        assert cell.variant.startswith("quick")
        grpo = cell.settings.grpo
        assert grpo.rollouts_per_step % grpo.updates_per_step == 0
        assert grpo.steps * grpo.prompts_per_step <= 3 * 96
    identities = [{cell.record().identity for cell in cells} for cells in (usual, quick)]
    assert not identities[0] & identities[1]


def test_what_is_set_by_hand_stands_in_a_quick_run(nothing_loads):
    (cell,) = cross_product(load_profile("tiny"), ["norm"], ["naive"], [0], {"grpo.steps": 5}, quick=True)
    assert cell.settings.grpo.steps == cell.given["grpo.steps"] == 5


def test_what_one_pair_lacks_stops_no_other(tmp_path, nothing_loads):
    given = {"validation.prompts": 16}  # uuid trains its target in 32 steps
    cells = cross_product(load_profile("tiny"), ["uuid", "norm"], ["naive", "levenshtein"], [0, 1], given)
    found = preflight(cells, tmp_path)
    assert [cell.name for cell in found] == [cell.name for cell in cells]
    blocked = [cell for cell in found if cell.blocked]
    assert {cell.task for cell in blocked} == {"uuid"} and len(blocked) == 2
    assert "16 texts into" in blocked[0].blocked and "raise validation.prompts" in blocked[0].blocked
    record = blocked[0].record()
    assert record.status == "unsupported" and record.reason == blocked[0].blocked
    assert record.identity == cells[0].record().identity, "the cell keeps its identity"
    free = next(cell for cell in found if cell.task == "norm" and cell.reward == "naive")
    assert free.record().status == "running"


def test_a_missing_asset_of_one_reward_stops_no_other(tmp_path, nothing_loads):
    given = {"reward.options.embedding_model": "./no-such-model"}
    profile = load_profile("tiny")
    cells = cross_product(profile, ["lambada_es"], ["naive"], [0], {})
    cells += cross_product(profile, ["lambada_es"], ["embedding"], [0], given)
    kept, lacking = preflight(cells, tmp_path)
    assert not kept.blocked and "no-such-model" in lacking.blocked
    assert lacking.record().assets == {}


def test_a_task_that_breaks_costs_its_own_rows_and_one_that_refuses_is_said_before_the_run(
    tmp_path, monkeypatch, nothing_loads
):
    cells = cross_product(load_profile("tiny"), ["norm"], ["naive"], [0], {})

    def made(error):
        def make_task(cell):
            raise error

        monkeypatch.setattr("harness.planning.preflight.make_task", make_task)
        preflight(cells, tmp_path)

    made(ValueError("a fault"))
    with pytest.raises(HarnessError, match="refused"):
        made(HarnessError("refused"))
