"""Rollouts: the same tokens as plain generation, and the same whatever the batches are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from harness.contracts import HarnessError
from harness.settings.schema import GeneratorSettings
from harness.training import generation, grpo
from harness.training.decoding import inverse_cdf
from harness.training.generation import Bfloat16Copy, arrange, check_backend, sample, stop_tokens, uniforms

PROMPTS = [
    [65, 66, 67],
    [65, 66, 67],
    [70],
    [71, 72, 73, 74, 75, 76],
    [71, 72, 73, 74, 75, 76],
    [70],
    [80, 81],
    [82, 83],
]


def settings(**changes) -> GeneratorSettings:
    return GeneratorSettings(**{"model": "x", "prompt": "<article>", "max_completion_tokens": 10} | changes)


def plain(model, tokenizer, ids, new):
    """One prompt alone, by transformers' own greedy generation."""
    out = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        do_sample=False,
        max_new_tokens=new,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=stop_tokens(model, tokenizer),
    )
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("batch", [None, 1, 3, 8])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
def test_greedy_tokens_are_those_of_plain_generation(family, batch, make_model, make_tokenizer):
    model, tokenizer = make_model(family).double().eval(), make_tokenizer()
    found = sample(model, tokenizer, PROMPTS, settings(batch=batch), seed=0, greedy=True)
    assert found.tokens == [plain(model, tokenizer, ids, 10) for ids in PROMPTS]
    assert found.log_probs is None


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
def test_sampled_tokens_do_not_depend_on_batches_order_or_processes(family, make_model, make_tokenizer):
    model, tokenizer = make_model(family).double().eval(), make_tokenizer()
    draw = lambda prompts, seed=7, batch=None, **more: (
        sample(model, tokenizer, prompts, settings(batch=batch), seed=seed, **more).tokens
    )
    whole = draw(PROMPTS)
    assert whole == draw(PROMPTS, batch=3)
    assert whole == draw(PROMPTS[:4]) + draw(PROMPTS[4:], first_row=4)
    assert whole != draw(PROMPTS, seed=8)
    assert whole[0] != whole[1]  # equal prompts, other streams


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
def test_any_model_and_a_known_one_draw_the_same(family, make_model, make_tokenizer, monkeypatch):
    """transformers' own generation, which serves what decoding.py does not know, as the oracle; many tokens end a
    rollout, so that rows are dropped on the way."""
    model, tokenizer = make_model(family).double().eval(), make_tokenizer()
    model.generation_config.eos_token_id = list(range(0, model.config.vocab_size, 6))
    wanted, prompts = settings(max_completion_tokens=24), [prompt for prompt in PROMPTS for _ in range(5)]
    known = sample(model, tokenizer, prompts, wanted, seed=3)
    assert len({len(row) for row in known.tokens}) > 5
    monkeypatch.setattr(generation, "fits", lambda model: False)
    other = sample(model, tokenizer, prompts, wanted, seed=3)
    assert known.tokens == other.tokens and other.log_probs is None


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
def test_log_probabilities_are_those_of_a_plain_pass(family, make_model, make_tokenizer):
    model, tokenizer = make_model(family).double().eval(), make_tokenizer()
    found = sample(model, tokenizer, PROMPTS, settings(temperature=0.7), seed=3)
    for prompt, tokens, logs in zip(PROMPTS, found.tokens, found.log_probs, strict=True):
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        want = (logits / 0.7).log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(logs).double(), want, atol=1e-5)


def test_sampling_follows_the_models_distribution():
    """20,000 rows over 4 tokens at temperature 0.5: frequencies within 4 standard errors of softmax(scores / 0.5)."""
    scores = torch.tensor([[0.1, -0.4, 0.8, -torch.inf]]).expand(20_000, 4)
    drawn, _ = inverse_cdf(scores, uniforms(3, range(20_000), 1, torch.device("cpu"))[:, 0], 0.5)
    frequencies = torch.bincount(drawn, minlength=4) / 20_000
    expected = torch.softmax(scores[0] / 0.5, -1)
    assert torch.all((frequencies - expected).abs() <= 4 * (expected * (1 - expected) / 20_000).sqrt())


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), min_size=1, max_size=20), st.integers(1, 7))
def test_every_row_is_in_one_batch_longest_first(prompts, batch):
    batches = arrange(prompts, batch)
    rows = [row for pieces in batches for piece in pieces for row in piece.rows]
    assert sorted(rows) == list(range(len(prompts)))
    assert all(sum(len(piece.rows) for piece in pieces) == batch for pieces in batches[:-1])
    lengths = [len(piece.ids) for pieces in batches for piece in pieces]
    assert lengths == sorted(lengths, reverse=True)
    assert all(tuple(prompts[row]) == piece.ids for pieces in batches for piece in pieces for row in piece.rows)
    assert sum(len(pieces) for pieces in batches) <= len({tuple(p) for p in prompts}) + len(batches) - 1


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_each_prompt_is_read_once_and_logits_only_where_needed(family, make_model, make_tokenizer):
    model, tokenizer = make_model(family).eval(), make_tokenizer()
    read, scored = [], []
    model.get_input_embeddings().register_forward_hook(lambda m, args, out: read.append(args[0].numel()))
    model.get_output_embeddings().register_forward_hook(lambda m, args, out: scored.append(out.shape[:2].numel()))
    sample(model, tokenizer, [[70] * 9] * 6, settings(max_completion_tokens=2), seed=0, greedy=True)
    assert read[0] == 9 and set(read[1:]) <= {6}  # the prompt once, then a token a row
    assert scored[0] == 1 and set(scored[1:]) <= {6}


