"""Whole cells on a GPU, or on a pretended one (tests/conftest.py): every reward, every task, resuming, memory."""

from __future__ import annotations

import pytest
import torch

from harness.cell import run_cell
from harness.machine import devices
from harness.registry import REWARDS, TASKS
from harness.store.frames import load
from harness.store.record import CellStore
from harness.training import generation
from harness.training.grpo import GeneratorTrainer
from harness.training.inner import InnerTrainer
from tests.helpers.cells import cut_after, ignore, make_cell, settings_of_task
from tests.helpers.pretend_cuda import pretended

pytestmark = pytest.mark.cuda
REAL = torch.cuda.is_available()
PAIRS = [("lambada_es", reward) for reward in REWARDS.names()] + [
    (task, "adam_metagrad") for task in TASKS.names() if task not in ("lambada_de", "lambada_fr", "lambada_it")
]
"""Every reward, and a task of every family."""
SHORT = {"grpo__steps": 1, "generator__max_completion_tokens": 6}


def done(task, reward, settings, folder):
    record = run_cell(make_cell(task, reward, settings), folder, ignore)
    assert (record.status, record.reason) == ("done", "")
    return record


@pytest.fixture
def looked_at(monkeypatch):
    """Devices that generator and target were on, at each batch of rollouts and each inner training."""
    found = []
    sample, batch = generation.sample, InnerTrainer._batch
    monkeypatch.setattr(
        generation,
        "sample",
        lambda model, *given, **more: found.append(model.device.type) or sample(model, *given, **more),
    )
    monkeypatch.setattr(
        InnerTrainer, "_batch", lambda self, rows: found.append(self.model.device.type) or batch(self, rows)
    )
    return found


@pytest.mark.parametrize(("task", "reward"), sorted(set(PAIRS)))
def test_every_reward_and_task_runs_on_the_device(task, reward, quick, tmp_path, looked_at):
    record = done(task, reward, quick(**SHORT) | settings_of_task(task), tmp_path)
    assert set(looked_at) == {"cuda"} and len(looked_at) >= 4
    assert record.steps_done == 1 and record.headline is not None


WAYS = {
    "a bfloat16 generator, turn about, in microbatches": {
        "generator__dtype": "bfloat16",
        "generator__offload": "always",
        "grpo__updates_per_step": 2,
        "grpo__microbatch": 1,
    },
    "a prompt read for every rollout": {"grpo__shared_prompts": False, "generator__true_positions": True},
    "advantages by token": {"reward__options__credit": "token", "inner__warmup_steps": 1, "inner__microbatch": 1},
    "a bfloat16 target of several steps": {"target__dtype": "bfloat16", "inner__steps": 2},
    "a full device": {"inner__steps": 3, "inner__memory_budget": 400_000},
    "a divergence from the untuned model and an entropy bonus": {"grpo__kl": 0.1, "grpo__entropy_coef": 0.1},
    "separate training sets": {"inner__cross_group": False, "inner__steps": 2},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama"])
def test_every_way_of_training_runs_on_the_device(way, family, quick, tmp_path):
    done("uuid", "adam_metagrad", quick(family, **SHORT | WAYS[way]), tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_interrupted_cell_resumes_where_it_was(dtype, quick, tmp_path):
    settings = quick("llama", grpo__steps=3, grpo__checkpoint_every=1, generator__dtype=dtype)
    whole = done("uuid", "adam_metagrad", settings, tmp_path / "whole")
    with pytest.raises(BaseException, match="15"):
        run_cell(make_cell("uuid", "adam_metagrad", settings), tmp_path / "cut", cut_after(2))
    again = done("uuid", "adam_metagrad", settings, tmp_path / "cut")
    assert again.provenance["resumed"][0]["step"] >= 1
    texts = [CellStore.of(tmp_path / name, whole).samples() for name in ("whole", "cut")]
    assert [row["text"] for row in texts[0]] == [row["text"] for row in texts[1]]
    values = [
        load(tmp_path / name)[1].query("measure == 'reward_raw_mean'")["value"].tolist() for name in ("whole", "cut")
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-3)


def test_the_plan_on_the_device_at_hand_knows_what_a_launch_takes(monkeypatch):
    monkeypatch.setattr(devices, "launch_seconds", lambda: 5e-5)
    devices.measured_device.cache_clear()
    assert devices.measured_device().call == pytest.approx(45 * 5e-5)
    devices.measured_device.cache_clear()


def test_launches_are_timed_one_by_one():
    assert 0 < devices.launch_seconds() < 0.01


def test_a_device_without_room_is_a_row_with_advice(quick, tmp_path, monkeypatch):
    def sample(model, *given, **more):
        return torch.empty(2**50, device=model.device)

    monkeypatch.setattr(generation, "sample", sample)
    monkeypatch.setattr(generation, "write", lambda *given, **more: generation.Written(["a b"] * 4, ["stop"] * 4))
    record = run_cell(make_cell("uuid", "naive", quick(**SHORT)), tmp_path, ignore)
    assert record.status == "failed" and "out of memory while generating; set a lower grpo.prompts" in record.reason


def on_cpu(function):
    """The function with its first tensor left on the CPU."""

    def planted(*given, **more):
        found = function(*given, **more)
        if isinstance(found, dict):
            return found | {"labels": found["labels"].cpu()}
        return found.cpu()

    return planted


PLANTED = {
    "the streams of generation": (generation, "uniforms"),
    "labels of the inner training": (InnerTrainer, "_batch"),
    "advantages": (GeneratorTrainer, "_get_per_token_logps_and_entropies"),
}


@pytest.mark.parametrize("place", PLANTED)
def test_a_tensor_left_on_the_cpu_is_found(place, quick, tmp_path, monkeypatch):
    """Else the tests above would pass whatever the code does."""
    owner, name = PLANTED[place]
    whole = getattr(owner, name)
    if place == "advantages":
        planted = lambda *given, **more: (whole(*given, **more)[0].cpu(), None, None)
    else:
        planted = on_cpu(whole)
    monkeypatch.setattr(owner, name, planted)
    record = run_cell(make_cell("uuid", "adam_metagrad", quick("llama", **SHORT)), tmp_path, ignore)
    assert record.status == "failed" and "same device" in (tmp_path.rglob("error.txt").__next__()).read_text()


def test_a_pretended_device_refuses_what_a_device_refuses():
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    for refused in (
        lambda: here + there,
        lambda: there[None] @ here,
        lambda: here[there.long()],
        lambda: there.scatter_(0, here.long(), 1.0),
        lambda: torch.nn.functional.cross_entropy(there[None], here[:1].long()),
        lambda: torch.cat([here, there]),
    ):
        with pytest.raises(RuntimeError, match="device"):
            refused()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert (there * 2.0)[here.long()].is_cuda and (there + torch.tensor(1.0)).device.type == "cuda"
    leaf = here.clone().requires_grad_()
    (leaf.cuda() * there).sum().backward()
    assert leaf.grad.device.type == "cpu" and not here.is_cuda


@pytest.mark.skipif(REAL, reason="needs a machine without a GPU")
def test_what_somebody_catches_is_refused_all_the_same():
    with pretended() as pretence:
        with pytest.raises(RuntimeError):
            torch.ones(2) + torch.ones(2, device="cuda")
    assert len(pretence.refused) == 1 and "cuda:0 and cpu" in pretence.refused[0]
