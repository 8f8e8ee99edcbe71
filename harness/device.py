"""What the machine has, without importing torch in the parent process where that can be avoided."""

from __future__ import annotations

import os
from pathlib import Path


def cuda_devices() -> int:
    """Number of visible CUDA devices. Torch (seconds to import) is asked only where a driver is present."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not Path("/proc/driver/nvidia").exists():
        return 0
    import torch

    return torch.cuda.device_count()
