"""The tiny profile asks the embedded generator what it was taught to answer."""

from __future__ import annotations

from harness.miniature import corpus
from harness.settings.profiles import load_profile, resolve


def test_tiny_prompts_as_the_generator_was_trained():
    assert resolve(load_profile("tiny"), "lambada_es", "naive").generator.prompt == corpus.PROMPT + "<article>"
