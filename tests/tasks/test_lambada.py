"""The LAMBADA tasks: Phi against the model's own loss passage by passage, and what an evaluation says."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from harness.contracts import HarnessError, Task, TaskContext
from harness.registry import TASKS
from tasks import lambada
from tasks._last_word import LastWordLikelihood, split_last_word

PASSAGES = {
    "train": ["la noche era fría y miró el jardín", "sí no", "el perro vio al gato y corrió tras el gato", "uno dos"],
    "validation": ["ella abrió la puerta", "¿Quién vino? dijo Pedro", "y entonces llegó la mañana"],
}


class FakeIdentifier:
    def language(self, text):
        return "__label__es" if "ñ" in text else "__label__en"


@pytest.fixture(autouse=True)
def no_identifier_needed(monkeypatch):
    monkeypatch.setattr(lambada, "load_identifier", lambda path: FakeIdentifier())


class Stretch:
    """An inner training that multiplies every parameter by 1.2 and adds 0.01, whatever the texts."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer, self.trained_on = model, tokenizer, []

    def train(self, texts):
        self.trained_on.append(list(texts))
        return {name: parameter.detach() * 1.2 + 0.01 for name, parameter in self.model.named_parameters()}


def make_task(name="lambada_es", passages=PASSAGES, **options):
    context = TaskContext(options, references=lambda split: list(passages[split]), asset=Path)
    return TASKS.get(name).factory(context)


@pytest.fixture
def inner(make_model, make_tokenizer):
    return Stretch(make_model("gpt2").double().eval(), make_tokenizer())


def encode(tokenizer, passage, limit=None):
    """(token ids of <bos> + context + last word, the last word's number of tokens), the context cut to `limit` ids."""
    words = passage.split(" ")
    context = tokenizer(" ".join(words[:-1])).input_ids
    word = tokenizer(" " + words[-1]).input_ids
    if limit is not None:
        context = context[len(context) + len(word) - limit :]
    return [tokenizer.bos_token_id, *context, *word], len(word)


def slow_sum(model, tokenizer, passage, limit=None):
    """(summed log-likelihood of the last word, its number of tokens): one passage, one token at a time."""
    ids, count = encode(tokenizer, passage, limit)
    log_probabilities = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    return sum(log_probabilities[i - 1, ids[i]] for i in range(len(ids) - count, len(ids))), count


@pytest.mark.parametrize("microbatch", [1, 3, 64])
@pytest.mark.parametrize(("family", "tied"), [("gpt2", True), ("llama", False), ("qwen", True)])
def test_metric_is_minus_the_models_own_loss_on_last_words(make_model, make_tokenizer, family, tied, microbatch):
    model, tokenizer = make_model(family, tied=tied).double().eval(), make_tokenizer()
    metric = make_task(metric_microbatch=microbatch).metric(Stretch(model, tokenizer))
    params = dict(model.named_parameters())
    slow = torch.stack([torch.divide(*slow_sum(model, tokenizer, passage)) for passage in PASSAGES["train"]]).mean()
    value = metric(params)
    own = []
    for passage in PASSAGES["train"]:
        ids, count = encode(tokenizer, passage)
        labels = torch.tensor([[-100] * (len(ids) - count) + ids[-count:]])
        own.append(model(input_ids=torch.tensor([ids]), labels=labels).loss.item())
    assert value.item() == pytest.approx(-sum(own) / len(own), rel=1e-6)  # that loss is taken in float32
    assert value.shape == () and value.item() == pytest.approx(slow.item(), rel=1e-12)
    expected = torch.autograd.grad(slow, list(params.values()), allow_unused=True)
    got = torch.autograd.grad(value, list(params.values()), allow_unused=True)
    for name, a, b in zip(params, got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


def test_the_gradient_in_batches_serves_some_parameters_once_and_any_scale(inner):
    metric = make_task(metric_microbatch=1).metric(inner)
    params = {name: value.detach() for name, value in inner.model.named_parameters()}
    head = params["transformer.ln_f.weight"].requires_grad_()
    one = make_task(metric_microbatch=64).metric(inner)(params)
    (expected,) = torch.autograd.grad(3 * one, head)
    (got,) = torch.autograd.grad(3 * metric(params), head)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)
    with pytest.raises(RuntimeError, match="first derivative only"):
        torch.autograd.grad(metric(params), head, create_graph=True)


def test_metric_follows_the_parameters_it_is_given(inner):
    metric = make_task().metric(inner)
    own = dict(inner.model.named_parameters())
    moved = inner.train([])
    other = copy.deepcopy(inner.model)
    other.load_state_dict(moved, strict=False)
    slow = [torch.divide(*slow_sum(other, inner.tokenizer, passage)).item() for passage in PASSAGES["train"]]
    assert metric(moved).item() == pytest.approx(sum(slow) / len(slow), rel=1e-12)
    assert abs(metric(moved).item() - metric(own).item()) > 1e-3


