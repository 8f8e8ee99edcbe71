"""Similarity baseline: how close a rollout's embedding lies to those of the task's train texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.assets.models import check_encoder
from harness.contracts import HarnessError, Needs, RewardContext, RewardFunction
from harness.registry import register_reward
from rewards._shared import asset, references, text_reward

if TYPE_CHECKING:
    import numpy as np


@register_reward(
    "embedding",
    needs=Needs(references=True, packages=("sentence_transformers",)),
    advantage="group",
    summary="mean cosine similarity of the rollout's embedding to the task's train texts",
    options={"embedding_model": "a sentence-transformers folder or hub id"},
    asset_options=("embedding_model",),
)
def make(context: RewardContext) -> RewardFunction:
    """Mean over the references r of cos(e(rollout), e(r)), in [-1, 1] (section 4.4 of the paper).

    The mean of cosines is one dot product with the mean of the normalised reference embeddings, so a call costs O(N),
    not O(N M). A rollout without words has similarity 0 to everything. `reward.options.embedding_model` names a
    sentence-transformers folder or hub id (default: the embedded one). Raises HarnessError if it cannot be loaded.
    """
    from sentence_transformers import SentenceTransformer

    path = asset(context, "embedding", "embedding_model", "embedded:embedding")
    try:
        model = SentenceTransformer(str(path), trust_remote_code=False)
    except Exception as error:  # the loader raises whatever its parts raise; all mean: not such a folder
        first = " ".join(str(error).split())[:200]
        raise HarnessError(
            f"No sentence-transformers model could be loaded from {path} ({type(error).__name__}: {first})."
        ) from error
    check_encoder(path)

    def embed(texts: list[str]) -> np.ndarray:
        return model.encode(texts, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)

    mean_reference = embed(references(context, "embedding")).mean(axis=0, dtype="float64")

    def score(texts: list[str]) -> Sequence[float]:
        worded = [i for i, text in enumerate(texts) if text.strip()]
        rewards = [0.0] * len(texts)
        if worded:
            for i, value in zip(worded, (embed([texts[i] for i in worded]) @ mean_reference).tolist(), strict=True):
                rewards[i] = value
        return rewards

    return text_reward("embedding", score)
