"""What a job asks Slurm for: by its plan, by the file of `--slurm`, as a script."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import pytest

import harness
from harness import api
from harness.contracts import HarnessError
from harness.machine.devices import CPU_CORE
from harness.workers import slurm_site as site
from harness.workers.grid import CellJob
from harness.workers.slurm import Slurm
from harness.workers.where import Where, slurm_scripts

pytestmark = pytest.mark.skipif(find_spec("submitit") is None, reason="needs the extra slurm")


class Unplanned:
    """Of a job, all that it is asked for here."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partitoin: gpu", "partitoin"),
        ("gpus: one", "gpus"),
        ("gpu: h300", "gpu: Input should be 'h200'"),
        ("hours: 0", "hours"),
        ("options: {signal: USR1}", "--signal is set by the harness"),
        ("options: {'--qos': high}", "'--qos' is no long option"),
        ("setup: module load cuda", "setup"),
        ('setup: ["a\\nb"]', "a line break"),
        ("- partition", "valid dictionary"),
        ("partition: [", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_one_sentence(text, said, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(HarnessError, match="file of --slurm") as caught:
        site.read_site(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(HarnessError, match="cannot be read"):
        site.read_site(tmp_path / "none.yaml")
    assert site.read_site("") == site.Site()


def test_resources_are_the_plans_unless_the_file_says_more(make_cell, quick, tmp_path):
    small = CellJob(make_cell("norm", "naive", quick()), tmp_path)
    plan = small.planned(CPU_CORE)
    found = site.needs(small, site.Site())
    assert found.minutes == round((plan.hours * site.TIME_FACTOR + site.TIME_BESIDE) * 60) and found.gpus == 0
    assert found.mib == round((plan.memory * site.MEMORY_FACTOR + site.MEMORY_BESIDE) / 2**20)
    assert found.notice == site.LEAST_NOTICE
    (cell,) = api.cells("lambada_es", "adam_metagrad", "paper")
    large = CellJob(cell, tmp_path)
    on = {gpu: site.needs(large, site.Site(gpu=gpu)) for gpu in ("l4", "h200")}
    assert on["l4"].gpus == on["h200"].gpus == 1 and on["l4"].minutes > on["h200"].minutes
    said = site.needs(large, site.Site(gpus=4, hours=0.5, memory_gib=3))
    assert (said.minutes, said.mib, said.gpus) == (30, 3072, 4) and said.notice <= 900
    unplanned = site.needs(Unplanned(), site.Site())
    assert (unplanned.minutes, unplanned.gpus) == (60 * site.UNPLANNED_HOURS, 0)
    both = site.parameters([small, Unplanned()], site.Site(), 1, None)
    assert both["time"] == unplanned.minutes and both["mem"] == f"{max(found.mib, unplanned.mib)}MB"


def test_the_dry_run_prints_what_sbatch_would_get(quick, tmp_path):
    (tmp_path / "site.yaml").write_text(
        "partition: gpu\naccount: mine\noptions: {qos: high, exclusive: true, x: false}\nsetup: [module load cuda]\n"
    )
    where = Where("slurm", "", 2, 3, tmp_path / "site.yaml")
    (script,) = slurm_scripts(api.cells("norm", "naive", seeds="0-4", set=quick()), where, tmp_path / "runs")
    lines = script.splitlines()
    for option in (
        "partition=gpu",
        "account=mine",
        "qos=high",
        "exclusive",
        "array=0-4%2",
        "cpus-per-task=3",
        "requeue",
        "signal=USR2@120",
    ):
        assert f"#SBATCH --{option}" in lines
    assert not any("--x" in line for line in lines)
    assert lines.index("module load cuda") < lines.index("export OMP_NUM_THREADS=3") < len(lines) - 2
    assert "submitit.core._submit" in script and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slurm": "site.yaml"}, "--slurm goes with --executor slurm"),
        ({"executor": "ray", "slurm": "site.yaml"}, "--slurm goes with --executor slurm"),
        ({"executor": "slurm", "address": "auto"}, "--address goes with --executor ray"),
        ({"executor": "slurm"}, "there is no sbatch here; call it on a login node"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(options, said, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HarnessError, match=said):
        harness.run("norm", "naive", set=quick(), out=tmp_path, progress=False, **options)
    assert not list(tmp_path.rglob("cell.json"))


def test_without_the_extra_it_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "find_spec", lambda name: None)
    with pytest.raises(
        HarnessError, match="needs the package submitit; install it with `pip install 'dpg-harness.slurm"
    ):
        Slurm(tmp_path)
