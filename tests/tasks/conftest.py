"""Targets wide enough for a 21x21 patch, and a learning algorithm whose outcome the test chooses."""

from __future__ import annotations

import pytest

from tests.helpers.models import ChosenTraining, build_wide_model


@pytest.fixture(scope="session")
def chosen_training():
    return ChosenTraining


@pytest.fixture(scope="session")
def wide_model():
    return build_wide_model
