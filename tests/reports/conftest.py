from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import bench_report


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Thousands of small files are made here; what survives a power failure is tested with the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def generate() -> Callable[..., int]:
    """The benchmark's maker of random result sets."""
    return bench_report.generate


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, generate: Callable[..., int]) -> Path:
    """Two tasks x six rewards x three seeds, read-only."""
    folder = tmp_path_factory.mktemp("runs")
    generate(folder)
    return folder
