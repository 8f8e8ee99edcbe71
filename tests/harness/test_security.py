"""No code comes in, nothing listens, nothing leaves the results folder, the judge's key stays where it is, and what is
read from outside has limits."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import re
import shutil
import socket
import threading
import zlib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from harness import assets
from harness.assets import models
from harness.cell import run_cell
from harness.contracts import Contact, HarnessError, no_contacts
from harness.grid import cross_product
from harness.machine import trust
from harness.machine.files import read_table
from harness.machine.stopping import Interrupted
from harness.planning.cells import Cell, make_task
from harness.planning.preflight import preflight
from harness.registry import REWARDS, TASKS
from harness.rerun import rerun
from harness.settings.profiles import load_profile, resolve
from harness.settings.reading import read_yaml
from harness.store.atomic import csv_text
from harness.store.checkpoint import Checkpoints
from harness.store.record import CellRecord, CellStore
from reports import gather
from reports.store import store_tables
from tasks import _pattern
from tests.helpers.cells import cut_after, ignore
from tests.helpers.command import ROOT, run_harness

SOURCES = [path for name in ("harness", "rewards", "tasks", "reports") for path in (ROOT / name).rglob("*.py")]


# ---------------------------------------------------------------------------------------------------- pickles and code


def test_a_run_that_is_cut_and_resumed_loads_no_pickle_and_opens_no_port(quick, make_cell, tmp_path, monkeypatch):
    import harness.training.grpo  # noqa: F401  the libraries derive classes from what is replaced below

    def forbidden(*_, **__):
        raise AssertionError("forbidden")

    for owner, name in ((torch, "load"), (torch.serialization, "load"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, forbidden)
    for name in ("bind", "listen"):
        monkeypatch.setattr(socket.socket, name, forbidden)
    cell = make_cell("lambada_es", "adam_metagrad", quick(grpo__checkpoint_every=1))
    with pytest.raises(Interrupted):
        run_cell(cell, tmp_path, cut_after(2))
    record = run_cell(cell, tmp_path, ignore)
    assert record.status == "done" and record.provenance["resumed"][0]["step"] == 1, record.reason


def test_sources_load_no_pickle_trust_no_code_and_start_no_server():
    bad = {
        r"^\s*import (cloud)?pickle|^\s*from pickle|joblib|dill\b": "pickle",
        r"torch\.load\((?![^)]*weights_only=True)": "torch.load without weights_only",
        r"trust_remote_code=True|allow_pickle=True": "trust",
        r"\.listen\(|HTTPServer|vllm_mode=.server": "a server",
    }
    found = [
        f"{path.relative_to(ROOT)}: {what}"
        for path in SOURCES
        for pattern, what in bad.items()
        if re.search(pattern, path.read_text(), re.MULTILINE)
    ]
    assert found == []


@pytest.fixture
def model_with_code(tmp_path):
    """A folder whose config is made by Python code that leaves a mark when it is run."""
    folder, mark = tmp_path / "coded", tmp_path / "mark"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "coded", "auto_map": {"AutoConfig": "coded_config.CodedConfig"}})
    )
    (folder / "coded_config.py").write_text(
        f"import pathlib as p\nfrom transformers import PretrainedConfig\np.Path({str(mark)!r}).write_text('ran')\n\n\n"
        "class CodedConfig(PretrainedConfig):\n    model_type = 'coded'\n"
    )
    (folder / "model.safetensors").write_bytes(b"")
    return folder, mark


def test_code_of_a_model_is_not_run(model_with_code):
    folder, mark = model_with_code
    for load in (assets.check_model, assets.load_model, assets.load_tokenizer):
        with pytest.raises(HarnessError):
            load(str(folder))
    assert not mark.exists()


def test_the_command_line_alone_lets_it_run_and_the_record_says_so(
    model_with_code, quick, make_cell, tmp_path, monkeypatch
):
    folder, mark = model_with_code
    monkeypatch.setattr(trust, "_trusts_remote_code", False)
    trust.trust_remote_code()
    with pytest.raises(HarnessError):  # the weights are empty
        assets.load_model(str(folder))
    assert mark.read_text() == "ran"
    record = run_cell(make_cell("norm", "naive", quick(grpo__steps=1)), tmp_path / "runs", ignore)
    assert "--trust-remote-code" in record.provenance["warning"]


@pytest.mark.parametrize("key", ["trust_remote_code", "generator.trust_remote_code", "target.trust_remote_code"])
def test_no_setting_turns_it_on(key):
    with pytest.raises(HarnessError, match="no setting named"):
        resolve(load_profile("tiny"), "norm", "naive", {key: True})


def test_no_profile_turns_it_on(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nsummary: s\ntrust_remote_code: true\nsettings: {}\n")
    with pytest.raises(HarnessError):
        load_profile(str(path))
    path.write_text("name: mine\nsummary: s\nsettings: {generator: {trust_remote_code: true}}\n")
    with pytest.raises(HarnessError):
        resolve(load_profile(str(path)), "norm", "naive", {})
    assert not trust.trusted()


# --------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "..", ".", "", ".hidden", "a\x00", "-x", "a b", "x" * 101])
@pytest.mark.parametrize("part", ["profile", "task", "reward"])
def test_no_name_leads_out_of_the_results_folder(part, name, tmp_path):
    fields = {"profile": "p", "task": "t", "reward": "r", part: name}
    with pytest.raises(HarnessError, match="cannot be the name"):
        CellStore.of(tmp_path, CellRecord(**fields, seed=0, identity="i", status="done"))


def test_a_profile_with_such_a_name_is_refused_before_anything_is_written(tmp_path):
    files = sorted((ROOT / "harness" / "profiles" / "tiny").iterdir())
    path = tmp_path / "mine.yaml"
    path.write_text("".join(file.read_text() for file in files).replace("name: tiny", "name: ../../outside"))
    from harness.workers.grid import run_grid
    from harness.workers.local import InProcess

    cells = cross_product(load_profile(str(path)), ["norm"], ["naive"], [0], {})
    with pytest.raises(HarnessError, match="cannot be the name"):
        run_grid(cells, tmp_path / "runs", ignore, InProcess())
    assert [item.name for item in tmp_path.iterdir()] == ["mine.yaml"]


# -------------------------------------------------------------------------------------------------------------- the key

KEY = "sk-a-secret-that-nobody-repeats"


@pytest.fixture
def gossip(monkeypatch):
    """An endpoint that repeats the key wherever it can: in answers, in error bodies, in headers."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = {"answer": "Spanish", "status": 200, "keys": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            key = self.headers["Authorization"]
            state["keys"].append(key)
            content = {"choices": [{"message": {"content": state["answer"].replace("KEY", key)}}], "error": key}
            data = json.dumps(content).encode()
            self.send_response(state["status"], key)
            self.send_header("X-Key", key)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state["url"] = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield state
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "status", "ends"), [("Spanish", 200, "done"), ("KEY", 200, "failed"), ("KEY", 401, "failed")]
)
def test_the_key_is_in_no_log_result_or_report(
    answer, status, ends, gossip, quick, make_cell, tmp_path, capfd, monkeypatch
):
    from harness.texts import language
    from reports import site

    monkeypatch.setattr(language.time, "sleep", ignore)
    gossip |= {"answer": answer, "status": status}
    more = quick() | {"task.options.judge": "openai", "task.options.judge_base_url": gossip["url"]}
    record = run_cell(make_cell("lambada_es", "naive", more), tmp_path / "runs", ignore)
    assert record.status == ends, record.reason
    store_tables(tmp_path / "runs" / "tiny")
    site.build(tmp_path / "runs", tmp_path / "site")
    secret = KEY.encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
    out, err = capfd.readouterr()
    assert KEY not in out + err and KEY not in record.model_dump_json()


