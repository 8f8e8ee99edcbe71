"""The paper's figures, each shared by the tasks that it shows."""

from __future__ import annotations

from harness.contracts import TaskFigure

PIXELS_AND_NORM = TaskFigure(
    "figure-2",
    "Pixels correct and norm over steps (paper, Figure 2)",
    "Share of the target's pixels that the sign of the change of the LM head gets right, and the change of the head's "
    "norm, by reward and T.",
    ("pixel_accuracy", "norm_change"),
)
LANGUAGE_AND_ENTROPY = TaskFigure(
    "figure-4",
    "Target language and bigram entropy over steps (paper, Figure 4)",
    "Share of held-out rollouts in the target language, and the entropy of their word bigrams: a signal that reaches "
    "the language by repeating itself loses entropy.",
    ("target_language", "bigram_entropy"),
)
