"""The nodes of a Ray cluster: how they are reached, whether they have room, and whether they run the same code."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.contracts import HarnessError
from harness.store.atomic import write_atomic
from harness.store.provenance import PACKAGES

ANSWER, CONNECT = 180, 5
"""Seconds that a node has to say what it is, and an address to take a connection."""
RESOURCE = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""What a task asks for -> what nodes and bundles call it."""
PLACE = ".place"
"""The file in a results folder by which a node shows that it sees the same one."""


def check_installed() -> None:
    """Raises HarnessError where the extra is missing."""
    if find_spec("ray") is None:
        raise HarnessError("--executor ray needs the package ray; install it with `pip install 'dpg-harness[ray]'`.")


def connect(address: str) -> bool:
    """Joins the cluster at the address, or starts a Ray of one node; whether it was done here. Raises HarnessError."""
    if not address:
        # On 127.0.0.1 alone; Ray reads this when it is imported, and hands it on to what it starts.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would put them behind all else on the machine
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 2**28}
    if address:
        _check_address(address)
        options = {"address": address}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **({"address": "local"} | options))
    except Exception as error:  # Ray raises plain ones, too: "timed out during startup"
        raise HarnessError(
            f"Ray at {address or 'this machine'} cannot be used: {first_line(error)}; run the command on a machine of "
            "the cluster, with its versions of Python and Ray, and RAY_AUTH_MODE=token where `ray start` made a token."
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray sets one of its own
    return True


def _check_address(address: str) -> None:
    """Raises HarnessError for an address that is none, or that nobody listens at; Ray would try for minutes."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        raise HarnessError(f"--address takes HOST:PORT of a Ray cluster's head, or auto, not '{address}'.")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise HarnessError(
            f"No Ray cluster answers at {address} ({error}); see that it runs and that the port can be reached."
        ) from error


def living() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def node_name(node: Mapping[str, Any]) -> str:
    """Several nodes can be on one machine."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"


def rooms(needs: Mapping[str, float]) -> list[int]:
    """How many processes with such needs each node could take, were it empty."""
    asked = {RESOURCE[key]: need for key, need in needs.items() if need}
    return [int(min(node["Resources"].get(name, 0) // need for name, need in asked.items())) for node in living()]


def check_room(name: str, needs: Mapping[str, float], ranks: int = 1) -> bool:
    """Whether one node could take all `ranks` processes of a job. Raises HarnessError where no nodes could, were they
    empty: Ray would wait for them for ever."""
    found = rooms(needs)
    if max(found, default=0) >= ranks:
        return True
    if sum(found) >= ranks:
        return False
    offers = []
    for node in living():
        has = node["Resources"]
        memory = has.get("memory", 0) / 2**30
        offers.append(f"{node_name(node)} has {has.get('CPU', 0):g}, {has.get('GPU', 0):g} and {memory:.1f} GiB")
    each = f"{needs['num_cpus']:g} CPUs, {needs['num_gpus']:g} GPUs and {needs['memory'] / 2**30:.1f} GiB of memory"
    if ranks > 1:
        raise HarnessError(
            f"The cluster has no room for the {ranks} processes of {name}, each of which needs {each}: "
            f"{'; '.join(offers)}; ask for fewer with --processes."
        )
    raise HarnessError(f"No node of the cluster has room for {name}, which needs {each}: {'; '.join(offers)}.")


def examine(known: Mapping[str, str], place: Path) -> bool:
    """Whether every node sees the results folder. Raises HarnessError for one that runs other code than `known`."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    label, look = _label(place), _remote_look()
    asked = {}
    for node in living():
        on = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[look.options(scheduling_strategy=on).remote(str(place / PLACE))] = node_name(node)
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER)
    if late:
        raise HarnessError(
            f"Node {asked[late[0]]} did not answer within {ANSWER} s; restart Ray there, or take it out."
        )
    sees = []
    for reference in ready:
        try:
            found, seen = ray.get(reference)
        except RayError as error:  # it may have died since it was listed: then nothing is sent to it
            if asked[reference] not in map(node_name, living()):
                continue
            raise HarnessError(f"Node {asked[reference]} cannot be asked what it runs: {first_line(error)}.") from error
        if wrong := unlike(known, found):
            raise HarnessError(f"Node {asked[reference]} {wrong}.")
        sees.append(seen == label)
    return all(sees)


def _label(place: Path) -> str:
    """A text by which a results folder is known, wherever it is seen from; made where it is missing."""
    path = place / PLACE
    if not path.exists():
        write_atomic(path, secrets.token_hex(16))
    return path.read_text()


def versions() -> dict[str, str]:
    """Package -> version of what decides numbers, and a digest of the harness's own code."""
    return _look("")[0]


def unlike(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What a node lacks or has otherwise, as the end of a sentence; "" where nothing."""
    if "harness" not in there:
        return "does not have this harness installed; install it there as here"
    for name, version in here.items():
        found = there.get(name)
        if name == "harness" and found != version:
            return "has another version of this harness's code; bring it to the same commit"
        if found != version:
            return f"has {name} {found or 'not at all'}, and this machine {version}; install the same versions there"
    return ""


def _look(path: str) -> tuple[dict[str, str], str]:
    """What this machine has, and the content of a file; "" where it cannot be read. It travels to nodes by its code and
    has to run where the harness is missing."""
    import hashlib

    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    spec = find_spec("harness")
    if spec and spec.origin:
        root, digest = Path(spec.origin).parents[1], hashlib.sha256()
        for package in ("harness", "rewards", "tasks"):
            for file in sorted((root / package).rglob("*.py")):
                digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
        found["harness"] = digest.hexdigest()
    try:
        return found, Path(path).read_text() if path else ""
    except OSError:
        return found, ""


def _remote_look() -> Any:
    """`_look` as a task that needs nothing: Ray sends functions of the main module by their code."""
    import types

    import ray

    by_code = {name: globals()[name] for name in ("PACKAGES", "metadata", "find_spec", "Path")}
    look = types.FunctionType(_look.__code__, by_code | {"__name__": "__main__"}, "_look")
    look.__module__ = "__main__"
    return ray.remote(num_cpus=0, max_retries=0)(look)


def first_line(error: BaseException) -> str:
    """What Ray says, without its advice; of an error in a task, the last line of its traceback."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    if _is_task(error):
        return next((line for line in reversed(lines) if line), type(error).__name__)
    return next((line for line in lines if line), type(error).__name__).partition(". ")[0].rstrip(".")


def _is_task(error: BaseException) -> bool:
    """Whether its text is a traceback, whose last line says what it was."""
    return type(error).__name__.startswith("RayTaskError")
