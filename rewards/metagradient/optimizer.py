"""Inner optimizers as functions of flat vectors, with the backward through one update in closed form.

Everything here works on 1-D tensors that hold all trained parameters one after the other (float32 or float64).
Adam is torchopt's `scale_by_adam`: eps_root is added inside the square root after bias correction. AdamW's decay is
decoupled and multiplied by the learning rate, as in torch.optim.AdamW and torchopt.adamw; the decay of "adam" and "sgd"
is added to the gradient, as in theirs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = tuple[Tensor, ...]


class UpdateRule(ABC):
    """One optimizer step as a function, and its vector-Jacobian product. `step` counts from 0.

    Subclass it to use another optimizer: the recursion asks for nothing else. `vjp` has a generic implementation by
    autograd through `update`, which must then be out-of-place.
    """

    slots: int
    """How many parameter-sized tensors `init` returns (what a stored state costs)."""
    elementwise: bool = False
    """Whether coordinates do not see each other, so that `vjp` may be asked for a slice of all its vectors."""

    @abstractmethod
    def init(self, theta: Tensor) -> State:
        """State before step 0: `slots` tensors, theta-shaped or smaller."""

    @abstractmethod
    def update(self, step: int, theta: Tensor, state: State, grad: Tensor) -> tuple[Tensor, State]:
        """(theta, state) after the step; the arguments are not changed."""

    def vjp(
        self, step: int, theta: Tensor, state: State, grad: Tensor, u_theta: Tensor, u_state: State
    ) -> tuple[Tensor, State, Tensor]:
        """Pull the adjoint (u_theta, u_state) of the updated (theta, state) back to (theta, state, grad).

        Owns u_theta and u_state: it may overwrite them.
        """
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_(t.is_floating_point()) for t in (theta, *state, grad)]
            new_theta, new_state = self.update(step, leaves[0], tuple(leaves[1:-1]), leaves[-1])
            pairs = [
                (o, u) for o, u in zip((new_theta, *new_state), (u_theta, *u_state), strict=True) if o.requires_grad
            ]
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            found = torch.autograd.grad(
                [o for o, _ in pairs], wanted, [u for _, u in pairs], allow_unused=True, materialize_grads=True
            )
        by_leaf = dict(zip(map(id, wanted), found, strict=True))
        back = [by_leaf.get(id(leaf), torch.zeros_like(leaf)) for leaf in leaves]
        return back[0], tuple(back[1:-1]), back[-1]

    def vjp_alone(self, theta: Tensor, grad: Tensor, u_theta: Tensor) -> Tensor:
        """The adjoint of the gradient of step 0 where no step follows: `vjp` with u_state = 0, of which only that."""
        state = self.init(theta)
        return self.vjp(0, theta, state, grad, u_theta, tuple(torch.zeros_like(s) for s in state))[-1]


BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Coordinates an elementwise rule sees at once, so that its temporaries stay small. Blocks of a CPU cache's size are no
faster: putting them together costs what they save."""


def nothing(like: Tensor) -> Tensor:
    """Zeros of that shape in the memory of one number; to be read only."""
    return like.new_zeros(()).expand(like.shape)


def updated(
    rule: UpdateRule, step: int, theta: Tensor, state: State, grad: Tensor, *, last: bool = False
) -> tuple[Tensor, State]:
    """rule.update, block by block where the rule is elementwise. last: no step follows, so the state may be dropped."""
    size = BLOCK.get(theta.device.type, len(theta))
    if not rule.elementwise or len(theta) <= size:
        return rule.update(step, theta, state, grad)
    out, outs = torch.empty_like(theta), () if last else tuple(torch.empty_like(theta) for _ in state)
    for start in range(0, len(theta), size):
        cut = slice(start, start + size)
        new, news = rule.update(step, theta[cut], tuple(s[cut] for s in state), grad[cut])
        out[cut] = new
        for whole, part in zip(outs, news, strict=False):
            whole[cut] = part
    return out, outs


def pulled_back(
    rule: UpdateRule,
    step: int,
    theta: Tensor,
    state: State,
    grad: Tensor,
    u_theta: Tensor,
    u_state: State | None,
) -> tuple[Tensor, State, Tensor]:
    """rule.vjp, block by block where the rule is elementwise; u_theta and u_state are overwritten.

    u_state None: zeros. Of step 0 only the last, the adjoint of the gradient, is of use to anyone: the others are then
    what they happen to be.
    """
    size = BLOCK.get(theta.device.type, len(theta))
    if step == 0 and u_state is None and rule.elementwise:
        for part in zip(theta.split(size), grad.split(size), u_theta.split(size), strict=True):
            part[-1].copy_(rule.vjp_alone(*part))
        return u_theta, (), u_theta
    if not rule.elementwise or len(theta) <= size:
        u_state = tuple(torch.zeros_like(s) for s in state) if u_state is None else u_state
        return rule.vjp(step, theta, state, grad, u_theta, u_state)
    fresh, direction = u_state is None, torch.empty_like(theta)
    outs = () if step == 0 else tuple(torch.empty_like(theta) for _ in state) if fresh else u_state
    for start in range(0, len(theta), size):
        cut = slice(start, start + size)
        own = tuple(s[cut] for s in state)
        parts = tuple(torch.zeros_like(s) for s in own) if fresh else tuple(u[cut] for u in u_state)
        new, news, direction[cut] = rule.vjp(step, theta[cut], own, grad[cut], u_theta[cut], parts)
        for whole, part in zip((u_theta, *outs), (new, *news), strict=False):
            if step and part.data_ptr() != whole[cut].data_ptr():
                whole[cut] = part
    return u_theta, outs, direction


