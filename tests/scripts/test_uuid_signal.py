"""The probe of uuid's rewards: its correlations, its texts and its table."""

from __future__ import annotations

import random

import numpy as np
import pandas
import pytest
import torch

from scripts import uuid_signal
from tasks.uuid import PAPER_UUID


def test_correlations_are_numpys():
    torch.manual_seed(0)
    rewards, right = torch.randn(50, 4).double(), (torch.rand(50, 4) < 0.4).double()
    for given in (rewards, rewards[:, :1]):
        expected = [np.corrcoef(given.expand(50, 4)[:, k], right[:, k])[0, 1] for k in range(4)]
        assert uuid_signal.correlations(given, right).tolist() == pytest.approx(expected)


def test_texts_are_what_their_kind_says():
    rng, kinds = random.Random(0), uuid_signal.kinds(PAPER_UUID)
    places = [p for p, c in enumerate(PAPER_UUID) if c != "-"]

    def right(kind, among):
        texts = [kinds[kind](rng) for _ in range(400)]
        assert all(len(t) == 36 and all(t[p] == "-" for p in (8, 13, 18, 23)) for t in texts)
        return np.mean([[t[p] == PAPER_UUID[p] for p in among] for t in texts])

    assert right("any hexadecimal", places) == pytest.approx(1 / 16 + 15 / 256, abs=0.02)
    assert right("0.4 right", places) == pytest.approx(0.4 + 0.6 / 16, abs=0.02)
    wrong = [p for p in places if uuid_signal.STUCK[p] != PAPER_UUID[p]]
    assert right("stuck", wrong) == pytest.approx(0.12 + 0.08 / 16, abs=0.02)
    assert right("stuck", [p for p in places if p not in wrong]) == pytest.approx(0.8 + 0.2 / 16, abs=0.02)


def test_a_row_and_the_table(make_model, make_tokenizer, tmp_path):
    from harness.contracts import TaskContext
    from harness.registry import TASKS
    from harness.settings.schema import InnerSettings
    from harness.training.inner import InnerTrainer

    settings = InnerSettings.model_validate({"steps": 3, "optimizer": {"lr": 1e-2}, "max_tokens": 40})
    inner = InnerTrainer(make_model("gpt2").eval(), make_tokenizer(), settings)
    phi = TASKS.get("uuid").factory(TaskContext()).metric(inner)
    write = uuid_signal.kinds(PAPER_UUID)["0.4 right"]
    found = uuid_signal.row(inner, phi, PAPER_UUID, write, [0, 1, 2], 24, 2, 0.5)
    assert found["places"] == 3 and len(found["by thirds"].split(",")) == 3 and found["Phi"] < 0
    uuid_signal.write_results(pandas.DataFrame([{"texts": "some", "training": "T=3"} | found]), tmp_path)
    assert "| T=3 |" in (tmp_path / "README.md").read_text()
