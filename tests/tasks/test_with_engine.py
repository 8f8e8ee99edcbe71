"""Tasks on the real learning algorithm: their Phi is what the engine differentiates, and evaluation trains the same."""

from __future__ import annotations

import pytest
import torch

from harness.contracts import TaskContext
from harness.registry import TASKS
from harness.settings.schema import InnerSettings, OptimizerSettings
from harness.training.inner import InnerTrainer

TEXTS = ["a first text", "6646-b4d0", "!\"#$%&'", "one more, longer than the others", "x", "the last one"]


@pytest.mark.parametrize("name", ["67", "norm", "uuid"])
@pytest.mark.parametrize(("family", "tied"), [("gpt2", True), ("llama", False)])
def test_metagradients_of_the_tasks(make_model, make_tokenizer, name, family, tied):
    settings = InnerSettings(steps=3, optimizer=OptimizerSettings(lr=1e-3, eps_root=1e-8), max_tokens=40)
    inner = InnerTrainer(make_model(family, tied=tied).eval(), make_tokenizer(), settings)
    task = TASKS.get(name).factory(TaskContext())
    phi = task.metric(inner)
    result = inner.metagradient(TEXTS, phi)
    with torch.no_grad():
        assert result.value == pytest.approx(float(phi(inner.train(TEXTS))), rel=1e-6)
    assert result.weights.shape == (len(TEXTS),)
    assert torch.isfinite(result.weights).all() and result.weights.ne(0).all()
    # A metric that does not say what it reads gets the same.
    every = inner.metagradient(TEXTS, lambda params: phi(params))
    assert getattr(phi, "reads", None) or name == "uuid"
    assert torch.allclose(result.weights, every.weights, rtol=1e-3, atol=1e-4 * float(every.weights.abs().max()))
    values = task.evaluate(TEXTS, inner).values
    moved = {"67": "phi", "uuid": "phi_after"}
    if name == "norm":
        assert values["norm_after"] == pytest.approx(-result.value, rel=1e-6) and values["norm_change"] != 0
    else:
        assert values[moved[name]] == pytest.approx(result.value, rel=1e-6)
