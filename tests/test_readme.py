"""The README's commands are the ones that are run."""

from __future__ import annotations

import re

from harness.registry import REWARDS, TASKS
from tests.helpers.command import ROOT


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_ci_runs_the_second_command_of_the_readme():
    assert commands()[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_first_command_is_the_main_job():
    assert commands()[0].endswith("python -m harness run --task lambada_es --reward all")


def test_every_task_and_reward_is_mentioned():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in REWARDS.names() + TASKS.names() if f"`{name}`" not in text] == []


def test_every_file_the_readme_names_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in linked if not (ROOT / link).exists()] == []


def test_the_table_is_the_references():
    """Every row that the study makes stands in the README as it is."""
    from harness.store.frames import load
    from reports import summary, tables

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wide, _ = load(ROOT / "reports" / "studies" / "reference")
    (block,) = summary.blocks(wide)
    rows = [line for line in tables.markdown_block(block).splitlines() if line.startswith("| ")]
    assert len(rows) > len(REWARDS.names()) and [row for row in rows if row not in text] == []
