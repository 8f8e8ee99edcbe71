"""Data from a kept generator: the same bytes after a kill, what `datasets` loads, and every refusal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml

import harness
from harness import api
from harness.cell import run_cell
from harness.contracts import Contact, HarnessError
from harness.generated import dataset
from harness.generated.dataset import read_texts, token_count, write_dataset
from harness.generated.job import WritingJob
from harness.generated.source import source_of_cell, untuned
from harness.settings.profiles import changed, load_profile, resolve
from harness.store.frames import find_cells
from harness.store.record import CellStore
from harness.store.study import write_study
from harness.workers.local import InProcess
from harness.workers.slurm_worker import decoded, encoded
from tests.helpers.cells import ignore, make_cell, quick_settings, write_articles
from tests.helpers.command import run_harness, start_harness


@pytest.fixture(scope="module")
def cell(model_folder, tmp_path_factory) -> Path:
    """A finished cell's folder; its generator writes 12 tokens a text, on 20 articles."""
    place = tmp_path_factory.mktemp("cell")
    articles = write_articles(place / "articles.jsonl")
    assignments = quick_settings(model_folder("gpt2"), articles, grpo__steps=1)
    record = run_cell(make_cell("norm", "naive", assignments), place / "runs", ignore)
    assert record.status == "done", record.reason
    return CellStore.of(place / "runs", record).folder


@pytest.fixture
def own(cell, tmp_path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(cell, tmp_path / "theirs"))


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data").iterdir())}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WANTED = 60_000
"""Tokens of three shards."""


@pytest.fixture(scope="module")
def written(cell, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "data"
    write_dataset(source_of_cell(cell), out, tokens=WANTED)
    return out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(number, cell, written, tmp_path):
    command = ["generate", str(cell), "--tokens", "60k", "--out", "data"]
    process = start_harness(*command, cwd=tmp_path)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None and not list(tmp_path.rglob("train-00000.parquet")):
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number), err
    assert "Traceback" not in err
    first = shards(tmp_path / "data")
    assert 1 <= len([name for name in first if not name.startswith(".")]) < 3
    with pytest.raises(HarnessError, match="no finished data set"):
        read_texts(tmp_path / "data")
    before = (tmp_path / "data" / "data" / "train-00000.parquet").stat().st_mtime_ns
    found = run_harness(*command, cwd=tmp_path)
    assert found.code == 0 and "in 3 shards" in found.out, found
    assert (tmp_path / "data" / "data" / "train-00000.parquet").stat().st_mtime_ns == before, "drawn again"
    assert everything(tmp_path / "data") == everything(written)


