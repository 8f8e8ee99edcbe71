"""The model as a function of its trained parameters, without touching the caller's module."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rewards.metagradient import kernels
from rewards.metagradient.directional import Recorder
from rewards.metagradient.errors import MetagradientError
from rewards.metagradient.loss import Rows
from rewards.metagradient.sharding import Cut, Sharded


class Layout:
    """Where each trained parameter lies in the flat vector, in the order of model.named_parameters().

    The inner state is float64 if any trained parameter is, else float32: a bf16 model trains on a float32 master copy
    that is rounded to bf16 at every forward pass.

    size, parameters_count   numbers in a flat vector, and in the trained parameters
    """

    cut: Cut | None = None
    """How vectors are divided among ranks (`ShardedLayout`); None: this process holds them whole."""

    def __init__(self, model: nn.Module) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise MetagradientError("No parameter of the model trains; set requires_grad on those that should.")
        self.names = list(trained)
        self.shapes = [p.shape for p in trained.values()]
        self.sizes = [p.numel() for p in trained.values()]
        self.starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        self.dtypes = {name: p.dtype for name, p in trained.items()}
        self.size = self.parameters_count = sum(self.sizes)
        self.dtype = torch.float64 if torch.float64 in self.dtypes.values() else torch.float32
        self.device = next(iter(trained.values())).device

    def same(self, other: Layout) -> bool:
        """Whether the same parameters train, as they lie here."""
        mine, theirs = ((each.names, each.shapes, each.dtypes, each.device, each.cut) for each in (self, other))
        return mine == theirs

    def flatten(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
        """(size,) new vector in the inner dtype, without gradient."""
        values = [tensors[name] for name in self.names] if isinstance(tensors, Mapping) else tensors
        return torch.cat([t.detach().reshape(-1).to(self.dtype) for t in values])

    @contextmanager
    def collecting(self, leaves: Sequence[Tensor], flat: Tensor) -> Iterator[list[int]]:
        """Inside, a backward pass adds the leaves' gradients to the flat vector, each as soon as it is formed, so that
        they never stand side by side. Gives the places of those that got one. Leaves that need none are left out."""
        touched = set()
        for i, (leaf, view) in enumerate(zip(leaves, self.views(flat).values(), strict=True)):
            if not leaf.requires_grad:
                continue
            leaf.grad = view
            leaf.register_post_accumulate_grad_hook(lambda _, i=i: touched.add(i))
        places = []
        try:
            yield places
        finally:
            for leaf in leaves:
                leaf.grad = None
            places += sorted(touched)

    def add(self, flat: Tensor, tensors: Sequence[Tensor | None]) -> None:
        """Add one tensor a parameter, in order, to the flat vector; None is 0."""
        for view, tensor in zip(self.views(flat).values(), tensors, strict=True):
            if tensor is not None:
                view.add_(tensor.detach())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """name -> view of the flat vector, parameter-shaped."""
        parts = flat.split(self.sizes)
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def parameters(self, views: Mapping[str, Tensor], *, metric: bool = False) -> dict[str, Tensor]:
        """name -> what stands in the model for the views of a flat vector, in the parameters' dtypes; for a metric in
        the inner dtype."""
        return {name: v if metric else v.to(self.dtypes[name]) for name, v in views.items()}

    def whole(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """name -> parameter-shaped, of some of a flat vector's views."""
        return views

    def anywhere(self, flags: Tensor) -> Tensor:
        """Flags that are set on some rank that holds a part of the vectors."""
        return flags

    def total(self, sums: Tensor) -> Tensor:
        """Sums over the numbers of flat vectors, from those over the ones that are here."""
        return sums

    def moving(self, flat: Tensor, span: slice) -> dict[str, Tensor]:
        """name -> direction, parameter-shaped, of the parameters whose direction is not zero; `flat` is its part inside
        `span`, and it is zero outside."""
        pieces = {}
        for i, (start, size) in enumerate(zip(self.starts, self.sizes, strict=True)):
            low, high = max(start, span.start), min(start + size, span.stop)
            if low < high:
                pieces[i] = low - start, flat[low - span.start : high - span.start]
        moves = torch.zeros(len(self.names), dtype=torch.bool, device=flat.device)
        if pieces:
            moves[list(pieces)] = torch.stack([piece.any() for _, piece in pieces.values()])
        found = {}
        for i in self.anywhere(moves).nonzero()[:, 0].tolist():
            offset, piece = pieces.get(i, (0, flat[:0]))
            if len(piece) < self.sizes[i]:
                whole = flat.new_zeros(self.sizes[i])
                whole[offset : offset + len(piece)] = piece
                piece = whole
            found[self.names[i]] = piece.view(self.shapes[i])
        return found


