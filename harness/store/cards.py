"""Cards: the README.md of a model or a data set, its front matter as the hub reads it. Names and texts in them come
from tasks, rewards and records, which are anybody's: they reach a card through `escape`, `fenced` or YAML alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml


def escape(text: str) -> str:
    """Text as inert Markdown inside a table cell: no markup, no links, no line breaks, nobody called by @name."""
    text = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    text = (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("@", "@\u200b")
        .replace("://", ":\u200b//")
    )
    return re.sub(r"([\\`*\[\]|~!#$])", r"\\\1", text)


def front_matter(fields: Mapping[str, Any]) -> str:
    """The YAML block that a card begins with; empty fields are left out."""
    told = {name: value for name, value in fields.items() if value not in (None, "", [])}
    return f"---\n{as_yaml(told)}---\n"


def as_yaml(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=100)


def fenced(text: str, language: str = "yaml") -> str:
    """The text as a block of code that nothing in it ends."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"


def facts(rows: Sequence[tuple[str, object]]) -> str:
    """A table of two columns, escaped; rows without a value are left out."""
    lines = [f"| {escape(name)} | {escape(str(value))} |" for name, value in rows if value not in (None, "")]
    return "\n".join(["| | |", "| --- | --- |", *lines, ""])
