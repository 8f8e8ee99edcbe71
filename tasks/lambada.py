"""LAMBADA in four languages: texts whose last word only the wider context gives away (section 4.4 of the paper).

The generator is asked to rephrase in English; the target is to get better at passages of another language. Whether the
generator finds out that it should write in that language is what is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.contracts import (
    Contact,
    Evaluation,
    HarnessError,
    Headline,
    InnerTraining,
    Measure,
    Metric,
    MetricCost,
    Offers,
    TaskContext,
    unknown,
)
from harness.registry import register_task
from harness.texts.language import CODES, LABELS, NATURAL_FROM, FastTextJudge, Judge, OpenAIJudge, load_identifier
from tasks._figures import LANGUAGE_AND_ENTROPY
from tasks._options import Options
from tasks._texts import TEXT_KEYS, TEXT_MEASURES, text_values

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tasks._last_word import LastWordLikelihood

PASSAGES, PASSAGE_TOKENS, LAST_WORD_TOKENS = 2320, 110, 8
"""What a metric reads, for plans: the train split (section 4.4 of the paper), and about as many tokens a passage and a
batched last word as BPE makes of the translations."""
METRIC_MICROBATCH = 32
JUDGE_URL, JUDGE_KEY = "https://api.openai.com/v1", "OPENAI_API_KEY"
"""The OpenAI judge's, unless options say otherwise."""


def _measure_name(label: str) -> str:
    """ "Spanish" -> "fraction_spanish", "Not Natural Language" -> "fraction_not_natural"."""
    return "fraction_" + label.lower().removesuffix(" language").replace(" ", "_")


