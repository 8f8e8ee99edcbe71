"""embedding, fasttext and levenshtein against plain loops over the raw models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.contracts import HarnessError, RewardContext
from harness.registry import REWARDS

ROLLOUTS = ["la noche era larga y el perro", "the dogs saw the garden", "el niño\nabrió la puerta", "x", ""]


class SpanishTask:
    def __init__(self, texts):
        self.texts = texts

    def references(self):
        return self.texts


@pytest.fixture
def make(spanish, tokenizer, language_id, embedding):
    """(reward name, references, options) -> rewards of ROLLOUTS."""
    assets = {"embedded:embedding": embedding, "embedded:language_id": language_id}

    def run(name, references=spanish, texts=ROLLOUTS, **options):
        context = RewardContext(
            SpanishTask(references),
            num_generations=1,
            cross_group=True,
            options=options,
            load_tokenizer=lambda: tokenizer,
            asset=lambda ref: assets.get(ref, Path(ref)),
        )
        reward = REWARDS.get(name).factory(context)
        return reward(["p"] * len(texts), list(texts), [[0]] * len(texts))

    return run


def edit_distance(a, b):
    """Wagner and Fischer's table, written out."""
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0], table[0, :] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            change = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(change, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[-1, -1]


def test_levenshtein_is_minus_the_mean_edit_distance_on_token_ids(make, spanish, tokenizer):
    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    expected = [-np.mean([edit_distance(ids(text), ids(ref)) for ref in spanish]) for text in ROLLOUTS]
    assert make("levenshtein") == pytest.approx(expected, rel=1e-12)
    assert expected[-1] == -np.mean([len(ids(ref)) for ref in spanish])  # the empty rollout


def test_levenshtein_compares_with_the_first_references_only_where_told(make, spanish):
    assert make("levenshtein", reference_count=2) == make("levenshtein", spanish[:2]) != make("levenshtein")
    for wrong in (0, 1.5, True, "all"):
        with pytest.raises(HarnessError, match="reference_count must be a whole number"):
            make("levenshtein", reference_count=wrong)


def test_levenshtein_counts_tokens_not_characters(make, tokenizer):
    assert len(tokenizer("ñu")["input_ids"]) == 3  # bytes
    assert make("levenshtein", ["ñu"], ["", "ñ", "nu", "ñu"]) == [-3.0, -1.0, -2.0, 0.0]


def test_embedding_is_the_mean_of_all_cosines(make, spanish, embedding):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(embedding), device="cpu")

    def cosine(a, b):
        a, b = model.encode(a).astype(float), model.encode(b).astype(float)
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = [np.mean([cosine(text, ref) for ref in spanish]) for text in ROLLOUTS[:-1]] + [0.0]
    assert make("embedding") == pytest.approx(expected, abs=1e-6)
    assert make("embedding", texts=["", " \n"]) == [0.0, 0.0]


def test_fasttext_is_the_probability_of_the_language_of_the_joined_references(make, spanish, english, language_id):
    import fasttext_pybind

    raw = fasttext_pybind.fasttext()
    raw.loadModel(str(language_id / "model.bin"))
    for references, label in ((spanish, "__label__es"), (english + spanish[:1], "__label__en")):
        expected = []
        for text in ROLLOUTS[:-1]:
            found = {name: p for p, name in raw.predict(text.replace("\n", " ") + "\n", 2, 0.0, "strict")}
            expected.append(found[label])
        got = make("fasttext", references)
        assert got == pytest.approx([*expected, 0.0], rel=1e-12)
        assert max(got) - min(got[:-1]) > 0.1  # the fixture tells the languages apart


def test_fasttext_takes_the_model_file_too(make, language_id):
    assert make("fasttext", language_id=str(language_id / "model.bin")) == make("fasttext")


@pytest.mark.parametrize("name", ["embedding", "fasttext", "levenshtein"])
def test_no_references_is_a_clear_error(make, name):
    with pytest.raises(HarnessError, match="data.references"):
        make(name, [])


def test_broken_assets_are_clear_errors(make, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(HarnessError, match="not a supervised fastText model"):
        make("fasttext", language_id=str(tmp_path))
    with pytest.raises(HarnessError, match="must name an asset"):
        make("fasttext", language_id=3)
    with pytest.raises(HarnessError, match="sentence-transformers"):
        make("embedding", embedding_model=str(tmp_path))
    with pytest.raises(HarnessError, match="no fastText model at"):
        make("fasttext", language_id=str(tmp_path / "absent"))


def test_an_encoder_whose_weights_are_not_there_is_an_error(tmp_path):
    """Its own library fills them with random numbers."""
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertModel

    from harness.assets.models import check_encoder

    shape = BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(shape).save_pretrained(tmp_path / "0_Transformer")
    path = tmp_path / "0_Transformer" / "model.safetensors"
    tensors = load_file(path)
    unpooled = {name: value for name, value in tensors.items() if not name.startswith("pooler.")}
    save_file(unpooled | {"cls.bias": unpooled["embeddings.LayerNorm.bias"].clone()}, path, metadata={"format": "pt"})
    check_encoder(tmp_path)
    save_file({f"x.{name}": value for name, value in tensors.items()}, path, metadata={"format": "pt"})
    with pytest.raises(HarnessError, match="lacks embeddings.LayerNorm"):
        check_encoder(tmp_path)