def test_what_comes_out_is_loaded_by_datasets_and_by_pandas(cell, written, tmp_path):
    from datasets import load_dataset

    loaded = load_dataset(str(written), cache_dir=str(tmp_path))
    assert list(loaded) == ["train"]
    texts = read_texts(written)
    assert loaded["train"]["text"] == texts["text"].tolist()
    assert texts["row"].tolist() == list(range(len(texts))) and set(texts["seed"]) == {0}
    assert set(texts["source"]) == {"norm/naive seed 0"} and set(texts["finish"]) <= {"stop", "length"}
    assert texts["tokens"].sum() >= WANTED > texts["tokens"].iloc[:-1].sum()
    assert texts["prompt_id"].nunique() == 20 and (texts["prompt_id"][:20].values == texts["prompt_id"][20:40]).all()
    assert len(set(texts["text"][i * 20] for i in range(50))) > 40, "a prompt's rows are new ones"
    card = (written / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["configs"][0]["data_files"][0]["split"] == "train" and "norm/naive seed 0" in card
    assert str(cell.parents[3]) not in card + (written / "dataset.json").read_text(), "no path of this machine"


def test_a_row_depends_on_seed_and_number_alone(cell, written, tmp_path):
    source = source_of_cell(cell)
    few = write_dataset(source, tmp_path / "few", tokens=1000).texts
    assert few["text"].tolist() == read_texts(written)["text"].tolist()[: len(few)]
    other = write_dataset(source, tmp_path / "other", tokens=1000, seed=1).texts
    assert set(other["text"]).isdisjoint(few["text"])


def test_what_is_written_is_what_the_trainers_generator_writes(cell, tmp_path):
    """By the path that training and validation take, on the base model and then on the kept one."""
    from harness import assets
    from harness.training.generation import sample
    from harness.training.prompts import build_prompts, encode_prompt
    from harness.training.seeds import dataset_seed

    source = source_of_cell(cell)
    texts = {}
    for each in (source, untuned(source.settings)):
        settings = each.settings.generator
        model, tokenizer = assets.load_model(each.model, attention="sdpa"), assets.load_tokenizer(each.model)
        articles = assets.texts(each.settings.data.articles, split=None)[:20]
        prompts = [encode_prompt(tokenizer, prompt) for prompt in build_prompts(tokenizer, settings, articles)]
        ids = sample(model, tokenizer, prompts, settings, seed=dataset_seed(0)).tokens
        texts[each.name] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        got = write_dataset(each, tmp_path / each.name.replace("/", "-"), tokens=100).texts
        assert got["text"].tolist() == texts[each.name][: len(got)]
        assert got["tokens"].tolist()[:3] == [len(row) - (row[-1] == 257) for row in ids[:3]]
    assert len(texts) == 2


def test_a_finished_data_set_is_returned_at_once(cell, written, monkeypatch):
    monkeypatch.setattr("harness.assets.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    found = write_dataset(source_of_cell(cell), written, tokens="60k")
    texts = found.texts["text"]
    assert found.shards == 3 and found.rows == len(texts) and found.duplicates == len(texts) - texts.nunique()


# ------------------------------------------------------------------------------------------------------- as a job


def test_a_job_writes_the_same_bytes_in_another_place(cell, tmp_path):
    """As on a node that does not see the results folder: the generator comes with it."""
    source = source_of_cell(cell)
    job = WritingJob(source, tmp_path / "data", 1000, seed=2)
    assert decoded(json.loads(json.dumps(encoded(job)))) == job
    ((name, generator),) = job.reads().items()
    moved = job.at(tmp_path / "there")
    shutil.copytree(generator, tmp_path / "there" / name)
    assert moved.source.model != source.model and moved.run(ignore, wait=False) == ""
    write_dataset(source, tmp_path / "data", tokens=1000, seed=2)
    assert everything(moved.stores()[1]) == everything(job.stores()[1])
    assert WritingJob(untuned(source.settings), tmp_path / "data", 1000).reads() == {}


def test_what_a_cluster_wrote_is_returned(cell, tmp_path, monkeypatch):
    told = []

    class Observed(InProcess):
        def run(self, jobs, observe):
            return super().run(jobs, lambda job, event: (told.append(event["event"]), observe(job, event)))

    monkeypatch.setattr(api, "executor_of", lambda where, cells, place, jobs: Observed())
    made = harness.generate(cell, 1000, tmp_path / "data", executor="ray", progress=False)
    assert made.tokens >= 1000 and made.folder == tmp_path / "data" and len(made.texts) == made.rows
    assert {"start", "rows", "end"} == {*told}
    monkeypatch.setattr(api, "executor_of", lambda *_: pytest.fail("a cluster was started for what is there"))
    again = harness.generate(cell, 1000, tmp_path / "data", executor="ray", progress=False)
    assert again.rows == made.rows
    with pytest.raises(HarnessError, match="another"):
        harness.generate(cell, 2000, tmp_path / "data", executor="ray", progress=False)


def test_a_job_that_is_lost_is_one_sentence(cell, tmp_path, monkeypatch):
    class Losing(InProcess):
        def run(self, jobs, observe):
            return [jobs[0].lost("its worker is gone")]

    monkeypatch.setattr(api, "executor_of", lambda where, cells, place, jobs: Losing())
    with pytest.raises(
        HarnessError, match="texts of norm/naive seed 0: its worker is gone; run it again, and it goes on"
    ):
        harness.generate(cell, 1000, tmp_path / "data", executor="slurm", progress=False)
    with pytest.raises(HarnessError, match="--address goes with --executor ray"):
        harness.generate(cell, 1000, tmp_path / "data", address="auto", progress=False)


@pytest.fixture
def twice(tmp_path) -> Path:
    """Every article two times."""
    articles = [f"Article {i}" for i in range(20) for _ in range(2)]
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in articles))
    return path