def test_a_model_without_logits_to_keep_gives_the_same(inner):
    class Plain(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.config = model, model.config

        def forward(self, input_ids, attention_mask, use_cache):
            return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)

    plain = Plain(inner.model)
    with torch.no_grad():
        expected = LastWordLikelihood(inner.model, inner.tokenizer, PASSAGES["train"])
        got = LastWordLikelihood(plain, inner.tokenizer, PASSAGES["train"])
        torch.testing.assert_close(
            got.sums(dict(plain.named_parameters())), expected.sums(dict(inner.model.named_parameters()))
        )


def test_sums_come_in_the_order_of_the_passages(inner):
    likelihood = LastWordLikelihood(inner.model, inner.tokenizer, PASSAGES["train"], microbatch=2)
    with torch.no_grad():
        sums = likelihood.sums(dict(inner.model.named_parameters()))
        slow = [slow_sum(inner.model, inner.tokenizer, passage) for passage in PASSAGES["train"]]
    assert sums.tolist() == pytest.approx([total.item() for total, _ in slow])
    assert likelihood.counts.tolist() == [count for _, count in slow]


def test_long_contexts_are_cut_from_the_left(inner):
    inner.model.config.max_position_embeddings = 16
    passage = PASSAGES["train"][2]
    likelihood = LastWordLikelihood(inner.model, inner.tokenizer, [passage])
    with torch.no_grad():
        cut = likelihood.sums(dict(inner.model.named_parameters())).item()
        # 16 positions read 16 tokens (one of them <bos>) and predict a 17th
        assert cut == pytest.approx(slow_sum(inner.model, inner.tokenizer, passage, limit=16)[0].item(), rel=1e-12)
        assert cut != pytest.approx(slow_sum(inner.model, inner.tokenizer, passage)[0].item(), rel=1e-6)


def test_the_last_word_is_what_follows_the_last_space():
    assert split_last_word("el gato, dijo Ana\n") == ("el gato, dijo", " Ana")
    assert split_last_word("Ana") == ("", " Ana")


@pytest.mark.parametrize(
    ("passages", "options", "why"),
    [
        (["  "], {}, "empty"),
        (["Ana"], {"prepend_bos": False}, "nothing before"),
        (["el " + "a" * 600], {}, "longer than the target reads"),
        ([], {}, "found no passages"),
    ],
    ids=["empty", "one word", "endless word", "none"],
)
def test_passages_that_cannot_be_scored_are_clear_errors(inner, passages, options, why):
    with pytest.raises(HarnessError, match=why):
        make_task(passages={"train": passages}, **options).metric(inner)


def test_metric_examples_takes_the_first(inner):
    params = dict(inner.model.named_parameters())
    first_two = make_task(passages={"train": PASSAGES["train"][:2]}).metric(inner)(params).item()
    assert make_task(metric_examples=2).metric(inner)(params).item() == first_two
    assert make_task(metric_examples=2).references() == PASSAGES["train"]


ROLLOUTS = ["mañana la niña verá el jardín", "the man saw the garden", "mañana la niña verá el jardín", ""]


def test_evaluation(inner):
    task = make_task()
    evaluation = task.evaluate(ROLLOUTS, inner)
    declared = {measure.name for measure in task.measures} | {task.headline.name}
    assert set(evaluation.values) == declared and all(math.isfinite(v) for v in evaluation.values.values())
    assert evaluation.labels == {"language": ["Spanish", "English", "Spanish", "Not Natural Language"]}
    values = evaluation.values
    assert values["target_language"] == values["fraction_spanish"] == 0.5
    assert (values["fraction_english"], values["fraction_not_natural"], values["fraction_german"]) == (0.25, 0.25, 0.0)
    assert values["empty_fraction"] == 0.25 and values["identical_fraction"] == 0.5 and values["mean_length"] == 17 / 4
    assert values["distinct_1"] == pytest.approx((6 + 4) / 17)  # "the" comes twice
    assert inner.trained_on == [ROLLOUTS]

    trained = copy.deepcopy(inner.model)
    trained.load_state_dict(inner.train([]), strict=False)
    for when, model in (("before", inner.model), ("after", trained)):
        with torch.no_grad():
            slow = [slow_sum(model, inner.tokenizer, passage) for passage in PASSAGES["validation"]]
        metric = sum(total.item() / count for total, count in slow) / len(slow)
        perplexity = math.exp(-sum(total.item() for total, _ in slow) / len(slow))
        assert values[f"metric_{when}"] == pytest.approx(metric, rel=1e-9)
        assert values[f"perplexity_{when}"] == pytest.approx(perplexity, rel=1e-9)


