"""What generated data are worth: the training against Hugging Face's Trainer, the protocol, the command from a kept
generator to a table, what is kept, what is said of what is missing, and EleutherAI's harness."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import harness
from harness.contracts import HarnessError, TaskContext
from harness.evaluation import jobs, training
from harness.evaluation import row as table_row
from harness.evaluation.plan import plans
from harness.evaluation.records import PACKED, TrialRecord, chosen_rate, load, packed, write_packed
from harness.evaluation.run import run_all
from harness.evaluation.training import Text, encode, mean_loss, mix, pack, take, train
from harness.registry import TASKS
from harness.settings.profiles import load_profile
from harness.settings.schema import EvaluationSettings
from harness.store.atomic import write_json
from harness.workers.executor import Executor, work
from harness.workers.local import InProcess
from harness.workers.ray_worker import _moved, luggage_of
from reports import evaluations, tables
from reports.diff import compare
from tests.harness.workers.test_ray import post_here
from tests.helpers.cells import ignore
from tests.helpers.command import flags, run_harness, start_harness

BOS, EOS = 256, 257
SMALL = {
    "evaluation.tokens": 600,
    "evaluation.rates": [1e-3, 1e-2],
    "evaluation.batch": 2,
    "evaluation.articles": 4,
    "task.options.metric_examples": 4,
    "task.options.validation_examples": 4,
}


# ------------------------------------------------------------------------------------------------------------- training


def test_texts_become_rows_and_a_cut_one_has_no_end(make_tokenizer):
    texts = [Text("ab"), Text(""), Text("cd", ends=False), Text("efgh")]
    a, b, c, d = (make_tokenizer()(letter)["input_ids"][0] for letter in "abcd")
    rows = list(encode(texts, make_tokenizer(), most=5))
    assert rows[:2] == [[BOS, a, b, EOS], [BOS, c, d]]
    assert len(rows) == 3 and len(rows[2]) == 5
    assert list(take(rows, 4)) == rows[:2]  # 3 + 2 tokens: the row that reaches it is the last


def test_packing_is_the_joined_texts_cut_into_contexts():
    rows = [[BOS, *range(k, k + 5), EOS] for k in range(10)]
    joined = [token for row in rows for token in row]
    contexts = pack(rows, 16)
    assert all(len(context) == 16 for context in contexts)
    assert [token for context in contexts for token in context] == joined[: len(joined) // 16 * 16]
    assert pack(rows, 100) == []


def test_a_mixture_is_the_same_for_the_same_seed_and_says_what_is_replay():
    generated, replay = [[BOS, k] for k in range(20)], [[BOS, k, k] for k in range(20, 25)]
    one, same, other = mix(generated, replay, 1), mix(generated, replay, 1), mix(generated, replay, 2)
    assert one == same and one.rows != other.rows and sorted(one.rows) == sorted(other.rows)
    assert (one.tokens, one.replayed) == (20 + 10, 10)


SETTINGS = EvaluationSettings(batch=4, warmup_share=0.3, weight_decay=0.1)


@pytest.mark.parametrize("microbatch", [None, 1, 3])
@pytest.mark.parametrize("context", [None, 8])
def test_it_trains_as_hugging_faces_trainer_does(make_model, make_tokenizer, tmp_path, microbatch, context):
    """Parameter by parameter, whatever the microbatch: AdamW, cosine with warm-up, decay of matrices, clipping."""
    from transformers import Trainer, TrainingArguments

    tokenizer = make_tokenizer()
    rows = list(encode((Text("river " * (k % 3 + 1) + chr(97 + k)) for k in range(14)), tokenizer))
    settings = SETTINGS.model_copy(update={"microbatch": microbatch, "context": context})
    ours, theirs = make_model("gpt2"), make_model("gpt2")
    train(ours, tokenizer, mix(rows, [], 3), settings, 1e-2, seed=0)

    data = pack(mix(rows, [], 3).rows, context) if context else mix(rows, [], 3).rows
    updates = math.ceil(len(data) / 4)

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    def collate(features):
        ((ids, mask, labels),) = training.batches([each["row"] for each in features], len(features), 258)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(0.3 * updates),
        weight_decay=0.1,
        adam_beta1=0.9,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        num_train_epochs=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    InOrder(theirs, arguments, train_dataset=[{"row": row} for row in data], data_collator=collate).train()
    before = dict(make_model("gpt2").named_parameters())
    found, wanted = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert any((wanted[name] - before[name]).abs().max() > 1e-3 for name in wanted)
    for name in wanted:
        assert torch.allclose(found[name], wanted[name], atol=2e-5), name


def test_the_rate_rises_and_falls_as_a_cosine(make_model, make_tokenizer, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *a, **k: (rates.append(self.param_groups[0]["lr"]), step(self, *a, **k))[1],
    )
    rows = [[BOS, 1, 2, EOS]] * 40
    train(make_model("gpt2"), make_tokenizer(), mix(rows, [], 0), SETTINGS, 1.0, seed=0)
    up, rest = 3, 7  # of ten updates
    assert rates == pytest.approx(
        [k / up for k in range(up)] + [0.5 * (1 + math.cos(math.pi * k / rest)) for k in range(rest)]
    )


def test_loss_of_rows_is_that_of_each_alone_weighed_by_its_tokens(make_model, make_tokenizer):
    model = make_model("llama").eval()
    rows = list(encode(map(Text, ["a river", "b", "a longer text"]), make_tokenizer()))
    alone = [model(input_ids=ids, labels=ids).loss.item() for ids in (torch.tensor([row]) for row in rows)]
    counts = [len(row) - 1 for row in rows]
    assert mean_loss(model, rows, 258, size=2) == pytest.approx(np.average(alone, weights=counts), rel=1e-5)


def test_a_training_that_diverges_says_so(make_model, make_tokenizer):
    model = make_model("gpt2")
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    with pytest.raises(HarnessError, match="diverged at rate 1.*update 1"):
        train(model, make_tokenizer(), mix([[BOS, 1, EOS]], [], 0), SETTINGS, 1.0, seed=0)


def test_the_other_target_is_a_model_that_loads_and_the_same_each_time(tmp_path):
    from harness import assets

    recipe = training.Recipe(documents=24, width=32, layers=1)
    for name in ("one", "two"):
        training.make_other_target(tmp_path / name, "embedded:target", recipe)
    model = assets.load_model(str(tmp_path / "one"))
    assert model.config.n_embd == 32 and assets.load_tokenizer(str(tmp_path / "one")).pad_token_id is not None
    assert assets.fingerprint(str(tmp_path / "one")) == assets.fingerprint(str(tmp_path / "two"))


def test_a_data_set_of_the_hub_is_read_only_as_far_as_needed(monkeypatch):
    import datasets

    from harness.assets import hub

    asked, read = [], []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return ({"text": read.append(k) or f"document {k}"} for k in range(1000))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "check_reachable", lambda endpoint: None)
    assert hub.first_texts("owner/name@abc", 100) == [f"document {k}" for k in range(10)]
    assert read == list(range(10))
    assert asked == [(("owner/name", None), {"split": "train", "streaming": True, "revision": "abc"})]
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: 1 / 0)
    with pytest.raises(HarnessError, match="owner/name"):
        hub.first_texts("owner/name", 100)


# ------------------------------------------------------------------------------------------------------------- protocol


def trial(row: str = "toy", seed: int = 0, rate: float | None = 1e-3, test: float = -2.0, **more) -> TrialRecord:
    """A trial whose test says `test` and whose validation says the same, unless `more` does."""
    validation = more.pop("validation", test)
    given = {"target": "own", "status": "done", "settings_key": "k", "direction": "higher", "unit": "nats/word"} | more
    return TrialRecord(
        profile="tiny",
        task="lambada_es",
        row=row,
        seed=seed,
        rate=rate,
        identity=f"{row}{seed}{rate}",
        measure="last_word",
        validation={"last_word": validation},
        test={"last_word": test},
        articles=1.0,
        **given,
    )


def test_the_rate_is_chosen_by_validation_alone():
    trials = [trial(rate=1e-3, validation=-3, test=0.0), trial(rate=1e-2, validation=-2, test=-9.0)]
    assert chosen_rate(trials) == 1e-2
    assert chosen_rate([*trials, trial(rate=1e-4, validation=-2)]) == 1e-4  # of equal ones the lowest
    assert chosen_rate([*trials, trial(rate=1e-1, validation=-1, status="failed")]) == 1e-2
    assert chosen_rate([t.model_copy(update={"direction": "lower"}) for t in trials]) == 1e-3
    assert chosen_rate([]) is None


def test_a_row_has_the_chosen_rate_and_gains_are_paired():
    seeds = range(3)
    trials = [trial("before", rate=None, test=-10.0)]
    trials += [trial("untuned", seed, test=-9.0 - seed) for seed in seeds]
    trials += [trial("toy", seed, rate=1e-2, test=-8.0 - seed, validation=-1) for seed in seeds]
    trials += [trial("toy", 0, rate=1e-3, test=0.0, validation=-5)]
    rows = {row.name: row for row in evaluations.rows(trials)}
    toy = rows["toy"]
    assert (toy.rate, toy.tried, toy.seeds, list(toy.values)) == (1e-2, 2, (0, 1, 2), [-8.0, -9.0, -10.0])
    assert toy.gains["untuned"].mean == 1.0 and toy.gains["before"].mean == pytest.approx(1.0)
    assert toy.gains["before"].bounded and toy.left == pytest.approx(math.exp(-1))
    assert [row.name for row in evaluations.rows(trials)] == ["before", "untuned", "toy"]
    assert rows["before"].gains.keys() == {"untuned"}
    assert "rates" in evaluations.legend(list(rows.values()))


def test_what_eleuthers_harness_says_is_compared():
    plain = evaluations.rows([trial(seed=0), trial(seed=1)])
    asked = evaluations.rows([trial(seed=0, lm_eval=math.exp(2) * 1.5), trial(seed=1, lm_eval=math.exp(2))])
    assert evaluations.disagreement(plain) is None and "Eleuther" not in evaluations.legend(plain)
    assert evaluations.disagreement(asked) == pytest.approx(0.5) and "at most 0.5" in evaluations.legend(asked)


def test_tables_say_what_is_missing_and_show_texts_as_they_are(tmp_path):
    lacks = trial("a|b<i>", status="unsupported", reason="no finished cell", rate=None)
    broken = trial("broken", status="failed", reason="diverged")
    found = evaluations.rows([trial("before", rate=None), lacks, broken])
    text = evaluations.markdown(found)
    assert "unsupported: no finished cell" in text and tables.escape("a|b<i>") in text and "<i>" not in text
    assert "failed: diverged" in text
    assert evaluations.markdown([]) == "Nothing has been evaluated yet.\n"


def test_what_is_packed_reads_the_same_and_conflicts_are_said(tmp_path):
    trials = [trial(), trial("other", rate=None)]
    write_packed(tmp_path, trials)
    first = (tmp_path / PACKED).read_bytes()
    write_packed(tmp_path, load(tmp_path)[::-1])
    assert load(tmp_path) == sorted(trials, key=lambda one: one.row)
    assert (tmp_path / PACKED).read_bytes() == first
    changed = [trial(test=-1.0)]
    with pytest.raises(HarnessError, match="other content"):
        packed(trials, changed)
    assert changed[0] in packed(trials, changed, replace=True)


def test_a_damaged_trial_is_a_row_that_says_so(tmp_path):
    place = tmp_path / trial().place
    write_json(place, trial().model_dump())
    place.write_text("{")
    (record,) = load(tmp_path)
    assert (record.status, record.row, record.target, record.task) == ("damaged", "toy", "own", "lambada_es")
    assert "not valid JSON" in evaluations.markdown(evaluations.rows([record]))


def test_diff_compares_what_data_are_worth(tmp_path):
    def write(name: str, shift: float, rows=("before", "toy")) -> Path:
        for row in rows:
            for seed in range(1 if row == "before" else 3):
                one = trial(row, seed, rate=None, test=-10.0 if row == "before" else -8.0 - 0.01 * seed + shift)
                write_json(tmp_path / name / one.place, one.model_dump())
        return tmp_path / name

    base = write("base", 0.0)
    verdicts = lambda result: {row.reward: row.verdict for row in result.rows}
    assert verdicts(compare(base, write("same", 0.001))) == {"before": "same", "toy": "same"}
    worse = compare(base, write("worse", -1.0))
    assert verdicts(worse)["toy"] == "worse" and worse.exit_code == 1 and "own target" in worse.rows[0].name
    assert verdicts(compare(base, write("less", 0.0, ("before",))))["toy"] == "missing"


# ---------------------------------------------------------------------------------------------- from a cell to a table


@pytest.fixture(scope="module")
def given(quick, model_folder):
    return quick(**{"evaluation.other_target": str(model_folder("llama"))}) | SMALL


@pytest.fixture(scope="module")
def finished(tmp_path_factory, given) -> Path:
    """Results with one finished cell of `levenshtein`."""
    runs = tmp_path_factory.mktemp("evaluation") / "runs"
    harness.run("lambada_es", "levenshtein", set=given, out=runs, workers=0, progress=False)
    return runs


@pytest.fixture(scope="module")
def evaluated(finished, given):
    """That cell's data evaluated for both targets and two seeds, of which one has no cell."""
    return harness.evaluate(
        "lambada_es", "levenshtein", set=given, seeds=[0, 1], runs=finished, out=finished, workers=0, progress=False
    )