def test_duplicates_are_counted_and_left_out_if_asked(cell, twice, tmp_path):
    source = source_of_cell(cell)
    source = harness_source(source, **{"generator.temperature": 1e-4})  # a prompt has one text then
    kept = write_dataset(source, tmp_path / "kept", tokens=100, prompts=twice)
    texts = kept.texts["text"].tolist()
    assert kept.duplicates == len(texts) - len(set(texts)) > 2
    less = write_dataset(source, tmp_path / "less", tokens=100, prompts=twice, dedup=True)
    assert less.texts["text"].tolist() == list(dict.fromkeys(less.texts["text"]))
    assert less.duplicates == less.texts["row"].iloc[-1] + 1 - less.rows > 2
    (tmp_path / "less" / "README.md").unlink()
    manifest = json.loads((tmp_path / "less" / "dataset.json").read_text())
    (tmp_path / "less" / "dataset.json").write_text(json.dumps({name: manifest[name] for name in ("version", "asked")}))
    again = write_dataset(source, tmp_path / "less", tokens=100, prompts=twice, dedup=True)
    assert again == less, "counted from the shards that are there"
    with pytest.raises(HarnessError, match=r"only \d+ brought a text that was new.*without|leave out --dedup"):
        write_dataset(source, tmp_path / "all", tokens="1M", prompts=twice, dedup=True)


def harness_source(source, **given):
    from dataclasses import replace

    return replace(source, settings=changed(source.settings, given))


REFUSED = {
    "unknown": (["nowhere"], "There is no cell in nowhere"),
    "not a cell": (["."], "There is no cell in"),
    "tokens": (["untuned", "--tokens", "many"], "--tokens takes a number"),
    "no tokens": (["untuned", "--tokens", "0"], "--tokens takes a number"),
    "seed": (["untuned", "--seed", "-1"], "--seed takes"),
    "profile": (["untuned", "--profile", "tinny"], "tiny"),
    "task": (["untuned", "--task", "lambada_xx"], "lambada_"),
    "prompts": (["untuned", "--prompts", "none.jsonl"], "none.jsonl"),
    "no text": (["untuned", "--prompts", "bad.jsonl"], "`text`"),
    "setting": (["untuned", "--set", "grpo.lr=1"], "changes nothing here"),
    "several": (["untuned", "--set", "generator.temperature=0.5,1"], "one value"),
    "model": (["untuned", "--set", "generator.model=./nothing"], "nothing"),
    "room": (["untuned", "--tokens", "900B"], "GB free"),
    "other things": (["untuned", "--out", "full"], "something else"),
    "no file": (["untuned", "--out", "bad.jsonl"], "something else"),
    "name": (["untuned", "--push-to-hub", "a b"], "OWNER/NAME"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_sentence_and_exit_code_2_before_anything_loads(case, tmp_path, nothing_loads):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "bad.jsonl").write_text('{"words": "x"}\n')
    arguments, words = REFUSED[case]
    rest = [
        part for option in (["--tokens", "100"], ["--out", "data"]) if option[0] not in arguments for part in option
    ]
    found = run_harness("generate", *arguments, *rest, cwd=tmp_path)
    assert found.code == 2 and words in found.err and found.err.count("\n") == 1, found
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data | {"status": "interrupted"}, "is interrupted, not done"),
        (lambda data: data | {"generator_sha256": "", "generator_step": None}, "kept no generator"),
        (lambda data: data | {"generator_sha256": "0" * 64}, "is not the generator that the cell's record names"),
        (lambda data: data | {"settings": {"generator": {}}}, "not of this version"),
    ],
)
def test_a_cell_without_its_generator_is_refused(change, words, own, tmp_path):
    path = own / "cell.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    found = run_harness("generate", str(own), "--tokens", "100", "--out", "data", cwd=tmp_path)
    assert found.code == 2 and words in found.err and found.err.count("\n") == 1, found


