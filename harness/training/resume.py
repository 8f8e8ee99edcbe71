"""A trainer's whole state as tensors and JSON, and back: what an interrupted cell resumes from."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine import processes
from harness.store.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

# ------------------------------------------------------------------------------------------------------- random numbers


def random_states() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The global generators of Python, NumPy and torch (CPU and every CUDA device), as (tensors, JSON data)."""
    import numpy
    import torch

    kind, keys, *rest = numpy.random.get_state()
    version, numbers, gauss = random.getstate()
    tensors = {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"rng.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors, {"python": [version, list(numbers), gauss], "numpy": [kind, keys.tolist(), *rest]}


def restore_random_states(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    import numpy
    import torch

    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), *rest))
    torch.set_rng_state(tensors["rng.torch"])
    if torch.cuda.is_available():
        devices = [tensors[name] for name in sorted(tensors) if name.startswith("rng.cuda.")]
        torch.cuda.set_rng_state_all(devices[: torch.cuda.device_count()])


# ---------------------------------------------------------------------------------------------------------------- ranks

OWN = ("rng.",)
"""Beginnings of the names of tensors that each of a launcher's ranks has for itself; the others are the same on all."""
OWN_STATE = ("rng", "parts")
"""The same of what is plain data."""


def of_all_ranks(checkpoint: Checkpoint) -> Checkpoint:
    """One checkpoint from those of all ranks: the first one's, and what is each one's own beside it. All ranks call it
    and get the same but for the shared tensors, which are their own."""
    own = {name: value.tolist() for name, value in checkpoint.tensors.items() if name.startswith(OWN)}
    ranks = processes.gather_rows([{"tensors": own, "state": {name: checkpoint.state[name] for name in OWN_STATE}}])
    return replace(checkpoint, state=checkpoint.state | {"ranks": ranks})


def of_this_rank(checkpoint: Checkpoint) -> Checkpoint:
    """The inverse. With another number of ranks than wrote it, each has what the first had for itself: orders and
    draws are functions of the seed and the row, so that only sums are rounded otherwise."""
    import torch

    ranks = checkpoint.state.get("ranks") or []
    same = len(ranks) == processes.world_size() and len(ranks) > 1
    if not same:
        return checkpoint
    mine = ranks[processes.rank()]
    own = {name: torch.tensor(values, dtype=torch.uint8) for name, values in mine["tensors"].items()}
    return replace(checkpoint, tensors=checkpoint.tensors | own, state=checkpoint.state | mine["state"])


# -------------------------------------------------------------------------------------------------------------- trainer


class Resumable:
    """Mixed in before a transformers `Trainer`: takes its state out as tensors and JSON, and feeds them to its own way
    of resuming (which places the data) by replacing the methods that would load pickles."""

    _resumed: Checkpoint | None = None

    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """(tensors, state). To be taken between two optimizer updates, where no gradient is pending."""
        import torch

        inner = self.optimizer.state_dict()
        tensors = {f"model.{name}": value for name, value in _weights(self.model)}
        plain: dict[str, dict[str, Any]] = {}
        for index, values in inner["state"].items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer.{index}.{name}"] = value
                else:
                    plain.setdefault(str(index), {})[name] = value
        rng, rng_state = random_states()
        trainer = asdict(self.state) | {"log_history": []}  # the curves are the record; this would only grow
        optimizer = {"groups": inner["param_groups"], "plain": plain}
        schedule = {key: value for key, value in self.lr_scheduler.state_dict().items() if _is_json(value)}
        return tensors | rng, {
            "trainer": trainer,
            "optimizer": optimizer,
            "schedule": schedule,
            "rng": rng_state,
        }

    def train_from(self, checkpoint: Checkpoint, scratch: str) -> Any:
        """`.train()` from where the checkpoint was taken. `scratch` is a folder for the trainer's own state file."""
        self._resumed = checkpoint
        # As many microbatches an update as this number of processes makes of it.
        self._step = checkpoint.state["trainer"]["global_step"] * self.args.gradient_accumulation_steps
        Path(scratch, "trainer_state.json").write_text(json.dumps(checkpoint.state["trainer"]))
        return self.train(resume_from_checkpoint=scratch)

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        import torch

        tensors = self._resumed.tensors
        with torch.no_grad():
            for name, value in _weights(self.model):
                value.copy_(tensors[f"model.{name}"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._resumed is None:
            return
        stored = self._resumed.state["optimizer"]
        state = {int(index): dict(values) for index, values in stored["plain"].items()}
        for name, tensor in self._resumed.tensors.items():
            part, _, rest = name.partition(".")
            if part == "optimizer":
                index, _, key = rest.partition(".")
                state.setdefault(int(index), {})[key] = tensor
        groups = [{key: tuple(v) if key == "betas" else v for key, v in group.items()} for group in stored["groups"]]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.lr_scheduler.load_state_dict(self._resumed.state["schedule"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        """No loss scaling is used (no float16), so there is nothing to load."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self._resumed is not None:
            restore_random_states(self._resumed.tensors, self._resumed.state["rng"])

    def _get_train_sampler(self, *arguments: Any, **options: Any) -> Any:
        """The sampler's own generator draws one order an epoch: bring it to where it was."""
        import torch

        sampler = super()._get_train_sampler(*arguments, **options)
        if self._resumed is not None and getattr(sampler, "generator", None) is not None:
            for _ in range(int(self._resumed.state["trainer"]["epoch"])):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler


def _weights(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers, shared ones once, by name."""
    return [*model.named_parameters(), *model.named_buffers()]


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
