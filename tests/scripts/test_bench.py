"""The benchmarks of speed say what they must; seconds are not judged. That of phases runs at a sliver of the width,
that of the main job with a stand-in for the harness in a repository of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scripts import bench_main_job, bench_phases


@pytest.mark.parametrize(("task", "target", "steps"), [("lambada_es", "llama-3.2-1b", 1), ("67", "gpt2", 2)])
def test_every_phase_is_measured_beside_floor_and_plan(task, target, steps, tmp_path, capsys):
    short = ["generator.max_prompt_tokens=24", "generator.max_completion_tokens=8", "inner.max_tokens=8"]
    given = [word for setting in short for word in ("--set", setting)]
    out = tmp_path / "deep" / "phases"
    bench_phases.main(
        [
            "--width-divisor",
            "64",
            "--prompts",
            "2",
            "--steps",
            "1",
            "--passages",
            "8",
            "--task",
            task,
            "--target",
            target,
            "--inner-steps",
            str(steps),
            "--out",
            str(out),
            *given,
        ]
    )
    stored = json.loads(out.with_suffix(".json").read_text())
    assert list(stored["phases"]) == ["generation", "reward", "update", "validation"]
    for row in stored["phases"].values():
        assert row["seconds"] > 0 and row["flops"] > 0 and row["floor_seconds"] > 0 and row["planned_seconds"] > 0
    assert stored["rollouts"] == 8 and stored["profile_cell_hours"] > 0
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out + "\n"


def test_exponents_are_fitted_through_stored_points_and_nothing_is_measured_twice(tmp_path, monkeypatch):
    sizes = []

    def measure(settings, options, shapes):
        """Seconds that grow as the square of a rollout's tokens, by 1.5 with T, with the width as FLOPs do."""
        new, steps, wide = settings.generator.max_completion_tokens, settings.inner.steps, shapes[0].hidden
        sizes.append((options.prompts, new, steps, options.width_divisor))
        return {phase: [new**2 * steps**1.5 * wide] for phase in bench_phases.PHASES}, {}

    monkeypatch.setattr(bench_phases, "measure", measure)
    given = ["--growth", "--doublings", "2", "--out", str(tmp_path / "growth")]
    result = bench_phases.main(given)
    assert len(sizes) == len(set(sizes)) == 1 + 4 * 2  # the smallest step is a point of every size
    found = {(row["size"], row["phase"]): row for row in result["fits"]}
    expected = {"rollouts a step": 0, "tokens a rollout": 2, "inner steps T": 1.5, "width": 1}
    for size, exponent in expected.items():
        for kind in ("seconds", "last_seconds"):
            assert found[size, "update"][kind] == pytest.approx(exponent, abs=1e-9)
    assert found["rollouts a step", "update"]["flops"] == pytest.approx(1)
    assert 1.7 < found["width", "update"]["flops"] < 2.1
    assert found["inner steps T", "generation"]["flops"] == 0 < found["inner steps T", "reward"]["last_flops"]
    assert "| tokens a rollout | update | 2.00 | 2.00 |" in (tmp_path / "growth.md").read_text()
    bench_phases.main(given)
    assert len(sizes) == 9


@pytest.mark.parametrize("vocab", [300, 5000])
def test_texts_have_the_length_they_should(vocab):
    tokenizer = bench_phases.words(vocab)
    ids = tokenizer(bench_phases.text(110, vocab, 3))["input_ids"]
    assert len(ids) == 110 and max(ids) < vocab - 1
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids


# ------------------------------------------------------------------------------------------------------- bench_main_job

STAND_IN = """
import json, pathlib, subprocess, sys, time
burn = "import time; start = time.process_time()\\nwhile time.process_time() - start < SECONDS: pass"
subprocess.run([sys.executable, "-c", burn], check=True)
pathlib.Path("../../LOG").open("a").write("SIDE " + " ".join(sys.argv[1:-2]) + "\\n")
cell = pathlib.Path(sys.argv[-1], "tiny", "lambada_es", "naive", "seed0-a")
cell.mkdir(parents=True)
settings = {"grpo": {"steps": STEPS}, "new": {}}
record = {"reward": "naive", "settings": settings, "seconds": {"update": SECONDS}}
(cell / "cell.json").write_text(json.dumps(record))
pathlib.Path(sys.argv[-1], "tiny", "table.md").write_text("| SIDE |")
sys.exit(CODE)
"""


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, log: Path, **values: object) -> str:
    """A commit whose harness burns SECONDS in a child, notes in `log` that it ran, and ends with CODE."""
    text = STAND_IN.replace("../../LOG", str(log))
    for name, value in values.items():
        text = text.replace(name, str(value))
    (folder / "harness").mkdir(exist_ok=True)
    (folder / "harness" / "__main__.py").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-m", "x")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: the second takes half the time of the first, with fewer steps."""
    folder, log = tmp_path / "repository", tmp_path / "log"
    folder.mkdir()
    git(folder, "init")
    commit(folder, log, SECONDS=0.8, SIDE="base", STEPS=9, CODE=0)
    commit(folder, log, SECONDS=0.4, SIDE="here", STEPS=6, CODE=0)
    return folder


def test_both_commits_run_in_turn_and_childrens_seconds_count(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--base", "HEAD~1", "--out", str(out), "--repeats", "2", "--seeds", "3", "--set", "grpo.steps=2"]
    result = bench_main_job.main(given, repository)
    ran = "run --task lambada_es --reward all --seeds 3 --set grpo.steps=2"
    assert (tmp_path / "log").read_text().splitlines() == [f"here {ran}", f"base {ran}"] * 2
    for run in result["runs"]:
        assert run["cpu_seconds"] > (0.4 if run["side"] == "here" else 0.8)
    page = (out / "README.md").read_text()
    assert "| update | 0.4 (0.4, 0.4) | 0.8 (0.8, 0.8) | 0.50 |" in page
    assert "Settings that differ: `grpo.steps` 6 in place of 9." in page
    assert "| here |" in page and "| base |" in page
    assert git(repository, "worktree", "list").count("\n") == 0, "the checkouts are gone"


def test_a_second_call_runs_what_is_missing_unless_something_changed(repository: Path, tmp_path: Path) -> None:
    given = ["--base", "HEAD~1", "--out", str(tmp_path / "out")]
    sides = lambda: [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    bench_main_job.main([*given, "--here-only"], repository)
    assert sides() == ["here"]
    assert "ratio |\n| --- | ---: | ---: |" in (tmp_path / "out" / "README.md").read_text()
    bench_main_job.main(given, repository)
    bench_main_job.main(given, repository)
    assert sides() == ["here", "base"]
    bench_main_job.main([*given, "--reward", "naive"], repository)
    assert sides() == ["here", "base"] * 2
    assert len(json.loads((tmp_path / "out" / "runs.json").read_text())["runs"]) == 2


def test_a_run_that_fails_ends_the_comparison_and_leaves_no_checkout(repository: Path, tmp_path: Path) -> None:
    commit(repository, tmp_path / "log", SECONDS=0, SIDE="here", STEPS=6, CODE=1)
    with pytest.raises(RuntimeError, match="exit code 1"):
        bench_main_job.main(["--out", str(tmp_path / "out"), "--base", "HEAD~1"], repository)
    assert git(repository, "worktree", "list").count("\n") == 0
    assert not (tmp_path / "out").exists()
