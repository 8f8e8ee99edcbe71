"""Sharded mode: every rank holds 1/N of each vector of the inner training, and a layer's weights only while it works.

A trained parameter stands in the model as a `Sharded`: it has the parameter's shape and no memory but this rank's part.
Whatever PyTorch function it goes into becomes one node of the autograd graph (`_Call`): the node gathers the weight,
computes and lets go of it. Its backward gathers again, and reduce-scatters the gradient, so that ranks with their own
examples add up (ZeRO-3). The backward of that, which the engine's second derivative asks for, does the same once more:
a direction is gathered where the first derivative was scattered, and the other way round. No whole weight is ever saved
in a graph, and all collectives are inside nodes whose order is that of the model's layers, the same on all ranks.

FSDP2 (`fully_shard`) cannot do it: its gradients are put into the parameters by hooks and are no functions of anything
(torch 2.13: `torch.autograd.grad(..., create_graph=True)` of its parameters gives None, `backward(create_graph=True)`
gradients without a graph).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from rewards.metagradient.errors import MetagradientError

# Before torch 2.13 they had the other names, which warn since.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class Cut:
    """How tensors are cut into equal parts, one a rank, the last ones padded with zeros.

    silent  while it says True, gradients are not reduced: their graph is wanted and not their values
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group, self.rank, self.count = group, dist.get_rank(group), dist.get_world_size(group)
        self.silent: Callable[[], bool] = lambda: False

    def length(self, numel: int) -> int:
        """Numbers a rank holds of so many."""
        return -(-numel // self.count)

    def own(self, tensor: Tensor) -> Tensor:
        """(length,) this rank's part, zeros after its end; a view where nothing is missing."""
        flat, length = tensor.reshape(-1), self.length(tensor.numel())
        part = flat[self.rank * length : (self.rank + 1) * length]
        return part if len(part) == length else nn.functional.pad(part, (0, length - len(part)))

    def whole(self, parts: Sequence[Tensor], shapes: Sequence[torch.Size]) -> list[Tensor]:
        """The tensors of which every rank gives its part; those of a dtype come in one collective."""
        found: dict[int, Tensor] = {}
        for places in _by_dtype(parts):
            mine = [parts[i].detach() for i in places]
            sent = mine[0].contiguous() if len(mine) == 1 else torch.cat(mine)
            got = sent.new_empty(self.count * len(sent))
            _all_gather(got, sent, group=self.group)
            start, rows = 0, got.view(self.count, -1)
            for i, part in zip(places, mine, strict=True):
                flat = rows[:, start : start + len(part)].reshape(-1)  # a view where it is the only one
                found[i], start = flat[: shapes[i].numel()].view(shapes[i]), start + len(part)
        return [found[i] for i in range(len(parts))]

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """This rank's parts of the tensors' sums over the ranks."""
        found: dict[int, Tensor] = {}
        for places in _by_dtype(tensors):
            lengths = [self.length(tensors[i].numel()) for i in places]
            alone = tensors[places[0]]
            if len(places) == 1 and alone.numel() == self.count * lengths[0]:
                sent = alone.reshape(-1)
            else:
                rows, start = alone.new_zeros(self.count, sum(lengths)), 0
                for i, length in zip(places, lengths, strict=True):
                    flat = tensors[i].reshape(-1)
                    full, rest = divmod(len(flat), length) if length else (0, 0)
                    rows[:full, start : start + length] = flat[: full * length].view(full, length)
                    if rest:
                        rows[full, start : start + rest] = flat[full * length :]
                    start += length
                sent = rows.view(-1)
            got = sent.new_empty(sum(lengths))
            _reduce_scatter(got, sent, group=self.group)
            found.update(zip(places, got.split(lengths), strict=True))
        return [found[i] for i in range(len(tensors))]


def _by_dtype(tensors: Sequence[Tensor]) -> list[list[int]]:
    places: dict[torch.dtype, list[int]] = {}
    for i, tensor in enumerate(tensors):
        places.setdefault(tensor.dtype, []).append(i)
    return list(places.values())


class Sharded(Tensor):
    """A parameter of which this process holds a part. All ranks have to use it together, in the same order.

    part    (length,) in the inner dtype; gradients reach it
    summed  whether ranks use it on examples of their own, so that their gradients add up; else all compute the same
    """

    part: Tensor
    cut: Cut
    summed: bool

    @staticmethod
    def __new__(cls, part: Tensor, shape: torch.Size, dtype: torch.dtype, cut: Cut, *, summed: bool) -> Sharded:
        made = Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype, device=part.device, requires_grad=part.requires_grad
        )
        made.part, made.cut, made.summed = part, cut, summed
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __repr__(self, **_: Any) -> str:
        return f"Sharded({tuple(self.shape)}, {self.dtype}, part {self.cut.rank} of {self.cut.count})"

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in _OF_THE_OUTSIDE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return call(func, *args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        raise MetagradientError(
            f"A custom operation ({func}) meets a sharded parameter, of which this process holds a part; use a model "
            "of plain PyTorch operations, or set sharded=False."
        )


def _getters(*names: str) -> set[Callable]:
    return {getattr(Tensor, name).__get__ for name in names}


_OF_THE_OUTSIDE = _getters(
    "shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "is_leaf", "layout", "is_meta", "is_sparse", "grad"
) | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.__len__}
"""What can be said of a parameter without its numbers."""


