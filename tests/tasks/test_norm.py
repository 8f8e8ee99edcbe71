"""`norm`: Phi against a plain loop and its closed gradient, and the change of the norm after training."""

from __future__ import annotations

import math

import pytest
import torch

from harness.contracts import TaskContext
from harness.registry import TASKS
from tasks._head import head_parameter

SHAPES = [("gpt2", True), ("gpt2", False), ("llama", True), ("llama", False)]


def make():
    return TASKS.get("norm").factory(TaskContext())


def slow_norm(head: torch.Tensor) -> float:
    return math.sqrt(math.fsum(entry * entry for row in head.tolist() for entry in row))


@pytest.mark.parametrize(("family", "tied"), SHAPES)
def test_phi_is_the_loop_and_its_gradient_points_home(wide_model, chosen_training, family, tied):
    model = wide_model(family, tied)
    name = head_parameter(model)
    phi = make().metric(chosen_training(model))
    params = {key: value.detach().clone() for key, value in model.named_parameters()}
    head = params[name].requires_grad_()
    value = phi(params)
    assert float(value.detach()) == pytest.approx(-slow_norm(head.detach()), rel=1e-12)
    gradient = torch.autograd.grad(value, head)[0]
    step = 1e-6
    for token, hidden in ((0, 0), (39, 23), (7, 3)):
        up, down = head.detach().clone(), head.detach().clone()
        up[token, hidden] += step
        down[token, hidden] -= step
        numeric = float(phi(params | {name: up}) - phi(params | {name: down})) / (2 * step)
        assert float(gradient[token, hidden]) == pytest.approx(numeric, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("family", "tied"), SHAPES)
@pytest.mark.parametrize("factor", [0.9, 1.0, 1.2])
def test_the_change_is_measured_on_a_freshly_trained_target(wide_model, chosen_training, family, tied, factor):
    model = wide_model(family, tied)
    name = head_parameter(model)
    inner = chosen_training(model, change=lambda params: params[name].mul_(factor))
    task = make()
    values = task.evaluate(["one text", "two texts"], inner).values
    before = slow_norm(dict(model.named_parameters())[name].detach())
    assert inner.trained_on == ["one text", "two texts"]
    assert values["norm_before"] == pytest.approx(before, rel=1e-12)
    assert values["norm_after"] == pytest.approx(factor * before, rel=1e-12)
    assert values["norm_change"] == pytest.approx((factor - 1) * before, abs=1e-12)
    assert values["norm_change_relative"] == pytest.approx(factor - 1, abs=1e-12)
    assert set(values) == {task.headline.name, *(measure.name for measure in task.measures)}
    assert task.headline.direction == "lower"


def test_a_small_change_of_a_float32_head_is_not_rounded_away(wide_model, chosen_training):
    model = wide_model("gpt2", False).float()

    def change(params):
        # One entry moves by far less than float32 resolves in the norm itself.
        params["lm_head.weight"][0, 0] += 1e-6

    values = make().evaluate(["text"], chosen_training(model, change=change)).values
    head = model.lm_head.weight.detach()
    moved = float((head[0, 0] + 1e-6).double() - head[0, 0].double())
    expected = float(head[0, 0]) * moved / values["norm_before"]
    assert expected != 0
    assert values["norm_change"] == pytest.approx(expected, rel=1e-3)


def test_no_rollouts_is_an_error(wide_model, chosen_training):
    with pytest.raises(ValueError, match="at least one"):
        make().evaluate([], chosen_training(wide_model()))
