from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.store.frames import find_cells, load
from harness.store.record import CellRecord, CellStore
from reports import summary, tables


def test_the_untuned_generator_comes_first_and_rewards_follow_best_first(runs: Path) -> None:
    text = tables.markdown(*load(runs))
    block = text[text.index("### lambada_es") :]
    names = [line.split("|")[1].strip() for line in block.splitlines() if line.startswith("|")]
    assert names[2] == tables.UNTUNED
    assert names[3:9] == ["adam_metagrad", "sgd_metagrad", "fasttext", "embedding", "levenshtein", "naive"]


def test_median_gain_and_measures_of_a_row_are_those_of_the_records(runs: Path) -> None:
    wide, _ = load(runs)
    block = next(block for block in summary.blocks(wide) if block.task == "lambada_es")
    row = next(row for row in block.rows if row.reward == "fasttext")
    stored = [store.read() for store in find_cells(runs / "tiny" / "lambada_es" / "fasttext")]
    records = sorted((record for record in stored if record), key=lambda record: record.seed)
    assert row.seeds == (0, 1, 2)
    assert row.headline.tolist() == [record.headline for record in records]
    assert row.gain.tolist() == [record.headline - record.floor for record in records]  # type: ignore[operator]
    relative = sorted(record.final["bigram_entropy"] / record.initial["bigram_entropy"] for record in records)
    assert row.measures["bigram_entropy"] == relative[1] < 0.8


def test_where_lower_is_better_the_lowest_leads_and_its_gain_is_positive(
    tmp_path: Path, generate: Callable[..., int]
) -> None:
    generate(tmp_path, tasks=("norm",), rewards=("naive", "adam_metagrad"))
    (block,) = summary.blocks(load(tmp_path)[0])
    assert [row.reward for row in block.rows] == ["adam_metagrad", "naive"]
    assert (block.rows[0].gain > 0).all()


def test_cells_that_did_not_finish_are_rows_with_their_reason(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(tmp_path, tasks=("67",), rewards=("naive", "embedding"))
    store = find_cells(tmp_path / "tiny" / "67" / "naive")[0]
    record = store.read()
    assert record is not None
    store.write(record.model_copy(update={"status": "failed", "reason": "SignalError: NaN at example 3"}))
    text = tables.markdown(*load(tmp_path))
    assert "unsupported: the task has no reference texts" in text
    assert "2 done, 1 failed (failed: SignalError: NaN at example 3)" in text
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(tables.rich(*load(tmp_path)))
    shown = console.export_text()
    assert "naive: 2 done, 1 failed (failed: SignalError: NaN at example 3)" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_two_sets_of_settings_are_two_rows_not_one_median(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(tmp_path, tasks=("67",), rewards=("naive",), assignments={"grpo.lr": 4e-4})
    generate(tmp_path, tasks=("67",), rewards=("naive",), assignments={"grpo.lr": 1e-3})
    (block,) = summary.blocks(load(tmp_path)[0])
    assert [row.seeds for row in block.rows] == [(0, 1, 2)] * 2
    assert sorted(row.label for row in block.rows) == ["naive (lr 0.001)", "naive (lr 4e-4)"]
    wide, long = load(tmp_path)
    assert sorted(set(wide["grpo.lr"])) == sorted(set(long["grpo.lr"])) == [4e-4, 1e-3]
    assert "grpo.steps" not in wide and len(long) == sum(len(cell.curves()) for cell in find_cells(tmp_path))


def test_a_cell_stored_by_two_machines_counts_once_and_the_finished_one_wins(
    tmp_path: Path, generate: Callable[..., int]
) -> None:
    for machine in ("a", "b"):
        generate(tmp_path / machine, tasks=("67",), rewards=("naive",))
    store = find_cells(tmp_path / "a")[0]
    record = store.read()
    assert record is not None
    store.write(record.model_copy(update={"status": "interrupted", "reason": "stopped"}))
    (block,) = summary.blocks(load(tmp_path)[0])
    assert block.rows[0].counts == {"done": 3}


def test_the_terminal_table_is_whole_at_100_columns(runs: Path) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(tables.rich(*load(runs)))
    lines = console.export_text().splitlines()
    lines = lines[next(i for i, line in enumerate(lines) if line.startswith("lambada_es")) :]
    row = next(line for line in lines if line.startswith("adam_metagrad ") and "min" in line and "/" not in line)
    assert row.rstrip().endswith(" 3"), "the last column, the number of seeds, is cut off"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_gets_fewer_columns_and_whole_names(
    width: int, tmp_path: Path, generate: Callable[..., int]
) -> None:
    for rate in (1e-4, 3e-4):
        generate(tmp_path, tasks=("lambada_es",), rewards=("adam_metagrad",), assignments={"grpo.lr": rate})
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(tables.rich(*load(tmp_path)))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    lines = lines[: next(number for number, line in enumerate(lines) if line.startswith("Over seeds"))]
    for rate in ("1e-4", "3e-4"):
        (row,) = [line for line in lines if line.startswith(f"adam_metagrad (lr {rate}) ")]
        assert row.rstrip().endswith(" 3")
    assert any(line.startswith("Not shown at this width: ") for line in lines) == (width < 100)


def test_where_the_time_went_is_a_sentence(runs: Path) -> None:
    wide, _ = load(runs)
    said = tables.spent(wide[wide["status"] == "done"])
    assert "in 27 cells: load 1%, generation 36%" in said and said.startswith("Where the time went: ")
    assert tables.spent(wide[:0]) == ""


def test_text_from_a_run_stays_text_in_markdown() -> None:
    hostile = "<script>x</script> | [a](http://b) `c` @someone\n**bold** #1 ![i](j)"
    shown = tables.escape(hostile)
    assert "\n" not in shown and "<" not in shown and "@s" not in shown and "://" not in shown
    for mark in "|[]`*#!":
        assert mark in shown and all(shown[i - 1] == "\\" for i, character in enumerate(shown) if character == mark)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (133.86, "133.9"),
        (0.0, "0"),
        (1.5e-9, "1.5e-09"),
        (math.nan, "-"),
        (None, "-"),
        (1234567.0, "1.235e+06"),
        (50257.4, "5.026e+04"),
        (20.0, "20"),
    ],
)
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert summary.number(value) == text