@pytest.mark.parametrize(
    "options", [{"key_variable": "sk-my-own-key"}, {"base_url": "https://user:sk-my-own-key@host/v1"}], ids=str
)
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(options):
    from harness.texts.language import OpenAIJudge

    with pytest.raises(HarnessError) as caught:
        OpenAIJudge(**options)
    assert "sk-my-own-key" not in str(caught.value)


# -------------------------------------------------------------------------------------------------- who says where to

SECRET = "a-secret-of-another-program"


@pytest.fixture
def asks_home(gossip, quick, make_cell, tmp_path, monkeypatch):
    """A finished cell whose record sends the variable OTHER_SECRET to the server."""
    monkeypatch.setenv("OTHER_SECRET", SECRET)
    gossip |= {"answer": "Spanish", "status": 200}
    options = {"judge": "openai", "judge_base_url": gossip["url"], "judge_key_variable": "OTHER_SECRET"}
    more = quick(grpo__steps=1) | {f"task.options.{name}": value for name, value in options.items()}
    record = run_cell(make_cell("lambada_es", "naive", more), tmp_path / "theirs", ignore)
    assert record.status == "done", record.reason
    gossip["keys"].clear()
    return CellStore.of(tmp_path / "theirs", record).folder, Contact(gossip["url"], "OTHER_SECRET")


