"""The steps of the forward walk, kept or recomputed as a MemoryPlan says, and given back last step first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards.metagradient.checkpointing import MemoryPlan
from rewards.metagradient.gradients import Kept
from rewards.metagradient.optimizer import State, UpdateRule, updated

SMALL = 1024
"""Tensors of fewer elements (step counters) are never spilled."""


@dataclass
class InnerStep:
    """One step as it was before its update."""

    step: int
    theta: Tensor
    state: State
    grad: Tensor
    kept: Kept | None = None


class Trajectory:
    """put() each step forward, then iterate backward(). `gradient` (Objective.gradient) recomputes what was not kept.

    A context manager: files under spill_dir are gone when it closes.
    """

    def __init__(
        self, plan: MemoryPlan, rule: UpdateRule, gradient: Callable[..., tuple], spill_dir: str | None = None
    ) -> None:
        self.plan, self.rule, self.gradient = plan, rule, gradient
        self._folder = tempfile.TemporaryDirectory(dir=spill_dir) if spill_dir is not None else None
        self._checkpoints: dict[int, list[Callable[[], Tensor]]] = {}
        self._gradients: dict[int, Callable[[], Tensor]] = {}
        self._kept: dict[int, Kept] = {}
        self._last = (plan.steps - 1) // plan.segment * plan.segment

    def __enter__(self) -> Trajectory:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def keeps_graph(self, step: int) -> bool:
        return step >= self.plan.steps - self.plan.graphs

    def put(self, inner_step: InnerStep) -> None:
        step, plan = inner_step.step, self.plan
        if step % plan.segment == 0:
            self._checkpoints[step] = [
                self._keep(t, plan.checkpoints, f"{step}-{i}")
                for i, t in enumerate((inner_step.theta, *inner_step.state))
            ]
        if plan.gradients != "recomputed":
            self._gradients[step] = self._keep(inner_step.grad, plan.gradients, f"{step}-g")
        elif step == 0 or step >= self._last or self.keeps_graph(step):  # step 0 then needs no gradient pass
            self._gradients[step] = self._keep(inner_step.grad, "memory", "")
        if inner_step.kept is not None:
            self._kept[step] = inner_step.kept

    def backward(self) -> Iterator[InnerStep]:
        """Every step, last first; each is forgotten once given."""
        for start in range(self._last, -1, -self.plan.segment):
            records = self._segment(start, min(start + self.plan.segment, self.plan.steps))
            while records:
                yield records.pop()

    def _segment(self, start: int, stop: int) -> list[InnerStep]:
        theta, *state = (load() for load in self._checkpoints.pop(start))
        records = []
        for step in range(start, stop):
            load, kept = self._gradients.pop(step, None), self._kept.pop(step, None)
            if load is not None:
                grad = load()
            else:
                _, grad, kept = self.gradient(step, theta, graph=self.plan.joint and step + 1 == stop)
            records.append(InnerStep(step, theta, tuple(state), grad, kept))
            if step + 1 < stop:
                theta, state = updated(self.rule, step, theta, tuple(state), grad)
        return records

    def _keep(self, tensor: Tensor, where: str, name: str) -> Callable[[], Tensor]:
        """A function that gives the tensor back. On disk: its bytes, nothing else."""
        if where == "memory" or tensor.numel() < SMALL:
            return lambda: tensor
        device, dtype, count = tensor.device, tensor.dtype, tensor.numel()
        if where == "host":
            held = tensor.to("cpu")
            return lambda: held.to(device)
        path = os.path.join(self._folder.name, name)
        tensor.cpu().numpy().tofile(path)

        def load() -> Tensor:
            found = torch.empty(count, dtype=dtype)
            with open(path, "rb") as file:
                file.readinto(found.numpy())
            os.unlink(path)
            return found.to(device)

        return load
