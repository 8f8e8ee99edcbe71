"""A CUDA device that is not there: tensors of the CPU that say they are on "cuda:0" and refuse what a GPU refuses.

    with pretended():
        model.to("cuda")      # the same numbers, marked
        model(ids)            # RuntimeError: ids are on the CPU

Every storage carries a mark. What Python asks (`.device`, `device=`, `.to`, `.numpy`) is answered by it; below autograd
every operation compares the marks of its tensors and hands them on to its results, in backward passes too. So the whole
CUDA path of the harness runs on a CPU, with values, and a tensor on the wrong device is an error as it would be there.
What it cannot know: kernels (speed, memory, rounding), streams, and operations that CUDA does not have.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
MARK = "pretended_device"
MEMORY = 80 * 2**30

aten = torch.ops.aten
ANYWHERE = {aten.copy_, aten._to_copy, aten._foreach_copy_, aten.set_, aten._copy_from}
"""Operations that copy from device to device."""
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
"""Those whose indices may be on the CPU where the tensor is on the GPU."""
STRICT = {aten._fused_adamw_, aten._fused_adam_}
"""Those that take no scalar tensor of the CPU along."""


def mark_of(tensor: torch.Tensor) -> str | None:
    """ "cuda", "cpu" or None: made inside an operation, where nothing says."""
    try:
        return getattr(tensor.untyped_storage(), MARK, None)
    except (NotImplementedError, RuntimeError):  # sparse tensors and wrappers have none
        return None


def put_mark(tensor: torch.Tensor, mark: str | None) -> None:
    if mark is not None:
        with contextlib.suppress(NotImplementedError):
            setattr(tensor.untyped_storage(), MARK, mark)


def tensors_in(data: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(data) if isinstance(leaf, torch.Tensor)]


class Pretence:
    """Both modes; `around` is where the call that is under way makes tensors that no tensor leads to."""

    def __init__(self) -> None:
        self.around: str | None = None
        self.refused: list[str] = []

    def refuse(self, words: str) -> RuntimeError:
        self.refused.append(words)
        return RuntimeError(words)


class Below(TorchDispatchMode):
    """Compares and hands on the marks."""

    def __init__(self, pretence: Pretence) -> None:
        super().__init__()
        self.pretence = pretence

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            packet = func.overloadpacket
            given = tensors_in((args, kwargs))
            where = self.pretence.around if not given else None
            if packet not in ANYWHERE:
                where = self._compared(packet, args, kwargs, given) or where
            elif given:
                where = mark_of(given[0])
            known = {id(tensor) for tensor in given}
            out = func(*args, **kwargs)
            for tensor in tensors_in(out):
                if id(tensor) not in known and mark_of(tensor) is None:
                    put_mark(tensor, where)
            return out

    def _compared(self, packet: Any, args: Any, kwargs: Any, given: list[torch.Tensor]) -> str | None:
        if packet in INDEXED and mark_of(args[0]) == "cuda":
            given = tensors_in((args[0], args[2:]))
        marks = {"cuda" for tensor in given if mark_of(tensor) == "cuda"}
        scalar = lambda tensor: tensor.dim() == 0 and packet not in STRICT
        marks |= {"cpu" for tensor in given if mark_of(tensor) == "cpu" and not scalar(tensor)}
        if len(marks) > 1:
            listed = ", ".join(f"{tuple(t.shape)} on {mark_of(t)}" for t in given)
            raise self.pretence.refuse(
                f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({packet}: {listed})"
            )
        return next(iter(marks), "cpu" if any(mark_of(tensor) == "cpu" for tensor in given) else None)


class Above(TorchFunctionMode):
    """Answers for the marks, and takes the word "cuda" out of what reaches torch."""

    def __init__(self, pretence: Pretence) -> None:
        super().__init__()
        self.pretence = pretence

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if answer := GETTERS.get(func):
            return answer(args[0])
        if func is torch.device and args and isinstance(args[0], int):
            return torch.device("cuda", args[0])
        name = getattr(func, "__name__", "")
        if name in ("numpy", "__array__") and mark_of(args[0]) == "cuda":
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first."
            )
        if name in ("cuda", "cpu") and args and isinstance(args[0], torch.Tensor):
            return self._moved(args[0], name, (), {k: v for k, v in kwargs.items() if k != "device"})
        if name == "pin_memory":
            return args[0]
        if name == "to" and isinstance(args[0], torch.Tensor):
            return self._to(args, kwargs)
        place = kwargs.get("device")
        if place is None:
            marks = {mark_of(tensor) for tensor in tensors_in((args, kwargs))}
            return self._run(func, args, kwargs, "cuda" if "cuda" in marks else "cpu")
        if kind(place) not in ("cuda", "cpu"):  # "meta": weights that are not there yet
            return func(*args, **kwargs)
        return self._made(func, args, kwargs, kind(place))

    def _run(self, func: Any, args: Any, kwargs: Any, around: str) -> Any:
        before, self.pretence.around = self.pretence.around, around
        try:
            return func(*args, **kwargs)
        finally:
            self.pretence.around = before

    def _made(self, func: Any, args: Any, kwargs: Any, where: str) -> Any:
        """A new tensor, or `as_tensor` of an old one."""
        given = tensors_in((args, kwargs))
        out = self._run(func, args, kwargs | {"device": "cpu"}, where)
        if any(out is one for one in given) or mark_of(out) not in (None, where):
            out = out.clone()
        put_mark(out, where)
        return out

    def _to(self, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
        tensor, *rest = args
        other = next((value for value in (*rest, kwargs.get("other")) if isinstance(value, torch.Tensor)), None)
        if other is not None:
            rest = [other.dtype if value is other else value for value in rest]
            kwargs.pop("other", None)
            return self._moved(tensor, mark_of(other) or "cpu", rest, kwargs)
        place = kwargs.pop("device", None)
        if rest and isinstance(rest[0], str | torch.device | int) and not isinstance(rest[0], bool):
            place = rest.pop(0)
        if place is None or kind(place) not in ("cuda", "cpu") or tensor.is_meta:
            given = () if place is None else (place,)
            return self._run(torch.Tensor.to, (tensor, *given, *rest), kwargs, mark_of(tensor) or "cpu")
        return self._moved(tensor, kind(place), [value for value in rest if value is not None], kwargs)

    def _moved(self, tensor: torch.Tensor, where: str, rest: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        dtypes = [value for value in (*rest, kwargs.get("dtype")) if isinstance(value, torch.dtype)]
        dtype = dtypes[0] if dtypes else tensor.dtype
        if (mark_of(tensor) or "cpu") == where:
            return self._run(torch.Tensor.to, (tensor, dtype), {"copy": kwargs.get("copy", False)}, where)
        with self:
            return Moved.apply(tensor if dtype == tensor.dtype else tensor.to(dtype), where)


class Moved(torch.autograd.Function):
    """A copy on the other device, whose gradient comes back to where the tensor was."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, where: str) -> torch.Tensor:
        ctx.where, ctx.back = where, mark_of(tensor) or "cpu"
        out = torch.empty_like(tensor).copy_(tensor)
        put_mark(out, where)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return Moved.apply(gradient, ctx.back), None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, _: None) -> torch.Tensor:
        return Moved.apply(tangent, ctx.where)


