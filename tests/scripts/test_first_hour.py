"""The notebook of the first hour runs from top to bottom, and shows what it says."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest

from harness.registry import REWARDS
from tests.helpers.command import ROOT

NOTEBOOK = ROOT / "scripts" / "first_hour.ipynb"


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def executed(cell: dict[str, Any], names: dict[str, Any]) -> Any:
    """Runs a cell as a kernel does; the value of its last expression, which a notebook shows."""
    body = ast.parse("".join(cell["source"])).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), NOTEBOOK.name, "exec"), names)
    return eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names) if last else None


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> dict[str, Any]:
    """Source of every cell -> what it shows."""
    names: dict[str, Any] = {"__name__": "__main__"}
    REWARDS.names()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(REWARDS, "_entries", dict(REWARDS._entries))  # it registers one of its own
        patch.chdir(tmp_path_factory.mktemp("hour"))
        return {"".join(cell["source"]): executed(cell, names) for cell in code_cells()} | {"names": names}


def test_it_is_kept_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code_cells())


def test_every_cell_shows_something(shown):
    results, names = next(each for source, each in shown.items() if source.endswith("\nresults")), shown["names"]
    assert results is names["results"] and results._repr_html_().count("<tr>") == 4 + 3
    assert set(results.wide["profile"]) == {"mine"} and set(results.wide["status"]) == {"done"}
    assert [source for source, value in shown.items() if value is None] == [next(iter(shown))]  # all but the imports
    for source, value in shown.items():
        if source.startswith("results.figure("):
            assert value._repr_png_().startswith(b"\x89PNG")
        if source.startswith("harness.fidelity("):
            assert "adam_metagrad" in value._repr_html_()
        if "harness.check(" in source:
            value.require()
            assert "reward shorter" in value._repr_mimebundle_([], [])["text/html"]
        if "metagradient(model" in source:
            assert [weight for weight, _ in value] == sorted((w for w, _ in value), reverse=True) and value[0][0] > 0
            assert {text for _, text in value} < set(shown["names"]["texts"]) and len(value) == 3


def test_its_profile_and_its_articles_are_used(shown):
    """As its record says; the articles count with their splits."""
    record = shown["names"]["results"].cells[0].read()
    assert record.settings["data"]["articles"] == "articles.jsonl" and record.settings["grpo"]["lr"] == 1e-4
    assert record.assets["articles.jsonl"].endswith(":splits")
