"""The commands `fetch` and `doctor`, offline: gates, disks, locks, exit codes."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import pytest

from harness.assets import hub
from harness.contracts import HarnessError
from harness.grid import cross_product
from harness.planning import fetch
from harness.planning.cost import Download
from harness.settings.profiles import load_profile
from tests.helpers.command import run_harness


def grid(profile="paper", tasks=("lambada_es",), rewards=("adam_metagrad",), given=None):
    return cross_product(load_profile(profile), list(tasks), list(rewards), [0], given or {})


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """An empty cache, no token, no network: the hub client reads the environment when imported, so its constants are
    set."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)


def test_a_gate_without_a_token_is_one_sentence_and_exit_code_2(tmp_path):
    code, _, err = run_harness("fetch", "--profile", "paper", "--task", "uuid", cwd=tmp_path)
    assert code == 2
    assert "meta-llama/Llama-3.2-1B-Instruct is gated and no token is set" in err and "HF_TOKEN" in err
    assert not (tmp_path / "paper.lock.json").exists()


@pytest.mark.parametrize("change", ["token", "mirror"])
def test_a_token_or_a_mirror_may_try(change, monkeypatch):
    gated = [Download("a/b", False, 1, "", "https://x")]
    with pytest.raises(HarnessError, match="gated"):
        fetch.check_gates(gated)
    if change == "token":
        monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    else:
        monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    fetch.check_gates(gated)


def test_a_full_disk_is_said_before_anything_is_fetched(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    monkeypatch.setattr(fetch.assets, "resolve", lambda *given: pytest.fail("the hub was asked"))
    cells, said = grid("small", ["uuid"]), []
    with pytest.raises(HarnessError, match="HF_HOME"):
        fetch.fetch(cells, tmp_path / "lock.json", said.append)
    assert said == [] and not (tmp_path / "lock.json").exists()


def test_missing_and_offline_says_fetch(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HarnessError, match="HF_HUB_OFFLINE.*fetch"):
        hub.model("openai-community/gpt2")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("GatedRepoError", "accept its licence"),
        ("RevisionNotFoundError", "no such revision"),
        ("RemoteEntryNotFoundError", "no such file"),
        ("RepositoryNotFoundError", "check the spelling"),
    ],
)
def test_every_refusal_of_the_hub_is_its_own_sentence(name, words, monkeypatch):
    from huggingface_hub import errors

    kind = getattr(errors, name)
    error = kind.__new__(kind)
    assert words in str(hub.explain("a/b", error)) and "\n" not in str(hub.explain("a/b", error))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "check the spelling" in str(hub.explain("a/b", ConnectionError("refused\nagain")))


@pytest.mark.parametrize("ref", ["", "a b/c", "a//b", "../x", "a/..", "@main"])
def test_what_cannot_be_a_hub_id_is_refused(ref):
    with pytest.raises(HarnessError, match="hub id"):
        hub.parse(ref)


def test_a_local_folder_needs_no_hub(model_folder, tmp_path):
    model, articles = str(model_folder("llama")), tmp_path / "a.jsonl"
    articles.write_text('{"text": "x"}\n')
    given = {"generator.model": model, "target.model": model, "data.articles": str(articles)}
    rows = fetch.fetch(grid("paper", ["uuid"], given=given), tmp_path / "lock.json", lambda text: None)
    assert [row["ref"] for row in rows] == [model, str(articles)]
    stored = json.loads((tmp_path / "lock.json").read_text())
    assert stored["assets"] == rows and all(len(row["sha256"]) == 64 and row["commit"] is None for row in rows)


def test_nothing_to_fetch_for_the_miniature(tmp_path):
    assert run_harness("fetch", "--profile", "tiny", cwd=tmp_path).code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("profile", "code"), [("tiny", 0), ("paper", 1)])
def test_the_doctor_says_what_would_run(profile, code, tmp_path):
    arguments = ("doctor", "--profile", profile, "--task", "lambada_es,67")
    found, shown, _ = run_harness(*arguments, cwd=tmp_path, width=300)
    assert found == code
    assert all(
        words in shown for words in ("torch", "device", "host memory", "disk", "6 of 6 rewards", "3 of 6 rewards")
    )
    assert ("is gated" in shown) == (profile == "paper")