def test_rerun_sends_a_record_no_variable_that_the_command_line_does_not_name(asks_home, gossip, tmp_path):
    folder, contact = asks_home
    other = Contact(contact.url, "OPENAI_API_KEY")
    for flags in ([], ["--contact", contact.url], ["--contact", str(other)], ["--contact", f"{contact}/v2"]):
        found = run_harness("rerun", str(folder), *flags, cwd=tmp_path)
        assert found.code == 2 and f"--contact {contact}" in found.out and "OTHER_SECRET" in found.out
    assert gossip["keys"] == []
    found = run_harness("rerun", str(folder), "--contact", str(contact), cwd=tmp_path)
    assert found.code == 0 and f"contacts {contact}" in found.out, found
    assert set(gossip["keys"]) == {f"Bearer {SECRET}"}


def test_rerun_asks_the_hub_for_nothing_unless_it_may(asks_home, monkeypatch):
    """Looked at before any asset is: downloading one would be the contact."""
    from huggingface_hub import constants

    folder, contact = asks_home
    path = folder / "cell.json"
    data = json.loads(path.read_text())
    data["settings"]["target"]["model"] = "their/model"
    path.write_text(json.dumps(data))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(Cell, "record", lambda self: pytest.fail("an asset was looked at"))
    with pytest.raises(HarnessError, match=f"requests to {constants.ENDPOINT}.*--contact {constants.ENDPOINT}"):
        rerun(CellStore(folder), ignore, frozenset([contact]))


def test_no_profile_says_where_a_key_goes(gossip, tmp_path, monkeypatch):
    monkeypatch.setenv("OTHER_SECRET", SECRET)
    options = {"judge": "openai", "judge_base_url": gossip["url"], "judge_key_variable": "OTHER_SECRET"}
    profile = load_profile("tiny")
    theirs = replace(
        profile, tasks={"lambada_es": {(1, f"task.options.{key}"): value for key, value in options.items()}}
    )
    said = {f"task.options.{key}": value for key, value in options.items()}
    for given in ({}, {"task.options.judge": "openai"}, said | {"task.options.judge_key_variable": "HOME"}):
        given = given or {"grpo.steps": 1}
        (cell,) = cross_product(theirs, ["lambada_es"], ["naive"], [0], given)
        if given.keys() >= said.keys():
            assert cell.contacts() == [Contact(gossip["url"], "HOME")]
            make_task(cell)
        else:
            with pytest.raises(HarnessError, match="OTHER_SECRET to .*--set"):
                preflight([cell], tmp_path / "runs")
    (cell,) = cross_product(theirs, ["lambada_es"], ["naive"], [0], {"task.options": options})
    assert make_task(cell)
    assert gossip["keys"] == []


@pytest.mark.parametrize("entry", [*TASKS, *REWARDS], ids=lambda entry: entry.name)
def test_who_reads_a_host_or_a_variable_declares_it(entry):
    """So that the harness can ask who said so."""
    told = [name for name in entry.options or () if re.search(r"url|host|endpoint|variable|key", name)]
    declared = entry.declares.contacts if entry in list(TASKS) else entry.contacts
    assert not told or declared is not no_contacts, told


