"""What the machine has: CUDA devices, their datasheets or a moment's measurement, peak memory."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.contracts import HarnessError

DRIVERS = tuple(map(Path, ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")))
"""Where a driver shows: Linux, containers that see its devices alone, WSL."""


def driver_shows() -> bool:
    return any(path.exists() for path in DRIVERS)


def cuda_devices() -> int:
    """Number of visible CUDA devices. Torch (seconds to import) is asked only where a driver is present."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not driver_shows():
        return 0
    import torch

    return torch.cuda.device_count()


# -------------------------------------------------------------------------------------------------------------- devices


@dataclass(frozen=True)
class Device:
    """What a device can do, as measured or as a datasheet says.

    flops      per second of large matrix products, by dtype: float32, tf32, bfloat16
    bandwidth  bytes per second of its memory
    call       seconds that one layer's forward call costs whatever its size (launches, Python)
    share      of `flops` and of `bandwidth` that a transformer reaches
    gpu        whether it is one
    """

    name: str
    memory: int
    flops: dict[str, float]
    bandwidth: float
    call: float
    share: float = 1.0
    gpu: bool = False

    def product_rate(self, dtype: str) -> float:
        """FLOPs per second of large matrix products; as in float32 where the dtype was not measured."""
        return self.flops.get(dtype, self.flops["float32"])

    def rate(self, dtype: str) -> float:
        """What a transformer reaches of it."""
        return self.product_rate(dtype) * self.share


GIB = 2**30

GPU_CALL, CPU_CALL = 4e-4, 5e-4
"""Seconds of one layer's forward call whatever its size: what Python and, on a GPU, the launches of its kernels take.
An order of magnitude, held against measured phases by scripts/bench_phases.py as the shares below are."""
OPERATIONS_A_LAYER = 45
"""Small kernels' worth of launching in one layer's forward call: with 9 microseconds each that is `GPU_CALL`."""
DATASHEET_SHARE = 0.45
"""Of a datasheet's rates, what a transformer's layers reach: a datasheet's product is larger, and alone."""
GPU_SHARE, CPU_SHARE = 0.6, 0.7
"""The same of rates measured here, which leave the datasheet's optimism out already."""


def _datasheet(name: str, gib: int, bfloat16: float, tf32: float, float32: float, bandwidth: float) -> Device:
    """Memory in GiB as a program sees it, dense rates in TFLOP/s, bandwidth in TB/s."""
    flops = {"bfloat16": bfloat16 * 1e12, "tf32": tf32 * 1e12, "float32": float32 * 1e12}
    return Device(name, gib * GIB, flops, bandwidth * 1e12, GPU_CALL, DATASHEET_SHARE, gpu=True)


DATASHEETS = {
    # NVIDIA datasheets: H200 SXM, H100 SXM, A100 SXM, L4, RTX 4090 (Ada whitepaper).
    "h200": _datasheet("H200", 139, bfloat16=989, tf32=494, float32=67, bandwidth=4.8),
    "h100": _datasheet("H100", 79, bfloat16=989, tf32=494, float32=67, bandwidth=3.35),
    "a100": _datasheet("A100", 79, bfloat16=312, tf32=156, float32=19.5, bandwidth=2.0),
    "l4": _datasheet("L4", 22, bfloat16=121, tf32=60, float32=30, bandwidth=0.3),
    "rtx4090": _datasheet("RTX 4090", 23, bfloat16=165, tf32=82, float32=82, bandwidth=1.0),
}

CPU_CORE = Device("a CPU core", 8 * GIB, {"float32": 5e10}, 1e10, CPU_CALL, CPU_SHARE)


def usual_device() -> Device:
    """A device of the kind that is here, nothing measured and torch not imported: for comparing costs."""
    return DATASHEETS["h100"] if cuda_devices() else CPU_CORE


GPU_PRODUCT, CPU_PRODUCT = 4096, 768
"""Rows of the square matrices whose product is timed: large enough to be bound by arithmetic, over in a moment."""
GPU_COPY, CPU_COPY = 2**26, 2**23
"""Float32 numbers of the copy that is timed: 256 and 32 MB, more than fits in a cache."""


