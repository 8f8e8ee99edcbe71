from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from harness.store.frames import load
from reports import aggregate, answer, figures, measured, stats, summary, tables

PLACE = {"profile": "tiny", "reward": "naive", "status": "done"}


def said(*cells: tuple[str, int, float, dict[str, object]]) -> list[str]:
    """ways() of cells given as (task, seed, floor, settings)."""
    rows = [PLACE | {"task": task, "seed": seed, "floor": floor} for task, seed, floor, _ in cells]
    return measured.ways(pandas.DataFrame(rows), [view for *_, view in cells])


def view(steps: int, *, longer: int | None = None, prompts: int = 8, held_out: str = "test") -> dict[str, object]:
    return {
        "inner.steps": steps,
        "validation.inner_steps": longer,
        "validation.prompts": prompts,
        "data.held_out": held_out,
    }


def test_cells_with_other_floors_on_one_seed_are_named_by_what_differs() -> None:
    found = said(("norm", 3, -0.1, view(1)), ("norm", 3, -0.7, view(1, longer=96)), ("norm", 4, -0.1, view(1)))
    assert found == ["validated at T=1", "validated at T=96", "validated at T=1"]
    found = said(("norm", 3, -0.1, view(8, prompts=4)), ("norm", 3, -0.2, view(8, held_out="validation")))
    assert found == ["validated on 4 prompts, on the test split", "validated on 8 prompts, on the validation split"]


def test_a_length_that_leaves_the_floor_as_it_is_makes_no_difference() -> None:
    assert said(("lambada_es", 3, 0.1, view(1)), ("lambada_es", 3, 0.1, view(8))) == ["", ""]
    assert said(("norm", 3, -0.1, view(1)), ("norm", 4, -0.7, view(8))) == ["", ""], "nothing says whether it does"


@pytest.mark.parametrize("floor", [float("nan"), None])
def test_cells_without_a_floor_or_settings_say_nothing(floor: float | None) -> None:
    assert said(("norm", 3, floor, view(1)), ("norm", 3, -0.7, view(8))) == ["", ""]  # type: ignore[arg-type]
    assert said(("norm", 3, -0.1, {}), ("norm", 3, -0.7, view(8))) == ["", ""]


@pytest.fixture(scope="module")
def grid() -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """The kept cells of `67` and `norm`: some validated at T = 1, those over T at 96."""
    wide, long = load(Path(__file__).parents[2] / "reports" / "studies" / "paper")
    return wide[wide["task"].isin(["67", "norm"])].reset_index(drop=True), long[long["task"].isin(["67", "norm"])]


def test_what_was_validated_otherwise_is_a_table_of_its_own(grid: tuple[pandas.DataFrame, pandas.DataFrame]) -> None:
    blocks = summary.blocks(grid[0])
    assert [block.heading for block in blocks] == [
        f"{task} (tiny, validated at T={steps})" for task in ("67", "norm") for steps in (1, 96)
    ], "the profile's own settings first"
    for block in blocks:
        assert all((row.variant == "") == block.heading.endswith("T=1)") for row in block.rows)
        labels = {row.label for row in block.rows}
        assert {name for pair in stats.pairs(block) for name in (pair.name, pair.reference)} == labels
    text = tables.markdown(*grid)
    assert all(f"### {block.heading}" in text for block in blocks)
    assert [each.heading for each in answer.answers(blocks)] == [block.heading for block in blocks]
    picture = answer.picture(blocks, figures.reduce(*grid, blocks))
    assert picture is not None
    assert [panel.title for panel in picture.panels] == [f"{block.task}, {block.measured}" for block in blocks]
    shown = [{line.name for line in panel.series} for panel in picture.panels]
    assert shown == [{row.label for row in block.rows} for block in blocks]


def test_over_tasks_stands_what_has_the_profiles_own_settings(
    grid: tuple[pandas.DataFrame, pandas.DataFrame],
) -> None:
    wide = grid[0]
    blocks = summary.blocks(pandas.concat([wide, wide.assign(seed=wide["seed"] + 100)]))
    (together,) = [each for each in aggregate.tables(blocks, "naive") if each.heading.startswith("All of 67, norm")]
    assert {row.label for row in together.rows} == {"adam_metagrad", "naive", "sgd_metagrad"}
