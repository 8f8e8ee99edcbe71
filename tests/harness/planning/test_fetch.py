"""The commands `fetch` and `doctor`, offline: gates, disks, locks, exit codes."""

from __future__ import annotations

import json
import re
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest

from harness.assets import hub
from harness.contracts import HarnessError
from harness.grid import cross_product
from harness.machine import devices
from harness.machine.devices import CPU_CORE, DATASHEETS
from harness.planning import doctor, fetch
from harness.planning.cost import Download, estimate
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


def test_without_a_network_fetch_asks_once_and_says_so(monkeypatch, tmp_path):
    """The client would try six times for every file, half a minute each."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *given, **more: pytest.fail("a download began"))
    code, out, err = run_harness("fetch", "--profile", "small", "--task", "norm", cwd=tmp_path)
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert err.startswith("Error: The hub cannot be reached at http://127.0.0.1:9 (") and "HF_HUB_OFFLINE=1." in err
    assert not (tmp_path / "small.lock.json").exists()


def test_a_long_message_of_the_hub_is_cut_between_words(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    said = str(hub.explain("a/b", ConnectionError("word " * 100)))
    assert "word [...]); check the spelling" in said


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
    assert ("more than this CPU can do" in shown) == (profile == "paper")


def test_what_a_cpu_cannot_do_needs_a_gpu_of_so_many_gigabytes(monkeypatch):
    """Not smaller microbatches, with which it would take years."""
    monkeypatch.setattr(doctor, "device", lambda: CPU_CORE)
    cells = grid("paper", ["uuid"], ["adam_metagrad", "naive"])
    (found,) = (item for item in doctor.examine(cells) if item.what == "uuid")
    size = int(re.fullmatch(r"needs a GPU with at least (\d+) GB", found.advice)[1])
    fits = [replace(DATASHEETS["h200"], memory=int(gb * 1e9)) for gb in (size, size / 2)]
    turns = [
        cell.settings.model_copy(update={"generator": cell.settings.generator.model_copy(update={"offload": "always"})})
        for cell in cells
    ]
    needed = max(estimate(one, "uuid", cell.reward, fits[0]).memory for one, cell in zip(turns, cells, strict=True))
    assert fits[1].memory < needed <= fits[0].memory
    assert "h a cell" not in found.found
    monkeypatch.setattr(doctor, "device", lambda: replace(DATASHEETS["l4"], memory=2**30))
    (found,) = (item for item in doctor.examine(cells) if item.what == "uuid")
    assert "lower grpo.microbatch" in found.advice  # a GPU that is too small


def test_a_plan_on_a_cpu_says_so_too(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.planning.view.device", lambda name: DATASHEETS[name] if name else CPU_CORE)
    arguments = ("run", "--profile", "paper", "--task", "uuid", "--reward", "naive", "--dry-run")
    assert "it needs a GPU with at least" in run_harness(*arguments, cwd=tmp_path).out
    assert "needs a GPU" not in run_harness(*arguments, "--on", "h200", cwd=tmp_path).out


def test_no_clock_makes_a_device_slower_than_nothing(monkeypatch):
    """The clock of a virtual machine may stand still or step back; a plan's seconds stay above 0."""
    ticks = iter([0.0, -1.0, 5.0, 5.0, 6.0, 6.5] + [9.0 - n for n in range(100)])
    monkeypatch.setattr(devices, "stopwatch", lambda: next(ticks))
    assert devices._fastest(lambda: None, False) == 0.5
    assert devices._fastest(lambda: None, False) == devices.SHORTEST


# ------------------------------------------------------------------------------------------------- what doctor measures


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with all of its 80 GiB free, whose driver and build fit."""
    import torch

    monkeypatch.setattr(doctor, "driver_shows", lambda: True)
    stand_ins = {
        "is_available": lambda: True,
        "mem_get_info": lambda: (79 * 2**30, 80 * 2**30),
        "get_device_capability": lambda: (9, 0),
        "get_arch_list": lambda: ["sm_80", "sm_90"],
        "is_bf16_supported": lambda including_emulation: True,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    return lambda name, value: monkeypatch.setattr(torch.cuda, name, value)


def test_a_gpu_that_is_well_is_told_in_three_lines(gpu):
    found = {item.what: item for item in doctor._gpu()}
    assert found["gpu"].found == "compute capability 9.0, CUDA build 13.0"
    assert found["gpu memory"].found == "79.0 of 80.0 GiB free" and found["bfloat16"].found == "yes"
    assert not any(item.advice for item in found.values())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("is_available", lambda: False, "torch is built for CUDA 13.0; update the driver"),
        ("mem_get_info", lambda: (20 * 2**30, 80 * 2**30), "other processes hold the rest"),
        ("get_device_capability", lambda: (12, 0), "install a build for sm_120"),
        ("is_bf16_supported", lambda including_emulation: False, "generator.dtype=float32"),
    ],
)
def test_what_a_gpu_lacks_is_said(name, value, words, gpu):
    gpu(name, value)
    assert any(words in item.advice for item in doctor._gpu())


def test_a_cpu_build_beside_a_driver_is_said(gpu, monkeypatch):
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    gpu("is_available", lambda: False)
    assert [item.advice for item in doctor._gpu()] == ["install a CUDA build of torch"]
    monkeypatch.setattr(doctor, "driver_shows", lambda: False)
    assert doctor._gpu() == []


def test_access_to_the_hub_is_tried_where_something_is_missing(monkeypatch):
    from huggingface_hub import constants, errors

    said = lambda: {item.found: item.advice for item in doctor._hub(grid("paper", ["uuid"]))}
    assert said() == {"offline (HF_HUB_OFFLINE)": ""}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert "HF_HUB_OFFLINE=1" in said()["no answer from http://127.0.0.1:9"]
    monkeypatch.setattr(hub, "check_reachable", lambda place: None)
    monkeypatch.setattr("huggingface_hub.auth_check", lambda repo: None)
    assert any("Llama-3.2-1B-Instruct@" in found and "open to your token" in found for found in said())

    def closed(repo):
        raise errors.GatedRepoError.__new__(errors.GatedRepoError)

    monkeypatch.setattr("huggingface_hub.auth_check", closed)
    assert any("accept its licence" in advice for advice in said().values())
    assert [item.found for item in doctor._hub(grid("tiny", ["uuid"]))] == ["not needed"]


def test_assets_that_no_commit_pins_are_named():
    (found,) = doctor._pins(grid("paper", ["lambada_es"], ["embedding"]))
    assert "Tristan/lambada_openai_custom_splits/es; " in found.found and "Llama" not in found.found
    assert fetch.pin_advice("a/b", "c0ffee") == "is at commit c0ffee; a/b@c0ffee pins it"
    assert fetch.pin_advice("a/b@c0ffee", "c0ffee") == fetch.pin_advice("./folder", None) == ""
