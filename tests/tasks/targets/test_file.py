"""What a target's file may say, how rows are parted, and that whatever is wrong with it is one sentence."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from harness.assets import outline
from harness.contracts import HarnessError, Outline, TaskContext
from harness.registry import TASKS, task_of
from tasks import _pattern
from tasks.targets import read
from tasks.targets.schema import Definition, Shares, Source, parsed
from tasks.targets.sources import SPLITS, parted, seeded

TEXTS = {"texts": {"rows": [f"a text of number {i}" for i in range(10)]}}


def write(folder, terms=None, **more):
    """A target's file; JSON is YAML."""
    path = folder / "mine.yaml"
    path.write_text(json.dumps({"name": "mine", "terms": [TEXTS] if terms is None else terms} | more))
    return path


def checked(path, model="gpt2", folder=None):
    """Everything that a run looks at before it loads a model."""
    task = task_of(str(path)).factory(TaskContext())
    return task.check_target(outline(str(folder))) if folder else task


# ------------------------------------------------------------------------------------------------------------- schema


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"terms": [{"text": {"rows": ["x"]}}]}, "unknown field 'text' in terms.0; did you mean texts"),
        (
            {"terms": [{"texts": {"rows": ["x"], "fild": "y"}}]},
            "unknown field 'fild' in terms.0.texts; did you mean file",
        ),
        ({"termz": []}, "unknown field 'termz'; did you mean terms"),
        ({"splits": {"trian": 0.5}}, "unknown field 'trian' in splits; did you mean train"),
        ({"terms": []}, "bad terms"),
        ({"terms": [{"weight": 1}]}, "exactly one of texts, keep"),
        ({"terms": [TEXTS | {"keep": {"rows": ["x"]}}]}, "exactly one of texts, keep"),
        ({"terms": [{"texts": {"rows": ["x"], "file": "y"}}]}, "exactly one of file, dataset"),
        ({"terms": [{"texts": {}}]}, "exactly one of file, dataset"),
        ({"terms": [TEXTS | {"weight": "much"}]}, r"bad terms\.0\.weight"),
        ({"terms": [TEXTS | {"weight": 1e99}]}, r"bad terms\.0\.weight"),
        ({"terms": [TEXTS | {"name": "Über alles"}]}, "small letters"),
        ({"terms": [TEXTS | {"name": "a"}, TEXTS | {"name": "a"}]}, "calls two terms 'a'"),
        ({"terms": [TEXTS | {"name": "gain"}]}, "two measures 'gain'"),
        ({"terms": [{"weights": {"matrix": "m"}}]}, "exactly one of image, grid"),
        ({"terms": [{"weights": {"matrix": "m", "norm": "up", "rows": [3, 3]}}]}, "is empty"),
        ({"terms": [{"weights": {"matrix": "m", "grid": "+-\n+"}}]}, "all of one length"),
        ({"terms": [{"activations": {"layer": "l", "rows": ["x"]}}]}, "exactly one of direction"),
        ({"splits": {"train": 0.5, "validation": 0.2, "test": 0.2}}, "add up to 1"),
        ({"headline": "gian"}, "did you mean gain"),
        ({"settings": {"grpo.stepz": 3}}, "did you mean grpo.steps"),
        ({"settings": {"task.options.x": 3}}, "what is wanted in its terms"),
        ({"name": "../mine"}, "letters, digits"),
        ({"name": "norm"}, "registered already"),
        ({"name": 5}, "bad name"),
        ({"microbatch": 0}, "bad microbatch"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, change, words):
    with pytest.raises(HarnessError, match=words) as found:
        checked(write(tmp_path, **change))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must be a mapping"),
        (b"- a list", "must be a mapping"),
        (b"name: [", "not valid YAML"),
        (b"name: a\nname: b\nterms: []", "stands twice"),
        (b"\xff\xfe", "UTF-8"),
        (
            b"a: &a [x, x]\nb: &b [*a, *a]\n" + b"".join(b"c%d: &c%d [*b, *b]\n" % (i, i) for i in range(3)),
            "unknown field",
        ),
        (
            b"a: &a [x]\n"
            + b"".join(
                b"a%d: &a%d [*a%s, *a%s]\n" % (i, i, *[b"" if i == 0 else b"%d" % (i - 1)] * 2) for i in range(30)
            ),
            "aliases",
        ),
        (b"name: !!python/object:os.system x", "not valid YAML"),
        (b"name: x\nterms: 2024-01-01", "quote dates"),
        (b"x" * (2**20 + 1), "characters"),
    ],
)
def test_odd_files_are_refused(tmp_path, content, words):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=words):
        read(str(path))


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, words in {"none.yaml": "cannot be read", "folder.yaml": "a folder", "pipe.yaml": "a pipe"}.items():
        with pytest.raises(HarnessError, match=words):
            read(str(tmp_path / name))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["texts", "rows", "weight", "name", "keep", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    data=st.dictionaries(st.sampled_from(["terms", "seed", "splits", "microbatch", "headline", "x"]), plain, max_size=4)
)
def test_any_data_is_a_definition_or_a_sentence(data):
    try:
        found = parsed(data, "The file", Definition)
    except HarnessError as error:
        assert str(error).startswith("The file") and "\n" not in str(error)
        return
    assert parsed(found.recorded(), "The record", Definition) == found, "what is stored must mean the same"


