"""Everything runs offline on the CPU, on small models that the tests make themselves (tests/helpers)."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests already use every core, a worker each

from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers.models import build_model, build_tokenizer

# No timed asserts: a loaded machine is not a defect. Derandomised: the same cases on every run.
settings.register_profile("harness", deadline=None, derandomize=True)
settings.load_profile("harness")


@pytest.fixture(scope="session")
def make_tokenizer():
    return build_tokenizer


@pytest.fixture(scope="session")
def make_model():
    return build_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory):
    """`model_folder(family)` -> a saved Hugging Face folder with tokenizer."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(f"model-{family}")
            build_model(family).save_pretrained(made[family])
            build_tokenizer().save_pretrained(made[family])
        return made[family]

    return make
