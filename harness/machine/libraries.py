"""Libraries: their import, and their own progress and advice."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """The collector of garbage rests meanwhile. An import makes hardly any, and looking for it among what the libraries
    define takes a sixth of their imports' time."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()


def quiet() -> None:
    """Libraries' own progress and advice off; the harness reports."""
    import warnings

    with importing():
        import datasets
        import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore")
