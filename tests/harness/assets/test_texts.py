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
from tests.helpers.cells import make_cell
from tests.helpers.command import run_harness
from tests.helpers.hub_cache import HubCache

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


ROWS = [
    {"text": f"{split} {i}", "split": name}
    for i, (split, name) in enumerate(
        [("train", "train")] * 6
        + [("validation", name) for name in ("validation", "dev", "valid", "val")]
        + [("test", "test")] * 2
    )
]
"""Twelve texts that begin with the split they are of, validation by each of its names."""
KINDS = ("JSON lines", "Parquet", "folder", "hub", "hub file")


def parquet(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """`source(kind, rows)` -> a reference to a source of that kind with these rows."""
    from huggingface_hub import constants

    cache = HubCache(tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache.folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def make(kind, rows):
        if kind == "JSON lines":
            return lines(tmp_path / "a.jsonl", rows)
        if kind == "Parquet":
            return parquet(tmp_path / "a.parquet", rows)
        if kind == "folder":
            parquet(tmp_path / "set" / "part-0.parquet", rows[::2])
            parquet(tmp_path / "set" / "part-1.parquet", rows[1::2])
            (tmp_path / "set" / "dataset_infos.json").write_text("{\n}")
            return str(tmp_path / "set")
        cache.rows("me/texts", {"data/train-0.parquet": rows})  # as they lie on the hub: all rows in its one split
        return "me/texts" if kind == "hub" else "me/texts/data/train-0.parquet"

    assets.resolve.cache_clear()
    yield make
    assets.resolve.cache_clear()


def of(texts):
    """The splits that these texts are of."""
    return {text.split()[0] for text in texts}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_of_the_split_that_their_rows_say(kind, source):
    ref = source(kind, ROWS)
    assert [len(assets.texts(ref, split=split)) for split in SPLITS] == [6, 4, 2]
    assert [of(assets.texts(ref, split=split)) for split in SPLITS] == [{"train"}, {"validation"}, {"test"}]
    assert assets.named_splits(ref) == {"train": 6, "validation": 4, "test": 2}
    assert len(assets.texts(ref, split=None)) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_articles_are_trained_on_and_held_out_as_their_rows_say(kind, source):
    change = {"data.articles": source(kind, ROWS), "validation.prompts": 3}
    train, held_out = articles(resolve(load_profile("tiny"), "lambada_es", "naive", change))
    assert (len(train), len(held_out)) == (6, 3) and (of(train), of(held_out)) == ({"train"}, {"validation"})


def test_without_validation_rows_the_last_training_articles_are_held_out(source):
    rows = [row for row in ROWS if row["text"].split()[0] != "validation"]
    change = {"data.articles": source("Parquet", rows), "validation.prompts": 2}
    train, held_out = articles(resolve(load_profile("tiny"), "lambada_es", "naive", change))
    assert train + held_out == [row["text"] for row in rows if row["split"] == "train"] and len(held_out) == 2


def test_validation_articles_of_another_file_are_its_validation_rows(tmp_path):
    plain = lines(tmp_path / "plain.jsonl", [{"text": f"train {i}"} for i in range(100, 110)])
    change = {"data.articles": plain, "validation.prompts": 4}
    change["data.validation_articles"] = lines(tmp_path / "named.jsonl", ROWS)
    train, held_out = articles(resolve(load_profile("tiny"), "lambada_es", "naive", change))
    assert len(train) == 10 and of(held_out) == {"validation"}
    lines(tmp_path / "plain.jsonl", [{"text": row["text"]} for row in ROWS])
    with pytest.raises(HarnessError, match="4 texts stand in two splits"):
        articles(resolve(load_profile("tiny"), "lambada_es", "naive", change))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", ["data.articles", "data.references"])
def test_a_text_in_two_splits_is_refused_and_nothing_runs(kind, setting, source, tmp_path, nothing_loads):
    ref = source(kind, [*ROWS, {"text": " train 0\n", "split": "dev"}])
    flags = ("--set", f"{setting}={ref}", "--set", "validation.prompts=3")
    code, out, err = run_harness("run", "--task", "lambada_es", *flags, cwd=tmp_path)
    assert code == 2 and len(err.strip().splitlines()) == 1, err
    assert "a text stands in two splits ('train 0...' in train and in validation)" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "x", "split": "tran"}, "there is no split 'tran'; each says train, validation"),
        ({"text": "x"}, "it says no `split`, but other"),
        ({"text": "x", "split": 3}, "there is no split '3'"),
    ],
)
@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_row_of_no_split_is_refused(kind, row, words, source):
    ref = source(
        kind,
        [*ROWS[:6], row]
        if kind == "JSON lines"
        else [*ROWS[:6], {"split": None} | row | {"split": str(row["split"]) if "split" in row else None}],
    )
    with pytest.raises(HarnessError) as caught:
        assets.texts(ref, split="train")
    assert words in str(caught.value) and f"{'line' if kind == 'JSON lines' else 'row'} 7" in str(caught.value)


