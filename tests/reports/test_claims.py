"""Claims: every kind of check against seeds that decide it either way, and seeds that do not; suites as files."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness import api
from harness.contracts import HarnessError
from harness.evaluation.records import FURTHER, TrialRecord
from harness.registry import TASKS
from harness.signals import theorem
from harness.store.record import CellRecord
from harness.suites import suite as suites
from harness.suites.suite import Suite, hours_of, load_suite, within_budget
from reports import claims, evaluations
from tests.helpers.command import run_harness

PARTS = [{"name": "p", "task": "lambada_es"}]


def record(
    reward: str, seed: int, headline: float, *, floor: float = 0.0, variant: str = "", **fields: Any
) -> CellRecord:
    given = {
        "profile": "tiny",
        "task": "lambada_es",
        "reward": reward,
        "variant": variant,
        "seed": seed,
        "identity": f"{reward}{variant}{seed}",
        "status": "done",
        "measure": "target_language",
        "unit": "fraction",
        "direction": "higher",
        "headline": headline,
        "floor": floor,
    }
    return CellRecord.model_validate(given | fields)


def decided(check: dict[str, Any], records: list[CellRecord], **claim: Any) -> claims.Found:
    whole = {"part": "p", "task": "lambada_es", "reward": "x"} | check
    data = {
        "name": "s",
        "summary": "",
        "parts": PARTS,
        "claims": [{"id": "c", "says": "something", "check": whole} | claim],
    }
    suite = Suite.model_validate(data)
    cells = [(SimpleNamespace(arrays=dict), each) for each in records]
    (found,) = claims.decide(suite, claims.Evidence(cells, {"p": {each.identity for each in records}}), "tiny")
    return found


def seeds(reward: str, values: list[float], **fields: Any) -> list[CellRecord]:
    return [record(reward, seed, value, **fields) for seed, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "check", "verdict"),
    [
        ([0.9, 0.92, 0.94], {"at_least": 0.5}, "holds"),
        ([0.1, 0.12, 0.14], {"at_least": 0.5}, "does not hold"),
        ([0.2, 0.9, 0.7], {"at_least": 0.5}, "not decided"),
        ([0.1, 0.12, 0.14], {"at_most": 0.5}, "holds"),
        ([0.9, 0.92, 0.94], {"at_most": 0.5}, "does not hold"),
        ([1.0, 1.0, 1.0], {"at_least": 0.5}, "holds"),
        ([0.2, 0.2], {"at_least": 0.5}, "not decided"),
        ([0.2, 0.2, 0.2], {"at_least": 0.5}, "does not hold"),
        ([0.9], {"at_least": 0.5}, "not decided"),
        ([0.2, 0.9, 0.7], {"at_least": 0.8, "exists": True}, "holds"),
        ([0.9], {"at_least": 0.8, "exists": True}, "holds"),
        ([0.2, 0.3], {"at_least": 0.8, "exists": True}, "does not hold"),
    ],
)
def test_a_value_against_a_bound(values: list[float], check: dict[str, Any], verdict: str) -> None:
    found = decided({"kind": "value"} | check, seeds("x", values))
    assert found.verdict == verdict
    assert ("one seed, so" in found.why) == (len(values) == 1 and "exists" not in check)
    assert found.seeds == tuple(range(len(values))) and found.value == pytest.approx(np.mean(values))


def test_a_measure_as_a_share_of_the_untuned_generators() -> None:
    def cells(final: float) -> list[CellRecord]:
        own = [{"final": {"bigram_entropy": final + k / 100}, "initial": {"bigram_entropy": 8.0}} for k in range(3)]
        return [record("x", seed, 0.5, **fields) for seed, fields in enumerate(own)]

    check = {"kind": "value", "measure": "bigram_entropy", "untuned": True, "at_least": 0.9}
    assert decided(check, cells(7.9)).verdict == "holds"
    assert decided(check, cells(5.0)).verdict == "does not hold"
    assert decided(check | {"measure": "nothing"}, cells(7.9)).verdict == "not run"


@pytest.mark.parametrize(
    ("mine", "others", "verdict"),
    [
        ([0.9, 0.8, 0.95], {"y": [0.1, 0.05, 0.2], "z": [0.3, 0.2, 0.3]}, "holds"),
        ([0.9, 0.8, 0.95], {"y": [0.1, 0.05, 0.2], "z": [0.9, 0.7, 1.0]}, "not decided"),
        ([0.1, 0.05, 0.2], {"y": [0.9, 0.8, 0.95], "z": [0.0, 0.0, 0.0]}, "does not hold"),
        ([0.9, 0.8, 0.95], {"y": [0.1, 0.05, 0.2]}, "not decided"),
        ([0.9], {"y": [0.1], "z": [0.1]}, "not decided"),
        ([1.0, 1.0, 1.0], {"y": [1.0, 1.0, 1.0], "z": [0.1, 0.2, 0.1]}, "not decided"),  # equal is not ahead
    ],
)
def test_ahead_of_all_the_others(mine: list[float], others: dict[str, list[float]], verdict: str) -> None:
    cells = seeds("x", mine) + [each for name, values in others.items() for each in seeds(name, values)]
    found = decided({"kind": "ahead", "over": ["y", "z"]}, cells)
    assert found.verdict == verdict
    assert ("z: not run" in found.why) == ("z" not in others)


def test_lower_is_better_where_the_task_says_so() -> None:
    lower = {"direction": "lower"}
    cells = seeds("x", [0.1, 0.12, 0.14], **lower) + seeds("y", [0.5, 0.52, 0.55], **lower)
    assert decided({"kind": "ahead", "over": ["y"]}, cells).verdict == "holds"


def test_variants_are_compared_with_each_other() -> None:
    cells = seeds("x", [0.9, 0.8, 0.95], variant="T=96") + seeds("x", [0.1, 0.2, 0.1], variant="T=1")
    assert decided({"kind": "ahead", "variant": "T=96", "over": ["x/T=1"]}, cells).verdict == "holds"
    assert decided({"kind": "ahead", "variant": "T=1", "over": ["x/T=96"]}, cells).verdict == "does not hold"
    assert decided({"kind": "ahead", "over": ["x/T=96"]}, cells).verdict == "not run"


@pytest.mark.parametrize(("theirs", "verdict"), [([0.1, 0.2, 0.1], "holds"), ([0.9, 0.8, 0.95], "not decided")])
def test_a_pair_is_compared_with_itself_without_something(theirs: list[float], verdict: str) -> None:
    """Two parts' cells have the same task, reward, variant and seeds; only their parts tell them apart."""
    mine, others = seeds("x", [0.9, 0.8, 0.95]), seeds("x", theirs)
    mine = [each.model_copy(update={"identity": f"mine{each.seed}"}) for each in mine]
    check = {"kind": "ahead", "part": "p", "task": "lambada_es", "reward": "x", "over": ["x"], "over_part": "q"}
    parts = [*PARTS, {**PARTS[0], "name": "q", "set": {"grpo.lr": 1.0}}]
    data = {"name": "s", "summary": "", "parts": parts, "claims": [{"id": "c", "says": "y", "check": check}]}
    cells = [(SimpleNamespace(arrays=dict), each) for each in mine + others]
    evidence = claims.Evidence(cells, {"p": {r.identity for r in mine}, "q": {r.identity for r in others}})
    (found,) = claims.decide(Suite.model_validate(data), evidence, "tiny")
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.04, 0.05, 0.06], "holds"),
        ([-0.04, -0.05, -0.06], "holds"),
        ([0.9, 0.92, 0.94], "does not hold"),
        ([-0.9, -0.92, -0.94], "does not hold"),
        ([0.0, 0.3, 0.1], "not decided"),
        ([0.0], "not decided"),
    ],
)
def test_still_where_the_untuned_generator_is(values: list[float], verdict: str) -> None:
    cells = [record("x", seed, 0.5 + value, floor=0.5) for seed, value in enumerate(values)]
    assert decided({"kind": "still", "within": 0.2}, cells).verdict == verdict


