"""The README's commands are the ones that are run."""

from __future__ import annotations

import re
from functools import cache
from statistics import median

import pytest

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


def test_the_tables_are_the_studys():
    """Every row that the study makes stands in the README, and on its own page, as it is."""
    from harness.store.frames import load
    from reports import tables

    study = ROOT / "reports" / "studies" / "tuned"
    rows = [line for line in tables.markdown(*load(study)).splitlines() if line.startswith("| ")]
    assert len(rows) > 2 * len(REWARDS.names())
    for page in (ROOT / "README.md", study / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert [row for row in rows if row not in text] == []


def test_the_other_tasks_are_those_of_the_suite():
    text = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    lines = matrix_of_the_suite()
    assert len(lines) > 5 and [line for line in lines if line not in text] == []


# ---------------------------------------------------------------------------------------- figures in sentences


@cache
def cells_of(study):
    from harness.store.frames import load

    wide, _ = load(ROOT / "reports" / "studies" / study)
    return wide[wide.status == "done"].sort_values("seed")


def seeds(study, task, reward, *columns):
    """By seed, of the plain cells (no variant): the headline, a column, or the first column less the second."""
    cells = cells_of(study).query("task == @task and reward == @reward and variant == ''")
    assert len(cells)
    first, *second = columns or ["headline"]
    return list(cells[first] - cells[second[0]] if second else cells[first])


def percent(*values, digits=0):
    """ "3, 16 and 20 %"; with a sign each: "3 %, 16 % and 20 %"."""
    return [f"{100 * value:.{digits}f} %" for value in values]


def listed(words):
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


TUNED = "tuned"
SUITE = "paper"
OTHERS = ("de", "fr", "it")


def varied(reward):
    """Medians over seeds: bigram entropy over the untuned generator's, and distinct word pairs."""
    cells = cells_of(TUNED).query("reward == @reward")
    return median(cells.final_bigram_entropy / cells.initial_bigram_entropy), median(cells.final_distinct_2)


def bare(values):
    """As "0, 8 and 39": percent without its sign."""
    return listed([f"{100 * value:.0f}" for value in sorted(values)])


def ends(reward):
    values = sorted(seeds(TUNED, "lambada_es", reward))
    return f"{100 * values[0]:.0f} to {percent(values[-1])[0]}"


SIMILAR = ("embedding", "fasttext", "levenshtein")


def spread(*rewards):
    """Lowest to highest share of the language over German, French and Italian."""
    values = [value for code in OTHERS for reward in rewards for value in seeds(SUITE, f"lambada_{code}", reward)]
    return f"{100 * min(values):.0f} to {percent(max(values))[0]}"


def of_norm():
    """(adam_metagrad, sgd_metagrad, naive) of every seed."""
    return list(zip(*(seeds(SUITE, "norm", name) for name in ("adam_metagrad", "sgd_metagrad", "naive")), strict=True))


def flat_norms():
    return sum(value == 0 for value in seeds(SUITE, "norm", "sgd_metagrad", "final_bigram_entropy"))


def matrix_of_the_suite():
    """Lines of the tasks x rewards table; Spanish has the ten seeds of another study."""
    from reports import summary, tables

    wide = cells_of(SUITE)
    return tables.markdown_matrix(summary.blocks(wide[wide.task != "lambada_es"])).splitlines()


def parts_of_uuid(reward):
    """Components that every rollout of the one seed holds."""
    return sum(seeds(SUITE, "uuid", reward, f"final_component_{k}") == [1.0] for k in range(1, 6))


SENTENCES = {
    "metagradients find Spanish": lambda: (
        "finds it on every seed ({}) and keeps the texts as varied as the untuned generator's (bigram entropy {}, "
        "distinct word pairs {})"
    ).format(ends("adam_metagrad"), *percent(*varied("adam_metagrad"))),
    "naive gets nowhere": lambda: f"gets nowhere ({ends('naive')})",
    "SGD depends on the seed": lambda: (
        f"`sgd_metagrad` depends on the seed ({bare(seeds(TUNED, 'lambada_es', 'sgd_metagrad'))} %)"
    ),
    "similarity and variety": lambda: (
        "on one seed of the ten ({}); `levenshtein` then repeats itself (entropy {}, distinct word pairs {}), the "
        "other two hardly do at the rate that was chosen for them ({}; {} %)"
    ).format(
        percent(min(seeds(TUNED, "lambada_es", "embedding")))[0],
        *percent(*varied("levenshtein")),
        percent(varied("embedding")[0])[0],
        bare([varied("embedding")[1], varied("fasttext")[1]]),
    ),
    "the UUID": lambda: (
        f"`adam_metagrad` {percent(min(seeds(SUITE, 'uuid', 'adam_metagrad')))[0]} of the greedy rollouts of each seed"
    ),
    "others on the UUID": lambda: "ends with {} of the five components in every text".format(
        ["none", "one", "two"][parts_of_uuid("sgd_metagrad")]
    ),
    "naive on the UUID": lambda: "`naive` with {}.".format(["none", "one", "two"][parts_of_uuid("naive")]),
    "the QR code": lambda: f"({listed(percent(*seeds(SUITE, 'qr', 'adam_metagrad'), digits=1))} of its 21x21 modules)",
    "the norm": lambda: (
        "`adam_metagrad` lowers the norm of the target's head further than `sgd_metagrad` and `naive` on "
        f"{sum(ours < min(others) for ours, *others in of_norm())} of {len(of_norm())} seeds"
    ),
    "one text": lambda: f"`sgd_metagrad`'s texts have no two different pairs of words left on {flat_norms()} of them",
    "the other languages": lambda: (
        "`adam_metagrad` finds each of them on every seed ({}); `naive` hardly moves ({}), and `sgd_metagrad` depends "
        "on the seed ({}). The similarity rewards reach {}"
    ).format(*(spread(*rewards) for rewards in (["adam_metagrad"], ["naive"], ["sgd_metagrad"], SIMILAR))),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_figures_in_sentences_are_the_studies(what):
    """A sentence with figures is made from the study that it speaks of, and must stand in the README as it is."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert SENTENCES[what]() in text
