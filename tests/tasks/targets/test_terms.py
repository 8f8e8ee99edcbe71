"""Every kind of term against a slow, obvious oracle, and its gradient against finite differences in float64."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.func import functional_call

from harness.contracts import HarnessError, TaskContext
from harness.registry import DEFINITION, Made
from harness.settings.schema import InnerSettings, OptimizerSettings
from harness.training.inner import InnerTrainer
from tasks import _pattern
from tasks._likelihood import start_token, summed
from tasks.targets import entry
from tests.helpers.models import build_model, build_tokenizer

TEXTS = ["the river is old", "a", "the mill by the river turns", "nobody knows", "an owl sat there", "so it goes on"]
OTHERS = ["der Fluss ist alt", "ein Tag", "die Uhr geht", "niemand", "eine Eule", "so geht es"]
PAIRS = [
    {"prompt": f"Say {word}: ", "chosen": f"{word} indeed", "rejected": f"no {other}, never"}
    for word, other in zip(
        ["river", "mill", "owl", "day", "clock", "fish"], ["a", "bb", "c", "d", "e", "ff"], strict=True
    )
]
ALL = {"whole": True}


@cache
def target(family: str = "gpt2"):
    return build_model(family).double().eval()


@pytest.fixture
def inner():
    """`inner(family, **settings)` -> the learning algorithm on a float64 model."""

    def make(family: str = "gpt2", **settings) -> InnerTrainer:
        given = {"optimizer": OptimizerSettings(lr=1e-3), "max_tokens": 24} | settings
        return InnerTrainer(target(family), build_tokenizer(), InnerSettings(**given))

    return make


def task(terms, folder="", **more):
    definition = {"terms": terms} | more
    made = Made("made", definition, str(folder))
    return entry(made).factory(TaskContext(options={DEFINITION: definition}))


def moved(model, size: float = 0.02):
    """The parameters a little beside where they are, by one fixed draw."""
    generator = torch.Generator().manual_seed(1)
    noise = lambda value: size * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return {name: value.detach() + noise(value) for name, value in model.named_parameters()}


def log_likelihood(model, params, tokenizer, context: str, text: str) -> list[float]:
    """Of each token of the text, one at a time from the logits."""
    start = [start_token(tokenizer, model)]
    before = start + tokenizer(context, add_special_tokens=False)["input_ids"] if context else start
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = functional_call(model, params, (), {"input_ids": torch.tensor([before + ids])}).logits[0]
    found = []
    for k, token in enumerate(ids):
        row = logits[len(before) + k - 1].tolist()
        top = max(row)
        found.append(row[token] - top - math.log(math.fsum(math.exp(value - top) for value in row)))
    return found


def mean(values) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def check_gradient(phi, params, names, step: float = 1e-5) -> None:
    """Central differences along one random direction in each of some parameters."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    value = phi(leaves)
    grads = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values()), allow_unused=True), strict=True))
    generator = torch.Generator().manual_seed(2)
    seen = 0
    for name in names:
        direction = torch.randn(params[name].shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            up, down = (float(phi(params | {name: params[name] + sign * step * direction})) for sign in (1, -1))
        expected = (up - down) / (2 * step)
        own = 0.0 if grads[name] is None else float((grads[name] * direction).sum())
        assert own == pytest.approx(expected, rel=1e-5, abs=1e-9), name
        seen += abs(expected) > 1e-7
    assert seen, "none of the parameters matters to the metric, so nothing was checked"


SOME = [
    "transformer.wte.weight",
    "transformer.h.0.attn.c_attn.weight",
    "transformer.h.1.ln_1.weight",
    "transformer.ln_f.bias",
]


# -------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("microbatch", [1, 3, 32])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_texts_are_the_mean_over_texts_of_the_mean_over_tokens(inner, family, microbatch):
    one = inner(family)
    made = task([{"texts": {"rows": TEXTS, **ALL}}], microbatch=microbatch)
    params = moved(one.model)
    expected = mean(mean(log_likelihood(one.model, params, one.tokenizer, "", text)) for text in TEXTS)
    assert float(made.metric(one)(params)) == pytest.approx(expected, rel=1e-12)


def test_only_what_follows_a_prompt_is_scored(inner):
    one, rows = inner(), [{"asked": "Say: ", "text": text} for text in TEXTS]
    made = task([{"texts": {"rows": rows, "prompt": "asked", **ALL}}])
    params = moved(one.model)
    expected = mean(mean(log_likelihood(one.model, params, one.tokenizer, "Say: ", text)) for text in TEXTS)
    assert float(made.metric(one)(params)) == pytest.approx(expected, rel=1e-12)


def test_the_last_word_alone_is_scored(inner):
    one = inner()
    made = task([{"texts": {"rows": TEXTS, "scored": "last_word", **ALL}}])
    params, parts = moved(one.model), [text.rpartition(" ") for text in TEXTS]
    expected = mean(mean(log_likelihood(one.model, params, one.tokenizer, a, " " + c)) for a, _, c in parts)
    assert float(made.metric(one)(params)) == pytest.approx(expected, rel=1e-12)


def test_texts_are_cut_where_the_file_or_the_target_says(inner):
    one = inner()
    long = "a river " * 100  # 800 bytes and tokens; the target reads 512
    params = moved(one.model)
    short = task([{"texts": {"rows": [long], "max_tokens": 5, **ALL}}]).metric(one)(params)
    assert float(short) == pytest.approx(
        mean(log_likelihood(one.model, params, one.tokenizer, "", long[:5])), rel=1e-12
    )
    whole = task([{"texts": {"rows": [long], **ALL}}]).metric(one)(params)
    expected = mean(log_likelihood(one.model, params, one.tokenizer, "", long[:511]))
    assert float(whole) == pytest.approx(
        expected, abs=5e-3
    )  # the oracle reads no further, so the last token is missing


def test_a_negative_weight_unlearns(inner):
    one = inner()
    params = moved(one.model)
    learn, unlearn = (task([{"texts": {"rows": TEXTS, **ALL}, "weight": w}]).metric(one)(params) for w in (1, -0.5))
    assert float(unlearn) == pytest.approx(-0.5 * float(learn), rel=1e-12)


# --------------------------------------------------------------------------------------------------------------- keep


def test_keep_is_zero_before_and_the_loss_that_was_added_after(inner):
    one = inner()
    phi = task([{"keep": {"rows": TEXTS, **ALL}}]).metric(one)
    before = {name: value.detach() for name, value in one.model.named_parameters()}
    params = moved(one.model)
    assert float(phi(before)) == pytest.approx(0, abs=1e-12)
    after = mean(mean(log_likelihood(one.model, params, one.tokenizer, "", text)) for text in TEXTS)
    then = mean(mean(log_likelihood(one.model, before, one.tokenizer, "", text)) for text in TEXTS)
    assert float(phi(params)) == pytest.approx(after - then, rel=1e-9)


@pytest.mark.parametrize("microbatch", [1, 32])
def test_the_divergence_is_summed_over_the_vocabulary_position_by_position(inner, microbatch):
    one = inner()
    phi = task([{"keep": {"rows": TEXTS, "measure": "kl", **ALL}}], microbatch=microbatch).metric(one)
    before = {name: value.detach() for name, value in one.model.named_parameters()}
    params = moved(one.model)
    assert float(phi(before)) == pytest.approx(0, abs=1e-12)
    found = []
    for text in TEXTS:
        ids = [one.tokenizer.bos_token_id, *one.tokenizer(text, add_special_tokens=False)["input_ids"]][:-1]
        with torch.no_grad():
            now, then = (
                functional_call(one.model, each, (), {"input_ids": torch.tensor([ids])}).logits[0].log_softmax(-1)
                for each in (params, before)
            )
        rows = [
            math.fsum(math.exp(q) * (q - p) for p, q in zip(a, b, strict=True))
            for a, b in zip(now.tolist(), then.tolist(), strict=True)
        ]
        found.append(mean(rows))
    assert float(phi(params)) == pytest.approx(-mean(found), rel=1e-9) and float(phi(params)) < 0


# --------------------------------------------------------------------------------------------------------- preference


def margins(one, params, length: str) -> list[float]:
    of = lambda row, name: log_likelihood(one.model, params, one.tokenizer, row["prompt"], row[name])
    taken = math.fsum if length == "sum" else mean
    return [taken(of(row, "chosen")) - taken(of(row, "rejected")) for row in PAIRS]


@pytest.mark.parametrize("length", ["sum", "mean"])
@pytest.mark.parametrize("microbatch", [1, 4, 32])
def test_a_preference_is_the_mean_margin(inner, length, microbatch):
    one = inner()
    phi = task([{"preference": {"rows": PAIRS, "length": length, **ALL}}], microbatch=microbatch).metric(one)
    params = moved(one.model)
    assert float(phi(params)) == pytest.approx(mean(margins(one, params, length)), rel=1e-10)


def test_a_preference_over_a_reference_model(inner, model_folder):
    one = inner()
    params, start = moved(one.model), {name: value.detach() for name, value in one.model.named_parameters()}
    said = {"preference": {"rows": PAIRS, "reference": "untrained", "form": "log_sigmoid", "beta": 0.3, **ALL}}
    phi = task([said], microbatch=3).metric(one)
    pairs = zip(margins(one, params, "sum"), margins(one, start, "sum"), strict=True)
    expected = mean(-math.log1p(math.exp(-0.3 * (now - then))) for now, then in pairs)
    assert float(phi(params)) == pytest.approx(expected, rel=1e-10)
    assert float(phi(start)) == pytest.approx(-math.log(2), rel=1e-12)
    folder = model_folder("gpt2")  # the same weights, in float32
    said["preference"]["reference"] = folder.name
    other = task([said], folder.parent).metric(one)
    assert float(other(params)) == pytest.approx(expected, rel=1e-4)


def test_rows_without_a_prompt_have_it_in_both_completions(inner):
    one = inner()
    rows = [{name: row["prompt"] + row[name] for name in ("chosen", "rejected")} for row in PAIRS]
    implicit = task([{"preference": {"rows": rows, **ALL}}])
    # What is common may be longer than the prompt was: what is scored is the same for both up to there.
    common = sum(len(a["prompt"]) for a in PAIRS)
    assert sum(len(implicit._terms[0]._apart(row)[0]) for row in rows) >= common - len(PAIRS)
    params = moved(one.model)
    phi = implicit.metric(one)
    assert float(phi(params)) == pytest.approx(mean(margins(one, params, "sum")), rel=1e-9)


def test_lists_of_messages_go_through_the_chat_template(inner):
    asks = "{% if add_generation_prompt %}<assistant>{% endif %}"
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}" + asks
    one = inner()
    chat = InnerTrainer(one.model, build_tokenizer(template), one.settings)
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")},
        }
        for row in PAIRS
    ]
    made = task([{"preference": {"rows": rows, **ALL}}])
    params = moved(one.model)
    of = lambda row, name: math.fsum(
        log_likelihood(one.model, params, one.tokenizer, f"<user>{row['prompt']}<assistant>", row[name])
    )
    expected = mean(of(row, "chosen") - of(row, "rejected") for row in PAIRS)
    assert float(made.metric(chat)(params)) == pytest.approx(expected, rel=1e-10)
    assert made.references() == [row["chosen"] for row in PAIRS]
    with pytest.raises(HarnessError, match="no chat template"):
        made.metric(one)


