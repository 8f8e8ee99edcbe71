"""Runs a grid on a real Slurm and disturbs it: is the table the one of a quiet run, and does no cell run twice?

    python scripts/slurm_check.py [--seeds 2] [--steps 60] [--folder FOLDER] [--study FOLDER]

Needs Slurm's own programs (Debian: `apt-get install slurm-wlm munge`) and the extra `slurm`. A munged, a slurmctld and
two slurmd, nodes of one CPU each, are started on this machine for the time of the check: on free ports of 127.0.0.1,
from a configuration in a temporary folder, without accounting. Nothing of the machine's own Slurm is touched.

Three cells a seed on the embedded models, a few steps of a few rollouts, run once in this process and then as jobs:
  process  the process of a job is killed (SIGKILL): the command sends the job again
  requeue  `scontrol requeue` of a job, as a preemption does it: Slurm starts it again
  driver   the command is killed, and started again: it finds its jobs
  scancel  `scancel` of a job: its cell has failed, and `--retry-failed` resumes it
In the end everything that is stored but times is compared with the quiet run, and the list of files too; and how many
jobs Slurm was sent. A job is disturbed while `STEPS_LEFT` of its cell's steps are still to be done, so that none is hit
that only has to end. Prints the counts as JSON; exit code 1 where anything was lost. `--study` keeps them.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster_robustness import cells, undisturbed
from kill_and_resume import outcome

NODES = 2
DISTURBANCES = ("process", "requeue", "driver", "scancel")
STEPS_BETWEEN = 3
"""Steps of all cells together from one disturbance to the next."""
STEPS_LEFT = 20
"""Of a cell whose job is disturbed, at least."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="of each of three pairs of a task and a reward")
    parser.add_argument("--steps", type=int, default=60, help="GRPO steps a cell")
    parser.add_argument("--folder", type=Path, help="keep the runs here (default: a temporary folder, removed)")
    parser.add_argument("--study", type=Path, help="write the counts to FOLDER/results.json")
    parser.add_argument("--drive", metavar="POLICY", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        return drive(options)
    os.environ["PATH"] += f"{os.pathsep}/usr/sbin"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        print(f"There is no {missing[0]} on this machine; install Slurm and munge.", file=sys.stderr)
        return 2
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="slurm-check-"))).absolute()
    try:
        found = Trial(folder, options).run()
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))
    if options.study:
        path = options.study / "results.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept | {"slurm": found}, indent=2) + "\n")
    return 1 if found["lost"] else 0


def drive(options: argparse.Namespace) -> int:
    """The command that is killed: what `run --executor slurm` does, each event a line of JSON."""
    from harness.machine.stopping import Interrupted
    from harness.workers import slurm
    from harness.workers.grid import run_grid
    from harness.workers.slurm_site import Site

    slurm.ASK, slurm.LATE = 1.0, 2.0  # one machine, one file system

    def observe(cell: Any, event: dict[str, Any]) -> None:
        told = {key: event[key] for key in ("event", "step", "kept", "reason") if key in event}
        if event["event"] == "end":
            told |= {"status": event["record"].status, "why": event["record"].reason}
        print(json.dumps({"cell": cell.name} | told), flush=True)

    place = slurm.Slurm(options.folder, site=Site(hours=1, memory_gib=1.5))
    try:
        run_grid(cells(options.seeds, options.steps), options.folder, observe, place, policy=options.drive)
    except Interrupted as stop:
        return 128 + stop.args[0]
    return 0


# --------------------------------------------------------------------------------------------------------- one machine


