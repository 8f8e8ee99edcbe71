"""Whose versions a record names."""

from __future__ import annotations

from harness.contracts import Needs
from harness.registry import REWARDS, register_reward
from harness.store.provenance import provenance


def test_a_record_names_the_versions_of_what_rewards_need(monkeypatch):
    from harness.store import provenance as module

    REWARDS.names()
    monkeypatch.setattr(REWARDS, "_entries", dict(REWARDS._entries))
    register_reward("seen", needs=Needs(packages=("cv2", "no_such_package")))(lambda context: None)
    module._static_provenance.cache_clear()
    try:
        packages = provenance()["packages"]
    finally:
        module._static_provenance.cache_clear()
    assert packages["opencv-python-headless"] and packages["torch"] and packages["sentence-transformers"]
    assert packages["no-such-package"] is None