def test_a_packed_cell_has_none(cell, tmp_path):
    write_study(tmp_path / "study", find_cells(cell))
    (packed,) = find_cells(tmp_path / "study")
    with pytest.raises(HarnessError, match="packed in a study"):
        source_of_cell(packed.folder)
    found = run_harness("pack", str(cell), str(tmp_path / "new"), cwd=tmp_path)
    assert found.code == 0 and "1 kept generators were left out" in found.out


@pytest.mark.parametrize(
    "more", [["--tokens", "200"], ["--seed", "1"], ["--dedup"], ["--set", "generator.temperature=0.5"]]
)
def test_a_folder_of_other_settings_is_refused(more, cell, tmp_path):
    rest = ["--out", "data"] if "--tokens" in more else ["--tokens", "100", "--out", "data"]
    assert run_harness("generate", str(cell), "--tokens", "100", "--out", "data", cwd=tmp_path).code == 0
    before = everything(tmp_path / "data")
    found = run_harness("generate", str(cell), *rest, *more, cwd=tmp_path)
    assert found.code == 2 and "of other settings" in found.err and everything(tmp_path / "data") == before


def test_a_damaged_data_set_is_a_sentence(cell, tmp_path):
    write_dataset(source_of_cell(cell), tmp_path, tokens=100)
    path = tmp_path / "data" / "train-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HarnessError, match="damaged.*generate again"):
        read_texts(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(HarnessError, match="dataset.json is damaged"):
        write_dataset(source_of_cell(cell), tmp_path, tokens=100)


def test_a_full_disk_is_a_sentence_and_leaves_whole_shards(cell, tmp_path, monkeypatch):
    source = source_of_cell(cell)
    fsync, written = os.fsync, []

    def full(handle):
        written.append(handle)
        if len(written) > 2:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(dataset, "SHARD_ROWS", 16)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(HarnessError, match="No space left on device; make room"):
            write_dataset(source, tmp_path / "data", tokens=500)
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob(".lock"))
    assert write_dataset(source, tmp_path / "data", tokens=500).tokens >= 500


# ------------------------------------------------------------------------------------------------------------- security


@pytest.mark.parametrize("what", ["generator", "generator/model.safetensors", "generator/README.md"])
def test_a_link_out_of_the_cell_is_not_followed(what, own, tmp_path):
    outside = tmp_path / "outside"
    (own / what).rename(outside)
    (own / what).symlink_to(outside)
    with pytest.raises(HarnessError, match="link out of the"):
        source_of_cell(own)


def test_a_record_has_the_hub_contacted_for_articles_by_nobody_but_the_reader(own, tmp_path, monkeypatch):
    from huggingface_hub import constants

    path = own / "cell.json"
    data = json.loads(path.read_text())
    data["settings"]["data"]["articles"] = "their/articles"
    path.write_text(json.dumps(data))
    asked = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("harness.assets.hub._snapshot", lambda *given: asked.append(given) or str(tmp_path))
    with pytest.raises(HarnessError, match=f"their/articles.*--contact {constants.ENDPOINT}"):
        write_dataset(source_of_cell(own), tmp_path / "data", tokens=100)
    assert asked == []
    allowed = frozenset([Contact(constants.ENDPOINT)])
    with pytest.raises(HarnessError, match="their/articles"):
        write_dataset(source_of_cell(own), tmp_path / "data", tokens=100, allowed=allowed)
    assert asked
    prompts = write_articles(tmp_path / "mine.jsonl")
    assert write_dataset(source_of_cell(own), tmp_path / "data", tokens=100, prompts=prompts).rows


def test_cards_show_what_others_said_as_text(own, tmp_path):
    from harness.training.kept import model_card

    record = CellStore(own).read()
    odd = "](http://evil) <script> | @all ``` \n# big"
    record.reward, record.variant, record.settings["task"]["options"] = odd, odd, {"x": odd + "\n````\n<b>"}
    card = model_card(record)
    outside = card.split("`````")
    assert len(outside) == 3, "one block, which nothing inside ends"
    for words in ("<script>", "://evil", "@all", "\n# big"):
        assert words not in outside[0] + outside[2]
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"


