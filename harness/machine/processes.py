"""Several processes on one cell (`torchrun` or `accelerate launch -m harness run ...`): who is who, and the shares of
work.

Rollouts are sharded by TRL. Rewards are functions of *all* rollouts of a step, so completions are gathered first; the
inner training then gives every rank a share of each batch (the engine's data parallelism), and every rank has all
rewards.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


MOST_THREADS = 1024
"""Of a process, and processes on a machine: more is a slip of the finger, and starting them takes the machine down."""


def launched_count() -> int:
    """Processes that a launcher started for this job (1: none), from the environment, before torch is imported."""
    return int(os.environ.get("WORLD_SIZE", "1"))


_planned: ContextVar[int] = ContextVar("planned", default=1)


@contextmanager
def planned_for(count: int) -> Iterator[None]:
    """In the block, cells are checked and planned for so many processes each, which the command is about to start."""
    token = _planned.set(count)
    try:
        yield
    finally:
        _planned.reset(token)


def sharing_count() -> int:
    """Processes that share a cell: a launcher's, or those that it is planned for."""
    return max(launched_count(), _planned.get())


NOT_LAUNCHED = (
    "inner.sharded=true divides the target's training among a launcher's processes, and this is one alone; start it "
    "with torchrun --nproc-per-node N -m harness ..., or set inner.sharded=false."
)


def rank() -> int:
    """This process among them; 0 is the one that prints and stores."""
    return int(os.environ.get("RANK", "0"))


def join_group() -> None:
    """Makes the process group, once: NCCL where there are GPUs, gloo otherwise. It ends with the process."""
    import torch
    import torch.distributed as dist

    if launched_count() > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        # A thread of the group that outlives the interpreter aborts the process (SIGABRT) after all its work is done.
        atexit.register(leave_group)


def leave_group() -> None:
    """Ends this process's part in the group, where it is in one."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Ranks of the process group; 1 if there is none."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Sequence[Any]) -> list[Any]:
    """The rows of all ranks, in rank order, on every rank."""
    import torch.distributed as dist

    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, list(rows))
    return [row for part in parts for row in part]


def from_first(value: Any) -> Any:
    """The first rank's value, plain data, on every rank."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    message = [value]
    dist.broadcast_object_list(message)
    return message[0]


def tensors_from_first(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The first rank's tensors, on the CPU, on every rank; what the others give does not count."""
    if world_size() == 1:
        return dict(tensors)
    import torch
    import torch.distributed as dist

    place = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    shapes = from_first([(name, tuple(value.shape), value.dtype) for name, value in tensors.items()])
    found = {}
    for name, shape, dtype in shapes:
        value = tensors[name].to(place) if rank() == 0 else torch.empty(shape, dtype=dtype, device=place)
        dist.broadcast(value, 0)
        found[name] = value.cpu()
    return found


def of_any_rank(number: int | None) -> int | None:
    """The number that some rank gives, the lowest rank's where several do; None where none does. All ranks ask at the
    same place and get the same answer."""
    if world_size() == 1:
        return number
    return next((value for value in gather_rows([number]) if value is not None), None)


def is_lost_peer(error: BaseException) -> bool:
    """Whether it says that another rank is gone: NCCL has an exception for it, gloo a sentence."""
    if world_size() == 1:
        return False
    import torch.distributed as dist

    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")
    named = isinstance(error, dist.DistBackendError | dist.DistNetworkError)
    return named or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


@dataclass(frozen=True)
class BatchShare:
    """This rank's rows of each batch, and where they stand among the rows of all batches, concatenated."""

    batches: list[dict[str, torch.Tensor]]
    places: torch.Tensor
    total: int
    group: Any

    def whole(self, mine: torch.Tensor) -> torch.Tensor:
        """(total,) values of all ranks from this rank's values."""
        import torch.distributed as dist

        everything = mine.new_zeros(self.total)
        everything[self.places.to(mine.device)] = mine
        dist.all_reduce(everything, group=self.group)
        return everything

    def whole_rows(self, mine: Sequence[torch.Tensor], lengths: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """The same of rows, each of its own length; `lengths`: of the rows of all batches."""
        import torch.distributed as dist

        flat = mine[0].new_zeros(sum(lengths))
        rows = flat.split(list(lengths))
        for place, row in zip(self.places.tolist(), mine, strict=True):
            rows[place].copy_(row)
        dist.all_reduce(flat, group=self.group)
        return rows


def split_batches(batches: Sequence[Mapping[str, torch.Tensor]], *, always: bool = False) -> BatchShare | None:
    """Every world_size()-th row of each batch, from this rank's number on; None where one process works alone, or where
    some batch has fewer rows than there are ranks (then each does all of it; `always`: then some have none)."""
    count = world_size()
    if count == 1 or (not always and min(len(batch["input_ids"]) for batch in batches) < count):
        return None
    import torch
    import torch.distributed as dist

    first, places, start, mine = dist.get_rank(), [], 0, []
    for batch in batches:
        rows = len(batch["input_ids"])
        mine.append({key: value[first::count] for key, value in batch.items()})
        places.append(torch.arange(start + first, start + rows, count))
        start += rows
    return BatchShare(mine, torch.cat(places), start, dist.group.WORLD)
