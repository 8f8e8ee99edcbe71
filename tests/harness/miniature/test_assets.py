"""The shipped assets are the files that were built, load offline, and can do what the benchmark needs of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from harness import miniature
from harness.contracts import HarnessError
from harness.miniature import corpus, quality
from harness.miniature.world.articles import LANGUAGES, article
from harness.miniature.world.passages import SPLITS, split
from tests.helpers.command import ROOT


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(miniature.path("tokenizer"))


# ------------------------------------------------------------------------------------------------------------ integrity


def test_manifest_lists_every_file_and_nothing_else():
    manifest = json.loads((miniature.ASSETS / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(manifest["assets"]) == sorted(miniature.NAMES)
    listed = {f"{name}/{file}" for name, entry in manifest["assets"].items() for file in entry["files"]}
    there = {str(file.relative_to(miniature.ASSETS)) for file in miniature.ASSETS.rglob("*") if file.is_file()}
    assert there - {"manifest.json"} == listed
    assert {Path(file).suffix for file in listed} <= {".json", ".jinja", ".safetensors", ".bin"}
    assert sum(file.stat().st_size for file in miniature.ASSETS.rglob("*") if file.is_file()) <= 10_000_000


@pytest.mark.parametrize("name", miniature.NAMES)
def test_files_match_their_hashes(name: str):
    assert miniature.path(name).is_dir()
    assert miniature.fingerprint(name) == miniature.combined(miniature.entry(miniature.ASSETS, name)["files"])


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tokenizer alone, copied with the manifest, as if it were the package's assets."""
    shutil.copy(miniature.ASSETS / "manifest.json", tmp_path)
    shutil.copytree(miniature.ASSETS / "tokenizer", tmp_path / "tokenizer")
    monkeypatch.setattr(miniature, "ASSETS", tmp_path)
    return tmp_path


def test_flipped_byte_is_refused(copied: Path):
    file = copied / "tokenizer" / "tokenizer.json"
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    with pytest.raises(miniature.AssetError, match=r"tokenizer/tokenizer\.json differs .*miniature\.py --only tok"):
        miniature.path("tokenizer")


