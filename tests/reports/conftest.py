from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Thousands of small files are made here; what survives a power failure is tested with the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Loads a file of scripts/ by its name."""
    return load_script


@pytest.fixture(scope="session")
def bench() -> ModuleType:
    """`scripts/bench_report.py`."""
    return load_script("bench_report")


@pytest.fixture(scope="session")
def generate(bench: ModuleType) -> Callable[..., int]:
    """Its maker of random result sets."""
    return bench.generate


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, generate: Callable[..., int]) -> Path:
    """Two tasks x six rewards x three seeds, read-only."""
    folder = tmp_path_factory.mktemp("runs")
    generate(folder)
    return folder
