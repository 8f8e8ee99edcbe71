"""A package outside the repository brings a task and a reward, one file each: every command knows them from what they
declare, and nothing of the harness is edited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.store.frames import load
from reports import figures, tables
from tests.helpers.command import ROOT
from tests.helpers.hub_cache import COMMIT, HubCache

TASK = '''
from harness.contracts import Evaluation, Headline, Measure, MetricCost, Offers, TaskFigure
from harness.registry import register_task


@register_task("vowels")
class Vowels:
    """A metric of a task that the tests bring."""

    name, offers = "vowels", Offers()
    headline = Headline("vowel_share", "fraction", "higher", "share of vowels", ceiling=1.0)
    measures = (
        Measure("letters", "", None, "letters of a rollout"),
        Measure("spread", "", "higher", "distinct letters", relative=True),
        Measure("dull", "", None, "nothing to look at"),
    )
    options = {"read": "texts that the metric reads"}
    key_measures = ("spread", "letters")
    figure = TaskFigure("vowels", "Vowels and letters", "What the task looks at.", ("vowel_share", "letters"))
    greedy_validation = True

    def __init__(self, context):
        pass

    @staticmethod
    def metric_cost(options):
        return MetricCost(texts=options.get("read", 100), tokens=50, scored=2)

    def references(self):
        return []

    def metric(self, inner):
        name = next(iter(dict(inner.model.named_parameters())))
        return lambda params: -params[name].norm()

    def evaluate(self, rollouts, inner):
        letters = "".join(rollouts).lower()
        share = sum(letters.count(vowel) for vowel in "aeiou") / max(1, len(letters))
        values = {"dull": 0.0, "vowel_share": share, "letters": len(letters), "spread": len(set(letters))}
        return Evaluation(values)
'''

REWARD = """
import json

from harness.contracts import Needs, Training, completion_text
from harness.registry import register_reward


@register_reward(
    "letter_table",
    needs=Needs(metric=True),
    advantage="batch",
    summary="points for letters, from a table on the hub",
    options={"points": "a hub id with a config.json of letters"},
    asset_options=("points",),
    training=Training(metagradient=False, crosses_groups=False),
)
def make(context):
    points = json.loads((context.asset(context.options["points"]) / "config.json").read_text())

    def reward(prompts, completions, completion_ids, **columns):
        return [float(sum(points.get(c, 0) for c in completion_text(text))) for text in completions]

    return reward
"""

FACTS = """
import json
from harness.grid import cross_product
from harness.machine.devices import DATASHEETS
from harness.planning.cost import estimate
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import load_profile

def reward_flops(reward, given):
    (plan,) = cross_product(load_profile("tiny"), ["vowels"], [reward], [0], given)
    return estimate(plan.settings, plan.task, plan.reward, DATASHEETS["h200"]).phases[1].flops

flops = {reward: [reward_flops(reward, {"task.options.read": read}) for read in (100, 200, 300)]
         for reward in ("letter_table", "adam_metagrad")}
print(json.dumps(flops))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder as `pip install` leaves it: two modules and the entry points that name them."""
    folder = tmp_path_factory.mktemp("site-packages")
    (folder / "outside_task.py").write_text(TASK)
    (folder / "outside_reward.py").write_text(REWARD)
    info = folder / "outside-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[harness.tasks]\nvowels = outside_task\n[harness.rewards]\nletter_table = outside_reward\n"
    )
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """A hub cache that holds the reward's table."""
    folder = tmp_path_factory.mktemp("hub")
    staging = folder / "staging"
    staging.mkdir()
    (staging / "config.json").write_text(json.dumps({"a": 1, "e": 2, " ": -1}))
    HubCache(folder)._store("models--someone--letters", staging)
    return folder


@pytest.fixture(scope="module")
def python(package, hub):
    """`python(*arguments, cwd=...)` -> what a fresh interpreter, which has the package, prints."""

    def run(*arguments: str, cwd: Path) -> str:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{package}", "HF_HUB_CACHE": str(hub)}
        environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


CHOSEN = ["--task", "vowels", "--reward", "letter_table", "--set", "reward.options.points=someone/letters"]


def test_list_shows_both(python, tmp_path):
    shown = python("-m", "harness", "list", cwd=tmp_path)
    assert "A metric of a task that the tests bring." in shown
    assert "points for letters, from a table on the hub" in shown


def test_a_plan_counts_what_they_declare(python, tmp_path):
    shown = python("-m", "harness", "run", *CHOSEN, "--dry-run", cwd=tmp_path)
    assert "vowels/letter_table seed 0" in shown and "someone/letters" in shown
    flops = json.loads(python("-c", FACTS, cwd=tmp_path))
    more = {reward: [b - a for a, b in zip(found, found[1:], strict=False)] for reward, found in flops.items()}
    for first, second in more.values():  # a hundred texts more cost the same each time
        assert first == pytest.approx(second) and first > 0
    # A forward pass for each of four targets, against one pass with its gradient, which is three.
    assert more["letter_table"][0] / more["adam_metagrad"][0] == pytest.approx(4 / 3)
    # And plain trainings, where the other differentiates through its own.
    assert flops["letter_table"][0] < flops["adam_metagrad"][0]


def test_fetch_gets_the_asset_that_an_option_names(python, tmp_path):
    python("-m", "harness", "fetch", "--profile", "tiny", *CHOSEN, cwd=tmp_path)
    (row,) = json.loads((tmp_path / "tiny.lock.json").read_text())["assets"]
    assert (row["ref"], row["commit"]) == ("someone/letters", COMMIT)


@pytest.fixture(scope="module")
def ran(python, quick, tmp_path_factory) -> tuple[Path, str]:
    """(folder of a run of both, what it printed)."""
    folder = tmp_path_factory.mktemp("run")
    given = [part for key, value in quick().items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return folder, python("-m", "harness", "run", *CHOSEN, *given, "--workers", "0", "--out", "runs", cwd=folder)


def test_the_table_has_their_columns(ran):
    folder, shown = ran
    assert "vowel share, higher is better" in shown
    head = next(
        line for line in (folder / "runs" / "tiny" / "table.md").read_text().splitlines() if line.startswith("| reward")
    )
    assert "| spread / untuned | letters | zero spread |" in head


def test_the_report_draws_their_figure(ran, python):
    folder, _ = ran
    python("-m", "harness", "report", "runs", "--out", "site", cwd=folder)
    assert (folder / "site" / "figures" / "vowels-tiny.svg").stat().st_size > 1000
    page = (folder / "site" / "index.html").read_text(encoding="utf-8")
    assert "Vowels and letters, tiny" in page and "What the task looks at." in page


def test_where_the_package_is_missing_the_record_alone_makes_a_table(ran):
    """This interpreter does not have it: the headline stands, and the first measures that were stored."""
    wide, long = load(ran[0] / "runs")
    head = next(line for line in tables.markdown(wide, long).splitlines() if line.startswith("| reward"))
    assert "| dull | letters | zero spread |" in head
    curves = figures.reduce(wide, long)
    assert figures.task_figures(curves) == [] and len(figures.learning_curves(curves)) == 2
