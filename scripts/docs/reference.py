"""The generated pages of the reference: one for every task, reward, setting and command, from what they declare.

python scripts/docs/reference.py FOLDER      writes them as Markdown
python -m mkdocs build -f scripts/docs/mkdocs.yml     adds them to the site (mkdocs-gen-files runs this file)
"""

from __future__ import annotations

import html
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.cli.app import app
from harness.contracts import Headline, Measure
from harness.registry import REWARDS, TASKS, RewardEntry, TaskEntry, unsupported
from harness.settings.profiles import Profile, load_profile, profile_names, resolve
from harness.settings.schema import OPTIONS, Settings, known_keys, neutral_keys

Pages = dict[str, str]
"""Path below the site -> Markdown."""
UNSET = "none"


def pages() -> Pages:
    """Every generated page."""
    return {**task_pages(), **reward_pages(), **setting_pages(), **command_pages()}


@cache
def profiles() -> dict[str, Profile]:
    """The built-in ones by name."""
    return {name: load_profile(name) for name in profile_names()}


@cache
def resolved(profile: str) -> dict[str, Any]:
    """Its settings where no task and no reward changes them, as plain data."""
    return resolve(profiles()[profile], "", "").model_dump(mode="json")


# ------------------------------------------------------------------------------------------------------------- Markdown


def prose(text: str) -> str:
    """Text of a docstring as Markdown: what stands between backticks is code, and `<` begins no markup."""
    parts = re.split(r"(`[^`\n]*`)", text)
    return "".join(part if part.startswith("`") else inert(part) for part in parts)


def inert(text: str) -> str:
    return re.sub(r"([\\*_\[\]|])", r"\\\1", html.escape(text, quote=False))


