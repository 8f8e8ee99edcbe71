"""Tensors that a kept graph need not hold, because they are made again at once from others that it holds anyway.

The output of an activation, the gradient before it, the output of a norm and the gradient of the logits are elementwise
functions of tensors that autograd saves beside them; together they are a third of a small transformer's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


@dataclass
class _Recipe:
    """make() gives the tensor again."""

    make: Callable[[], Tensor]
    storage: StorageWeakRef
    """Keeps the storage's identity from being given to another one, but not its bytes."""
    size: int
    version: int
    stays: bool
    made: Tensor | None

    def stands_for(self, tensor: Tensor) -> bool:
        whole = tensor.numel() == self.size and tensor.is_contiguous()
        return whole and tensor._version == self.version and not self.storage.expired()

    def tensor(self) -> Tensor:
        if self.made is not None:
            return self.made
        with torch.no_grad():
            made = self.make()
        self.made = made if self.stays else None
        return made


_offers: dict[int, _Recipe] | None = None
"""Storage -> recipe inside `saving`, which alone sets it, and puts back what was there before; else None."""


def is_saving() -> bool:
    """Whether `saving` is at work."""
    return _offers is not None


def offer(tensor: Tensor, make: Callable[..., Tensor], *held: Tensor | None, forward: bool) -> None:
    """Inside `saving`: whoever saves `tensor` gets make(*held) back, which has to give the same numbers to rounding.
    `held` are saved by someone in any case. Elsewhere nothing happens.

    forward  made in the forward pass, so saved for the backward pass inside `saving`, which need not make it again: it
             is let go when that ends, and stays once it was made after that. Else it is needed once and let go at once.
    """
    if _offers is None or not tensor.is_contiguous():
        return
    held = tuple(None if t is None else t.detach() for t in held)
    storage, made = tensor.untyped_storage(), tensor.detach() if forward else None
    _offers[storage._cdata] = _Recipe(
        lambda: make(*held), StorageWeakRef(storage), tensor.numel(), tensor._version, forward, made
    )


@contextmanager
def saving(own: set[int]) -> Iterator[dict[int, int]]:
    """Inside, autograd saves recipes where tensors are offered. Gives storage -> bytes of what it saves otherwise,
    leaving out the storages in `own`."""
    global _offers
    seen: dict[int, int] = {}
    offers: dict[int, _Recipe] = {}

    def pack(tensor: Tensor) -> tuple[_Recipe, torch.Size] | Tensor:
        storage = tensor.untyped_storage()
        recipe = offers.get(storage._cdata)
        if recipe is not None and recipe.stands_for(tensor):
            return recipe, tensor.shape
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would close a cycle that no garbage collector sees: a leak

    def unpack(saved: tuple[_Recipe, torch.Size] | Tensor) -> Tensor:
        return saved if isinstance(saved, Tensor) else saved[0].tensor().view(saved[1])

    before, _offers = _offers, offers
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield seen
    finally:
        _offers = before
        for recipe in offers.values():
            recipe.made = None
