"""Checkpoints within a cell: all that an interrupted run needs to end bit for bit as if it had not been.

    <cell>/checkpoints/step-00000008-<sha256, 16 digits>.safetensors

One file a checkpoint: tensors (generator, optimizer, random states), and in its header, as JSON, everything else
(scheduler, trainer, data position, curves and record so far). It is written to a temporary name, flushed and renamed
to a name that holds the hash of its content, so that a torn or altered file is told from a whole one and the one
before is used. No pickle: the trainer's own checkpoints, which are pickles, are not made or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.machine.files import check_plain, parse_json
from harness.store.atomic import cannot_write, sync_folder

if TYPE_CHECKING:
    import torch

KEPT = 2
MOST_BYTES = 2**40
_NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds: `tensors` by name and `state`, plain JSON data."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one cell; `folder` is made when the first is saved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint) -> Path:
        """Writes the file, then removes all but the newest two. Raises StorageError."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".checkpoint.", suffix=".tmp")
            os.close(handle)
            tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
            save_file(tensors, temporary, metadata={"state": json.dumps(checkpoint.state)})
            with open(temporary, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            path = self.folder / f"step-{checkpoint.step:08d}-{digest[:16]}.safetensors"
            os.replace(temporary, path)
            sync_folder(self.folder)
        except (OSError, SafetensorError) as error:
            raise cannot_write(self.folder, error) from error
        finally:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
        for old in self._files()[:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, or None, and the names of damaged newer ones, which are removed."""
        damaged = []
        for path in reversed(self._files()):
            found = read(path)
            if found is not None:
                return found, damaged
            damaged.append(path.name)
            path.unlink(missing_ok=True)
        return None, damaged

    def clear(self) -> None:
        """Removes the folder."""
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        files = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_file()]
        return sorted(files, key=lambda path: (int(_NAME.fullmatch(path.name)[1]), path.stat().st_mtime_ns))


def read(path: Path) -> Checkpoint | None:
    """The checkpoint in `path`, or None where the content is not what the name's hash says."""
    from safetensors import SafetensorError, safe_open

    step, expected = _NAME.fullmatch(path.name).groups()
    try:
        check_plain(path, MOST_BYTES)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest()[:16] != expected:
                return None
        with safe_open(path, framework="pt") as file:
            state = parse_json(file.metadata()["state"])
            return Checkpoint(int(step), {name: file.get_tensor(name) for name in file.keys()}, state)
    except (HarnessError, OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
