"""What the embedded models can do, in figures: `scripts/build_miniature.py` records them in the manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from harness.miniature import corpus
from harness.miniature.world.articles import LANGUAGES, article
from harness.miniature.world.passages import split, stories
from harness.texts.diversity import bigram_entropy
from harness.texts.language import NATURAL_FROM, LanguageIdentifier, naturalness

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_lm(folder: Path) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="float32").eval()


def language_id(assets: Path, count: int = 2000) -> dict[str, float]:
    """Accuracy on articles and passages that nothing was trained on, and on pieces of three and six words of them."""
    identifier = LanguageIdentifier(assets / "language_id")
    texts = [
        (article(subject, language), language)
        for language in LANGUAGES
        for subject in corpus.SUBJECTS["test"][: count // 10]
    ]
    texts += [(text, language) for language in LANGUAGES for text in split("test", language)[: count // 10]]

    def accuracy(length: int | None) -> float:
        rng, right = Random(0), 0
        for text, language in texts:
            words = text.split()
            start = rng.randrange(max(1, len(words) - (length or len(words)) + 1))
            piece = " ".join(words[start : start + (length or len(words))])
            right += identifier.language(piece) == f"__label__{language}"
        return round(right / len(texts), 4)

    return {"accuracy": accuracy(None), "accuracy_6_words": accuracy(6), "accuracy_3_words": accuracy(3)}


def embedding(assets: Path, count: int = 300) -> dict[str, float]:
    """Retrieval among `count` held-out subjects: how often is the paraphrase, or the German article, the nearest? And
    the mean cosine similarity to it and to the others."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(assets / "embedding"), device="cpu")
    subjects = corpus.SUBJECTS["test"][:count]

    def embed(language: str, variant: int) -> Any:
        texts = [article(subject, language, variant) for subject in subjects]
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    first = embed("en", 0)
    figures: dict[str, float] = {}
    for name, other in (("paraphrase", embed("en", 1)), ("german", embed("de", 0))):
        scores = first @ other.T
        figures[f"{name}_nearest"] = round(float((scores.argmax(1) == range(count)).mean()), 4)
        figures[f"{name}_cosine"] = round(float(scores.diagonal().mean()), 4)
        off = (scores.sum() - scores.trace()) / (count * (count - 1))
        figures[f"{name}_other_cosine"] = round(float(off), 4)
    return figures


def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, tokens: int, seed: int = 0
) -> list[tuple[str, bool]]:
    """One answer to each user message at temperature 1, with whether it ended by itself within `tokens` tokens."""
    import torch

    torch.manual_seed(seed)
    answers = []
    for start in range(0, len(prompts), 64):
        messages = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + 64]]
        rows = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        batch = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        with torch.no_grad():
            made = model.generate(**batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=tokens)
        for row in made[:, batch["input_ids"].shape[1] :].tolist():
            ended = tokenizer.eos_token_id in row
            answers.append((tokenizer.decode(row, skip_special_tokens=True), ended))
    return answers


@cache
def vocabulary(language: str, articles: int = 3000, scenes: int = 6000) -> frozenset[str]:
    """The words, in lower case, of the language's articles (each subject in every variant) and stories."""
    texts = [article(subject, language, variant) for subject in range(articles) for variant in range(corpus.VARIANTS)]
    return frozenset(words(" ".join(texts + stories(0, scenes, language))))


def words(text: str) -> list[str]:
    """Runs of letters, in lower case."""
    return re.findall(r"[^\W\d_]+", text.lower())


def real_words(text: str, language: str, subject: int, *, whole: bool = True) -> tuple[int, int]:
    """(words of the text that the language's texts, or the subject's article in English or the language, hold; all
    words). A text that is not `whole` was cut somewhere in its last word, which is not counted."""
    known = vocabulary(language) | set(words(article(subject) + " " + article(subject, language)))
    found = words(text) if whole else words(text)[:-1]
    return sum(word in known for word in found), len(found)