@dataclass(frozen=True)
class InnerOptimizer:
    """Settings of the inner optimizer.

    name          "adamw", "adam" or "sgd"
    lr            a float, or a function of the 0-based step
    betas, eps, eps_root   Adam only; eps is added outside the square root, eps_root inside
    weight_decay  decoupled for "adamw"; an L2 term in the gradient for "adam" and "sgd"
    momentum, dampening, nesterov   SGD only, as in torch.optim.SGD
    """

    name: str = "adamw"
    lr: float | Callable[[int], float] = 1e-5
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    eps_root: float = 1e-9
    weight_decay: float = 0.0
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "adam", "sgd"):
            raise ValueError(f'Unknown inner optimizer "{self.name}"; use "adamw", "adam" or "sgd", or an UpdateRule.')
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}.")
        for field in ("eps", "eps_root", "weight_decay", "momentum"):
            if getattr(self, field) < 0.0:
                raise ValueError(f"{field} must not be negative, got {getattr(self, field)}.")
        if self.nesterov and (self.momentum <= 0.0 or self.dampening != 0.0):
            raise ValueError("Nesterov momentum needs a momentum and no dampening.")

    def rule(self) -> UpdateRule:
        return SGD(self) if self.name == "sgd" else Adam(self)

    def rate(self, step: int) -> float:
        return float(self.lr(step)) if callable(self.lr) else self.lr


def as_rule(optimizer: InnerOptimizer | UpdateRule) -> UpdateRule:
    if isinstance(optimizer, UpdateRule):
        return optimizer
    if isinstance(optimizer, InnerOptimizer):
        return optimizer.rule()
    raise TypeError(f"optimizer must be an InnerOptimizer or an UpdateRule, not {type(optimizer).__name__}.")


class SGD(UpdateRule):
    """torch.optim.SGD: b = momentum * b + (1 - dampening) * g, with b = g at the first step."""

    elementwise = True

    def __init__(self, settings: InnerOptimizer) -> None:
        self.settings = settings
        self.slots = 1 if settings.momentum else 0

    def init(self, theta: Tensor) -> State:
        return (nothing(theta),) if self.slots else ()

    def _factors(self, step: int) -> tuple[float, float]:
        """(factor of the old buffer, factor of the gradient) in the new buffer."""
        return (0.0, 1.0) if step == 0 else (self.settings.momentum, 1.0 - self.settings.dampening)

    def update(self, step: int, theta: Tensor, state: State, grad: Tensor) -> tuple[Tensor, State]:
        s, rate = self.settings, self.settings.rate(step)
        if s.weight_decay:
            grad = grad.add(theta, alpha=s.weight_decay)
        if not self.slots:
            return theta.add(grad, alpha=-rate), ()
        old, new = self._factors(step)
        buffer = (state[0] * old).add_(grad, alpha=new)
        direction = grad.add(buffer, alpha=s.momentum) if s.nesterov else buffer
        return theta.add(direction, alpha=-rate), (buffer,)

    def vjp(
        self, step: int, theta: Tensor, state: State, grad: Tensor, u_theta: Tensor, u_state: State
    ) -> tuple[Tensor, State, Tensor]:
        s, rate = self.settings, self.settings.rate(step)
        if not self.slots:
            d, u_state = u_theta * -rate, ()
        else:
            old, new = self._factors(step)
            if s.nesterov:
                u_buffer = u_state[0].add_(u_theta, alpha=-rate * s.momentum)
                d = (u_buffer * new).add_(u_theta, alpha=-rate)
            else:
                u_buffer = u_state[0].add_(u_theta, alpha=-rate)
                d = u_buffer * new
            u_state = (u_buffer.mul_(old),)
        if s.weight_decay:
            u_theta = u_theta.add_(d, alpha=s.weight_decay)
        return u_theta, u_state, d


