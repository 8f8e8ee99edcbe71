"""Libraries' own progress and advice."""

from __future__ import annotations


def quiet() -> None:
    """Libraries' own progress and advice off; the harness reports."""
    import warnings

    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore")