def test_both_targets_are_trained_on_every_row(evaluated, given):
    rows = {(row.target, row.name): row for row in evaluated.rows}
    names = ("before", "replay", "untuned", "levenshtein", "sft")
    assert set(rows) == {(target, name) for target in ("own", "other") for name in names}
    for (_, name), row in rows.items():
        assert row.seeds == ((0,) if name in ("before", "levenshtein") else (0, 1)), row.status
        assert row.tried == (0 if name == "before" else 2)
        assert row.trials[0].test["perplexity"] == pytest.approx(math.exp(-row.values[0]))
    status = rows["own", "levenshtein"].status
    assert "seed 1 unsupported: no finished cell of levenshtein with seed 1" in status and "run --task" in status
    tokens = {name: rows["own", name].trials[0].tokens for name in names[1:]}
    wanted = given["evaluation.tokens"] / 0.75
    assert all(wanted <= count <= wanted + 400 for count in tokens.values()), tokens
    assert rows["own", "replay"].trials[0].replayed == tokens["replay"]
    long = evaluated.long
    assert {"last_word", "perplexity", "articles", "gain over before"} <= set(long["measure"])
    assert not evaluated.failed and "5 rows" not in repr(evaluated) and "<table>" in evaluated._repr_html_()


def test_the_trained_target_is_another_one_and_test_passages_are_the_splits(evaluated, given):
    rows = {(row.target, row.name): row for row in evaluated.rows}
    before, after = rows["own", "before"].trials[0], rows["own", "sft"].trials[0]
    assert before.test != after.test and before.test != before.validation and before.articles != after.articles
    from harness.planning.cells import make_task
    from tests.helpers.cells import make_cell

    task = make_task(make_cell("lambada_es", "", given))
    from harness import assets

    model, tokenizer = assets.load_model(given["target.model"]), assets.load_tokenizer(given["target.model"])
    assert task.examine(model, tokenizer, "test") == pytest.approx(before.test)
    pairs = task.scored_pairs(tokenizer, "test")
    assert len(pairs) == 256 and all(word.startswith(" ") and word.count(" ") == 1 for _, word in pairs)


