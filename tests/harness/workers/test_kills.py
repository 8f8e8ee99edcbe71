"""The short version of scripts/robustness.py: a few kills, stops and faults, and nothing lost."""

from __future__ import annotations

import json
import os

import pytest

from tests.helpers.command import ROOT, start


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the trial forks")
def test_a_grid_that_is_killed_stopped_and_starved_loses_nothing(tmp_path):
    command = [
        str(ROOT / "scripts" / "kill_and_resume.py"),
        "--kills=4",
        "--signals=1",
        "--faults=2",
        "--steps=2",
        "--seed=1",
        f"--folder={tmp_path}",
    ]
    process = start(command, ROOT)
    out, errors = process.communicate()
    assert "{" in out, errors[-2000:]
    found = json.loads(out[out.index("{") :])
    assert found["lost"] == [] and process.returncode == 0
    counts = found["disturbances"]
    assert counts["killed"] == 2 and counts["torn"] == 2 and counts["stopped"] == 1
    assert counts["full"] == 1 and counts["readonly"] == 1 and counts["grids compared"] >= 1
