from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.store.frames import find_cells, load
from reports import figures, site, style, svg

Generate = Callable[..., int]


@pytest.fixture(scope="module")
def curves(runs: Path) -> figures.Curves:
    return figures.reduce(*load(runs))


def test_a_line_is_the_median_over_seeds_and_its_band_the_range(runs: Path, curves: figures.Curves) -> None:
    drawn = figures.panel(curves, "tiny", "lambada_es", "target_language")
    assert drawn is not None
    line = next(line for line in drawn.series if line.name == "adam_metagrad")
    _, long = load(runs)
    own = long[
        (long["task"] == "lambada_es") & (long["reward"] == "adam_metagrad") & (long["measure"] == "target_language")
    ]
    table = own.pivot(index="step", columns="seed", values="value")
    assert line.x.tolist() == table.index.tolist() == [0, 5, 10, 15, 20, 25] and line.seeds == 3
    assert np.array_equal(line.y, np.median(table, axis=1))
    assert np.array_equal(line.low, table.min(axis=1)) and np.array_equal(line.high, table.max(axis=1))


def test_an_unfinished_cell_is_not_drawn(tmp_path: Path, generate: Generate) -> None:
    generate(tmp_path, tasks=("67",), rewards=("naive",))
    store = find_cells(tmp_path)[0]
    record = store.read()
    assert record is not None
    store.write(record.model_copy(update={"status": "interrupted", "reason": "stopped"}))
    drawn = figures.panel(figures.reduce(*load(tmp_path)), "tiny", "67", "pixel_accuracy")
    assert drawn is not None and drawn.series[0].seeds == 2


def test_lines_whose_steps_hold_unequal_numbers_of_texts_are_drawn_over_texts(
    tmp_path: Path, generate: Generate
) -> None:
    """T = 1 takes 96 small steps where T = 96 takes one: over steps, the one line would end where the other begins."""
    generate(tmp_path, tasks=("67",), rewards=("naive",), variants=(1, 8), seeds=(0,))
    for store in find_cells(tmp_path):
        record = store.read()
        assert record is not None and record.steps_done == 25
        store.write(record.model_copy(update={"rollouts": 25 * (4 if record.variant == "T=1" else 32)}))
    curves = figures.reduce(*load(tmp_path))
    drawn = figures.panel(curves, "tiny", "67", "pixel_accuracy")
    assert drawn is not None and drawn.x_label == "rollouts trained on"
    assert [line.x.tolist()[-1] for line in drawn.series] == [100, 800]
    from reports import summary

    timed = figures.wall_clock(summary.blocks(load(tmp_path)[0]), curves)
    assert timed is not None and all((np.diff(line.x) > 0).all() for line in timed.panels[0].series)


def test_the_papers_figures_hold_what_the_paper_looks_at(tmp_path: Path, generate: Generate) -> None:
    generate(tmp_path, tasks=("67",), rewards=("adam_metagrad", "naive"), variants=(1, 8, 96), seeds=(0,))
    generate(
        tmp_path, tasks=("norm", "uuid", "lambada_de", "lambada_es"), rewards=("adam_metagrad", "naive"), seeds=(0,)
    )
    found = {figure.key: figure for figure in figures.task_figures(figures.reduce(*load(tmp_path)))}
    assert [panel.title for panel in found["figure-2-tiny"].panels] == ["67", "norm"]
    names = [line.name for line in found["figure-2-tiny"].panels[0].series]
    assert names == [f"{reward} (T={steps})" for reward in ("adam_metagrad", "naive") for steps in (1, 8, 96)]
    assert len({(line.slot, line.dash) for line in found["figure-2-tiny"].panels[0].series}) == 6
    assert [panel.y_label for panel in found["figure-4-tiny"].panels] == ["target language [fraction]"] * 2 + [
        "bigram entropy"
    ] * 2
    assert [panel.title for panel in found["figure-5-tiny"].panels] == ["adam_metagrad", "naive"]
    assert [line.name for line in found["figure-5-tiny"].panels[0].series] == [
        f"component {k}" for k in range(1, 6)
    ] + ["uuid exact"]


def test_panels_of_one_fraction_have_one_scale() -> None:
    def panel(label: str, *values: float) -> figures.Panel:
        y = np.array(values)
        return figures.Panel("t", "x", label, (figures.Series("s", 0, 0, np.arange(len(y)), y, y, y, 1),))

    flat, high = panel("share [fraction]", 0.0, 0.0), panel("share [fraction]", 0.2, 1.0)
    other, own = panel("other [fraction]", 0.4, 0.5), panel("norm", 3.0, 4.0)
    figure = figures.Figure("k", "t", "c", (flat, high, other, own))
    assert figure.limits(flat) == figure.limits(high) == (0.0, 1.0)
    assert figure.limits(other) == (0.4, 0.5) and figure.limits(own) is None
    assert ">-1.0<" in svg.panel(flat) and ">-1.0<" not in svg.panel(flat, figure.limits(flat))


