"""A package of one's own with a reward or a task, from templates: what `python -m harness new` writes."""

from __future__ import annotations

import keyword
import os.path
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from harness.contracts import HarnessError
from harness.registry import REWARDS, TASKS
from harness.store.atomic import write_together

KINDS = {"reward": REWARDS, "task": TASKS}
FILES = {
    "pyproject.toml": "pyproject.toml.j2",
    "README.md": "README.md.j2",
    "{module}.py": "{kind}.py.j2",
    "test_{module}.py": "test.py.j2",
}
"""File of the package -> template."""
NAME = re.compile(r"[a-z](?:[a-z0-9]|_(?=[a-z0-9])){0,39}")


def write_package(kind: str, name: str, folder: Path) -> Path:
    """Writes the package and returns its folder. Raises HarnessError for another kind, for a name that cannot be one or
    is taken, and for a folder that exists."""
    check_name(kind, name)
    if os.path.lexists(folder):
        raise HarnessError(f"{folder} exists already; name another place with --out, or move it away.")
    write_together({folder / file: text for file, text in package(kind, name).items()})
    return folder


def check_name(kind: str, name: str) -> None:
    """Raises HarnessError unless a reward or task of this name can be registered."""
    if kind not in KINDS:
        raise HarnessError(f"`new` writes a {' or a '.join(KINDS)}, not '{kind[:80]}'.")
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise HarnessError(
            f"'{name[:80]}' cannot be the name of a {kind}: take small letters, digits and single underscores "
            "between them, a letter first, 40 at most."
        )
    if KINDS[kind].find(name) is not None:
        raise HarnessError(f"A {kind} named '{name}' is registered already; give yours another name.")


def package(kind: str, name: str) -> Mapping[str, str]:
    """File name -> content."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = str(resources.files("harness.kit") / "templates")
    environment = Environment(
        loader=FileSystemLoader(templates), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    words = {
        "kind": kind,
        "name": name,
        "module": f"{kind}_{name}",
        "class_name": f"{name.title().replace('_', '')}Task",
    }
    return {
        file.format(**words): environment.get_template(template.format(**words)).render(words)
        for file, template in FILES.items()
    }