def trial(row: str, seed: int, value: float, **fields: Any) -> TrialRecord:
    given = {"profile": "tiny", "task": "lambada_es", "target": "own", "identity": f"{row}{seed}", "settings_key": "k"}
    given |= {"status": "done", "measure": "last_word", "unit": "nats/word", "direction": "higher"}
    given |= {
        "rate": None if row == "before" else 1e-3,
        "test": {"last_word": value},
        "validation": {"last_word": value},
    }
    return TrialRecord.model_validate(given | {"row": row, "seed": seed} | fields)


@pytest.mark.parametrize(
    ("mine", "naive", "verdict"),
    [
        ([-14.0, -14.1, -14.2], [-15.0, -15.1, -15.15], "holds"),
        ([-15.0, -15.1, -15.2], [-14.0, -14.1, -14.15], "does not hold"),
        ([-14.0, -15.0, -14.2], [-15.0, -14.1, -14.15], "not decided"),
        ([-14.0], [-15.0], "not decided"),
        ([], [-15.0], "not run"),
    ],
)
def test_what_data_are_worth(mine: list[float], naive: list[float], verdict: str) -> None:
    trials = [trial("before", 0, -15.1), *(trial("naive", seed, value) for seed, value in enumerate(naive))]
    trials += [trial("x", seed, value) for seed, value in enumerate(mine)]
    trials += [trial("x", seed, 0.0, target="other", identity=f"other{seed}") for seed in range(3)]
    check = {"kind": "worth", "part": "d", "task": "lambada_es", "row": "x", "over": ["naive"]}
    claim = {"id": "c", "says": "it", "check": check}
    parts = [*PARTS, {"name": "d", "kind": "worth", "of": "p"}]
    suite = Suite.model_validate({"name": "s", "summary": "", "parts": parts, "claims": [claim]})
    (found,) = claims.decide(suite, claims.Evidence(worth={"d": evaluations.rows(trials)}), "tiny")
    assert found.verdict == verdict
    if verdict == "holds":
        assert found.value == pytest.approx(np.mean(np.array(mine) - np.array(naive)))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([-1.0, -0.99, -1.02], "holds"), ([-0.1, 0.0, -0.05], "does not hold"), ([-1.0, -0.1, -2.0], "not decided")],
)
def test_rates_of_the_theorem(values: list[float], verdict: str) -> None:
    check = {"kind": "rate", "part": "t", "sweep": "batch", "optimizer": "sgd", "low": -1.2, "high": -0.8}
    claim = {"id": "c", "says": "it", "check": check, "known": {"any": "why"}}
    suite = Suite.model_validate(
        {"name": "s", "summary": "", "parts": [{"name": "t", "kind": "theorem"}], "claims": [claim]}
    )
    slopes = [theorem.Slope("batch", "sgd", None, world, value) for world, value in enumerate(values)]
    slopes.append(theorem.Slope("batch", "adam", 1e-9, 0, -1.0))
    (found,) = claims.decide(suite, claims.Evidence(slopes={"t": slopes}), "tiny")
    assert found.verdict == verdict and not found.surprising
    assert claims.decide(suite, claims.Evidence(), "tiny")[0].verdict == "not run"


