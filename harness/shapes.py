"""Sizes of models and devices as plain numbers: what plan, doctor and benchmark count with. No torch at import."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from harness.contracts import HarnessError


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer: `gated` MLPs have three matrices (Llama, Qwen), others two (GPT-2)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool
    vocab: int
    positions: int
    tied: bool = True
    learned_positions: bool = False

    @property
    def body(self) -> int:
        """Weights that multiply every token: attention and MLP matrices of all layers."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + self.hidden * self.intermediate * (3 if self.gated else 2))

    @property
    def head(self) -> int:
        """Weights of the LM head, which multiply scored positions only."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights but norms and biases (under 0.1 %)."""
        tables = self.head * (1 if self.tied else 2) + self.learned_positions * self.positions * self.hidden
        return self.body + tables

    def untied(self) -> Shape:
        return replace(self, tied=False)

    def divided(self, by: int) -> Shape:
        """The same depth at 1/`by` of the width: hidden size, heads, MLP and vocabulary alike (one head at least)."""
        heads = max(1, self.heads // by)
        head_dim = max(2, self.hidden // by // heads // 2 * 2)
        return replace(
            self, hidden=heads * head_dim, heads=heads, kv_heads=max(1, self.kv_heads * heads // self.heads),
            head_dim=head_dim, intermediate=max(4, self.intermediate // by), vocab=max(300, self.vocab // by),
        )  # fmt: skip


def shape_from_config(config: dict[str, Any]) -> Shape:
    """The shape that a Hugging Face config.json describes. Raises HarnessError if it names none."""

    def get(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    hidden, heads = get("hidden_size", "n_embd"), get("num_attention_heads", "n_head")
    layers, vocab = get("num_hidden_layers", "n_layer"), get("vocab_size")
    if not all(isinstance(value, int) and value > 0 for value in (hidden, heads, layers, vocab)):
        raise HarnessError("The model's config.json lacks its hidden size, heads, layers or vocabulary.")
    gpt2 = config.get("model_type") == "gpt2"
    return Shape(
        layers=layers, hidden=hidden, heads=heads, kv_heads=get("num_key_value_heads") or heads,
        head_dim=get("head_dim") or hidden // heads, intermediate=get("intermediate_size", "n_inner") or 4 * hidden,
        gated=not gpt2, vocab=vocab, positions=get("max_position_embeddings", "n_positions") or 0,
        tied=config.get("tie_word_embeddings", gpt2) is not False, learned_positions=gpt2,
    )  # fmt: skip


@lru_cache(maxsize=1)
def known_assets() -> dict[str, dict[str, Any]]:
    """Hub id -> licence, gate, bytes, shape of what the built-in profiles use."""
    text = (resources.files("harness") / "known_assets.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@lru_cache(maxsize=32)
def shape_of(ref: str) -> Shape:
    """The shape of a model reference, without loading it: from its config.json where it is here, else from the table.
    Raises HarnessError if neither knows it."""
    from harness import assets, hub

    if assets.is_embedded(ref) or assets.is_local(ref):
        folder: Path | None = assets.resolve(ref)
    else:
        folder = hub.cached(ref)
    config = folder / "config.json" if folder else None
    if config and config.is_file():
        try:
            return shape_from_config(json.loads(config.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise HarnessError(f"'{ref}' has a broken config.json ({type(error).__name__}).") from error
    known = known_assets().get(ref.partition("@")[0], {})
    if "shape" not in known:
        raise HarnessError(f"The shape of '{ref}' is not known offline; `python -m harness fetch` gets it first.")
    return Shape(**known["shape"])


# -------------------------------------------------------------------------------------------------------------- devices


@dataclass(frozen=True)
class Device:
    """What a device can do, as measured or as a datasheet says.

    flops      per second of large matrix products, by dtype: float32, tf32, bfloat16
    bandwidth  bytes per second of its memory
    call       seconds that one layer's forward call costs whatever its size (launches, Python)
    share      of `flops` and of `bandwidth` that a transformer reaches
    """

    name: str
    memory: int
    flops: dict[str, float]
    bandwidth: float
    call: float
    share: float = 1.0

    def rate(self, dtype: str) -> float:
        return self.flops.get(dtype, self.flops["float32"]) * self.share


GIB = 2**30
DATASHEETS = {
    # Dense rates. NVIDIA datasheets: H200 SXM, H100 SXM, A100 SXM, L4, RTX 4090 (Ada whitepaper).
    "h200": Device("H200", 139 * GIB, {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12}, 4.8e12, 4e-4, 0.45),
    "h100": Device("H100", 79 * GIB, {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12}, 3.35e12, 4e-4, 0.45),
    "a100": Device("A100", 79 * GIB, {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12}, 2.0e12, 4e-4, 0.45),
    "l4": Device("L4", 22 * GIB, {"bfloat16": 121e12, "tf32": 60e12, "float32": 30e12}, 3.0e11, 4e-4, 0.45),
    "rtx4090": Device("RTX 4090", 23 * GIB, {"bfloat16": 165e12, "tf32": 82e12, "float32": 82e12}, 1.0e12, 4e-4, 0.45),
}  # fmt: skip


def device(name: str = "") -> Device:
    """A device of DATASHEETS by name, or the one at hand, measured. Raises HarnessError for an unknown name."""
    if name:
        if name.lower() not in DATASHEETS:
            raise HarnessError(
                f"--on takes {', '.join(DATASHEETS)}, not '{name}'; without it the device here is measured."
            )
        return DATASHEETS[name.lower()]
    return measured_device()


@lru_cache(maxsize=2)
def measured_device() -> Device:
    """The first CUDA device, or this CPU with torch's threads: matrix products and a memory copy timed for a moment."""
    import torch

    cuda = torch.cuda.is_available()
    place = torch.device("cuda" if cuda else "cpu")
    size = 4096 if cuda else 768
    flops = {"float32": _matmul_rate(size, torch.float32, place)}
    if cuda:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        flops["tf32"] = _matmul_rate(size, torch.float32, place)
        torch.backends.cuda.matmul.allow_tf32 = before
        flops["bfloat16"] = _matmul_rate(size, torch.bfloat16, place)
        memory, name, call = torch.cuda.mem_get_info()[0], torch.cuda.get_device_name(), 4e-4
    else:
        from rewards.metagradient.plan import host_free

        memory, name, call = host_free(), f"CPU, {torch.get_num_threads()} thread(s)", 5e-4
    data = torch.empty(2**26 if cuda else 2**23, dtype=torch.float32, device=place).fill_(1.0)
    seconds = _fastest(lambda: data.add_(1.0), cuda)
    return Device(name, memory, flops, 2 * data.numel() * 4 / seconds, call, 0.6 if cuda else 0.7)


def _matmul_rate(size: int, dtype: Any, place: Any) -> float:
    import torch

    left, right = (torch.ones(size, size, dtype=dtype, device=place) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: left @ right, place.type == "cuda")


def _fastest(work: Any, cuda: bool, repeats: int = 8) -> float:
    import torch

    best = float("inf")
    for _ in range(repeats + 1):  # the first warms up, and is never the fastest
        start = clock()
        work()
        if cuda:
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best


def clock() -> float:
    """Seconds; on a CPU with one thread those of this process, which other processes do not lengthen."""
    return time.process_time() if own_seconds() else time.perf_counter()


def own_seconds() -> bool:
    """Whether `clock` counts the seconds of this process alone."""
    import torch

    return not torch.cuda.is_available() and torch.get_num_threads() == 1
