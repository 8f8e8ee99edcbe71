"""The page in a real browser, from file://. Needs Chromium and its driver (Debian: chromium, chromium-driver)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.store.frames import load
from reports import site
from tests.helpers.command import ROOT

selenium = pytest.importorskip("selenium", reason="the Python package selenium is not installed")

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --window-size=1280,1000 "
    "--force-prefers-reduced-motion"
).split()
STORED = ROOT / "reports" / "studies" / "first_light"
HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium.webdriver import Chrome
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    options = Options()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(120)
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, generate: Callable[..., int]) -> str:
    folder = tmp_path_factory.mktemp("browser")
    generate(folder / "runs", tasks=("lambada_es", "67"), seeds=(0, 1, 2), inject=HOSTILE)
    return site.build(folder / "runs", folder / "site").as_uri()


@contextmanager
def visit(browser: Any, address: str) -> Iterator[Any]:
    """The page freshly loaded; afterwards the console must be clean and nothing but the file was asked for."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get("about:blank")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    outside = {url for url in asked if not url.startswith(("data:", "about:")) and url.split("#")[0] != address}
    assert asked and not outside
    assert browser.execute_script("return window.pwned") is None


@pytest.fixture
def opened(browser: Any, page: str) -> Iterator[Any]:
    with visit(browser, page) as there:
        yield there


def column(browser: Any, table: str, place: int) -> list[str]:
    """First lines of a column of the sortable rows."""
    cells = browser.find_elements("css selector", f"{table} tbody:not(.fixed) tr > :nth-child({place})")
    return [cell.text.splitlines()[0] for cell in cells]


def test_a_click_sorts_and_a_second_turns_round(opened: Any) -> None:
    head = opened.find_elements("css selector", "#glance thead th")[2]
    assert "lambada_es" in head.text
    head.find_element("tag name", "button").click()
    falling = [float(text) for text in column(opened, "#glance", 3)]
    assert (
        head.get_attribute("aria-sort") == "descending"
        and falling == sorted(falling, reverse=True)
        and len(falling) == 6
    )
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in column(opened, "#glance", 3)] == falling[::-1]
    rows = opened.find_elements("css selector", "#glance tbody tr")
    assert rows[0].text.startswith("untuned generator") and rows[-1].text.startswith("best possible")


def test_what_has_no_value_stays_below_whichever_way_one_sorts(opened: Any) -> None:
    button = opened.find_elements("css selector", "#glance thead th button")[1]
    for _ in range(2):
        button.click()
        assert column(opened, "#glance", 2)[-3:] == ["unsupported"] * 3