@pytest.mark.parametrize(
    "place", ["https://127.0.0.1:9/a.jsonl", "/etc/passwd", "../secret.jsonl", "zip://a::b", "~/a"]
)
@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
def test_a_data_sets_card_leads_nowhere_else(name, place, tmp_path):
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}\n')
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "all.jsonl").write_text('{"text": "mine"}\n')
    for inside, ok in (("all.jsonl", True), (place, False)):
        card = f"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: '{inside}'\n"
        (folder / name).write_text(f"---\n{card}---\n# Data\n" if name == "README.md" else card)
        if ok:
            assert assets.texts(str(folder), split=None) == ["mine"]
        else:
            with pytest.raises(HarnessError, match="outside its folder"):
                assets.texts(str(folder), split=None)


# ---------------------------------------------------------------------------------------------------------- revisions


def test_the_commit_of_a_hub_model_is_recorded(make_cell, monkeypatch, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--org--name" / "snapshots" / commit
    resolved = lambda ref, data=False: snapshot if ref.startswith("org/name") else Path(ref)
    monkeypatch.setattr(assets, "resolve", resolved)
    pinned = f"org/name@{commit[:8]}"
    cell = make_cell("norm", "naive", {"generator.model": pinned, "target.model": "embedded:target"})
    assert cell.revisions() == {pinned: commit}


# ------------------------------------------------------------------------------------------------------------- limits


def laughs(depth: int, width: int, merged: bool) -> str:
    """A profile's text in which aliases stand for width ** depth values."""
    lines = ["a0: &a0 {k: 1}" if merged else "a0: &a0 [x]"]
    for number in range(1, depth + 1):
        inside = ", ".join([f"*a{number - 1}"] * width)
        lines.append(f"a{number}: &a{number} " + (f"{{<<: [{inside}]}}" if merged else f"[{inside}]"))
    return "\n".join(lines)


@pytest.mark.parametrize("merged", [False, True])
def test_aliases_of_aliases_are_refused_before_they_are_written_out(merged, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(laughs(30, 9, merged))
    with pytest.raises(HarnessError, match="aliases"):
        load_profile(str(path))
    with pytest.raises(HarnessError, match="aliases"):
        read_yaml("&a [*a]", "It")
    assert read_yaml(laughs(2, 3, merged), "It")["a1"] == ([["x"]] * 3 if not merged else {"k": 1})


def test_a_profile_of_fifty_megabytes_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"# comment\n" * 5_000_000)
    with pytest.raises(HarnessError, match=r"has 50,000,000 bytes, and at most"):
        load_profile(str(path))


def odd_file(path: Path, kind: str) -> Path:
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(kind)
    return path


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/proc/kmsg"])
def test_pipes_and_devices_are_refused_and_not_waited_for(kind, tmp_path, model_folder):
    reads = {
        "x.yaml": lambda path: load_profile(str(path)),
        "x.jsonl": lambda path: assets.texts(str(path), split=None),
        "x.parquet": lambda path: assets.texts(str(path), split=None),
        "x.png": _pattern.from_file,
        "x.npy": _pattern.from_file,
        "cell.json": lambda path: CellStore(path.parent).read(),
        "curves.parquet": lambda path: CellStore(path.parent).curves(),
        "samples.jsonl": lambda path: CellStore(path.parent).samples(),
        "arrays.parquet": lambda path: CellStore(path.parent).arrays(),
    }
    for name, read in reads.items():
        with pytest.raises(HarnessError, match="not a plain file|no regular file|link out of the results"):
            read(odd_file(tmp_path / name, kind))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        folder = tmp_path / f"with an odd {name}"
        shutil.copytree(model_folder("gpt2"), folder)
        (folder / name).unlink()
        odd_file(folder / name, kind)
        with pytest.raises(HarnessError, match="not a plain file"):
            assets.check_model(str(folder))
    (tmp_path / "checkpoints").mkdir()
    odd_file(tmp_path / "checkpoints" / f"step-00000001-{'0' * 16}.safetensors", kind)
    assert Checkpoints(tmp_path / "checkpoints").newest()[0] is None


def test_tables_that_unpack_to_more_than_fits_are_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, indices = tmp_path / "x.parquet", pa.array([0] * 5000, pa.int32())
    repeated = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 10**6]))
    for table in ({"text": repeated}, {"text": ["x"] * 5000, "other": repeated}):
        pq.write_table(pa.table(table), path, compression="zstd")
        assert path.stat().st_size < 100_000
        with pytest.raises(HarnessError, match="unpacks to more than"):
            read_table(path)
    assert assets.texts(str(path), split=None) == ["x"] * 5000  # the other column is not read
    pq.write_table(pa.table({"text": pa.nulls(50_000_001, pa.int8())}), path)
    with pytest.raises(HarnessError, match="rows"):
        assets.texts(str(path), split=None)