def test_defaults_that_are_written_out_are_the_same_definition(tmp_path):
    short = read(str(write(tmp_path)))
    said = {"terms": [TEXTS | {"weight": 1, "name": ""}], "seed": 0, "microbatch": 32, "summary": "other words"}
    assert read(str(write(tmp_path, **said))).definition == short.definition
    assert read(str(write(tmp_path, seed=1))).definition != short.definition


# ------------------------------------------------------------------------------------------------------------- splits


@given(
    st.lists(st.text(max_size=3), min_size=3, max_size=40), st.integers(0, 5), st.sampled_from([0.1, 0.34, 0.6, 0.8])
)
def test_splits_are_seeded_whole_and_apart(groups, seed, share):
    shares = Shares(train=share, validation=(1 - share) / 2, test=1 - share - (1 - share) / 2)
    found = seeded(groups, shares, seed)
    assert found == seeded(groups, shares, seed)
    of = dict(zip(groups, found, strict=True))
    assert [of[group] for group in groups] == found, "a group is of one split"
    assert dict(zip(groups[::-1], seeded(groups[::-1], shares, seed), strict=True)) == of, "whatever the order"
    if len(of) >= 3:
        assert set(found) == set(SPLITS)


def test_the_shares_and_the_seed_decide():
    groups = [str(i) for i in range(100)]
    found = seeded(groups, Shares(), 0)
    assert [found.count(split) for split in SPLITS] == [60, 20, 20] and seeded(groups, Shares(), 1) != found


def test_duplicates_are_left_out_and_said(tmp_path):
    rows = [f"text {i}" for i in range(6)] + ["text 0", " text 1 "]
    found = parted(Source(rows=rows), "", Shares(), 0, ["text"])
    texts = [row["text"] for split in SPLITS for row in found.rows[split]]
    assert sorted(texts) == [f"text {i}" for i in range(6)] and "2 left out" in found.said
    task = checked(write(tmp_path, [{"texts": {"rows": rows}}]))
    assert "2 left out" in task.check_target(Outline({}, [], "", None))[0]


