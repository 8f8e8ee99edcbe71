"""Per-example directional derivatives d . grad l_i read off one ordinary backward pass.

For y = x W^T the gradient of example i is sum_s gy_is^T x_is, so d . grad l_i = sum_s gy_is . (D x_is): one matrix
product where forward mode needs three, and no second pass. It needs the input and the output gradient of every layer
that holds a parameter, and gives no Hessian-vector product: it serves the first step alone, where they can be kept. A
direction with few non-zero rows (a metric on a patch of the LM head) meets those rows alone.

A direction that is zero outside of the LM head needs the head's own input and output gradient alone, and these tell
the tokens of an example apart as well, which deeper layers do not: there they see each other.

It speaks only for what it knows: a parameter that works anywhere but in a layer of a known kind, on rows whose example
is plain from their shape, leaves a gap, and the caller falls back to forward mode (`Recorder.derivatives` gives None,
or they do not sum to d . gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.metagradient.kernels import RMS_NORMS, few_rows, is_conv1d
from rewards.metagradient.loss import Rows

if TYPE_CHECKING:
    from rewards.metagradient.network import Layout


@dataclass
class Recording:
    """What one microbatch's backward pass left behind.

    where  its examples in the batch
    rows   the microbatch itself
    items  (layer, input, output gradient), the gradient already holding the factor of the batch loss; of a norm each
           example's gradient of its weight and of its bias, (n, 1, H), which is far less
    only   the one layer that is recorded, where it is not all; `missed`: layers that were seen at work beside it
    """

    where: slice
    rows: Rows
    only: nn.Module | None = None
    items: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)
    missed: list[nn.Module] = field(default_factory=list)

    def nbytes(self) -> int:
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for _, x, g in self.items for t in (x, g)}
        return sum(held.values())


class Recorder:
    """Wraps the layers of a private copy that it understands; `recording` is where they write, None switches it off.

    head  the layer that sees the scored positions alone, (1, M, H) instead of (n, S, H)
    """

    def __init__(self, module: nn.Module, head: nn.Module | None) -> None:
        self.recording: Recording | None = None
        self.head = head
        # Hugging Face's hidden states are (n, S, H); foreign code may hold (S, n, H), which n = S would hide.
        self.batch_first = all(type(m).__module__.startswith(("transformers.", "torch.nn.")) for m in module.modules())
        self.names = {id(p): name for name, p in module.named_parameters()}
        for part in module.modules():
            if _kind(part) is not None:
                part.forward = self._wrapped(part, part.forward)

    def _wrapped(self, part: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, *args, **kwargs) -> Tensor:
            y, recording = forward(x, *args, **kwargs), self.recording
            if recording is None or args or kwargs or not y.requires_grad:
                return y
            if not any(p is not None and p.requires_grad for p in part._parameters.values()):
                return y  # no direction will ask for it
            if recording.only is not None and (
                part is not recording.only or x.shape[:2] != (1, len(recording.rows.owner))
            ):
                recording.missed.append(part)
                return y
            n, width = recording.rows.inputs["input_ids"].shape
            if x.shape == (1, width) and _kind(part) == "embedding":  # positions shared by all examples
                x, y = x.expand(n, width), y.expand(n, *y.shape[1:])
            by_example = x.shape[:2] == (n, width) and (n != width or self.batch_first)
            if not by_example and not (part is self.head and x.shape[:2] == (1, len(recording.rows.owner))):
                return y
            x = x.detach()
            kept = _norm_gradients if _kind(part) in NORMS else lambda part, x, g: (x, g)
            y.register_hook(lambda g: recording.items.append((part, *kept(part, x, g.detach()))))
            return y

        return call

    @contextmanager
    def writing(self, recording: Recording | None) -> Iterator[None]:
        self.recording = recording
        try:
            yield
        finally:
            self.recording = None

    def covers(self, recording: Recording, names: Collection[str]) -> bool:
        """Whether all of these parameters were seen at work."""
        missed = {name for part in recording.missed for name in self._of(part).values()}
        seen = {name for part, _, _ in recording.items for name in self._of(part).values()}
        return not missed & set(names) and set(names) <= seen

    def _of(self, part: nn.Module) -> dict[str, str]:
        """Slot -> name of the layer's own parameters."""
        return {slot: self.names[id(p)] for slot, p in part._parameters.items() if p is not None}

    def derivatives(
        self, recording: Recording, tangents: dict[str, Tensor], layout: Layout | None = None
    ) -> Tensor | None:
        """(n,) of all of `tangents` (name -> direction, as the layout's views); None where some parameter was never
        seen at work."""
        total = None
        if not self.covers(recording, tangents):
            return None
        for part, x, g in recording.items:
            slots = {slot: name for slot, name in self._of(part).items() if name in tangents}
            if not slots:
                continue
            whole = {name: tangents[name] for name in slots.values()}
            whole = whole if layout is None else layout.whole(whole)
            own = {slot: whole[name].to(g.dtype) for slot, name in slots.items()}
            found = _by_example(_contribution(part, x, g, own), recording.rows)
            total = found if total is None else total + found
        return total


