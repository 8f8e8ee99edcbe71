"""Edit-distance baseline: how few token edits lie between a rollout and the task's train texts."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import Needs, RewardContext, RewardFunction
from harness.registry import register_reward
from rewards._shared import given, references, text_reward


@register_reward(
    "levenshtein",
    needs=Needs(references=True, packages=("rapidfuzz",)),
    advantage="group",
    summary="minus the mean Levenshtein distance, in tokens, to the task's train texts",
    options={},
)
def make(context: RewardContext) -> RewardFunction:
    """-(mean over the references of the Levenshtein distance on token ids), in tokens (section 4.4 of the paper).

    Both sides are tokenised whole with the target's tokenizer, without special tokens. An empty rollout is as far from
    a reference as that is long. All N x M pairs are computed by RapidFuzz, which python-Levenshtein stands on, in
    compiled code on every core.
    """
    tokenizer = given(context.load_tokenizer, "levenshtein", "load_tokenizer")()

    def tokenise(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    reference_ids = tokenise(references(context, "levenshtein"))

    def score(texts: list[str]) -> Sequence[float]:
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cdist

        distances = cdist(tokenise(texts), reference_ids, scorer=Levenshtein.distance, workers=-1)
        return (-distances.mean(axis=1)).tolist()

    return text_reward("levenshtein", score)
