"""The command `list`: what it prints, at the widths of a terminal and of a log file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.cli import app
from harness.cli.listing import settings_table
from harness.contracts import HarnessError
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import load_profile, origins, profile_names


def shown(width: int, profile: str, task: str, reward: str, given: dict) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(settings_table(load_profile(profile), task, reward, given))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize(
    ("task", "reward"), [("", ""), ("67", "sgd_metagrad"), ("uuid", "adam_metagrad"), ("lambada_es", "fasttext")]
)
def test_every_setting_and_its_source_fit_the_width(width, profile, task, reward):
    given = {"inner.steps": 8, "grpo.kl": 0.1}
    lines = shown(width, profile, task, reward, given)
    assert max(map(len, lines)) <= width
    for key, origin in origins(load_profile(profile), task, reward, given).items():
        (line,) = [line for line in lines if line.split()[:1] == [key]]
        first = str(origin) if width == 120 else str(origin).split(",")[0]
        assert line.rstrip(" ,").endswith(f" {first}")


def test_values_and_what_is_not_set():
    text = "\n".join(shown(120, "tiny", "67", "sgd_metagrad", {"task.options.pattern": "[x].npy"}))
    for key, words in {
        "generator.prompt": r"Rephrase this article:\n<article>  tiny/base.yaml",
        "task.options.first_token": "64  tiny/tasks.yaml",
        "task.options.pattern": "[x].npy  --set",
        "task.options.lambda": "how sharply the metric asks for a sign (20)  not set",
        "inner.optimizer.total_lr": "100.0  tiny/pairs.yaml",
        "inner.optimizer.momentum": "0.0  default",
    }.items():
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [key]]
        assert " ".join([key, words]).split() == line.split()


def test_options_given_as_a_whole():
    lines = [line.split() for line in shown(120, "tiny", "67", "", {"task.options": {"lambda": 3}})]
    assert ["task.options.lambda", "3", "--set"] in lines
    assert [line[-2:] for line in lines if line[:1] == ["task.options.first_token"]] == [["not", "set"]]


def test_names_of_options_may_hold_dots():
    lines = [line.split() for line in shown(120, "tiny", "", "", {"task.options": {"a.b": 3}, "task.options.c.d": 4})]
    assert ["task.options.a.b", "3", "--set"] in lines and ["task.options.c.d", "4", "--set"] in lines


def test_the_command(capsys):
    app.app(
        ["list", "--settings", "--profile", "paper", "--task", "norm", "--set", "grpo.steps=7"], standalone_mode=False
    )
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["grpo.steps", "7", "--set"] in printed
    assert ["validation.every", "10", "paper/tasks.yaml"] in printed
    app.app(["list"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*TASKS.names(), *REWARDS.names(), *profile_names()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "norm"], "go with --settings"),
        (["--set", "grpo.steps=3"], "go with --settings"),
        (["--settings", "--task", "norn"], "did you mean norm"),
        (["--settings", "--reward", "naiv"], "did you mean naive"),
        (["--settings", "--profile", "tinny"], "did you mean tiny"),
        (["--settings", "--set", "grpo.stepz=3"], "did you mean grpo.steps"),
        (["--settings", "--set", "grpo.steps=0"], "greater than or equal to 1"),
        (["--settings", "--task", "67", "--set", "task.options.lamda=3"], "task.options.lambda"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, words):
    with pytest.raises(HarnessError) as caught:
        app.app(["list", *arguments], standalone_mode=False)
    assert words in str(caught.value) and "\n" not in str(caught.value)