NORMS = ("layer_norm", "rms_norm")


def _kind(part: nn.Module) -> str | None:
    name = type(part).__name__
    if type(part) is nn.Linear:
        return "linear"
    if is_conv1d(part):
        return "conv1d"
    if type(part) is nn.Embedding and part.max_norm is None and not part.scale_grad_by_freq:
        return "embedding"
    if type(part) is nn.LayerNorm and part.weight is not None and part.weight.dim() == 1:
        return "layer_norm"
    if name in RMS_NORMS and hasattr(part, "variance_epsilon"):
        return "rms_norm"
    return None


def _contribution(part: nn.Module, x: Tensor, g: Tensor, own: dict[str, Tensor]) -> Tensor:
    """(..., ) for every row of x: g . (derivative of the layer's output in the direction `own`)."""
    weight, bias, kind = own.get("weight"), own.get("bias"), _kind(part)
    narrow = _narrow(g)
    sum_product = lambda a, b: (a.float() * b.float() if narrow else a * b).sum(-1)
    total = torch.zeros(g.shape[:-1], dtype=torch.float32 if narrow else g.dtype, device=g.device)
    if bias is not None:
        total = sum_product(g, bias)
    if weight is None:
        return total
    if kind in ("linear", "conv1d"):
        weight = weight if kind == "linear" else weight.T
        rows = few_rows(weight)
        if rows is not None:
            weight, g = weight[rows], g.index_select(-1, rows)
        return total + sum_product(F.linear(x, weight), g)
    if kind == "embedding":
        moved = F.embedding(x, weight)
        if part.padding_idx is not None:  # its row is given no gradient
            moved = moved.masked_fill((x == part.padding_idx)[..., None], 0.0)
        return total + sum_product(moved, g)
    return total + sum_product(x, weight)


def _norm_gradients(part: nn.Module, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Each example's gradient of a norm's weight and of its bias, (n, 1, H), float32 at least."""
    x, wide = (t.float() if _narrow(t) else t for t in (x, g))
    if _kind(part) == "layer_norm":
        normal = F.layer_norm(x, part.normalized_shape, eps=part.eps)
    else:
        normal = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + part.variance_epsilon)
    sums = (t.flatten(1, -2).sum(1, keepdim=True) for t in (normal * wide, wide))
    return tuple(sums)


def _narrow(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _by_example(derivatives: Tensor, rows: Rows) -> Tensor:
    """(n,) from (n, S, ...) directly, from the (1, M) scored positions by their owner."""
    if derivatives.shape[:2] == (1, len(rows.owner)):
        return derivatives.new_zeros(rows.count).index_add(0, rows.owner, derivatives.flatten())
    return derivatives.flatten(1).sum(1)