def test_trainings_that_are_stored_count_though_their_generator_is_gone(
    evaluated, finished, given, tmp_path, monkeypatch
):
    """As after `merge` of a study, which keeps records and no generators."""
    runs = tmp_path / "runs"
    shutil.copytree(finished, runs)
    (generator,) = runs.glob("tiny/lambada_es/levenshtein/seed0-*/generator")
    (data,) = runs.glob("tiny/evaluation/data/lambada_es-levenshtein-seed0-*")
    shutil.rmtree(generator)
    trained = []
    monkeypatch.setattr(table_row, "train", lambda *a, **k: trained.append(a) or 0.0)
    options = {"seeds": [0, 1], "runs": runs, "out": runs, "workers": 0, "targets": "own", "progress": False}

    def rows(**more):
        found = harness.evaluate("lambada_es", "levenshtein", set=given | more, **options)
        return {row.name: row for row in found.rows}

    before = {row.name: row for row in evaluated.rows if row.target == "own"}
    for left in ("all", "a part", "nothing"):  # of the data set that it wrote
        found = rows()
        assert trained == [] and found["levenshtein"].seeds == (0,)
        assert found["levenshtein"].values.tolist() == before["levenshtein"].values.tolist()
        assert "seed 1 unsupported: no finished cell" in found["levenshtein"].status
        if left == "all":
            manifest = json.loads((data / "dataset.json").read_text())
            write_json(data / "dataset.json", {name: manifest[name] for name in ("version", "asked")})
        else:
            shutil.rmtree(data, ignore_errors=True)
    lacking = rows(**{"evaluation.articles": 7})["levenshtein"]
    assert lacking.seeds == () and "the generator of lambada_es/levenshtein seed 0 is no longer there" in lacking.status