# ------------------------------------------------------------------------------------------------------------ weights


MATRIX = "transformer.h.0.attn.c_attn.weight"
GRID = "++-\n-+-"


def test_a_picture_is_drawn_by_the_signs_of_the_change(inner, tmp_path):
    one = inner()
    said = {"matrix": MATRIX, "rows": [2, 10], "columns": [5, 9], "grid": GRID, "sharpness": 7.0}
    made = task([{"weights": said, "name": "patch"}])
    params = moved(one.model)
    before = dict(one.model.named_parameters())[MATRIX]
    change = (params[MATRIX] - before)[2:4, 5:8].tolist()
    signs = [[1, 1, -1], [-1, 1, -1]]
    pairs = [pair for a, b in zip(signs, change, strict=True) for pair in zip(a, b, strict=True)]
    expected = mean(-math.log1p(math.exp(-7.0 * y * d)) for y, d in pairs)
    phi = made.metric(one)
    assert float(phi(params)) == pytest.approx(expected, rel=1e-12) and phi.reads == (MATRIX,)
    values, arrays = made._terms[0].bind(one, "train").looked(params)
    right = mean(float(np.sign(d) == y) for y, d in pairs)
    assert values == {"patch_pixels": right} and arrays["patch/target"].tolist() == signs
    assert set(made.draw(arrays)) == {"patch_target", "patch_decoded", "patch_delta"}
    picture = np.array(signs, dtype=np.int8)
    (tmp_path / "p.png").write_bytes(_pattern.png(_pattern.grey_image(picture, pixels=1)))
    drawn = task(
        [{"weights": {key: value for key, value in said.items() if key != "grid"} | {"image": "p.png"}}], tmp_path
    )
    assert float(drawn.metric(one)(params)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("aim", "sign"), [("up", 1), ("down", -1)])