def kind(place: Any) -> str:
    """ "cuda" or "cpu" of what torch takes for a device."""
    return "cuda" if isinstance(place, int) else torch.device(place).type


def device_of(tensor: torch.Tensor) -> torch.device:
    return CUDA if mark_of(tensor) == "cuda" else tensor.device


GETTERS = {
    torch.Tensor.device.__get__: device_of,
    torch.Tensor.is_cuda.__get__: lambda tensor: mark_of(tensor) == "cuda",
    torch.Tensor.is_cpu.__get__: lambda tensor: tensor.is_cpu and mark_of(tensor) != "cuda",
    torch.Tensor.get_device: lambda tensor: 0 if mark_of(tensor) == "cuda" else -1,
}

PROPERTIES = SimpleNamespace(total_memory=MEMORY, major=9, minor=0, name="pretended", multi_processor_count=1)
FUNCTIONS = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda place: None,
    "synchronize": lambda *place: None,
    "empty_cache": lambda: None,
    "mem_get_info": lambda *place: (MEMORY, MEMORY),
    "memory_allocated": lambda *place: 0,
    "memory_reserved": lambda *place: 0,
    "max_memory_allocated": lambda *place: 0,
    "reset_peak_memory_stats": lambda *place: None,
    "get_device_properties": lambda *place: PROPERTIES,
    "get_device_capability": lambda *place: (9, 0),
    "get_device_name": lambda *place: "pretended",
    "is_bf16_supported": lambda *given: True,
    "manual_seed": lambda seed: None,
    "manual_seed_all": lambda seed: None,
    "get_rng_state_all": lambda: [torch.zeros(16, dtype=torch.uint8)],
    "set_rng_state_all": lambda states: None,
}


@contextlib.contextmanager
def pretended() -> Iterator[Pretence]:
    """`refused` of what it gives lists the words of every refusal, those that somebody caught too."""
    from accelerate.state import AcceleratorState

    from harness.machine import devices

    pretence = Pretence()
    begin = torch.autocast.__init__
    on_cpu = lambda self, device_type, *rest, **more: begin(
        self, "cpu" if device_type == "cuda" else device_type, *rest, **more
    )
    with contextlib.ExitStack() as stack:
        patch = lambda owner, name, value: stack.enter_context(mock.patch.object(owner, name, value))
        for name, stand_in in FUNCTIONS.items():
            patch(torch.cuda, name, stand_in)
        patch(torch.autocast, "__init__", on_cpu)
        patch(devices, "GPU_PRODUCT", 64)  # a GPU's take a CPU minutes
        patch(devices, "GPU_COPY", 1024)
        # A mode holds in its own thread: weights are not to be read in others.
        stack.enter_context(mock.patch.dict(os.environ, HF_DEACTIVATE_ASYNC_LOAD="1"))
        devices.measured_device.cache_clear()
        stack.callback(devices.measured_device.cache_clear)
        # Functions written in Python would hand themselves to the mode as one call, and be run without it.
        for module in (torch.autograd, torch.nn.functional, torch.functional, torch._tensor):
            for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
                if hasattr(module, name):
                    patch(module, name, lambda *given: False)
        AcceleratorState._reset_state(True)
        stack.callback(AcceleratorState._reset_state, True)
        stack.enter_context(Above(pretence))
        stack.enter_context(Below(pretence))
        yield pretence