def test_what_is_stored_is_not_trained_again(evaluated, finished, given, monkeypatch):
    trained = []
    monkeypatch.setattr(table_row, "train", lambda *a, **k: trained.append(a) or 0.0)
    again = lambda **more: harness.evaluate(
        "lambada_es",
        "levenshtein",
        set=given | more,
        seeds=[0, 1],
        runs=finished,
        out=finished,
        workers=0,
        targets="own",
        progress=False,
    )
    found = again()
    assert trained == [] and {row.name for row in found.rows} == {row.name for row in evaluated.rows}
    again(**{"evaluation.rates": [1e-3, 1e-2, 1e-4]})
    assert len(trained) >= 4 and {call[4] for call in trained} == {1e-4}  # each row tries the new one, and it alone
    trained.clear()
    again(**{"evaluation.batch": 4})
    assert len(trained) > 8  # every training, since it is another one


def test_identities_count_what_changes_numbers(finished, given):
    def key(**more):
        assignments = given | more
        (plan,) = plans(load_profile("tiny"), ["lambada_es"], [], [0], ["own"], assignments, finished, finished)
        data = {("untuned", 0): jobs.Data("folder", {"dataset": more.get("model", "a")})}
        job = next(job for job in plan.rows(data) if job.row == "untuned")
        return table_row.Row(job, lambda text: None).blank(0, rate=1e-3, status="done")

    base = key()
    for change in ({"evaluation.tokens": 400}, {"evaluation.batch": 3}, {"evaluation.weight_decay": 0.5}):
        assert key(**change).identity != base.identity and key(**change).settings_key != base.settings_key
    for neutral in ({"evaluation.rates": [0.5]}, {"evaluation.microbatch": 2}, {"evaluation.multiples": [3]}):
        assert key(**neutral).identity == base.identity


