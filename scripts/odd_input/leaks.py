"""What leaks: keys in the surroundings, links out of the results folder."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

from scripts.odd_input.world import (
    MARK,
    QUICK,
    ROOT,
    SECRET,
    Badly,
    Case,
    Said,
    World,
    cell_folder,
    command,
    flags,
    png,
    quick_cell,
)


class Listener:
    """A host that must not be asked; it answers as a judge would and keeps what it heard."""

    def __init__(self) -> None:
        heard = self.heard = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(f"{self.headers} {self.rfile.read(int(self.headers['Content-Length'] or 0))!r}")
                body = json.dumps({"choices": [{"message": {"content": "Spanish"}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


def keys(world: World) -> Iterator[Case]:
    """Records and profiles from elsewhere that name a host and a variable."""
    from harness.store.record import CellStore

    listener = Listener()
    secrets = {"MY_SECRET": SECRET, "OPENAI_API_KEY": SECRET, "HF_TOKEN": SECRET, "NO_PROXY": "127.0.0.1"}

    def unheard(said: Said) -> str:
        outcome = said.outcome()
        if listener.heard:
            raise Badly(f"{len(listener.heard)} requests went out, the key {SECRET in str(listener.heard)}")
        return outcome

    def rerun(options: dict[str, Any]) -> str:
        listener.heard.clear()
        runs, cell = (
            world.new(),
            quick_cell("lambada_es", "levenshtein", {f"task.options.{k}": v for k, v in options.items()}),
        )
        record = world.record().model_copy(update=cell.record().model_dump(exclude={"status"}))
        CellStore.of(runs, record).write(record)
        with patch.dict(os.environ, secrets):
            return unheard(command("rerun", str(runs)))

    def profile(options: dict[str, Any], place: str) -> str:
        listener.heard.clear()
        tiny = ROOT / "harness" / "profiles" / "tiny"
        folder = world.new()
        for file in tiny.iterdir():
            shutil.copy(file, folder)
        entry = {f"task.options.{key}": value for key, value in options.items()}
        path = folder / "pairs.yaml"
        path.write_text(json.dumps({"pairs": {"lambada_es": {"levenshtein": entry}}}))
        given = ["--profile", str(folder), "--task", "lambada_es", "--reward", "levenshtein", "--workers", "0"]
        with patch.dict(os.environ, secrets):
            return unheard(
                command("run", *given, "--out", str(world.new()), *flags(QUICK), *([place] if place else []))
            )

    for path, variable, model in product(
        ["", "/v1", "/v1/"], ["MY_SECRET", "OPENAI_API_KEY", "HF_TOKEN", "PATH", "HOME"], ["m", ""]
    ):
        options = {"judge": "openai", "judge_base_url": listener.url + path, "judge_key_variable": variable}
        options |= {"judge_model": model} if model else {}
        yield Case(f"rerun of a record with {variable} to {path}", "refused", lambda options=options: rerun(options))
        if not path:
            yield Case(f"a profile with {variable}", "refused", lambda options=options: profile(options, ""))
    yield Case("a profile that asks nobody", "works", lambda: profile({}, ""))


def links(world: World) -> Iterator[Case]:
    """Files of results that lead out of their folder."""
    secret = world.folder / "outside"
    secret.mkdir(exist_ok=True)
    (secret / "samples.jsonl").write_text(json.dumps({"step": 1, "index": 0, "text": MARK}) + "\n")
    (secret / "cell.json").write_text(
        world.record().model_copy(update={"reason": MARK, "variant": "T=8"}).model_dump_json()
    )
    (secret / "drawn.png").write_bytes(png(9, 9))
    (secret / "error.txt").write_text(MARK)

    def report(name: str, target: Path | str, kind: str) -> str:
        runs = world.copy()
        place = cell_folder(runs) / name
        if place.is_file():
            place.unlink()
        elif place.is_dir():
            shutil.rmtree(place)
        os.link(target, place) if kind == "hard" else place.symlink_to(target)
        site = world.new()
        outcome = [
            command("table", str(runs)),
            command("report", str(runs), "--out", str(site)),
            command("diff", str(runs), str(runs)),
        ]
        shown = "".join(said.out + said.err for said in outcome)
        pages = b"".join(path.read_bytes() for path in site.rglob("*") if path.is_file())
        if MARK in shown or MARK.encode() in pages or png(9, 9) in pages:
            raise Badly("what lies outside is shown")
        codes = (0,), (0,), (0, 1, 2)  # of `diff` 2 also says that rows could not be compared
        return [said.outcome(fine) for said, fine in zip(outcome, codes, strict=True)][1]

    targets: dict[str, list[Path | str]] = {
        "samples.jsonl": [secret / "samples.jsonl", "/etc/passwd", "/dev/zero", "../../nowhere"],
        "cell.json": [secret / "cell.json", "/etc/passwd", "/proc/self/environ"],
        "curves.parquet": ["/etc/passwd", "/dev/null", secret / "samples.jsonl"],
        "arrays.parquet": ["/etc/hostname", secret / "drawn.png"],
        "step-1": [secret, "/etc", "/"],
        "step-1/drawn.png": [secret / "drawn.png", "/etc/passwd"],
        "step-1/other.png": [secret / "drawn.png"],
        "error.txt": [secret / "error.txt"],
    }
    for name, places in targets.items():
        for target in places:
            yield Case(
                f"{name} leads to {target}", "either", lambda name=name, target=target: report(name, target, "soft")
            )
    yield Case("a results folder behind a link", "works", lambda: linked_folder(world))


def linked_folder(world: World) -> str:
    place = world.new("runs")
    place.symlink_to(world.results)
    return command("table", str(place)).outcome()
