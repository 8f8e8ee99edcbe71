"""The learning algorithm A: texts -> batches -> a trained target, or the metagradient through that training.

One walk for both: training and metagradients call the engine (`rewards.metagradient`) on the same batches, so what a
reward differentiates is what a validation trains. Model and optimizer state start afresh at every call
(Algorithm 1 of the paper).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch

from harness.assets import load_model
from harness.contracts import HarnessError, Metric
from harness.machine.devices import to_device
from harness.machine.processes import NOT_LAUNCHED, BatchShare, split_batches
from harness.settings.schema import InnerSettings, OptimizerSettings, TargetSettings
from rewards.metagradient import InnerOptimizer, LossConvention, Metagradient, Prepared, metagradient, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class StepCounter:
    """GRPO steps that are done; the cell counts, and a learning algorithm that changes during training reads."""

    steps_done: int = 0


def load_target(settings: TargetSettings, *, on_device: bool = True) -> PreTrainedModel:
    """The target as the settings have it, on the GPU if there is one; `on_device` off: in host memory, from where each
    rank of a sharded training takes its part."""
    target = load_model(settings.model, dtype=settings.dtype, untie_head=settings.untie_head)
    if settings.dropout:
        freeze_dropout(target, settings.dropout)
    if on_device:
        to_device(target)
    return target


class FrozenDropout(torch.nn.Module):
    """Dropout whose mask never changes: (positions, width), drawn from the module's name and the same for all texts.
    The authors' server draws one mask for a run, for every row of a microbatch and position; that of a row would here
    depend on which texts are computed together, which must not change a gradient."""

    def __init__(self, name: str, share: float, positions: int, width: int, like: torch.Tensor) -> None:
        super().__init__()
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
        kept = torch.rand(positions, width, generator=torch.Generator().manual_seed(seed)) >= share
        self.register_buffer("mask", kept.to(like) / (1 - share), persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (..., S, width), S at most the positions."""
        return hidden * self.mask[: hidden.shape[-2]]


def freeze_dropout(model: PreTrainedModel, share: float) -> None:
    """Puts a frozen mask in place of every dropout of embeddings, residuals and MLPs, in evaluation too; that of
    attention weights stays off. Raises HarnessError for a model without any, such as Llama."""
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Dropout) and not name.endswith("attn_dropout")
    ]
    if not found:
        raise HarnessError(f"target.dropout={share:g}: {type(model).__name__} has no dropout; set it to 0.")
    config, like = model.config, next(model.parameters())
    for name in found:
        frozen = FrozenDropout(name, share, config.max_position_embeddings, config.hidden_size, like)
        model.set_submodule(name, frozen)