def test_nothing_stored_is_said_in_a_sentence(tmp_path: Path) -> None:
    assert tables.markdown(*load(tmp_path)) == "No cells are stored yet.\n"


def test_a_record_without_any_finished_cell_has_no_floor(tmp_path: Path) -> None:
    record = CellRecord(profile="p", task="t", reward="r", seed=0, identity="0", status="failed", reason="no")
    CellStore.of(tmp_path, record).write(record)
    text = tables.markdown(*load(tmp_path))
    assert "| untuned generator | - |" in text and "failed: no" in text


def test_a_seed_with_more_rewards_does_not_weigh_more_in_the_floor(tmp_path: Path) -> None:
    """One reward with floors 0.4, 0.6 and 0.5, two more on the first seed: 0.5, where the cells' median is 0.4."""
    floors = {0: 0.4, 1: 0.6, 2: 0.5}
    for reward, seeds in (("a", (0, 1, 2)), ("b", (0,)), ("c", (0,))):
        for seed in seeds:
            record = CellRecord(
                profile="p",
                task="t",
                reward=reward,
                seed=seed,
                identity=f"{reward}{seed}",
                status="done",
                measure="m",
                direction="higher",
                headline=0.9,
                floor=floors[seed],
            )
            CellStore.of(tmp_path, record).write(record)
    (block,) = summary.blocks(load(tmp_path)[0])
    assert block.floor == 0.5


def test_the_others_are_compared_with_what_declares_itself_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert summary.baseline(["adam_metagrad", "naive", "sgd_metagrad"]) == "naive"
    assert summary.baseline(["adam_metagrad", "sgd_metagrad"]) == "naive", "a page then says that it is missing"
    monkeypatch.setattr(summary, "REWARDS", [])
    assert summary.baseline(["adam_metagrad", "naive"]) == "adam_metagrad"


def test_the_matrix_has_a_line_a_task_and_a_column_a_reward(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(tmp_path, tasks=("67", "lambada_es"), rewards=("naive", "embedding"))
    blocks = summary.blocks(load(tmp_path)[0])
    head, rule, *lines = tables.markdown_matrix(blocks).splitlines()
    assert head == "| task | untuned | embedding | naive | best possible |" and rule.count("---") == 5
    assert [line.split(":")[0] for line in lines] == ["| 67 (tiny)", "| lambada_es (tiny)"]
    for line, block in zip(lines, blocks, strict=True):
        cells = [cell.strip() for cell in line.split("|")[2:6]]
        row = next(row for row in block.rows if row.reward == "naive")
        assert cells[0] == summary.shown(block.floor, block.unit)
        assert cells[2] == f"{summary.shown(row.median, block.unit)} ({summary.points(row.headline, block.unit)})"
    assert "| unsupported |" in lines[0], "a pair that could not run says so"
