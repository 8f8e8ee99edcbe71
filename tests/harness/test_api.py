"""The Python interface: what it returns and draws, that it is light, and that the commands are a layer over it."""

from __future__ import annotations

import ast
import io
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
from rich.console import Console

import harness
from harness import api, miniature
from harness.contracts import HarnessError, completion_text
from tests.helpers.command import ROOT, python, run_harness, start


@pytest.fixture(scope="module")
def results(quick, tmp_path_factory) -> api.Results:
    """`norm` with two rewards, two seeds and steps of seconds."""
    out = tmp_path_factory.mktemp("api")
    return harness.run(
        task="norm", reward=["naive", "shorter"], seeds="0-1", set=quick(), out=out, workers=0, progress=False
    )


@pytest.fixture(scope="module", autouse=True)
def shorter():
    """A reward of this session alone."""
    from harness.registry import REWARDS, register_reward

    REWARDS.names()
    before = dict(REWARDS._entries)

    @register_reward("shorter", summary="minus the length in characters")
    def make(context):
        return lambda prompts, completions, completion_ids, **columns: [-len(completion_text(c)) for c in completions]

    yield
    REWARDS._entries = before


def readme_block(words: str) -> str:
    """The Python block of the README that holds the words."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (found,) = (block for block in blocks if words in block)
    return found


def test_the_import_is_light():
    modules = ("torch", "transformers", "trl", "pandas", "matplotlib", "pydantic")
    found = lambda names: f"print([name for name in {names} if name in sys.modules])"
    assert python(f"import sys, harness; dir(harness); {found(modules)}") == "[]"
    assert python(f"import sys, harness; harness.run, harness.fidelity; {found(modules[:-1])}") == "[]"
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        harness.rum  # noqa: B018


def test_the_tables_of_a_run_are_those_that_are_stored(results):
    """They are kept from when the run stored them, not read again."""
    stored = api.Results(results.place, frozenset(results.wide["identity"]))
    pandas.testing.assert_frame_equal(results.wide, stored.wide)
    pandas.testing.assert_frame_equal(results.long, stored.long)


def test_results_are_tables_texts_and_html(results):
    assert len(results.wide) == 4 and set(results.wide["status"]) == {"done"} and not results.failed
    assert set(results.long["reward"]) == {"naive", "shorter"} and set(results.long["seed"]) == {0, 1}
    assert {"task", "reward", "seed", "step", "text"} <= set(results.samples) and len(results.samples) >= 4 * 4
    page = results._repr_html_()
    assert page.count("<table>") == 2 and page.count("<tr>") == 4 + 3, "of the rewards, and over seeds"
    assert "naive" in page and "norm change" in page and "<script" not in page
    assert repr(results).startswith("<Results of 4 cells in ") and "4 done" in repr(results)
    shown = Console(file=io.StringIO(), width=120)
    shown.print(results)
    assert "norm (tiny)" in shown.file.getvalue()


def test_what_a_run_returns_are_its_own_cells_and_load_has_all(results, quick):
    one = harness.run("norm", "naive", set=quick(), out=results.place.parent, workers=0, progress=False)
    assert one.wide["seed"].tolist() == [0] and set(one.long["reward"]) == {"naive"} and len(one.cells) == 1
    assert set(one.samples["seed"]) == {0}
    again = harness.load(results.place)
    assert len(again.wide) == 4 and len(again.signals.judged) == 0
    pandas.testing.assert_frame_equal(again.wide, results.wide)


def test_no_results_are_one_sentence(tmp_path, results):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(HarnessError, match="There (are no results|is no folder)"):
            harness.load(place)
    with pytest.raises(HarnessError, match="did you mean headline"):
        results.figure("headlines")


def test_the_commands_are_a_layer_over_the_interface(results, monkeypatch, tmp_path):
    asked = {}

    def called(name, answer):
        monkeypatch.setattr(api, name, lambda *given, **options: asked.update({name: (given, options)}) or answer)

    called("run", results)
    called("report", Path("site/index.html"))
    called("fidelity", results.signals)
    chosen = ("--task", "norm", "--reward", "naive", "--seeds", "0-1", "--set", "grpo.steps=3", "--workers", "0")
    code, out, err = run_harness("run", *chosen, "--inner-steps", "1,8", "--retry-failed", cwd=tmp_path)
    assert code == 0 and "norm (tiny)" in out and f"Results: {results.place}" in out.replace("\n", ""), err
    assert run_harness("fidelity", *chosen, "--pool", "16", cwd=tmp_path).code == 0
    assert "site/index.html" in run_harness("report", "there", cwd=tmp_path).out
    common = {"profile": "tiny", "seeds": "0-1", "set": {"grpo.steps": 3}, "workers": 0}
    for name, own in (("run", {"inner_steps": "1,8", "policy": "retry-failed"}), ("fidelity", {"pool": 16})):
        given, options = asked[name]
        assert given == ("norm", "naive") and (common | own).items() <= options.items()
    assert asked["report"] == ((Path("there"), Path("site")), {"reference": ""})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "norn"}, "did you mean norm"),
        ({"task": []}, "Name at least one task"),
        ({"reward": ["naiv"]}, "did you mean naive"),
        ({"seeds": "a-b"}, "--seeds takes whole numbers"),
        ({"seeds": -1}, "--seeds takes whole numbers"),
        ({"seeds": []}, "--seeds takes at least one number"),
        ({"seeds": 1.5}, "--seeds takes whole numbers"),
        ({"inner_steps": "x"}, "--inner-steps takes whole numbers"),
        ({"set": {"grpo.stepz": 1}}, "grpo.steps"),
        ({"profile": "tinny"}, "did you mean tiny"),
        ({"policy": "again"}, "--policy takes continue, fresh, retry-failed or only-missing, not 'again'"),
        ({"track": "mlflow"}, "--track takes none, tensorboard, wandb or trackio"),
    ],
)
def test_bad_arguments_are_one_sentence_before_anything_runs(options, words, tmp_path, nothing_loads):
    with pytest.raises(HarnessError) as caught:
        harness.run(**{"task": "norm", "reward": "naive", "out": tmp_path / "runs"} | options)
    assert words in str(caught.value) and not (tmp_path / "runs").exists()


def test_a_reward_of_this_session_runs_in_this_process(quick, monkeypatch):
    asked = []

    def local(workers, threads):
        asked.append(workers)
        return SimpleNamespace(slots=1, close=lambda: None)

    monkeypatch.setattr("harness.workers.local.local", local)
    monkeypatch.setattr("harness.planning.preflight.preflight", lambda cells, *given: cells)
    monkeypatch.setattr("harness.workers.grid.run_grid", lambda *given, **more: [])
    monkeypatch.setattr("reports.store.store_tables", lambda folder: None)
    for reward, workers in (("naive", None), ("naive,shorter", None), ("naive,shorter", 2)):
        harness.run("norm", reward, set=quick(), workers=workers, progress=False)
    assert asked[0] > 0 and asked[1:] == [0, 2]


def test_a_script_without_a_main_guard_may_use_workers(quick, tmp_path):
    """Spawned processes import the main module again; a worker leaves it alone."""
    script = f"import harness\nprint(harness.run('norm', 'naive', set={quick()!r}, workers=1))\nprint('once')\n"
    (tmp_path / "script.py").write_text(script)
    process = start([str(tmp_path / "script.py")], tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("once") == 1 and "<Results of 1 cells in runs/tiny: 1 done>" in out


def test_it_runs_in_a_thread(results, quick):
    """Where signals are nobody's to set."""
    found = []
    run = lambda: found.append(harness.run("norm", "naive", set=quick(), out=results.place.parent, workers=1))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [each.wide["status"].tolist() for each in found] == [["done"]]