def call(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """function(*args, **kwargs) with every Sharded among the arguments whole inside; differentiable twice in reverse.

    function may be the class of a torch.autograd.Function, which is then applied.
    """
    if isinstance(function, type) and not any(isinstance(arg, Sharded) for arg in args):
        return function.apply(*args)
    operation = _Operation(function, args, kwargs)
    name = getattr(function, "__name__", "")
    if name.endswith("_") and not name.startswith("__"):
        raise MetagradientError(f"A sharded parameter cannot take part in {name}, which writes in place.")
    if not torch.is_grad_enabled() and any(s.summed and s.part.requires_grad for s in operation.sharded.values()):
        # Inside of a custom autograd function's forward, say: its backward would reach nothing.
        raise MetagradientError(
            "The model uses a sharded parameter where gradients are off, in a custom autograd function as a rule; use "
            "a model of plain PyTorch operations, or set sharded=False."
        )
    if torch.is_grad_enabled() and any(t.requires_grad for t in operation.tensors):
        tensors, operation.tensors = operation.tensors, []  # a graph keeps the operation, and these are its to let go
        found = _Call.apply(operation, *tensors)
        return operation.shaped(found if isinstance(found, tuple) else (found,))
    return operation.run(operation.filled(operation.tensors))


class _Operation:
    """A function with its arguments, of which the tensors (for a sharded one its part) may be replaced.

    sharded  place among the tensors -> the Sharded that stands there
    """

    def __init__(self, function: Callable, args: tuple, kwargs: dict) -> None:
        self.function = function
        self._leaves, self._spec = tree_flatten((args, kwargs))
        self._places = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor)]
        tensors = [self._leaves[i] for i in self._places]
        self.sharded = {i: t for i, t in enumerate(tensors) if isinstance(t, Sharded)}
        self.tensors = [t.part if isinstance(t, Sharded) else t for t in tensors]
        for i in self._places:
            self._leaves[i] = None  # or the operation, which a graph keeps, would hold what the graph may let go
        self._out: tuple[list[Any], Any, list[int]] | None = None

    @property
    def cut(self) -> Cut:
        return next(iter(self.sharded.values())).cut

    def filled(self, tensors: Sequence[Tensor], also: Mapping[int, Tensor] | None = None) -> list[Tensor]:
        """The tensors, whole; `also`: place -> part of something shaped like the parameter there, which comes after
        them."""
        parts = [tensors[i].to(s.dtype) for i, s in self.sharded.items()]
        shapes = [s.shape for s in self.sharded.values()]
        for i, part in (also or {}).items():
            parts.append(part.to(self.sharded[i].dtype))
            shapes.append(self.sharded[i].shape)
        whole = self.cut.whole(parts, shapes)
        found = list(tensors)
        for i, tensor in zip(self.sharded, whole, strict=False):
            found[i] = tensor
        return found + whole[len(self.sharded) :]

    def parted(self, found: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
        """Adjoints of the tensors with those of sharded ones as parts; like: the tensors."""
        found = list(found)
        sums = [i for i, s in self.sharded.items() if found[i] is not None and s.summed]
        for i, part in zip(sums, self.cut.summed([found[i].to(like[i].dtype) for i in sums]), strict=True):
            found[i] = part
        for i, s in self.sharded.items():
            if found[i] is not None and not s.summed:
                found[i] = self.cut.own(found[i]).to(like[i].dtype, copy=True)  # no view that holds all of it
        return found

    def run(self, tensors: Sequence[Tensor]) -> Any:
        leaves = list(self._leaves)
        for i, tensor in zip(self._places, tensors, strict=True):
            leaves[i] = tensor
        args, kwargs = tree_unflatten(leaves, self._spec)
        applied = isinstance(self.function, type) and issubclass(self.function, Function)
        return (self.function.apply if applied else self.function)(*args, **kwargs)

    def outputs(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors among the results; `shaped` puts them back in their place."""
        leaves, spec = tree_flatten(self.run(tensors))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        found = tuple(leaves[i] for i in places)
        self._out = [None if i in places else leaf for i, leaf in enumerate(leaves)], spec, places
        return found

    def shaped(self, outputs: Sequence[Tensor]) -> Any:
        leaves, spec, places = self._out
        leaves = list(leaves)
        for i, tensor in zip(places, outputs, strict=True):
            leaves[i] = tensor
        return tree_unflatten(leaves, spec)

    def pulled(
        self, adjoints: Sequence[Tensor | None], tensors: Sequence[Tensor], need: Sequence[bool], *, again: bool
    ) -> list[Tensor | None]:
        """The outputs' adjoints pulled back to the tensors that need one. again: the result is to be differentiated in
        adjoints and tensors, which are leaves."""
        known = getattr(self.function, "pulled", None)
        if known is not None:  # it does not need the forward pass
            with torch.set_grad_enabled(again):
                leaves = list(self._leaves)
                for i, tensor in zip(self._places, tensors, strict=True):
                    leaves[i] = tensor
                args, _ = tree_unflatten(leaves, self._spec)
                return list(known(*adjoints, need, again, *args))
        with torch.enable_grad():
            if not again:
                tensors = [t.detach().requires_grad_(n) for t, n in zip(tensors, need, strict=True)]
            pairs = [
                (o, g)
                for o, g in zip(self.outputs(tensors), adjoints, strict=True)
                if g is not None and o.requires_grad
            ]
            wanted = [i for i, n in enumerate(need) if n]
            found: list[Tensor | None] = [None] * len(tensors)
            if pairs:
                outputs, gradients = zip(*pairs, strict=True)
                made = torch.autograd.grad(
                    outputs, [tensors[i] for i in wanted], gradients, create_graph=again, allow_unused=True
                )
                for i, gradient in zip(wanted, made, strict=True):
                    found[i] = gradient
        return found


class _Call(Function):
    @staticmethod
    def forward(ctx: Any, operation: _Operation, *tensors: Tensor) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.operation = operation
        outputs = operation.outputs(operation.filled(tensors))
        return outputs[0] if len(outputs) == 1 else outputs

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor | None) -> tuple[Tensor | None, ...]:
        need = ctx.needs_input_grad[1:]
        found = _CallBackward.apply(ctx.operation, need, len(adjoints), *adjoints, *ctx.saved_tensors)
        return None, *found


class _CallBackward(Function):
    @staticmethod
    def forward(ctx: Any, operation: _Operation, need: tuple[bool, ...], count: int, *given: Tensor | None) -> Any:
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        ctx.how = operation, need, count
        tensors = given[count:]
        found = operation.pulled(given[:count], operation.filled(tensors), need, again=False)
        if operation.cut.silent():
            for i in operation.sharded:
                found[i] = None if found[i] is None else tensors[i].new_zeros(()).expand(tensors[i].shape)
            return tuple(found)
        return tuple(operation.parted(found, tensors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        operation, need, count = ctx.how
        adjoints, tensors = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        moving = {i: directions[i] for i in operation.sharded if directions[i] is not None}
        whole = operation.filled(tensors, also=moving)
        directions = list(directions)
        for i, direction in zip(moving, whole[len(tensors) :], strict=True):
            directions[i] = direction
        leaf = lambda t: t if t is None else t.detach().requires_grad_(t.is_floating_point())
        leaves = [leaf(t) for t in (*adjoints, *whole[: len(tensors)])]
        found = operation.pulled(leaves[:count], leaves[count:], need, again=True)
        pairs = [
            (f, d)
            for f, d in zip(found, directions, strict=True)
            if f is not None and d is not None and f.requires_grad
        ]
        wanted = [i for i, n in enumerate(ctx.needs_input_grad[3:]) if n]
        back: list[Tensor | None] = [None] * len(leaves)
        if pairs and wanted:
            outputs, given = zip(*pairs, strict=True)
            made = torch.autograd.grad(outputs, [leaves[i] for i in wanted], given, allow_unused=True)
            for i, gradient in zip(wanted, made, strict=True):
                back[i] = gradient
        return None, None, None, *back[:count], *operation.parted(back[count:], tensors)
