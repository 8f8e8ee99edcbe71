"""What the embedded models can do, in figures: `scripts/build_miniature.py` records them in the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from harness.miniature import corpus
from harness.miniature.world.articles import LANGUAGES, article
from harness.miniature.world.passages import split
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


def generator(assets: Path, count: int = 1024, tokens: int = 56) -> tuple[dict[str, Any], list[str]]:
    """Shares of languages among answers to held-out articles, how many are natural and how many end within `tokens`,
    bigram entropy of answers and paraphrases; and some answers to read, with those in other languages."""
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
        (subject, text)
        for subject, (text, _) in zip(subjects, answers, strict=True)
        if naturalness(text) >= NATURAL_FROM
    ]
    named = [(subject, text, identifier.language(text).removeprefix("__label__")) for subject, text in natural]
    counts = Counter(language for _, _, language in named)
    figures = {
        "shares": {language: round(counts[language] / count, 4) for language in LANGUAGES},
        "not_natural": round(1 - len(natural) / count, 4),
        "ended": round(sum(ended for _, ended in answers) / count, 4),
        "bigram_entropy": round(bigram_entropy([text for text, _ in answers]), 3),
        "bigram_entropy_of_paraphrases": round(bigram_entropy([article(subject, "en", 1) for subject in subjects]), 3),
        "texts": count,
        "tokens": tokens,
    }
    shown = [
        f"ARTICLE {article(subject)}\nANSWER  {text}"
        for subject, (text, _) in zip(subjects[:20], answers, strict=False)
    ]
    shown += [f"ANSWER ({language})  {text}" for _, text, language in named if language != "en"]
    shown += [f"NOT NATURAL  {text}" for text, _ in answers if naturalness(text) < NATURAL_FROM][:20]
    return figures, shown


def last_word_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, language: str, count: int | None = None
) -> float:
    """Mean over the first `count` passages of the train split of the summed negative log-likelihood (nats) of the last
    word's tokens."""
    import torch

    losses = []
    for text in split("train", language)[:count]:
        context, _, word = text.rpartition(" ")
        before = [tokenizer.bos_token_id, *tokenizer(context)["input_ids"]]
        last = tokenizer(f" {word}")["input_ids"]
        ids = torch.tensor([before + last])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(before) - 1 : -1]
        losses.append(-logits.log_softmax(-1)[range(len(last)), last].sum().item())
    return round(sum(losses) / len(losses), 3)


def last_word_losses(folder: Path, count: int | None = None) -> dict[str, float]:
    """`last_word_loss` of the model in `folder` for every language."""
    from transformers import AutoTokenizer

    model, tokenizer = load_lm(folder), AutoTokenizer.from_pretrained(folder)
    return {language: last_word_loss(model, tokenizer, language, count) for language in LANGUAGES}