def test_preferences_on_one_prompt_stay_together(tmp_path):
    rows = [{"prompt": f"p{i % 5}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(30)]
    task = checked(write(tmp_path, [{"preference": {"rows": rows}}]))
    prompts = [{row["prompt"] for row in task._rows["preference"].rows[split]} for split in SPLITS]
    assert sum(map(len, prompts)) == 5 and all(prompts)
    assert len(task.references()) == len(task._rows["preference"].rows["train"])


def test_a_row_in_two_splits_is_refused_within_a_term_and_across_terms(tmp_path):
    named = [{"text": "same", "split": "train"}, {"text": "same", "split": "dev"}, {"text": "x", "split": "test"}]
    with pytest.raises(HarnessError, match="stands in two splits"):
        checked(write(tmp_path, [{"texts": {"rows": named}}]))
    one = [{"text": text, "split": split} for text, split in (("a", "train"), ("b", "validation"), ("c", "test"))]
    other = [{"text": text, "split": split} for text, split in (("d", "train"), ("a", "validation"), ("e", "test"))]
    with pytest.raises(HarnessError, match="for training in 'texts' and for validation in 'keep'"):
        checked(write(tmp_path, [{"texts": {"rows": one}}, {"keep": {"rows": other}}]))
    with pytest.raises(HarnessError, match="no split 'evaluation'"):
        checked(write(tmp_path, [{"texts": {"rows": [{"text": "a", "split": "evaluation"}]}}]))


def test_a_split_without_rows_is_refused_unless_every_split_is_all(tmp_path):
    few = {"rows": ["one", "two"]}
    with pytest.raises(HarnessError, match="no rows for the split 'test'.*whole: true"):
        checked(write(tmp_path, [{"texts": few}]))
    task = checked(write(tmp_path, [{"texts": few | {"whole": True}}]))
    assert task.references() == task.target_texts() == ["one", "two"]


# -------------------------------------------------------------------------------------------------------------- files


def json_lines(*rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no file"),
        (b"", "no rows for the split"),
        (json_lines({"txt": "a"}), "no field named 'text'; did you mean txt"),
        (json_lines({"text": 5}), "must be a text, but it is int"),
        (json_lines({"text": "  "}), "is empty"),
        (b'{"text": "\\ud800"}\n', "no Unicode"),
        (b"[1, 2]\n", "must be an object"),
        (b"nonsense\n", "not valid JSON"),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_odd_rows_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(HarnessError, match=words):
        checked(write(tmp_path, [{"texts": {"file": "rows.jsonl"}}]))


def test_parquet_is_read_and_its_fields_are_named(tmp_path):
    frame = pandas.DataFrame({"sentence": [f"s {i}" for i in range(9)], "asked": [f"q {i}" for i in range(9)]})
    frame.to_parquet(tmp_path / "rows.parquet")
    term = {"file": "rows.parquet", "text": "sentence", "prompt": "asked"}
    task = checked(write(tmp_path, [{"texts": term}]))
    assert set(task.references()) <= set(frame["sentence"])
    with pytest.raises(HarnessError, match="no field named 'sentense'; did you mean sentence"):
        checked(write(tmp_path, [{"texts": term | {"text": "sentense"}}]))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(HarnessError, match="cannot be read"):
        checked(write(tmp_path, [{"texts": term}]))


@pytest.mark.parametrize(
    "row", [{"chosen": "a", "rejected": "a"}, {"chosen": [{"role": "x"}], "rejected": []}, {"chosen": "a"}]
)
def test_odd_preferences_are_refused(tmp_path, row):
    with pytest.raises(HarnessError, match="take the row out|role and content|no field named"):
        checked(write(tmp_path, [{"preference": {"rows": [row]}}]))


def test_pictures_that_are_none_or_too_large_are_refused(tmp_path):
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (2**20).to_bytes(4) * 2)
    for content, words in ((None, "pixels"), (b"no picture", "not an image"), (b"", "not an image")):
        if content is not None:
            (tmp_path / "p.png").write_bytes(content)
        with pytest.raises(HarnessError, match=words):
            checked(write(tmp_path, [{"weights": {"matrix": "head", "image": "p.png"}}]))


# ------------------------------------------------------------------------------------------------- against the target

MATRIX = "transformer.h.0.attn.c_attn.weight"


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ({"weights": {"matrix": MATRIX.replace("attn.weight", "atn.weight"), "norm": "up"}}, f"did you mean {MATRIX}"),
        ({"weights": {"matrix": "transformer.ln_f.weight", "norm": "up"}}, "no matrix"),
        ({"weights": {"matrix": MATRIX, "rows": [0, 17], "norm": "up"}}, "has 16 rows, so there is no 0 to 17"),
        ({"weights": {"matrix": MATRIX, "columns": [46, 50], "norm": "up"}}, "has 48 columns"),
        ({"weights": {"matrix": MATRIX, "image": "wide.png"}}, "the picture has 20 rows.*has 16"),
        ({"weights": {"matrix": MATRIX, "rows": [2, 5], "grid": "+\n" * 4}}, "the picture has 4 rows.*has 3 from 2 on"),
        (
            {"activations": {"layer": "transformer.h.9", "direction": "d.safetensors"} | TEXTS["texts"]},
            "no layer.*did you mean transformer.h",
        ),
        (
            {"activations": {"layer": "transformer.h.0", "direction": "d.safetensors"} | TEXTS["texts"]},
            "has 3 numbers.*16",
        ),
        (
            {"activations": {"layer": "transformer.h.0", "direction": "d.safetensors:e"} | TEXTS["texts"]},
            "the file has d",
        ),
        (
            {"activations": {"layer": "transformer.h.0", "direction": "n.safetensors"} | TEXTS["texts"]},
            "finite numbers",
        ),
        (
            {"activations": {"layer": "transformer.h.0", "direction": "wide.png"} | TEXTS["texts"]},
            "no safetensors file",
        ),
    ],
)
def test_what_the_target_lacks_is_found_from_its_configuration(tmp_path, model_folder, nothing_loads, term, words):
    (tmp_path / "wide.png").write_bytes(_pattern.png(_pattern.grey_image(np.ones((20, 4)), pixels=1)))
    save_file({"d": torch.ones(3)}, tmp_path / "d.safetensors")
    save_file({"d": torch.full((16,), float("nan"))}, tmp_path / "n.safetensors")
    with pytest.raises(HarnessError, match=words):
        checked(write(tmp_path, [term]), folder=model_folder("gpt2"))


