"""What the walk asks of one batch: its gradient, and on the way back the gradient's derivative in one direction.

The way back differentiates <d, dL/dtheta> once more (reverse over reverse): with respect to the example weights it
gives the rewards, with respect to theta the Hessian-vector product. It needs 8 matrix products to plain training's 3
(forward over reverse 9, for it forms the gradient once more), and 6 where it can start from the graph that the forward
walk built anyway. Reverse over forward would need 8 too, but PyTorch gets it silently wrong for layer_norm. Where no
Hessian-vector product is wanted, forward mode alone needs 3, and reading the rewards off the backward pass that the
forward walk made anyway needs 1 (directional.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.autograd.forward_ad as forward_ad
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from rewards.metagradient.checkpointing import Costs, Tier
from rewards.metagradient.directional import Recording
from rewards.metagradient.errors import NonFiniteError, NoScoredTokensError, SecondDerivativeError
from rewards.metagradient.loss import IGNORED, LossConvention, Rows, nothing_scored, prepare
from rewards.metagradient.network import Network
from rewards.metagradient.recompute import saving

Batch = Mapping[str, Tensor]


@dataclass
class Graph:
    """The differentiable gradient of one microbatch: leaves theta and w (n,), and dL/dtheta as functions of both.

    edges  where each parameter's gradient left the graph, by name; its value need not be kept
    """

    where: slice
    leaves: list[Tensor]
    weights: Tensor
    edges: dict[str, GradientEdge]


Kept = list[Graph] | list[Recording]

REBUILT_TOKENS = {"cpu": 1024}
"""Tokens of a graph that is built anew only to be differentiated at once: on a CPU it then stays in cache. Elsewhere a
whole microbatch."""

DISAGREEMENT, NARROW_DISAGREEMENT = 0.01, 0.3
"""What two ways to the same sum may differ by, relative to it, before a missing second derivative is to blame; in
float16 and bfloat16 rounding alone is that coarse."""
RECORDED_ROUNDING, NARROW_ROUNDING = 1e3, 0.01
"""The same where both sums come from one backward pass: units of the dtype's eps, or the share in narrow dtypes."""
SECOND_PASS_ROUNDING = 100
"""Units of eps, relative to |direction| |gradient|, by which a second pass rounds otherwise than the first."""