def code(value: Any) -> str:
    """A value as inline code; a bar would end a table's cell."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    shown = " ".join(text.split()).replace("|", "\\|")
    ticks = "``" if "`" in shown else "`"
    return f"{ticks}{shown}{ticks}" if shown else UNSET


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty where there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |", *lines]) if lines else ""


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *(part for part in parts if part)]) + "\n"


def docstring(thing: object) -> str:
    """Its own docstring or that of the first class that it inherits one from, as Markdown."""
    own = (vars(each).get("__doc__") for each in getattr(thing, "__mro__", ())[:-1])
    text = next(filter(None, own), None) if inspect.isclass(thing) else getattr(thing, "__doc__", None)
    return prose(inspect.cleandoc(text)) if text else ""


def index(title: str, rows: Iterable[tuple[str, str, str]]) -> str:
    """A page that lists (name, file, a line about it)."""
    return page(title, table(["name", "what it is"], ([f"[{code(n)}]({file})", prose(line)] for n, file, line in rows)))


# -------------------------------------------------------------------------------------------------- tasks and rewards


def options_table(options: Mapping[str, str] | None, below: str) -> str:
    if not options:
        return "It reads no options." if options is not None else "It does not declare its options."
    rows = [[code(f"{below}.{name}"), prose(line)] for name, line in options.items()]
    return f"Options, with what holds without them:\n\n{table(['setting', 'what it is'], rows)}"


def measures_table(measures: Sequence[Measure]) -> str:
    rows = (
        [code(m.name), prose(m.unit) or " ", f"{m.direction} is better" if m.direction else " ", prose(m.summary)]
        for m in measures
    )
    return table(["measure", "unit", "direction", "what it is"], rows)


def changes_table(layers: Iterable[tuple[str, Mapping[tuple[int, str], Any]]]) -> str:
    """What profiles set: (where, values) -> a row a setting."""
    rows = []
    for where, values in layers:
        for (at_least, key), value in values.items():
            when = f" (inner steps ≥ {at_least})" if at_least > 1 else ""
            rows.append([where + when, setting_link(key, "../settings/"), code(value)])
    return f"## What profiles set\n\n{table(['where', 'setting', 'value'], rows)}" if rows else ""


def setting_link(key: str, to: str) -> str:
    """The setting's page; an option's is that of all options."""
    known = next((known for known in known_keys() if key == known or key.startswith(f"{known}.")), "")
    return f"[{code(key)}]({to}{known}.md)" if known else code(key)


def task_page(entry: TaskEntry) -> str:
    task, declares = entry.factory, entry.declares
    pairs = [
        [f"[{code(reward.name)}](../rewards/{reward.name}.md)", prose(unsupported(entry, reward) or "yes")]
        for reward in REWARDS
    ]
    headline: Headline = task.headline
    best = f" At best {headline.ceiling:g}." if headline.ceiling is not None else ""
    layers = [(f"{name}, tasks", profile.tasks.get(entry.name, {})) for name, profile in profiles().items()]
    return page(
        inert(entry.name),
        prose(entry.summary),
        docstring(task),
        f"Judged by {code(headline.name)} ({headline.direction} is better): {prose(headline.summary)}.{best}"
        + (" Its validation rollouts are decoded greedily." if declares.greedy_validation else ""),
        "## Measures",
        measures_table((headline, *task.measures)),
        "## Options",
        options_table(entry.options, "task.options"),
        "## Rewards",
        table(["reward", "can be had"], pairs),
        changes_table(layers),
    )


def reward_page(entry: RewardEntry) -> str:
    needs = [
        words for has, words in ((entry.needs.references, "reference texts"), (entry.needs.metric, "a metric")) if has
    ]
    training = entry.training
    how = {None: "It trains no target.", True: "It differentiates the metric through the target's training."}.get(
        training and training.metagradient, "It trains the target plainly and looks at what comes out."
    )
    layers = [(f"{name}, rewards", profile.rewards.get(entry.name, {})) for name, profile in profiles().items()]
    layers += [
        (f"{name}, {task} / {reward}", values)
        for name, profile in profiles().items()
        for (task, reward), values in profile.pairs.items()
        if reward == entry.name
    ]
    packages = f", and the packages {', '.join(map(code, entry.needs.packages))}" if entry.needs.packages else ""
    return page(
        inert(entry.name),
        prose(entry.summary),
        docstring(entry.factory),
        f"It needs of a task: {' and '.join(needs) or 'nothing'}{packages}. {how} Advantages are taken over the "
        f"{'whole batch' if entry.advantage == 'batch' else 'group of a prompt'}."
        + (" Others are compared with it." if entry.baseline else ""),
        "## Options",
        options_table(entry.options, "reward.options"),
        changes_table(layers),
    )


def task_pages() -> Pages:
    rows = [(entry.name, f"{entry.name}.md", entry.summary) for entry in TASKS]
    return {f"tasks/{entry.name}.md": task_page(entry) for entry in TASKS} | {"tasks/index.md": index("Tasks", rows)}


def reward_pages() -> Pages:
    rows = [(entry.name, f"{entry.name}.md", entry.summary) for entry in REWARDS]
    return {f"rewards/{entry.name}.md": reward_page(entry) for entry in REWARDS} | {
        "rewards/index.md": index("Rewards", rows)
    }


# ------------------------------------------------------------------------------------------------------------ settings


@cache
def schema() -> dict[str, Any]:
    return Settings.model_json_schema()


def field_of(key: str) -> dict[str, Any]:
    """The JSON schema of a dotted key."""
    node = schema()
    for part in key.split("."):
        node = followed(node)["properties"][part]
    return node


def followed(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node of the schema, or what it refers to."""
    return schema()["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}


def values_of(node: Mapping[str, Any]) -> str:
    """In words, what a setting takes."""
    if "anyOf" in node:
        return " or ".join(values_of(each) for each in node["anyOf"])
    if "enum" in node:
        return " or ".join(map(code, node["enum"]))
    if "const" in node:
        return code(node["const"])
    if node.get("type") == "array":
        items = node.get("prefixItems") or [node["items"]]
        return f"a list of {len(items) if 'prefixItems' in node else 'any number'}: {', '.join(map(values_of, items))}"
    kinds = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}
    kind = {**kinds, "object": "a mapping", "null": "null"}.get(node.get("type", ""), "any value")
    bounds = [words.format(f"{node[name]:g}") for name, words in BOUNDS.items() if name in node]
    return f"{kind} {', '.join(bounds)}".strip()


