"""What one of Slurm's jobs does, told as lines of JSON beside its order; and jobs as JSON."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from harness.contracts import HarnessError
from harness.machine.stopping import Interrupted, request_save, request_stop
from harness.registry import Made, made_task
from harness.store.atomic import StorageError, cannot_write
from harness.store.lines import as_lines
from harness.store.record import digest
from harness.workers.executor import Event, Job, work
from harness.workers.ray_nodes import unlike, versions


def run_order(path: str) -> None:
    """All that one of Slurm's jobs does: the work of an order. What submitit pickles is this function and the path."""
    order, letters = json.loads(Path(path).read_text()), Path(path).with_suffix(".jsonl")
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    stepped = False

    def tell(event: Event) -> None:
        nonlocal stepped
        stepped = stepped or bool(event.get("step"))
        append(letters, as_lines([event]))

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, request_save)
    signal.signal(signal.SIGINT, request_stop)
    try:
        append(letters, "\n")  # what was before it may have been cut
        tell({"event": "begin", "node": node})
        if wrong := unlike(order["known"], versions()):
            return tell(_as_letter({"event": "error", "error": HarnessError(f"Node {node} {wrong}.")}, node))
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        named(order["prepare"])(order["threads"], order["trust"])
        for made in order["made"]:
            made_task(made_from(made))
        job = decoded(order["job"])
        work(job, lambda event: tell(_as_letter(event, node, job)), wait=order["wait"])
    except Interrupted as stop:
        tell({"event": "stopped"})
        if stop.args == (signal.SIGUSR2,) and stepped:
            _requeue()


def _as_letter(event: Event, node: str, job: Job | None = None) -> Event:
    """An event as a line of JSON can hold it."""
    if event["event"] == "error":
        full = isinstance(event["error"], StorageError)
        return {"event": "error", "text": str(event["error"]), "full": full, "node": node}
    if event["event"] == "end" and job is not None:
        return event | {"record": encoded_record(job, event["record"])}
    return event


def _requeue() -> None:
    """Before its time limit, with a checkpoint stored: Slurm starts the job again. Where it will not, the command sends
    it anew."""
    if number := os.environ.get("SLURM_JOB_ID"):
        subprocess.run(["scontrol", "requeue", number], check=False, timeout=60)


def append(path: Path, text: str) -> None:
    """Raises StorageError."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


# ------------------------------------------------------------------------------------------------- jobs as plain JSON


def name_of(thing: Any) -> str:
    """A class or function of a module, by its name."""
    return f"{thing.__module__}:{thing.__qualname__}"


def named(name: str) -> Any:
    """What `name_of` named."""
    module, _, inside = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in inside.split("."):
        found = getattr(found, part)
    return found


def encoded(job: Job) -> dict[str, Any]:
    """A job, a data class, as JSON can hold it."""
    return {"kind": name_of(type(job)), "data": _adapter(type(job)).dump_python(job, mode="json")}


def decoded(data: Mapping[str, Any]) -> Job:
    """The job that `encoded` gave."""
    kind = named(data["kind"])
    if not is_dataclass(kind) or not all(hasattr(kind, name) for name in ("settled", "run", "lost")):
        raise HarnessError(f"The order names {data['kind']}, which is no job.")
    return _adapter(kind).validate_python(data["data"])


def encoded_record(job: Job, record: Any) -> Any:
    """What the job's `run` returned, as JSON can hold it."""
    return _record_adapter(type(job)).dump_python(record, mode="json")


def decoded_record(job: Job, data: Any) -> Any:
    return _record_adapter(type(job)).validate_python(data)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _record_adapter(kind: type[Job]) -> TypeAdapter[Any]:
    """By what the job's `run` says that it returns."""
    return TypeAdapter(get_type_hints(kind.run).get("return", Any))


def made_data(made: Made) -> dict[str, Any]:
    """What a task of a file is made of, without keys that JSON cannot hold."""
    return asdict(made) | {"settings": [[list(key), value] for key, value in made.settings.items()]}


def made_from(data: Mapping[str, Any]) -> Made:
    return Made(**{**data, "settings": {tuple(key): value for key, value in data["settings"]}})


def key_of(job: Job) -> str:
    """Names a job, whichever command sends it: when that began says nothing of what is to be done."""
    return digest(encoded(replace(job, since="") if hasattr(job, "since") else job))  # type: ignore[type-var]