def test_only_cells_of_the_suites_settings_count() -> None:
    cells = seeds("x", [0.9, 0.92, 0.94])
    check = {"kind": "value", "part": "p", "task": "lambada_es", "reward": "x", "at_least": 0.5}
    suite = Suite.model_validate(
        {"name": "s", "summary": "", "parts": PARTS, "claims": [{"id": "c", "says": "it", "check": check}]}
    )
    found = claims.decide(
        suite, claims.Evidence([(SimpleNamespace(), each) for each in cells], {"p": {"of another run"}}), "tiny"
    )
    assert [each.verdict for each in found] == ["not run"]


def test_unfinished_cells_say_why_nothing_is_decided() -> None:
    cells = [record("x", 0, 0.9, status="failed", reason="it diverged")]
    found = decided({"kind": "value", "at_least": 0.5}, cells)
    assert found.verdict == "not run" and "failed: it diverged" in found.why


def test_what_is_known_not_to_hold_is_no_surprise() -> None:
    check = {"kind": "value", "at_least": 0.5}
    low = seeds("x", [0.1, 0.12, 0.14])
    assert decided(check, low).surprising
    found = decided(check, low, known={"tiny": "another world"})
    assert not found.surprising and "Known: another world" in claims.rows([found])[0][-1]
    assert decided(check, low, known={"paper": "another world"}).surprising
    assert not decided(check, seeds("x", [0.9, 0.92, 0.94]), known={"tiny": "x"}).known


