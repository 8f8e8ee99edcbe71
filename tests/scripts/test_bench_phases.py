"""The phase benchmark runs to the end at a sliver of the width and says what it must; seconds are not judged."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def bench(load_script):
    return load_script("bench_phases")


@pytest.mark.parametrize(("task", "target", "steps"), [("lambada_es", "llama-3.2-1b", 1), ("67", "gpt2", 2)])
def test_every_phase_is_measured_beside_floor_and_plan(task, target, steps, bench, tmp_path, capsys):
    short = ["generator.max_prompt_tokens=24", "generator.max_completion_tokens=8", "inner.max_tokens=8"]
    given = [word for setting in short for word in ("--set", setting)]
    out = tmp_path / "deep" / "phases"
    bench.main(
        [
            "--width-divisor",
            "64",
            "--prompts",
            "2",
            "--steps",
            "1",
            "--passages",
            "8",
            "--task",
            task,
            "--target",
            target,
            "--inner-steps",
            str(steps),
            "--out",
            str(out),
            *given,
        ]
    )
    stored = json.loads(out.with_suffix(".json").read_text())
    assert list(stored["phases"]) == ["generation", "reward", "update", "validation"]
    for row in stored["phases"].values():
        assert row["seconds"] > 0 and row["flops"] > 0 and row["floor_seconds"] > 0 and row["planned_seconds"] > 0
    assert stored["rollouts"] == 8 and stored["profile_cell_hours"] > 0
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out + "\n"


@pytest.mark.parametrize("vocab", [300, 5000])
def test_texts_have_the_length_they_should(vocab, bench):
    tokenizer = bench.words(vocab)
    ids = tokenizer(bench.text(110, vocab, 3))["input_ids"]
    assert len(ids) == 110 and max(ids) < vocab - 1
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids
