"""How likely a model finds tokens after others, as a differentiable function of its parameters, a few texts at a
time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.func import functional_call

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Params = Mapping[str, torch.Tensor]
Row = tuple[list[int], int]
"""(token ids, how many of them, at the end, are scored). Something stands before the first scored one."""


class Likelihood:
    """Summed log-likelihoods (nats) of the scored ends of rows under `model` with given parameters.

    `groups` hold rows that are looked at together: all of a group are in one batch. Groups are sorted by length into
    batches of about `microbatch` rows, padded on the right, and logits are computed only at positions that some row of
    the batch is scored at. Rows are numbered group after group.
    """

    def __init__(self, model: PreTrainedModel, groups: Sequence[Sequence[Row]], *, microbatch: int = 32) -> None:
        self.model = model
        starts: list[int] = []
        rows: list[Row] = []
        for group in groups:
            starts.append(len(rows))
            rows += group
        order = sorted(range(len(groups)), key=lambda i: max(len(ids) for ids, _ in groups[i]))
        size = max(1, microbatch // max((len(group) for group in groups), default=1))
        self.batches = []
        for start in range(0, len(order), size):
            places = [starts[i] + k for i in order[start : start + size] for k in range(len(groups[i]))]
            self.batches.append(_Batch([rows[place] for place in places], places))
        self.counts = torch.tensor([scored for _, scored in rows])
        """(N,) int64: scored tokens of each row."""
        # Toy models and some remote ones lack the argument; they give logits everywhere.
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def each(self, params: Params) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(sums, scored tokens, numbers) of a batch's rows, (B,) each, batch after batch.

        `params` are keyed as `dict(model.named_parameters())`. Differentiable in them."""
        device = next(iter(params.values())).device
        for batch in self.batches:
            batch.to(device)
            yield self._one(params, batch), (batch.targets != -100).sum(dim=1), batch.places

    def sums(self, params: Params) -> torch.Tensor:
        """(N,): of every row."""
        found = [(sums, places) for sums, _, places in self.each(params)]
        sums = torch.cat([each for each, _ in found])
        return torch.zeros_like(sums).index_copy(0, torch.cat([places for _, places in found]), sums)

    def distributions(self, params: Params) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(log-probabilities (B, K, vocabulary) at the batch's positions, whether a row is scored there (B, K)), batch
        after batch."""
        device = next(iter(params.values())).device
        for batch in self.batches:
            batch.to(device)
            yield self._logits(params, batch).log_softmax(dim=-1), batch.targets != -100

    def hidden(self, params: Params, layer: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(hidden states (B, K, width) that the module `layer` puts out at the batch's positions, whether a row is
        scored there (B, K), the rows' numbers (B,)), batch after batch."""
        device = next(iter(params.values())).device
        module = self.model.get_submodule(layer)
        for batch in self.batches:
            batch.to(device)
            seen: list[torch.Tensor] = []
            handle = module.register_forward_hook(
                lambda _, __, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
            )
            try:
                self._call(params, batch, batch.positions[:1])
            finally:
                handle.remove()
            yield seen[-1][:, batch.positions], batch.targets != -100, batch.places

    def _logits(self, params: Params, batch: _Batch) -> torch.Tensor:
        logits = self._call(params, batch, batch.positions)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def _call(self, params: Params, batch: _Batch, positions: torch.Tensor) -> torch.Tensor:
        """(B, positions, vocabulary) logits."""
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
        if self._keeps:
            inputs["logits_to_keep"] = positions
        logits = functional_call(self.model, dict(params), (), inputs).logits
        return logits if self._keeps else logits[:, positions]

    def _one(self, params: Params, batch: _Batch) -> torch.Tensor:
        logits = self._logits(params, batch)
        losses = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100, reduction="none")
        return -losses.view(batch.targets.shape).sum(dim=1)


class _Batch:
    """input_ids, attention_mask (B, S); positions (K,) that are scored in some row; targets (B, K): the token that each
    of them has to predict, -100 where the row is not scored there; places (B,): the rows' numbers. All int64."""

    def __init__(self, rows: Sequence[Row], places: Sequence[int]) -> None:
        width = max(len(ids) for ids, _ in rows) - 1  # the last token is predicted, never read
        self.input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
        self.attention_mask = torch.zeros_like(self.input_ids)
        targets = torch.full_like(self.input_ids, -100)
        for row, (ids, scored) in enumerate(rows):
            length = len(ids) - 1
            self.input_ids[row, :length] = torch.tensor(ids[:-1])
            self.attention_mask[row, :length] = 1
            targets[row, length - scored : length] = torch.tensor(ids[len(ids) - scored :])
        self.positions = (targets != -100).any(dim=0).nonzero().squeeze(1)
        if not len(self.positions):  # all cut before their scored ends: one position, where no row is scored
            self.positions = torch.zeros(1, dtype=torch.int64)
        self.targets = targets[:, self.positions]
        self.places = torch.tensor(places)

    def to(self, device: torch.device) -> None:
        for name in ("input_ids", "attention_mask", "positions", "targets", "places"):
            setattr(self, name, getattr(self, name).to(device))


def summed(parts: Callable[[Params], Iterable[torch.Tensor]], params: Params) -> torch.Tensor:
    """The sum of the scalars `parts(params)`, at least one, whose gradient is taken part by part on the way: one part's
    graph is held at a time and nothing is computed twice. It can be differentiated once."""
    if torch.is_grad_enabled() and any(value.requires_grad for value in params.values()):
        return _Summed.apply(parts, tuple(params), *params.values())
    return sum(parts(params), start=torch.zeros((), device=next(iter(params.values())).device))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, parts: Callable[[Params], Iterable[torch.Tensor]], names: Sequence[str], *values: torch.Tensor
    ) -> torch.Tensor:
        needed = ctx.needs_input_grad[2:]
        leaves = [value.detach().requires_grad_(need) for value, need in zip(values, needed, strict=True)]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        sums: list[torch.Tensor | None] = [None] * len(wanted)
        total: Any = 0.0
        with torch.enable_grad():
            for part in parts(dict(zip(names, leaves, strict=True))):
                if part.requires_grad:  # else nothing that it is made of trains
                    grads = torch.autograd.grad(part, wanted, allow_unused=True)
                    sums = [a if b is None else b if a is None else a.add_(b) for a, b in zip(sums, grads, strict=True)]
                total = total + part.detach()
        found = iter(sums)
        ctx.grads = [next(found) if need else None for need in needed]
        return total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: what follows would silently lack its own derivative
            raise RuntimeError(
                "Phi over several batches has a first derivative only; to differentiate twice, take all texts in one "
                "batch (raise task.options.metric_microbatch to the number of passages)."
            )
        return None, None, *(None if grad is None else grad * upstream for grad in ctx.grads)


def saved_bytes(run: Callable[[], Any], params: Params) -> int:
    """Bytes that autograd keeps of a call for its backward pass, the parameters aside."""
    own = {value.untyped_storage().data_ptr() for value in params.values()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = run()  # noqa: F841  as long as it lives no storage is another one's again
    return sum(sizes.values())


def start_token(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int | None:
    """What stands before a text: the tokenizer's beginning-of-text token; without one, the model's configured
    `bos_token_id`; without that, the end-of-text token, with which such models were trained to separate documents
    (Qwen)."""
    starts = (tokenizer.bos_token_id, getattr(model.config, "bos_token_id", None), tokenizer.eos_token_id)
    return next((token for token in starts if token is not None), None)


def positions_of(model: PreTrainedModel) -> int | None:
    """Tokens that the model reads at most; None where it does not say."""
    return getattr(model.config, "max_position_embeddings", None)