def test_pictures_that_unpack_to_more_than_fits_are_refused(tmp_path, make_cell, quick):
    from PIL import Image

    small = io.BytesIO()
    Image.new("L", (4, 4), 255).save(small, "png")
    claimed = bytearray(small.getvalue())
    claimed[16:24] = (30_000).to_bytes(4) * 2
    claimed[29:33] = zlib.crc32(claimed[12:29]).to_bytes(4)
    (tmp_path / "x.png").write_bytes(claimed)
    with pytest.raises(HarnessError, match="30000 x 30000 pixels"):
        _pattern.from_file(tmp_path / "x.png")
    store = CellStore.of(tmp_path, make_cell("norm", "naive", quick()).record())
    store.write_file(1, "drawn.png", bytes(claimed))
    with pytest.raises(gather.Undrawable, match="30000 x 30000 pixels"):
        gather.final_pictures(store, "norm")
    (tmp_path / "x.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117)
        + b"\n"
    )
    with pytest.raises(HarnessError, match="plain .npy array"):
        _pattern.from_file(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than"),
        ("{{ 'x' * 10**11 }}", "takes more than"),
        ("{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}", "takes more than"),
        ("{{ raise_exception('no') }}", "cannot be applied"),
        ("x" * 1_000_001, "characters"),
        ("{{ messages[0].content }}", ""),
    ],
    ids=["loops", "a long text", "much output", "an exception", "a long template", "a plain one"],
)
def test_a_chat_template_is_tried_where_it_can_do_no_harm(template, words, tmp_path, make_tokenizer, monkeypatch):
    monkeypatch.setattr(models, "TEMPLATE_SECONDS", 4)
    make_tokenizer(template).save_pretrained(tmp_path)
    if not words:
        assert assets.load_tokenizer(str(tmp_path)).chat_template == template
        return
    with pytest.raises(HarnessError, match=words):
        assets.load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    "line", ["[" * 5000 + "]" * 5000, '{"text": "x", "n": ' + "9" * 6000 + "}", '{"text": ' + "[" * 9000], ids=len
)
def test_lines_that_no_reader_follows_are_refused(line, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "x"}\n' + line + "\n")
    with pytest.raises(HarnessError, match="line 2: not valid JSON"):
        assets.texts(str(path), split=None)


def test_of_a_reason_without_end_the_beginning_is_read(tmp_path, make_cell, quick):
    record = make_cell("norm", "naive", quick()).record()
    store = CellStore.of(tmp_path, record)
    store.write(record.model_copy(update={"reason": "why " * 10**6}))
    assert store.read().reason.startswith("why why") and len(store.read().reason) < 2300


def test_cells_of_csv_files_are_no_formulas_and_numbers_stay_numbers():
    import pandas

    texts = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "-", "a\r=1+1", "plain", "-0.5", "+3", "-1e-5", None]
    frame = pandas.DataFrame({"=head": texts, "number": range(len(texts))}).assign(gain=-0.25)
    rows = list(csv.reader(io.StringIO(csv_text(frame), newline="")))
    assert rows[0] == ["'=head", "number", "gain"] and {row[2] for row in rows[1:]} == {"-0.25"}
    assert [row[0] for row in rows[1:7]] == [f"'{text}" for text in texts[:6]]
    assert [row[0] for row in rows[7:]] == ["a\n=1+1", "plain", "-0.5", "+3", "-1e-5", ""]
