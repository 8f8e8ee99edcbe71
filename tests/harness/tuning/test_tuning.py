"""`tune`: what is tried, what is chosen and by what rule, the file, and `run --tuned`."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness import api
from harness.contracts import HarnessError
from harness.settings.profiles import load_profile, origins, resolve, tuned_data, with_tuned
from harness.store.record import CellRecord
from harness.tuning import outcome
from harness.tuning.outcome import Choice, Tried, choose, usable_range
from harness.tuning.space import default_axis, parse_axis, points
from harness.tuning.trials import planned

TINY = load_profile("tiny")


# ---------------------------------------------------------------------------------------------------------- the space


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("grpo.lr=1e-4..8e-4:x2", (1e-4, 2e-4, 4e-4, 8e-4)),
        ("grpo.lr=1e-4..7.9e-4", (1e-4, 2e-4, 4e-4)),
        ("grpo.clip_low=0.1..1:x3.1", (0.1, 0.31, 0.961)),
        ("grpo.lr=1.5e-4..1.5e-4:x10", (1.5e-4,)),
    ],
)
def test_axis_from_text(text: str, values: tuple[float, ...]) -> None:
    axis = parse_axis(text)
    assert axis.values == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "grpo.lr", "grpo.lr=1e-4", "grpo.lr=1e-4..", "grpo.lr=2..1", "grpo.lr=0..1", "grpo.lr=1..2:x1", "grpo.lr=a..b",
        "grpo.lrr=1..2", "grpo.lr=1..2:x", "grpo.lr=1e-300..1e300:x1.001", "grpo.lr=1..inf", "grpo.lr=nan..1",
    ],
)  # fmt: skip
def test_a_bad_axis_is_one_sentence(text: str) -> None:
    with pytest.raises(HarnessError) as error:
        parse_axis(text)
    assert "\n" not in str(error.value)


def test_each_reward_is_tuned_by_the_rate_that_its_strength_depends_on() -> None:
    def axis(task: str, reward: str) -> tuple[str, float]:
        settings = resolve(TINY, task, reward)
        found = default_axis(task, reward, settings, 14)
        assert len(found.values) == 14
        assert all(b == pytest.approx(2 * a, rel=1e-4) for a, b in zip(found.values, found.values[1:], strict=False))
        return found.key, found.values[6]

    assert axis("lambada_es", "adam_metagrad") == ("inner.optimizer.lr", 1e-5)
    assert axis("lambada_es", "naive") == ("inner.optimizer.lr", 1e-5)
    assert axis("lambada_es", "embedding") == ("grpo.lr", 4e-4)
    assert axis("67", "sgd_metagrad")[0] == "inner.optimizer.total_lr"
    assert axis("norm", "sgd_metagrad") == axis("norm", "naive") == ("grpo.lr", 3e-4)


@pytest.mark.parametrize("key", ["inner.optimizer.lr", "inner.optimizer.total_lr"])
def test_a_headline_that_grows_with_the_rate_is_not_tuned_by_it(key: str) -> None:
    """A norm changes by as much more as the rate is larger: the largest would win and mean nothing."""
    with pytest.raises(HarnessError, match=r"norm's headline grows whatever the texts are; tune grpo\.lr instead"):
        planned(TINY, ["67", "norm"], ["naive"], [100], 2, [f"{key}=1e-4..2e-4"], {})
    assert len(planned(TINY, ["67"], ["naive"], [100], 2, [f"{key}=1e-4..2e-4"], {})) == 2


def test_all_rewards_get_as_many_trials() -> None:
    trials = planned(TINY, ["lambada_es"], ["adam_metagrad", "embedding"], [100], 5, [], {})
    assert [trial.reward for trial in trials] == ["adam_metagrad"] * 5 + ["embedding"] * 5
    assert len({cell.record().identity for trial in trials for cell in trial.cells}) == 10


def test_whole_numbers_stay_whole_and_are_tried_once() -> None:
    settings = resolve(TINY, "norm", "naive")
    assert points([parse_axis("grpo.steps=1..4:x1.3")], settings) == [{"grpo.steps": n} for n in (1, 2, 3, 4)]
    with pytest.raises(HarnessError, match="no number"):
        points([parse_axis("grpo.loss=1..2")], settings)


def test_more_combinations_than_trials_are_refused() -> None:
    with pytest.raises(HarnessError, match="4 combinations, more than --trials 3"):
        planned(TINY, ["norm"], ["naive"], [100], 3, ["grpo.lr=1e-4..2e-4", "grpo.clip_low=0.1..0.2"], {})


# ---------------------------------------------------------------------------------------------------------- the choice


def choice(medians: list[float], direction: str = "higher", floor: float = 0.0) -> Choice:
    ended = [({}, {100: "failed: diverged"}) if math.isnan(value) else ({100: value}, {}) for value in medians]
    tried = tuple(Tried({"grpo.lr": 10.0**place}, *how) for place, how in enumerate(ended))
    return Choice("t", "r", "m", direction, floor, tried)


def test_the_best_median_is_chosen_and_of_equals_the_middle() -> None:
    assert choose([0.1, 0.9, 0.4], "higher") == 1
    assert choose([0.1, 0.9, 0.4], "lower") == 0
    assert choose([0.5, 1.0, 1.0, 1.0, 0.2], "higher") == 2
    assert choose([1.0, 1.0], "higher") == 0
    assert choose([math.nan, math.nan], "higher") is None


def test_a_point_with_a_seed_that_did_not_finish_cannot_be_chosen() -> None:
    found = Tried({"grpo.lr": 1.0}, {100: 1.0}, {101: "failed: diverged"})
    assert math.isnan(found.median)
    assert choice([0.5, math.nan, 0.4]).chosen == 0


def test_usable_range_stops_at_the_first_gap() -> None:
    found = choice([0.1, 0.95, 0.5, 0.92, 1.0, 0.95, math.nan, 1.0 - 1e-9])
    assert found.usable == (1e3, 1e5)
    assert found.decades == pytest.approx(2)
    assert choice([0.0, -0.1]).usable is None
    assert choice([5.0, 1.0, 1.2], "lower", floor=3.0).usable == (10.0, 100.0)


def test_where_nothing_is_gained_the_key_measure_decides() -> None:
    """A UUID is there or not: rates that find some of it are told apart by how much."""

    def found(headlines: list[float]) -> Choice:
        cells = [
            CellRecord(
                profile="tiny", task="uuid", reward="naive", seed=100, identity=str(place), status="done",
                measure="uuid_exact", unit="fraction", direction="higher", headline=headline, floor=0.0,
                final={"longest_piece_max": characters},
            )
            for place, (headline, characters) in enumerate(zip(headlines, (2.0, 5.0, 3.0), strict=True))
        ]  # fmt: skip
        return outcome.choice("uuid", "naive", [({"grpo.lr": 10.0**k}, [cell]) for k, cell in enumerate(cells)])

    nothing, something = found([0.0, 0.0, 0.0]), found([0.0, 0.0, 0.1])
    assert (nothing.chosen, nothing.by_key_measure, nothing.usable) == (1, True, None)
    assert (something.chosen, something.by_key_measure) == (2, False)
    assert choice([0.0, 0.0, 0.0]).chosen == 1  # a task without key measures: the middle, as ever


@given(
    st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=12),
    st.sampled_from(["higher", "lower"]),
    st.floats(-10, 10),
)
def test_the_usable_range_is_what_a_slow_look_says(medians: list[float], direction: str, floor: float) -> None:
    values = [2.0**place for place in range(len(medians))]
    sign = -1 if direction == "lower" else 1
    found, chosen = usable_range(values, medians, floor, direction), choose(medians, direction)
    if chosen is None or not sign * (medians[chosen] - floor) > 0:
        assert found is None
        return
    least = outcome.USABLE * sign * (medians[chosen] - floor)
    assert found is not None
    stretches = [
        (low, high)
        for low in range(chosen + 1)
        for high in range(chosen, len(medians))
        if all(sign * (value - floor) >= least for value in medians[low : high + 1])
    ]
    assert found == max(((values[low], values[high]) for low, high in stretches), key=lambda ends: ends[1] - ends[0])


# ------------------------------------------------------------------------------------------------------------ the file


def test_the_file_goes_over_the_profile_and_under_the_command_line(tmp_path) -> None:
    path = tmp_path / "tiny.yaml"
    best = Choice("67", "sgd_metagrad", "m", "higher", 0.5, (Tried({"inner.optimizer.lr": 3.0}, {100: 0.9}, {}),))
    outcome.write(path, "tiny", [best], "abc", "tune", {})
    profile = with_tuned(TINY, path)
    settings = resolve(profile, "67", "sgd_metagrad", {})
    assert (settings.inner.optimizer.lr, settings.inner.optimizer.total_lr) == (3.0, None)
    assert str(origins(profile, "67", "sgd_metagrad")["inner.optimizer.lr"]) == "tiny.yaml"
    assert resolve(profile, "67", "sgd_metagrad", {"inner.optimizer.lr": 7.0}).inner.optimizer.lr == 7.0
    assert resolve(profile, "67", "naive") == resolve(TINY, "67", "naive")


def test_what_the_file_holds_of_others_stays(tmp_path) -> None:
    path = tmp_path / "tiny.yaml"
    outcome.write(path, "tiny", [choice([0.1, 0.5])], "a", "tune", {})
    other = Choice("t", "s", "m", "higher", 0.0, (Tried({"grpo.lr": 2.0}, {}, {100: "failed: it diverged"}),))
    outcome.write(path, "tiny", [other], "b", "tune", tuned_data(path))
    data = yaml.safe_load(path.read_text())
    assert data["pairs"] == {"t": {"r": {"grpo.lr": 10.0}}}
    assert data["trials"]["t"]["s"]["curve"][0]["unfinished"] == {100: "failed: it diverged"}
    assert data["trials"]["t"]["r"]["commit"] == "a"


def test_a_profile_may_name_its_tuned_file(tmp_path) -> None:
    (tmp_path / "tuned.yaml").write_text("profile: mine\npairs: {norm: {naive: {grpo.lr: 2.0e-3}}}\n")
    (tmp_path / "mine.yaml").write_text("extends: tiny\ntuned: tuned.yaml\nsettings: {grpo.steps: 2}\n")
    profile = load_profile(str(tmp_path / "mine.yaml"))
    assert resolve(profile, "norm", "naive").grpo.lr == 2e-3
    assert profile.tuning == TINY.tuning


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("pairs: {}", "is no file of"),
        ("profile: tiny\nother: 1", "is no file of"),
        ("profile: small", "tuned for the profile small"),
        ("profile: tiny\npairs: {norm: {naive: {grpo.lrr: 1}}}", "no setting named"),
    ],
)
def test_a_file_that_tune_did_not_write_is_refused(tmp_path, content: str, says: str) -> None:
    (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(HarnessError, match=says):
        with_tuned(TINY, tmp_path / "x.yaml")


def test_a_bad_tuning_section_is_one_sentence(tmp_path) -> None:
    (tmp_path / "x.yaml").write_text("extends: tiny\ntuning: {seeds: [-1]}\n")
    with pytest.raises(HarnessError, match=r"tuning\.seeds\.0"):
        load_profile(str(tmp_path / "x.yaml"))


# --------------------------------------------------------------------------------------------------------- the command


def test_seeds_for_tuning_are_not_run_unless_asked_for() -> None:
    with pytest.raises(HarnessError, match="keeps seed 101 for tuning"):
        api.cells("norm", "naive", seeds="0,101")
    assert [cell.seed for cell in api.cells("norm", "naive", seeds="101", tuning_seeds=True)] == [101]


LITTLE = {
    "grpo.steps": 1, "grpo.prompts_per_step": 4, "grpo.updates_per_step": 1, "validation.prompts": 8,
    "generator.max_completion_tokens": 8,
}  # fmt: skip


def test_trials_are_cells_and_the_choice_is_reported_on_the_test_split(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"set": LITTLE, "trials": 3, "workers": 0, "progress": False}
    found = api.tune("norm", "naive,embedding", **options)
    assert found.left_out and found.left_out[0].startswith("norm/embedding: unsupported")
    (one,) = found.choices
    assert len(one.tried) == 3 and one.chosen is not None and not found.results.failed
    again = api.tune("norm", "naive", **options)
    assert again.choices == found.choices
    assert (again.results.wide["provenance_started"] == found.results.wide["provenance_started"]).all()

    results = api.run("norm", "naive", tuned=found.file, set=LITTLE, workers=0, out="out", progress=False)
    settings = results.cells[0].read().settings
    assert settings["grpo"]["lr"] == one.tried[one.chosen].point["grpo.lr"]
    assert settings["data"]["held_out"] == "test"
    articles = {cell.samples()[0]["article"] for cell in (results.cells[0], found.results.cells[0])}
    assert len(articles) == 2

    page = api.report("tuning", "site").read_text()
    assert "Sensitivity" in page and "grpo.lr, powers of ten" in page
    assert "## Sensitivity" in (tmp_path / "site" / "report.md").read_text()


def test_a_diverged_trial_is_a_result(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = ["grpo.lr=1e-5..1e6:x1e11"]
    found = api.tune("norm", "naive", set={**LITTLE, "grpo.steps": 2}, space=space, workers=0, progress=False)
    low, high = found.choices[0].tried
    assert high.unfinished[100].startswith("failed: ")
    assert found.choices[0].chosen == 0 and not low.unfinished
