"""Exact metagradients dPhi(theta_T)/dw_i: an inner training walked forward, then back one step at a time.

With s_t = (theta_t, o_t) parameters and optimizer state, g_t = grad of step t's loss and s_{t+1} = U(s_t, g_t), the
adjoint u_t = dPhi/ds_t goes back through a step in two moves. The optimizer's own vector-Jacobian product gives
d = dPhi/dg_t and what reaches s_t directly; one directional pass over the batch gives the rewards
dPhi/dw_i = d . d(g_t)/dw_i and the Hessian-vector product H d, which joins u_theta (section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rewards.metagradient.checkpointing import (
    Costs,
    MemoryPlan,
    Tier,
    choose,
    free_tiers,
    graphs_at_most,
    pass_seconds,
    update_seconds,
)
from rewards.metagradient.errors import MetagradientError, MetricError, NonFiniteError, SecondDerivativeError
from rewards.metagradient.gradients import Objective
from rewards.metagradient.loss import IGNORED, LossConvention, check_batches
from rewards.metagradient.network import Network, ShardedLayout
from rewards.metagradient.optimizer import InnerOptimizer, State, UpdateRule, as_rule, pulled_back, updated
from rewards.metagradient.trajectory import InnerStep, Trajectory

Metric = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Metagradient:
    """Of N examples in batch order (under data parallel: this rank's).

    value    Phi(theta_T)
    weights  (N,) dPhi/dw_i at w = 1, float32 (float64 of a float64 model), on the model's device
    losses   (N,) l_i as it was at the step that trained on example i
    plan     what was kept and what was recomputed
    tokens   where asked for: dPhi/dw_it of every example's scored tokens, one (scored tokens,) an example; they sum to
             its weight
    """

    value: float
    weights: Tensor
    losses: Tensor
    plan: MemoryPlan
    tokens: tuple[Tensor, ...] | None = None

    def reordered(self, weights: Tensor, tokens: tuple[Tensor, ...] | None = None) -> Metagradient:
        """The same result with its weights in another order."""
        return replace(self, weights=weights, tokens=tokens)


class Prepared:
    """A model with the private copies that its passes run on, to be given to many calls in its place: of a training on
    one short text making them is half. Between calls its weights may change, and which of them train; its modules,
    buffers and configuration may not."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._network: Network | None = None

    def network(self) -> Network:
        if self._network is None or not self._network.again(self.model):
            self._network = Network(self.model)
        return self._network


def metagradient(
    model: nn.Module | Prepared,
    batches: Sequence[Mapping[str, Tensor]],
    metric: Metric,
    optimizer: InnerOptimizer | UpdateRule,
    *,
    memory_budget: int | None = None,
    loss: LossConvention | None = None,
    microbatch: int | None = None,
    spill_dir: str | None = None,
    process_group: dist.ProcessGroup | None = None,
    deterministic: bool = False,
    per_token: bool = False,
    sharded: bool = False,
) -> Metagradient:
    """Exact dPhi(theta_T)/dw_i at w = 1 through len(batches) optimizer steps.

    model      a causal LM that returns `.logits`; left as it is, mode, RNG and .grad included. Parameters with
               requires_grad train. It runs in evaluation mode (no dropout) with eager attention. `Prepared(model)`
               saves time where many calls are short.
    batches    one dict a step: input_ids (B, S) int64 right-padded, labels (B, S) int64 aligned with them, -100 = not
               scored; further tensors (attention_mask, ...) go to the model
    metric     params keyed as dict(model.named_parameters()) -> scalar Tensor, higher is better; trained ones come in
               the inner dtype (float32 for a bf16 model). Where it has an attribute `reads`, the names of the
               parameters that it reads, it is given these alone, and the last step forms their gradients alone: of a
               metric on the LM head this saves two thirds of that step.
    optimizer  InnerOptimizer, or an UpdateRule of your own

    memory_budget  bytes that may be held between passes, beside the model and one pass's own needs; default: half of
                   what is free. See MemoryPlan. spill_dir: a directory that may hold what does not fit.
    loss           LossConvention, default mean_i w_i * (mean NLL of i's scored tokens)
    microbatch     examples per pass, default the whole batch; changes memory and time only
    process_group  ranks that each hold their share of every batch; one all-reduce for the gradient and one for the
                   Hessian-vector product a step. `metric` must give the same on all.
    deterministic  torch.use_deterministic_algorithms for the duration
    sharded        of every parameter-sized vector a rank of the process group holds its part, 1/N of it, and of the
                   weights beside it one layer at a time, gathered for its work (sharding.py). The same result but for
                   rounding. The model may lie in host memory: passes run where the batches are. Frozen parameters stay
                   whole. For optimizers whose update is elementwise. A metric is given tensors that gather themselves
                   wherever they are used: all ranks must use them, in the same order, as plain evaluation does.
    per_token      give every scored token t of example i a weight, l_i = sum_t w_it (share of its NLL in l_i), and
                   return those derivatives too; no more work but at T = 1 (forward mode in place of a recording)

    Raises BatchError, NoScoredTokensError, NonFiniteError, MetricError, SecondDerivativeError, MemoryBudgetError, all
    of them MetagradientError.
    """
    with _determinism(deterministic):
        reads = getattr(metric, "reads", None)
        objective, rule, theta, state = _start(
            model, batches, optimizer, loss, microbatch, process_group, per_token, reads, sharded
        )
        tiers = free_tiers(objective.layout.device, memory_budget, spill_dir)
        walk = _Walk(objective, rule, theta, state)
        plan, first = walk.plan(tiers)
        with Trajectory(plan, rule, objective.gradient, spill_dir) as trajectory:
            theta, state = walk.forward(trajectory, first)
            value, adjoint = _metric_gradient(metric, _plain(model), objective, theta, reads)
            del theta, state
            weights = _walk_back(objective, rule, trajectory, adjoint)
        if not per_token:
            return Metagradient(value, torch.cat(weights), torch.cat(walk.losses), plan)
        counts = torch.cat([(batch["labels"][:, 1:] != IGNORED).sum(1) for batch in objective.batches]).tolist()
        tokens, losses = torch.cat(weights).split(counts), torch.cat(walk.losses).split(counts)
        sums = (torch.stack([part.sum() for part in parts]) for parts in (tokens, losses))
        return Metagradient(value, *sums, plan, tokens)


def train(
    model: nn.Module | Prepared,
    batches: Sequence[Mapping[str, Tensor]],
    optimizer: InnerOptimizer | UpdateRule,
    *,
    loss: LossConvention | None = None,
    microbatch: int | None = None,
    weights: Tensor | None = None,
    process_group: dist.ProcessGroup | None = None,
    deterministic: bool = False,
    only: Collection[str] | None = None,
    sharded: bool = False,
) -> dict[str, Tensor]:
    """theta_T of the very training that `metagradient` differentiates, keyed as dict(model.named_parameters()).

    weights: (N,) data weights, default 1. only: names of the parameters that are wanted, for less work. Trained
    parameters come in the inner dtype, frozen ones are the model's own; sharded, they are tensors of which a rank holds
    its part, and that gather themselves wherever all ranks use them. Raises as `metagradient`, as far as it applies.
    """
    with _determinism(deterministic):
        objective, rule, theta, state = _start(
            model, batches, optimizer, loss, microbatch, process_group, reads=only, sharded=sharded
        )
        start = 0
        for step, batch in enumerate(objective.batches):
            stop = start + len(batch["input_ids"])
            _, grad, _ = objective.gradient(step, theta, None if weights is None else weights[start:stop])
            theta, state = updated(rule, step, theta, state, grad, last=step + 1 == len(objective.batches))
            start = stop
    trained = objective.layout.parameters(objective.layout.views(theta), metric=True)
    frozen, wanted = objective.network.frozen, [name for name, _ in _plain(model).named_parameters()]
    return {k: trained[k] if k in trained else frozen[k] for k in wanted if only is None or k in only}


def _start(
    model, batches, optimizer, loss, microbatch, group, per_token=False, reads=None, sharded=False
) -> tuple[Objective, UpdateRule, Tensor, State]:
    rule = as_rule(optimizer)
    reads = reads if rule.elementwise else None  # else a coordinate's update may see the others' gradients
    batches, plain = check_batches(batches), _plain(model)
    if sharded:
        network = Network(plain, ShardedLayout(plain, _ranks(rule, group), batches[0]["input_ids"].device))
    else:
        network = model.network() if isinstance(model, Prepared) else Network(plain)
    objective = Objective(network, batches, loss or LossConvention(), microbatch, group, per_token, reads)
    theta = objective.layout.flatten(dict(plain.named_parameters()))
    return objective, rule, theta, rule.init(theta)


def _plain(model: nn.Module | Prepared) -> nn.Module:
    return model.model if isinstance(model, Prepared) else model


def _ranks(rule: UpdateRule, group: dist.ProcessGroup | None) -> dist.ProcessGroup:
    """The group that can share the vectors of this rule."""
    if group is None:
        raise MetagradientError("sharded=True divides the training among processes: give their process_group.")
    if not rule.elementwise:
        raise MetagradientError(
            f"{type(rule).__name__} cannot be sharded: its update may see all parameters at once, and a rank holds a "
            'part of them; use "adamw", "adam" or "sgd", or an UpdateRule whose `elementwise` is True.'
        )
    return group


class _Walk:
    """The forward walk: its first gradient also shows the cost model how large a graph is."""

    def __init__(self, objective: Objective, rule: UpdateRule, theta: Tensor, state: State) -> None:
        self.objective, self.rule, self.theta, self.state = objective, rule, theta, state
        self.steps = len(objective.batches)
        self.losses: list[Tensor] = []

    def plan(self, tiers: list[Tier]) -> tuple[MemoryPlan, InnerStep]:
        """(plan, the first step)."""
        objective, layout, slots = self.objective, self.objective.layout, self.rule.slots
        vector = layout.size * torch.finfo(layout.dtype).bits // 8
        several = self.steps > 1
        room = tiers[0].free - (2 + slots) * vector
        losses, grad, kept, graph = objective.first(self.theta, room, sized=several)
        self.losses.append(losses)
        sizes = [batch["input_ids"].numel() for batch in objective.batches]
        costs = Costs(
            vector=vector,
            slots=slots,
            # and its theta, its gradient; a single step needs no graph
            graph=graph * max(sizes) // max(sizes[0], 1) + 2 * vector if several else tiers[0].free + 1,
            gradient_seconds=pass_seconds(layout.parameters_count, sum(sizes) / len(sizes), layout.device.type),
            update_seconds=update_seconds(vector),
            single_pass=objective.single_pass,
            graphs_at_most=graphs_at_most(layout.device.type),
            recording=None if kept is None else sum(piece.nbytes() for piece in kept),
        )
        plan = choose(self.steps, *objective.agree(costs, tiers))
        return plan, InnerStep(0, self.theta, self.state, grad, kept if plan.recorded else None)

    def forward(self, trajectory: Trajectory, inner_step: InnerStep) -> tuple[Tensor, State]:
        """(theta_T, what is left of the optimizer's state)."""
        for step in range(self.steps):
            if step:
                losses, grad, kept = self.objective.gradient(step, self.theta, graph=trajectory.keeps_graph(step))
                self.losses.append(losses)
                inner_step = InnerStep(step, self.theta, self.state, grad, kept)
            trajectory.put(inner_step)
            last = step + 1 == self.steps
            self.theta, self.state = updated(self.rule, step, self.theta, self.state, inner_step.grad, last=last)
            inner_step = None
        return self.theta, self.state


def _walk_back(
    objective: Objective, rule: UpdateRule, trajectory: Trajectory, adjoint: tuple[slice, Tensor]
) -> list[Tensor]:
    """Per step, first to last, the (B,) rewards. adjoint: dPhi/dtheta_T, zero outside its slice."""
    span, u_theta = adjoint
    weights, u_state = [], None
    for inner_step in trajectory.backward():
        step, theta, state, grad = inner_step.step, inner_step.theta, inner_step.state, inner_step.grad
        inside = slice(0, len(theta))  # where the direction may differ from zero
        if u_state is None:  # nothing has touched the optimizer's state yet
            narrow = rule.elementwise and len(u_theta) < len(theta)
            cut = span if narrow else slice(None)
            if not narrow:
                u_theta = _expand(u_theta, span, theta)
            part = tuple(s[cut] for s in state) if narrow else state
            u_theta, u_state, direction = pulled_back(rule, step, theta[cut], part, grad[cut], u_theta, None)
            inside = span if narrow else inside
            if narrow and step:
                u_theta = _expand(u_theta, span, theta)
                u_state = tuple(_expand(u, span, theta) for u in u_state)
        else:
            u_theta, u_state, direction = pulled_back(rule, step, theta, state, grad, u_theta, u_state)
        into, recorded = u_theta if step else None, step == 0 and trajectory.plan.recorded  # the same on every rank
        derivatives = objective.directional(step, theta, direction, inside, into=into, kept=inner_step.kept)
        if not objective.everywhere(bool(torch.isfinite(derivatives.sum()))):
            bad = tuple((~torch.isfinite(derivatives)).nonzero()[:, 0].tolist())
            raise NonFiniteError(
                f"The metagradient is not finite at inner step {step} (examples {list(bad[:16])} of its batch); lower "
                "the inner learning rate or raise eps_root.",
                step=step,
                examples=bad,
            )
        if step in (0, len(objective.batches) - 1):
            right, sums = objective.consistent(derivatives, direction, grad[inside], recorded=recorded)
            if not right and recorded:  # some parameter works outside of the layers that are recorded: ask forward mode
                derivatives = objective.directional(step, theta, direction, inside)
                right, sums = objective.consistent(derivatives, direction, grad[inside])
            if not right:
                raise SecondDerivativeError(
                    f"The second derivative of the model is incomplete: the rewards of step {step} sum to {sums} by "
                    "the first derivative. A custom kernel (fused attention, norm or loss) has a backward that cannot "
                    'be differentiated; load the model with attn_implementation="eager" and without it.'
                )
        weights.append(derivatives)
    return weights[::-1]


def _expand(part: Tensor, span: slice, like: Tensor) -> Tensor:
    if part.shape == like.shape:
        return part
    full = torch.zeros_like(like)
    full[span] = part
    return full


def _metric_gradient(
    metric: Metric, model: nn.Module, objective: Objective, theta: Tensor, reads: Collection[str] | None
) -> tuple[float, tuple[slice, Tensor]]:
    """(Phi, (slice, dPhi/dtheta_T there)): a metric on a patch of one matrix costs a patch."""
    layout = objective.layout
    given = {k for k, _ in model.named_parameters()} if reads is None else set(reads)
    leaves = {k: v.detach().requires_grad_(k in given) for k, v in layout.views(theta).items()}
    trained, frozen = layout.parameters(leaves, metric=True), objective.network.frozen
    read = {k: trained[k] if k in trained else frozen[k] for k, _ in model.named_parameters() if k in given}
    with torch.enable_grad():
        try:
            value = metric(read)
        except KeyError as error:
            if reads is None or error.args[:1] == () or error.args[0] in reads:
                raise
            raise MetricError(f"The metric reads {error.args[0]}, which its `reads` does not name; add it.") from error
        value = value.sum() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise MetricError("The metric must return a scalar Tensor.")
    number = float(value.detach())
    if not torch.isfinite(value.detach()):
        raise NonFiniteError(f"The metric is {number}; check the metric, or lower the inner learning rate.")
    flat, touched = torch.zeros_like(theta), []
    if value.requires_grad:
        with layout.collecting(list(leaves.values()), flat) as touched:
            value.backward(inputs=[leaf for leaf in leaves.values() if leaf.requires_grad])
    if not touched:
        raise MetricError(
            "The metric does not depend on any trained parameter: compute it from the mapping it is given "
            "(torch.func.functional_call(model, params, ...)), without detach, and train what it looks at."
        )
    low, high = layout.starts[touched[0]], layout.starts[touched[-1]] + layout.sizes[touched[-1]]
    if len(touched) == 1:
        own = flat[low:high]
        where = own.nonzero()[[0, -1], 0].tolist() if bool(own.any()) else [0, 0]
        low, high = low + where[0], low + where[1] + 1
        flat = flat[low:high].clone()  # not a view that holds all of it
    else:
        flat = flat[low:high]
    if not objective.everywhere(bool(torch.isfinite(flat.sum())) or bool(torch.isfinite(flat).all())):
        raise NonFiniteError("The gradient of the metric is not finite; check it for square roots or logarithms of 0.")
    return number, (slice(low, high), flat)


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if wanted:
            torch.use_deterministic_algorithms(before, warn_only=warn)
