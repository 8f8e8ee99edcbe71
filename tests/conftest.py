"""Everything runs offline on the CPU, on small models that the tests make themselves (tests/helpers)."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests already use every core, a worker each

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from harness.machine.libraries import importing
from tests.helpers.models import build_model, build_tokenizer
from tests.helpers.pretend_cuda import pretended

# No timed asserts: a loaded machine is not a defect. Derandomised: the same cases on every run.
settings.register_profile("harness", deadline=None, derandomize=True)
settings.load_profile("harness")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Half of its time went into looking for garbage."""
    with importing():
        return (yield)


@pytest.fixture(autouse=True, scope="module")
def what_is_loaded_stays() -> None:
    """What is there before a module's first test (libraries, half a million objects) is not looked at for garbage again
    and again: a cell's trainer does that at its start, which took a quarter of a small cell's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def cuda_or_pretended(request: pytest.FixtureRequest):
    """Tests marked `cuda` run on the GPU where there is one, and elsewhere on one that is pretended."""
    if request.node.get_closest_marker("cuda") is None or torch.cuda.is_available():
        yield
        return
    with pretended():
        yield


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


@pytest.fixture
def nothing_loads(monkeypatch) -> Iterator[list[str]]:
    """Whatever holds weights must not be loaded while the test runs; the names of what was. A look at the names and
    shapes of a checkpoint (the device "meta") loads none."""
    import fasttext
    import sentence_transformers
    import transformers

    loaded: list[str] = []

    def forbidden(owner: Any, name: str) -> None:
        def load(*arguments: Any, **options: Any) -> None:
            loaded.append(f"{owner.__name__}.{name}")
            raise AssertionError(f"{owner.__name__}.{name} was called")

        monkeypatch.setattr(owner, name, load)

    shapes = vars(transformers.PreTrainedModel)["from_pretrained"].__func__
    forbidden(transformers.PreTrainedModel, "from_pretrained")
    load = transformers.PreTrainedModel.from_pretrained
    looked = lambda kind, *rest, **options: (shapes if options.get("device_map") == "meta" else load)(
        kind, *rest, **options
    )
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(looked))
    forbidden(sentence_transformers.SentenceTransformer, "__init__")
    forbidden(fasttext, "load_model")
    yield loaded
    assert loaded == []
