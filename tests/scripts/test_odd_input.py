"""A share of scripts/odd_input: the cheap kinds, all of which must go well, and that what goes badly is counted."""

from __future__ import annotations

import pytest

from harness.contracts import HarnessError
from scripts import odd_input
from scripts.odd_input.shown import steers
from scripts.odd_input.world import Badly, Case, Said, World, call, one_sentence


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return World(tmp_path, seed=1)


@pytest.mark.parametrize(
    ("kind", "share", "ways"),
    [
        ("ranges", 0.2, {"works", "refused"}),
        ("terminal", 0.1, {"works"}),
        ("line_ends", 0.1, {"works"}),
        ("arguments", 0.05, {"works", "refused"}),
        ("resources", 0.06, {"works", "refused"}),
    ],
)
def test_a_share_of_every_cheap_kind_goes_well(kind, share, ways, world):
    found = odd_input.trial(world, [kind], share, 120, lambda text: None)[kind]
    assert found["list"] == [] and found["inputs"] >= 8 and ways <= found.keys(), found


def fails(error: BaseException):
    def do() -> str:
        raise error

    return do


@pytest.mark.parametrize(
    ("case", "outcome", "why"),
    [
        (Case("", "works", lambda: "works"), "works", ""),
        (Case("", "either", lambda: "refused"), "refused", ""),
        (Case("", "refused", lambda: "works"), "badly", "works, where it should be refused"),
        (Case("", "works", lambda: "refused"), "badly", "refused, where it should be works"),
        (Case("", "either", fails(KeyError("x"))), "badly", "KeyError: 'x'"),
        (Case("", "either", fails(SystemExit(0))), "badly", "SystemExit: 0"),
        (
            Case("", "either", lambda: Said(1, "", "Traceback (most recent call last)").outcome()),
            "badly",
            "a traceback",
        ),
        (Case("", "either", lambda: Said(3, "", "").outcome()), "badly", "exit code 3"),
        (Case("", "either", lambda: Said(2, "", "Error: one\ntwo").outcome()), "badly", "not one sentence"),
        (Case("", "refused", lambda: Said(2, "", "Error: one.").outcome()), "refused", ""),
        (Case("", "either", lambda: call(fails(HarnessError("")))), "badly", "not one sentence"),
        (Case("", "refused", lambda: call(fails(HarnessError("No.")))), "refused", ""),
    ],
)
def test_what_goes_badly_is_told_from_what_goes_well(case, outcome, why):
    found, said = odd_input.tried(case, 60)
    assert found == outcome and said.startswith(why) and bool(said) == bool(why)


def test_a_case_that_never_ends_goes_badly():
    def endless() -> str:
        while True:
            pass

    assert odd_input.tried(Case("", "either", endless), 1) == ("badly", "took more than 1 s")


def test_what_a_page_or_a_cell_would_run_is_noticed():
    assert steers("a\x1b[2J") and steers("\u202e") and not steers("family 👩\u200d👧\n")
    with pytest.raises(Badly):
        one_sentence("", 0)


def test_the_table_adds_up():
    found = {
        "a": {"inputs": 3, "works": 1, "refused": 2, "list": []},
        "b": {"inputs": 2, "works": 1, "badly": 1, "list": ["x"]},
    }
    assert "| all | 5 | 2 | 2 | 1 |" in odd_input.table(found) and odd_input.table(found).endswith("5 inputs, 1 badly")


def test_there_are_two_thousand_inputs(world, monkeypatch):
    """Made, not tried: nothing of them is called."""
    kinds = [kind for kind in odd_input.KINDS if kind != "checkpoints"]  # the files of a run that has to be made
    counts = {kind: sum(1 for _ in odd_input.KINDS[kind](world)) for kind in kinds}
    assert sum(counts.values()) >= 2000 and min(counts.values()) >= 20, counts
