"""A packed study gives the reports that its results folder gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.signals import records
from harness.store.atomic import write_json
from harness.store.frames import find_cells, load
from harness.store.study import write_study
from reports import diff, site, tables

Generate = Callable[..., int]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, generate: Generate) -> tuple[Path, Path]:
    """The same results in folders and packed."""
    folder = tmp_path_factory.mktemp("places")
    generate(folder / "runs", rewards=("adam_metagrad", "embedding", "naive"), tasks=("lambada_es", "67"))
    write_study(folder / "study", find_cells(folder / "runs"))
    return folder / "runs", folder / "study"


def test_the_table_is_the_same(places: tuple[Path, Path]) -> None:
    runs, study = (tables.markdown(*load(place)) for place in places)
    assert runs == study and "### lambada_es" in runs and "unsupported" in runs


def test_the_site_is_the_same_to_the_last_byte(places: tuple[Path, Path], tmp_path: Path) -> None:
    contents = []
    for place in places:
        site.build(place, tmp_path / place.name)
        files = [path for path in (tmp_path / place.name).rglob("*") if path.is_file()]
        contents.append({str(path.relative_to(tmp_path / place.name)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    pictures = [name for name in contents[0] if name.startswith("pictures/")]
    assert len(pictures) == 2 * 3 * 3 and any(
        re.fullmatch(r"pictures/tiny/67/naive/.*/decoded.png", n) for n in pictures
    )


def test_nothing_differs_between_the_two(places: tuple[Path, Path]) -> None:
    for base, new in (places, places[::-1]):
        found = diff.compare(base, new)
        assert found.exit_code == 0 and {row.verdict for row in found.rows} == {"same"}


def test_a_part_of_a_study_is_a_place_of_its_own(places: tuple[Path, Path]) -> None:
    runs, study = (tables.markdown(*load(place / "tiny" / "67")) for place in places)
    assert runs == study and "lambada" not in runs


def toy() -> records.Judged:
    """A pool, a truth and a signal; the numbers mean nothing."""
    parts = dict(texts=["a", "b\u2028"], groups=[0, 0], sources=["generator"] * 2, articles=["x"] * 2)
    pool = records.PoolRecord(
        profile="tiny",
        task="norm",
        seed=0,
        identity="id0",
        spec=records.Spec(),
        **parts,
        halves=[[0]],
        removed=[],
        batches=[],
    )
    phi = dict(
        untrained=0.1, whole=1 / 3, without_one=[1e-300, 0.0], without_part=[], halves=[0.2], changed={"0.1": [0.3]}
    )
    truth = records.TruthRecord(identity="k", name="adamw, T=1", **phi, one_step=True, seconds=1.0)
    names = dict(profile="tiny", task="norm", reward="toy", seed=0, identity="s", status="done")
    return records.Judged(pool, {"k": truth}, [records.SignalRecord(**names, truths=["k"], rewards=[0.1, 0.2])])


def test_comparisons_of_signals_are_packed_and_read_again(tmp_path: Path) -> None:
    judged = toy()
    folder = tmp_path / "runs" / judged.place
    write_json(folder / "pool.json", judged.pool.model_dump())
    write_json(folder / "truth-k.json", judged.truths["k"].model_dump())
    write_json(folder / "reward-toy.json", judged.signals[0].model_dump())
    found = records.load(tmp_path / "runs")
    assert found == [judged]
    records.write_packed(tmp_path / "study", found)
    first = (tmp_path / "study" / "fidelity.parquet").read_bytes()
    assert records.load(tmp_path / "study") == found
    records.write_packed(tmp_path / "study", records.load(tmp_path / "study"))
    assert (tmp_path / "study" / "fidelity.parquet").read_bytes() == first
    assert records.packed(found, found) == found
    other = judged.pool.model_copy(update={"texts": ["other"]})
    changed = records.Judged(other, judged.truths, judged.signals)
    with pytest.raises(records.HarnessError, match="tiny/fidelity/norm/seed0-id0; --replace"):
        records.packed(found, [changed])
    assert records.packed(found, [changed], replace=True) == [changed]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\xff" * 40])
def test_damaged_comparisons_are_one_row(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fidelity.parquet").write_bytes(content)
    (judged,) = records.load(tmp_path)
    (signal,) = judged.signals
    assert signal.status == "damaged" and signal.reason.startswith("fidelity.parquet: ")
    with pytest.raises(records.HarnessError, match="damaged"):
        records.packed([], [judged])
