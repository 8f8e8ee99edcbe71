"""Numbers out of their range."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scripts.odd_input.world import QUICK, Case, World, call, command, flags


def ranges(world: World) -> Iterator[Case]:
    """Every number among the settings, inside its range and outside."""
    from harness.settings.profiles import load_profile, resolve
    from harness.settings.schema import Settings

    whole = Settings.model_json_schema()
    profile = load_profile("tiny")

    def found(
        schema: dict[str, Any], key: str = "", place: tuple[int, ...] = ()
    ) -> Iterator[tuple[str, dict[str, Any], tuple[int, ...]]]:
        schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        for name, part in schema.get("properties", {}).items():
            yield from found(part, f"{key}.{name}" if key else name)
        for part in schema.get("anyOf", []):
            yield from found(part, key, place)
        for number, part in enumerate(schema.get("prefixItems", [])):
            yield from found(part, key, (number,))
        if schema.get("type") in ("integer", "number"):
            yield key, schema, place

    def give(key: str, value: Any, place: tuple[int, ...]) -> str:
        pair = [0.5, 0.5]
        if place:
            pair[place[0]] = value
        return call(resolve, profile, "norm", "naive", {key: pair if place else value})

    for key, schema, place in found(whole):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        for value in (low - 1, -3, -0.001, 10**30, 1e300, float("nan"), float("inf"), "x", [1], {}, True):
            fits = value == -0.001 and low < -1
            yield Case(
                f"{key}={value}",
                "works" if fits else "refused" if value is not True else "either",
                lambda a=(key, value, place): give(*a),
            )
        inside = low + 1 if schema["type"] == "integer" else low + 0.5
        yield Case(
            f"{key}={inside}",
            "either" if "steps" in key or "prompts" in key else "works",
            lambda a=(key, inside, place): give(*a),
        )
    options = {"lambda": ["x", 0, -1, 10**400, None], "first_token": [-1, 1.5, 10**12, "x", [1]]}
    for name, values in options.items():
        for value in values:
            given = [
                "--task",
                "67",
                "--reward",
                "naive",
                "--workers",
                "0",
                "--out",
                str(world.new()),
                "--set",
                f"task.options.{name}={json.dumps(value)}",
            ]
            yield Case(
                f"task.options.{name}={str(value)[:12]}",
                "refused" if value is not None else "either",
                lambda g=given: command("run", *g, *flags(QUICK)).outcome(),
            )