def test_a_cell_does_not_depend_on_how_its_data_are_evaluated(given):
    from tests.helpers.cells import make_cell

    plain = {name: value for name, value in given.items() if not name.startswith("evaluation.")}
    identities = {make_cell("lambada_es", "naive", one).record().identity for one in (given, plain)}
    assert len(identities) == 1


def test_a_data_set_loads_with_datasets(evaluated, finished):
    from datasets import load_dataset

    folders = sorted((finished / "tiny" / "evaluation" / "data").glob("lambada_es-levenshtein-seed0-*"))
    assert len(folders) == 1
    loaded = load_dataset(str(folders[0]), cache_dir=str(finished.parent / "cache"))
    assert len(loaded["train"]) > 10 and "text" in loaded["train"].column_names


def test_killed_and_run_again_it_ends_the_same(evaluated, finished, given, tmp_path):
    """SIGKILL in the middle of the rows; what is stored stays, and the end is that of a run without it."""
    arguments = ["evaluate", "--task", "lambada_es", "--reward", "levenshtein", "--seeds", "0,1"]
    arguments += ["--runs", str(finished), "--out", "out", "--workers", "0", *flags(given)]
    process = start_harness(*arguments, cwd=tmp_path)
    place = tmp_path / "out" / "tiny" / "evaluation" / "lambada_es"
    while process.poll() is None and len(list(place.glob("*.json"))) < 4:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in place.glob("*.json")}
    assert len(kept) >= 4
    done = run_harness(*arguments, cwd=tmp_path, width=160)
    assert done.code == 0, done.err
    assert "last word" in done.out and "unsupported: no finished cell" in done.out
    assert all((place / name).stat().st_mtime_ns == changed for name, changed in kept.items())
    strip = lambda trial: trial.model_dump(exclude={"seconds", "provenance", "given", "settings"})
    ours = [t for t in load(finished / "tiny") if t.settings_key in {u.settings_key for u in evaluated.trials}]
    names = {path.name for path in place.glob("*.json")}
    assert [strip(t) for t in load(tmp_path / "out")] == [strip(t) for t in ours if t.place.name in names]
    table = run_harness("table", "out", "--markdown", cwd=tmp_path)
    assert "left of before" in table.out and "No cells" not in table.out
    assert run_harness("pack", "out", "study", cwd=tmp_path).code == 0
    assert [path.name for path in (tmp_path / "study").iterdir()] == [PACKED]
    assert run_harness("diff", "out", "study", cwd=tmp_path).code in (0, 2)  # 2: the unsupported seed alone