class Lambada:
    """Phi = the mean over the train split's passages of the mean log-likelihood of the last word's tokens, in nats per
    token: minus the LM loss with only the last word scored and every passage weighing the same.

    Options (`task.options`): `metric_fixed_length` and `metric_max_tokens`, Phi as the authors' code has it (sums over
    a fixed length, of passages cut from the right: LastWordLikelihood); `metric_examples` and `validation_examples`,
    the first so many passages of the split (default: all); `metric_microbatch`, passages per pass (32; a matter of
    memory and speed); `prepend_bos` (true); `judge`, "fasttext" (default, with `language_id` and `natural_from`) or
    "openai" (with `judge_base_url`, `judge_model`, `judge_key_variable`, `judge_concurrency`). Raises HarnessError for
    a value of the wrong kind and for a judge that cannot be asked.
    """

    language: str
    """Two-letter code."""
    offers = Offers(references=True, metric=True)
    options: Mapping[str, str] = {
        "metric_examples": "passages of the train split that Phi is taken over (all)",
        "validation_examples": "passages of the validation split (all)",
        "metric_microbatch": "passages a pass (32)",
        "metric_fixed_length": "Phi divides a word's sum by this, as the authors (the word's number of tokens)",
        "metric_max_tokens": "Phi's passages are cut to it from the right, as the authors (from the left, to fit)",
        "prepend_bos": "whether passages begin with the beginning-of-text token (true)",
        "judge": "fasttext or openai (fasttext)",
        "language_id": "fastText's language identifier: file, folder or hub id",
        "natural_from": "least probability of a language for a text to be natural",
        "judge_base_url": "an OpenAI-compatible endpoint",
        "judge_model": "its model",
        "judge_key_variable": "environment variable that holds the key (OPENAI_API_KEY)",
        "judge_concurrency": "requests at a time (4)",
    }
    asset_options = ("language_id",)
    headline = Headline(
        "target_language", "fraction", "higher", "validation rollouts judged to be in the target language", ceiling=1.0
    )
    measures: tuple[Measure, ...] = (
        *(Measure(_measure_name(label), "fraction", None, f"rollouts judged to be {label}") for label in LABELS),
        *TEXT_MEASURES,
        Measure("metric_before", "nats", "higher", "Phi on the validation split, untrained target"),
        Measure("metric_after", "nats", "higher", "Phi on the validation split, target trained on the rollouts"),
        Measure("perplexity_before", "per word", "lower", "LAMBADA perplexity, validation split, untrained target"),
        Measure("perplexity_after", "per word", "lower", "LAMBADA perplexity, validation split, trained target"),
    )
    examined: tuple[Measure, ...] = (
        Measure("last_word", "nats/word", "higher", "mean over passages of the last word's summed log-likelihood"),
        Measure("last_word_token", "nats/token", "higher", "mean over passages of its mean over tokens, as Phi"),
        Measure("perplexity", "per word", "lower", "exp of minus last_word, as EleutherAI's harness has it"),
    )
    key_measures = TEXT_KEYS
    figure = LANGUAGE_AND_ENTROPY
    name: str
    summary: str

    @staticmethod
    def metric_cost(options: Mapping[str, Any]) -> MetricCost:
        read = Options(options)
        texts = read.integer("metric_examples", PASSAGES)
        batch = read.integer("metric_microbatch", METRIC_MICROBATCH)
        return MetricCost(texts, PASSAGE_TOKENS, LAST_WORD_TOKENS, batch)

    @staticmethod
    def contacts(options: Mapping[str, Any]) -> tuple[Contact, ...]:
        read = Options(options)
        if read.text("judge", "fasttext") != "openai":
            return ()
        return (Contact(read.text("judge_base_url", JUDGE_URL), read.text("judge_key_variable", JUDGE_KEY)),)

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._options = Options(context.options)
        self._judge = self._make_judge()
        self._limits = {
            "train": self._options.integer("metric_examples", None),
            "validation": self._options.integer("validation_examples", None),
        }
        self._microbatch = self._options.integer("metric_microbatch", METRIC_MICROBATCH)
        self._prepend_bos = self._options.boolean("prepend_bos", True)
        # By id of the target, which each value keeps alive: what does not change between validations is done once.
        self._validations: dict[int, _Validation] = {}

    def references(self) -> list[str]:
        """The train passages, all of them."""
        return self._texts("train")

    def target_texts(self) -> list[str]:
        """The validation passages: of the references' kind, and none that a similarity reward or Phi has seen."""
        return self._texts("validation")

    def metric(self, inner: InnerTraining) -> Metric:
        """Phi on the train split for this target: (params) -> scalar, nats per token, at most 0."""
        return self._likelihood(inner, "train").mean_log_likelihood

    def evaluate(self, rollouts: Sequence[str], inner: InnerTraining) -> Evaluation:
        """Judge the rollouts' languages, measure their variety, train a fresh target on them and put both targets to
        the validation split. Perplexity = exp(-mean over passages of the summed log-likelihood of the last word), as
        EleutherAI's harness has it (Appendix C). Where all rollouts are empty nothing is trained, and "after" is
        "before". Raises ValueError for no rollouts."""
        texts = list(rollouts)
        if not texts:
            raise ValueError("an evaluation needs at least one rollout")
        languages = self._judge.judge(texts)
        shares = {label: languages.count(label) / len(texts) for label in LABELS}
        validation = self._validation(inner)
        after = validation.measure(inner.train(texts)) if any(texts) else validation.before
        values = {
            "target_language": shares[CODES[self.language]],
            **{_measure_name(label): share for label, share in shares.items()},
            **text_values(texts),
            **{f"{name}_before": value for name, value in validation.before.items()},
            **{f"{name}_after": value for name, value in after.items()},
        }
        return Evaluation(values=values, labels={"language": languages})

    def examine(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, split: str) -> dict[str, float]:
        """`examined` on a split's passages."""
        return _Validation(self._scored(model, tokenizer, split)).last_word

    def scored_pairs(self, tokenizer: PreTrainedTokenizerBase, split: str) -> list[tuple[str, str]]:
        """(all but the last word, the last word) of each passage that `examine` reads."""
        from tasks._last_word import split_last_word

        start = (tokenizer.bos_token or "") if self._prepend_bos else ""
        pairs = (split_last_word(passage) for passage in self._passages(split))
        return [(start + context, word) for context, word in pairs]

    def _texts(self, split: str) -> list[str]:
        if self._context.references is None:
            raise HarnessError(f"The task {self.name} needs TaskContext.references; give it when you make the context.")
        return self._context.references(split)

    def _passages(self, split: str) -> list[str]:
        """Those of a split that are read, at least one."""
        passages = self._texts(split)[: self._limits.get(split)]
        if not passages:
            raise HarnessError(f"The task {self.name} found no passages in the split '{split}'; check data.references.")
        return passages

    def _likelihood(self, inner: InnerTraining, split: str) -> LastWordLikelihood:
        return self._scored(inner.model, inner.tokenizer, split)

    def _scored(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, split: str) -> LastWordLikelihood:
        from tasks._last_word import LastWordLikelihood

        passages = self._passages(split)
        authors = split == "train"  # validation and test say what they say, whatever Phi is
        return LastWordLikelihood(
            model,
            tokenizer,
            passages,
            microbatch=self._microbatch,
            prepend_bos=self._prepend_bos,
            fixed_length=self._options.integer("metric_fixed_length", None) if authors else None,
            cut=self._options.integer("metric_max_tokens", None) if authors else None,
        )

    def _validation(self, inner: InnerTraining) -> _Validation:
        if id(inner.model) not in self._validations:
            likelihood = self._likelihood(inner, "validation")
            self._validations[id(inner.model)] = _Validation(likelihood)
        return self._validations[id(inner.model)]

    def _make_judge(self) -> Judge:
        options = self._options
        kind = options.text("judge", "fasttext")
        if kind == "openai":
            return OpenAIJudge(
                base_url=options.text("judge_base_url", JUDGE_URL),
                model=options.text("judge_model", "gpt-4.1-nano"),
                key_variable=options.text("judge_key_variable", JUDGE_KEY),
                concurrency=options.integer("judge_concurrency", 4),
            )
        if kind != "fasttext":
            raise HarnessError(unknown("judge", kind, ["fasttext", "openai"]))
        if self._context.asset is None:
            raise HarnessError(f"The task {self.name} needs TaskContext.asset; give it when you make the context.")
        identifier = load_identifier(self._context.asset(options.text("language_id", "embedded:language_id")))
        return FastTextJudge(identifier, options.number("natural_from", NATURAL_FROM))


