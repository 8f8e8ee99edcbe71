"""The command `run`: its table, interruption, and that bad input is one sentence and exit code 2."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import time

import fasttext
import pytest

from harness.assets.models import load_model
from harness.contracts import HarnessError
from harness.machine.terminal import Terminal, inert
from harness.settings.profiles import parse_assignment
from harness.store.frames import load
from harness.store.record import CellStore
from harness.workers.progress import TimeLeft, TokenProgress, about
from tests.helpers.command import ROOT, flags, run_harness, start_harness


def test_the_command_runs_two_workers_and_prints_the_table(quick, tmp_path):
    process = start_harness(
        "run", "--task", "lambada_es", "--reward", "naive,levenshtein", "--workers", "2", *flags(quick()), cwd=tmp_path
    )
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "untuned generator" in out and "levenshtein" in out and "target_language" in out
    assert "Traceback" not in err
    table = (tmp_path / "runs" / "tiny" / "table.md").read_text()
    assert "untuned generator" in table
    stored = {path.name for path in (tmp_path / "runs" / "tiny").iterdir() if path.is_file()}
    assert stored == {"table.md", "wide.parquet", "long.parquet"}


def test_a_pair_that_lacks_texts_is_a_row_the_others_run_and_the_exit_code_says_so(quick, tmp_path):
    changes = quick()
    del changes["inner.warmup_steps"]  # of uuid: 96 steps on four texts
    found = run_harness(
        "run", "--task", "norm,uuid", "--reward", "naive", "--workers", "0", *flags(changes), cwd=tmp_path
    )
    assert found.code == 3, found.err
    assert "unsupported: uuid/naive would split training sets of 4 texts into 96" in " ".join(found.out.split())
    wide, _ = load(tmp_path / "runs")
    assert dict(zip(wide["task"], wide["status"], strict=True)) == {"norm": "done", "uuid": "unsupported"}


def test_lines_count_what_starts_and_say_how_long_it_takes(quick, tmp_path):
    found = run_harness(
        "run", "--task", "norm", "--reward", "naive", "--set", "grpo.lr=1e-4,3e-4", "--workers", "0", *flags(quick()),
        cwd=tmp_path, width=80,
    )  # fmt: skip
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert [line[9:] for line in lines if line.endswith("starts")] == [
        "[1/2] norm/naive lr 1e-4 seed 0: starts",
        "[2/2] norm/naive lr 3e-4 seed 0: starts",
    ]
    planned = [line for line in lines if "by the plan" in line]
    assert len(planned) == 1 and lines.index(planned[0]) < next(i for i, line in enumerate(lines) if "step 0/2" in line)
    assert any("Where the time went: " in line for line in lines)
    assert any(line.startswith("naive (lr 3e-4) ") for line in lines) and max(map(len, lines[-12:-3])) <= 80
    assert "newly initialized" not in found.out + found.err
    again = run_harness(
        "run", "--task", "norm", "--reward", "naive", "--set", "grpo.lr=3e-4", *flags(quick()), cwd=tmp_path
    )
    assert "kept, done" in again.out and "(lr " not in again.out, "one setting needs no name"


def test_the_time_left_follows_the_plan_and_then_the_clock(make_cell, quick):
    cells = [make_cell("norm", "naive", quick(), seed) for seed in range(3)]
    clock = [0.0]
    time = TimeLeft(cells, 2, lambda: clock[0])
    time.usual = {cell.name: 10.0 for cell in cells}
    assert time.left() == 15.0, "three cells on two workers"
    time.plan(cells[0], 40.0)
    assert time.left() == 60.0, "what is measured of one says how much slower all are"
    clock[0] = 10.0
    time.step(cells[0], 0.5)  # half of 40 planned seconds in ten, on one of two workers
    assert time.left() == pytest.approx((20 + 40 + 40) / 2)
    time.ended(cells[0]), time.ended(cells[1])
    assert time.left() == pytest.approx(40.0)
    time.ended(cells[2])
    assert time.left() is None and about(61) == "60 s" and about(400) == "7 min"


@pytest.mark.parametrize("terminal", [True, False])
def test_tokens_are_shown_as_they_come_with_how_fast(terminal):
    out, clock = io.StringIO(), [0.0]
    console = Terminal(file=out, width=120, force_terminal=terminal)
    with TokenProgress(console, lambda: clock[0]) as shown:
        for tokens, drawn in ((1000, 0), (2000, 1000), (3000, 2000), (4100, 3100)):
            clock[0] += 20.0
            shown({"event": "rows", "rows": tokens // 10, "tokens": tokens, "of": 4000, "drawn": drawn})
    text = out.getvalue()
    if terminal:
        assert "4000/4000" in text and "39 tokens/s" in text
    else:
        lines = [line[9:] for line in text.splitlines()]
        assert lines == [
            "2,000 of 4,000 tokens in 200 rows, 25 tokens/s",
            "4,100 of 4,000 tokens in 410 rows, 39 tokens/s",
        ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interruption_stores_what_there_was(number, quick, tmp_path):
    changes = quick(grpo__steps=100000)
    process = start_harness("run", "--task", "norm", "--reward", "naive", *flags(changes), cwd=tmp_path)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not list(tmp_path.rglob("curves.parquet")):
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Interrupted" in err and "Traceback" not in err
    wide, long = load(tmp_path / "runs")
    assert wide["status"].tolist() == ["interrupted"] and len(long)


BAD = {
    "task": (["--task", "lambada_xx"], "lambada_"),
    "reward": (["--task", "lambada_es", "--reward", "adam_metagrat"], "adam_metagrad"),
    "profile": (["--task", "lambada_es", "--profile", "tinny"], "tiny"),
    "setting": (["--task", "lambada_es", "--set", "grpo.stebs=1"], "grpo.steps"),
    "type": (["--task", "lambada_es", "--set", "grpo.steps=1.5"], "integer"),
    "seeds": (["--task", "lambada_es", "--seeds", "a-b"], "--seeds"),
    "model": (["--task", "lambada_es", "--set", "generator.model=./no-such-model"], "no-such-model"),
    "articles": (["--task", "lambada_es", "--set", "data.articles=./none.jsonl"], "none.jsonl"),
    "empty": (["--task", "lambada_es", "--set", "data.articles=./empty.jsonl"], "no text"),
    "malformed": (["--task", "lambada_es", "--set", "data.articles=./malformed.jsonl"], "line 2"),
    "few": (["--task", "lambada_es", "--set", "data.articles=./one.jsonl"], "too few"),
    "broken model": (["--task", "lambada_es", "--set", "target.model=./broken"], "broken"),
    "no weights": (["--task", "lambada_es", "--set", "target.model=./bare"], "safetensors"),
    "value of an option": (
        ["--task", "67", "--set", "task.options.lambda=abc"],
        "task.options.lambda must be a number",
    ),
    "out": (["--task", "lambada_es", "--out", "file/runs"], "--out"),
    "track": (["--task", "lambada_es", "--track", "mlflow"], "tensorboard"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2_before_anything_loads(case, tmp_path, model_folder, nothing_loads):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "one.jsonl").write_text('{"text": "only one"}\n')
    (tmp_path / "malformed.jsonl").write_text('{"text": "fine"}\nnot json\n')
    (tmp_path / "file").write_text("in the way")
    for name in ("broken", "bare"):
        (tmp_path / name).mkdir()
        for item in model_folder("llama").iterdir():
            (tmp_path / name / item.name).write_bytes(item.read_bytes())
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\x00" * 40)
    (tmp_path / "bare" / "model.safetensors").unlink()
    arguments, words = BAD[case]
    code, out, err = run_harness("run", *arguments, cwd=tmp_path)
    assert code == 2, (out, err)
    assert words in err and "Traceback" not in err and err.startswith("Error:") and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_the_exit_code_of_bad_input_is_that_of_the_process(tmp_path):
    process = start_harness("run", "--task", "lambada_xx", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and err.startswith("Error:") and out == ""


def test_a_model_that_loads_is_noticed(model_folder, nothing_loads):
    """Else `nothing_loads` would let everything pass."""
    with pytest.raises(HarnessError):
        load_model(str(model_folder("gpt2")))
    with pytest.raises(AssertionError):
        fasttext.load_model("model.bin")
    assert len(nothing_loads) == 2
    nothing_loads.clear()


@pytest.mark.parametrize(
    ("text", "value"),
    [("grpo.lr=2e-4", 2e-4), ("generator.prompt=Say: <article>", "Say: <article>"), ("a={b: 1}", {"b": 1})],
)
def test_values_of_set_are_read_as_meant(text, value):
    assert parse_assignment(text)[1] == value


# ------------------------------------------------------------------------------------------------- arguments and pipes


@pytest.mark.parametrize("seeds", ["0-99999999999", "0-10000", "4294967296", "9" * 6000, "3-1", ""])
def test_seeds_that_nobody_means_are_refused_at_once(seeds, tmp_path):
    code, _, err = run_harness("run", "--task", "norm", f"--seeds={seeds}", "--dry-run", cwd=tmp_path)
    assert code == 2 and "--seeds takes" in err and len(err) < 300


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", LONG],
        ["run", "--task", "norm", "--out", LONG],
        ["run", "--task", "norm", "--profile", LONG],
        ["run", "--task", "norm", "--set", f"generator.model={LONG}/{LONG}"],
        ["run", "--task", "norm", "--set", f"data.articles={LONG}.jsonl"],
        ["run", "--task", "norm", "--set", "generator.model=/"],
        ["run", "--task", "67", "--set", f"task.options.pattern={LONG}"],
        ["run", "--task", "norm", "--threads", "99999"],
        ["rerun", "--", LONG],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_names_that_no_file_can_have_are_one_sentence(arguments, tmp_path):
    code, _, err = run_harness(*arguments, cwd=tmp_path)
    assert code == 2 and err.startswith("Error:") and len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("HARNESS list >&-", 2, "Standard output is closed"),
        ("HARNESS list > /dev/full", 2, "Standard output cannot be written (No space left on device)"),
        ("HARNESS list 2>&- <&-", 0, ""),
        ("PYTHONIOENCODING=ascii HARNESS list --settings", 0, ""),
    ],
)
def test_a_closed_or_full_output_is_one_sentence(line, code, words, tmp_path):
    command = line.replace("HARNESS", f"{shlex.quote(sys.executable)} -m harness")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("\n") <= 1


def test_a_broken_pipe_ends_a_run_as_a_signal_does_and_what_was_measured_is_stored(quick, tmp_path):
    process = start_harness(
        "run", "--task", "norm", "--reward", "naive", "--workers", "0", *flags(quick(grpo__steps=100000)), cwd=tmp_path
    )
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(120) == 128 + signal.SIGPIPE and "Broken pipe" in err and "Traceback" not in err, err
    assert load(tmp_path / "runs")[0]["status"].tolist() == ["interrupted"]


# ------------------------------------------------------------------------------------------------- what is shown

STEERING = [
    "\x1b[2J",
    "\x9b31m",
    "\x07",
    "\x00",
    "\x85",
    "\u202e",
    "\u2066",
    "\u061c",
    "\u2028",
    "\ufeff",
    "\U000e0041",
    "\ud800",
]


def test_what_steers_a_terminal_is_replaced_and_words_stay():
    for text in STEERING:
        assert inert(f"a{text}b") == f"a\ufffd{text[1:]}b"
    for text in ("Añade ü 你好", "family \U0001f469\u200d\U0001f467", "می\u200cخواهم", "a\tb\nc", "| a — b │"):
        assert inert(text) == text


@pytest.mark.parametrize("command", ["table", "diff", "report"])
def test_nothing_stored_steers_the_terminal(command, quick, make_cell, tmp_path):
    record = make_cell("norm", "naive", quick()).record()
    marked = "why " + "".join(STEERING[:-1])
    for place in ("a", "b"):
        store = CellStore.of(tmp_path / place, record)
        store.write(record.model_copy(update={"status": "failed", "reason": marked, "variant": "\x1b[31mred"}))
    arguments = {"table": ["a"], "diff": ["a", "b"], "report": ["a", "--out", "\x1b[2Jsite"]}[command]
    _, out, err = run_harness(command, *arguments, cwd=tmp_path)
    assert "\ufffd" in out and not [text for text in STEERING if text[0] in out + err]