def test_two_readers_are_asked() -> None:
    pytest.importorskip("zxingcpp", reason="the second reader is the extra `readers`")
    task = TASKS.get("qr").factory(SimpleNamespace(options={}, references=None, asset=None))
    target = task.picture
    blurred = target * np.where(np.random.default_rng(0).random(target.shape) < 0.3, -1, 1)

    def found(delta: np.ndarray, opencv: float) -> claims.Found:
        one = record("x", 0, 1.0, task="qr", final={"text_exact": opencv})
        check = {"kind": "scanned", "part": "p", "task": "qr", "reward": "x", "measure": "text_exact"}
        suite = Suite.model_validate(
            {
                "name": "s",
                "summary": "",
                "parts": [{"name": "p", "task": "qr"}],
                "claims": [{"id": "c", "says": "it", "check": check}],
            }
        )
        cell = SimpleNamespace(arrays=lambda: {3: {"target": target, "delta": delta}})
        return claims.decide(suite, claims.Evidence([(cell, one)], {"p": {one.identity}}), "tiny")[0]

    whole = found(target * 0.01, 1.0)
    assert whole.verdict == "holds" and "OpenCV and zxing" in whole.why
    assert found(blurred * 0.01, 1.0).verdict == "does not hold"
    assert found(target * 0.01, 0.0).verdict == "does not hold"


# --------------------------------------------------------------------------------------------------------------- suites


@pytest.mark.parametrize("name", suites.suite_names())
def test_a_suite_is_about_cells_that_there_are(name: str) -> None:
    suite = load_suite(name)
    parts = api.suite_cells(suite, "paper", "0-2")
    of = {part.name: part.of for part in suite.parts if part.kind == "worth"}
    sweeps = {(each.sweep, each.optimizer, each.eps_root) for each in theorem.slopes(1)}
    for claim in suite.claims:
        check = claim.check
        if check.kind == "rate":
            assert (check.sweep, check.optimizer, check.eps_root) in sweeps, claim.id
            continue
        there = {(cell.task, cell.reward, cell.variant) for cell in parts[of.get(check.part, check.part)]}
        if check.kind == "worth":
            rewards = {reward for task, reward, _ in there if task == check.task}
            assert {check.row, *check.over} <= rewards | set(FURTHER), claim.id
            continue
        assert (check.task, check.reward, check.variant) in there, claim.id
        others = {(cell.task, cell.reward, cell.variant) for part in claim.about for cell in parts[part]}
        for name in getattr(check, "over", ()):
            reward, _, variant = name.partition("/")
            assert (check.task, reward, variant or check.variant) in others, claim.id
        measures = {measure.name for measure in TASKS.get(check.task).factory.measures}
        assert check.measure == "headline" or check.measure in measures, claim.id
    assert {cell.settings.keep.generator for name in of.values() for cell in parts[name]} <= {"final"}


def test_parts_of_the_papers_suite_have_profiles_and_seeds_of_their_own() -> None:
    suite = load_suite("paper")
    parts = api.suite_cells(suite, "paper", "0-2")
    assert "qr-14" in parts and "qr-14" not in api.suite_cells(suite, "tiny")
    assert {cell.seed for cell in parts["qr"]} == {0} and {cell.seed for cell in parts["norm"]} == {0, 1, 2}


def test_an_ablation_takes_one_thing_away() -> None:
    """Every claim of the suite compares a pair's cells with the same cells but for one addition."""
    suite = load_suite("ablations")
    parts = api.suite_cells(suite, "tiny")
    for claim in suite.claims:
        (whole,), (without,) = parts[claim.check.part], parts[claim.check.over_part]
        assert suite.part(claim.check.part).set == {}, claim.id
        changed = suite.part(claim.check.over_part).set
        assert changed and len({key.rpartition("_")[0] for key in changed}) == 1, claim.id
        assert without.record().settings != whole.record().settings, claim.id


