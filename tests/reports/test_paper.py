"""The page in the paper's order: every kind of piece from stored results, and what is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import api
from harness.evaluation import records as trials
from harness.registry import TASKS
from harness.signals import theorem
from harness.store.atomic import write_json
from harness.store.frames import find_cells, load
from reports import claims, evaluations, figures, gather, paper, site, summary
from tests.reports.test_claims import trial

SECTIONS: list[dict[str, Any]] = [
    {"place": "Theorem 3.1", "title": "slopes", "theorem": "t"},
    {"place": "Figure 1", "title": "pictures", "pictures": "67"},
    {"place": "Figure 3", "title": "grid", "grid": {"task": "67", "parts": ["p", "own-groups"]}},
    {"place": "Figure 4", "title": "curves", "figures": ["figure-4"]},
    {
        "place": "Appendix C",
        "title": "data",
        "reported": [
            {
                "title": "own",
                "ours": "own",
                "columns": {"lambada_es": "ES", "lambada_de": "DE"},
                "rows": {"before": ["200", "100"], "x": ["50", "90"]},
            }
        ],
    },
    {"place": "Appendix D", "title": "<i>texts</i>", "samples": ["lambada_es", "uuid"]},
    {"place": "Figure 9", "title": "nothing", "pictures": "qr"},
]


@pytest.fixture(scope="module")
def results(tmp_path_factory, generate) -> Path:
    """Cells of two tasks with decided claims; the last reward's cells of `67` are the part own-groups."""
    folder = tmp_path_factory.mktemp("decided")
    generate(folder, tasks=("67", "lambada_es"), rewards=("adam_metagrad", "naive"))
    records = [cell.read() for cell in find_cells(folder)]
    own = [each.identity for each in records if (each.task, each.reward) == ("67", "naive")]
    claim = {"id": "c", "says": "it moves", "verdict": "holds", "place": "Figure 4"}
    parts = {"p": [each.identity for each in records if each.identity not in own], "own-groups": own}
    profile = records[0].profile
    write_json(
        folder / profile / claims.FILE,
        {"suite": "s", "profile": profile, "claims": [claim], "parts": parts, "sections": SECTIONS},
    )
    slopes = [theorem.Slope("batch", "sgd", None, world, -1.0 - world / 100) for world in range(3)]
    write_json(folder / profile / theorem.FILE, {"worlds": 3, "slopes": [vars(each) for each in slopes]})
    rows = [trial("before", 0, -2.0), trial("x", 0, -1.0), trial("x", 1, -1.2)]
    trials.write_packed(folder, [each.model_copy(update={"profile": profile}) for each in rows])
    return folder


@pytest.fixture(scope="module")
def shown(results: Path) -> dict[str, paper.Shown]:
    wide, long = load(results)
    wide = summary.prepared(wide)
    blocks = summary.blocks(wide)
    curves = figures.task_figures(figures.reduce(wide, long, blocks))
    (found,) = claims.stored(results)
    worth = evaluations.rows(trials.load(results))
    labels = site.row_labels(wide, blocks)
    made = paper.shown(results, found, wide, labels, gather.drawn(wide), curves, worth)
    assert [each.place for each in made] == [section["place"] for section in SECTIONS]
    return {each.place: each for each in made}


def test_claims_stand_where_the_paper_has_them(shown):
    assert [len(each.claims) for each in shown.values()] == [0, 0, 0, 1, 0, 0, 0]


def test_curves_are_those_that_tasks_declare(shown):
    (drawn,) = shown["Figure 4"].figures
    assert drawn.key.startswith(TASKS.get("lambada_es").declares.figure.key)


def test_final_pictures_lie_in_a_grid_of_signals_and_variants(shown):
    grid = shown["Figure 3"].grid
    assert [label for label, _ in grid.rows] == ["adam_metagrad", "naive, own groups"]
    assert all(len(cells) == len(grid.heads) - 1 for _, cells in grid.rows)
    picture, value = grid.rows[0][1][0]
    assert picture.name == paper.DECODED and value in picture.alt
    assert shown["Figure 1"].pictures and not shown["Figure 9"].pictures


def test_the_papers_numbers_stand_beside_ours(shown):
    (table,) = shown["Appendix C"].tables
    assert table.heads == ["trained on", "ES, paper", "ES, here", "DE, paper", "DE, here"]
    left = np.exp(-np.mean([2.0 - 1.0, 2.0 - 1.2]))
    assert table.rows[1] == ["x", "50\n25%", f"{np.exp(1.1):.4g}\n{left:.0%}", "90\n90%", "-"]


def test_slopes_of_the_theorem(shown):
    (table,) = shown["Theorem 3.1"].tables
    assert table.rows[0][:3] == ["batch", "sgd", "-1.01"] and table.rows[0][-1] == "3"


def test_worlds_are_not_counted_once_a_profile(decided):
    path = next(decided.rglob(theorem.FILE))
    (decided / "other").mkdir()
    (decided / "other" / theorem.FILE).write_bytes(path.read_bytes())
    page = api.report(decided, decided / "site")
    table = (page.parent / "report.md").read_text().split("slope of its logarithm")[1].split("###")[0]
    assert "| 3 |" in table and "| 6 |" not in table


def test_a_text_of_every_signal(shown):
    ((task, texts),) = shown["Appendix D"].texts
    assert task == "lambada_es" and [label for label, _ in texts] == ["adam_metagrad", "naive"]


def test_page_and_markdown_hold_the_pieces_as_text(results, tmp_path):
    page = api.report(results, tmp_path / "site").read_text()
    assert 'id="panel-pieces"' in page and "&lt;i&gt;texts" in page and "<i>texts" not in page
    assert "Nothing of it was run here." in page
    text = (tmp_path / "site" / "report.md").read_text()
    assert "## Piece by piece: s" in text and "50 25%" in text and "<i>" not in text


def test_a_packed_study_keeps_claims_and_slopes(results, tmp_path):
    from tests.helpers.command import run_harness

    assert run_harness("pack", str(results), "study", cwd=tmp_path).code == 0
    page = api.report(tmp_path / "study", tmp_path / "site").read_text()
    assert 'id="panel-pieces"' in page and "-1.01" in page


@pytest.mark.parametrize("content", ["{", '{"worlds": 3}', '{"worlds": 3, "slopes": [{"value": "x"}]}', "[]"])
def test_slopes_that_cannot_be_read_are_said(content, decided, tmp_path):
    next(decided.rglob(theorem.FILE)).write_text(json.dumps(content) if content == "[]" else content)
    assert "damaged" in api.report(decided, tmp_path / "site").read_text()


@pytest.fixture
def decided(results, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(results, tmp_path / "copy"))