def test_sources_without_the_field_are_read_as_ever(source):
    """Without the field everything is as it was: one's own lines by fives, a Parquet file whole."""
    rows = [{"text": row["text"]} for row in ROWS]
    plain, whole = source("JSON lines", rows), source("Parquet", rows)
    assert [len(assets.texts(plain, split=split)) for split in SPLITS] == [8, 2, 2]
    assert [len(assets.texts(whole, split=split)) for split in SPLITS] == [12, 12, 12]
    assert assets.named_splits(plain) == assets.named_splits(whole) == {}


def test_a_cells_identity_knows_where_splits_are_newly_heeded(source, tmp_path):
    """Earlier versions passed over the field, but for references in JSON lines: only there the numbers are the same."""
    file, table = source("JSON lines", ROWS), source("Parquet", ROWS)

    def prints(**change):
        return make_cell("lambada_es", "naive", {f"data.{key}": value for key, value in change.items()}).assets

    assert prints(articles=file)[file] == f"{assets.fingerprint(file, data=True)}:splits"
    assert prints(references=file)[file] == assets.fingerprint(file, data=True)
    assert prints(references=table)[table].endswith(":splits")


def test_a_file_that_is_written_anew_is_another_asset(tmp_path):
    """A session of Python, a notebook say, lives longer than a command."""
    file = lines(tmp_path / "a.jsonl", ROWS)
    before = assets.fingerprint(file, data=True), assets.named_splits(file)
    lines(tmp_path / "a.jsonl", ROWS[:6])
    assert assets.fingerprint(file, data=True) != before[0]
    assert (before[1], assets.named_splits(file)) == ({"train": 6, "validation": 4, "test": 2}, {"train": 6})


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (ROWS, "6 train, 4 validation, 2 test (by `split`)"),
        (
            [row for row in ROWS if row["split"] in ("train", "test")],
            "6 train, 2 test (by `split`); of train the last 4 are held out for validation",
        ),
        ([{"text": row["text"]} for row in ROWS], "no splits; the last 4 are held out for validation"),
    ],
    ids=["named", "no validation", "plain"],
)
def test_how_many_there_are_of_each_split_is_said(rows, line, source, tmp_path):
    ref, said = source("JSON lines", rows), []
    change = {"data.articles": ref, "validation.prompts": 4, "grpo.prompts_per_step": 1, "grpo.updates_per_step": 1}
    preflight([make_cell("norm", "levenshtein", change), make_cell("norm", "naive", change)], tmp_path, said.append)
    assert said == [f"{ref}: {line}"]


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
        (["", " \n"], "holds no text but empty ones"),
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


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "hub"])
def test_files_made_for_other_trainers_are_read_by_their_prompts(kind, tmp_path):
    import pandas

    chats = [[{"role": "user", "content": "one"}], [{"role": "user", "content": "two"}]]
    frame = pandas.DataFrame({"prompt": chats, "data_source": ["x", "x"]})
    place = tmp_path / {"parquet": "a.parquet", "jsonl": "a.jsonl", "hub": "data/train.parquet"}[kind]
    place.parent.mkdir(exist_ok=True)
    if kind == "jsonl":
        frame.to_json(place, orient="records", lines=True)
    else:
        frame.to_parquet(place)
    assert assets.texts(str(place.parent if kind == "hub" else place), split=None) == ["one", "two"]


@pytest.mark.parametrize(
    "chat",
    [
        [],
        [{"role": "system", "content": "x"}],
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
    ],
    ids=["empty", "system", "two"],
)
def test_a_chat_of_more_than_one_users_message_is_refused(chat, tmp_path):
    import json

    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": chat}) + "\n")
    with pytest.raises(HarnessError, match="line 1: every line must be an object"):
        assets.texts(str(tmp_path / "a.jsonl"), split=None)