@pytest.mark.parametrize("tied", [True, False])
def test_the_bfloat16_copy_follows_its_source(tied, make_model):
    model = make_model("llama", tied=tied)
    bfloat16_copy = Bfloat16Copy(model)
    first = bfloat16_copy.current()
    assert {p.dtype for p in first.parameters()} == {torch.bfloat16}
    assert sum(1 for _ in first.parameters()) == sum(1 for _ in model.parameters())
    assert (first.get_output_embeddings().weight is first.get_input_embeddings().weight) == tied
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    second = bfloat16_copy.current()
    assert second is first
    for mine, theirs in zip(second.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs.bfloat16()) and theirs.dtype == torch.float32


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_bfloat16_copy_of_a_model_in_training_uses_its_own_weights(family, make_model, make_tokenizer):
    """A cell that is resumed makes the copy when its trainer has wrapped the model; seen first on a GPU."""
    model, tokenizer = make_model(family), make_tokenizer()
    prompts = [[70] * 9] * 4
    drawn = lambda copied: sample(copied.current(), tokenizer, prompts, settings(max_completion_tokens=6), seed=0)
    before = drawn(Bfloat16Copy(model))
    Accelerator(mixed_precision="bf16", cpu=True).prepare(model)
    assert "forward" in model.__dict__  # what accelerate does, else this test shows nothing
    late = Bfloat16Copy(model)
    assert late.current()(torch.tensor([[1, 2]])).logits.dtype == torch.bfloat16
    assert drawn(late).tokens == before.tokens


def test_vllm_that_is_not_there_is_a_sentence():
    check_backend(settings())
    with pytest.raises(HarnessError, match=r"dpg-harness\[vllm\]|CUDA"):
        check_backend(settings(backend="vllm"))


# ---------------------------------------------------------------------------------------------------------------- vLLM


class StandInVllm:
    """TRL's interface to vLLM, with the model itself behind it. `log` notes when weights came and rollouts went."""

    log: list[tuple[str, float]] = []

    def __init__(self, model, args=None, **settings) -> None:
        self.model, self.settings = model, settings

    def _weight(self) -> float:
        return float(sum(parameter.detach().double().sum() for parameter in self.model.parameters()))

    def sync_weights(self) -> None:
        self.synced = self._weight()
        self.log.append(("weights", self.synced))

    def generate(self, prompts, images, num_generations, profiler=None):
        assert self.synced == self._weight(), "rollouts of older weights"
        self.log.append(("rollouts", self.synced))
        ids = [[i % 200, 7, 257] for i in range(len(prompts))]
        return prompts, ids, [[[-5.0]] * 3 for _ in prompts], [[[token] for token in row] for row in ids]


def test_vllm_in_the_training_process_has_the_weights_of_every_step(quick, make_cell, tmp_path, monkeypatch):
    """As far as a machine without vLLM goes: TRL's own calls, a stand-in for its engine."""
    from trl.trainer import grpo_config, grpo_trainer

    from harness.cell import run_cell
    from harness.store.frames import load

    monkeypatch.setattr(generation, "check_backend", lambda settings: None)
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", StandInVllm)
    monkeypatch.setattr(StandInVllm, "log", [])
    given = quick("llama", generator__backend="vllm", grpo__steps=3, grpo__updates_per_step=2, grpo__lr=0.01)
    record = run_cell(make_cell("uuid", "naive", given), tmp_path, lambda event: None)
    assert (record.status, record.reason) == ("done", "")
    assert [what for what, _ in StandInVllm.log] == ["weights", "rollouts"] * 3
    assert len({weight for _, weight in StandInVllm.log}) == 3, "every step has its own weights"
    assert load(tmp_path)[0]["rollouts_by"].tolist() == ["vllm"]
    fields = grpo_config.GRPOConfig.__dataclass_fields__
    asked = grpo._vllm(settings(backend="vllm"))
    assert asked.keys() <= fields.keys() and asked["vllm_importance_sampling_correction"] is True


def test_what_trl_asks_of_vllm_is_what_the_installed_one_takes():
    """Read from the sources: vLLM itself needs a GPU to be imported."""
    import importlib.util

    import trl

    found = importlib.util.find_spec("vllm")
    if found is None:
        pytest.skip("vllm is not installed (pip install 'dpg-harness[vllm]')")
    folder = Path(found.submodule_search_locations[0])
    ours = ast.parse((Path(trl.__file__).parent / "generation" / "vllm_generation.py").read_text())
    named = lambda node: getattr(node.func, "id", getattr(node.func, "attr", ""))
    calls = [node for node in ast.walk(ours) if isinstance(node, ast.Call)]

    def classes(file: str) -> dict[str, ast.ClassDef]:
        tree = ast.parse((folder / file).read_text())
        return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    fields = lambda kind: {node.target.id for node in kind.body if isinstance(node, ast.AnnAssign)}
    llm, engine = classes("entrypoints/llm.py")["LLM"], classes("engine/arg_utils.py")["EngineArgs"]
    (start,) = (node for node in llm.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    takes = {argument.arg for argument in (*start.args.args, *start.args.kwonlyargs)} | fields(engine)
    (made,) = (node for node in calls if named(node) == "LLM")
    assert {word.arg for word in made.keywords} <= takes
    sampled = classes("sampling_params.py")["SamplingParams"]
    assert {"n", "temperature", "top_p", "top_k", "min_p", "max_tokens", "logprobs"} <= fields(sampled)
    offline = "".join(path.read_text() for path in (folder / "entrypoints").rglob("*.py"))
    for method in ("generate", "sleep", "wake_up", "reset_prefix_cache"):
        assert f"def {method}(" in offline
