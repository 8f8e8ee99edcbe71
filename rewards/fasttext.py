"""Language baseline: how sure fastText is that a rollout is in the language of the task's train texts."""

from __future__ import annotations

from harness.contracts import Needs, RewardContext, RewardFunction
from harness.registry import register_reward
from harness.texts.language import load_identifier
from rewards._shared import asset, references, text_reward


@register_reward(
    "fasttext",
    needs=Needs(references=True, packages=("fasttext",)),
    advantage="group",
    summary="fastText's probability that the rollout is in the language of the task's train texts",
    options={"language_id": "fastText's language identifier: file, folder or hub id"},
    asset_options=("language_id",),
)
def make(context: RewardContext) -> RewardFunction:
    """P(language | rollout), in [0, 1.00001], of the language that fastText names for the joined train texts
    (section 4.4 of the paper). A rollout without words has 0.

    `reward.options.language_id` names a .bin file or a folder with model.bin (default: the embedded one). Raises
    HarnessError if it is none.
    """
    identifier = load_identifier(asset(context, "fasttext", "language_id", "embedded:language_id"))
    language = identifier.language("\n".join(references(context, "fasttext")))
    return text_reward("fasttext", lambda texts: [identifier.probability(text, language) for text in texts])
