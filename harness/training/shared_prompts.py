"""The generator's update with each prompt read once for all its rollouts.

A group's rollouts differ only after their prompt, and the prompt is the longer part; a pass that reads it once for the
group costs (prompt + group * completion) tokens in place of group * (prompt + completion). The numbers are the same:
rollouts attend to the prompt's keys and values, and the gradient flows back through them. Whole groups are shuffled
into an update, so that they stay together; TRL shuffles single rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def group_order(count: int, group: int) -> torch.Tensor:
    """A random order (count,) of rows in which blocks of `group` neighbours stay together; of single rows where the
    blocks do not divide them. Draws from torch's global stream, as TRL does."""
    group = group if count % group == 0 else 1
    return (torch.randperm(count // group)[:, None] * group + torch.arange(group)).flatten()


def reorder(columns: dict[str, Any], order: torch.Tensor) -> dict[str, Any]:
    """Every column of a rollout batch in another order of its rows; scalars and missing columns stay."""

    def pick(column: Any) -> Any:
        if column is None or (isinstance(column, torch.Tensor) and column.ndim == 0):
            return column
        if isinstance(column, torch.Tensor):
            return column[order.to(column.device)]
        return [column[i] for i in order.tolist()] if isinstance(column, Sequence) else column

    return {name: pick(column) for name, column in columns.items()}


def log_probs(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, keep: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities and entropies of the last `keep` tokens, each (B, keep), by TRL's fused head.

    input_ids, attention_mask    (B, P + keep), prompts padded on the left to P >= 2 tokens

    Rows with equal prompts share one reading of it. Positions count no padding, as in generation.
    """
    start = input_ids.shape[1] - keep - 1  # the prompt's last token predicts the first new one, so it goes with those
    prompts, owner = torch.stack([input_ids[:, :start], attention_mask[:, :start]]).unique(dim=1, return_inverse=True)
    ids, mask = prompts
    positions = (attention_mask.cumsum(-1) - 1).clamp_min(0)
    read = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp_min(0),
        use_cache=True,
        logits_to_keep=1,
    ).past_key_values
    read.batch_select_indices(owner)
    rest = input_ids[:, start:]
    labels = rest.masked_fill(attention_mask[:, start:] == 0, -100)
    out = model(
        input_ids=rest,
        attention_mask=attention_mask,
        position_ids=positions[:, start:],
        past_key_values=read,
        labels=labels,
        fused_lm_head=True,
    )
    return out.log_probs[:, -keep:], None if out.entropy is None else out.entropy[:, -keep:]
