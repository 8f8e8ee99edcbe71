"""The model as a function of one flat parameter vector, without touching the caller's module."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rewards.metagradient.errors import MetagradientError
from rewards.metagradient.loss import Rows


class Layout:
    """Where each trained parameter lies in the flat vector, in the order of model.named_parameters().

    The inner state is float64 if any trained parameter is, else float32: a bf16 model trains on a float32 master copy
    that is rounded to bf16 at every forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise MetagradientError("No parameter of the model trains; set requires_grad on those that should.")
        self.names = list(trained)
        self.shapes = [p.shape for p in trained.values()]
        self.sizes = [p.numel() for p in trained.values()]
        self.dtypes = {name: p.dtype for name, p in trained.items()}
        self.size = sum(self.sizes)
        self.dtype = torch.float64 if torch.float64 in self.dtypes.values() else torch.float32
        self.device = next(iter(trained.values())).device

    def flatten(self, tensors: Mapping[str, Tensor] | list[Tensor]) -> Tensor:
        """(size,) new vector in the inner dtype, without gradient."""
        values = [tensors[name] for name in self.names] if isinstance(tensors, Mapping) else tensors
        return torch.cat([t.detach().reshape(-1).to(self.dtype) for t in values])

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """name -> view of the flat vector, parameter-shaped."""
        parts = flat.split(self.sizes)
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}


class Network:
    """logits(parameters, rows) of a structural copy of the model.

    The copy shares every parameter's storage with the caller's model but nothing else, so evaluation mode, eager
    attention and hooks set here never reach the caller. Dropout is off: the inner training is a function. Attention is
    eager because fused kernels have neither forward mode nor a second derivative.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layout = Layout(model)
        shared = {id(p): p for p in model.parameters()}
        self.module = copy.deepcopy(model, memo=dict(shared)).eval()
        self.frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
        for config in _configs(self.module):
            config._attn_implementation = "eager"
            config.pad_token_id = None  # it serves only a warning about padded input without a mask
        parameters = inspect.signature(self.module.forward).parameters
        self._extra = {"use_cache": False} if "use_cache" in parameters else {}
        head = getattr(self.module, "get_output_embeddings", lambda: None)()
        self._scored: Tensor | None = None
        if head is not None:
            head.register_forward_pre_hook(self._keep_scored)

    def _keep_scored(self, head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Only scored positions reach the LM head: its logits are the largest tensors of the whole pass."""
        if self._scored is None or len(args) != 1:
            return args
        hidden, scored = args[0], self._scored
        self._scored = None
        flat = hidden.reshape(-1, hidden.shape[-1])
        return ((flat if len(scored) == len(flat) else flat[scored])[None],)

    def logits(self, parameters: Mapping[str, Tensor], rows: Rows) -> Tensor:
        """(M, V) logits at the scored positions. parameters: trained ones, inner dtype, parameter-shaped."""
        layout = self.layout
        cast = {name: p.to(layout.dtypes[name]) for name, p in parameters.items()}
        self._scored = rows.flat
        out = functional_call(self.module, cast | self.frozen, (), rows.inputs | self._extra).logits
        if self._scored is not None:
            self._scored = None
            return out.reshape(-1, out.shape[-1])[rows.flat]
        return out.reshape(-1, out.shape[-1])

    def losses(self, parameters: Mapping[str, Tensor], rows: Rows) -> Tensor:
        """(n,) example losses l_i."""
        return rows.example_losses(self.logits(parameters, rows))


def _configs(module: nn.Module) -> list:
    """Every Hugging Face config in the copy that names an attention implementation."""
    found = {id(m.config): m.config for m in module.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")}
    return list(found.values())