class Objective:
    """Loss of each step's batch, factor * sum_i w_i l_i(theta), summed over the ranks of a process group.

    microbatch  examples per pass; None: the whole batch. It changes memory and time, not numbers.
    group       ranks that each hold their share of every batch; None: this process alone. Where the network's layout
                divides vectors among them, every rank runs as many passes, some of them on nothing.
    per_token   w weighs every scored token's part of l_i by itself: n below are then tokens, row by row
    reads       names of the parameters that are looked at after the last step, so that its gradient is formed for these
                alone and is 0 elsewhere; None: all
    """

    def __init__(
        self,
        network: Network,
        batches: Sequence[Batch],
        convention: LossConvention,
        microbatch: int | None = None,
        group: dist.ProcessGroup | None = None,
        per_token: bool = False,
        reads: Collection[str] | None = None,
    ) -> None:
        if microbatch is not None and microbatch < 1:
            raise ValueError(f"microbatch must be at least 1, got {microbatch}.")
        self.network, self.layout, self.batches, self.group = network, network.layout, batches, group
        self.convention, self.microbatch, self.per_token = convention, microbatch, per_token
        self.sharded = self.layout.cut is not None
        self.reads = set(self.layout.names if reads is None else reads) & set(self.layout.names)
        counts = torch.tensor(
            [[len(b["input_ids"]), int((b["labels"][:, 1:] != IGNORED).sum())] for b in batches],
            dtype=torch.float64,
            device=self.layout.device,
        )
        counts = self._sum(counts).tolist()
        self.factors = []
        for step, (examples, scored) in enumerate(counts):
            if not scored:
                raise NoScoredTokensError(
                    f"No token of step {step}'s batch of {examples:.0f} is scored (labels are -100 everywhere after "
                    "the first column); drop the batch or set labels where the loss is to be taken."
                )
            self.factors.append(convention.summed_microbatches / examples)

    @property
    def single_pass(self) -> bool:
        return self.microbatch is None or all(len(b["input_ids"]) <= self.microbatch for b in self.batches)

    def _sum(self, tensor: Tensor) -> Tensor:
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def everywhere(self, flag: bool) -> bool:
        """Whether it is so on all ranks, where they have to take the same way."""
        if not self.sharded:
            return flag
        return not bool(self.layout.anywhere(torch.tensor([not flag], device=self.layout.device)))

    def _pieces(self, step: int, tokens: float = math.inf) -> Iterator[tuple[slice, Rows]]:
        """Microbatches that have a scored token, and where their losses stand among the batch's; the others add nothing
        to anything. tokens: as many a piece at most, padding included, but one example at least. Of a sharded layout
        as many as the rank with the most has, on nothing where there is nothing."""
        pieces = self._own_pieces(step, tokens)
        if not self.sharded:
            yield from pieces
            return
        found = list(pieces)
        most = torch.tensor([len(found)], device=self.layout.device)
        dist.all_reduce(most, dist.ReduceOp.MAX, group=self.group)
        yield from found
        yield from [(slice(0, 0), nothing_scored(self.batches[step], self.layout.device))] * (int(most) - len(found))

    def _own_pieces(self, step: int, tokens: float) -> Iterator[tuple[slice, Rows]]:
        batch = self.batches[step]
        count, width = batch["input_ids"].shape
        size = self.microbatch or max(count, 1)
        size = max(1, min(size, int(tokens // width))) if math.isfinite(tokens) else size
        place = 0
        for start in range(0, count, size):
            rows = prepare(batch, start, min(start + size, count), self.convention, per_token=self.per_token)
            if len(rows.flat):
                yield slice(place, place + rows.count), rows
            place += rows.count

    def _zeros(self, step: int, theta: Tensor) -> Tensor:
        """(n,) one number for every loss of a step that has a weight."""
        batch = self.batches[step]
        count = int((batch["labels"][:, 1:] != IGNORED).sum()) if self.per_token else len(batch["input_ids"])
        return torch.zeros(count, dtype=self.layout.dtype, device=theta.device)

    def _build(
        self,
        step: int,
        theta: Tensor,
        where: slice,
        rows: Rows,
        into: Tensor | None,
        weights: Tensor | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, Graph | None]:
        """(losses (n,), the gradient's Graph if it is to be kept); the gradient is added to `into` (P,).

        While `network.graph_only` is on, the gradients of linear layers are not formed and only the Graph is of use.
        """
        asked = self.reads if step + 1 == len(self.batches) else set(self.layout.names)
        # A graph is differentiated in all parameters once more, whichever of their gradients it is the graph of.
        leaves = {k: v.detach().requires_grad_(keep or k in asked) for k, v in self.layout.views(theta).items()}
        wanted = [leaf for k, leaf in leaves.items() if k in asked]
        with torch.enable_grad():
            losses = self.network.losses(leaves, rows)
            w = torch.ones_like(losses) if weights is None else weights[where].to(losses)
            w = w.detach().requires_grad_(keep)
            total = torch.dot(losses, w) * self.factors[step]
        if not total.requires_grad:
            raise SecondDerivativeError("The model's logits do not depend on its trained parameters.")
        if not keep:
            with self.layout.collecting(list(leaves.values()), into), second_derivatives():
                total.backward(inputs=wanted)
            return losses.detach(), None
        with second_derivatives():
            made = torch.autograd.grad(total, wanted, create_graph=True, allow_unused=True, materialize_grads=True)
        found = dict(zip((k for k in leaves if k in asked), made, strict=True))
        if into is not None:
            self.layout.add(into, [found.get(k) for k in leaves])
        edges = {k: get_gradient_edge(g) for k, g in found.items() if g.requires_grad}
        return losses.detach(), Graph(where, list(leaves.values()), w, edges)

    def gradient(
        self, step: int, theta: Tensor, weights: Tensor | None = None, *, graph: bool = False
    ) -> tuple[Tensor, Tensor, Kept | None]:
        """(losses (B,) of this rank, gradient (P,) of all ranks, one Graph a microbatch if wanted) of a step's loss.

        theta (P,); weights (B,), default 1.
        """
        grad, kept = torch.zeros_like(theta), [] if graph else None
        losses = self._zeros(step, theta)
        for where, rows in self._pieces(step):
            with saving(self._own(theta)) if graph else nullcontext():
                part, made = self._build(step, theta, where, rows, grad, weights, graph)
            losses[where] = part.to(losses.dtype)
            if graph:
                kept.append(made)
        return losses, self._whole(step, theta, losses, grad), kept

    def first(self, theta: Tensor, room: float, *, sized: bool) -> tuple[Tensor, Tensor, list[Recording] | None, int]:
        """(losses, gradient, one Recording a microbatch, bytes of its graphs) of step 0, as `gradient`.

        The recordings are None if they exceed `room` bytes. Only if `sized`, which means that steps follow, are the
        graphs measured.
        """
        # One backward pass tells examples apart, not the tokens of one, but at the head. A direction that moves the
        # head alone comes from a metric: at a last step.
        only = self.network.recorder.head if self.per_token else None
        grad, kept, held, graph = torch.zeros_like(theta), [], 0, 0
        if self.per_token and (sized or only is None):
            kept = None
        losses = self._zeros(0, theta)
        for where, rows in self._pieces(0):
            recording = Recording(where, rows, only) if kept is not None else None
            measure = sized and not graph  # the first microbatch stands for all
            counter = saving(self._own(theta)) if measure else nullcontext()
            with self.network.recorder.writing(recording), counter as saved:
                part, _ = self._build(0, theta, where, rows, grad, keep=measure)
            losses[where] = part.to(losses.dtype)
            if measure:
                graph = sum(saved.values()) * len(losses) // max(rows.count, 1)
            if recording is not None:
                held += recording.nbytes()
                kept = [*kept, recording] if held <= room else None
            del recording
        return losses, self._whole(0, theta, losses, grad), kept, graph

    def _own(self, theta: Tensor) -> set[int]:
        """Storages that are there whatever a graph keeps."""
        return {t.untyped_storage().data_ptr() for t in (theta, *self.network.frozen.values())}

    def _whole(self, step: int, theta: Tensor, losses: Tensor, grad: Tensor) -> Tensor:
        grad = grad if self.sharded else self._sum(grad)
        self._check(step, theta, losses, grad)
        return grad

    def agree(self, costs: Costs, tiers: list[Tier]) -> tuple[Costs, list[Tier]]:
        """The same numbers on every rank (the dearest costs, the least room), so that every rank plans the same."""
        if self.group is None:
            return costs, tiers
        recording = math.inf if costs.recording is None else costs.recording
        top = torch.tensor(
            [costs.graph, costs.gradient_seconds, recording], dtype=torch.float64, device=self.layout.device
        )
        low = torch.tensor(
            [costs.single_pass, *(tier.free for tier in tiers)], dtype=torch.float64, device=self.layout.device
        )
        dist.all_reduce(top, dist.ReduceOp.MAX, group=self.group)
        dist.all_reduce(low, dist.ReduceOp.MIN, group=self.group)
        graph, seconds, recording = top.tolist()
        recording = None if math.isinf(recording) else int(recording)
        costs = replace(
            costs, graph=int(graph), gradient_seconds=seconds, single_pass=bool(low[0]), recording=recording
        )
        return costs, [replace(tier, free=int(free)) for tier, free in zip(tiers, low[1:].tolist(), strict=True)]

    def directional(
        self,
        step: int,
        theta: Tensor,
        direction: Tensor,
        span: slice,
        *,
        into: Tensor | None = None,
        kept: Kept | None = None,
    ) -> Tensor:
        """direction . d(gradient)/dw_i, (B,); and H direction is added to `into` (P,), or not taken where that is None.

        `direction` is zero outside its span. Parameters whose direction is zero carry no tangent. `kept`, as `gradient`
        gave it, is used up.
        """
        derivatives = self._zeros(step, theta)
        tangents = self.layout.moving(direction, span)
        curvature = into is not None
        apart = curvature and self.group is not None and not self.sharded
        product = torch.zeros_like(theta) if apart else into
        if not tangents:
            pieces = iter(())
        elif kept is not None:
            if self.sharded and isinstance(kept[0], Recording) and not self._all_cover(kept, tangents):
                return self.directional(step, theta, direction, span, into=into)
            pieces = _drain(kept)
        else:
            small = curvature and not self.sharded  # each piece costs a sharded layout its collectives
            pieces = self._pieces(step, REBUILT_TOKENS.get(theta.device.type, math.inf) if small else math.inf)
        for where, piece in pieces:
            if isinstance(piece, Recording):
                found = self.network.recorder.derivatives(piece, tangents, self.layout)
                if found is None:  # a parameter that the recorder does not know at work
                    return self.directional(step, theta, direction, span, into=into)
            elif isinstance(piece, Rows) and not curvature and not self.sharded:  # no forward mode of collectives
                found = self._forward_mode(theta, piece, tangents) * self.factors[step]
            else:
                if isinstance(piece, Rows):
                    piece = self._rebuild(step, theta, where, piece)
                found, parts = _pull(piece, tangents, curvature)
                if curvature:
                    self.layout.add(product, parts)
                del parts
            derivatives[where] = found.to(derivatives.dtype)
            del piece
        if apart:
            into.add_(self._sum(product))
        return derivatives

    def _all_cover(self, recordings: list[Recording], tangents: dict[str, Tensor]) -> bool:
        """Whether these parameters were seen at work on all ranks, and as often: they gather directions together."""
        cover = all(self.network.recorder.covers(recording, tangents) for recording in recordings)
        items = sum(len(recording.items) for recording in recordings)
        spread = torch.tensor([items, -items], device=self.layout.device)
        dist.all_reduce(spread, dist.ReduceOp.MAX, group=self.group)
        return self.everywhere(cover) and int(spread.sum()) == 0

    def _rebuild(self, step: int, theta: Tensor, where: slice, rows: Rows) -> Graph:
        self.network.graph_only.on = True
        try:
            return self._build(step, theta, where, rows, None, keep=True)[1]
        finally:
            self.network.graph_only.on = False

    def _forward_mode(self, theta: Tensor, rows: Rows, tangents: dict[str, Tensor]) -> Tensor:
        """(n,) direction . grad l_i."""
        values = self.layout.views(theta)
        with torch.no_grad(), second_derivatives(), forward_ad.dual_level():
            moving = {name: forward_ad.make_dual(values[name], t) for name, t in tangents.items()}
            tangent = forward_ad.unpack_dual(self.network.losses(values | moving, rows, forward_mode=True)).tangent
        return torch.zeros(rows.count, dtype=theta.dtype, device=theta.device) if tangent is None else tangent

    def consistent(
        self, derivatives: Tensor, direction: Tensor, grad: Tensor, *, recorded: bool = False
    ) -> tuple[bool, str]:
        """The gradient is linear in the weights, so at w = 1 the derivatives sum to direction . gradient:
        (do they, both sums).

        recorded: the derivatives come from the very pass that gave the gradient, so they must agree to rounding.

        A custom autograd function whose backward is not differentiable (once_differentiable, a raw kernel) gives no
        error under torch.autograd.grad: its part of the second derivative is silently missing. Here it shows.
        """
        sums = self._sum(torch.stack([derivatives.sum(), derivatives.abs().sum()]).double()).tolist()
        norms = torch.linalg.vector_norm(direction), torch.linalg.vector_norm(grad)
        sizes = torch.stack([torch.dot(direction, grad), *norms]).double()
        expected, *squares = self.layout.total(sizes * torch.stack([torch.ones_like(sizes[0]), *sizes[1:]])).tolist()
        narrow = any(dtype in (torch.float16, torch.bfloat16) for dtype in self.layout.dtypes.values())
        # What rounding may do to the passes, and to the dot product over all parameters.
        noise = math.sqrt(squares[0]) * math.sqrt(squares[1])
        eps = torch.finfo(self.layout.dtype).eps
        if recorded:
            share = NARROW_ROUNDING if narrow else RECORDED_ROUNDING * eps
        else:
            share = NARROW_DISAGREEMENT if narrow else DISAGREEMENT
        allowed = share * max(sums[1], abs(expected)) + (1 if recorded else SECOND_PASS_ROUNDING) * eps * noise
        return abs(sums[0] - expected) <= allowed, f"{sums[0]:.6g} against {expected:.6g}"

    def _check(self, step: int, theta: Tensor, losses: Tensor, grad: Tensor) -> None:
        """Raises NonFiniteError naming the step and the examples whose loss, else whose own gradient, is not finite."""
        if self.everywhere(bool(torch.isfinite(losses.sum() + grad.sum()))):
            return
        what, bad = "loss", (~torch.isfinite(losses)).nonzero()[:, 0].tolist()
        if self.everywhere(not bad):
            if self.everywhere(bool(torch.isfinite(grad).all()) and bool(torch.isfinite(losses).all())):
                return  # only the sum overflowed
            what = "gradient"
            for i in range(0 if self.sharded else len(losses)):  # sharded, gradients are all ranks' sums
                rows = prepare(self.batches[step], i, i + 1, self.convention)
                if len(rows.flat):
                    own = torch.zeros_like(theta)
                    self._build(step, theta, slice(i, i + 1), rows, own)
                    if not bool(torch.isfinite(own).all()):
                        bad.append(i)
        named = f" (examples {bad[:16]} of its batch)" if bad else ""  # sharded, they may be another rank's
        raise NonFiniteError(
            f"The {what} of inner step {step} is not finite{named}; lower the inner "
            "learning rate, use a wider dtype, or drop these examples.",
            step=step,
            examples=tuple(bad),
        )


def _drain(kept: Kept) -> Iterator[tuple[slice, Graph | Recording]]:
    """In order, each let go as soon as the next is asked for: they are the largest things in memory."""
    while kept:
        piece = kept.pop(0)
        yield piece.where, piece


def _pull(graph: Graph, tangents: dict[str, Tensor], curvature: bool) -> tuple[Tensor, list[Tensor | None]]:
    """(derivatives (n,), per-parameter H direction, None for 0): <direction, gradient> differentiated by w, theta."""
    moved = [name for name in tangents if name in graph.edges]
    wanted = [graph.weights, *graph.leaves] if curvature else [graph.weights]
    found = [None] * len(wanted)
    if moved:
        with second_derivatives():
            found = torch.autograd.grad(
                [graph.edges[name] for name in moved], wanted, [tangents[name] for name in moved], allow_unused=True
            )
    return torch.zeros_like(graph.weights) if found[0] is None else found[0], list(found[1:])


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Turns PyTorch's complaint about an operation that cannot be differentiated twice into advice."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        signs = ("is not implemented", "once_differentiable", "forward AD", "forward mode AD", "jvp")
        if any(sign in text for sign in signs):
            raise SecondDerivativeError(
                "An operation of the model cannot be differentiated twice, as a rule a fused attention kernel; load "
                'the model with attn_implementation="eager" and without custom kernels. PyTorch says: '
                + text.splitlines()[0]
            ) from error
        raise
