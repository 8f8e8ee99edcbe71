"""The two passes over one batch: its gradient, and the directional pass of the backward walk."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rewards.metagradient.errors import NonFiniteError
from rewards.metagradient.loss import LossConvention, prepare
from rewards.metagradient.network import Network


class Objective:
    """Loss of a batch, scale * mean_i w_i l_i(theta), and what is asked of it.

    microbatch  examples per pass; None: the whole batch. It changes memory and time only.
    """

    def __init__(self, network: Network, convention: LossConvention, microbatch: int | None) -> None:
        if microbatch is not None and microbatch < 1:
            raise ValueError(f"microbatch must be at least 1, got {microbatch}.")
        self.network, self.layout = network, network.layout
        self.convention, self.microbatch = convention, microbatch

    def _pieces(self, batch: Mapping[str, Tensor]):
        count = len(batch["input_ids"])
        size = self.microbatch or count
        for start in range(0, count, size):
            stop = min(start + size, count)
            yield slice(start, stop), prepare(batch, start, stop, self.convention)

    def factor(self, batch: Mapping[str, Tensor]) -> float:
        """d(batch loss) / d(w_i l_i)."""
        return self.convention.summed_microbatches / len(batch["input_ids"])

    def gradient(
        self, step: int, theta: Tensor, batch: Mapping[str, Tensor], weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(losses (B,), gradient (P,)) of the batch loss at theta, with example weights (default 1)."""
        factor, grad, losses = self.factor(batch), None, []
        for rows_slice, rows in self._pieces(batch):
            leaves = {k: v.detach().requires_grad_() for k, v in self.layout.views(theta).items()}
            with torch.enable_grad():
                part = self.network.losses(leaves, rows)
                scaled = part if weights is None else part * weights[rows_slice]
                total = scaled.sum() * factor
            found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
            flat = self.layout.flatten(list(found))
            grad = flat if grad is None else grad.add_(flat)
            losses.append(part.detach())
        return torch.cat(losses), grad

    def directional(
        self, theta: Tensor, direction: Tensor, batch: Mapping[str, Tensor], curvature: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(factor * direction . grad l_i (B,), H direction (P,) or None where curvature is False).

        Forward over reverse: one jvp of a function that calls vjp gives both. Reverse over forward is silently wrong
        for layer_norm. Parameters whose direction is zero carry no tangent.
        """
        factor, layout = self.factor(batch), self.layout
        values, tangents = layout.views(theta), layout.views(direction)
        active = {k: v for k, v in values.items() if bool(tangents[k].any())}
        if not active:
            zero = torch.zeros(len(batch["input_ids"]), dtype=theta.dtype, device=theta.device)
            return zero, torch.zeros_like(theta) if curvature else None
        tangents = {k: tangents[k] for k in active}
        rates, hessian = [], None
        for _, rows in self._pieces(batch):

            def losses(parameters, rows=rows):
                return self.network.losses(parameters, rows)

            def both(moving, rows=rows):
                found, pull = torch.func.vjp(losses, values | moving)
                return found, pull(torch.full_like(found, factor))[0]

            with torch.enable_grad():  # without it, silu's backward has no forward-mode formula
                if curvature:
                    _, (rate, product) = torch.func.jvp(both, (active,), (tangents,))
                    flat = layout.flatten(product)
                    hessian = flat if hessian is None else hessian.add_(flat)
                else:
                    _, rate = torch.func.jvp(lambda moving: losses(values | moving), (active,), (tangents,))
            rates.append(rate.to(theta.dtype) * factor)
        return torch.cat(rates), hessian


def check_gradient(objective: Objective, step: int, theta: Tensor, batch, losses: Tensor, grad: Tensor) -> None:
    """Raises NonFiniteError naming the step and the examples whose loss, else whose own gradient, is not finite."""
    if bool(torch.isfinite(losses).all()) and bool(torch.isfinite(grad.sum())):
        return
    bad = (~torch.isfinite(losses)).nonzero()[:, 0].tolist()
    what = "loss"
    if not bad:
        what = "gradient"
        for i in range(len(losses)):
            one = {k: v[i : i + 1] if len(v) == len(losses) else v for k, v in batch.items()}
            if bool((one["labels"][:, 1:] != -100).any()):
                _, own = objective.gradient(step, theta, one)
                if not bool(torch.isfinite(own).all()):
                    bad.append(i)
    raise NonFiniteError(
        f"The {what} of inner step {step} is not finite (examples {bad[:16]} of its batch); lower the inner learning rate, "
        "use a wider dtype, or drop these examples.",
        step=step,
        examples=tuple(bad),
    )