def generator(assets: Path, count: int = 4096, tokens: int = 56) -> tuple[dict[str, Any], list[str]]:
    """Shares of languages among answers to held-out articles, how many are natural and how many end within `tokens`,
    bigram entropy (of the first 1024 answers and paraphrases), and the share of real words in each language's answers;
    and some answers to read, with those in other languages."""
    from transformers import AutoTokenizer

    identifier = LanguageIdentifier(assets / "language_id")
    tokenizer = AutoTokenizer.from_pretrained(assets / "generator")
    subjects = [corpus.SUBJECTS["test"][i % len(corpus.SUBJECTS["test"])] for i in range(count)]
    answers = sample(
        load_lm(assets / "generator"),
        tokenizer,
        [corpus.PROMPT + article(subject) for subject in subjects],
        tokens=tokens,
    )
    natural = [
        (subject, text, ended)
        for subject, (text, ended) in zip(subjects, answers, strict=True)
        if naturalness(text) >= NATURAL_FROM
    ]
    named = [(*one, identifier.language(one[1]).removeprefix("__label__")) for one in natural]
    counts = Counter(language for *_, language in named)

    def real(language: str) -> float:
        pairs = [
            real_words(text, language, subject, whole=ended) for subject, text, ended, of in named if of == language
        ]
        return round(sum(known for known, _ in pairs) / max(1, sum(every for _, every in pairs)), 4)

    figures = {
        "shares": {language: round(counts[language] / count, 4) for language in LANGUAGES},
        "not_natural": round(1 - len(natural) / count, 4),
        "ended": round(sum(ended for _, ended in answers) / count, 4),
        "real_words": {language: real(language) for language in LANGUAGES},
        "bigram_entropy": round(bigram_entropy([text for text, _ in answers[:1024]]), 3),
        "bigram_entropy_of_paraphrases": round(
            bigram_entropy([article(subject, "en", 1) for subject in subjects[:1024]]), 3
        ),
        "texts": count,
        "tokens": tokens,
    }
    shown = [
        f"ARTICLE {article(subject)}\nANSWER  {text}"
        for subject, (text, _) in zip(subjects[:20], answers, strict=False)
    ]
    shown += [f"ANSWER ({language})  {text}" for _, text, _, language in named if language != "en"]
    shown += [f"NOT NATURAL  {text}" for text, _ in answers if naturalness(text) < NATURAL_FROM][:20]
    return figures, shown


def token_losses(folder: Path, count: int = 200) -> dict[str, dict[str, float]]:
    """Nats a token (`bos text eos`, scored after bos) of the model in `folder` on articles of `count` held-out subjects
    and on as many passages of the test split, in every language; "answers" are paraphrases of the English articles,
    each given its prompt and, for the language to be plain, its own first twelve tokens."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoTokenizer

    model, tokenizer = load_lm(folder), AutoTokenizer.from_pretrained(folder)
    subjects, end = corpus.SUBJECTS["test"][:count], tokenizer.eos_token_id

    def loss(texts: Sequence[str], befores: Sequence[list[int]], given: int = 0) -> float:
        nats, tokens = 0.0, 0
        for text, before in zip(texts, befores, strict=True):
            row = tokenizer(text)["input_ids"]
            before, row = [*before, *row[:given]], row[given:]
            ids = torch.tensor([[*before, *row, end]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, len(before) - 1 : -1]
            nats += F.cross_entropy(logits, ids[0, len(before) :], reduction="sum").item()
            tokens += len(logits)
        return round(nats / tokens, 4)

    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": corpus.PROMPT + article(subject)}], add_generation_prompt=True
        )["input_ids"]
        for subject in subjects
    ]
    plain = [[end]] * len(subjects)
    return {
        "articles": {
            language: loss([article(subject, language, subject % corpus.VARIANTS) for subject in subjects], plain)
            for language in LANGUAGES
        },
        "stories": {language: loss(split("test", language)[: len(plain)], plain[:256]) for language in LANGUAGES},
        "answers": {
            language: loss([article(subject, language, 1) for subject in subjects], prompts, 12)
            for language in LANGUAGES
        },
    }


def last_word_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, language: str, count: int = 256
) -> float:
    """Mean over the first `count` passages of the train split of the summed negative log-likelihood (nats) of the last
    word's tokens."""
    import torch

    losses = []
    for text in split("train", language, count):
        context, _, word = text.rpartition(" ")
        before = [tokenizer.bos_token_id, *tokenizer(context)["input_ids"]]
        last = tokenizer(f" {word}")["input_ids"]
        ids = torch.tensor([before + last])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(before) - 1 : -1]
        losses.append(-logits.log_softmax(-1)[range(len(last)), last].sum().item())
    return round(sum(losses) / len(losses), 3)


def last_word_losses(folder: Path, count: int = 256) -> dict[str, float]:
    """`last_word_loss` of the model in `folder` for every language."""
    from transformers import AutoTokenizer

    model, tokenizer = load_lm(folder), AutoTokenizer.from_pretrained(folder)
    return {language: last_word_loss(model, tokenizer, language, count) for language in LANGUAGES}
