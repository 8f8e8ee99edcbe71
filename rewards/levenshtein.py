"""Edit-distance baseline: how few token edits lie between a rollout and the task's train texts."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import HarnessError, Needs, RewardContext, RewardFunction
from harness.registry import register_reward
from rewards._shared import given, references, text_reward


@register_reward(
    "levenshtein",
    needs=Needs(references=True, packages=("rapidfuzz",)),
    advantage="group",
    summary="minus the mean Levenshtein distance, in tokens, to the task's train texts",
    options={"reference_count": "how many train texts it compares with, the first ones (all)"},
)
def make(context: RewardContext) -> RewardFunction:
    """-(mean over the references of the Levenshtein distance on token ids), in tokens (section 4.4 of the paper).

    Both sides are tokenised whole with the target's tokenizer, without special tokens. An empty rollout is as far from
    a reference as that is long. All N x M pairs are computed by RapidFuzz, which python-Levenshtein stands on, in
    compiled code on every core. `reward.options.reference_count` takes the first so many references (default: all):
    a call costs O(N M), 0.66 CPU seconds for 768 rollouts and 4096 references of the miniature, 0.05 for 256.
    Raises HarnessError if it is no whole number of at least 1.
    """
    count = context.options.get("reference_count")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise HarnessError(f"reward.options.reference_count must be a whole number of at least 1, not {count!r}.")
    tokenizer = given(context.load_tokenizer, "levenshtein", "load_tokenizer")()

    def tokenise(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    reference_ids = tokenise(references(context, "levenshtein")[:count])

    def score(texts: list[str]) -> Sequence[float]:
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cdist

        distances = cdist(tokenise(texts), reference_ids, scorer=Levenshtein.distance, workers=-1)
        return (-distances.mean(axis=1)).tolist()

    return text_reward("levenshtein", score)
