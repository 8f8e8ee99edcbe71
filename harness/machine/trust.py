"""Whether code that comes with a model may run: decided by the command line alone."""

from __future__ import annotations

_trusts_remote_code = False
"""One process, one decision. Written by `trust_remote_code` alone."""


def trust_remote_code() -> None:
    """From now on this process runs code that comes with a model. For the command line's option alone."""
    global _trusts_remote_code
    _trusts_remote_code = True


def trusted() -> bool:
    """Whether this process runs code that comes with a model."""
    return _trusts_remote_code
