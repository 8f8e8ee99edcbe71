from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.contracts import HarnessError
from harness.store.frames import find_cells
from harness.store.record import CellStore
from reports import diff

Generate = Callable[..., int]
LAMBADA = {"tasks": ("lambada_es", "lambada_de"), "rewards": ("adam_metagrad", "naive", "fasttext")}


def verdicts(result: diff.DiffResult) -> dict[tuple[str, str], str]:
    return {(row.task, row.reward): row.verdict for row in result.rows}


def change(folder: Path, **updates: object) -> None:
    """Rewrites every record below a folder."""
    for store in find_cells(folder):
        record = store.read()
        assert record is not None
        store.write(record.model_copy(update=updates))


def test_results_against_themselves_are_all_the_same(runs: Path) -> None:
    result = diff.compare(runs, runs)
    assert (result.exit_code, set(verdicts(result).values())) == (0, {"same"})
    assert "unsupported" in next(row.reason for row in result.rows if row.reward == "embedding" and row.task == "67")


def test_a_planted_regression_is_caught_and_named(tmp_path: Path, generate: Generate) -> None:
    generate(tmp_path / "base", **LAMBADA)
    generate(tmp_path / "new", **LAMBADA, salt=1, shift={("lambada_es", "adam_metagrad"): -0.25})
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert result.exit_code == 1 and "lambada_es / adam_metagrad" in result.reason
    found = verdicts(result)
    assert found.pop(("lambada_es", "adam_metagrad")) == "worse"
    assert set(found.values()) == {"same"}
    assert diff.compare(tmp_path / "new", tmp_path / "base").rows[0].verdict == "improved"


def test_with_many_seeds_a_small_regression_is_caught_by_its_statistics(tmp_path: Path, generate: Generate) -> None:
    many = {**LAMBADA, "tasks": ("lambada_es",), "seeds": range(8), "steps": 5}
    generate(tmp_path / "base", **many)
    generate(tmp_path / "new", **many, salt=1, shift={("lambada_es", "fasttext"): -0.09})
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    row = next(row for row in result.rows if row.reward == "fasttext")
    assert row.verdict == "worse" and "Holm" in row.reason and max(row.in_tolerances) > -diff.CLEAR


@pytest.mark.parametrize("salt", range(6))
def test_a_noisy_second_run_is_no_regression(salt: int, tmp_path: Path, generate: Generate) -> None:
    """Five points of noise on a share, as between two machines that round differently."""
    generate(tmp_path / "base", **LAMBADA, noise=0.05, steps=5)
    generate(tmp_path / "new", **LAMBADA, noise=0.05, steps=5, salt=salt + 1)
    assert diff.compare(tmp_path / "base", tmp_path / "new").exit_code == 0


def test_other_seeds_cannot_be_compared_and_are_not_worse(tmp_path: Path, generate: Generate) -> None:
    generate(tmp_path / "base", **LAMBADA, seeds=(0, 1))
    generate(tmp_path / "new", **LAMBADA, seeds=(2, 3), shift={("lambada_es", "adam_metagrad"): -0.5})
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert result.exit_code == 2 and "no common seeds (BASE has 0, 1; NEW has 2, 3)" in result.reason
    assert set(verdicts(result).values()) == {"not comparable"}


def test_another_profile_cannot_be_compared(tmp_path: Path, generate: Generate) -> None:
    for name in ("base", "new"):
        generate(tmp_path / name, tasks=("67",), rewards=("naive",), seeds=(0,))
    change(tmp_path / "new", profile="small")
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert result.exit_code == 2 and "other profile, BASE has tiny and NEW has small" in result.reason


def test_other_settings_are_named(tmp_path: Path, generate: Generate) -> None:
    generate(tmp_path / "base", tasks=("67",), rewards=("naive",))
    generate(tmp_path / "new", tasks=("67",), rewards=("naive",), assignments={"grpo.lr": 1e-3})
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert result.exit_code == 2 and "other settings: grpo.lr" in result.reason and "-> 0.001" in result.reason


def test_two_sets_of_settings_under_one_name_are_compared_each_with_its_own(tmp_path: Path, generate: Generate) -> None:
    one = {"tasks": ("lambada_es",), "rewards": ("adam_metagrad",)}
    for name, drop in (("base", 0.0), ("new", -0.4)):
        generate(tmp_path / name, **one, assignments={"grpo.lr": 3e-4})
        generate(tmp_path / name, **one, assignments={"grpo.lr": 1e-3}, shift={("lambada_es", "adam_metagrad"): drop})
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert sorted(row.verdict for row in result.rows) == ["same", "worse"]
    assert all(row.seeds == (0, 1, 2) and row.name.endswith(("(lr 3e-4)", "(lr 0.001)")) for row in result.rows)


