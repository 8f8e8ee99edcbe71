"""Profiles and settings: every built-in profile resolves for every pair; bad input is one sentence."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path, PurePath

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from harness.contracts import HarnessError
from harness.registry import REWARDS, TASKS
from harness.settings.options import check_names
from harness.settings.profiles import (
    load_profile,
    origins,
    parse_assignment,
    profile_from,
    profile_names,
    resolve,
)
from harness.settings.schema import Settings, known_keys
from harness.store.record import identity

START = "name: x\nsummary: y\nsettings: {}\n"
BUILT_IN = resources.files("harness") / "profiles"


def own(**parts):
    """A profile that starts from tiny's base, nested as a reader would write it."""
    settings = yaml.safe_load((BUILT_IN / "tiny" / "base.yaml").read_text())["settings"]
    return profile_from({"name": "own", "summary": "", "settings": settings | parts.pop("settings", {})} | parts)


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("task", TASKS.names())
@pytest.mark.parametrize("reward", REWARDS.names())
def test_every_profile_resolves_for_every_pair(profile, task, reward):
    settings = resolve(load_profile(profile), task, reward)
    if reward == "sgd_metagrad":
        assert settings.inner.optimizer.name == "sgd"
    if reward == "adam_metagrad":
        assert settings.inner.optimizer.name in ("adam", "adamw")


