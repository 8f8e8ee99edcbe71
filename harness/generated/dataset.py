"""A data set that a generator writes: sharded Parquet that `datasets.load_dataset(FOLDER)` reads.

    <out>/dataset.json              what was asked, and, once all is there, what came of it
    <out>/data/train-00000.parquet  a row a rollout (COLUMNS), SHARD_ROWS rollouts a shard but for the last
    <out>/README.md                 the card, written last

Row r is a rollout of prompt r modulo their number, drawn from the random numbers of (seed, r) alone, in batches that
begin where their shard does. So whoever is killed goes on with the first shard that is missing, and the bytes are the
same (on a CPU with the same number of threads). Equal texts are counted, and left out if that is asked; the row that
reaches the number of tokens is the last.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import Contact, HarnessError
from harness.generated.source import Source, check_hosts
from harness.machine.files import read_json, read_table
from harness.machine.stopping import Interrupted, stop_signal
from harness.planning.cells import articles
from harness.planning.cost import generation_batch
from harness.planning.fetch import existing_parent
from harness.settings.schema import Settings
from harness.store import locks
from harness.store.atomic import check_writable, parquet_bytes, write_atomic, write_json
from harness.store.cards import as_yaml, escape, facts, fenced, front_matter
from harness.store.damage import reading
from harness.store.plain import plain_text
from harness.training.kept import base_note, hub_licence
from harness.training.prompts import article_label, bind_template, build_prompts, encode_prompt
from harness.training.seeds import dataset_seed

if TYPE_CHECKING:
    import pandas

VERSION = 1
MANIFEST = "dataset.json"
DATA = "data"
SHARD_ROWS = 2048
COLUMNS = ["text", "prompt_id", "tokens", "seed", "finish", "source", "row"]
"""text, the first eight digits of its article's SHA-256 (as `article` of kept rollouts), its tokens by the generator's
tokenizer (the end-of-text token aside), the data set's seed, "stop" or "length" (cut), who wrote it, its number."""
BYTES_PER_TOKEN = 6
"""On the disk, at most: compressed text has about two."""
LEAST_NEW = 0.01
"""Share of a shard's rollouts that must bring something, or nothing more is to be expected."""
ADVICE = "remove the folder and generate again"

Notify = Callable[[dict[str, Any]], None]
"""Receives {"event": "rows", "rows", "tokens", "of", "drawn"} after each batch: rows and tokens of the whole data set
so far, tokens wanted, tokens drawn by this process."""


@dataclass
class Dataset:
    """A data set that is there as a whole."""

    folder: Path
    rows: int
    tokens: int
    duplicates: int
    """Rollouts whose text had been written before."""
    empty: int
    cut: int
    """Rows that ended for want of room."""
    shards: int
    source: str

    @property
    def texts(self) -> pandas.DataFrame:
        return read_texts(self.folder)


def write_dataset(
    source: Source,
    out: Path,
    *,
    tokens: int | str,
    seed: int = 0,
    prompts: Path | None = None,
    dedup: bool = False,
    allowed: frozenset[Contact] = frozenset(),
    notify: Notify = lambda event: None,
) -> Dataset:
    """Writes the data set into `out`, or what is missing of it; returns at once where all is there.

    tokens   at least so many ("250k", "1M"), the end-of-text tokens not counted
    prompts  articles in a file of one's own, in place of the training articles of the source's settings
    dedup    leave out texts that have been written before
    allowed  hosts that a cell's record may have contacted

    Raises HarnessError for a folder of another data set, too little room, a generator that repeats itself, and what is
    wrong with the source's model or articles; Interrupted, with whole shards stored.
    """
    wanted = token_count(tokens)
    found = _articles(source, prompts, allowed)
    asked = _asked(source, found, prompts.name if prompts else "", wanted, seed, dedup)
    if whole := _whole(out, asked):
        return whole
    _check_room(out, wanted)
    check_writable(out)
    with locks.owned(out, wait=False) as ours:
        if not ours:
            raise HarnessError(f"Another process writes into {out}; wait for it or choose another --out.")
        locks.sweep(out)
        write_json(out / MANIFEST, {"version": VERSION, "asked": asked})
        writer = _Writer(source, found, out, wanted, seed, dedup, notify)
        writer.run()
        made = writer.made()
        write_atomic(out / "README.md", _card(source, made, asked))
        write_json(out / MANIFEST, {"version": VERSION, "asked": asked, "made": made})
    return _made(out, made)


