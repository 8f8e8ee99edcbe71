"""What the engine is held to: small random models of the shapes that matter, padded batches, metrics, and the oracle.

`oracle` trains by the papers' formulas in the model's own dtype (float64 by default) as one autograd graph and
differentiates through all of it: slow, memory-hungry and obvious. The tests and `scripts/bench_metagradient.py` compare
the engine with it; a new update rule or model family can be held to it in the same way. Nothing that trains imports
this module.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import transformers
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

VOCABULARY = 23
COMMON = {
    "vocab_size": VOCABULARY,
    "attn_implementation": "eager",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def build(kind: str, tied: bool = True, dtype: torch.dtype = torch.float64, seed: int = 0, **changes):
    """A random causal LM; kind is "gpt2", "llama" or "qwen". GPT-2 has dropout: the engine must ignore it."""
    torch.manual_seed(seed)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_layer=2, n_embd=12, n_head=2, n_positions=16, tie_word_embeddings=tied, **COMMON | changes
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        cls, config_cls = {
            "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig),
            "qwen": (transformers.Qwen2ForCausalLM, transformers.Qwen2Config),
        }[kind]
        model = cls(
            config_cls(
                hidden_size=12,
                intermediate_size=20,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=tied,
                max_position_embeddings=32,
                **COMMON | changes,
            )
        )
    with torch.no_grad():  # initial weights are so small that curvature would hardly show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model.to(dtype).eval()


def make_batches(steps: int, sizes: tuple[int, ...] = (3, 4), seed: int = 1, width: int = 7) -> list[dict]:
    """Right-padded, ragged; the last example of a batch of four has no scored token at all."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for step in range(steps):
        size = sizes[step % len(sizes)]
        ids = torch.randint(2, VOCABULARY, (size, width), generator=generator)
        lengths = torch.randint(3, width, (size,), generator=generator)
        beyond = torch.arange(width) >= lengths[:, None]
        labels = ids.masked_fill(beyond, -100)
        if size > 3:
            labels[-1] = -100
        batches.append({"input_ids": ids.masked_fill(beyond, 0), "labels": labels})
    return batches


def example_losses(model, params, batch, fixed_length=None, token_weights=None):
    """(n,); token_weights (n, S - 1) weigh each token's NLL."""
    logits = functional_call(model, params, (), {"input_ids": batch["input_ids"]}).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    nll = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    nll = (nll if token_weights is None else nll * token_weights).sum(1)
    return nll / (fixed_length or (labels != -100).sum(1).clamp(min=1))


def oracle_step(optimizer, step, theta, state, grads):
    """One optimizer step on dicts, written from the papers' formulas; differentiable."""
    o, new, states = optimizer, {}, {}
    rate = o.lr(step) if callable(o.lr) else o.lr
    for name, p in theta.items():
        g = grads[name]
        if o.name == "sgd":
            g = g + o.weight_decay * p
            if o.momentum:
                b = g if step == 0 else o.momentum * state[name] + (1 - o.dampening) * g
                states[name] = b
                g = g + o.momentum * b if o.nesterov else b
            new[name] = p - rate * g
            continue
        if o.name == "adam":
            g = g + o.weight_decay * p
        m, v = state.get(name, (0.0, 0.0))
        m = o.betas[0] * m + (1 - o.betas[0]) * g
        v = o.betas[1] * v + (1 - o.betas[1]) * g * g
        states[name] = (m, v)
        h, r = m / (1 - o.betas[0] ** (step + 1)), v / (1 - o.betas[1] ** (step + 1))
        decay = rate * o.weight_decay if o.name == "adamw" else 0.0
        inside = r + o.eps_root  # exactly 0 where no token ever touched the coordinate: sqrt would give NaN there
        root = torch.where(inside > 0, torch.where(inside > 0, inside, 1.0).sqrt(), 0.0)
        new[name] = p - decay * p - rate * h / (root + o.eps)
    return new, states


def oracle(model, batches, metric, optimizer, fixed_length=None, factor=1.0, weights=None, per_token=False):
    """(Phi, dPhi/dw) by fully unrolling in the model's own dtype with create_graph. `per_token`: w (N, S - 1)."""
    model = model.eval()
    trained = [k for k, p in model.named_parameters() if p.requires_grad]
    count = sum(len(b["input_ids"]) for b in batches)
    one = next(model.parameters())
    w = torch.ones(count, dtype=one.dtype, device=one.device) if weights is None else weights.clone()
    w = w[:, None].repeat(1, batches[0]["input_ids"].shape[1] - 1) if per_token else w
    w.requires_grad_()
    params = {k: p.detach().clone().requires_grad_(p.requires_grad) for k, p in model.named_parameters()}
    state, start = {}, 0
    for step, batch in enumerate(batches):
        n = len(batch["input_ids"])
        own = w[start : start + n]
        if per_token:
            total = factor * example_losses(model, params, batch, fixed_length, own).mean()
        else:
            total = factor * (own * example_losses(model, params, batch, fixed_length)).mean()
        grads = torch.autograd.grad(
            total, [params[k] for k in trained], create_graph=True, allow_unused=True, materialize_grads=True
        )
        new, state = oracle_step(
            optimizer, step, {k: params[k] for k in trained}, state, dict(zip(trained, grads, strict=True))
        )
        params = params | new
        start += n
    value = metric(params)
    return value.item(), torch.autograd.grad(value, w)[0]


def lm_metric(model, seed: int = 7):
    """Phi = -LM loss on two held-out sequences."""
    held = make_batches(1, (2,), seed)[0]
    return lambda params: -example_losses(model, params, held).mean()


def patch_metric(model, name: str):
    """Phi = mean log sigmoid(20 Y * change of a 3 x 3 corner), as in the paper's image tasks."""
    start = dict(model.named_parameters())[name].detach().clone()
    signs = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, 1, -1]], dtype=start.dtype)
    return lambda params: torch.nn.functional.logsigmoid(20 * signs * (params[name] - start)[:3, :3]).mean()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


class Double(TorchFunctionMode):
    """Hugging Face upcasts norms and softmax to float32 by name; of a float64 model that is a downcast: not here."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        swap = lambda value: torch.float64 if value is torch.float32 else value
        return func(*map(swap, args), **{key: swap(value) for key, value in (kwargs or {}).items()})
