"""Generator with its optimizer and target with its states, in turn on a device that cannot hold both at work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from harness.settings.schema import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Mover = Callable[[Any, str], None]


def move(thing: Any, place: str) -> None:
    """A module's parameters, gradients and buffers, or the tensors of an optimizer's state, to a device, in place."""
    if isinstance(thing, torch.nn.Module):
        thing.to(place)
        return
    for state in getattr(thing, "optimizer", thing).state.values():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.dim() > 0:  # step counters stay where torch wants them
                state[name] = value.to(place, non_blocking=place != "cpu")


class Offloader:
    """Roles ("generator", "target") of which only the active one is on `device`. Where `enabled` is false (a CPU, or
    all of them fit) nothing ever moves.

    A role is a name and a callable that gives its modules and optimizers as they are at the moment: an optimizer has
    no state before its first step.
    """

    def __init__(self, device: str, enabled: bool, mover: Mover = move) -> None:
        self.device, self.enabled, self._move = device, enabled, mover
        self._roles: dict[str, Callable[[], Iterable[Any]]] = {}
        self._offloaded: set[str] = set()

    def add(self, name: str, things: Callable[[], Iterable[Any]]) -> None:
        self._roles[name] = things

    def activate(self, name: str) -> None:
        """`name` works next: the others leave first, so that never more than one is there."""
        if not self.enabled:
            return
        for other, things in self._roles.items():
            if other != name and other not in self._offloaded:
                for thing in things():
                    self._move(thing, "cpu")
                self._offloaded.add(other)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if name in self._offloaded:
            for thing in self._roles[name]():
                self._move(thing, self.device)
            self._offloaded.discard(name)


def offloader_for_cell(settings: Settings, generator: PreTrainedModel, target: PreTrainedModel) -> Offloader:
    """The cell's offloader: enabled on a GPU where `generator.offload` says so (harness/planning/cost.py, `offloads`).
    Also sets how float32 products are taken there (`target.tf32`)."""
    place = generator.device
    if place.type != "cuda":
        return Offloader(str(place), False)
    from harness.machine.devices import Device
    from harness.planning.cost import offloads
    from harness.planning.shapes import shape_from_config

    torch.backends.cuda.matmul.allow_tf32 = settings.target.tf32
    total = torch.cuda.get_device_properties(place).total_memory
    device = Device(str(place), total, {"float32": 1.0}, 1.0, 0.0)
    shapes = [shape_from_config(model.config.to_dict()) for model in (generator, target)]
    return Offloader(str(place), offloads(settings, device, *shapes))