class ShardedLayout(Layout):
    """A flat vector is this rank's part of every parameter, one after the other: `views` are parts, (length,) each.

    device  where the passes run; the model itself may lie in host memory
    """

    def __init__(self, model: nn.Module, group: dist.ProcessGroup, device: torch.device) -> None:
        super().__init__(model)
        self.cut, self.device = Cut(group), device
        self.whole_shapes = dict(zip(self.names, self.shapes, strict=True))
        self.sizes = [self.cut.length(size) for size in self.sizes]
        self.shapes = [torch.Size((size,)) for size in self.sizes]
        self.starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        self.size = sum(self.sizes)

    def flatten(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
        values = [tensors[name] for name in self.names] if isinstance(tensors, Mapping) else tensors
        return torch.cat([self.cut.own(t.detach()).to(self.device, self.dtype) for t in values])

    def parameters(self, parts: Mapping[str, Tensor], *, metric: bool = False) -> dict[str, Tensor]:
        return {
            name: Sharded(
                part,
                self.whole_shapes[name],
                self.dtype if metric else self.dtypes[name],
                self.cut,
                summed=not metric,
            )
            for name, part in parts.items()
        }

    def whole(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        found = self.cut.whole(list(views.values()), [self.whole_shapes[name] for name in views])
        return dict(zip(views, found, strict=True))

    def anywhere(self, flags: Tensor) -> Tensor:
        counts = flags.to(torch.float32)
        dist.all_reduce(counts, dist.ReduceOp.MAX, group=self.cut.group)
        return counts > 0

    def total(self, sums: Tensor) -> Tensor:
        dist.all_reduce(sums, group=self.cut.group)
        return sums


class Network:
    """Example losses of structural copies of the model.

    A copy shares every parameter's storage with the caller's model but nothing else, so evaluation mode, attention
    and hooks set here never reach the caller. Dropout is off: the inner training is a function of data and weights.
    Attention is eager, or that of `kernels`, because fused kernels have neither a forward mode nor a second derivative.
    A model that calls scaled_dot_product_attention itself gets its math kernel, which has both.

    Two copies: one on `kernels` (reverse passes), one on the model's own operations (forward mode), made when needed.
    """

    def __init__(self, model: nn.Module, layout: Layout | None = None) -> None:
        self.layout = Layout(model) if layout is None else layout
        device = self.layout.device
        self.frozen = self._frozen(model)
        self._model, self._reverse = model, _Copy(model, device, fitted=True)
        self.recorder = Recorder(self._reverse.module, self._reverse.head)
        self.graph_only = self._reverse.graph_only
        """Switch of the reverse copy: backward passes for the sake of their graph alone."""
        if self.layout.cut is not None:
            self.layout.cut.silent = lambda: self.graph_only.on

    def _frozen(self, model: nn.Module) -> dict[str, Tensor]:
        return {n: p.detach().to(self.layout.device) for n, p in model.named_parameters() if not p.requires_grad}

    def again(self, model: nn.Module) -> bool:
        """Whether the copies serve the model as it is now, too; its frozen weights are then those of now."""
        if not self.layout.same(Layout(model)):
            return False
        self.frozen = self._frozen(model)
        return True

    @cached_property
    def _forward(self) -> _Copy:
        return _Copy(self._model, self.layout.device, fitted=False)

    def losses(self, parameters: Mapping[str, Tensor], rows: Rows, *, forward_mode: bool = False) -> Tensor:
        """(n,) example losses l_i, float32 at least. parameters: the trained ones, as `layout.views` has them."""
        cast = self.layout.parameters(parameters)
        module = self._forward if forward_mode else self._reverse
        logits = module.logits(cast | self.frozen, rows)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if forward_mode:
            nll = F.cross_entropy(logits, rows.targets, reduction="none")
        else:
            nll = kernels.token_nll(logits, rows.targets)
        return nll.new_zeros(rows.count).index_add(0, rows.owner, nll * rows.scale.to(nll.dtype))


class _Copy:
    def __init__(self, model: nn.Module, device: torch.device, *, fitted: bool) -> None:
        self.module = copy.deepcopy(model, memo={id(p): p for p in model.parameters()}).eval()
        for part in self.module.modules():  # the parameters are given with each call
            part._buffers.update({name: b if b is None else b.to(device) for name, b in part._buffers.items()})
        attention = kernels.attention_name(self.module) if fitted else "eager"
        for config in _configs(self.module):
            config._attn_implementation = attention
            config.pad_token_id = None  # it serves only a warning about padded input without a mask
        accepted = inspect.signature(self.module.forward).parameters
        self._extra = {"use_cache": False} if "use_cache" in accepted else {}
        self.graph_only = kernels.GraphOnly()
        self.head = head = getattr(self.module, "get_output_embeddings", lambda: None)()
        self._scored: Tensor | None = None
        if fitted:
            kernels.fit(self.module, head, self.graph_only)
        if head is not None:
            head.register_forward_pre_hook(self._keep_scored)
        places: dict[int, list[tuple[dict, str]]] = {}
        for part in self.module.modules():
            for slot, parameter in part._parameters.items():
                places.setdefault(id(parameter), []).append((part._parameters, slot))
        self._places = {name: places[id(parameter)] for name, parameter in self.module.named_parameters()}

    @contextmanager
    def _holding(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the module's parameters are these, tied ones wherever they are tied. As torch.func.functional_call,
        which looks for every place anew: a tenth of a pass over a short text."""
        before = [(held, slot, held[slot]) for name in parameters for held, slot in self._places[name]]
        try:
            for name, value in parameters.items():
                for held, slot in self._places[name]:
                    held[slot] = value
            yield
        finally:
            for held, slot, value in before:
                held[slot] = value

    def _keep_scored(self, head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Only scored positions reach the LM head: its logits are the largest tensors of the whole pass."""
        if self._scored is None or len(args) != 1:
            return args
        flat, scored, self._scored = args[0].reshape(-1, args[0].shape[-1]), self._scored, None
        return ((flat if len(scored) == len(flat) else flat.index_select(0, scored))[None],)

    def logits(self, parameters: Mapping[str, Tensor], rows: Rows) -> Tensor:
        """(M, V) at the scored positions."""
        self._scored = rows.flat
        with sdpa_kernel(SDPBackend.MATH), self._holding(parameters):
            out = self.module(**rows.inputs, **self._extra).logits
        out = out.reshape(-1, out.shape[-1])
        if self._scored is None:
            return out
        self._scored = None
        return out.index_select(0, rows.flat)


def _configs(module: nn.Module) -> list:
    """Every Hugging Face config in the copy that names an attention implementation."""
    found = {
        id(m.config): m.config for m in module.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")
    }
    return list(found.values())
