"""Names that nothing answers to: options, tasks and rewards, given or in a profile."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from harness.contracts import HarnessError
from harness.settings.options import check_names, check_options
from harness.settings.profiles import load_profile, profile_from, profile_names


def own(settings=None, **layers):
    return profile_from({"name": "own", "summary": "", "settings": settings or {}} | layers)


def test_a_misspelled_option_is_answered_with_the_nearest(register):
    tiny = load_profile("tiny")
    with pytest.raises(HarnessError, match=r"None of the chosen tasks reads .*lamda.*task\.options\.lambda"):
        check_options(tiny, {"grpo.steps": 1, "task.options.lamda": 3}, ["67", "norm"], ["naive"])
    with pytest.raises(HarnessError, match="task.options.lamda"):
        check_options(tiny, {"task.options": {"lamda": 3}}, ["67"], ["naive"])
    with pytest.raises(HarnessError, match="reads the option 'reward.options.model'; they read no options"):
        check_options(tiny, {"reward.options.model": "x"}, ["67"], ["naive"])
    known = {"task.options": {"lambda": 3}, "task.options.pattern": "x", "reward.options.language_id": "x"}
    check_options(tiny, known, ["67", "norm"], ["naive", "fasttext"])
    register("undeclared", lambda context: None)
    check_options(tiny, {"reward.options.model": "x"}, ["67"], ["naive", "undeclared"])


@pytest.mark.parametrize("name", profile_names())
def test_a_built_in_profile_names_only_what_there_is(name):
    check_options(load_profile(name), {}, ["67"], ["naive"])


@pytest.mark.parametrize(
    ("settings", "layers", "why"),
    [
        (
            {"task": {"options": {"lamda": 3}}},
            {},
            r"None of the tasks that .*task\.options\.lamda'; .*task\.options\.lambda",
        ),
        ({"task.options.lamda": 3}, {}, r"task\.options\.lamda"),
        ({"inner_steps_at_least": {2: {"task.options.lamda": 3}}}, {}, r"task\.options\.lamda"),
        ({}, {"tasks": {"67, norm": {"task.options": {"lamda": 3}}}}, r"task\.options\.lamda"),
        (
            {},
            {"rewards": {"fasttext": {"reward.options.modle": "x"}}},
            r"None of the rewards that the .*options\.modle",
        ),
        ({}, {"rewards": {"fasttext": {"reward.options.embedding_model": "x"}}}, r"reward\.options\.embedding_model"),
        ({}, {"tasks": {"norm": {"task.options.pattern": "x"}}}, r"task\.options\.pattern"),
        ({}, {"pairs": {"norm": {"naive": {"task.options.pattern": "x"}}}}, r"task\.options\.pattern"),
        ({"task": {"options": {"lambda": 3}}}, {"tasks": {"67": {"task.options.pattern": "x"}}}, None),
        ({}, {"pairs": {"67": {"fasttext": {"reward.options.language_id": "x"}}}}, None),
    ],
)
def test_a_misspelled_option_of_a_profile_is_found_whatever_is_chosen(settings, layers, why):
    with pytest.raises(HarnessError, match=why) if why else nullcontext():
        check_options(own(settings, **layers), {}, ["norm"], ["naive"])


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ({"tasks": {"lambada_se": {}}}, "In tasks: there is no task named 'lambada_se'; did you mean lambada_es"),
        ({"tasks": {"[!lu]*": {}}}, "In tasks: there is no task named"),
        ({"tasks": {"qr, norn": {}}}, "'norn'; did you mean norm"),
        ({"rewards": {"naiv": {}}}, "In rewards: there is no reward named 'naiv'; did you mean naive"),
        ({"pairs": {"67s": {"naive": {}}}}, "In pairs: there is no task named '67s'"),
        ({"pairs": {"67": {"naiv": {}}}}, "In pairs: there is no reward named 'naiv'"),
    ],
)
def test_a_profile_that_names_what_is_not_there_is_refused(layers, why):
    with pytest.raises(HarnessError) as caught:
        check_options(own(**layers), {}, ["norm"], ["naive"])
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_package_registers_may_be_named(register):
    profile = own(rewards={"of_a_package": {"reward.options.anything": 3}})
    with pytest.raises(HarnessError, match="of_a_package"):
        check_names(profile)
    register("of_a_package", lambda context: None)
    check_options(profile, {}, ["norm"], ["of_a_package"])