def test_tabs_switch_by_click_and_by_arrow_keys(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def shown() -> list[str]:
        panels = opened.find_elements("css selector", "[role=tabpanel]")
        return [panel.get_attribute("id") for panel in panels if panel.is_displayed()]

    assert shown() == ["panel-summary"]
    opened.find_element("id", "tab-samples").click()
    assert shown() == ["panel-samples"]
    opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert shown() == ["panel-cells"] and opened.switch_to.active_element.get_attribute("id") == "tab-cells"
    opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert shown() == ["panel-summary"]
    assert opened.find_element("id", "tab-summary").get_attribute("aria-selected") == "true"


def test_sorting_works_from_the_keyboard(opened: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    button = opened.find_element("css selector", "#glance thead th button")
    button.send_keys(Keys.ENTER)
    assert column(opened, "#glance", 1) == sorted(column(opened, "#glance", 1))
    button.send_keys(Keys.ENTER)
    assert column(opened, "#glance", 1)[0] == "sgd_metagrad"


def test_rows_are_filtered_by_words_in_all_tables(opened: Any) -> None:
    def rows() -> list[str]:
        found = opened.find_elements("css selector", "#panel-summary table.sortable tbody:not(.fixed) > tr")
        return [row.find_element("tag name", "th").text for row in found if row.is_displayed()]

    before = rows()
    opened.find_element("id", "filter").send_keys("adam")
    assert set(rows()) == {"adam_metagrad"} and 0 < len(rows()) < len(before)
    assert opened.find_element("id", "filter-count").text.endswith("rows")
    opened.find_element("id", "filter").clear()
    opened.find_element("id", "filter").send_keys(" ")
    assert rows() == before


def test_rollouts_of_training_are_sorted_by_reward(opened: Any) -> None:
    from selenium.webdriver.support.ui import Select

    opened.find_element("id", "tab-samples").click()
    choose = lambda name, text: Select(opened.find_element("id", f"sample-{name}")).select_by_visible_text(text)
    choose("task", "lambada_es (tiny)")
    seeds = Select(opened.find_element("id", "sample-seed")).options
    assert [option.text for option in seeds] == ["0", "1", "2"]
    choose("seed", "2")
    choose("kind", "training")
    choose("right", "(nothing)")
    for words, sign in (("highest reward first", -1), ("lowest reward first", 1)):
        choose("order", words)
        said = [quote.text for quote in opened.find_elements("css selector", ".pair small")]
        rewards = [float(text.split("reward: ")[1].split(",")[0]) for text in said]
        assert len(rewards) > 5 and rewards == sorted(rewards, key=lambda value: sign * value)


def test_samples_stand_side_by_side_and_can_be_searched(opened: Any) -> None:
    opened.find_element("id", "tab-samples").click()
    pairs = opened.find_elements("css selector", ".pair")
    assert pairs and all(len(pair.find_elements("tag name", "blockquote")) == 2 for pair in pairs)
    assert "<script>" in pairs[0].text, "hostile text is shown as text"
    before = len(pairs)
    opened.find_element("id", "sample-search").send_keys("jardín")
    found = opened.find_elements("css selector", ".pair")
    assert 0 < len(found) <= before
    assert all("jardín" in pair.text for pair in found)
    assert opened.find_elements("css selector", ".pair mark")[0].text == "jardín"
    opened.find_element("id", "sample-search").send_keys(" no such words")
    assert opened.find_elements("css selector", ".pair") == []
    assert opened.find_element("id", "sample-count").text == "0 places"


def test_the_theme_button_turns_the_page_dark(opened: Any) -> None:
    def ground() -> str:
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = ground()
    opened.find_element("id", "theme").click()
    assert light == "rgb(255, 255, 255)" and ground() == "rgb(21, 23, 28)"
    opened.execute_script("try { localStorage.clear() } catch {}")


def test_no_panel_scrolls_sideways_on_a_phone(opened: Any) -> None:
    metrics = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        for tab in opened.find_elements("css selector", "[role=tab]"):
            tab.click()
            assert opened.execute_script("return document.documentElement.scrollWidth") <= 375, tab.text
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_paper_every_section_is_there(opened: Any) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        panels = opened.find_elements("css selector", "[role=tabpanel]")
        assert all(panel.is_displayed() for panel in panels)
        assert not opened.find_element("css selector", "[role=tablist]").is_displayed()
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_its_script_the_page_still_shows_every_section(browser: Any, page: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page)
        assert all(panel.is_displayed() for panel in browser.find_elements("css selector", "[role=tabpanel]"))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_page_of_the_results_in_this_repository(browser: Any, tmp_path: Path) -> None:
    wide, _ = load(STORED)
    seeds = wide[wide["status"] == "done"].groupby(["task", "reward"])["seed"].nunique()
    often = seeds[seeds >= 3].reset_index()
    assert often["task"].nunique() >= 2 and often["reward"].nunique() == 6
    path = site.build(STORED, tmp_path / "site")
    assert path.stat().st_size <= 5_000_000
    with visit(browser, path.as_uri()) as opened:
        heads = opened.find_elements("css selector", "#glance thead th")
        (place,) = (i for i, head in enumerate(heads, start=1) if "lambada_es" in head.text)
        heads[place - 1].find_element("tag name", "button").click()
        falling = [float(text) for text in column(opened, "#glance", place)]
        assert len(falling) == 6 and falling == sorted(falling, reverse=True)
        opened.find_element("id", "tab-samples").click()
        assert opened.find_element("id", "panel-samples").is_displayed()
        assert opened.find_elements("css selector", ".pair blockquote")