class Moving(Executor):
    """A job after the other, as a Ray's node does it that does not see the results folder."""

    def __init__(self, post):
        self.post = post

    def start(self, number, job, *, wait):
        sent = luggage_of(number, 0, job)
        assert self.post.begin.remote(sent)
        self.next = number, job, SimpleNamespace(luggage=sent)

    def attend(self, tell):
        number, job, order = self.next
        with _moved(job, order, self.post, lambda event: tell(number, event)) as (moved, mirrored):
            assert str(job.stores()[0]) not in repr(moved), "all that it reads and writes has moved"
            work(moved, mirrored, wait=True)
        self.post.end.remote(number)


def test_jobs_that_move_find_what_they_read(finished, given, tmp_path, monkeypatch):
    """Data sets of a kept generator, a target that is made, and rows that store into one folder."""
    few = given | {"evaluation.rates": [1e-3]}
    recipe = training.Recipe(documents=24, width=32, layers=1)
    like = lambda place, tokenizer_from, recipe: training.make_other_target(place, "embedded:target", recipe)
    monkeypatch.setattr(jobs, "make_other_target", like)  # a random model's tokenizer has no context

    def found(out, executor):
        (plan,) = plans(load_profile("tiny"), ["lambada_es"], ["levenshtein"], [0], ["own"], few, finished, out)
        target = jobs.Target("other", str(out / "tiny" / "evaluation" / "targets" / "made"), recipe)
        plan = replace(plan, targets=(target,))
        trials = run_all([plan], ignore, executor)
        assert not list(out.rglob(".*")), "no lock and nothing half sent is left"
        return [(each.row, each.status, each.reason, each.identity, each.test) for each in trials], load(out / "tiny")

    (here, stored), (there, sent) = (
        found(tmp_path / "a", InProcess()),
        found(tmp_path / "b", Moving(post_here(monkeypatch))),
    )
    assert [status for _, status, *_ in here] == ["done"] * 5
    assert here == there and [each.identity for each in stored] == [each.identity for each in sent]
    again, _ = found(tmp_path / "b", Moving(post_here(monkeypatch)))
    assert again == there