def test_the_untrained_target_is_measured_once(inner, monkeypatch):
    passes, plain = [], LastWordLikelihood.sums
    monkeypatch.setattr(LastWordLikelihood, "sums", lambda self, params: passes.append(1) or plain(self, params))
    task = make_task()
    first, second = task.evaluate(ROLLOUTS, inner), task.evaluate(ROLLOUTS[:2], inner)
    assert len(passes) == 3 and first.values["metric_before"] == second.values["metric_before"]


def test_empty_rollouts_train_nothing(inner):
    values = make_task().evaluate(["", ""], inner).values
    assert inner.trained_on == [] and values["metric_after"] == values["metric_before"]
    assert values["perplexity_after"] == values["perplexity_before"]
    assert (values["target_language"], values["empty_fraction"], values["bigram_entropy"]) == (0.0, 1.0, 0.0)


def test_an_evaluation_of_nothing_is_an_error(inner):
    with pytest.raises(ValueError, match="at least one rollout"):
        make_task().evaluate([], inner)


@pytest.mark.parametrize(
    ("name", "language"), [("de", "german"), ("es", "spanish"), ("fr", "french"), ("it", "italian")]
)
def test_four_tasks(name, language):
    task = make_task(f"lambada_{name}")
    assert isinstance(task, Task) and task.name == f"lambada_{name}" and task.language == name
    assert task.offers.references and task.offers.metric and language.capitalize() in task.summary
    assert (task.headline.unit, task.headline.direction, task.headline.ceiling) == ("fraction", "higher", 1.0)
    names = [measure.name for measure in task.measures]
    assert f"fraction_{language}" in names and len(set(names)) == len(names)


def test_the_headline_counts_the_tasks_own_language(inner):
    assert make_task("lambada_de").evaluate(ROLLOUTS, inner).values["target_language"] == 0.0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"judge": "fastext"}, "did you mean fasttext"),
        ({"judge": 3}, "judge must be a text"),
        ({"metric_examples": 0}, "metric_examples must be a whole number"),
        ({"validation_examples": "many"}, "validation_examples must be a whole number"),
        ({"metric_microbatch": True}, "metric_microbatch must be a whole number"),
        ({"prepend_bos": 1}, "prepend_bos must be true or false"),
        ({"natural_from": "half"}, "natural_from must be a number"),
        ({"judge": "openai", "judge_concurrency": 0}, "judge_concurrency"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_options_are_refused_when_the_task_is_made(options, why):
    with pytest.raises(HarnessError, match=why):
        make_task(**options)


def test_the_openai_judge_asks_for_its_key_when_the_task_is_made(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(HarnessError, match="MY_KEY"):
        make_task(judge="openai", judge_key_variable="MY_KEY")
    monkeypatch.setenv("MY_KEY", "any")
    task = make_task(judge="openai", judge_key_variable="MY_KEY", judge_base_url="http://127.0.0.1:1/v1")
    assert task._judge.url == "http://127.0.0.1:1/v1/chat/completions" and task._judge.model == "gpt-4.1-nano"


# ------------------------------------------------------------------------------------------------- the authors' Phi


@pytest.mark.parametrize("microbatch", [1, 32])
def test_phi_as_the_authors_have_it(microbatch, inner):
    """Sum of the last word's token NLL over a fixed length, passages cut from the right: what lies beyond is not
    scored, and a passage whose last word lies beyond altogether counts with 0."""
    cut, length = 20, 128
    likelihood = LastWordLikelihood(
        inner.model, inner.tokenizer, PASSAGES["train"], microbatch=microbatch, fixed_length=length, cut=cut
    )
    expected, scored = [], []
    for passage in PASSAGES["train"]:
        context, word = split_last_word(passage)
        context_ids, word_ids = (
            inner.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context, word)
        )
        ids = [inner.tokenizer.bos_token_id, *context_ids, *word_ids]
        first = len(ids) - len(word_ids)
        ids = ids[:cut]
        logits = inner.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected.append(float(sum(logits[place - 1, ids[place]].detach() for place in range(first, len(ids)))) / length)
        scored.append(max(0, len(ids) - first))
    assert 0 in scored and any(scored), "the test needs passages on both sides of the cut"
    params = dict(inner.model.named_parameters())
    found = likelihood.mean_log_likelihood(params)
    assert float(found.detach()) == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    assert likelihood.counts.tolist() == scored
    (gradient,) = torch.autograd.grad(found, [next(iter(params.values()))])
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_only_phi_changes_with_the_authors_options(inner):
    ours, theirs = make_task(), make_task(metric_fixed_length=128, metric_max_tokens=20)
    params = dict(inner.model.named_parameters())
    assert float(ours.metric(inner)(params)) != pytest.approx(float(theirs.metric(inner)(params)))
    both = [task.evaluate(["uno", "dos"], Stretch(inner.model, inner.tokenizer)).values for task in (ours, theirs)]
    assert both[0] == both[1]
