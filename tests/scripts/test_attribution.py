"""Attribution with the engine alone: the texts that teach a metric are found, on batches as a Trainer makes them."""

from __future__ import annotations

import json

import pytest
import torch

from harness import assets
from harness.contracts import HarnessError
from rewards.metagradient import InnerOptimizer, train
from scripts import attribution


def test_spanish_passages_raise_the_likelihood_of_spanish(capsys):
    found = attribution.main(["--batch", "24"])
    said = capsys.readouterr().out
    texts = attribution.default_texts()
    spanish = set(texts[2 * attribution.OF_EACH : 3 * attribution.OF_EACH])
    top = [text for _, text in found.ranked()[:10]]
    bottom = [text for _, text in found.ranked()[-10:]]
    assert sum(text in spanish for text in top) >= 8 and sum(text in spanish for text in bottom) <= 2
    assert "120 texts, 5 steps: the metric goes from" in said
    assert "The 10 texts that raise it most" in said and "The 10 texts that lower it most" in said
    assert " ".join(top[0].split())[:30] in said and f"{found.ranked()[0][0]:+.3e}" in said


def test_weights_stand_by_their_texts_and_are_derivatives(make_model, make_tokenizer):
    """Of the trained model's metric, by finite differences of the data weights, whatever the order of the epoch."""
    model, tokenizer = make_model("gpt2").double().eval(), make_tokenizer()
    model.set_attn_implementation("eager")
    texts = [f"text {i}: {'river ' * (i % 3)}{'hill ' * (i % 4)}" for i in range(7)]
    order, batches = attribution.trainer_batches(texts, tokenizer, size=3, max_tokens=32, seed=1)
    assert sorted(order) == list(range(7)) and order != list(range(7))
    assert {*batches[0]} >= {"input_ids", "attention_mask", "labels"}
    first = batches[0]["input_ids"][0][batches[0]["attention_mask"][0].bool()]
    assert tokenizer.decode(first) == texts[order[0]]
    metric, rule = attribution.likelihood_of(["river hill"], model, tokenizer), InnerOptimizer(lr=1e-3, eps_root=1e-6)
    found = attribution.attribute(model, texts, (order, batches), metric, rule)
    for number in (0, 4):
        ends = []
        for change in (1e-4, -1e-4):
            weights = torch.ones(7, dtype=torch.float64)
            weights[order.index(number)] += change
            with torch.no_grad():
                ends.append(float(metric(train(model, batches, rule, weights=weights))))
        assert found.weights[number] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4)


def negative_norm(model, tokenizer):
    return lambda params: -params["lm_head.weight" if "lm_head.weight" in params else "transformer.wte.weight"].norm()


def test_texts_and_metric_are_the_user_s(tmp_path, model_folder, capsys):
    rows = [{"text": f"The river number {i} flows north."} for i in range(6)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = ["--texts", str(tmp_path / "mine.jsonl"), "--batch", "4", "--top", "2"]
    given = [*texts, "--model", str(model_folder("gpt2"))]
    found = attribution.main([*given, "--metric", str(tmp_path / "mine.jsonl")])
    assert len(found.weights) == 6 and "The 2 texts that raise it most" in capsys.readouterr().out
    other = attribution.main([*given, "--metric", f"{__name__}:negative_norm"])
    norm = negative_norm(None, None)(dict(assets.load_model(str(model_folder("gpt2"))).named_parameters()))
    assert other.value == pytest.approx(float(norm), rel=0.05)
    with pytest.raises(HarnessError, match="write --metric MODULE:FUNCTION"):
        attribution.main([*given, "--metric", "json:no_such"])