def asked_of(
    source: Source,
    *,
    tokens: int | str,
    seed: int = 0,
    prompts: Path | None = None,
    dedup: bool = False,
    allowed: frozenset[Contact] = frozenset(),
) -> dict[str, Any]:
    """What the data set that `write_dataset` writes with these arguments is by content (`asked` in its manifest),
    whether it is there or not."""
    found = _articles(source, prompts, allowed)
    return _asked(source, found, prompts.name if prompts else "", token_count(tokens), seed, dedup)


def finished_dataset(source: Source, out: Path, **arguments: Any) -> Dataset | None:
    """What `write_dataset` with these arguments would return at once; None where something is missing. Raises as it
    does for what is there, and for articles."""
    return None if _manifest(out) is None else _whole(out, asked_of(source, **arguments))


def _whole(out: Path, asked: dict[str, Any]) -> Dataset | None:
    manifest = _manifest(out)
    _check_same(out, manifest, asked)
    return _made(out, manifest["made"]) if manifest and "made" in manifest else None


def read_texts(folder: Path) -> pandas.DataFrame:
    """All rows, COLUMNS. Raises HarnessError for a folder without a whole data set."""
    import pandas

    manifest = _manifest(folder)
    if not manifest or "made" not in manifest:
        raise HarnessError(f"{folder} holds no finished data set; `python -m harness generate` makes one.")
    _made(folder, manifest["made"])
    frames = []
    for name in manifest["made"]["shards"]:
        with reading(folder / DATA / name, folder, ADVICE) as path:
            frames.append(read_table(path)[COLUMNS])
    return pandas.concat(frames, ignore_index=True)


def token_count(tokens: int | str) -> int:
    """1000000, "1000000", "250k", "1.5M" or "2B" as a number. Raises HarnessError."""
    parts = re.fullmatch(r"\s*(\d+(?:[_,]\d{3})*(?:\.\d+)?)\s*([kKmMbBgG]?)\s*", str(tokens))
    times = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
    count = round(float(re.sub("[_,]", "", parts[1])) * times[parts[2].lower()]) if parts else 0
    if not 1 <= count <= 10**12:
        raise HarnessError(f"--tokens takes a number such as 250k, 1M or 1000000, not {str(tokens)[:40]!r}.")
    return count


# ------------------------------------------------------------------------------------------------------------- writing


@dataclass
class _Tally:
    """What stands in the shards so far."""

    rows: int = 0
    tokens: int = 0
    duplicates: int = 0
    empty: int = 0
    cut: int = 0
    seen: set[bytes] = field(default_factory=set)

    def is_new(self, text: str) -> bool:
        """Whether the text has not been asked for before."""
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest in self.seen:
            return False
        self.seen.add(digest)
        return True

    def add(self, tokens: int, finish: str) -> None:
        self.rows += 1
        self.tokens += tokens
        self.empty += tokens == 0
        self.cut += finish == "length"


