"""The reference documentation: a page for everything there is, and links that lead somewhere."""

from __future__ import annotations

import posixpath
import re

import pytest
import yaml

from harness.cli.app import app
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import profile_names
from harness.settings.schema import known_keys
from scripts.docs import reference
from tests.helpers.command import ROOT

DOCS = ROOT / "scripts" / "docs"


@pytest.fixture(scope="module")
def site() -> dict[str, str]:
    """Every page: the generated ones and those that are kept."""
    kept = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "pages").glob("*.md")}
    return kept | reference.pages()


def test_everything_has_a_page(site):
    commands = [each.name or each.callback.__name__ for each in app.registered_commands]
    wanted = {"tasks": TASKS.names(), "rewards": REWARDS.names(), "settings": known_keys(), "commands": commands}
    assert {"run", "check", "new", "list"} <= set(commands)
    for folder, names in wanted.items():
        pages = {page for page in site if page.startswith(f"{folder}/")}
        assert pages == {f"{folder}/{name}.md" for name in (*names, "index")}
        assert all(f"({name}.md)" in site[f"{folder}/index.md"] for name in names)


def test_links_lead_somewhere(site):
    dead = []
    for page, text in site.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0]))
            if "://" in link or target not in site:
                dead.append(f"{page}: {link}")
    assert dead == []


def test_pages_say_what_is_declared(site):
    assert "Φ" in site["own_target.md"] and "`norm_change`" in site["tasks/norm.md"]
    page = site["settings/grpo.lr.md"]
    assert "a number > 0, ≤ 1e+06" in page and all(f"| {name} |" in page for name in profile_names())
    assert "[`qr`](../tasks/qr.md) | `0.0001`" in page
    assert "`dapo` or `bnpo` or `grpo` or `dr_grpo`" in site["settings/grpo.loss.md"]
    assert "It changes no number" in site["settings/keep.rollouts.md"]
    assert "the task has no reference texts" in site["tasks/norm.md"]
    command = site["commands/run.md"]
    assert "python -m harness run [OPTIONS]" in command and "* `--task <str>`" in command and "[bold]" not in command
    assert "`reward.options.reference_count`" in site["rewards/levenshtein.md"]


def test_tables_hold_together(site):
    """Every row of a table has as many cells as its head, whatever stands in them."""
    for page, text in site.items():
        for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.M):
            counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}
            assert len(counts) == 1, f"{page}: {block[:200]}"


def test_the_script_writes_the_pages(tmp_path, site):
    reference.write(tmp_path)
    written = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8")
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert written.items() <= site.items() and "settings/grpo.lr.md" in written


def test_the_site_needs_no_network_and_ci_builds_it():
    settings = yaml.safe_load((DOCS / "mkdocs.yml").read_text())
    assert settings["theme"]["font"] is False and settings["use_directory_urls"] is False
    assert "offline" not in settings["plugins"] and not {"extra_css", "extra_javascript"} & set(settings)
    assert settings["validation"]["links"]["not_found"] == "warn"
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert "mkdocs build --strict -f scripts/docs/mkdocs.yml" in workflow