def test_the_page_has_a_section_and_a_table_as_csv(evaluated, finished, tmp_path):
    page = harness.report(finished, tmp_path / "site")
    assert (
        "What the data is worth" in page.read_text()
        and "What the data is worth" in (tmp_path / "site" / "report.md").read_text()
    )
    assert "gain over untuned" in (tmp_path / "site" / "data" / "evaluation.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tokens", "many"], "--tokens takes a number"),
        (["--targets", "mine"], "--targets takes own or other"),
        (["--set", "evaluation.rate=1"], "evaluation.rates"),
        (["--set", "evaluation.replay_share=1"], "evaluation.replay_share"),
        (["--set", "target.model=./nowhere", "--targets", "own"], "nowhere"),
    ],
)
def test_what_is_wrong_is_a_sentence(tmp_path, arguments, says):
    found = run_harness("evaluate", "--task", "lambada_es", "--reward", "naive", *arguments, cwd=tmp_path)
    assert found.code == 2 and says in found.err and found.err.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------- other tasks


def test_a_task_without_passages_is_trained_on_more_texts(quick, tmp_path):
    given = quick() | {"evaluation.multiples": [1, 3]}
    harness.run("norm", "naive", set=given, out=tmp_path, workers=0, progress=False)
    found = harness.evaluate(
        "norm", "naive", set=given, runs=tmp_path, out=tmp_path, targets="own", workers=0, progress=False
    )
    rows = {(row.name, row.multiple): row for row in found.rows}
    assert set(rows) == {(name, m) for name in ("untuned", "naive") for m in (1, 3)}
    assert {m: rows["naive", m].trials[0].texts for m in (1, 3)} == {1: 4, 3: 12}
    assert rows["naive", 3].trials[0].updates == 3 and rows["naive", 3].status == "done"
    assert rows["naive", 3].gains["untuned"].n == 1 and rows["naive", 1].measure in rows["naive", 1].trials[0].test
    assert "times a step's texts" in evaluations.markdown(found.rows)


def test_a_task_that_examines_targets_is_asked_about_the_trained_one(quick, tmp_path):
    found = harness.evaluate(
        "uuid",
        "naive",
        set=quick() | {"evaluation.multiples": [2]},
        runs=tmp_path,
        out=tmp_path,
        targets="own",
        workers=0,
        progress=False,
    )
    rows = {row.name: row for row in found.rows}
    assert rows["naive"].status.startswith("unsupported") and rows["untuned"].status == "done"
    values = rows["untuned"].trials[0].test
    assert {"says_uuid", "says_characters", "uuid_exact"} <= set(values)
    assert values["phi"] == pytest.approx(values["phi_after"], rel=1e-4)  # of the trained target, not of the old one


# ------------------------------------------------------------------------------------------------ EleutherAI's harness


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.evaluation.eleuther.find_spec", lambda name: None)
    found = run_harness("evaluate", "--task", "lambada_es", "--lm-eval", cwd=tmp_path)
    assert found.code == 2 and "pip install 'dpg-harness[lm-eval]'" in found.err


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm_eval is not installed (extra `lm-eval`)")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_eleuthers_harness_gives_our_perplexity(make_model, make_tokenizer, family):
    from harness import assets
    from harness.evaluation.eleuther import ask, perplexity

    passages = lambda split: assets.texts("embedded:passages", split=split, language="es", limit=24)
    task = TASKS.get("lambada_es").factory(TaskContext(references=passages, asset=assets.resolve))
    model, tokenizer = make_model(family).eval(), make_tokenizer()
    ours = task.examine(model, tokenizer, "test")["perplexity"]
    found = ask(model, tokenizer, task.scored_pairs(tokenizer, "test"), "passages")
    assert perplexity(found) == pytest.approx(ours, rel=1e-4)
    assert "acc,none" in found["results"]["passages"]