class _Writer:
    """One process's work on a data set that it owns."""

    def __init__(
        self, source: Source, found: list[str], out: Path, wanted: int, seed: int, dedup: bool, notify: Notify
    ) -> None:
        self.source, self.articles, self.out, self.wanted = source, found, out, wanted
        self.seed, self.dedup, self.notify = seed, dedup, notify
        self.settings = source.settings.generator
        self.batch = min(SHARD_ROWS, generation_batch(source.settings))
        self.tally, self.drawn = _Tally(), 0
        self.shards: dict[str, int] = {}
        """Name -> bytes."""
        self._loaded: tuple[Any, Any] | None = None

    def run(self) -> None:
        """Shard after shard, those that are there read and not drawn again."""
        while self.tally.tokens < self.wanted:
            name = f"train-{len(self.shards):05d}.parquet"
            path, before = self.out / DATA / name, self.tally.rows - self.tally.empty
            if path.exists():
                self._take(path)
            else:
                self._write(path)
            self.shards[name] = path.stat().st_size
            new = self.tally.rows - self.tally.empty - before
            if self.tally.tokens < self.wanted and new < LEAST_NEW * SHARD_ROWS:
                raise HarnessError(
                    f"Of the last {SHARD_ROWS} rollouts of {self.source.name} only {new} brought a text"
                    f"{' that was new' if self.dedup else ''}: {self.tally.tokens:,} tokens are all that it gives; ask "
                    f"for fewer{', or leave out --dedup' if self.dedup else ''}."
                )

    def made(self) -> dict[str, Any]:
        """What came of it, for the manifest."""
        tally = self.tally
        counts = {name: getattr(tally, name) for name in ("rows", "tokens", "duplicates", "empty", "cut")}
        return counts | {"source": self.source.name, "shards": self.shards}

    def _take(self, path: Path) -> None:
        """Counts a shard that an earlier process wrote."""
        with reading(path, self.out, ADVICE):
            frame = read_table(path)[COLUMNS]
        for text, tokens, finish in zip(frame["text"], frame["tokens"], frame["finish"], strict=True):
            self.tally.duplicates += not self.tally.is_new(text)
            self.tally.add(int(tokens), finish)
        if self.dedup:  # the gaps in the numbers of its rows
            first = len(self.shards) * SHARD_ROWS
            ended = self.tally.tokens >= self.wanted
            self.tally.duplicates += (int(frame["row"].iloc[-1]) + 1 - first if ended else SHARD_ROWS) - len(frame)
        self._tell()

    def _write(self, path: Path) -> None:
        import pandas

        rows = list(self._rows(len(self.shards) * SHARD_ROWS))
        frame = pandas.DataFrame(rows, columns=COLUMNS).astype({"tokens": "int64", "seed": "int64", "row": "int64"})
        write_atomic(path, parquet_bytes(frame, plain=("text", "tokens", "row")))

    def _rows(self, first: int) -> Iterator[tuple[Any, ...]]:
        """The rows of one shard, until there are tokens enough."""
        end = first + SHARD_ROWS
        for start in range(first, end, self.batch):
            for row, text, tokens, finish in self._drawn(range(start, min(start + self.batch, end))):
                if not self.tally.is_new(text):
                    self.tally.duplicates += 1
                    if self.dedup:
                        continue
                self.tally.add(tokens, finish)
                prompt = article_label(self._article(row))["article"]
                yield text, prompt, tokens, self.seed, finish, self.source.name, row
                if self.tally.tokens >= self.wanted:
                    self._tell()
                    return
            self._tell()

    def _article(self, row: int) -> str:
        return self.articles[row % len(self.articles)]

    def _drawn(self, rows: range) -> list[tuple[int, str, int, str]]:
        """(row, text, tokens, finish) of these rollouts."""
        from harness.training.generation import finishes, sample, stop_tokens

        if (number := stop_signal()) is not None:
            raise Interrupted(number)
        model, tokenizer = self._model()
        prompts = build_prompts(tokenizer, self.settings, [self._article(row) for row in rows])
        encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
        seed = dataset_seed(self.seed)
        written = sample(model, tokenizer, encoded, self.settings, seed=seed, first_row=rows.start).tokens
        finish = finishes(written, stop_tokens(model, tokenizer))
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        counts = [len(ids) - (how == "stop") for ids, how in zip(written, finish, strict=True)]
        self.drawn += sum(counts)
        return list(zip(rows, map(plain_text, texts), counts, finish, strict=True))

    def _model(self) -> tuple[Any, Any]:
        """Loaded when the first row is drawn."""
        if self._loaded is None:
            from harness.machine.devices import to_device

            model = assets.load_model(self.source.model, dtype=self.settings.dtype, attention="sdpa")
            tokenizer = assets.load_tokenizer(self.source.model)
            bind_template(tokenizer, self.settings.template_values)
            to_device(model)
            self._loaded = model, tokenizer
        return self._loaded

    def _tell(self) -> None:
        tally = self.tally
        told = {"event": "rows", "rows": tally.rows, "tokens": tally.tokens, "of": self.wanted, "drawn": self.drawn}
        self.notify(told)


# ----------------------------------------------------------------------------------------------------- before and after


def _articles(source: Source, prompts: Path | None, allowed: frozenset[Contact]) -> list[str]:
    if prompts is not None:
        ref = str(prompts.absolute())
        return assets.texts(ref, split="train" if assets.named_splits(ref) else None)
    data = source.settings.data
    check_hosts(source, [ref for ref in (data.articles, data.validation_articles) if ref], allowed)
    return articles(source.settings)[0]