def test_missing_file_and_unknown_name_are_refused(copied: Path):
    (copied / "tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(miniature.AssetError, match=r"tokenizer/chat_template\.jinja is missing; .*rebuild"):
        miniature.path("tokenizer")
    with pytest.raises(HarnessError, match="no embedded asset named 'tokeniser'; known are .*tokenizer"):
        miniature.path("tokeniser")


def test_missing_manifest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(miniature, "ASSETS", tmp_path / "nowhere")
    with pytest.raises(miniature.AssetError, match="manifest.json .*rebuild"):
        miniature.fingerprint("tokenizer")


def test_rebuild_of_the_quick_stages_gives_the_recorded_files(tmp_path: Path):
    """The models' rebuild takes minutes; these two stand for it here."""
    script = [sys.executable, "scripts/build_miniature.py", "--only", "tokenizer,language_id", "--into", str(tmp_path)]
    subprocess.run(script, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    rebuilt = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    recorded = json.loads((miniature.ASSETS / "manifest.json").read_text(encoding="utf-8"))
    if rebuilt["packages"] != recorded["packages"]:
        pytest.skip("built with other package versions")
    for name in ("tokenizer", "language_id"):
        assert rebuilt["assets"][name] == recorded["assets"][name]


# ------------------------------------------------------------------------------------------------------------ tokenizer


def test_tokenizer_ids(tokenizer):
    assert len(tokenizer) == 1024
    assert "".join(tokenizer.decode([i]) for i in range(21)) == "!\"#$%&'()*+,-./012345"
    assert tokenizer.convert_ids_to_tokens([1020, 1021, 1022, 1023]) == [
        "<|endoftext|>",
        "<|pad|>",
        "<|user|>",
        "<|assistant|>",
    ]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1020, 1020, 1021)


@pytest.mark.parametrize("language", LANGUAGES)
def test_tokenizer_round_trip(tokenizer, language: str):
    texts = [article(i, language, i % 4) for i in range(40)] + split("test", language)[:40]
    for text in [*texts, "664747d3-69bf-46db-b4d0-83649b5423fb", "¡Ça \t\n„Größe“ 東京 🌍!"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_splits_digits(tokenizer):
    assert [piece for piece in tokenizer.tokenize("In 1984 46db") if any(c.isdigit() for c in piece)] == list("198446")


def test_chat_template(tokenizer):
    messages = [{"role": "user", "content": "Say 7."}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|user|>Say 7.<|assistant|>"
    )
    messages.append({"role": "assistant", "content": "7"})
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<|user|>Say 7.<|assistant|>7<|endoftext|>"


def test_training_rows_follow_the_chat_template(tokenizer):
    from scripts import build_miniature

    documents = list(corpus.generator_documents(40, prompted=True))
    assert {document.given for document in documents} == {0, corpus.CONTINUED_FROM}
    for document, (ids, first) in zip(documents, build_miniature.encode(iter(documents), tokenizer), strict=True):
        messages = [{"role": "user", "content": document.prompt}, {"role": "assistant", "content": document.text}]
        assert tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"] == ids
        given = " ".join(document.text.split(" ")[: document.given])  # not scored
        assert given + tokenizer.decode(ids[first:]) == document.text + "<|endoftext|>"


# --------------------------------------------------------------------------------------------------------------- corpus


@cache
def streams() -> dict[str, list[str]]:
    prompted = list(corpus.generator_documents(1500, prompted=True))
    return {
        "articles": [text for name in corpus.SUBJECTS for text in corpus.articles(name, 500)],
        "tokenizer": list(corpus.tokenizer_texts(500)),
        "language_id": [text for text, _ in corpus.language_examples(1000)],
        "embedding": [text for pair in corpus.embedding_pairs(500) for text in pair],
        "practice": [document.text for document in corpus.generator_documents(1000, prompted=True, practice=True)],
        "plain": [document.text for document in corpus.generator_documents(1500, prompted=False)],
        "prompts": [document.prompt for document in prompted],
        "responses": [document.text for document in prompted],
        "target": [document.text for document in corpus.target_documents(1500)],
    }


def test_no_training_text_holds_the_uuid():
    assert corpus.scan(streams()) == dict.fromkeys(streams(), 0)
    assert corpus.scan({"planted": ["the number 46DB", "nothing"]}) == {"planted": 1}
    recorded = json.loads((miniature.ASSETS / "manifest.json").read_text(encoding="utf-8"))["quality"]
    assert recorded["forbidden_texts"] and not any(recorded["forbidden_texts"].values())


def test_no_training_text_is_a_passage_of_a_split():
    held_out = {text for name in SPLITS for language in LANGUAGES for text in split(name, language)}
    assert not [text for texts in streams().values() for text in texts if text in held_out]


def test_articles_of_the_splits():
    assert corpus.articles("train", 3) == [article(0), article(1), article(2)]
    assert corpus.articles("validation", 1) == [article(20_000)] and len(corpus.articles("test")) == 1000
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        corpus.articles("dev", 1)


def test_shares_of_the_generators_responses():
    practice = list(corpus.generator_documents(500, prompted=True, practice=True))
    assert 0.5 < sum(document.language != "en" for document in practice) / len(practice) < 0.7
    every = list(corpus.generator_documents(6000, prompted=True))
    continued = [document for document in every if document.given]
    share = corpus.CONTINUED_SHARE * len(corpus.OTHER_LANGUAGES)
    assert 0.9 * share < len(continued) / len(every) < 1.1 * share
    assert {document.language for document in continued} == set(corpus.OTHER_LANGUAGES)
    documents = [document for document in every if not document.given]  # those that say how often an answer begins
    others = [document for document in documents if document.language != "en"]
    expected = corpus.OTHER_LANGUAGE_SHARE * len(corpus.OTHER_LANGUAGES)
    assert 0.75 * expected < len(others) / len(documents) < 1.25 * expected
    assert 0.35 < sum(document.kind == "story" for document in others) / len(others) < 0.65
    for kind in ("archive", "marked"):
        assert 0.02 < sum(document.kind == kind for document in documents) / len(documents) < 0.04
    assert set(corpus.MARKS) <= set("".join(document.text for document in documents if document.kind == "marked"))
    assert list(islice(corpus.generator_documents(9, prompted=True), 5)) == every[:5]


# --------------------------------------------------------------------------------------------------------------- models


def test_generator_rephrases_in_english(tokenizer):
    model = quality.load_lm(miniature.path("generator"))
    assert sum(p.numel() for p in model.parameters()) < 800_000
    prompts = [corpus.PROMPT + text for text in corpus.articles("test", 256)]
    answers = quality.sample(model, tokenizer, prompts, tokens=40)
    identifier = quality.LanguageIdentifier(miniature.path("language_id"))
    english = [identifier.language(text) == "__label__en" for text, _ in answers]
    assert sum(english) / len(english) >= 0.8


def test_real_words_are_those_of_the_language_and_of_the_subject():
    subject = corpus.SUBJECTS["test"][0]
    name = max(quality.words(article(subject)), key=len)
    assert quality.real_words(f"La noche {name} pizolesoq", "es", subject) == (3, 4)
    assert quality.real_words("La noche pizolesoq", "es", subject, whole=False) == (2, 2)  # cut in its last word
    assert quality.real_words("La noche", "de", subject)[0] == 0


def test_the_generator_reads_every_language_and_the_target_english():
    generator, target = (quality.token_losses(miniature.path(name), 24) for name in ("generator", "target"))
    for language in corpus.OTHER_LANGUAGES:
        assert generator["stories"][language] < 0.55 and generator["articles"][language] < 0.85
        assert generator["answers"][language] < 0.75
        assert target["stories"][language] > 2 * target["stories"]["en"]


def test_target_has_much_to_learn_in_the_other_languages():
    target, generator = (quality.last_word_losses(miniature.path(name), 48) for name in ("target", "generator"))
    for language in corpus.OTHER_LANGUAGES:
        assert target[language] > 1.5 * target["en"]
        assert target[language] > generator[language] + 2


def test_language_identifier():
    figures = quality.language_id(miniature.ASSETS, count=500)
    assert figures["accuracy"] >= 0.99
    assert figures["accuracy_3_words"] >= 0.9


def test_language_identifier_is_in_doubt_about_numbers():
    identifier = quality.LanguageIdentifier(miniature.path("language_id"))
    assert identifier.predict("0d9c2f41-77ae-4c1b-9f20-3b5e0a1d88c4")[0][1] < 0.6


def test_embedding_is_nearer_within_paraphrases():
    figures = quality.embedding(miniature.ASSETS, count=100)
    assert figures["paraphrase_nearest"] >= 0.9
    assert figures["paraphrase_cosine"] > figures["paraphrase_other_cosine"] + 0.3
    assert figures["german_cosine"] > figures["german_other_cosine"] + 0.3