class _Validation:
    """The validation split for one target."""

    def __init__(self, likelihood: LastWordLikelihood) -> None:
        self._likelihood = likelihood

    def measure(self, params: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """metric: Phi in nats per token; perplexity: per last word."""
        import torch

        with torch.no_grad():
            sums = self._likelihood.sums(params)
            counts = self._likelihood.counts.to(sums.device)
            return {"metric": float((sums / counts).mean()), "perplexity": float(torch.exp(-sums.mean()))}

    @property
    def last_word(self) -> dict[str, float]:
        """`Lambada.examined` of the target as it is now. Sums of large models are taken in float64."""
        import torch

        with torch.no_grad():
            sums = self._likelihood.sums(dict(self._likelihood.model.named_parameters())).double()
            token = float((sums / self._likelihood.counts.to(sums.device)).mean())
        mean = float(sums.mean())
        perplexity = math.exp(min(-mean, 700.0))  # a target that diverged: no float holds more
        return {"last_word": mean, "last_word_token": token, "perplexity": perplexity}

    @cached_property
    def before(self) -> dict[str, float]:
        """The same of the untrained target."""
        return self.measure(dict(self._likelihood.model.named_parameters()))


@register_task("lambada_de")
class LambadaGerman(Lambada):
    name, language = "lambada_de", "de"
    summary = "last words of German passages: does the generator find out that it should write German?"


@register_task("lambada_es")
class LambadaSpanish(Lambada):
    name, language = "lambada_es", "es"
    summary = "last words of Spanish passages: does the generator find out that it should write Spanish?"


@register_task("lambada_fr")
class LambadaFrench(Lambada):
    name, language = "lambada_fr", "fr"
    summary = "last words of French passages: does the generator find out that it should write French?"


@register_task("lambada_it")
class LambadaItalian(Lambada):
    name, language = "lambada_it", "it"
    summary = "last words of Italian passages: does the generator find out that it should write Italian?"