class InnerTrainer:
    """A bound to one target: the `InnerTraining` of harness/contracts.py.

    With `settings.warmup_steps` A has two parts: plain training on the texts in that many steps, at `warmup_lr`, then,
    with a fresh optimizer state, the T steps that data weights act on. A metagradient is then exact for those T steps
    and leaves out what the weights would have changed before (truncated): texts of early steps, which a target that
    knows nothing yet judges, are judged late as well. With a step counter the warm-up waits until
    `settings.warmup_after` GRPO steps are done: after a warm-up on texts that have nothing to do with the metric yet,
    single steps tell less.

    model       loaded with eager attention, in evaluation mode; the same after every call
    settings    the profile's `inner` section
    steps       T; default `settings.steps` (validation may train longer)
    step_counter
                GRPO steps that are done; None: all trainings have the warm-up (validation)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: InnerSettings,
        *,
        steps: int | None = None,
        step_counter: StepCounter | None = None,
    ) -> None:
        self.model, self.tokenizer, self.settings, self.step_counter = model, tokenizer, settings, step_counter
        self._prepared = Prepared(model)
        self.optimizer = settings.optimizer
        gpu = settings.sharded and torch.cuda.is_available()
        self.device = torch.device("cuda", torch.cuda.current_device()) if gpu else model.device
        self.steps = settings.steps if steps is None else steps
        if settings.prepend_bos and self._bos() is None:
            raise HarnessError("The target's tokenizer has no beginning-of-text token; set inner.prepend_bos=false.")

    # ---------------------------------------------------------------------------------------------- InnerTraining

    def metagradient(self, texts: Sequence[str], metric: Metric, *, per_token: bool = False) -> Metagradient:
        """dPhi/dw_i at w = 1 for every text, (N,) in the order of `texts`. A text without a scored token gets 0: it has
        no loss to weigh. With `per_token` also `.tokens`, each text's share by its scored tokens."""
        order, batches = self._batches(texts)
        mine = self._share(batches)
        group = {"process_group": mine.group} if mine else {}
        with self._warmed(texts):
            result = metagradient(
                self._prepared,
                mine.batches if mine else batches,
                metric,
                self.rule(),
                per_token=per_token,
                **self._options(),
                **group,
            )
        found = mine.whole(result.weights) if mine else result.weights
        weights = torch.empty_like(found)
        weights[torch.tensor(order, device=weights.device)] = found
        tokens = None
        if per_token:
            place = {i: j for j, i in enumerate(order)}
            by_place = result.tokens
            if mine:
                lengths = [n for batch in batches for n in (batch["labels"][:, 1:] != -100).sum(1).tolist()]
                by_place = mine.whole_rows(by_place, lengths)
            tokens = tuple(by_place[place[i]] for i in range(len(texts)))
        return result.reordered(weights, tokens)

    def spread(self, text: str, tokens: Sequence[float]) -> list[float]:
        """What its scored tokens earned (`metagradient(per_token=True)`), on the characters of a text: each token's
        evenly over its own. What was cut off, and padding, is on none."""
        found = [0.0] * len(text)
        spans = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        for (start, stop), value in zip(spans if self.settings.prepend_bos else spans[1:], tokens, strict=False):
            start, stop = (start, stop) if start < stop else (max(stop - 1, 0), max(stop, 1))
            for k in range(start, stop):
                found[k] += value / (stop - start)
        return found

    def train(
        self, texts: Sequence[str], weights: torch.Tensor | None = None, *, only: Collection[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Theta_T after training on `texts`, with data weights (N,) in their order (default: 1) in the last T steps.
        `only`: the parameters that are wanted."""
        order, batches = self._batches(texts)
        options = self._options()
        options.pop("memory_budget")
        if weights is not None:
            weights = weights[torch.tensor(order, device=weights.device)].to(self.device)
        mine = self._share(batches)
        if mine:
            weights = None if weights is None else weights[mine.places.to(weights.device)]
            options["process_group"] = mine.group
        with self._warmed(texts):
            return train(
                self._prepared, mine.batches if mine else batches, self.rule(), weights=weights, only=only, **options
            )

    @contextmanager
    def _warmed(self, texts: Sequence[str]) -> Iterator[None]:
        """The model after `settings.warmup_steps` steps on `texts`, in its dtype; afterwards as it was."""
        waits = self.step_counter is not None and self.step_counter.steps_done < self.settings.warmup_after
        if waits or not self.settings.warmup_steps:
            yield
            return
        settings = self.settings
        plain = settings.model_copy(update={"warmup_steps": 0})
        trainer = self._like(plain, steps=settings.warmup_steps)
        if settings.warmup_lr:
            trainer = trainer.with_optimizer(lr=settings.warmup_lr)
        warm = trainer.train(texts)
        before = {name: parameter.data for name, parameter in self.model.named_parameters()}
        try:
            for name, parameter in self.model.named_parameters():
                parameter.data = warm[name].detach().to(parameter)
            yield
        finally:
            for name, parameter in self.model.named_parameters():
                parameter.data = before[name]

    def with_optimizer(self, **changes: Any) -> InnerTrainer:
        if "lr" in changes:
            changes = {"total_lr": None} | changes
        settings = OptimizerSettings.model_validate(self.settings.optimizer.model_dump() | changes)
        changed = self.settings.model_copy(update={"optimizer": settings})
        return self._like(changed, steps=self.steps, step_counter=self.step_counter)

    def _like(self, settings: InnerSettings, *, steps: int, step_counter: StepCounter | None = None) -> InnerTrainer:
        """Another training of the same target, on the same private copies."""
        trainer = InnerTrainer(self.model, self.tokenizer, settings, steps=steps, step_counter=step_counter)
        trainer._prepared = self._prepared
        return trainer

    @property
    def lr(self) -> float:
        """The learning rate of each of the T steps."""
        return self.settings.optimizer.rate(self.steps)

    @property
    def memory_budget(self) -> int | None:
        """Bytes that may be held between passes (`HasMemoryBudget`)."""
        return self.settings.memory_budget

    def rule(self) -> InnerOptimizer:
        """What the engine is given."""
        return InnerOptimizer(**self.settings.optimizer.model_dump(exclude={"total_lr"}) | {"lr": self.lr})

    def with_steps(self, steps: int) -> InnerTrainer:
        """The same training cut into `steps` optimizer steps, whatever GRPO step it is."""
        return self._like(self.settings, steps=steps)

    def of_sets(self, sets: int) -> InnerTrainer:
        """The training of each of `sets` training sets of a GRPO step (`inner.set_steps`)."""
        steps = self.settings.steps_of_set(sets)
        if steps == self.steps:
            return self
        return self._like(self.settings, steps=steps, step_counter=self.step_counter)

    # ---------------------------------------------------------------------------------------------------- batches

    def _bos(self) -> int | None:
        return self.tokenizer.bos_token_id

    def encode(self, text: str) -> list[int]:
        """Token ids of one text as the target sees it: [BOS] text [EOS], cut to `max_tokens`."""
        return self._encode([text])[0]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        before = [self._bos()] if self.settings.prepend_bos else []
        after = [self.tokenizer.eos_token_id] if self.settings.append_eos else []
        # Padded as the authors do, a text fills max_tokens inputs, and the last of them still predicts the next token.
        most = self.settings.max_tokens + (self.settings.trained_padding is not None)
        found = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return [[*before, *ids, *after][:most] for ids in found]

    def steps_of(self, count: int) -> list[int]:
        steps = [0] * count
        for step, members in enumerate(self._split(count)):
            for i in members:
                steps[i] = step
        return steps

    def _split(self, count: int) -> list[list[int]]:
        """The texts of every step, by number: T batches of equal size; fewer texts than steps is an error, a remainder
        is spread over the first batches."""
        if count < self.steps:
            raise HarnessError(
                f"{count} texts cannot be split into {self.steps} inner steps; raise grpo.prompts_per_step or "
                "lower inner.steps."
            )
        order = list(range(count))
        if self.settings.shuffle_seed is not None and self.steps > 1:
            random.Random(self.settings.shuffle_seed).shuffle(order)
        size, extra = divmod(count, self.steps)
        stops = list(accumulate(size + (step < extra) for step in range(self.steps)))
        return [order[start:stop] for start, stop in pairwise([0, *stops])]

    def _batches(self, texts: Sequence[str]) -> tuple[list[int], list[dict[str, torch.Tensor]]]:
        """(order, batches): position j of the concatenated batches holds `texts[order[j]]`. Within a batch the longest
        come first: a microbatch then holds texts of like length, and little padding."""
        rows, split = self._encode(texts), self._split(len(texts))
        if self.settings.trained_padding is None:
            split = [sorted(members, key=lambda i: -len(rows[i])) for members in split]
        return [i for members in split for i in members], [self._batch([rows[i] for i in m]) for m in split]

    def _batch(self, rows: list[list[int]]) -> dict[str, torch.Tensor]:
        """input_ids and labels, (B, S) int64, right-padded; padding is not scored, unless settings.trained_padding."""
        device = self.device
        if self.settings.trained_padding is not None:
            return self._padded_batch(rows, self.settings.trained_padding)
        length = max(2, *(len(row) for row in rows)) if rows else 2
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows], device=device)
        labels = torch.tensor([row + [-100] * (length - len(row)) for row in rows], device=device)
        return {"input_ids": ids, "labels": self._scored(labels)}

    def _scored(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels without end-of-text tokens where those are not trained on."""
        if self.settings.score_eos:
            return labels
        return labels.masked_fill(labels == self.tokenizer.eos_token_id, -100)

    def _padded_batch(self, rows: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
        """The authors' batches: every row padded to max_tokens + 1 and trained on, padding too, but for the position
        after a text's last token (there they put the end-of-text label, which their loss leaves out)."""
        length = self.settings.max_tokens + 1
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows], device=self.device)
        labels = ids.clone()
        for row, tokens in enumerate(rows):
            labels[row, len(tokens) : len(tokens) + 1] = -100
        return {"input_ids": ids, "labels": self._scored(labels)}

    def _options(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "loss": LossConvention(
                fixed_length=settings.fixed_length, summed_microbatches=settings.summed_microbatches or 1
            ),
            "microbatch": settings.microbatch,
            "memory_budget": settings.memory_budget,
            "sharded": settings.sharded,
        }

    def _share(self, batches: Sequence[dict[str, torch.Tensor]]) -> BatchShare | None:
        """This rank's rows; None where it works on all of them."""
        mine = split_batches(batches, always=self.settings.sharded)
        if self.settings.sharded and mine is None:
            raise HarnessError(NOT_LAUNCHED)
        return mine
