"""The pool that signals are compared on: rollouts of the untuned generator, held-out articles, texts in other languages
and texts of the target's kind, in groups as GRPO makes them.

Half of the groups hold nothing but the generator's rollouts of one prompt: what GRPO sees at its first step. The others
mix all sources: what it sees once the generator has begun to move. Positions inside a group are shuffled, so that no
signal can tell a text's source from its place (`naive` trains one target per place).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import HarnessError, HasTargetTexts, Task, TaskDeclarations
from harness.settings.schema import Settings
from harness.training.seeds import pool_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SOURCES = ("generator", "article", "other", "target")
LANGUAGES = ("de", "es", "fr", "it")


@dataclass(frozen=True)
class Pool:
    """N texts in groups of G neighbours. All lists have N entries."""

    texts: list[str]
    groups: list[int]
    """Number of the group that each text belongs to, ascending."""
    sources: list[str]
    """One of SOURCES."""
    articles: list[str]
    """The article of each text's prompt."""

    def mixed(self) -> list[bool]:
        """Per text: whether its group holds more than the generator's own rollouts."""
        strange = {group for group, source in zip(self.groups, self.sources, strict=True) if source != "generator"}
        return [group in strange for group in self.groups]


def target_texts(task: Task) -> list[str]:
    """Texts of the kind that the task asks for: its own (`HasTargetTexts`), else its references; [] where nobody can
    say what such a text looks like."""
    if isinstance(task, HasTargetTexts):
        return list(task.target_texts())
    return task.references() if task.offers.references else []


def build_pool(
    settings: Settings,
    task: Task,
    generator: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    size: int,
    seed: int,
) -> Pool:
    """A pool of about `size` texts (whole groups of `grpo.rollouts_per_prompt`, at least four), all of them cut to the
    generator's `max_completion_tokens`. Raises HarnessError if there are too few held-out articles."""
    from harness.planning.cells import articles
    from harness.training.generation import generate
    from harness.training.prompts import build_prompts

    rng = Random(f"fidelity/{seed}")
    width = settings.grpo.rollouts_per_prompt
    count = max(4, size // width)
    held_out = articles(settings)[1]
    if len(held_out) < count:
        raise HarnessError(
            f"A pool of {count} groups needs as many held-out articles, and there are {len(held_out)}; raise "
            "validation.prompts or lower --pool."
        )
    prompts = rng.sample(held_out, count)
    language = TaskDeclarations.of(type(task)).language
    others = [
        text
        for code in LANGUAGES
        if code != language
        for text in assets.texts("embedded:passages", split="validation", language=code)
    ]
    wanted = target_texts(task)
    mix = [source for source in SOURCES if source != "target" or wanted]
    layout = [
        ["generator"] * width
        if group < (count + 1) // 2
        else [mix[(group * width + place) % len(mix)] for place in range(width)]
        for group in range(count)
    ]
    for row in layout:
        rng.shuffle(row)
    sources = [source for row in layout for source in row]
    owners = [article for article, row in zip(prompts, layout, strict=True) for _ in row]
    asked = [owner for owner, source in zip(owners, sources, strict=True) if source == "generator"]
    rollouts = generate(
        generator,
        tokenizer,
        build_prompts(tokenizer, settings.generator, asked),
        settings.generator,
        seed=pool_seed(seed),
    )
    drawn = {
        "generator": iter(rollouts),
        "article": iter(_draw(rng, held_out, sources.count("article"))),
        "other": iter(_draw(rng, others, sources.count("other"))),
        "target": iter(_draw(rng, wanted, sources.count("target"))),
    }
    texts = [_cut(next(drawn[source]), tokenizer, settings.generator.max_completion_tokens) for source in sources]
    return Pool(texts, [group for group, row in enumerate(layout) for _ in row], sources, owners)


def _draw(rng: Random, texts: Sequence[str], count: int) -> list[str]:
    """`count` texts, none twice before all have been drawn."""
    found: list[str] = []
    while len(found) < count:
        found += rng.sample(list(texts), min(len(texts), count - len(found)))
    return found


def _cut(text: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    """The text as the generator could have written it: not longer than a rollout, so that length tells nothing."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) <= tokens else tokenizer.decode(ids[:tokens], skip_special_tokens=True)


def as_rollouts(
    pool: Pool, members: Sequence[int], settings: Settings, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Any], list[Any], list[list[int]]]:
    """(prompts, completions, completion_ids) of the pool's `members`, as TRL hands them to a reward: strings, or
    message lists where the tokenizer has a chat template."""
    from harness.training.prompts import build_prompts

    prompts = build_prompts(tokenizer, settings.generator, [pool.articles[i] for i in members])
    texts = [pool.texts[i] for i in members]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    if prompts and isinstance(prompts[0], str):
        return prompts, texts, ids
    return prompts, [[{"role": "assistant", "content": text}] for text in texts], ids
