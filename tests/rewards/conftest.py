"""Small real models made on the spot: a GPT-2, a fastText identifier, a static embedding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SPANISH = [
    "la noche era fría y el hombre miró el jardín",
    "el niño comió la manzana de la mesa",
    "la ciudad tiene un río y un puente muy viejo",
    "los perros corrieron por la calle hasta la plaza",
    "ella abrió la puerta y vio a su hermano",
    "el profesor escribió un libro sobre la música",
]
ENGLISH = [
    "the night was cold and the man looked at the garden",
    "the child ate the apple that lay on the table",
    "the city has a river and a very old bridge",
    "the dogs ran through the street up to the square",
    "she opened the door and saw her brother",
    "the teacher wrote a book about the music",
]


@pytest.fixture(scope="session")
def spanish() -> list[str]:
    return SPANISH


@pytest.fixture(scope="session")
def english() -> list[str]:
    return ENGLISH


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(make_model):
    """A GPT-2 in float64 with eager attention, whose second derivatives exist."""
    model = make_model("gpt2").double().eval()
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="session")
def language_id(tmp_path_factory) -> Path:
    """A folder with model.bin: __label__es and __label__en.

    With one thread fastText fills a tenth of its input matrix and leaves the rest as the memory comes (matrix.cc,
    uniformThread): NaN, or another model each time. Blocks that malloc maps afresh are zero, so that a process told to
    map all large ones trains the same model every time.
    """
    folder = tmp_path_factory.mktemp("language_id")
    lines = [f"__label__es {text}" for text in SPANISH] + [f"__label__en {text}" for text in ENGLISH]
    (folder / "train.txt").write_text("\n".join(lines * 20) + "\n", encoding="utf-8")
    code = (
        "import fasttext; fasttext.train_supervised('train.txt', minn=2, maxn=4, dim=16, lr=0.5, bucket=2000, "
        "thread=1, epoch=3, verbose=0).save_model('model.bin')"
    )
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "4096"}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True, timeout=60)
    return folder


@pytest.fixture(scope="session")
def embedding(tmp_path_factory, tokenizer) -> Path:
    """A sentence-transformers folder: static embeddings of 12 dimensions."""
    import numpy as np
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    weights = np.random.default_rng(0).normal(size=(len(tokenizer), 12)).astype(np.float32)
    folder = tmp_path_factory.mktemp("embedding")
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu").save(str(folder))
    return folder
