"""What takes the machine down: pictures, models, tables and templates of any size."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from scripts.odd_input.world import QUICK, ROOT, Badly, Case, Expected, World, call, cell_folder, command, flags, png


def resources(world: World) -> Iterator[Case]:
    """Files that are small outside and large inside, that never end, or that are no files."""
    from harness import assets
    from harness.settings.profiles import load_profile, parse_assignment

    def written(content: bytes | str, name: str) -> Path:
        path = world.new(name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def laughs(depth: int, width: int, merge: bool) -> str:
        first = "a0: &a0 {k: 1}\n" if merge else "a0: &a0 [x]\n"
        opening, closing = ("{<<: [", "]}") if merge else ("[", "]")
        return first + "".join(
            f"a{n}: &a{n} {opening}{', '.join([f'*a{n - 1}'] * width)}{closing}\n" for n in range(1, depth + 1)
        )

    for depth, width, merge in product((5, 9, 20), (6, 9), (False, True)):
        text = laughs(depth, width, merge)
        yield Case(
            f"{width}^{depth} aliases {merge}",
            "refused",
            lambda text=text: call(load_profile, str(written(text, "x.yaml"))),
        )
        inline = "task.options.x={" + ", ".join(text.strip().split("\n")) + "}"
        expected: Expected = "refused" if width**depth > 200_000 else "either"
        yield Case(
            f"{width}^{depth} aliases in --set {merge}", expected, lambda text=inline: call(parse_assignment, text)
        )
    tiny = "".join(path.read_text() for path in sorted((ROOT / "harness" / "profiles" / "tiny").iterdir()))
    yield Case("a profile in one file", "works", lambda: call(load_profile, str(written(tiny, "x.yaml"))))
    yield Case("a few aliases", "works", lambda: call(parse_assignment, "a={x: &a [1, 2], y: *a, z: *a}"))
    for size in (2, 50):
        for what in ("# comment\n", "- 1\n", "a: b\n", "["):
            content = what * (size * 2**20 // len(what))
            yield Case(
                f"a profile of {size} MB of {what!r}",
                "refused",
                lambda c=content: call(load_profile, str(written(c, "x.yaml"))),
            )

    def special(kind: str, name: str) -> Path:
        path = world.new(name)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(kind)
        return path

    kinds = ["pipe", "/dev/zero", "/dev/random", "/dev/tty", "/dev/null", "/proc/kmsg"]
    run = lambda task, key, value: command(
        "run",
        "--task",
        task,
        "--reward",
        "naive",
        "--workers",
        "0",
        "--out",
        str(world.new()),
        *flags(QUICK),
        "--set",
        f"{key}={value}",
    ).outcome()
    for kind in kinds:
        yield Case(f"a profile that is {kind}", "refused", lambda k=kind: call(load_profile, str(special(k, "x.yaml"))))
        yield Case(
            f"base.yaml that is {kind}",
            "refused",
            lambda k=kind: call(load_profile, str(special(k, "base.yaml").parent)),
        )
        for name, key in (
            ("x.jsonl", "data.articles"),
            ("x.parquet", "data.articles"),
            ("x.png", "task.options.pattern"),
            ("x.npy", "task.options.pattern"),
        ):
            task = "67" if "pattern" in key else "norm"
            yield Case(
                f"{name} that is {kind}", "refused", lambda a=(task, key), k=kind, n=name: run(*a, special(k, n))
            )
        for name in (
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "extra.json",
        ):
            yield Case(
                f"a model's {name} that is {kind}",
                "either" if name == "extra.json" or kind == "/dev/null" else "refused",
                lambda n=name, k=kind: run("norm", "generator.model", odd_model(world, n, k)),
            )
        for name in ("cell.json", "curves.parquet", "samples.jsonl", "step-1/drawn.png", "step-1/other.png"):
            yield Case(f"{name} of results that is {kind}", "either", lambda n=name, k=kind: odd_results(world, n, k))

    for claim in ((30_000, 30_000), (2**31 - 1, 2**31 - 1), (5000, 5000), (100_000, 1000), (0, 0), (1, 2**30)):
        content = png(4, 4, claim)
        yield Case(
            f"a pattern of {claim}", "refused", lambda c=content: run("67", "task.options.pattern", written(c, "x.png"))
        )
        yield Case(f"a picture of {claim}", "either", lambda c=content: odd_results(world, "step-1/drawn.png", c))
    if os.environ.get("ODD_LARGE", "1") == "1":
        yield Case(
            "a picture of 30,000 x 30,000 white pixels",
            "works",
            lambda: odd_results(world, "step-1/drawn.png", flat_png(30_000)),
        )
    yield Case("a pattern of 8 x 8", "either", lambda: run("67", "task.options.pattern", written(png(7, 6), "x.png")))
    for shape in ("(1000000, 1000000)", "(-1, 4)", "(99999999999999999999, 1)", "()"):
        head = "{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + ", }"
        head = head + " " * (117 - len(head)) + "\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()
        yield Case(
            f"a .npy of {shape}", "refused", lambda c=content: run("67", "task.options.pattern", written(c, "x.npy"))
        )
    yield from tables(world, run)
    yield from templates(world)
    for size in (10**4, 10**6, 5 * 10**6):
        for name in ("table", "diff", "report"):
            yield Case(f"{name} with a reason of {size:,}", "works", lambda a=(size, name): long_reason(world, *a))
    yield Case("texts as usual", "works", lambda: call(assets.texts, str(world.lines([{"text": "x"}] * 5)), split=None))


def flat_png(side: int) -> bytes:
    """A white square, small as a file."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * side
    rows = b"".join([packer.compress(row) for _ in range(side)] + [packer.flush()])
    whole = png(4, 4, (side, side))
    start = whole.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(rows)) + b"IDAT" + rows + struct.pack(">I", zlib.crc32(b"IDAT" + rows))
    return whole[:start] + chunk + whole[whole.index(b"IEND") - 4 :]