def test_other_assets_are_named_and_neutral_settings_do_not_matter(tmp_path: Path, generate: Generate) -> None:
    generate(tmp_path / "base", tasks=("67",), rewards=("naive",))
    generate(tmp_path / "new", tasks=("67",), rewards=("naive",), assignments={"validation.samples": 1})
    assert diff.compare(tmp_path / "base", tmp_path / "new").exit_code == 0
    change(tmp_path / "new", assets={"embedded:target": "abc"})
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert result.exit_code == 2 and "other assets: embedded:target absent -> abc" in result.reason


def test_missing_rows_are_listed_and_only_a_partial_comparison_forgives_them(
    tmp_path: Path, generate: Generate
) -> None:
    generate(tmp_path / "base", **LAMBADA)
    generate(tmp_path / "new", **{**LAMBADA, "rewards": ("adam_metagrad", "embedding")})
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert result.exit_code == 2
    assert (
        verdicts(result)["lambada_es", "naive"] == "missing" and verdicts(result)["lambada_es", "embedding"] == "added"
    )
    assert diff.compare(tmp_path / "base", tmp_path / "new", partial=True).exit_code == 0
    shutil.rmtree(tmp_path / "new")
    generate(tmp_path / "new", tasks=("norm",), rewards=("naive",))
    assert diff.compare(tmp_path / "base", tmp_path / "new", partial=True).exit_code == 2


@pytest.mark.parametrize("status", ["failed", "unsupported"])
def test_a_cell_that_used_to_finish_is_worse_with_its_reason(status: str, tmp_path: Path, generate: Generate) -> None:
    for name in ("base", "new"):
        generate(tmp_path / name, tasks=("67",), rewards=("naive",))
    store: CellStore = find_cells(tmp_path / "new")[1]
    record = store.read()
    assert record is not None
    store.write(record.model_copy(update={"status": status, "reason": "SignalError: NaN"}))
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert result.exit_code == 1 and f"now {status}: SignalError: NaN" in result.rows[0].reason
    change(tmp_path / "new", status=status, reason="gone")
    assert diff.compare(tmp_path / "base", tmp_path / "new").rows[0].verdict == "worse"
    assert diff.compare(tmp_path / "new", tmp_path / "base").rows[0].verdict == "improved"


def test_a_run_that_was_stopped_is_missing_not_worse(tmp_path: Path, generate: Generate) -> None:
    for name in ("base", "new"):
        generate(tmp_path / name, tasks=("67",), rewards=("naive",))
    change(tmp_path / "new", status="interrupted", reason="stopped by the user after step 3")
    result = diff.compare(tmp_path / "base", tmp_path / "new")
    assert result.exit_code == 2 and result.rows[0].verdict == "missing" and "after step 3" in result.reason


def test_one_seed_needs_a_clear_change(tmp_path: Path, generate: Generate) -> None:
    one = {"tasks": ("lambada_es",), "rewards": ("adam_metagrad",), "seeds": (0,), "noise": 0.0}
    generate(tmp_path / "base", **one)
    for drop, verdict in ((-0.1, "same"), (-0.2, "worse")):
        generate(tmp_path / f"new{drop}", **one, shift={("lambada_es", "adam_metagrad"): drop})
        assert diff.compare(tmp_path / "base", tmp_path / f"new{drop}").rows[0].verdict == verdict


def test_where_lower_is_better_a_rise_is_worse(tmp_path: Path, generate: Generate) -> None:
    norm = {"tasks": ("norm",), "rewards": ("adam_metagrad",)}
    generate(tmp_path / "base", **norm)
    generate(tmp_path / "new", **norm, shift={("norm", "adam_metagrad"): -0.4})
    row = diff.compare(tmp_path / "base", tmp_path / "new").rows[0]
    assert row.new > row.base and row.verdict == "worse" and row.interval is not None and row.interval.mean < 0


def test_the_tolerance_is_what_one_says(tmp_path: Path, generate: Generate) -> None:
    one = {"tasks": ("lambada_es",), "rewards": ("adam_metagrad",), "seeds": (0,), "noise": 0.0}
    generate(tmp_path / "base", **one)
    generate(tmp_path / "new", **one, shift={("lambada_es", "adam_metagrad"): -0.1})
    assert diff.compare(tmp_path / "base", tmp_path / "new", tolerance=0.01).exit_code == 1
    with pytest.raises(HarnessError, match="above 0"):
        diff.compare(tmp_path / "base", tmp_path / "new", tolerance=0.0)


def test_no_results_is_a_sentence(tmp_path: Path, runs: Path) -> None:
    with pytest.raises(HarnessError, match="no results"):
        diff.compare(runs, tmp_path)
    with pytest.raises(HarnessError, match="no folder"):
        diff.compare(tmp_path / "nowhere", runs)


def test_both_renderings_hold_every_row_and_the_reason(tmp_path: Path, runs: Path) -> None:
    result = diff.compare(runs, runs)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(result.rich())
    shown = console.export_text()
    for row in result.rows:
        assert row.name in result.markdown() and row.name in shown
    assert result.reason in result.markdown() and result.reason in shown
