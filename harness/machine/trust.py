"""Whether code that comes with a model may run: decided by the command line alone."""

from __future__ import annotations

_trust = {"remote_code": False}
"""One process, one decision."""


def trust_remote_code() -> None:
    """From now on this process runs code that comes with a model. For the command line's option alone."""
    _trust["remote_code"] = True


def trusted() -> bool:
    return _trust["remote_code"]