def test_set_wins_over_the_profile():
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must be a mapping with some of the keys name, summary, extends, settings, tuning, tuned, tasks"),
        ("- a", "must be a mapping"),
        ("a: [", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("summary: y\nsettings: {}", "has no name"),
        ("name: 3\nsummary: y\nsettings: {}", "has no name"),
        ("name: x\nsettings: {}", "has no summary"),
        ("name: x\nsummary: y", "has no settings"),
        (
            START,
            "The profile x lacks generator.model, generator.prompt, target.model, data.articles, grpo.steps, grpo.prom",
        ),
        ("tasks: {}", "has no name and no summary and no settings; give it what is missing"),
        (START + "extends: 3", "mine.yaml extends '3'; name one profile, or a path of one."),
        (START + "extends: [tiny]", "extends '['tiny']'; name one"),
        (START + "extends: tinny", "extends it: There is no profile named"),
        (START + "extends: mine.yaml", "extends itself (mine.yaml -> mine.yaml); take one `extends` out."),
        (START + "extends: gone.yaml", "gone.yaml cannot be read"),
        (
            START + "nope: 1",
            "holds 'nope', but takes only name, summary, extends, settings, tuning, tuned, tasks, rewards, pairs.",
        ),
        (START + "overrides: []", "holds 'overrides', but takes only"),
        (START + "tasks: [norm]", "In mine.yaml, tasks: there must be a mapping, not '['norm']'."),
        (START + "tasks: {norm: 3}", "In mine.yaml, tasks, norm: there must be a mapping, not '3'."),
        (START + "tasks: {'norm,': {}}", "In mine.yaml, tasks: the entry 'norm,' has an empty name."),
        (START + "tasks: {norm: {grpo.stepz: 3}}", "In mine.yaml, tasks, norm: there is no setting named 'grpo.stepz'"),
        (START + "tasks: {norm: {grpo: 3}}", "In mine.yaml, tasks, norm: there is no setting named 'grpo'"),
        (START + "pairs: {norm: {naive: {grpo: {stepz: 3}}}}", "pairs, norm, naive: there is no setting named 'grpo.s"),
        (START + "pairs: {norm: {grpo.steps: 3}}", "pairs, norm, grpo.steps: there must be a mapping, not '3'."),
        (START + "tasks:\n  norm: {}\n  qr: {}\n  norm: {}", "'norm' stands twice (line 7)"),
        (START + "tasks: {norm: {grpo.steps: 3, grpo: {steps: 3}}}", "tasks, norm: grpo.steps is set twice"),
        (START + "tasks: {'qr, norm': {grpo.steps: 3}, norm: {grpo.steps: 4}}", "tasks, norm: grpo.steps is set twice"),
        (START + "pairs: {'67, qr': {naive: {grpo.kl: 1}}, qr: {naive: {grpo.kl: 1}}}", "qr, naive: grpo.kl is set tw"),
        (START + "tasks: {norm: {inner_steps_at_least: 2}}", "inner_steps_at_least: there must be a mapping"),
        (START + "tasks: {norm: {inner_steps_at_least: {2: 3}}}", "inner_steps_at_least, 2: there must be a mapping"),
        (START + "tasks: {norm: {inner_steps_at_least: {1: {}}}}", "takes whole numbers from 2 on, not '1'"),
        (START + "tasks: {norm: {inner_steps_at_least: {2.5: {}}}}", "takes whole numbers from 2 on, not '2.5'"),
        (START + "tasks: {norm: {inner_steps_at_least: {yes: {}}}}", "takes whole numbers from 2 on, not 'True'"),
    ],
)
def test_broken_profile_files_are_refused_in_a_sentence(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(HarnessError) as caught:
        resolve(load_profile(str(path)), "norm", "naive")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_a_setting_can_wait_for_a_long_training():
    """The rate that 67 is drawn at by one step of SGD makes a training of many diverge; what is given still wins."""
    tiny = load_profile("tiny")

    def rate(changes, reward="sgd_metagrad"):
        return resolve(tiny, "67", reward, changes).inner.optimizer.total_lr

    assert rate({}) == rate({"inner.steps": 1, "validation.inner_steps": 1}) == 100.0
    assert rate({"inner.steps": 8}) == rate({"validation.inner_steps": 96}) == 10.0
    assert rate({"inner.steps": 8, "inner.optimizer.total_lr": 30.0}) == 30.0
    assert rate({"inner.steps": 8}, "adam_metagrad") == rate({}, "adam_metagrad")


@pytest.mark.parametrize("layer", ["settings", "tasks", "rewards", "pairs"])
def test_a_setting_waits_for_so_many_inner_steps_and_no_fewer(layer):
    waiting = {"inner_steps_at_least": {90: {"grpo.steps": 4}, 9: {"grpo.steps": 3}}}
    entry = {"tasks": {"norm": waiting}, "rewards": {"naive": waiting}, "pairs": {"norm": {"naive": waiting}}}
    profile = own(**{layer: entry.get(layer, waiting)})
    assert [resolve(profile, "norm", "naive", {"inner.steps": t}).grpo.steps for t in (1, 8, 9, 96)] == [9, 9, 3, 4]
    assert profile == own(**json.loads(json.dumps({layer: entry.get(layer, waiting)})))  # as JSON has it


def test_what_waits_goes_over_its_own_layer_and_under_later_ones():
    waiting = {"grpo.steps": 2, "grpo.kl": 0.2, "inner_steps_at_least": {2: {"grpo.steps": 3, "grpo.kl": 0.3}}}
    profile = own(tasks={"norm": waiting}, rewards={"naive": {"grpo.kl": 0.4}})
    grpo = resolve(profile, "norm", "naive", {"inner.steps": 2}).grpo
    assert (grpo.steps, grpo.kl) == (3, 0.4)


def test_what_waits_may_change_the_steps_but_does_not_decide_about_itself():
    """Read without it there is one step: nothing that waits for two applies, whatever it would make of that."""
    longer = {"inner_steps_at_least": {2: {"inner.steps": 8}, 8: {"grpo.steps": 3}}}
    one, two = (resolve(own(settings=longer), "norm", "naive", {"validation.inner_steps": t}) for t in (1, 2))
    assert (one.inner.steps, two.inner.steps) == (1, 8)
    assert one.grpo.steps == two.grpo.steps == 9  # that two made it eight comes too late for what waits for eight


def told(call, *arguments):
    """What the HarnessError of this call says."""
    with pytest.raises(HarnessError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_fault_of_a_profile_is_told(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "nope: 1\nsettings: {grpo.stepz: 3, grpo.klm: 1}\ntasks: {norm: 3, qr: {grpo.steps: 1, grpo: {steps: 2}}}\n"
        "rewards: {naive: {inner_steps_at_least: {1: {}}}}\nextends: tinny\n"
    )
    said = told(load_profile, str(path))
    words = (
        "'nope'",
        "'grpo.stepz'",
        "'grpo.klm'",
        "norm: there must be",
        "steps is set twice",
        "not '1'",
        "mean tiny",
    )
    assert [word for word in words if word not in said] == [] and "more" not in said


def test_every_wrong_or_missing_value_is_told():
    given = {"grpo.steps": "many", "grpo.lr": -1, "generator.prompt": "hello", "inner.optimizer.name": "adamm"}
    said = told(resolve, load_profile("tiny"), "norm", "naive", given)
    assert said.count("Bad setting ") == 4 and [key for key in given if key not in said] == ["generator.prompt"]
    assert "the prompt must contain <article>" in said
    said = told(resolve, load_profile("tiny"), "norm", "naive", {"grpo.stepz": 1, "grpo.klm": 2})
    assert "'grpo.stepz'" in said and "'grpo.klm'" in said
    lacking = profile_from({"name": "x", "summary": "", "settings": {"grpo": {"steps": 0}, "generator.model": "m"}})
    said = told(resolve, lacking, "norm", "naive")
    assert "lacks generator.prompt, target.model, data.articles, grpo.prompts_per_step, grpo.lr, inner.opt" in said
    assert "`extends: tiny`" in said and "Bad setting grpo.steps: Input should be greater" in said


# ------------------------------------------------------------------------------------------------------------- extends


def written(folder, **files):
    """Writes `name.yaml` for each and returns the path of the last one."""
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content)
    return str(folder / f"{name}.yaml")


def test_a_profile_that_extends_another_holds_only_what_it_changes(tmp_path):
    """What it says goes over all of the other, in whichever layer either says it."""
    mine = load_profile(
        written(tmp_path, mine="extends: tiny\nsettings: {grpo: {steps: 5}}\ntasks: {norm: {grpo.kl: 1}}\n")
    )
    assert (mine.name, mine.summary) == ("mine", "tiny, changed")
    for task in TASKS.names():
        for reward in REWARDS.names():
            own = {"grpo.steps": 5} | ({"grpo.kl": 1} if task == "norm" else {})
            assert resolve(mine, task, reward) == resolve(load_profile("tiny"), task, reward, own)
    found = origins(mine, "uuid", "naive")
    assert str(found["grpo.steps"]) == "mine.yaml, settings" and str(found["grpo.lr"]) == "tiny/tasks.yaml"


def test_profiles_extend_each_other_by_name_and_by_path(tmp_path):
    (tmp_path / "base").mkdir()
    written(tmp_path / "base", base="extends: ../first.yaml\nsummary: second\nsettings: {grpo.kl: 2, grpo.lr: 0.2}\n")
    written(tmp_path, first="name: one\nextends: tiny\nsettings: {grpo.steps: 1, grpo.kl: 1, grpo.lr: 0.1}\n")
    last = load_profile(written(tmp_path, last="extends: base\nrewards: {naive: {grpo.lr: 0.3}}\n"))
    assert [each.name for each in last.chain()] == ["tiny", "one", "base", "last"]
    for reward, lr in (("naive", 0.3), ("fasttext", 0.2)):
        grpo = resolve(last, "uuid", reward).grpo
        assert (grpo.steps, grpo.kl, grpo.lr) == (1, 2, lr)


def test_an_own_learning_rate_stands_against_the_total_rate_of_what_is_extended(tmp_path):
    mine = load_profile(written(tmp_path, mine="extends: tiny\nsettings: {inner.optimizer.lr: 0.02}\n"))
    optimizer = resolve(mine, "67", "sgd_metagrad").inner.optimizer
    assert (optimizer.lr, optimizer.total_lr) == (0.02, None)


def test_profiles_that_extend_each_other_in_a_circle_are_refused(tmp_path):
    path = written(tmp_path, a="extends: b.yaml\n", b="extends: ./c.yaml\n", c="extends: a.yaml\n")
    assert "extends itself (c.yaml -> a.yaml -> b.yaml -> c.yaml); take one `extends` out." in told(load_profile, path)


def test_names_are_looked_for_in_what_is_extended_too(tmp_path):
    path = written(tmp_path, a="extends: tiny\ntasks: {norn: {grpo.steps: 1}}\n", b="extends: a.yaml\n")
    assert "In a.yaml, tasks: there is no task named 'norn'" in told(check_names, load_profile(path))


# -------------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("last", ["settings", "tasks", "rewards", "pairs", "--set"])
def test_the_later_layer_wins(last):
    layers = ["settings", "tasks", "rewards", "pairs", "--set"]
    kl = {layer: (n + 1) / 10 for n, layer in enumerate(layers[: layers.index(last) + 1])}
    given = {"grpo.kl": kl.pop("--set")} if last == "--set" else {}
    values = {layer: {"grpo.kl": value} for layer, value in kl.items()}
    within = {
        "settings": lambda v: v,
        "tasks": lambda v: {"norm": v},
        "rewards": lambda v: {"naive": v},
        "pairs": lambda v: {"norm": {"naive": v}},
    }
    # Written down in the other direction: the order in the file means nothing.
    profile = own(**{layer: within[layer](values[layer]) for layer in reversed(values)})
    assert resolve(profile, "norm", "naive", given).grpo.kl == (layers.index(last) + 1) / 10
    assert resolve(profile, "qr", "fasttext").grpo.kl == kl["settings"]


def test_names_may_share_an_entry_and_have_one_of_their_own():
    profile = own(
        tasks={"qr, norm": {"grpo": {"kl": 0.5}}, "norm": {"grpo.steps": 3}, 67: {"grpo.kl": 0.6}},
        pairs={"qr,67": {"naive, fasttext": {"grpo.steps": 4}}, "qr": {"naive": {"grpo.lr": 1.0}}},
    )
    found = {task: resolve(profile, task, "naive").grpo for task in ("qr", "norm", "67", "uuid")}
    assert [(each.kl, each.steps) for each in found.values()] == [(0.5, 4), (0.5, 3), (0.6, 4), (0.0, 9)]
    assert [resolve(profile, "qr", reward).grpo.lr for reward in ("naive", "fasttext")] == [1.0, 3e-4]


def test_options_of_layers_come_together_and_other_values_are_replaced():
    profile = own(
        settings={"task": {"options": {"a": 1, "b": {"c": 1}}}, "grpo.betas": [0.1, 0.2]},
        tasks={"norm": {"task": {"options": {"b": 2}}, "task.options.d": 3, "grpo.betas": [0.3, 0.4]}},
    )
    settings = resolve(profile, "norm", "naive")
    assert settings.task.options == {"a": 1, "b": 2, "d": 3} and settings.grpo.betas == (0.3, 0.4)


def test_resolving_leaves_profile_and_assignments_as_they_are():
    profile = own(settings={"task.options": {"a": {"b": 1}}}, tasks={"norm": {"task.options.a.c": 2}})
    given = {"reward.options": {"x": {"y": 1}}, "reward.options.x.z": 2}
    first = resolve(profile, "norm", "naive", given)
    assert first.task.options == {"a": {"b": 1, "c": 2}} and first.reward.options == {"x": {"y": 1, "z": 2}}
    assert resolve(profile, "qr", "naive").task.options == {"a": {"b": 1}}
    assert given["reward.options"] == {"x": {"y": 1}}


@pytest.mark.parametrize("profile", profile_names())
def test_a_task_of_another_package_gets_the_base_alone(profile):
    loaded = load_profile(profile)
    for task in ("a_task_of_mine", "lambada_pl", "6", "qrs", "*", ""):
        assert resolve(loaded, task, "") == resolve(loaded, "", "")
        places = {origin.layer for origin in origins(loaded, task, "").values()}
        assert places == {"default", "base"}


# --------------------------------------------------------------------------------------------------- files and folders


@pytest.mark.parametrize("profile", ["tiny", "small", "paper"])
def test_built_in_profiles_are_folders_of_four_files_that_come_with_the_package(profile):
    files = {item.name: item.read_text(encoding="utf-8") for item in (BUILT_IN / profile).iterdir()}
    assert sorted(files) == ["base.yaml", "pairs.yaml", "rewards.yaml", "tasks.yaml"]
    for name, part in zip(["base", "tasks", "rewards", "pairs"], range(1, 5), strict=True):
        assert files[f"{name}.yaml"].startswith(f"# {part} of 4: ")
    assert yaml.safe_load(files["base.yaml"])["name"] == profile
    project = tomllib.loads((Path(str(BUILT_IN)).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["harness"]
    assert all(any(PurePath("profiles", profile, name).match(pattern) for pattern in patterns) for name in files)


@pytest.mark.parametrize("name", profile_names())
def test_the_files_of_a_folder_one_after_the_other_are_the_same_profile(name, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("".join(item.read_text() for item in (BUILT_IN / name).iterdir()))
    one, four = load_profile(str(path)), load_profile(name)
    assert replace(one, places={}) == replace(four, places={})


def test_a_folder_of_my_own(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(str(BUILT_IN / "tiny"), folder)
    (folder / "tasks.yaml").write_text("tasks:\n  norm:\n  # grpo.steps: 4\n")
    for name in ("rewards.yaml", "pairs.yaml"):
        (folder / name).unlink()
    assert resolve(load_profile(str(folder)), "norm", "sgd_metagrad") == resolve(load_profile("tiny"), "", "")
    assert str(origins(load_profile(f"{folder}/"), "norm", "")["grpo.steps"]) == "mine/base.yaml"
    (folder / "tasks.yaml").write_text("rewards: {}")
    with pytest.raises(HarnessError, match=r"mine/tasks\.yaml holds 'rewards', but takes only tasks\."):
        load_profile(str(folder))
    (folder / "tasks.yaml").rename(folder / "task.yaml")
    with pytest.raises(HarnessError, match=r"holds the file task\.yaml, but takes only base\.yaml, tasks\.yaml, "):
        load_profile(str(folder))
    (folder / "base.yaml").unlink()
    with pytest.raises(HarnessError, match=r"without a file base\.yaml; add one with name, summary, extends, settings"):
        load_profile(str(folder))


@pytest.mark.parametrize("name", ["no/such/file.yaml", "no/such/folder", "x" * 5000, "a\x00b", ""])
def test_a_profile_that_is_not_there_is_one_sentence(name):
    with pytest.raises(HarnessError):
        load_profile(name)


def test_the_built_in_settings_are_pinned():
    """Over identities, which fields that came later leave as they are. A changed value orphans stored results of the
    cells it concerns: say in the commit which ones."""
    tasks = ["67", "lambada_de", "lambada_es", "lambada_fr", "lambada_it", "norm", "qr", "uuid"]
    rewards = ["adam_metagrad", "embedding", "fasttext", "levenshtein", "naive", "sgd_metagrad"]
    found = [
        identity(task, reward, 0, resolve(profile, task, reward, given), {})
        for profile in map(load_profile, ["paper", "small", "tiny"])
        for task in tasks
        for reward in rewards
        for given in ({}, {"inner.steps": 1}, {"inner.steps": 8}, {"inner.steps": 96})
    ]
    assert hashlib.sha256(" ".join(found).encode()).hexdigest()[:16] == "63dc8413c2bb7b88"


# ------------------------------------------------------------------------------------------------------------- ranges


def numbers_of(schema: dict, definitions: dict, key: str = "") -> Iterator[tuple[str, dict, list[int]]]:
    """(dotted key, the schema of a number in its value, where in the value it stands) of every setting."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    for name, part in schema.get("properties", {}).items():
        yield from numbers_of(part, definitions, f"{key}.{name}" if key else name)
    for part in schema.get("anyOf", []):
        yield from numbers_of(part, definitions, key)
    for place, part in enumerate(schema.get("prefixItems", [])):
        yield from ((name, one, [place, *rest]) for name, one, rest in numbers_of(part, definitions, key))
    if isinstance(schema.get("items"), dict):
        yield from numbers_of(schema["items"], definitions, key)
    if schema.get("type") in ("integer", "number"):
        yield key, schema, []


SCHEMA = Settings.model_json_schema()
NUMBERS = list(numbers_of(SCHEMA, SCHEMA["$defs"]))


def test_every_number_is_found_in_the_schema():
    """Else the next test would pass whatever the ranges."""

    def typed(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
        for name, info in model.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                yield from typed(info.annotation, f"{prefix}{name}.")
            elif re.search(r"\b(int|float)\b", str(info.annotation)):
                yield f"{prefix}{name}"

    assert {key for key, _, _ in NUMBERS} == set(typed(Settings)) and len(NUMBERS) > 30


@pytest.mark.parametrize(("key", "schema", "place"), NUMBERS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_number_has_a_range_and_what_lies_outside_is_refused(key, schema, place):
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    assert low is not None and high is not None, f"{key} has no range"
    step = 1 if schema["type"] == "integer" else 1e-3
    outside = [low - step, high + step * max(1, abs(high)), -5, 10**30]
    outside += [schema[name] for name in ("exclusiveMinimum", "exclusiveMaximum") if name in schema]
    for value in outside:
        given = [0.5, 0.5] if place else value
        if place:
            given[place[0]] = value
        with pytest.raises(HarnessError, match="Bad setting"):
            resolve(load_profile("tiny"), "norm", "naive", {key: given})
