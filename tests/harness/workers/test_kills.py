"""The short version of scripts/robustness.py: a few kills, stops and faults, and nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.helpers.command import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trial forks")
def test_a_grid_that_is_killed_stopped_and_starved_loses_nothing(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "scripts" / "kill_and_resume.py"),
        "--kills=4",
        "--signals=1",
        "--faults=2",
        "--steps=2",
        "--seed=1",
        f"--folder={tmp_path}",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "{" in done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["lost"] == [] and done.returncode == 0
    counts = found["disturbances"]
    assert counts["killed"] == 2 and counts["torn"] == 2 and counts["stopped"] == 1
    assert counts["full"] == 1 and counts["readonly"] == 1 and counts["grids compared"] >= 1