def test_an_interruption_is_a_keyboard_interrupt_and_stored(quick, tmp_path, register_factory):
    def stop(**given):
        raise KeyboardInterrupt

    register_factory("stops", lambda context: stop)
    with pytest.raises(KeyboardInterrupt):
        harness.run("norm", "stops", set=quick(), out=tmp_path, workers=0, progress=False)
    assert harness.load(tmp_path).wide["status"].tolist() == ["interrupted"]


# -------------------------------------------------------------------------------------------------------------- figures


def test_a_figure_has_its_readers_style(results, tmp_path):
    sheet = tmp_path / "paper.mplstyle"
    sheet.write_text(
        "figure.figsize: 3.3, 2.2\naxes.labelsize: 6\naxes.prop_cycle: cycler('color', ['101010', 'aa0000'])\n"
    )
    plain, styled = results.figure(), results.figure(style=sheet)
    assert tuple(styled.get_size_inches()) == (3.3, 2.2) != tuple(plain.get_size_inches())
    assert [figure.axes[0].xaxis.label.get_size() for figure in (plain, styled)] == [8, 6]
    assert [line.get_color() for line in styled.axes[0].lines] == ["#101010", "#aa0000"]
    assert [line.get_marker() for line in styled.axes[0].lines] == [line.get_marker() for line in plain.axes[0].lines]
    both = results.figure(style=[sheet, {"axes.labelsize": 11}])
    assert both.axes[0].xaxis.label.get_size() == 11 and tuple(both.get_size_inches()) == (3.3, 2.2)
    assert results.figure().axes[0].xaxis.label.get_size() == 8  # nothing of it stays


