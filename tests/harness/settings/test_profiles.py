"""Profiles and settings: every built-in profile resolves for every pair; bad input is one sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contracts import HarnessError
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import known_keys, load_profile, parse_assignment, profile_names, resolve


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("task", TASKS.names())
@pytest.mark.parametrize("reward", REWARDS.names())
def test_every_profile_resolves_for_every_pair(profile, task, reward):
    settings = resolve(load_profile(profile), task, reward)
    if reward == "sgd_metagrad":
        assert settings.inner.optimizer.name == "sgd"
    if reward == "adam_metagrad":
        assert settings.inner.optimizer.name in ("adam", "adamw")


def test_set_wins_over_overrides():
    settings = resolve(load_profile("tiny"), "lambada_es", "sgd_metagrad", {"inner.optimizer.lr": 0.5})
    assert settings.inner.optimizer.lr == 0.5
    assert settings.inner.optimizer.name == "sgd"


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("grpo.stepz=3", "grpo.steps"),
        ("grpo.steps=many", "valid integer"),
        ("grpo.steps=0", "greater than or equal to 1"),
        ("grpo.rollouts_per_prompt=1", "greater than or equal to 2"),
        ("grpo.updates_per_step=7", "cannot be split into 7 updates"),
        ("inner.optimizer.name=adamm", "adamw"),
        ("generator.prompt=hello", "<article>"),
        ("grpo.lr=-1", "greater than 0"),
        ("grpo=3", "no setting named"),
        ("novalue", "KEY=VALUE"),
    ],
)
def test_bad_settings_are_one_sentence(assignment, words):
    with pytest.raises(HarnessError) as caught:
        resolve(load_profile("tiny"), "lambada_es", "naive", dict([parse_assignment(assignment)]))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_profile_names_the_nearest():
    with pytest.raises(HarnessError, match="did you mean tiny"):
        load_profile("tiney")


@pytest.mark.parametrize("content", ["", "- a", "name: x\nsummary: y\nsettings: {}\nnope: 1", "a: [", "\x00"])
def test_broken_profile_files_are_refused(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(HarnessError):
        resolve(load_profile(str(path)), "lambada_es", "naive")


@given(
    st.text(max_size=40),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=10), st.lists(st.integers())),
)
def test_any_assignment_resolves_or_is_a_harness_error(key, value):
    try:
        resolve(load_profile("tiny"), "lambada_es", "naive", {key: value})
    except HarnessError as error:
        assert str(error)


@given(st.sampled_from(known_keys()), st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=10)))
def test_any_value_of_a_known_key_resolves_or_is_a_harness_error(key, value):
    try:
        resolve(load_profile("tiny"), "lambada_es", "naive", {key: value})
    except HarnessError as error:
        assert str(error)


@pytest.mark.parametrize(("microbatch", "size"), [(None, 12), (5, 4), (12, 12), (100, 12), (1, 1)])
def test_backward_passes_divide_an_update(microbatch, size):
    given = {"grpo.prompts_per_step": 6, "grpo.rollouts_per_prompt": 4, "grpo.updates_per_step": 2}
    settings = resolve(load_profile("tiny"), "lambada_es", "naive", given | {"grpo.microbatch": microbatch})
    assert settings.grpo.backward_size() == size


def test_numbers_in_scientific_notation_are_numbers():
    assert parse_assignment("inner.optimizer.lr=1e-5") == ("inner.optimizer.lr", 1e-5)


def test_a_rate_set_by_hand_stands_against_a_total_rate():
    tiny = load_profile("tiny")
    assert resolve(tiny, "67", "adam_metagrad").inner.optimizer.total_lr == 0.1
    by_hand = resolve(tiny, "67", "adam_metagrad", {"inner.optimizer.lr": 0.02}).inner.optimizer
    assert (by_hand.lr, by_hand.total_lr) == (0.02, None)
    both = {"inner.optimizer.lr": 0.02, "inner.optimizer.total_lr": 0.3}
    assert resolve(tiny, "67", "adam_metagrad", both).inner.optimizer.total_lr == 0.3


def test_an_override_can_wait_for_a_long_training():
    """The rate that 67 is drawn at by one step of SGD makes a training of many diverge; what is given still wins."""
    tiny = load_profile("tiny")

    def rate(changes, reward="sgd_metagrad"):
        return resolve(tiny, "67", reward, changes).inner.optimizer.total_lr

    assert rate({}) == rate({"inner.steps": 1, "validation.inner_steps": 1}) == 100.0
    assert rate({"inner.steps": 8}) == rate({"validation.inner_steps": 96}) == 10.0
    assert rate({"inner.steps": 8, "inner.optimizer.total_lr": 30.0}) == 30.0
    assert rate({"inner.steps": 8}, "adam_metagrad") == rate({}, "adam_metagrad")


def test_an_override_waits_for_so_many_inner_steps_and_no_fewer(tmp_path):
    path = tmp_path / "own.yaml"
    base = {"name": "own", "summary": "", "settings": load_profile("tiny").settings}
    override = {"when": {"inner_steps": 9}, "set": {"grpo.steps": 3}}
    path.write_text(json.dumps(base | {"overrides": [override]}))
    steps = [resolve(load_profile(str(path)), "norm", "naive", {"inner.steps": t}).grpo.steps for t in (1, 8, 9, 96)]
    assert steps == [9, 9, 3, 3]
    path.write_text(json.dumps(base | {"overrides": [override | {"when": {"inner_steps": 0}}]}))
    with pytest.raises(HarnessError, match="inner_steps"):
        load_profile(str(path))
