"""Where each value comes from, against a second, plain reading of the YAML files."""

from __future__ import annotations

from importlib import resources

import pytest
import yaml

from harness.registry import REWARDS, TASKS
from harness.settings.profiles import Origin, load_profile, origins, profile_from, profile_names, resolve
from harness.settings.schema import OPTIONS, Settings, known_keys

LAYERS = {"base": "base.yaml", "task": "tasks.yaml", "reward": "rewards.yaml", "pair": "pairs.yaml"}


def value(settings: Settings, key: str):
    found = settings.model_dump()
    for part in key.split("."):
        found = found[part]
    return found


@pytest.fixture(scope="module", params=profile_names())
def both(request):
    """A built-in profile as it is loaded, and the plain contents of its files."""
    folder = resources.files("harness") / "profiles" / request.param
    return load_profile(request.param), [yaml.safe_load((folder / name).read_text()) for name in LAYERS.values()]


def plain_layers(files: list[dict], task: str, reward: str) -> dict[str, dict]:
    """Layer -> dotted key -> value, without what waits for long trainings."""
    base, tasks, rewards, pairs = files

    def entries(layer, name):
        return [entry for names, entry in layer.items() if name in str(names).split(", ")]

    def together(found):
        return {key: value for entry in found for key, value in entry.items() if key != "inner_steps_at_least"}

    def flat(tree, prefix=""):
        for name, each in tree.items():
            deeper = isinstance(each, dict) and f"{prefix}{name}" not in known_keys()
            yield from flat(each, f"{prefix}{name}.") if deeper else [(f"{prefix}{name}", each)]

    return {
        "base": dict(flat(base["settings"])),
        "task": together(entries(tasks["tasks"], task)),
        "reward": together(entries(rewards["rewards"], reward)),
        "pair": together(entry for of_task in entries(pairs["pairs"], task) for entry in entries(of_task, reward)),
    }


@pytest.mark.parametrize("task", [*TASKS.names(), "another"])
@pytest.mark.parametrize("reward", [*REWARDS.names(), "another"])
def test_each_value_is_the_one_of_its_origin(both, task, reward):
    loaded, files = both
    layers = plain_layers(files, task, reward)
    given = {"inner.steps": 1, "validation.inner_steps": 1, "grpo.kl": 0.25}
    settings, found = resolve(loaded, task, reward, given), origins(loaded, task, reward, given)
    options = {key for layer in layers.values() for key in layer if key.startswith(OPTIONS)}
    assert set(found) == set(known_keys()) - set(OPTIONS) | options
    for key, origin in found.items():
        naming = [layer for layer in LAYERS if key in layers[layer]]
        if key in given:
            assert origin == Origin("--set") and value(settings, key) == given[key]
        elif not naming:
            assert origin == Origin("default")
        else:
            assert origin == Origin(naming[-1], f"{loaded.name}/{LAYERS[naming[-1]]}")
            told, said = value(settings, key), layers[naming[-1]][key]
            assert told == (tuple(said) if isinstance(told, tuple) else said)


def test_a_default_is_the_schemas():
    bare = {
        "generator.model": "m",
        "generator.prompt": "<article>",
        "target.model": "m",
        "data.articles": "a",
        "grpo": {"prompts_per_step": 2, "lr": 1.0, "steps": 3},
        "inner.optimizer.lr": 1.0,
    }
    profile = profile_from({"name": "x", "summary": "", "settings": bare})
    settings, found = resolve(profile, "t", "r"), origins(profile, "t", "r")
    for key, origin in found.items():
        section = settings
        *path, last = key.split(".")
        for part in path:
            section = getattr(section, part)
        field = type(section).model_fields[last]
        assert origin.layer == ("base" if field.is_required() else "default"), key
        assert field.is_required() or getattr(section, last) == field.get_default(call_default_factory=True), key


def test_what_waits_for_long_trainings_says_so():
    tiny = load_profile("tiny")
    short = origins(tiny, "67", "sgd_metagrad")["inner.optimizer.total_lr"]
    long = origins(tiny, "67", "sgd_metagrad", {"validation.inner_steps": 96})["inner.optimizer.total_lr"]
    assert (short, str(short)) == (Origin("pair", "tiny/pairs.yaml"), "tiny/pairs.yaml")
    assert (long, str(long)) == (Origin("pair", "tiny/pairs.yaml", 2), "tiny/pairs.yaml, inner steps >= 2")


def test_set_and_what_it_implies():
    found = origins(load_profile("tiny"), "67", "sgd_metagrad", {"inner.optimizer.lr": 0.5})
    assert {key for key, origin in found.items() if origin.layer == "--set"} == {
        "inner.optimizer.lr",
        "inner.optimizer.total_lr",  # would make the rate meaningless
    }


def test_options_that_are_set_as_a_whole_replace_the_profiles():
    tiny = load_profile("tiny")
    assert str(origins(tiny, "67", "")["task.options.first_token"]) == "tiny/tasks.yaml"
    found = origins(tiny, "67", "", {"task.options": {"lambda": 3}})
    assert {key: str(each) for key, each in found.items() if key.startswith(OPTIONS)} == {
        "task.options.lambda": "--set"
    }


def test_a_file_of_my_own_names_the_key_in_it(tmp_path):
    path = tmp_path / "mine.yaml"
    files = (resources.files("harness") / "profiles" / "tiny").iterdir()
    path.write_text("".join(item.read_text() for item in files))
    found = origins(load_profile(str(path)), "67", "sgd_metagrad")
    keys = ["generator.model", "grpo.steps", "inner.optimizer.name", "inner.optimizer.total_lr", "grpo.kl"]
    assert [str(found[key]) for key in keys] == [
        "mine.yaml, settings",
        "mine.yaml, tasks",
        "mine.yaml, rewards",
        "mine.yaml, pairs",
        "default",
    ]