@pytest.mark.parametrize(("suffix", "begins"), [(".pdf", b"%PDF"), (".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_a_figure_is_written_as_its_name_says_and_the_same_each_time(suffix, begins, results, tmp_path):
    path, again = tmp_path / "new" / f"a{suffix}", tmp_path / f"b{suffix}"
    for place in (path, again):
        results.figure("headline", path=place)
    assert path.read_bytes().startswith(begins) and path.read_bytes() == again.read_bytes()


def test_every_kind_of_figure_is_drawn_and_shown_in_notebooks(results):
    assert {"headline", "wall-clock", "curves-tiny-norm-validation"} <= set(results.figures)
    for kind in results.figures:
        assert results.figure(kind)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": "no-such-style"}, "The style cannot be used"),
        ({"style": {"no.such": 1}}, "The style cannot be used"),
        ({"path": "figure.docx"}, "must end in one of"),
    ],
)
def test_a_figure_that_cannot_be_is_one_sentence(options, words, results, tmp_path):
    with pytest.raises(HarnessError, match=words):
        results.figure(**{key: str(tmp_path / value) if key == "path" else value for key, value in options.items()})


# -------------------------------------------------------------------------------------------- signals, README, TRL


def test_fidelity_gives_tables_of_signals(results, quick):
    found = harness.fidelity(
        "norm",
        "naive,shorter",
        set=quick(validation__prompts=8),
        pool=16,
        subsets=10,
        out=results.place.parent,
        workers=0,
        progress=False,
    )
    assert set(found.wide["reward"]) == {"naive", "shorter"} and {"halves", "leave one out"} <= set(found.wide)
    assert set(found.long["measure"]) >= {"halves", "leave one out"} and not found.failed
    assert len(found.samples) == 16 and {"text", "source", "naive", "shorter"} <= set(found.samples)
    assert "random halves" in found._repr_html_() and "2 rows" in repr(found)
    assert len(harness.load(results.place).signals.rows) == 2
    shown = Console(file=io.StringIO(), width=80)
    shown.print(found)
    lines = shown.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and any("shorter" in line for line in lines)
    assert any(line.startswith("random halves    Spearman with Phi of targets") for line in lines)
    assert not any("…" in line for line in lines)


def test_the_readmes_python_runs(results, quick, tmp_path, monkeypatch):
    real = api.run
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        api, "run", lambda **given: real(**given | {"set": quick(), "workers": 0, "out": results.place.parent})
    )
    for words in ("harness.run(", 'path="figure.pdf"'):
        code = ast.parse(readme_block(words))
        exec(compile(code, "README.md", "exec"), {"results": results})
    assert (tmp_path / "site" / "index.html").exists() and (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["adam_metagrad", "shorter"])
def test_a_reward_trains_in_the_readmes_trl_script(name, tmp_path, monkeypatch):
    """A metagradient, and one that somebody registered."""
    from datasets import Dataset

    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Rephrase this article:\nThe river number {i} flows north."} for i in range(8)]
    here = {"model": str(miniature.path("generator")), "prompts": Dataset.from_list(rows)}
    code = readme_block("GRPOTrainer").replace("adam_metagrad", name)
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    exec(compile(code, "README.md", "exec"), here)
    (log,) = (entry for entry in here["trainer"].state.log_history if "reward" in entry)
    assert here["trainer"].state.global_step == 1
    # Raw metagradients are around 1e-9: TRL would divide them by 1e-4.
    assert log[f"rewards/{name}/std"] == pytest.approx(1, abs=1e-3) and log["frac_reward_zero_std"] == 0


def test_a_reward_for_trl_is_the_raw_one_if_asked_and_knows_what_it_lacks():
    texts = ["one text", "another one", "a third", "and the last of them"]
    given = {"prompts": ["x"] * 4, "completions": texts, "completion_ids": [[1]] * 4}
    raw = harness.reward("shorter", task="norm", rescale=False)
    scaled = harness.reward("shorter", task="norm")
    assert raw(**given) == [-float(len(text)) for text in texts] and raw.__name__ == "shorter"
    assert pandas.Series(scaled(**given)).std() == pytest.approx(1)
    with pytest.raises(HarnessError, match="embedding cannot be had for the task norm: the task has no"):
        harness.reward("embedding", task="norm")


def test_several_values_of_a_setting_are_variants():
    found = harness.api.cells("norm", "naive", set={"grpo.lr": harness.Several([1e-4, 3e-4])})
    assert [(cell.settings.grpo.lr, cell.label) for cell in found] == [(1e-4, "lr 1e-4"), (3e-4, "lr 3e-4")]
