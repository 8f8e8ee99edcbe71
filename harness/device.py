"""What the machine has, without importing torch in the parent process where that can be avoided."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt (malloc.h)."""


def cuda_devices() -> int:
    """Number of visible CUDA devices. Torch (seconds to import) is asked only where a driver is present."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not Path("/proc/driver/nvidia").exists():
        return 0
    import torch

    return torch.cuda.device_count()


def keep_freed_memory() -> bool:
    """Have glibc keep what this process frees, as caching allocators do; False where the C library is another.

    By default every large tensor comes from fresh pages and is given back when freed. On a virtual machine the first
    touch of a page costs up to 4 us; keeping them took a short tiny cell from 71 s to 67 s and its peak memory up by 3 %.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    never = libc.mallopt(M_TRIM_THRESHOLD, -1)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and never)