def test_every_claim_of_the_papers_suite_has_a_section() -> None:
    suite = load_suite("paper")
    places = [section.place for section in suite.sections]
    assert {claim.place for claim in suite.claims} <= set(places) and len(places) == len(set(places))
    shown = {key for section in suite.sections for key in section.figures}
    assert shown == {entry.declares.figure.key for entry in TASKS if entry.declares.figure}
    tasks = {task for section in suite.sections for task in section.samples}
    assert tasks == set(TASKS.names())


def _one(check: dict[str, Any]) -> dict[str, Any]:
    about = {"kind": "value", "part": "p", "task": "t", "reward": "r"}
    return {"claims": [{"id": "c", "says": "x", "check": about | check}]}


BROKEN: dict[str, dict[str, Any]] = {
    "no claims": {"claims": []},
    "a part twice": {"parts": [*PARTS, *PARTS]},
    "an unknown part": _one({"part": "q", "at_least": 1}),
    "an unknown part of the others": _one({"kind": "ahead", "over": ["r"], "over_part": "q"}),
    "no bound": _one({}),
    "an unknown kind": _one({"kind": "vallue", "at_least": 1}),
    "an unknown field": {"sumary": "x"},
    "data of no part": {"parts": [*PARTS, {"name": "d", "kind": "worth", "of": "q"}]},
    "an unknown kind of part": {"parts": [{"name": "d", "kind": "wort", "of": "p"}]},
    "numbers that do not fit": {
        "sections": [
            {
                "place": "x",
                "title": "x",
                "reported": [{"title": "t", "ours": "own", "columns": {"a": "A"}, "rows": {"r": []}}],
            }
        ]
    },
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_suite_is_one_sentence(fault: str, tmp_path) -> None:
    check = {"kind": "value", "part": "p", "task": "lambada_es", "reward": "naive", "at_least": 0.5}
    data = {"name": "s", "summary": "", "parts": PARTS, "claims": [{"id": "c", "says": "x", "check": check}]}
    (tmp_path / "s.yaml").write_text(json.dumps(data | BROKEN[fault]))
    with pytest.raises(HarnessError) as error:
        load_suite(str(tmp_path / "s.yaml"))
    assert "\n" not in str(error.value)
    assert suites.suite_names() == ["ablations", "paper"]


def test_a_budget_holds_parts_in_their_order() -> None:
    hours = {"a": 0.5, "b": 2.0, "c": 0.4, "d": 0.2}
    chosen = within_budget(hours, 1.0)
    assert chosen.run == ("a", "c") and chosen.left_out == {"b": 2.0, "d": 0.2}
    assert within_budget(hours, None).run == tuple(hours)
    assert [hours_of(text) for text in ("60m", "2h", "90", "1800s")] == pytest.approx([1, 2, 1.5, 0.5])
    for text in ("", "x", "-3m", "0", "m"):
        with pytest.raises(HarnessError, match="--budget"):
            hours_of(text)


LITTLE = {
    "grpo.steps": 1, "grpo.prompts_per_step": 4, "grpo.updates_per_step": 1, "validation.prompts": 8,
    "generator.max_completion_tokens": 8,
}  # fmt: skip


def test_a_planted_false_claim_is_caught(tmp_path, monkeypatch) -> None:
    """From cells to the exit code: a claim that is true, one that nothing can make true, one about what did not run."""
    monkeypatch.chdir(tmp_path)
    about = {"part": "norm", "task": "norm", "reward": "naive"}
    much = about | {"kind": "value", "at_least": 1e6, "exists": True}
    other = about | {"kind": "value", "at_least": 0.0, "reward": "sgd_metagrad"}
    data = {
        "name": "mine",
        "summary": "",
        "parts": [{"name": "norm", "task": "norm", "reward": "naive", "set": LITTLE}],
        "claims": [
            {"id": "true", "says": "it moves little", "check": about | {"kind": "still", "within": 1.0}},
            {"id": "false", "says": "it moves a lot", "check": much},
            {"id": "open", "says": "sgd", "check": other},
        ],
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(data))
    options = {"suite": "mine.yaml", "seeds": "0-1", "workers": 0, "progress": False}
    assert [each.verdict for each in api.paper(**options, run=False).found] == ["not run"] * 3
    found = api.paper(**options)
    assert [each.verdict for each in found.found] == ["holds", "does not hold", "not run"]
    assert found.surprising == ["false"]
    stored = json.loads((tmp_path / "runs" / "tiny" / "claims.json").read_text())
    assert [each["verdict"] for each in stored["claims"]] == ["holds", "does not hold", "not run"]
    ended = run_harness("paper", "--suite", "mine.yaml", "--seeds", "0-1", "--stored", cwd=tmp_path)
    assert ended.code == 1 and "Not known not to hold: false" in ended.out
    data["parts"] = [data["parts"][0] | {"seeds": 1}]  # of which the first asked for runs: what is there counts all
    (tmp_path / "mine.yaml").write_text(json.dumps(data))
    assert api.paper(**options | {"seeds": "5,0-1"}, run=False).found[0].seeds == (0, 1)


# --------------------------------------------------------------------------------------------------- page and `diff`


@pytest.fixture
def decided_runs(tmp_path, generate):
    """Results with claims beside them: verdict -> folder."""

    def make(name: str, verdict: str) -> Any:
        folder = tmp_path / name
        generate(folder, tasks=("norm",), rewards=("naive",))
        claim = {"id": "c", "says": "<b>it</b> moves", "verdict": verdict, "ours": "0.5 [0.4 .. 0.6]"}
        (place := next(folder.glob("*/"))).joinpath("claims.json").write_text(
            json.dumps({"suite": "paper", "profile": place.name, "claims": [claim]})
        )
        return folder

    return make


@pytest.mark.parametrize(
    ("before", "after", "code", "word"),
    [
        ("holds", "does not hold", 1, "worse"),
        ("does not hold", "holds", 0, "improved"),
        ("holds", "not decided", 0, "same"),
        ("holds", "holds", 0, "same"),
    ],
)
def test_diff_knows_claims(before: str, after: str, code: int, word: str, decided_runs) -> None:
    from reports.diff import compare

    result = compare(decided_runs("base", before), decided_runs("new", after))
    (row,) = [each for each in result.rows if each.task == "claim"]
    assert (row.verdict, result.exit_code) == (word, code)


@pytest.mark.parametrize("content", ["{", "[]", '{"suite": "s", "profile": "p", "claims": [{"id": 3}]}'])
def test_claims_that_cannot_be_read_are_a_row(content: str, decided_runs, tmp_path) -> None:
    from reports.diff import compare

    base, new = decided_runs("base", "holds"), decided_runs("new", "holds")
    next(new.rglob("claims.json")).write_text(content)
    result = compare(base, new)
    assert result.exit_code == 2 and "damaged in NEW" in result.reason
    assert "damaged" in api.report(new, tmp_path / "site").read_text()


def test_the_page_shows_claims_as_text(decided_runs, tmp_path) -> None:
    page = api.report(decided_runs("runs", "does not hold"), tmp_path / "site").read_text()
    assert 'id="panel-claims"' in page and "&lt;b&gt;it&lt;/b&gt; moves" in page and "<b>it" not in page
    assert "0.5 [0.4 .. 0.6]" in page
    assert "## Claims: paper" in (tmp_path / "site" / "report.md").read_text()


def test_a_damaged_cell_decides_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    check = {"kind": "value", "part": "norm", "task": "norm", "reward": "naive", "at_least": -1e9}
    data = {
        "name": "mine",
        "summary": "",
        "parts": [{"name": "norm", "task": "norm", "reward": "naive", "set": LITTLE}],
        "claims": [{"id": "c", "says": "it", "check": check}],
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(data))
    (cell,) = api.suite_cells(load_suite("mine.yaml"))["norm"]
    folder = tmp_path / "runs" / "tiny" / "norm" / "naive" / f"seed0-{cell.record().identity}"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text("{")
    assert [each.verdict for each in api.paper(suite="mine.yaml", run=False, progress=False).found] == ["not run"]
