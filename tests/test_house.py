"""Who imports whom: no circles, and the rooms stay apart. Imports inside functions count, those for types only do not.

A module is a file, a wing is a folder of `harness/` (a file that lies in no wing stands for itself).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.command import ROOT

PACKAGES = ("harness", "rewards", "tasks", "reports")
MOST_FLAT_MODULES = 9
"""Files directly in harness/, `__init__` and `__main__` aside from it included: more would be a corridor again. The
ninth is the half of the Python interface that shows results; it knows no wing but the stores of what it shows."""

RUNNER = (
    *("api", "cell", "cli", "evaluation", "generated", "grid", "kit", "planning", "rerun", "results", "signals"),
    *("store", "suites", "training", "tuning", "workers"),
)
"""Rooms of harness/ that know tasks and rewards, and that these must not know."""

Graph = Mapping[str, frozenset[str]]


@cache
def files() -> dict[str, Path]:
    """Module name -> file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(source: str, package: str = "") -> Iterator[tuple[str, str]]:
    """(module, name or "") of every import in a source of the package, wherever it stands, but not under
    TYPE_CHECKING."""
    tree = ast.parse(source)
    hidden = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            hidden |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((module, alias.name) for alias in node.names)


def imports_of(path: Path) -> Iterator[tuple[str, str]]:
    return imports(path.read_text(encoding="utf-8"), ".".join(path.relative_to(ROOT).parent.parts))


@cache
def modules() -> Graph:
    """Module -> the modules of this repository that it imports."""
    known = files()
    graph = {}
    for name, path in known.items():
        found = {f"{module}.{item}" if f"{module}.{item}" in known else module for module, item in imports_of(path)}
        graph[name] = frozenset(found & known.keys() - {name})
    return graph


def wing(module: str) -> str:
    """harness.store.record -> harness.store, tasks.norm -> tasks.norm."""
    return ".".join(module.split(".")[:2])


def wings() -> Graph:
    graph: dict[str, frozenset[str]] = {}
    for module, found in modules().items():
        others = {wing(other) for other in found} - {wing(module)}
        graph[wing(module)] = graph.get(wing(module), frozenset()) | others
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes each of which can be reached from each other one."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = graph.get(todo.pop(), frozenset()) - seen
            seen |= new
            todo += new
        return seen

    reach = {node: reached(node) for node in graph}
    groups = {frozenset(other for other in reach[node] if node in reach.get(other, ())) for node in graph}
    return sorted(sorted(group) for group in groups if group)


def test_circles_are_found():
    """Else the next tests would pass whatever the imports."""
    graph = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("b"), "d": frozenset("a")}
    assert circles(graph) == [["b", "c"]]
    source = "import a.b\nif TYPE_CHECKING:\n    import hidden\nelse:\n    import seen\ndef f():\n    from c import d\n"
    assert set(imports(source)) == {("a.b", ""), ("seen", ""), ("c", "d")}
    assert list(imports("from . import x\nfrom ..b import y", "a.c")) == [("a.c", "x"), ("a.b", "y")]
    assert "harness.contracts" in modules()["rewards.naive"] and "harness.settings.schema" in modules()


def test_no_module_imports_itself_by_a_detour():
    assert circles(modules()) == []


def test_no_wing_imports_itself_by_a_detour():
    assert circles(wings()) == []


@pytest.mark.parametrize("package", ["rewards", "tasks"])
def test_tasks_and_rewards_know_neither_the_runner_nor_the_reports(package):
    forbidden = {f"harness.{room}" for room in RUNNER} | {name for name in wings() if name.startswith("reports")}
    own = {name for name in modules() if name.split(".")[0] == package} | {"harness.contracts", "harness.registry"}
    assert {(name, other) for name in own for other in modules()[name] if wing(other) in forbidden} == set()


def test_the_engine_stands_alone():
    own = {name for name in modules() if name.startswith("rewards.metagradient")}
    assert own and {other for name in own for other in modules()[name]} <= own


def test_only_the_python_interface_and_the_command_line_import_the_reports():
    found = {
        n for n, others in modules().items() if n.startswith("harness") and any(o.startswith("reports") for o in others)
    }
    assert found == {"harness.api", "harness.results", "harness.cli.app"}  # results: what the interface returns


def test_the_harness_is_wings_and_a_few_files():
    assert len(list((ROOT / "harness").glob("*.py"))) <= MOST_FLAT_MODULES


def own_sources() -> list[Path]:
    return [*files().values(), *sorted((ROOT / "scripts").glob("*.py"))]


def test_no_file_imports_a_private_name_of_another():
    """A module with an underscore belongs to its package; a name with an underscore to its module."""
    found = []
    for path in own_sources():
        package = path.relative_to(ROOT).parts[0]
        for module, name in imports_of(path):
            if module.split(".")[0] not in PACKAGES:
                continue
            outside = package in PACKAGES and module.split(".")[0] != package
            private = [part for part in module.split(".") if part.startswith("_")] if outside else []
            is_module = f"{module}.{name}" in files()
            if private or (name.startswith("_") and (outside or not is_module)):
                found.append(f"{path.relative_to(ROOT)}: {module}.{name}")
    assert found == []


def test_no_file_edits_the_import_path():
    """Scripts import installed packages; tests have the root by pytest's `pythonpath`."""
    found = []
    for path in [*own_sources(), *sorted((ROOT / "tests").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            words = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if words == "sys.path" or words.endswith(("spec_from_file_location", "syspath_prepend")):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