def in_profiles(key: str) -> Iterator[Sequence[str]]:
    """(profile, where, value) of everything that built-in profiles say about a setting, the later over the earlier."""
    for name, profile in profiles().items():
        value: Any = resolved(name)
        for part in key.split("."):
            value = value[part]
        if key not in OPTIONS:
            yield name, "every cell, unless", code(value)
        entries = [(f"[{code(task)}](../tasks/{task}.md)", values) for task, values in profile.tasks.items()]
        entries += [(f"[{code(each)}](../rewards/{each}.md)", values) for each, values in profile.rewards.items()]
        entries += [(f"{code(task)} with {code(each)}", values) for (task, each), values in profile.pairs.items()]
        for where, values in entries:
            for (at_least, own), said in values.items():
                if own == key or own.startswith(f"{key}."):
                    rest = own.removeprefix(key).removeprefix(".")
                    when = f", inner steps ≥ {at_least}" if at_least > 1 else ""
                    yield name, where + when, f"{code(rest)}: {code(said)}" if rest else code(said)


def setting_page(key: str) -> str:
    node = field_of(key)
    default = f"Default: {code(node['default'])}." if "default" in node else "A profile has to give it."
    section = key.rpartition(".")[0]
    about = followed(field_of(section)).get("description", "")
    counts = "It changes no number: cells with other values of it are the same." if key in neutral_keys() else ""
    return page(
        code(key),
        prose(node.get("description", "")),
        f"It takes {values_of(node)}. {default} {counts}".strip(),
        f"Of the section {code(section)}: {prose(' '.join(about.split()))}" if about else "",
        "## In the built-in profiles",
        table(["profile", "where", "value"], in_profiles(key)),
    )


def setting_pages() -> Pages:
    rows = [(key, f"{key}.md", field_of(key).get("description", "")) for key in known_keys()]
    return {f"settings/{key}.md": setting_page(key) for key in known_keys()} | {
        "settings/index.md": index("Settings", rows)
    }


# ------------------------------------------------------------------------------------------------------------ commands


def commands() -> dict[str, Any]:
    """Name -> command, as Typer has it."""
    from typer.main import get_command

    return dict(get_command(app).commands)


def command_page(name: str, command: Any) -> str:
    """By Typer's own documentation generator (`typer utils docs`); its examples as code."""
    from typer.cli import MARKUP_MODE_KEY, get_docs_for_click
    from typer.main import get_command

    group = get_command(app)
    context = group.context_class(command, info_name=name, obj={MARKUP_MODE_KEY: "rich"})
    page = get_docs_for_click(obj=command, ctx=context, name=name, call_prefix="python -m harness", title=name)
    return re.sub(r"^ *(python -m .+)$", r"`\1`", page, flags=re.M)


def command_pages() -> Pages:
    rows = [(name, f"{name}.md", command.get_short_help_str(limit=200)) for name, command in commands().items()]
    return {f"commands/{name}.md": command_page(name, command) for name, command in commands().items()} | {
        "commands/index.md": index("Commands", rows)
    }


# ------------------------------------------------------------------------------------------------------------- writing


def write(folder: Path) -> None:
    for place, text in pages().items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")


def add_to_site() -> None:
    import mkdocs_gen_files

    for place, text in pages().items():
        with mkdocs_gen_files.open(place, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
elif __name__ == "<run_path>":
    add_to_site()