CONFIGURATION = """
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PropagatePrioProcess=1
ReturnToService=2
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
MinJobAge=86400
PartitionName=check Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A Slurm of `NODES` nodes on this machine, for as long as the block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []

    def __enter__(self) -> Cluster:
        import getpass

        self.folder.mkdir(parents=True)
        (self.folder / "state").mkdir()
        host, names = socket.gethostname(), [f"n{number}" for number in range(NODES)]
        port, *ports = free_ports(1 + NODES)
        text = CONFIGURATION.format(host=host, port=port, user=getpass.getuser(), folder=self.folder)
        for name, own in zip(names, ports, strict=True):
            text += f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={own} CPUs=1 RealMemory=2048\n"
        configuration = self.folder / "slurm.conf"
        configuration.write_text(text)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        os.environ["SLURM_CONF"] = str(configuration)
        own = {name: f"{self.folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
        self._start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={own['socket']}",
            f"--pid-file={own['pid']}", f"--log-file={own['log']}", f"--seed-file={own['seed']}",
        )  # fmt: skip
        self._wait(lambda: Path(own["socket"]).exists(), "munged")
        self._start("slurmctld", "-D", "-f", str(configuration))
        for name in names:
            self._start("slurmd", "-D", "-N", name, "-f", str(configuration))
        self._wait(lambda: said("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == str(NODES), "slurmd")
        return self

    def __exit__(self, *_: object) -> None:
        said("scancel", f"--user={os.getuid()}")
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, *words: str) -> None:
        log = (self.folder / f"{words[0]}.out").open("a")
        self.processes.append(subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def _wait(self, ready: Any, what: str) -> None:
        until = time.monotonic() + 120
        while not ready():
            if time.monotonic() > until:
                raise SystemExit(f"{what} is not up: {(self.folder / f'{what}.out').read_text()[-600:]}")
            time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


def said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def at_work() -> dict[str, int]:
    """Slurm's number of a running job, ARRAY_TASK -> its process."""
    running = said("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%i").split()
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, lines = ((path / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue  # it has ended, or is another user's
        if words[0] == sys.executable.encode() and b"submitit.core._submit" in words:
            variables = dict(line.decode().partition("=")[::2] for line in lines)
            number = "_".join(variables.get(f"SLURM_ARRAY_{part}_ID", "") for part in ("JOB", "TASK"))
            if number in running:
                found[number] = int(path.name)
    return found


def steps_told(runs: Path, number: str) -> float:
    """How far a job's cell is by what its worker has written; infinite where it has not begun or is at its end."""
    from harness.store.lines import new_lines
    from harness.workers.slurm_site import FOLDER

    for known in (runs / FOLDER).glob("*/sent.jsonl"):
        for sent in new_lines(known, 0)[0]:
            if sent["slurm"] == number:
                events = new_lines(known.with_name(f"{sent['key']}-{sent['attempt']}.jsonl"), 0)[0]
                if not events or events[-1]["event"] in ("end", "stopped"):
                    return float("inf")
                return max(event.get("step", 0) for event in events)
    return float("inf")


# ----------------------------------------------------------------------------------------------------------- the check


class Trial:
    """One quiet run in `folder`/whole, and one on a Slurm in `folder`/cut."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.whole, self.cut, self.options = folder, folder / "whole", folder / "cut", options
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []

    def run(self) -> dict[str, Any]:
        self._quiet()
        began = time.monotonic()
        with Cluster(self.folder / "slurm"):
            version = said("sinfo", "--version").split()[-1]
            self._disturbed()
            jobs = len(said("squeue", "-h", "-r", "-t", "all", "-o", "%i").split())
        disturbed = time.monotonic() - began
        self._compare()
        sent = self.counts["cells"] + self.counts["process"] + self.counts["scancel"]
        if jobs != sent:
            self.lost.append(f"Slurm was sent {jobs} jobs in place of {sent}")
        names = ("cells", "steps", "steps_told", "done", "failed", "again", *DISTURBANCES)
        return {
            "slurm": version,
            **{name: self.counts[name] for name in names},
            "jobs": jobs,
            "quiet_seconds": round(self.quiet_seconds, 1),
            "slurm_seconds": round(disturbed, 1),
            "lost": self.lost,
        }

    def _quiet(self) -> None:
        found = undisturbed(cells(self.options.seeds, self.options.steps), self.whole)
        self.counts.update(cells=found.cells, steps=found.steps)
        self.quiet_seconds, self.expected = found.seconds, found.outcome

    def _disturbed(self) -> None:
        """The command again and again until it reaches its end, one disturbance after the other while it runs; then
        once more for what was cancelled."""
        todo = list(DISTURBANCES)
        policy = "continue"
        while True:
            ended = self._watch(policy, todo)
            if ended == 0 and policy == "retry-failed":
                break
            if ended == 0:
                policy = "retry-failed"
            elif ended != -signal.SIGKILL:
                self.lost.append(f"the command ended with code {ended}")
                break
        self.lost += [f"not disturbed: {kind}" for kind in todo]

    def _watch(self, policy: str, todo: list[str]) -> int:
        """Reads what one command tells until it ends; its exit code."""
        words = ["--drive", policy, "--folder", str(self.cut)]
        words += ["--seeds", str(self.options.seeds), "--steps", str(self.options.steps)]
        process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
        steps = 0
        for event in told(process):
            kind = event["event"]
            if kind == "again":
                self.counts["again"] += 1
            elif kind == "end" and event["status"] == "failed" and not event.get("kept"):
                self.counts["failed"] += 1
            elif kind in ("step", "validation") and event["step"]:
                self.counts["steps_told"] += 1
                steps += 1
            if todo and steps >= STEPS_BETWEEN and self._disturb(todo[0], process):
                self.counts[todo.pop(0)] += 1
                steps = 0
        return process.wait()

    def _disturb(self, kind: str, driver: subprocess.Popen[str]) -> bool:
        """Whether it could be done: a job is disturbed at a moment when one is in the middle of its cell."""
        if kind == "driver":
            driver.kill()
            return True
        jobs = at_work()
        number = next((job for job in jobs if steps_told(self.cut, job) + STEPS_LEFT <= self.options.steps), None)
        if number is None:
            return False
        if kind == "process":
            os.kill(jobs[number], signal.SIGKILL)
        else:
            subprocess.run(["scontrol", "requeue", number] if kind == "requeue" else ["scancel", number], check=True)
        return True

    def _compare(self) -> None:
        from harness.store.frames import find_cells

        self.counts["done"] = sum(cell.read().status == "done" for cell in find_cells(self.cut))
        found = outcome(self.cut)
        self.lost += [
            f"{name} differs from the quiet run" for name in self.expected if found.get(name) != self.expected[name]
        ]
        self.lost += [f"an orphan: {name}" for name in found.keys() - self.expected.keys()]


def told(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", file=sys.stderr)
        if line.startswith("{"):
            yield json.loads(line)


if __name__ == "__main__":
    raise SystemExit(main())
