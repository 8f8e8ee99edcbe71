"""The choice among texts: one step from the texts' own gradients is the engine's, and a picture can be chosen."""

from __future__ import annotations

import pandas
import pytest
import torch

from harness.settings.schema import InnerSettings
from harness.training.inner import InnerTrainer
from scripts import picture_tokens

TEXTS = ["alpha beta", "gamma delta epsilon zeta", "eta theta", "iota kappa"]


@pytest.mark.parametrize("first", [0, 5])
def test_a_step_is_the_engines(first, make_model, make_tokenizer):
    optimizer = {"lr": 0.1, "eps_root": 1e-5, "weight_decay": 0.0}
    settings = InnerSettings.model_validate({"optimizer": optimizer, "max_tokens": 12})
    inner = InnerTrainer(make_model("gpt2", tied=False).double().eval(), make_tokenizer(), settings)
    before = inner.model.lm_head.weight.detach().clone()
    trained = inner.train(TEXTS)["lm_head.weight"]
    expected = (trained - before)[first : first + 7, :6].T
    gradient = picture_tokens.patch_gradients(inner, TEXTS, first, (6, 7)).mean(0)
    torch.testing.assert_close(picture_tokens.adam_step(gradient, 0.1, 1e-5, 1e-8), expected, rtol=1e-6, atol=1e-9)


def test_texts_that_draw_the_picture_are_chosen():
    torch.manual_seed(0)
    picture = torch.randn(3, 4).double().sign()
    gradients = torch.cat([0.1 * torch.randn(60, 3, 4).double(), (-0.1 * picture).expand(4, 3, 4)])
    found, left = picture_tokens.choose(gradients, picture, 20.0, {"lr": 0.1, "eps_root": 1e-5, "eps": 1e-8})
    assert len(found) == picture_tokens.STEPS and found[-1] == 1.0 > found[0]
    assert left < 30


def test_it_writes_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["picture_tokens", "--first", "64", "--texts", "8,16", "--out", str(tmp_path)])
    picture_tokens.main()
    table = pandas.read_csv(tmp_path / "67.csv")
    assert table["texts"].tolist() == [8, 16] and table["pixels, chosen"].between(0.5, 1).all()
