"""Texts by reference: files, splits, the embedded world; every broken input is one sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import assets
from harness.contracts import HarnessError
from harness.planning.cells import articles
from harness.planning.preflight import preflight
from harness.settings.profiles import load_profile, resolve

SPLITS = ("train", "validation", "test")


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_splits_of_a_plain_file_share_no_line(tmp_path):
    file = lines(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(23)])
    parts = [assets.texts(file, split=split) for split in SPLITS]
    assert sorted(sum(parts, [])) == sorted(assets.texts(file, split=None)) and len(parts[0]) > len(parts[1]) > 0


def test_splits_that_a_file_names_are_kept(tmp_path):
    rows = [{"text": f"text {i}", "split": SPLITS[i % 3]} for i in range(9)]
    file = lines(tmp_path / "a.jsonl", rows)
    assert assets.texts(file, split="validation") == ["text 1", "text 4", "text 7"]


@pytest.mark.parametrize("language", ["de", "es", "fr", "it"])
def test_embedded_passages_have_disjoint_splits(language):
    parts = [set(assets.texts("embedded:passages", split=split, language=language)) for split in SPLITS]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_validation_articles_are_held_out(tmp_path):
    file = lines(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(20)])
    change = {"data.articles": file, "validation.prompts": 5}
    train, held_out = articles(resolve(load_profile("tiny"), "lambada_es", "naive", change))
    assert train == [f"text {i}" for i in range(15)] and held_out == [f"text {i}" for i in range(15, 20)]
    train, held_out = articles(resolve(load_profile("tiny"), "lambada_es", "naive"))
    assert len(held_out) == 64 and not set(train) & set(held_out)


@pytest.mark.parametrize("own_split", [False, True])
@pytest.mark.parametrize("source", ["file", "embedded"])
def test_too_few_held_out_articles_are_an_error(tmp_path, source, own_split):
    """Not silently fewer than asked for: one setting then means two things."""
    file = lines(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(20)])
    change = {"data.articles": file if source == "file" else "embedded:articles", "validation.prompts": 1001}
    if own_split:
        change["data.validation_articles"] = change["data.articles"]
    with pytest.raises(HarnessError, match="too few to hold out validation.prompts=1001"):
        articles(resolve(load_profile("tiny"), "lambada_es", "naive", change))


def test_all_articles_but_none_to_train_on_is_an_error(tmp_path):
    file = lines(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(5)])
    change = {"data.articles": file, "validation.prompts": 5}
    with pytest.raises(HarnessError, match="too few to hold out"):
        articles(resolve(load_profile("tiny"), "lambada_es", "naive", change))


@given(st.binary(max_size=200))
def test_any_bytes_are_texts_or_a_sentence(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    file.write_bytes(content)
    try:
        assert all(text.strip() for text in assets.texts(str(file), split=None))
    except HarnessError as error:
        assert "\n" not in str(error)


def test_content_counts_not_the_name(tmp_path):
    one, two = (lines(tmp_path / name, [{"text": "same"}]) for name in ("a.jsonl", "b.jsonl"))
    other = lines(tmp_path / "c.jsonl", [{"text": "other"}])
    assert assets.fingerprint(one) == assets.fingerprint(two) != assets.fingerprint(other)


def test_a_hub_name_that_cannot_be_had_is_a_sentence():
    with pytest.raises(HarnessError, match="nobody/no-such-model"):
        assets.resolve("nobody/no-such-model")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a", None], "row 2: `text` must be a text, but it is null"),
        ([1, 2], "row 1: .* but it is int"),
        ([b"a"], "is bytes"),
    ],
)
@pytest.mark.parametrize("place", ["one.parquet", "data", "odd"])
def test_parquet_texts_that_are_none_are_found_before_a_run(values, words, place, tmp_path):
    """In one file, in a folder with splits, and in one whose layout only `datasets` knows."""
    import pandas

    folder = tmp_path / place
    file = {"one.parquet": folder, "data": folder / "train.parquet", "odd": folder / "x.parquet"}[place]
    file.parent.mkdir(exist_ok=True)
    pandas.DataFrame({"text": values}).to_parquet(file)
    with pytest.raises(HarnessError, match=words):
        assets.texts(str(folder), split=None)
    pandas.DataFrame({"text": ["a", "b"]}).to_parquet(file)
    assert assets.texts(str(folder), split=None) == ["a", "b"]


def test_references_are_read_before_a_run(tmp_path, quick, make_cell):
    import pandas

    pandas.DataFrame({"text": ["a", None]}).to_parquet(tmp_path / "references.parquet")
    cell = make_cell("lambada_es", "naive", quick() | {"data.references": str(tmp_path / "references.parquet")})
    with pytest.raises(HarnessError, match="row 2: `text` must be a text"):
        preflight([cell], tmp_path / "runs")


def test_a_byte_order_mark_and_empty_lines_count_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\n\n{"text": "two"}\r\n')
    assert assets.texts(str(path), split=None) == ["one", "two"]
    for line, words in (
        ('{"text": "\\ud800"}', "line 4: every line"),
        ("[" * 5000, "line 4: not valid JSON"),
        ("9" * 6000, "line 4"),
    ):
        path.write_bytes(path.read_bytes().split(b"two")[0] + b'two"}\n' + line.encode())
        with pytest.raises(HarnessError, match=words):
            assets.texts(str(path), split=None)
