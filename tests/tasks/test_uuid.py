"""`uuid`: Phi against token-by-token probabilities, its gradient, and the pieces found in rollouts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.contracts import HarnessError, TaskContext
from harness.registry import TASKS
from tasks._texts import longest_shared_piece
from tasks.uuid import PAPER_UUID

FAMILIES = [("gpt2", True), ("gpt2", False), ("llama", True), ("llama", False)]


def make(**options):
    return TASKS.get("uuid").factory(TaskContext(options=options))


def inner_of(chosen_training, make_model, make_tokenizer, family="gpt2", tied=True, **changes):
    model = make_model(family, tied=tied).double().eval()
    model.set_attn_implementation("eager")
    return chosen_training(model, make_tokenizer(), **changes)


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_phi_is_the_mean_log_probability_token_by_token(chosen_training, make_model, make_tokenizer, family, tied):
    inner = inner_of(chosen_training, make_model, make_tokenizer, family, tied)
    ids = [inner.tokenizer.bos_token_id, *inner.tokenizer.encode(PAPER_UUID, add_special_tokens=False)]
    assert len(ids) == 37
    total = 0.0
    with torch.no_grad():
        for place in range(1, len(ids)):
            # The prefix alone, so that nothing of the rest can be seen.
            logits = inner.model(torch.tensor([ids[:place]])).logits[0, -1].tolist()
            total += logits[ids[place]] - math.log(math.fsum(math.exp(logit) for logit in logits))
    phi = make().metric(inner)
    assert float(phi(dict(inner.model.named_parameters())).detach()) == pytest.approx(total / 36, rel=1e-10)


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_the_gradient_is_that_of_finite_differences(chosen_training, make_model, make_tokenizer, family, tied):
    inner = inner_of(chosen_training, make_model, make_tokenizer, family, tied)
    phi = make().metric(inner)
    params = {name: value.detach().clone().requires_grad_() for name, value in inner.model.named_parameters()}
    gradients = torch.autograd.grad(phi(params), list(params.values()))
    torch.manual_seed(1)
    directions = [torch.randn_like(value) for value in params.values()]
    along = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    # Llama's RMSNorm and rotary embedding compute in float32 whatever the model's dtype, so its Phi is rougher.
    step, close = (1e-5, 1e-6) if family == "gpt2" else (1e-4, 1e-3)

    def moved(sign: int) -> float:
        pairs = zip(params.items(), directions, strict=True)
        return float(phi({name: value.detach() + sign * step * d for (name, value), d in pairs}))

    assert along == pytest.approx((moved(1) - moved(-1)) / (2 * step), rel=close)


def test_the_start_token_is_bos_then_the_model_s_then_eos(chosen_training, make_model, make_tokenizer):
    inner = inner_of(chosen_training, make_model, make_tokenizer)
    params = dict(inner.model.named_parameters())
    with torch.no_grad():
        usual = float(make().metric(inner)(params))
        inner.tokenizer.bos_token = None
        assert float(make().metric(inner)(params)) == usual  # config.bos_token_id is the same token
        inner.model.config.bos_token_id = None
        by_eos = float(make().metric(inner)(params))
        assert by_eos != usual
    inner.tokenizer.eos_token = None
    with pytest.raises(HarnessError, match="empty prompt"):
        make().metric(inner)


def test_evaluation_finds_the_uuid_and_its_parts(chosen_training, make_model, make_tokenizer):
    inner = inner_of(chosen_training, make_model, make_tokenizer)
    first, second, third, fourth, fifth = PAPER_UUID.split("-")
    rollouts = [f"see {PAPER_UUID}.", f"{first} and {third}-{fourth}", "no such thing", PAPER_UUID.upper()]
    task = make()
    found = task.evaluate(rollouts, inner)
    values = found.values
    assert values["uuid_exact"] == 0.25
    assert [values[f"component_{k}"] for k in range(1, 6)] == [0.5, 0.25, 0.5, 0.5, 0.25]
    pieces = found.labels["longest_piece"]
    assert pieces[:2] == [36, 9] and values["longest_piece_max"] == 36.0
    assert values["longest_piece_mean"] == sum(pieces) / 4
    assert set(values) == {task.headline.name, *(measure.name for measure in task.measures)}


def test_phi_is_measured_before_and_after_training(chosen_training, make_model, make_tokenizer):
    def change(params):
        for value in params.values():
            value.mul_(0.5)

    inner = inner_of(chosen_training, make_model, make_tokenizer, change=change)
    values = make().evaluate(["text"], inner).values
    phi = make().metric(inner)
    with torch.no_grad():
        assert values["phi_before"] == float(phi(dict(inner.model.named_parameters())))
        assert values["phi_after"] == float(phi(inner.train([])))
    assert values["phi_before"] != values["phi_after"]


def test_the_half_precision_target_is_scored_in_float32(chosen_training, make_model, make_tokenizer):
    inner = inner_of(chosen_training, make_model, make_tokenizer)
    inner.model.to(torch.bfloat16)
    assert make().metric(inner)(dict(inner.model.named_parameters())).dtype == torch.float32


def test_validation_is_greedy():
    assert TASKS.get("uuid").factory.greedy_validation is True


def test_another_uuid_can_be_chosen():
    assert make(text="12345678-1234-5678-1234-567812345678").text == "12345678-1234-5678-1234-567812345678"


def test_the_uuid_can_come_from_a_data_set(tmp_path):
    other = "00000000-0000-4000-8000-000000000000"
    path = tmp_path / "strings.jsonl"
    path.write_text(f'{{"text": "{other}\\n"}}\n{{"text": "more"}}\n')
    assert make(source=str(path)).text == other
    (reading,) = TASKS.get("uuid").declares.readings({"source": str(path)})
    assert reading.data and reading.local and reading.ref == str(path)  # so its content counts in the identity
    assert not TASKS.get("uuid").declares.readings({})
    with pytest.raises(HarnessError, match="both name"):
        make(source=str(path), text=other)
    path.write_text('{"text": "no UUID"}\n')
    with pytest.raises(HarnessError, match=r"first text of task\.options\.source"):
        make(source=str(path))


@pytest.mark.parametrize("text", ["", "hello", PAPER_UUID.upper(), PAPER_UUID.replace("-", ""), PAPER_UUID + "0", 5])
def test_what_is_no_uuid_is_refused(text):
    with pytest.raises(HarnessError, match="task.options.text"):
        make(text=text)


class Speller(torch.nn.Module):
    """A model that goes on with its text as far as it has come, whatever it read, and then repeats its end."""

    device = torch.device("cpu")

    def __init__(self, ids: list[int], config) -> None:
        super().__init__()
        self.ids, self.config = torch.tensor(ids), config

    def forward(self, input_ids, use_cache):
        places = torch.arange(1, input_ids.shape[1] + 1).clamp(max=len(self.ids) - 1)
        logits = torch.nn.functional.one_hot(self.ids[places], 260).float() * 100
        return type("Out", (), {"logits": logits[None]})


@pytest.mark.parametrize(("said", "whole", "characters"), [("", 1, 36), ("x", 0, 8), ("6", 1, 36)])
def test_what_a_target_says_by_itself_is_greedy_decoding(make_model, make_tokenizer, said, whole, characters):
    """The whole UUID, the UUID with another ninth character, and more after the UUID."""
    tokenizer, config = make_tokenizer(), make_model("gpt2").config
    text = {"": PAPER_UUID, "x": PAPER_UUID[:8] + "x" + PAPER_UUID[9:], "6": PAPER_UUID + "66"}[said]
    model = Speller([tokenizer.bos_token_id, *tokenizer(text)["input_ids"]], config)
    values = make().examine(model, tokenizer, "test")
    assert (values["says_uuid"], values["says_characters"]) == (whole, characters)
    assert (values["phi"] == pytest.approx(0.0, abs=1e-6)) == bool(whole)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_target_s_examination_has_the_metric(make_model, make_tokenizer, chosen_training, family):
    inner = inner_of(chosen_training, make_model, make_tokenizer, family)
    found = make().examine(inner.model, inner.tokenizer, "test")
    with torch.no_grad():
        phi = float(make().metric(inner)(dict(inner.model.named_parameters())))
    assert found["phi"] == pytest.approx(phi, rel=1e-5) and found["says_uuid"] == 0.0


def test_no_rollouts_is_an_error(chosen_training, make_model, make_tokenizer):
    with pytest.raises(ValueError, match="at least one"):
        make().evaluate([], inner_of(chosen_training, make_model, make_tokenizer))


def brute_force(wanted: str, text: str) -> int:
    pieces = {wanted[i:j] for i in range(len(wanted)) for j in range(i, len(wanted) + 1)}
    return max((len(piece) for piece in pieces if piece in text), default=0)


@given(st.text("ab-", max_size=12), st.text("ab-", max_size=24))
def test_the_longest_piece_is_brute_force_s(wanted, text):
    assert longest_shared_piece(wanted, text) == brute_force(wanted, text)


@given(st.text("0123456789abcdef-", max_size=60), st.integers(0, 36), st.integers(0, 36))
def test_a_piece_put_into_a_text_is_found(text, one, other):
    start, stop = sorted((one, other))
    found = longest_shared_piece(PAPER_UUID, text + PAPER_UUID[start:stop])
    assert found >= stop - start and found == brute_force(PAPER_UUID, text + PAPER_UUID[start:stop])


def test_phi_over_a_fixed_length_is_the_sum_over_it(make_model, make_tokenizer):
    class Inner:
        model, tokenizer = make_model("gpt2").double().eval(), make_tokenizer()

    params = dict(Inner.model.named_parameters())
    mean, fixed = (
        float(TASKS.get("uuid").factory(TaskContext(options)).metric(Inner)(params).detach())
        for options in ({}, {"metric_fixed_length": 128})
    )
    tokens = len(Inner.tokenizer(PAPER_UUID, add_special_tokens=False)["input_ids"])
    assert fixed == pytest.approx(mean * tokens / 128, rel=1e-12)