# --------------------------------------------------------------------------------------------------------------- upload


class FakeHub:
    """In the place of `HfApi`: what it was asked for."""

    calls: list[tuple] = []
    fault: Exception | None = None

    def __init__(self, token=None):
        self.token = token

    def create_repo(self, repo_id, **options):
        self.calls.append(("create", self.token, repo_id, options))

    def upload_folder(self, **options):
        if self.fault:
            raise self.fault
        self.calls.append(("upload", self.token, options["repo_id"], options))


@pytest.fixture
def fake_hub(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(FakeHub, "calls", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return FakeHub


def test_data_and_generator_are_uploaded_with_the_environments_token(fake_hub, cell, tmp_path):
    command = ["generate", str(cell), "--tokens", "100", "--out", "data", "--push-to-hub", "me/texts"]
    found = run_harness(*command, cwd=tmp_path)
    assert found.code == 0, found
    assert {token for _, token, *_ in fake_hub.calls} == {"hf_secret"}
    uploads = [
        (call[3]["repo_type"], Path(call[3]["folder_path"]).name) for call in fake_hub.calls if call[0] == "upload"
    ]
    assert uploads == [("dataset", "data"), ("model", "generator")]
    assert all(call[3]["private"] for call in fake_hub.calls if call[0] == "create")
    assert "hf_secret" not in found.out + found.err and "datasets/me/texts" in found.err


def test_the_base_model_is_not_uploaded(fake_hub, cell, tmp_path):
    given = {"generator.max_completion_tokens": 8}
    made = harness.generate("untuned", 100, tmp_path / "d", set=given, push_to_hub="me/texts", progress=False)
    assert [call[3]["repo_type"] for call in fake_hub.calls] == ["dataset", "dataset"]
    assert made.source == "untuned" and made.texts["tokens"].max() <= 8


def test_without_a_token_nothing_is_made(fake_hub, cell, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    command = ["generate", str(cell), "--tokens", "100", "--out", "data", "--push-to-hub", "me/texts"]
    found = run_harness(*command, cwd=tmp_path)
    assert found.code == 2 and "set HF_TOKEN" in found.err and found.err.count("\n") == 1
    assert not (tmp_path / "data").exists() and fake_hub.calls == []


def test_a_failed_upload_is_a_sentence_and_the_data_stay(fake_hub, cell, tmp_path, monkeypatch):
    monkeypatch.setattr(fake_hub, "fault", RuntimeError("403 Forbidden\nmore"))
    command = ["generate", str(cell), "--tokens", "100", "--out", "data", "--push-to-hub", "me/texts"]
    found = run_harness(*command, cwd=tmp_path)
    assert found.code == 2 and "403 Forbidden" in found.err and len(read_texts(tmp_path / "data"))


# --------------------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("text", "count"),
    [("1M", 10**6), ("250k", 250_000), ("1000000", 10**6), ("1.5m", 1_500_000), (7, 7), ("2B", 2 * 10**9)],
)
def test_tokens_are_read_as_meant(text, count):
    assert token_count(text) == count


@pytest.mark.parametrize("text", ["", "-1", "1e6", "M", "1 000", "1T", 0, 10**13, "0.0001"])
def test_other_tokens_are_refused(text):
    with pytest.raises(HarnessError, match="--tokens takes a number"):
        token_count(text)


def test_the_profile_of_untuned_is_its_settings(tmp_path):
    found = run_harness("generate", "untuned", "--task", "uuid", "--tokens", "60", "--out", "d", cwd=tmp_path)
    assert found.code == 0, found
    asked = json.loads((tmp_path / "d" / "dataset.json").read_text())["asked"]
    assert (
        asked["generator"]["max_prompt_tokens"] == resolve(load_profile("tiny"), "uuid", "").generator.max_prompt_tokens
    )
    assert asked["prompts"]["count"] > 1000