def test_a_norm_is_the_frobenius_norm_of_the_slice(inner, aim, sign):
    one = inner()
    params = moved(one.model)
    made = task([{"weights": {"matrix": "head", "columns": [1, 4], "norm": aim}}])
    entries = params["transformer.wte.weight"][:, 1:4].flatten().tolist()
    expected = sign * math.sqrt(math.fsum(entry * entry for entry in entries))
    assert float(made.metric(one)(params)) == pytest.approx(expected, rel=1e-12)


def test_the_distance_to_a_checkpoint_with_or_without_the_architectures_prefix(inner, model_folder, tmp_path):
    one = inner()
    params = moved(one.model)
    other = build_model("gpt2", seed=5)
    save_file(
        {MATRIX.removeprefix("transformer."): dict(other.named_parameters())[MATRIX].detach().clone()},
        tmp_path / "o.safetensors",
    )
    made = task([{"weights": {"matrix": MATRIX, "rows": [0, 3], "distance": "o.safetensors"}}], tmp_path)
    there = dict(other.named_parameters())[MATRIX].double()
    entries = (params[MATRIX] - there)[:3].flatten().tolist()
    expected = -math.sqrt(math.fsum(entry * entry for entry in entries))
    assert float(made.metric(one)(params)) == pytest.approx(expected, rel=1e-6)
    folder = model_folder("gpt2")  # it is the target itself, in float32
    same = task([{"weights": {"matrix": MATRIX, "distance": folder.name}}], folder.parent)
    assert float(same.metric(one)(dict(one.model.named_parameters()))) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({MATRIX: torch.full((16, 48), float("nan"))}, "not finite"),
        ({MATRIX: torch.ones(4, 4)}, "the target's is"),
        ({MATRIX.replace("c_attn", "c_atn"): torch.ones(16, 48)}, "did you mean"),
        (None, "no safetensors checkpoint"),
    ],
    ids=["nan", "shape", "name", "no checkpoint"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(inner, tmp_path, content, words):
    (tmp_path / "o.safetensors").write_bytes(b"nonsense")
    if content is not None:
        save_file(content, tmp_path / "o.safetensors")
    made = task([{"weights": {"matrix": MATRIX, "distance": "o.safetensors"}}], tmp_path)
    with pytest.raises(HarnessError, match=words):
        made.metric(inner())


# -------------------------------------------------------------------------------------------------------- activations


def states(one, params, layer: str, text: str) -> torch.Tensor:
    """(tokens of the text, width), from the model's own list of hidden states."""
    ids = [one.tokenizer.bos_token_id, *one.tokenizer(text, add_special_tokens=False)["input_ids"]]
    seen = []
    handle = one.model.get_submodule(layer).register_forward_hook(
        lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        functional_call(one.model, params, (), {"input_ids": torch.tensor([ids])})
    handle.remove()
    return seen[0][0, 1:]


@pytest.mark.parametrize(("family", "layer"), [("gpt2", "transformer.h.0"), ("llama", "model.layers.1")])
@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("microbatch", [1, 32])
def test_hidden_states_are_projected_on_the_direction(inner, tmp_path, family, layer, positions, microbatch):
    one = inner(family)
    direction = torch.arange(16.0) - 3
    save_file({"steer": direction}, tmp_path / "d.safetensors")
    said = {"layer": layer, "direction": "d.safetensors:steer", "rows": TEXTS, "positions": positions, **ALL}
    phi = task([{"activations": said}], tmp_path, microbatch=microbatch).metric(one)
    params = moved(one.model)
    unit = (direction / direction.norm()).double()
    kept = lambda found: found if positions == "all" else found[-1:]
    expected = mean(mean((kept(states(one, params, layer, text)) @ unit).tolist()) for text in TEXTS)
    assert float(phi(params)) == pytest.approx(expected, rel=1e-6)


def test_a_direction_may_be_the_difference_between_two_sets_of_texts(inner):
    one, layer = inner(), "transformer.h.1"
    sides = {"toward": {"rows": OTHERS, **ALL}, "away": {"rows": TEXTS, **ALL}}
    phi = task([{"activations": {"layer": layer, "difference": sides, "rows": TEXTS, **ALL}}], microbatch=4).metric(one)
    before, params = {n: v.detach() for n, v in one.model.named_parameters()}, moved(one.model)
    centre = lambda texts: torch.stack([states(one, before, layer, text).mean(0) for text in texts]).mean(0)
    direction = centre(OTHERS) - centre(TEXTS)
    expected = mean(float((states(one, params, layer, text) @ (direction / direction.norm())).mean()) for text in TEXTS)
    assert float(phi(params)) == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    "term",
    [
        {"texts": {"rows": TEXTS, **ALL}},
        {"texts": {"rows": TEXTS, "scored": "last_word", **ALL}, "weight": -2.0},
        {"keep": {"rows": TEXTS, **ALL}},
        {"keep": {"rows": TEXTS, "measure": "kl", **ALL}},
        {"preference": {"rows": PAIRS, **ALL}},
        {"preference": {"rows": PAIRS, "reference": "untrained", "form": "log_sigmoid", "length": "mean", **ALL}},
        {"weights": {"matrix": MATRIX, "grid": GRID}},
        {"weights": {"matrix": MATRIX, "norm": "down"}},
        {
            "activations": {
                "layer": "transformer.h.1",
                "difference": {"toward": {"rows": OTHERS, **ALL}, "away": {"rows": TEXTS, **ALL}},
                "rows": TEXTS,
                **ALL,
            }
        },
    ],
    ids=lambda term: next(iter(term)),
)
@pytest.mark.parametrize("microbatch", [2, 32])
def test_the_gradient_is_that_of_finite_differences(inner, term, microbatch):
    one = inner()
    check_gradient(task([term], microbatch=microbatch).metric(one), moved(one.model), SOME)


def test_terms_add_up_with_their_weights_and_a_zero_is_not_computed(inner):
    one = inner()
    terms = [
        {"texts": {"rows": TEXTS, **ALL}, "weight": 2.0},
        {"keep": {"rows": OTHERS, **ALL}, "weight": 0.5},
        {"weights": {"matrix": MATRIX, "norm": "up"}, "weight": -1.0},
    ]
    params = moved(one.model)
    apart = [float(task([term | {"weight": 1.0}]).metric(one)(params)) for term in terms]
    phi = task(terms, microbatch=2).metric(one)
    assert float(phi(params)) == pytest.approx(2 * apart[0] + 0.5 * apart[1] - apart[2], rel=1e-12)
    check_gradient(phi, params, SOME)
    only = task([terms[2], terms[0] | {"weight": 0.0}]).metric(one)
    assert only.reads == (MATRIX,), "a term that weighs nothing must not be computed in training"
    with pytest.raises(HarnessError, match="asks for nothing"):
        task([terms[0] | {"weight": 0.0}]).metric(one)


# -------------------------------------------------------------------------------------------------------- microbatches


@pytest.mark.parametrize(
    "term",
    [
        {"texts": {"rows": TEXTS, **ALL}},
        {"keep": {"rows": TEXTS, "measure": "kl", **ALL}},
        {"preference": {"rows": PAIRS, "form": "log_sigmoid", **ALL}},
        {"activations": {"layer": "transformer.h.0", "direction": "d.safetensors", "rows": TEXTS, **ALL}},
    ],
    ids=lambda term: next(iter(term)),
)
def test_microbatches_change_neither_value_nor_gradient(inner, tmp_path, term):
    save_file({"d": torch.arange(16.0) - 3}, tmp_path / "d.safetensors")
    params, found = moved(target()), []
    for settings in ({"memory_budget": None}, {"memory_budget": 1}):
        phi = task([term], tmp_path).metric(inner(**settings))
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        value = phi(leaves)
        grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        found.append((float(value), [grad for grad in grads if grad is not None]))
    (whole, expected), (pieces, grads) = found
    assert pieces == pytest.approx(whole, rel=1e-13) and len(grads) == len(expected)
    for one, other in zip(expected, grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_the_memory_budget_says_how_many_texts_a_pass_takes(inner):
    sizes = []
    for budget in (None, 10**12, 400_000, 1):
        bound = task([{"texts": {"rows": TEXTS, **ALL}}])._terms[0].bind(inner(memory_budget=budget), "train")
        sizes.append(max(len(batch.input_ids) for batch in bound.likelihood.batches))
    assert sizes[:2] == [6, 6] and sizes[3] == 1 and 1 <= sizes[2] < 6


def test_parts_that_nothing_trains_leave_no_gradient():
    leaf = torch.ones(3, dtype=torch.float64, requires_grad=True)
    value = summed(lambda params: (params["w"].detach().sum() for _ in range(2)), {"w": leaf})
    assert float(value) == 6.0
    assert torch.autograd.grad(value, leaf, allow_unused=True) == (None,)


# ------------------------------------------------------------------------------------------------------------- lm_eval

QUESTIONS = [{"q": f"Which is {k}?", "choices": ["a river", "an owl", "a mill"], "answer": k % 3} for k in range(6)]
CHOICE = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{q}} It is"
doc_to_choice: choices
doc_to_target: answer
"""


@pytest.fixture
def lm_task(tmp_path):
    """`lm_task(yaml)` -> the folder of a task of lm-eval and its questions."""

    def write(text: str = CHOICE):
        (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
        (tmp_path / "mine.yaml").write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CHOICE + "process_docs: !function utils.x\n", "not valid YAML"),
        (CHOICE + "include: other.yaml\n", "code or another file"),
        (CHOICE.replace("questions.jsonl", "/nowhere/q.jsonl"), "There is no file"),
        ("a: 1", "no dataset_path"),
    ],
)
def test_a_task_of_lm_eval_runs_no_code_and_reads_only_its_files(lm_task, text, words):
    with pytest.raises(HarnessError, match=words):
        task([{"lm_eval": {"task": "mine.yaml"}}], lm_task(text))


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="EleutherAI's harness is installed")
def test_without_the_package_the_extra_is_named(lm_task):
    with pytest.raises(HarnessError, match=r"dpg-harness\[lm-eval\]"):
        task([{"lm_eval": {"task": "mine.yaml"}}], lm_task())


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs EleutherAI's harness (extra lm-eval)")
def test_multiple_choice_is_the_margin_over_the_other_choices(inner, lm_task):
    one = inner()
    made = task([{"lm_eval": {"task": "mine.yaml"}}], lm_task())
    params = moved(one.model)
    rows = made._terms[0].rows.rows
    assert sum(map(len, rows.values())) == len(QUESTIONS)

    def margin(row) -> float:
        said = [math.fsum(log_likelihood(one.model, params, one.tokenizer, *pair)) for pair in row["asked"]]
        return said[row["gold"]] - mean(value for k, value in enumerate(said) if k != row["gold"])

    asked = {tuple(map(tuple, row["asked"])) for split in rows.values() for row in split}
    assert (
        ("Which is 4? It is", " a river"),
        ("Which is 4? It is", " an owl"),
        ("Which is 4? It is", " a mill"),
    ) in asked
    phi = made.metric(one)
    assert float(phi(params)) == pytest.approx(mean(map(margin, rows["train"])), rel=1e-10)
    check_gradient(phi, params, SOME)


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs EleutherAI's harness (extra lm-eval)")
def test_a_gold_answer_alone_is_scored_after_its_context(inner, lm_task):
    one = inner()
    text = CHOICE.replace("multiple_choice", "generate_until").replace("doc_to_choice: choices\n", "")
    made = task([{"lm_eval": {"task": "mine.yaml"}}], lm_task(text.replace("answer", "'{{choices[answer]}}'")))
    params, rows = moved(one.model), made._terms[0].rows.rows["train"]
    expected = mean(math.fsum(log_likelihood(one.model, params, one.tokenizer, *row["asked"][0])) for row in rows)
    assert float(made.metric(one)(params)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs EleutherAI's harness (extra lm-eval)")
def test_templates_are_filled_in_in_a_sandbox(lm_task):
    hostile = CHOICE.replace("{{q}} It is", "{{ q.__class__.__mro__ }}")
    with pytest.raises(HarnessError, match="cannot be used"):
        task([{"lm_eval": {"task": "mine.yaml"}}], lm_task(hostile))
