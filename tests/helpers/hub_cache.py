"""What a download leaves behind, made by the tests: `models--org--name/{refs,snapshots,blobs}` with tiny-width models
and real tokenizer files in each family's own format."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CORPUS = [
    "The river flows north. La casa es grande y el sol sale.",
    "Die Stadt liegt am Fluss, la ville est belle.",
] * 4

LLAMA_TEMPLATE = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}'
    '{%- endif %}{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}'
    '{{- "Cutting Knowledge Date: December 2023\n" }}{{- "Today Date: " + date_string + "\n\n" }}{{- "<|eot_id|>" }}'
    "{%- for message in messages %}"
    '{{- "<|start_header_id|>" + message["role"] + "<|end_header_id|>\n\n" + message["content"] | trim + '
    '"<|eot_id|>" }}'
    '{%- endfor %}{%- if add_generation_prompt %}{{- "<|start_header_id|>assistant<|end_header_id|>\n\n" }}{%- endif %}'
)
QWEN_TEMPLATE = (
    '{%- if messages[0]["role"] != "system" %}{{- "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" }}'
    '{%- endif %}{%- for message in messages %}{{- "<|im_start|>" + message["role"] + "\n" + message["content"] + '
    '"<|im_end|>\n" }}{%- endfor %}{%- if add_generation_prompt %}{{- "<|im_start|>assistant\n" }}{%- endif %}'
)
SPECIAL = {
    "llama": [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
    ],
    "qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "gpt2": ["<|endoftext|>"],
}
CONFIG = {
    "llama": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "chat_template": LLAMA_TEMPLATE,
    },
    "qwen": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": QWEN_TEMPLATE,
    },
    "gpt2": {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    },
}


class HubCache:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def model(self, name: str, family: str) -> None:
        """A random model of the family, 16 wide, with tokenizer, under the hub's name."""
        staging = self.folder / "staging" / family
        staging.mkdir(parents=True)
        ids = write_tokenizer(staging, family)
        write_model(staging, family, ids)
        self._store(f"models--{name.replace('/', '--')}", staging)

    def data(self, name: str, files: dict[str, list[str]]) -> None:
        """Parquet files with a `text` column."""
        self.rows(
            name, {path: [{"id": i, "text": text} for i, text in enumerate(texts)] for path, texts in files.items()}
        )

    def rows(self, name: str, files: dict[str, list[dict[str, object]]]) -> None:
        """Parquet files with these rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        staging = self.folder / "staging" / name.replace("/", "-")
        for path, rows in files.items():
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), staging / path)
        (staging / "README.md").write_text("---\nlicense: other\n---\n")
        self._store(f"datasets--{name.replace('/', '--')}", staging)

    def _store(self, folder: str, staging: Path) -> None:
        """As the hub client does: contents as blobs named by hash, a snapshot of links to them, a branch."""
        root = self.folder / folder
        (root / "refs").mkdir(parents=True)
        (root / "refs" / "main").write_text(COMMIT)
        (root / "blobs").mkdir()
        for file in sorted(path for path in staging.rglob("*") if path.is_file()):
            content = file.read_bytes()
            blob = root / "blobs" / hashlib.sha256(content).hexdigest()
            blob.write_bytes(content)
            link = root / "snapshots" / COMMIT / file.relative_to(staging)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))


def write_tokenizer(folder: Path, family: str) -> dict[str, int]:
    """A byte-level BPE trained here: tokenizer.json and tokenizer_config.json, for GPT-2 vocab.json and merges.txt too.
    Returns the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL[family],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    vocabulary = core.get_vocab()
    if family == "llama":  # its files put the beginning-of-text token before every text
        bos = "<|begin_of_text|>"
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocabulary[bos])]
        )
    core.save(str(folder / "tokenizer.json"))
    if family == "gpt2":
        core.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG[family]))
    return vocabulary


def write_model(folder: Path, family: str, vocabulary: dict[str, int]) -> None:
    from tests.helpers.models import build_model

    model = build_model(family, vocab=len(vocabulary))
    names = CONFIG[family]
    stops = [vocabulary[names["eos_token"]]]
    if family == "llama":
        stops = [vocabulary[name] for name in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")]
    bos = names["bos_token"]
    for config in (model.config, model.generation_config):
        config.bos_token_id = vocabulary[bos] if bos else None
        config.eos_token_id, config.pad_token_id = (stops if len(stops) > 1 else stops[0]), None
    model.save_pretrained(folder)


class StandInHub:
    """As much of the hub's HTTP interface as its client needs to fetch a snapshot, on this machine.

    repos   "models/OWNER/NAME" or "datasets/OWNER/NAME" -> path -> content
    gate    "" | "token": nobody may read without one | "licence": whatever the token
    broken  path whose content ends in the middle
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gate, self.broken = "", ""
        self.asked: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, kind: str, name: str, folder: Path) -> None:
        """Serves the files of a folder as a repository."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repos[f"{kind}/{name}"] = files

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(head=True)

            def do_GET(self) -> None:
                self._answer(head=False)

            def _answer(self, head: bool) -> None:
                hub.asked.append(f"{self.command} {self.path}")
                parts = unquote(urlsplit(self.path).path).strip("/").split("/")
                if parts == [""]:
                    return self._send(200, b"hub", {}, head)
                if parts[0] == "api":
                    kind, name, what = parts[1], "/".join(parts[2:4]), parts[4:]
                else:
                    kind = parts.pop(0) if parts[0] == "datasets" else "models"
                    name, what = "/".join(parts[:2]), parts[2:]
                files = hub.repos.get(f"{kind}/{name}")
                refused = {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}
                if files is None:
                    return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, head)
                if "resolve" in what and (hub.gate == "licence" or (hub.gate and not self.headers["Authorization"])):
                    return self._send(403 if self.headers["Authorization"] else 401, b"", refused, head)
                if what[:1] == ["revision"]:
                    if what[1] not in ("main", COMMIT):
                        return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, head)
                    listed = [{"rfilename": path} for path in files]
                    known = {
                        "id": name,
                        "sha": COMMIT,
                        "siblings": listed,
                        "tags": [],
                        "private": False,
                        "downloads": 0,
                    }
                    return self._send(200, json.dumps(known).encode(), {}, head)
                if what[:1] == ["tree"]:
                    rows = [
                        {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for path, content in files.items()
                    ]
                    return self._send(200, json.dumps(rows).encode(), {}, head)
                path = "/".join(what[2:])
                if path not in files:
                    return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, head)
                content = files[path]
                more = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
                start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
                if start:
                    more["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._send(206 if start else 200, content[start:], more, head, cut=path == hub.broken)

            def _send(self, code: int, content: bytes, more: dict[str, str], head: bool, cut: bool = False) -> None:
                self.send_response(code)
                for name, value in {"Content-Length": str(len(content)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                if cut and not head:
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                elif not head:
                    self.wfile.write(content)

        return Handler