def test_a_reward_looks_the_same_in_every_figure(curves: figures.Curves) -> None:
    looks: dict[str, set[tuple[int, int]]] = {}
    for figure in figures.learning_curves(curves):
        for panel in figure.panels:
            for line in panel.series:
                looks.setdefault(line.name, set()).add((line.slot, line.dash))
    assert len(looks) == 6 and all(len(each) == 1 for each in looks.values())
    assert len({look for each in looks.values() for look in each}) == 6


def test_wall_clock_counts_generation_reward_and_update(runs: Path, curves: figures.Curves) -> None:
    from reports import summary

    wide, long = load(runs)
    figure = figures.wall_clock(summary.blocks(wide), curves)
    assert figure is not None
    panel = next(panel for panel in figure.panels if panel.title == "lambada_es")
    line = next(line for line in panel.series if line.name == "naive")
    own = long[(long["task"] == "lambada_es") & (long["reward"] == "naive") & (long["phase"] == "train")]
    spent = (
        own[own["measure"].str.startswith("seconds_")]
        .groupby(["measure", "step"])["value"]
        .median()
        .groupby("step")
        .sum()
    )
    assert line.x[0] == 0 and line.x[1] == pytest.approx(spent[spent.index <= 5].sum())
    assert line.x[-1] == pytest.approx(spent.sum())


def test_long_training_is_thinned_and_keeps_both_ends(tmp_path: Path, generate: Generate) -> None:
    generate(tmp_path, tasks=("norm",), rewards=("naive",), seeds=(0,), steps=300)
    panel = figures.panel(figures.reduce(*load(tmp_path)), "tiny", "norm", "grad_norm", "train")
    assert panel is not None
    line = panel.series[0]
    assert len(line.x) == figures.MOST_POINTS and line.x[0] == 1 and line.x[-1] == 300


def test_files_can_be_saved_and_are_what_they_are_called(tmp_path: Path, curves: figures.Curves) -> None:
    figure = figures.task_figures(curves)[0]
    figures.save(figure, tmp_path / "a.svg", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


def test_a_png_has_a_palette(tmp_path: Path, curves: figures.Curves) -> None:
    from PIL import Image

    figure = figures.task_figures(curves)[0]
    for name in ("a.png", "b.png"):
        figures.save(figure, tmp_path / name)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and image.size[0] > 500
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_name_with_dollars_is_a_name(tmp_path: Path) -> None:
    one = np.array([1.0, 2.0])
    line = figures.Series(r"$\oops{", 0, 0, one, one, one, one, 1)
    panel = figures.Panel("$_^$", "GRPO step", "$\\frac", (line,))
    figures.save(figures.Figure("k", "t", "c", (panel,)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_pictures_are_drawn_of_the_last_step(tmp_path: Path, generate: Generate) -> None:
    from harness.registry import TASKS
    from reports import gather

    generate(tmp_path / "runs", tasks=("67",), rewards=("naive",), seeds=(0,))
    cell = find_cells(tmp_path / "runs")[0]
    found = gather.final_pictures(cell, "67")
    assert list(found) == ["target", "decoded", "delta"]
    assert found == TASKS.get("67").factory.draw(cell.arrays()[25]) != TASKS.get("67").factory.draw(cell.arrays()[20])
    site.build(tmp_path / "runs", tmp_path / "site")
    assert (tmp_path / "site" / "figures" / "figure-3-tiny-67.png").stat().st_size > 1000
    written = tmp_path / "site" / "pictures" / cell.folder.relative_to(tmp_path / "runs")
    assert {path.stem: path.read_bytes() for path in written.iterdir()} == found


def test_stored_files_are_shown_where_they_are_pngs(tmp_path: Path, generate: Generate) -> None:
    from reports import gather

    generate(tmp_path, tasks=("67",), rewards=("naive",), seeds=(0,))
    cell = find_cells(tmp_path)[0]
    png = gather.final_pictures(cell, "67")["delta"]
    for name, content in (("photo.png", png), ("script.png", b"<script>"), ("notes.txt", b"no picture")):
        cell.write_file(25, name, content)
    assert list(gather.final_pictures(cell, "67")) == ["target", "decoded", "delta", "photo"]


def test_what_cannot_be_drawn_costs_its_pictures_and_a_sentence(
    tmp_path: Path, generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.registry import TASKS
    from reports import gather

    generate(tmp_path / "runs", tasks=("67",), rewards=("naive",), seeds=(0, 1))
    wide, _ = load(tmp_path / "runs")
    assert len(gather.drawn(wide).of) == 2 and gather.drawn(wide).missing == ()
    monkeypatch.setattr(TASKS.get("67").factory, "draw", lambda arrays: arrays["nothing"])
    found = gather.drawn(wide)
    assert found.of == {} and found.missing == ("The pictures of 67 are not drawn: KeyError in its `draw`.",)
    monkeypatch.setattr(TASKS, "find", lambda name: None)
    assert gather.drawn(wide).missing == ("The pictures of 67 are not drawn: that task is not installed here.",)
    site.build(tmp_path / "runs", tmp_path / "site")
    assert "that task is not installed here" in (tmp_path / "site" / "index.html").read_text()


def test_a_panel_is_sound_svg_with_a_description(curves: figures.Curves) -> None:
    panel = figures.panel(curves, "tiny", "lambada_es", "target_language")
    assert panel is not None
    root = ElementTree.fromstring(svg.panel(panel))
    assert "adam_metagrad from" in root.attrib["aria-label"]
    assert len(root.findall(".//g")) == 6 and len(root.findall(".//path[@class='band']")) == 6
    places = [float(number) for path in root.iter("path") for number in re.findall(r"(?<=M)\d+\.\d+", path.attrib["d"])]
    assert places and all(0 <= place <= svg.WIDTH for place in places)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 25, [0, 5, 10, 15, 20, 25]), (-0.88, 0, [-1, -0.8, -0.6, -0.4, -0.2, 0])],
)
def test_ticks_are_round_and_cover_the_data(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(3.0, 3.0), (0.0, 0.0), (1e-9, 3e-9), (-5e6, 7e6), (0.7, 0.7000001)])
def test_ticks_cover_any_range(low: float, high: float) -> None:
    found = svg.ticks(low, high)
    step = found[1] - found[0]
    assert 2 <= len(found) <= 8 and step > 0
    assert found[0] <= low + 1e-6 * step and found[-1] >= high - 1e-6 * step


