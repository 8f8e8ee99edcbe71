from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas
import pytest

from harness.contracts import HarnessError
from harness.store.frames import find_cells, load
from harness.store.record import CellRecord, CellStore
from reports import answer, gather, markdown, site, stats, style, summary
from scripts import bench_report

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'><!-- {{ 7*7 }} ![x](http://evil.example/x)"


class Seen(HTMLParser):
    """What a browser would find: elements with their attributes, and text by enclosing element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def built(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site.build(runs, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def seen(built: Path) -> Seen:
    return Seen(built.read_text(encoding="utf-8"))


def test_everything_promised_is_written(built: Path, runs: Path) -> None:
    names = {str(path.relative_to(built.parent)) for path in built.parent.rglob("*") if path.is_file()}
    assert {"index.html", "report.md", "summary.md"} <= names
    assert {name for name in names if name.startswith("data/")} == {
        f"data/{name}.csv" for name in ("wide", "long", "comparisons")
    }
    assert {"figures/figure-2-tiny.png", "figures/figure-4-tiny.svg"} <= names
    wide, long = load(runs)
    assert len(pandas.read_csv(built.parent / "data/wide.csv")) == len(wide)
    assert len(pandas.read_csv(built.parent / "data/long.csv")) == len(long)
    assert str(runs) not in (built.parent / "data/wide.csv").read_text()


def test_the_page_names_nothing_outside_itself(built: Path, seen: Seen) -> None:
    addresses = [attributes.get(name) or "" for _, attributes in seen.elements for name in ("src", "href", "action")]
    assert all(not address or address.startswith(("data:", "#")) for address in addresses)
    assert "http" not in site._template("page.css") + site._template("page.js")


def test_the_policy_admits_only_this_pages_script_and_style(built: Path, seen: Seen) -> None:
    page = built.read_text(encoding="utf-8")
    styles = re.findall(r"<style>(.*?)</style>", page, re.S)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(styles) == len(scripts) == 1
    (found,) = [meta["content"] for meta in seen.of("meta") if meta.get("http-equiv")]
    assert found == site.policy(styles[0], scripts[0]) and "unsafe" not in found and "default-src 'none'" in found
    assert not any("style" in attributes for _, attributes in seen.elements), "the policy would refuse it"
    assert not any(name.startswith("on") for _, attributes in seen.elements for name in attributes)


def test_structure_that_a_screen_reader_needs(seen: Seen) -> None:
    assert seen.of("html")[0]["lang"] == "en" and len(seen.of("h1")) == 1
    names = [name for name, _ in seen.elements]
    assert names[: names.index("body")].count("title") == 1
    assert [len(seen.of(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    ids = {attributes["id"] for _, attributes in seen.elements if "id" in attributes}
    tabs = [attributes for _, attributes in seen.elements if attributes.get("role") == "tab"]
    assert len(tabs) == 7 and {tab["aria-controls"] for tab in tabs} <= ids
    assert all(image.get("alt") for image in seen.of("img")) and seen.of("img")
    pictures = [svg for svg in seen.of("svg") if svg.get("aria-hidden") != "true"]
    assert pictures and all(svg.get("role") == "img" and svg.get("aria-label") for svg in pictures)
    assert all(head.get("scope") for head in seen.of("th"))
    labelled = [attributes for _, attributes in seen.elements if attributes.get("role") == "region"]
    assert labelled and all(each.get("aria-label") and each.get("tabindex") == "0" for each in labelled)


def test_text_from_runs_is_never_markup(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(
        tmp_path / "runs", tasks=("lambada_es", "67"), rewards=("naive", "embedding"), seeds=(0, 1), inject=HOSTILE
    )
    store = find_cells(tmp_path / "runs")[0]
    record = store.read()
    assert record is not None
    provenance = record.provenance | {"device": HOSTILE, "commit": HOSTILE}
    store.write(
        record.model_copy(update={"notes": [HOSTILE], "provenance": provenance, "given": {"task.options.x": HOSTILE}})
    )
    odd = record.model_copy(
        update={"status": "failed", "reason": HOSTILE, "variant": HOSTILE, "identity": "0", "measure": HOSTILE}
    )
    CellStore.of(tmp_path / "runs", odd).write(odd)
    page = site.build(tmp_path / "runs", tmp_path / "site").read_text(encoding="utf-8")
    seen = Seen(page)
    assert len(seen.of("script")) == 2, "the page's own and the texts as JSON"
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in seen.of("img"))
    assert not any("onerror" in attributes for _, attributes in seen.elements)
    assert page.count("{{ 7*7 }}") > 5 and not re.search(r"!-- 49\b", page), "a template was filled in twice"
    data = re.search(r'id="sample-data">(.*?)</script>', page, re.S)
    assert data and HOSTILE in json.loads(data[1])["lambada_es (tiny)"]["naive"]["0"]["held-out"][0][3]
    report = (tmp_path / "site" / "report.md").read_text(encoding="utf-8")
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", report, flags=re.S | re.M)
    assert "<script" not in outside and "<img" not in outside and "![x]" not in outside


def test_where_the_time_went_is_told_as_far_as_it_is_known(built: Path, runs: Path) -> None:
    record = next(record for cell in find_cells(runs) if (record := cell.read()) and record.status == "done")
    record.seconds = {
        "load": 5.0,
        "generation": 50.0,
        "reward": 10.0,
        "update": 25.0,
        "validation": 0.0,
        "total": 100.0,
    }
    found = {one.phase: one for one in gather.spent(record)}
    assert list(found) == ["generation", "reward", "update", "validation", "rest"]
    generation = found["generation"]
    assert (generation.share, generation.rate, generation.products) == (0.5, 2e9, pytest.approx(0.01))
    assert gather.spent_words(generation) == "50%; 2 GFLOP/s, 1% of products"
    assert gather.spent_words(found["reward"]) == "10%", "a reward without a model has no rate"
    assert (found["rest"].seconds, gather.spent_words(found["rest"])) == (15.0, "15%")
    record.flops = record.floor_seconds = {}
    assert gather.spent_words(gather.spent(record)[0]) == "50%", "an older record"
    record.seconds = {}
    assert [gather.spent_words(one) for one in gather.spent(record)] == [""] * 5
    for name in ("index.html", "report.md"):
        text = (built.parent / name).read_text()
        assert "Where the time went" in text
        assert text.count("; 2 GFLOP/s, 1% of products") == 27, "the finished cells"


def test_a_fence_outlasts_the_backticks_in_a_text() -> None:
    from reports.markdown import fenced

    text = "a\n````\n<script>\n```"
    opening, *inner, closing = fenced(text).splitlines()
    assert closing == "`````" == opening.removesuffix("text") and "\n".join(inner) == text


def test_the_reference_is_chosen_and_an_unknown_one_refused(tmp_path: Path, runs: Path) -> None:
    site.build(runs, tmp_path, reference="sgd_metagrad")
    frame = pandas.read_csv(tmp_path / "data/comparisons.csv")
    assert len(frame) == 15 + 3
    assert "differences from sgd_metagrad" in (tmp_path / "report.md").read_text()
    with pytest.raises(HarnessError, match="did you mean naive"):
        site.build(runs, tmp_path, reference="naiv")


def test_failed_and_unsupported_cells_are_there_with_their_reason(built: Path) -> None:
    page = built.read_text(encoding="utf-8")
    assert page.count("the task has no reference texts") >= 3
    assert "Cells: 27 done, 9 unsupported." in page


def test_results_of_several_machines_in_one_folder(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(tmp_path / "runs/a", tasks=("67",), rewards=("naive",), seeds=(0, 1))
    generate(tmp_path / "runs/b", tasks=("67",), rewards=("naive",), seeds=(1, 2))
    site.build(tmp_path / "runs", tmp_path / "site")
    assert sorted(pandas.read_csv(tmp_path / "site/data/wide.csv")["seed"]) == [0, 1, 2]


def test_a_folder_of_nothing_but_failures_still_makes_a_page(tmp_path: Path) -> None:
    record = CellRecord(profile="p", task="t", reward="r", seed=0, identity="0", status="failed", reason="why not")
    CellStore.of(tmp_path / "runs", record).write(record)
    page = site.build(tmp_path / "runs", tmp_path / "site").read_text(encoding="utf-8")
    assert "failed: why not" in page and "No finished cell has curves." in page


def test_rewards_that_do_not_differ_at_all_make_a_page_too(tmp_path: Path, generate: Callable[..., int]) -> None:
    """As short real runs do: no rollout in the target language, whatever the reward."""
    generate(tmp_path / "runs", tasks=("lambada_es",), rewards=("naive", "adam_metagrad"), seeds=(0,))
    for store in find_cells(tmp_path / "runs"):
        record = store.read()
        assert record is not None
        store.write(record.model_copy(update={"headline": 0.0, "floor": 0.0}))
    page = site.build(tmp_path / "runs", tmp_path / "site").read_text(encoding="utf-8")
    forests = re.findall(r'<svg class="forest".*?</svg>', page, re.S)
    assert forests and "nan" not in " ".join(forests)


def test_only_so_many_pairs_are_named_in_a_line(tmp_path: Path, generate: Callable[..., int], monkeypatch) -> None:
    """A study with dozens of variants has thousands of pairs."""
    generate(tmp_path / "runs", tasks=("67",), rewards=("naive", "adam_metagrad", "sgd_metagrad"), seeds=(0,))
    read = lambda: next(site.build(tmp_path / "runs", tmp_path / "site").parent.glob("*.md")).read_text("utf-8")
    (line,) = re.findall("The data cannot separate .*", read())
    assert line.startswith("The data cannot separate 3 of 3 pairs") and line.count(" and ") == 3 and "more" not in line
    monkeypatch.setattr(markdown, "MOST_PAIRS", 2)
    (line,) = re.findall("The data cannot separate .*", read())
    assert line.count(",") == 1 and line.endswith(" and 1 more.")


def test_no_results_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="There are no results in"):
        site.build(tmp_path, tmp_path / "site")


def test_the_page_opens_with_the_answer_and_a_picture(runs: Path, built: Path) -> None:
    page = built.read_text(encoding="utf-8")
    start = page.index("<h2>The answer</h2>")
    assert start < page.index("<svg", start) < page.index('id="glance"')
    blocks = {block.task: block for block in summary.blocks(load(runs)[0])}
    said = {each.heading: each for each in answer.answers(list(blocks.values()))}
    mine, block = said["lambada_es (tiny)"], blocks["lambada_es"]
    best = block.rows[0]
    assert mine.signal.startswith(f"{best.label} leads: target language [fraction] {best.median:.3f}, better by ")
    separated = [c for c in stats.pairs(block) if c.separated and best.label in (c.name, c.reference)]
    assert separated and all(c.reference in mine.sure for c in separated) and "beyond chance" in mine.sure
    assert mine.signal.split(" (")[0] in html.unescape(page)
    report = (built.parent / "report.md").read_text(encoding="utf-8")
    assert report.index("leads: ") < report.index("## Results")


def test_the_answer_is_careful(tmp_path: Path, generate: Callable[..., int]) -> None:
    def said(runs: Path) -> str:
        (found,) = answer.answers(summary.blocks(load(runs)[0]))
        return found.text

    generate(tmp_path / "one", tasks=("67",), rewards=("naive",), seeds=(0,))
    assert "No other signal has finished" in said(tmp_path / "one")
    generate(tmp_path / "one", tasks=("67",), rewards=("adam_metagrad",), seeds=(0,))
    assert "With one seed in common nothing says" in said(tmp_path / "one")
    generate(tmp_path / "two", tasks=("67",), rewards=("naive", "adam_metagrad"), seeds=(0, 1), noise=0.0)
    for cell in find_cells(tmp_path / "two"):
        record = cell.read()
        assert record is not None
        record.headline, record.floor, record.variant = 0.5, 0.6, "quick"
        CellStore(cell.folder).write(record)
    careful = said(tmp_path / "two")
    assert careful.startswith("No signal moved it the right way") and "quick run" in careful
    assert "2 seeds do not tell it apart" in careful
    page = site.build(tmp_path / "two", tmp_path / "site").read_text(encoding="utf-8")
    assert "2 seeds, all the same: no interval" in page and "0.500..0.500" not in page
    assert "quick" in (tmp_path / "site" / "report.md").read_text(encoding="utf-8")


def test_the_same_results_make_the_same_page(runs: Path, built: Path, tmp_path: Path) -> None:
    site.build(runs, tmp_path)
    for path in built.parent.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(built.parent)).read_bytes() == path.read_bytes(), path.name


def test_a_command_runs_the_cell_again(runs: Path, generate: Callable[..., int], tmp_path: Path) -> None:
    generate(
        tmp_path,
        tasks=("67",),
        rewards=("naive",),
        seeds=(2,),
        assignments={"grpo.lr": 1e-3, "task.options.x": "a b'c"},
    )
    record = find_cells(tmp_path)[0].read()
    assert record is not None
    import shlex

    from harness.settings.profiles import load_profile, parse_assignment, resolve
    from harness.store.record import identity

    words = shlex.split(gather.rerun(record))
    assert words[:4] == ["python", "-m", "harness", "run"]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    given = dict(
        parse_assignment(value) for name, value in zip(words[4::2], words[5::2], strict=True) if name == "--set"
    )
    settings = resolve(load_profile(options["--profile"]), options["--task"], options["--reward"], given)
    assert identity(options["--task"], options["--reward"], int(options["--seeds"]), settings, {}) == record.identity


def test_the_size_is_far_from_its_limit(tmp_path: Path) -> None:
    """scripts/bench_report.py measures 200 cells, and the seconds too; here 24 of them, held to half of the limit."""
    bench_report.generate(tmp_path / "runs", tasks=bench_report.TASKS, rewards=bench_report.REWARDS[:3], seeds=(0,))
    page = site.build(tmp_path / "runs", tmp_path / "site")
    assert page.stat().st_size < bench_report.MOST_BYTES / 2


def test_long_texts_are_thinned_and_the_page_says_so(
    tmp_path: Path, generate: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "MOST_SAMPLE_BYTES", 4000)
    generate(tmp_path / "runs", tasks=("67",), rewards=("naive", "adam_metagrad"), seeds=(0,))
    page = site.build(tmp_path / "runs", tmp_path / "site").read_text(encoding="utf-8")
    assert re.search(r"\d+ texts were left out", page)
    data = re.search(r'id="sample-data">(.*?)</script>', page, re.S)
    assert data
    rows = json.loads(data[1])["67 (tiny)"]["naive"]["0"]["held-out"]
    assert {0, 25} <= {row[0] for row in rows} and len(data[1]) < 8000


# ---------------------------------------------------------------------------------------------------------------- style


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK], ids=["light", "dark"])
@pytest.mark.parametrize("role", ["ink", "quiet", "link", "good", "bad"])
@pytest.mark.parametrize("ground", ["page", "panel"])
def test_text_has_the_contrast_of_wcag_aa(theme: dict[str, str], role: str, ground: str) -> None:
    assert style.contrast(theme[role], theme[ground]) >= 4.5


def test_contrast_by_known_values() -> None:
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert style.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)
    assert style.contrast(style.LIGHT["ink"], style.LIGHT["mark"]) > 7
    assert style.contrast(style.DARK["ink"], style.DARK["mark"]) > 7


@pytest.mark.parametrize(("series", "theme"), [(style.LIGHT_SERIES, style.LIGHT), (style.DARK_SERIES, style.DARK)])
def test_lines_stand_out_and_stay_apart_without_colour_vision(series: tuple[str, ...], theme: dict[str, str]) -> None:
    import numpy as np

    assert all(style.contrast(colour, theme["page"]) >= 3 for colour in series)
    views = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
        "all": np.eye(3),
        "protanopia": np.array(
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
        ),
        "deuteranopia": np.array(
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
        ),
        "tritanopia": np.array(
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
        ),
    }
    channels = np.array([[int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] for colour in series])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    for name, view in views.items():
        lab = _lab(np.clip(linear @ view.T, 0, 1))
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(series), 1)]
        assert distance.min() > 20, name


def _lab(linear):  # noqa: ANN001, ANN202
    import numpy as np

    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


def test_every_series_has_its_own_dash_and_marker() -> None:
    assert len(set(style.DASHES)) == len(set(style.MARKERS)) == style.SLOTS == len(set(style.DARK_SERIES))
