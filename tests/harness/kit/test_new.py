"""A package that `new` writes is found by its entry point and passes its own test."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.contracts import HarnessError
from harness.kit.scaffold import package, write_package
from tests.helpers.command import ROOT, run_harness


def installed(folder: Path, name: str) -> Path:
    """The written package as `pip install -e` leaves it: its folder, with the metadata of its pyproject.toml."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(points))
    return folder


@pytest.mark.parametrize("kind", ["reward", "task"])
def test_a_new_package_installs_and_passes_its_test(kind, tmp_path):
    found = run_harness("new", kind, "different_words", cwd=tmp_path)
    assert found.code == 0 and "pip install -e different_words" in found.out, found.err
    folder = installed(tmp_path / "different_words", "different_words")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["reward", "task"])
def test_what_is_written_is_clean(kind, tmp_path):
    folder = write_package(kind, "mine", tmp_path / "there" / "mine")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", f"{kind}_mine.py", "pyproject.toml", f"test_{kind}_mine.py"]
    )
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", str(ROOT / "pyproject.toml"), str(folder)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert not [text for text in package(kind, "mine").values() if "{" + "{" in text]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reward", "naive"], "A reward named 'naive' is registered already"),
        (["task", "norm"], "A task named 'norm' is registered already"),
        (["reward", "My-Reward"], "'My-Reward' cannot be the name of a reward"),
        (["task", "class"], "'class' cannot be the name of a task"),
        (["task", "../up"], "cannot be the name of a task"),
        (["metric", "mine"], "`new` writes a reward or a task, not 'metric'"),
        (["task", "there"], "there exists already"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(words, said, tmp_path):
    (tmp_path / "there").mkdir()
    found = run_harness("new", *words, cwd=tmp_path)
    assert found.code == 2 and said in found.err and [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_name_is_taken_within_its_kind_alone():
    assert package("task", "naive")["pyproject.toml"].count("naive") > 1
    with pytest.raises(HarnessError, match="registered already"):
        write_package("reward", "naive", Path("never"))