SHORTEST = 1e-3
"""Seconds that stand for a measurement where the clock told none."""


def device(name: str = "") -> Device:
    """A device of DATASHEETS by name, or the one at hand, measured. Raises HarnessError for an unknown name."""
    if name:
        if name.lower() not in DATASHEETS:
            raise HarnessError(
                f"--on takes {', '.join(DATASHEETS)}, not '{name}'; without it the device here is measured."
            )
        return DATASHEETS[name.lower()]
    return measured_device()


@lru_cache(maxsize=2)
def measured_device() -> Device:
    """The first CUDA device, or this CPU with torch's threads: matrix products and a memory copy timed for a moment."""
    import torch

    cuda = torch.cuda.is_available()
    place = torch.device("cuda" if cuda else "cpu")
    size = GPU_PRODUCT if cuda else CPU_PRODUCT
    flops = {"float32": _matmul_rate(size, torch.float32, place)}
    if cuda:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        flops["tf32"] = _matmul_rate(size, torch.float32, place)
        torch.backends.cuda.matmul.allow_tf32 = before
        flops["bfloat16"] = _matmul_rate(size, torch.bfloat16, place)
        memory, name = torch.cuda.mem_get_info()[0], torch.cuda.get_device_name()
        call = OPERATIONS_A_LAYER * launch_seconds()
    else:
        from rewards.metagradient.checkpointing import host_free

        memory, name, call = host_free(), f"CPU, {torch.get_num_threads()} thread(s)", CPU_CALL
    data = torch.empty(GPU_COPY if cuda else CPU_COPY, dtype=torch.float32, device=place).fill_(1.0)
    seconds = _fastest(lambda: data.add_(1.0), cuda)
    return Device(name, memory, flops, 2 * data.numel() * 4 / seconds, call, GPU_SHARE if cuda else CPU_SHARE, cuda)


def _matmul_rate(size: int, dtype: Any, place: Any) -> float:
    import torch

    # Drawn, since products of equal numbers take less power and run faster; not from the stream that cells draw from.
    chance = torch.Generator().manual_seed(0)
    left, right = (torch.rand(size, size, generator=chance).to(place, dtype) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: left @ right, place.type == "cuda")


def launch_seconds() -> float:
    """What it takes this process to launch one small kernel on the first CUDA device, Python included: a few
    microseconds on most machines, ten times that on some virtual ones."""
    import torch

    small, times = torch.ones(1, device="cuda"), 500

    def launches() -> None:
        for _ in range(times):
            small.add_(1.0)

    return _fastest(launches, cuda=True) / times


def _fastest(work: Any, cuda: bool, repeats: int = 8) -> float:
    """Seconds, above 0. The clock of a virtual machine may stand still or step back: what it says then does not
    count."""
    import torch

    found = []
    for _ in range(repeats + 1):  # the first warms up, and is never the fastest
        start = stopwatch()
        work()
        if cuda:
            torch.cuda.synchronize()
        found.append(stopwatch() - start)
    return min((seconds for seconds in found if seconds > 0), default=SHORTEST)


def stopwatch() -> float:
    """Seconds, of which only differences mean something; on a CPU with one thread those of this process, which other
    processes do not lengthen."""
    return time.process_time() if stopwatch_counts_own_seconds() else time.perf_counter()


def stopwatch_counts_own_seconds() -> bool:
    """Whether `stopwatch` counts the seconds of this process alone."""
    import torch

    return not torch.cuda.is_available() and torch.get_num_threads() == 1


# --------------------------------------------------------------------------------------------------------------- device


def to_device(model: Any) -> None:
    import torch

    if torch.cuda.is_available():
        model.to("cuda")


def reset_peak_memory() -> None:
    """Starts the high-water marks of the process (Linux) and of its GPU anew, so that each cell of a worker reports its
    own peak."""
    if cuda_devices():
        import torch

        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # not Linux, or not allowed: the mark then covers the whole process, an upper bound


def peak_memory() -> int | None:
    """Peak resident bytes of this process since the last reset."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