def _asked(source: Source, found: list[str], file: str, wanted: int, seed: int, dedup: bool) -> dict[str, Any]:
    """All that the rows depend on, without a path of this machine."""
    generator = source.settings.generator.model_dump(mode="json")
    read = ("prompt", "max_prompt_tokens", "max_completion_tokens", "temperature", "dtype", "template_values")
    return {
        "source": source.name,
        "identity": source.identity,
        "model": source.fingerprint,
        "tokens": wanted,
        "seed": seed,
        "dedup": dedup,
        "prompts": {
            "file": file,
            "count": len(found),
            "sha256": hashlib.sha256(json.dumps(found).encode()).hexdigest(),
        },
        "generator": {name: generator[name] for name in read} | {"batch": generation_batch(source.settings)},
        "shard_rows": SHARD_ROWS,
    }


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What is said of the data set in `folder`; None where there is none. Raises DamagedError."""
    if not folder.is_dir():
        return None
    try:
        with reading(folder / MANIFEST, folder, ADVICE) as path:
            data = read_json(path)
            if not (isinstance(data, dict) and data.get("version") == VERSION and isinstance(data.get("asked"), dict)):
                raise ValueError("not of a data set that this version reads")
            made = data.get("made", {})
            shards = made.get("shards", {}) if isinstance(made, dict) else None
            if not isinstance(shards, dict) or any(not re.fullmatch(r"train-\d+\.parquet", name) for name in shards):
                raise ValueError("shards of other names")
            return data
    except FileNotFoundError:
        return None


def _check_same(out: Path, manifest: Mapping[str, Any] | None, asked: Mapping[str, Any]) -> None:
    """Raises HarnessError where `out` holds something else than what is asked for."""
    if manifest is None:
        if out.exists() and (not out.is_dir() or any(not path.name.startswith(".") for path in out.iterdir())):
            raise HarnessError(f"{out} holds something else than a data set; choose another --out.")
        return
    differs = [name for name in asked if manifest["asked"].get(name) != asked[name]]
    if differs:
        told = ", ".join(f"{name} was {_short(manifest['asked'].get(name))}" for name in differs)
        raise HarnessError(f"{out} holds a data set of other settings ({told}); choose another --out or remove it.")


def _short(value: Any) -> str:
    text = " ".join(json.dumps(value, ensure_ascii=False).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_room(out: Path, wanted: int) -> None:
    place = existing_parent(out.absolute())
    there = sum(path.stat().st_size for path in (out / DATA).glob("train-*.parquet"))
    needed, free = wanted * BYTES_PER_TOKEN - there, shutil.disk_usage(place).free
    if needed > free:
        raise HarnessError(
            f"{wanted:,} tokens take up to {needed / 1e9:.3g} GB and {place} has {free / 1e9:.3g} GB free; make room, "
            "ask for fewer or choose another --out."
        )


def _made(folder: Path, made: Mapping[str, Any]) -> Dataset:
    """The data set, if its files are those of the manifest. Raises HarnessError."""
    there = {path.name: path.stat().st_size for path in (folder / DATA).glob("train-*.parquet")}
    if there != made["shards"]:
        raise HarnessError(f"{folder} is damaged: its shards are not those that {MANIFEST} names; {ADVICE}.")
    counts = {name: made[name] for name in ("rows", "tokens", "duplicates", "empty", "cut")}
    return Dataset(folder, shards=len(there), source=made["source"], **counts)


def _card(source: Source, made: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    settings: Settings = source.settings
    front = {
        "license": hub_licence(settings.generator.model),
        "task_categories": ["text-generation"],
        "tags": ["synthetic-data"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": f"{DATA}/train-*.parquet"}]}],
    }
    rows = [
        ("written by", source.name),
        ("task", source.task),
        ("reward", source.reward),
        ("profile", source.profile),
        ("identity of the cell", source.identity),
        ("seed of the rows", asked["seed"]),
        ("rows", f"{made['rows']:,}"),
        ("tokens", f"{made['tokens']:,}"),
        ("cut at max_completion_tokens", f"{made['cut']:,}"),
        ("empty", f"{made['empty']:,}"),
        ("exact duplicates", f"{made['duplicates']:,}, {'left out' if asked['dedup'] else 'kept'}"),
        ("articles", f"{asked['prompts']['count']:,} {asked['prompts']['file']}"),
    ]
    return (
        front_matter(front)
        + f"\n# Training texts by {escape(source.name)}\n\nSynthetic: a language model rewrote articles. "
        "Columns: `text`, `prompt_id` (of the article), `tokens`, `seed`, `finish` (`length`: it was cut), "
        "`source`, `row`.\n\n"
        + facts(rows)
        + f"\nThe generator's base model: {base_note(settings.generator.model)}\n\nHow rows were drawn:\n\n"
        + fenced(as_yaml(asked["generator"]).rstrip())
    )
