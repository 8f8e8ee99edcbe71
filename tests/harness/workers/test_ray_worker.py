"""What a node of a Ray does with work that is more than a cell of one process: a cell that several share, and jobs that
read what others stored. On a real Ray of this machine, which declares two GPUs that it does not have."""

from __future__ import annotations

import os
import signal

import pytest

from harness.contracts import HarnessError
from harness.evaluation.plan import plans
from harness.evaluation.run import run_all
from harness.machine.stopping import Interrupted
from harness.settings.profiles import load_profile
from harness.store.frames import find_cells
from harness.workers import ray as place
from harness.workers.grid import run_grid
from harness.workers.local import InProcess
from harness.workers.ray_nodes import PLACE
from tests.harness.workers import test_executor as contract
from tests.harness.workers.test_ray import kill_workers, ray_here
from tests.helpers.cells import ignore
from tests.helpers.command import ROOT, flags, start


@pytest.fixture(scope="module")
def two_gpus():
    with ray_here(num_gpus=2):
        yield


def test_two_processes_share_a_cell_as_under_a_launcher_stopped_and_killed(two_gpus, quick, make_cell, tmp_path):
    """The first time the command is stopped, the second time one of the processes is killed; no shared folder."""
    given = quick(grpo__steps=8, grpo__checkpoint_every=1, inner__sharded=True)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--standalone"]
    grid = ["run", "--task", "norm", "--reward", "adam_metagrad", "--out", str(tmp_path / "here"), "--workers", "0"]
    launched = start([*launcher, "-m", "harness", *grid, *flags(given)], ROOT)
    _, errors = launched.communicate(timeout=600)
    assert launched.returncode == 0, errors[-3000:]

    cells, told = [make_cell("norm", "adam_metagrad", given)], []
    made = place.Cluster(place=tmp_path / "there", ranks=2, shared=False)
    assert (made.slots, made.gpus) == (1, 1)

    def stopping(cell, event):
        if event.get("step") == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run_grid(cells, tmp_path / "there", stopping, made)
    (cell,) = find_cells(tmp_path / "there")
    cut = cell.read()
    assert cut.status == "interrupted" and 1 <= cut.steps_done < 8
    assert max(path.name for path in cell.folder.rglob("step-*.safetensors")).startswith(f"step-{cut.steps_done:08d}")

    def killing(cell, event):
        if "step" in event and "again" not in told:
            kill_workers(most=1)
        told.append(event["event"])

    (record,) = run_grid(cells, tmp_path / "there", killing, made)
    assert record.status == "done" and 1 <= told.count("again") < place.LOSSES
    assert record.provenance["processes"] == 2
    assert contract.numbers(tmp_path / "here") == contract.numbers(tmp_path / "there")
    (alone,) = find_cells(tmp_path / "here")
    assert alone.read().generator_sha256 == record.generator_sha256
    assert groups() == {"REMOVED"}


def test_more_processes_than_the_cluster_has_room_for_are_a_sentence(two_gpus, quick, make_cell, tmp_path):
    made = place.Cluster(place=tmp_path, ranks=3)
    with pytest.raises(HarnessError, match="no room for the 3 processes of norm/naive.* has 2, 2 and"):
        run_grid([make_cell("norm", "naive", quick())], tmp_path, ignore, made)


def test_evaluations_need_no_shared_folder(two_gpus, quick, make_cell, tmp_path):
    """They read what a cell stored, and data sets that other jobs did."""
    given = quick(grpo__steps=1) | {"evaluation.multiples": [1]}
    runs = tmp_path / "runs"
    run_grid([make_cell("norm", "naive", given)], runs, ignore, InProcess())

    def found(out, executor):
        asked = plans(load_profile("tiny"), ["norm"], ["naive"], [0], ["own"], given, runs, out)
        return [(trial.row, trial.status, trial.identity, trial.test) for trial in run_all(asked, ignore, executor)]

    here = found(tmp_path / "here", InProcess())
    assert [status for _, status, *_ in here] == ["done", "done"]
    there = place.Cluster(place=tmp_path / "there", gpus=0, shared=False)
    assert found(tmp_path / "there", there) == here
    files = [{path.relative_to(tmp_path / out) for path in (tmp_path / out).rglob("*.*")} for out in ("here", "there")]
    assert files[0] == {path for path in files[1] if path.name != PLACE} and len(files[0]) > 4


def groups() -> set[str]:
    """States of all placement groups that there were."""
    import ray

    return {each["state"] for each in ray.util.placement_group_table().values()}
