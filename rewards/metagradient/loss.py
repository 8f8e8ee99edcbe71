"""Loss of an example and of a batch, with the conventions of the authors' released code as named settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.metagradient.errors import BatchError

IGNORED = -100


@dataclass(frozen=True)
class LossConvention:
    """How token losses become the loss of a batch: summed_microbatches * mean_i w_i * l_i.

    fixed_length         None: l_i is the mean NLL of the example's scored tokens. An int L: l_i is the sum of its token
                         NLL divided by L, whatever its length (the authors' 128).
    summed_microbatches  The authors sum the mean gradients of k equal microbatches instead of averaging them, so the
                         gradient is k times that of the mean. This is that k; it is independent of how many examples
                         one pass of this engine holds (`microbatch`), which never changes numbers.

    Whether padding is trained on is the caller's choice of labels.
    """

    fixed_length: int | None = None
    summed_microbatches: int = 1

    def __post_init__(self) -> None:
        if self.fixed_length is not None and self.fixed_length < 1:
            raise ValueError(f"fixed_length must be at least 1, got {self.fixed_length}.")
        if self.summed_microbatches < 1:
            raise ValueError(f"summed_microbatches must be at least 1, got {self.summed_microbatches}.")


@dataclass(frozen=True)
class Rows:
    """Some examples of a batch, prepared: what goes into the model and where its logits are scored.

    inputs   keyword arguments of the model, cut to the columns that can reach a scored token; n examples
    flat     (M,) int64, positions of the scored tokens' logits in the flattened (n * S) grid
    targets  (M,) int64, the tokens to be predicted there
    owner    (M,) int64, whose loss each is part of: its example (0..n-1), or itself where tokens have weights
    scale    (M,) float64, share of each token's NLL in its example's loss l_i
    count    losses that have a weight: n, or M
    """

    inputs: dict[str, Tensor]
    flat: Tensor
    targets: Tensor
    owner: Tensor
    scale: Tensor
    count: int


def prepare(
    batch: Mapping[str, Tensor], start: int, stop: int, convention: LossConvention, *, per_token: bool = False
) -> Rows:
    """Examples start..stop of a batch. Columns after the last scored token are dropped: the model is causal."""
    labels = batch["labels"][start:stop, 1:]
    scored = labels != IGNORED
    columns = scored.any(0).nonzero()
    width = int(columns[-1]) + 1 if len(columns) else 1
    labels, scored = labels[:, :width], scored[:, :width]
    length = batch["labels"].shape[1]
    inputs = {
        key: value[start:stop, :width] if value.dim() == 2 and value.shape[1] == length else value[start:stop]
        for key, value in batch.items()
        if key != "labels"
    }
    owner, _ = scored.nonzero(as_tuple=True)
    per_example = scored.sum(1).double() if convention.fixed_length is None else None
    scale = (
        torch.full(owner.shape, 1.0 / convention.fixed_length, dtype=torch.float64, device=owner.device)
        if per_example is None
        else 1.0 / per_example[owner]
    )
    if per_token:
        owner = torch.arange(len(owner), device=owner.device)
    count = len(owner) if per_token else stop - start
    return Rows(inputs, scored.flatten().nonzero()[:, 0], labels[scored], owner, scale, count)


def nothing_scored(batch: Mapping[str, Tensor], device: torch.device) -> Rows:
    """A token that nothing is scored of, shaped as the batch's rows: no losses, and gradients of 0."""
    inputs = {key: torch.ones((1, 1, *v.shape[2:]), dtype=v.dtype, device=device) for key, v in batch.items()}
    inputs.pop("labels")
    none = torch.empty(0, dtype=torch.int64, device=device)
    return Rows(inputs, none, none, none, none.double(), 0)


def check_batches(batches: object) -> list[Mapping[str, Tensor]]:
    """The batches as a list. Raises BatchError naming the step."""
    batches = list(batches)  # type: ignore[call-overload]
    if not batches:
        raise BatchError("No batches: give one dict per optimizer step.")
    for step, batch in enumerate(batches):
        missing = {"input_ids", "labels"} - set(batch)
        if missing:
            raise BatchError(
                f"The batch of step {step} lacks {sorted(missing)}; give input_ids and labels, both (B, S)."
            )
        ids, labels = batch["input_ids"], batch["labels"]
        if ids.dim() != 2 or ids.shape != labels.shape or ids.dtype != torch.int64 or labels.dtype != torch.int64:
            raise BatchError(
                f"Step {step}: input_ids {tuple(ids.shape)} {ids.dtype} and labels {tuple(labels.shape)} "
                f"{labels.dtype} must both be (B, S) int64."
            )
    return batches