def odd_model(world: World, name: str, kind: str) -> Path:
    folder = world.new() / "model"
    shutil.copytree(world.model, folder)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name) if kind == "pipe" else (folder / name).symlink_to(kind)
    return folder


def odd_results(world: World, name: str, content: str | bytes) -> str:
    """The page of results with a file that is a pipe, a link or has this content."""
    runs = world.copy()
    place = cell_folder(runs) / name
    place.unlink(missing_ok=True)
    if isinstance(content, bytes):
        place.write_bytes(content)
    elif content == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(content)
    return max(command("table", str(runs)).outcome(), command("report", str(runs), "--out", str(world.new())).outcome())


def tables(world: World, run: Callable[..., str]) -> Iterator[Case]:
    """Parquet files that unpack to far more than they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def repeated(length: int, times: int) -> pa.Table:
        indices = pa.array([0], pa.int32()).take(pa.array([0] * times, pa.int32()))
        return pa.table({"text": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * length]))})

    def bomb(table: pa.Table, name: str = "x.parquet") -> Path:
        path = world.new(name)
        pq.write_table(table, path, compression="zstd")
        return path

    for length, times in ((10**6, 5000), (10**5, 10**5), (10**7, 2000)):
        yield Case(
            f"texts of {length:,} x {times:,}",
            "refused",
            lambda a=(length, times): run("norm", "data.articles", bomb(repeated(*a))),
        )
        results = lambda a=(length, times): odd_results(world, "curves.parquet", bomb(repeated(*a)).read_bytes())
        yield Case(f"curves with texts of {length:,} x {times:,}", "either", results)
    many = lambda: pa.table({"text": pa.nulls(60_000_000, pa.int8())})
    yield Case("60 million rows", "refused", lambda: run("norm", "data.articles", bomb(many())))
    yield Case(
        "curves of 60 million rows", "either", lambda: odd_results(world, "curves.parquet", bomb(many()).read_bytes())
    )
    usual = lambda: run("norm", "data.articles", bomb(pa.table({"text": world.articles * 50})))
    yield Case("articles of 1,200 rows", "works", usual)


TEMPLATES = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 10**10 }}",
    "a power": "{{ 9 ** (10 ** 9) }}",
    "doubling": "{% set n = namespace(x='aaaa') %}"
    "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "padding": "{{ 'x'.center(9999999999) }}",
    "formats": "{{ '%09999999999d' % 1 }}",
    "much output": "{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}",
    "lists": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "an exception": "{{ raise_exception('no') }}",
    "an escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "no syntax": "{% for %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "an unknown filter": "{{ messages | nothing }}",
}


def templates(world: World) -> Iterator[Case]:
    """Chat templates are programs."""
    from harness.assets import load_tokenizer

    def load(template: str) -> str:
        folder = odd_model(world, "chat_template.jinja", "/dev/null")
        (folder / "chat_template.jinja").unlink()
        (folder / "chat_template.jinja").write_text(template)
        return call(load_tokenizer, str(folder))

    for name, template in TEMPLATES.items():
        yield Case(f"a chat template with {name}", "refused", lambda template=template: load(template))
    yield Case("a chat template of 2 MB", "refused", lambda: load("x" * 2_000_000))
    plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    yield Case("a plain chat template", "works", lambda: load(plain))


def long_reason(world: World, size: int, name: str) -> str:
    runs = world.copy()
    path = cell_folder(runs) / "cell.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "reason": "why " * (size // 4)}))
    more = {"diff": [str(world.results)], "report": ["--out", str(world.new())]}.get(name, [])
    said = command(name, str(runs), *more)
    if len(said.out) > 100_000:
        raise Badly(f"{len(said.out):,} characters are shown")
    return said.outcome((0, 1, 2) if name == "diff" else (0,))
