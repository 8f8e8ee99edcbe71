"""Names that nothing answers to: options, tasks and rewards, given or in a profile."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from harness.contracts import HarnessError
from harness.grid import cross_product
from harness.settings import variants
from harness.settings.options import check_names, check_options
from harness.settings.profiles import load_profile, parse_assignment, profile_from, profile_names, resolve
from harness.settings.variants import Several


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("grpo.lr=1e-4,3e-4", Several([1e-4, 3e-4])),
        ("grpo.lr=1e-4, 3e-4", Several([1e-4, 3e-4])),
        ("grpo.betas=[0.9,0.99]", [0.9, 0.99]),
        ("grpo.betas=[0.9,0.99],[0.8,0.99]", Several([[0.9, 0.99], [0.8, 0.99]])),
        ("grpo.lr=1e-4,1.0e-4", 1e-4),
        ("generator.model=./a,./b", Several(["./a", "./b"])),
        ("generator.prompt=Rephrase, please: <article>", "Rephrase, please: <article>"),
        ('generator.prompt="one,two"', "one,two"),
        ("grpo.lr_schedule=linear,cosine", Several(["linear", "cosine"])),
        ("inner.microbatch=null,4", Several([None, 4])),
        ("generator.template_values={a: 1, b: 2}", {"a": 1, "b": 2}),
    ],
)
def test_several_values_are_variants_and_a_list_is_one_value(text, value):
    found = parse_assignment(text)[1]
    assert found == value and isinstance(found, Several) == isinstance(value, Several)


def test_every_combination_is_a_variant_named_by_what_differs():
    given = {"grpo.lr": Several([1e-4, 3e-4]), "inner.optimizer.lr": Several([1e-5, 0.5]), "grpo.steps": 2}
    cells = cross_product(load_profile("tiny"), ["norm"], ["naive"], [0, 1], given)
    assert len(cells) == 8 and len({cell.record().identity for cell in cells}) == 8
    assert cells[0].name == "norm/naive lr 1e-4, optimizer.lr 1e-5 seed 0"
    assert cells[0].given == {"grpo.lr": 1e-4, "inner.optimizer.lr": 1e-5, "grpo.steps": 2}
    with pytest.raises(HarnessError, match="only `run` compares several"):
        resolve(load_profile("tiny"), "norm", "naive", given)


def test_stored_settings_are_named_by_what_changes_numbers():
    stored = resolve(load_profile("tiny"), "norm", "naive").model_dump(mode="json")
    views = {}
    for key, lr, every in (("a", 1e-4, 2), ("b", 3e-4, 8)):
        settings = {**stored, "grpo": {**stored["grpo"], "lr": lr, "checkpoint_every": every}}
        views[key] = variants.dotted(settings)
    assert variants.names(views) == {"a": "lr 1e-4", "b": "lr 3e-4"}
    assert variants.names({"a": views["a"]}) == {"a": ""}
    same = variants.names({"a": views["a"], "b": views["a"]})
    assert same == {"a": "settings a", "b": "settings b"}, "an asset's content may differ alone"
    old = {**stored, "retired": {"knob": 3}}
    assert variants.dotted(old)["retired"] == {"knob": 3}
    del old["grpo"]["lr_schedule"]
    assert variants.dotted(old)["grpo.lr_schedule"] == "constant", "what was not stored has its default"