VALUES = st.sampled_from([0.0, 1.0, math.nextafter(1.0, 2.0), -3.5, 1e-300, 5e-324, 1e300, -1e300, 1.7e308, math.inf])
CURVES = st.one_of(
    st.lists(st.one_of(VALUES, st.just(math.nan)), min_size=1, max_size=9),
    st.lists(st.floats(), min_size=1, max_size=9),
    st.builds(lambda value, count: [value] * count, st.floats(allow_nan=False), st.integers(1, 9)),
    st.builds(lambda value: [value, math.nextafter(value, math.inf), value], st.floats(-1e300, 1e300)),
)
"""Constant, one point, gaps, very small and large, one unit in the last place apart, negative, anything."""


@given(st.lists(CURVES, min_size=1, max_size=3), st.sampled_from(["loss", "share [fraction]"]))
@settings(max_examples=300, deadline=None)
def test_any_curve_becomes_a_panel_of_numbers(lines: list[list[float]], label: str) -> None:
    series = []
    for number, values in enumerate(lines):
        y = np.array(values)
        series.append(figures.Series(f"s{number}", number, number, np.arange(len(y)), y, y, y, 2))
    panel = figures.Panel("t", "GRPO step", label, tuple(series))
    figure = figures.Figure("k", "t", "c", (panel,))
    drawn = ElementTree.fromstring(svg.panel(panel, figure.limits(panel)))
    paths = [path.get("d", "") for path in drawn.iter("path")]
    assert not any(word in path for path in paths for word in ("nan", "inf")) and panel.alt
    numbers = [float(number) for path in paths for number in re.findall(r"M(-?[\d.]+) ", path)]
    assert all(-1 <= number <= svg.WIDTH + 1 for number in numbers)
    dots = [group.findall("path")[-1].get("d", "") for group in drawn.iter("g")]
    assert sum(path.count("z") for path in dots) == sum(
        min(svg.MARKS, sum(map(math.isfinite, values))) for values in lines
    )


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=300)
def test_ticks_are_different_and_read_differently(one: float, other: float) -> None:
    found = svg.ticks(min(one, other), max(one, other))
    assert 2 <= len(found) <= 8 and np.isfinite(found).all() and (np.diff(found) > 0).all()
    assert len({svg._tick(value, found) for value in found}) == len(found)


@pytest.mark.parametrize(
    "values",
    [[2.0, 2.0], [3.0], [1.0, math.nan, 2.0], [math.nan], [1e-300, 2e-300], [1e300, -1e300], [1.7e308, -1.7e308]]
    + [[1.0, math.nextafter(1.0, 2.0)], [-5.0, -2.0], [0.0, math.inf]],
)
def test_any_curve_becomes_a_file(tmp_path: Path, values: list[float]) -> None:
    y = np.array(values)
    line = figures.Series("s", 0, 0, np.arange(len(y)), y, y, y, 2)
    panels = tuple(figures.Panel("t", "GRPO step", label, (line,)) for label in ("loss", "share [fraction]"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figures.Figure("k", "t", "c", panels), tmp_path / "a.svg")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


def test_a_line_has_a_gap_where_a_value_is_missing() -> None:
    y = np.array([0.0, 1.0, math.nan, 1.0, 0.0])
    line = figures.Series("s", 0, 0, np.arange(5.0), y, y, y, 1)
    drawn = svg.panel(figures.Panel("t", "x", "loss", (line,)))
    (path,) = re.findall(r'class="line" d="([^"]+)"', drawn)
    assert path.count("M") == 2 and path.count("L") == 2


def test_every_marker_has_a_shape() -> None:
    assert set(svg.SHAPES) == set(style.MARKERS)
