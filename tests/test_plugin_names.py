"""Neither the harness nor the reports know a task or a reward by name: what they need to know is declared."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from harness.registry import REWARDS, TASKS
from tests.helpers.command import ROOT

BUILT_IN = [
    entry.name for entry in (*TASKS, *REWARDS) if entry.factory.__module__.partition(".")[0] in ("tasks", "rewards")
]
FAMILIES = [
    part for part, times in Counter(part for name in BUILT_IN for part in set(name.split("_"))).items() if times > 1
]
"""What several names have in common: `startswith` of it knows the tasks or rewards as well as their names do."""
ORDINARY = ("67", "norm", "embedding")
"""Names that other things have too (a number, norms of tensors, embeddings of tokens): found only as a whole string."""
MEASURES = {
    measure.name
    for entry in TASKS
    if entry.name in BUILT_IN
    for measure in (entry.factory.headline, *entry.factory.measures)
} - {"empty_fraction"}
"""Without the one that the runner takes of training rollouts as well."""

ALLOWED = {
    ("harness/texts/language.py", "fasttext"): "the library of that name, which the module wraps",
    ("harness/miniature/__init__.py", "embedding"): "the asset embedded:embedding",
    ("harness/miniature/quality.py", "embedding"): "the folder of that asset",
    ("harness/miniature/quality.py", "bigram_entropy"): "what it says of the embedded generator",
}
"""(file, name) -> what else bears the name there."""


def texts_of(tree: ast.AST) -> Iterator[tuple[str, bool, int]]:
    """(text, whether it is a string, line) of every identifier, imported name and string but docstrings."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value, True, node.lineno
        for field in ("id", "attr", "name", "asname", "arg", "module"):
            if isinstance(value := getattr(node, field, None), str):
                yield value, False, getattr(node, "lineno", 0)
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from ((name, False, node.lineno) for name in node.names)


def known_names(source: str) -> dict[str, int]:
    """Name of a task, a reward, a family or a measure -> the first line that knows it."""
    found: dict[str, int] = {}
    for text, is_string, line in texts_of(ast.parse(source)):
        for name in (*BUILT_IN, *FAMILIES):
            whole = re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", text, re.IGNORECASE)
            if (is_string and text.lower() == name) if name in ORDINARY else whole:
                found.setdefault(name, line)
        if is_string and text in MEASURES:
            found.setdefault(text, line)
    return found


FILES = sorted({*(ROOT / "harness").rglob("*.py"), *(ROOT / "reports").glob("*.py")})


def test_no_task_and_no_reward_is_known_by_name():
    found = {}
    for path in FILES:
        place = path.relative_to(ROOT).as_posix()
        found |= {(place, name): line for name, line in known_names(path.read_text(encoding="utf-8")).items()}
    unexpected = [
        f"{place}:{line} knows {name!r}" for (place, name), line in found.items() if (place, name) not in ALLOWED
    ]
    assert not unexpected, "\n".join(unexpected)
    assert set(ALLOWED) <= set(found), "an exception that nothing needs any more"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ('if reward == "naive":\n    pass', "naive"),
        ("trains = plan.reward not in NAIVE_REWARDS", "naive"),
        ("from rewards.levenshtein import make", "levenshtein"),
        ('task.startswith("lambada_")', "lambada"),
        ('reward.endswith("_metagrad")', "metagrad"),
        ('hint = f"as {reward} of adam_metagrad"', "adam_metagrad"),
        ("def cost(qr=None): ...", "qr"),
        ('COSTS = {"67": 1, "norm": 2}', "67"),
        ('COSTS = {"67": 1, "norm": 2}', "norm"),
        ('match task:\n    case "uuid":\n        pass', "uuid"),
        ('KEY = ("norm_change_relative",)', "norm_change_relative"),
    ],
)
def test_code_that_knows_one_is_found(source, name):
    assert name in known_names(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""`naive` in a docstring."""\n"""and after a constant: uuid"""',
        "# naive in a comment",
        "error = (a - b).norm() / token_embeddings.norm()",
        "from rewards.metagradient import metagradient",
        'text = "the norm of 67 embeddings"',
    ],
)
def test_ordinary_words_are_not(source):
    assert not known_names(source)