def test_the_outline_is_the_models(model_folder, make_model):
    for family in ("gpt2", "llama"):
        found, model = outline(str(model_folder(family))), make_model(family)
        assert found.parameters == {name: tuple(value.shape) for name, value in model.named_parameters()}
        assert set(found.modules) == {name for name, _ in model.named_modules() if name} and found.hidden == 16
        untied = outline(str(model_folder(family)), True)
        assert found.head != "lm_head.weight" and untied.head == "lm_head.weight"
        assert untied.parameters["lm_head.weight"] == (260, 16)


def test_a_file_declares_what_a_registered_task_does(tmp_path):
    entry = task_of(str(write(tmp_path, [TEXTS, {"weights": {"matrix": MATRIX, "grid": "+-"}, "weight": -0.5}])))
    task = entry.factory
    assert TASKS.get("mine") is entry and "mine" not in TASKS.names() and TASKS.everywhere("mine")
    names = [measure.name for measure in (task.headline, *task.measures)]
    assert len(names) == len(set(names)) and set(task.key_measures) <= set(names)
    directions = {measure.name: measure.direction for measure in task.measures}
    assert task.headline.name == "gain" and directions["texts_gain"] == "higher" and directions["weights"] == "lower"
    assert task.offers.references and entry.declares.metric_cost({}).texts == 6
    for terms, offers in (([{"keep": TEXTS["texts"]}], False), ([TEXTS | {"weight": -1}], False), ([TEXTS], True)):
        assert task_of(str(write(tmp_path, terms))).factory.offers.references is offers
