"""What `bench_metagradient.py` compares: a setting (model, batches, metrics) and four ways through it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "rewards" / "metagradient")]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import torchopt  # noqa: E402
import transformers  # noqa: E402
from torch.func import functional_call  # noqa: E402

from rewards.metagradient import InnerOptimizer, metagradient  # noqa: E402

OPTIMIZER = InnerOptimizer("adamw", lr=1e-5, betas=(0.9, 0.95), eps=1e-8, eps_root=1e-9, weight_decay=1e-4)
SIZES = {  # layers, width, heads, vocabulary, examples, tokens
    "figure": (3, 128, 4, 1024, 8, 32),
    "protocol": (2, 64, 4, 512, 512, 16),
    "miniature": (3, 128, 4, 1024, 32, 64),
    "gpt2": (12, 768, 12, 50257, 4, 128),
    "gpt2 width": (2, 768, 12, 50257, 4, 128),
}
UNITS = {"plain": 3, "graph": 6, "again": 8, "rates": 3}
"""Matrix products per layer: a gradient pass; the way back from a kept graph; from scratch, whose weight gradients
nobody needs; forward mode alone."""


class Setting:
    """A GPT-2 with an untied head, T batches, and two metrics: an LM loss, and a patch of the LM head (the paper's)."""

    def __init__(self, size: str, steps: int, device: str) -> None:
        layers, width, heads, vocabulary, self.examples, self.tokens = SIZES[size]
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            n_layer=layers,
            n_embd=width,
            n_head=heads,
            vocab_size=vocabulary,
            n_positions=128,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
        self.model = transformers.GPT2LMHeadModel(config).eval().to(device)
        draw = lambda: torch.randint(1, vocabulary, (self.examples, self.tokens), device=device)
        self.batches = [{"input_ids": ids, "labels": ids} for ids in (draw() for _ in range(steps))]
        if size == "protocol":  # the same examples whatever T
            self.batches = [{k: v[i::steps] for k, v in self.batches[0].items()} for i in range(steps)]
        self.held = draw()
        self.head = self.model.lm_head.weight.detach()[:7, :6].clone()
        self.signs = torch.randn(7, 6, device=device).sign()

    def losses(self, params, ids) -> torch.Tensor:
        logits = functional_call(self.model, params, (), {"input_ids": ids, "use_cache": False}).logits[:, :-1]
        nll = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
        return nll.view(len(ids), -1).mean(1)

    def lm(self, params) -> torch.Tensor:
        return -self.losses(params, self.held).mean()

    def patch(self, params) -> torch.Tensor:
        return F.logsigmoid(20 * self.signs * (params["lm_head.weight"][:7, :6] - self.head)).mean()


def plain(s: Setting, metric, budget=None) -> None:
    o = OPTIMIZER
    params = {k: p.detach().clone().requires_grad_() for k, p in s.model.named_parameters()}
    optimizer = torch.optim.AdamW(params.values(), o.lr, o.betas, o.eps, o.weight_decay)
    for batch in s.batches:
        optimizer.zero_grad()
        s.losses(params, batch["input_ids"]).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    metric(params).backward()


def engine(s: Setting, metric, budget=None, optimizer=OPTIMIZER):
    return metagradient(s.model, s.batches, metric, optimizer, memory_budget=budget)


def torchopt_unrolled(s: Setting, metric, budget=None) -> torch.Tensor:
    """The whole training as one graph."""
    o = OPTIMIZER
    rule = torchopt.adamw(o.lr, o.betas, o.eps, o.weight_decay, eps_root=o.eps_root)
    names = [k for k, _ in s.model.named_parameters()]
    params = tuple(p.detach().clone().requires_grad_() for _, p in s.model.named_parameters())
    weights = torch.ones(len(s.batches), s.examples, device=params[0].device, requires_grad=True)
    state = rule.init(params)
    for step, batch in enumerate(s.batches):
        losses = s.losses(dict(zip(names, params, strict=True)), batch["input_ids"])
        grads = torch.autograd.grad((losses * weights[step]).mean(), params, create_graph=True)
        updates, state = rule.update(grads, state, params=params, inplace=False)
        params = torchopt.apply_updates(params, updates, inplace=False)
    return torch.autograd.grad(metric(dict(zip(names, params, strict=True))), weights)[0].flatten()


def reverse_over_reverse(s: Setting, metric, budget=None) -> torch.Tensor:
    """States kept, one step's graph at a time, by autograd through loss, update and all, on stock operations."""
    o = OPTIMIZER
    rule = torchopt.adamw(o.lr, o.betas, o.eps, o.weight_decay, eps_root=o.eps_root)
    names = [k for k, _ in s.model.named_parameters()]
    params = tuple(p.detach().clone() for _, p in s.model.named_parameters())
    state, states = rule.init(params), []

    def step(batch, params, state, weights, create_graph):
        losses = s.losses(dict(zip(names, params, strict=True)), batch["input_ids"])
        grads = torch.autograd.grad((losses * weights).mean(), params, create_graph=create_graph)
        updates, state = rule.update(grads, state, params=params, inplace=False)
        return torchopt.apply_updates(params, updates, inplace=False), state

    def leaves(params, state):
        flat, spec = torchopt.pytree.tree_flatten(state)
        flat = [t.detach().requires_grad_() if torch.is_floating_point(t) else t for t in flat]
        moving = [t for t in flat if torch.is_floating_point(t)]
        return tuple(p.detach().requires_grad_() for p in params), torchopt.pytree.tree_unflatten(spec, flat), moving

    ones = torch.ones(s.examples, device=params[0].device)
    for batch in s.batches:
        params, state, _ = leaves(params, state)
        states.append((params, state))
        params, state = step(batch, params, state, ones, False)
    params, state, moving = leaves(params, state)
    adjoint = list(
        torch.autograd.grad(
            metric(dict(zip(names, params, strict=True))), params, materialize_grads=True, allow_unused=True
        )
    ) + [torch.zeros_like(t) for t in moving]
    out = []
    for batch in reversed(s.batches):
        params, state, moving = leaves(*states.pop())
        weights = ones.clone().requires_grad_()
        new, news = step(batch, params, state, weights, True)
        ends = [*new, *(t for t in torchopt.pytree.tree_leaves(news) if torch.is_floating_point(t))]
        found = torch.autograd.grad(
            ends, [weights, *params, *moving], adjoint, allow_unused=True, materialize_grads=True
        )
        out.append(found[0])
        adjoint = list(found[1:])
    return torch.cat(out[::-1])


METHODS = {
    "plain": plain,
    "engine": engine,
    "torchopt": torchopt_unrolled,
    "reverse_over_reverse": reverse_over_reverse,
}