class Adam(UpdateRule):
    """torchopt.adamw / torchopt.adam, state (m, v) before bias correction."""

    slots = 2
    elementwise = True

    def __init__(self, settings: InnerOptimizer) -> None:
        self.settings = settings

    def init(self, theta: Tensor) -> State:
        return nothing(theta), nothing(theta)

    def _moments(self, theta: Tensor, state: State, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = self.settings
        if s.name == "adam" and s.weight_decay:
            grad = grad.add(theta, alpha=s.weight_decay)
        m = torch.lerp(state[0], grad, 1.0 - s.betas[0])
        v = (state[1] * s.betas[1]).addcmul_(grad, grad, value=1.0 - s.betas[1])
        return grad, m, v

    def _corrections(self, step: int) -> tuple[float, float]:
        b1, b2 = self.settings.betas
        return 1.0 - b1 ** (step + 1), 1.0 - b2 ** (step + 1)

    def update(self, step: int, theta: Tensor, state: State, grad: Tensor) -> tuple[Tensor, State]:
        s, rate, (c1, c2) = self.settings, self.settings.rate(step), self._corrections(step)
        _, m, v = self._moments(theta, state, grad)
        # sqrt(v/c2 + eps_root) + eps, times sqrt(c2): fewer passes over memory. Out of place: tests differentiate it.
        root = v.add(s.eps_root * c2).sqrt().add(s.eps * math.sqrt(c2))
        if s.name == "adamw" and s.weight_decay:
            theta = theta * (1.0 - rate * s.weight_decay)
        return torch.addcdiv(theta, m, root, value=-rate * math.sqrt(c2) / c1), (m, v)

    def vjp(
        self, step: int, theta: Tensor, state: State, grad: Tensor, u_theta: Tensor, u_state: State
    ) -> tuple[Tensor, State, Tensor]:
        """With h = m/c1, r = sqrt(v/c2 + eps_root), q = r + eps, Delta = -rate * h / q:

            dDelta/dm = -rate / (c1 q)        dDelta/dv = rate * h / (2 c2 q^2 r)

        h/r is bounded where eps_root = 0 too (|m| <= const * sqrt(v)), so at v = 0, where m = 0, its limit along g -> 0
        multiplies g itself and vanishes: dDelta/dv is taken as 0 there and every result is finite.
        """
        s, rate, (c1, c2), (b1, b2) = (
            self.settings,
            self.settings.rate(step),
            self._corrections(step),
            self.settings.betas,
        )
        g, m, v = self._moments(theta, state, grad)
        root = v.div_(c2).add_(s.eps_root).sqrt_()
        inverse = (root + s.eps).reciprocal_()
        if s.eps == 0.0:
            inverse.masked_fill_(root == 0, 0.0)
        by_v = m.mul_(inverse).div_(root)
        if s.eps_root < torch.finfo(root.dtype).tiny:
            by_v.masked_fill_(root == 0, 0.0)
        by_m = inverse.mul_(u_theta)
        u_m = u_state[0].add_(by_m, alpha=-rate / c1)
        u_v = u_state[1].addcmul_(by_v, by_m, value=rate / (2.0 * c1 * c2))
        d = (u_m * (1.0 - b1)).addcmul_(u_v, g, value=2.0 * (1.0 - b2))
        if s.weight_decay:
            if s.name == "adamw":
                u_theta = u_theta.mul_(1.0 - rate * s.weight_decay)
            else:
                u_theta = u_theta.add_(d, alpha=s.weight_decay)
        return u_theta, (u_m.mul_(b1), u_v.mul_(b2)), d

    def vjp_alone(self, theta: Tensor, grad: Tensor, u_theta: Tensor) -> Tensor:
        """Bias correction makes the first step Delta = -rate * g / q with r = sqrt(g^2 + eps_root), q = r + eps:

        dDelta/dg = -rate (eps_root / r + eps) / q^2,    -rate eps / q^2 where eps_root = 0
        """
        s, rate = self.settings, self.settings.rate(0)
        if s.name == "adam" and s.weight_decay:
            grad = grad.add(theta, alpha=s.weight_decay)
        if s.eps_root == s.eps == 0.0:
            return torch.zeros_like(grad)
        root = (grad * grad).add_(s.eps_root).sqrt_()
        inverse = (root + s.eps).reciprocal_()
        factor = root.reciprocal_().mul_(s.eps_root).add_(s.eps) if s.eps_root else s.eps
        return inverse.square_().mul_(factor).mul_(u_theta).mul_(-rate)


class TorchOptRule(UpdateRule):
    """Any torchopt.base.GradientTransformation, differentiated by autograd through its functional update.

    Its state's floating-point tensors must be parameter-shaped or constants; counters are carried along
    undifferentiated. A transformation that takes square roots of second moments needs its own eps inside the root to
    be finite at g = 0.
    """

    def __init__(self, transformation: Any) -> None:
        self.transformation = transformation
        self.slots = 0
        self._spec: Any = None

    def init(self, theta: Tensor) -> State:
        from torchopt import pytree

        leaves, self._spec = pytree.tree_flatten(self.transformation.init((theta,)))
        state = tuple(leaf if isinstance(leaf, Tensor) else torch.as_tensor(leaf) for leaf in leaves)
        self.slots = sum(leaf.shape == theta.shape for leaf in state)
        return state

    def update(self, step: int, theta: Tensor, state: State, grad: Tensor) -> tuple[Tensor, State]:
        from torchopt import pytree

        tree = pytree.tree_unflatten(self._spec, list(state))
        (delta,), tree = self.transformation.update((grad,), tree, params=(theta,), inplace=False)
        return theta + delta, tuple(pytree.tree_leaves(tree))
