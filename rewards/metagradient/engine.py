"""Exact metagradients dPhi(theta_T)/dw_i by walking an inner training forward, then back one step at a time.

Adjoint u_t = dPhi/d(theta_t, o_t). Back through step t: the optimizer's own vjp gives d = dPhi/dg_t; one directional
pass over the batch gives the rewards (scale/B) d . grad l_i and H d, which joins u_theta (PAPER.md, Method).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rewards.metagradient.errors import MetricError, NonFiniteError
from rewards.metagradient.loss import LossConvention, check_batches
from rewards.metagradient.network import Network
from rewards.metagradient.optimizer import InnerOptimizer, UpdateRule, as_rule
from rewards.metagradient.passes import Objective, check_gradient

Metric = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Metagradient:
    """value: Phi(theta_T). weights: (N,) dPhi/dw_i at w = 1. losses: (N,) l_i at the step that trained on example i.
    Examples in batch order."""

    value: float
    weights: Tensor
    losses: Tensor

    def reordered(self, weights: Tensor) -> Metagradient:
        """The same result with its weights in another order."""
        return replace(self, weights=weights)


def metagradient(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    metric: Metric,
    optimizer: InnerOptimizer | UpdateRule,
    *,
    memory_budget: int | None = None,
    loss: LossConvention | None = None,
    microbatch: int | None = None,
) -> Metagradient:
    batches, rule = check_batches(batches), as_rule(optimizer)
    objective = Objective(Network(model), loss or LossConvention(), microbatch)
    layout = objective.layout
    theta = layout.flatten(dict(model.named_parameters()))
    state = rule.init(theta)
    tape, losses = [], []
    for step, batch in enumerate(batches):
        found, grad = objective.gradient(step, theta, batch)
        check_gradient(objective, step, theta, batch, found, grad)
        tape.append((theta, state, grad))
        losses.append(found)
        theta, state = rule.update(step, theta, state, grad)
    value, u_theta = metric_gradient(metric, model, layout, theta)
    u_state = tuple(torch.zeros_like(s) for s in state)
    weights = [None] * len(batches)
    for step in reversed(range(len(batches))):
        theta, state, grad = tape.pop()
        u_theta, u_state, direction = rule.vjp(step, theta, state, grad, u_theta, u_state)
        weights[step], product = objective.directional(theta, direction, batches[step], curvature=step > 0)
        if product is not None:
            u_theta = u_theta.add_(product)
    return Metagradient(value, torch.cat(weights), torch.cat(losses))


def metric_gradient(metric: Metric, model: nn.Module, layout, theta: Tensor) -> tuple[float, Tensor]:
    """(Phi, dPhi/dtheta_T (P,)). The metric sees every named parameter; trained ones in the inner dtype."""
    leaves = {k: v.detach().requires_grad_() for k, v in layout.views(theta).items()}
    everything = {k: leaves.get(k, p.detach()) for k, p in model.named_parameters()}
    with torch.enable_grad():
        value = metric(everything)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise MetricError("The metric must return a scalar Tensor.")
    if not bool(torch.isfinite(value)):
        raise NonFiniteError(f"The metric is {float(value.detach())}; check the metric, or lower the inner learning rate.")
    found = (
        torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True) if value.requires_grad else (None,)
    )
    if all(g is None for g in found):
        raise MetricError(
            "The metric does not depend on any trained parameter: compute it from the mapping it is given "
            "(torch.func.functional_call(model, params, ...)), without detach, and train what it looks at."
        )
    grads = [torch.zeros_like(p) if g is None else g for g, p in zip(found, leaves.values(), strict=True)]
    flat = layout.flatten(grads)
    if not bool(torch.isfinite(flat.sum())):
        raise NonFiniteError("The gradient of the metric is not finite; check the metric for square roots or logs of 0.")
    return float(value.detach()), flat


def train(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    optimizer: InnerOptimizer | UpdateRule,
    *,
    loss: LossConvention | None = None,
    microbatch: int | None = None,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    batches, rule = check_batches(batches), as_rule(optimizer)
    objective = Objective(Network(model), loss or LossConvention(), microbatch)
    theta = objective.layout.flatten(dict(model.named_parameters()))
    state, start = rule.init(theta), 0
    for step, batch in enumerate(batches):
        stop = start + len(batch["input_ids"])
        found, grad = objective.gradient(step, theta, batch, None if weights is None else weights[start:stop])
        check_gradient(objective, step, theta, batch, found, grad)
        theta, state = rule.update(step, theta, state, grad)
        start = stop
    trained = objective.layout.views(theta)
    return {name: trained.get(name, p.detach()) for name, p in model.named_parameters()}
