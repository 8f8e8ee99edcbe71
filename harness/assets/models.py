"""Models and tokenizers, from safetensors and without running a model's own code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.assets.references import is_embedded, resolve, why
from harness.contracts import HarnessError, Outline
from harness.machine.trust import trusted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(ref: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model, with a padding token (the end-of-text token where none is set)."""
    from transformers import AutoTokenizer

    path = resolve(ref)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trusted())
    except Exception as error:
        raise HarnessError(f"No tokenizer could be loaded from '{ref}' ({why(error)}).") from error
    if isinstance(tokenizer.chat_template, str) and not is_embedded(ref):
        _check_template(ref, tokenizer.chat_template, json.dumps(tokenizer.special_tokens_map))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise HarnessError(f"The tokenizer of '{ref}' has neither a padding nor an end-of-text token; add one to it.")
    return tokenizer


TEMPLATE_SECONDS, TEMPLATE_BYTES = 20, 4 * 2**30
"""What a chat template may take of the processor and of memory, the interpreter's start included."""
MOST_TEMPLATE = 1_000_000
"""Characters of a template, and of what it makes of a message of a few."""
_APPLY = """
import json, resource, sys
seconds, memory = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
from transformers.utils.chat_template_utils import render_jinja_template
template, special = json.load(sys.stdin)
chat = [{"role": "user", "content": "word " * 400}]
try:
    print(len(render_jinja_template([chat], chat_template=template, add_generation_prompt=True, **special)[0][0]))
except MemoryError:
    sys.exit(9)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@lru_cache(maxsize=16)
def _check_template(ref: str, template: str, special_tokens: str) -> None:
    """Applies the chat template once in a process of its own: a template is a program, and a few words of it can fill
    the memory or never end. Raises HarnessError."""
    if len(template) > MOST_TEMPLATE:
        raise HarnessError(
            f"The chat template of '{ref}' has more than {MOST_TEMPLATE:,} characters; use a shorter one."
        )
    command = [sys.executable, "-c", _APPLY, str(TEMPLATE_SECONDS), str(TEMPLATE_BYTES)]
    given = json.dumps([template, json.loads(special_tokens)])
    tried = subprocess.run(command, input=given, capture_output=True, text=True)
    length = tried.stdout.strip()
    if tried.returncode == 0 and length.isdecimal() and int(length) <= MOST_TEMPLATE:
        return
    if tried.returncode == 1:
        said = " ".join((tried.stderr.strip().splitlines() or ["no message"])[-1].split())[:200]
        raise HarnessError(f"The chat template of '{ref}' cannot be applied to a message ({said}).")
    raise HarnessError(
        f"The chat template of '{ref}' takes more than {TEMPLATE_SECONDS} s, {TEMPLATE_BYTES // 2**30} GiB or "
        f"{MOST_TEMPLATE:,} characters for a message of 400 words; use another one."
    )


def load_model(
    ref: str, *, dtype: str = "float32", attention: str = "eager", untie_head: bool = False
) -> PreTrainedModel:
    """A causal LM in evaluation mode. `attention="eager"` for models whose second derivatives are taken."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path = resolve(ref)
    if not (path / "config.json").exists():
        raise HarnessError(f"'{ref}' is not a Hugging Face model folder: it has no config.json.")
    if not list(path.glob("*.safetensors")):
        raise HarnessError(
            f"'{ref}' has no .safetensors weights; convert the model (pickled weights are never loaded)."
        )
    try:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=trusted())
        copied = untie_head and config.tie_word_embeddings
        config.tie_word_embeddings = config.tie_word_embeddings and not untie_head
        model, report = AutoModelForCausalLM.from_pretrained(
            str(path),
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            trust_remote_code=trusted(),
            use_safetensors=True,
            **REPORTED,
        )
    except Exception as error:
        raise HarnessError(f"The model '{ref}' could not be loaded ({why(error)}).") from error
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    own = {name for name, weight in model.named_parameters() if copied and weight is head.weight}
    check_weights(ref, report, given=own)
    if copied:
        # A checkpoint saved with a tied head holds no head weights: give the head a copy of the embeddings.
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone())
    return model.eval()


REPORTED: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Options of `from_pretrained`: it says which weights a checkpoint lacks. Left alone it fills them with random numbers
and goes on."""


def check_weights(ref: str, report: Mapping[str, Any], given: Collection[str] = ()) -> None:
    """Raises HarnessError where weights are missing, mis-shaped or not the architecture's, by the report of
    `from_pretrained` (REPORTED). Weights that the architecture ties to others are no part of it; those in `given` come
    from elsewhere."""
    faults = {
        "lacks": sorted(set(report["missing_keys"]) - set(given)),
        "has in another shape": sorted(
            {str(name if isinstance(name, str) else name[0]) for name in report["mismatched_keys"]}
        ),
        "has beyond the architecture's": sorted(report["unexpected_keys"]),
    }
    told = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in faults.items()
        if names
    ]
    if told:
        raise HarnessError(
            f"The weights of '{ref}' do not fit its config.json: the checkpoint {'; it '.join(told)}. Get the model "
            "again, or repair its names."
        )


@lru_cache(maxsize=16)
def check_model(ref: str) -> None:
    """Raises HarnessError if the model or its tokenizer could not be loaded: config, names and shapes of the weights,
    tokenizer. The embedded ones are checked by hash instead, without importing transformers."""
    path = resolve(ref)
    if is_embedded(ref):
        return
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    if not (path / "config.json").exists():
        raise HarnessError(f"'{ref}' is not a Hugging Face model folder: it has no config.json.")
    try:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=trusted())
    except Exception as error:
        raise HarnessError(f"The model '{ref}' has a broken config.json ({why(error)}).") from error
    others = [name for name in config.architectures or () if name.endswith(NO_CAUSAL_LM)]
    if others or config.is_encoder_decoder:
        name = next(iter(others or config.architectures or [config.model_type]))
        raise HarnessError(
            f"'{ref}' is a {name}, which does not write a text from left to right; name a causal language model "
            "(Llama, Qwen, GPT-2)."
        )
    weights = list(path.glob("*.safetensors"))
    if not weights:
        raise HarnessError(
            f"'{ref}' has no .safetensors weights; convert the model (pickled weights are never loaded)."
        )
    for file in weights:
        try:
            with safe_open(file, framework="np") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise HarnessError(f"The weights {file.name} of '{ref}' are damaged ({why(error)}).") from error
    try:  # names and shapes alone: nothing is read into memory
        _, report = AutoModelForCausalLM.from_pretrained(
            str(path), trust_remote_code=trusted(), use_safetensors=True, device_map="meta", **REPORTED
        )
    except Exception as error:
        raise HarnessError(f"The model '{ref}' could not be loaded ({why(error)}).") from error
    check_weights(ref, report)
    tokenizer, rows = load_tokenizer(ref), config.get_text_config().vocab_size
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise HarnessError(
            f"The tokenizer of '{ref}' knows token ids up to {largest}, its model has embeddings for {rows}; they do "
            "not belong together: get both from one place."
        )


@lru_cache(maxsize=16)
def outline(ref: str, untie_head: bool = False) -> Outline:
    """Names and shapes of the model as `load_model` gives it, by its config.json alone. Raises HarnessError."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path = resolve(ref)
    try:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=trusted())
        config.tie_word_embeddings = config.tie_word_embeddings and not untie_head
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted())
    except Exception as error:
        raise HarnessError(f"The model '{ref}' has a broken config.json ({why(error)}).") from error
    head = getattr(model.get_output_embeddings(), "weight", None)
    named = dict(model.named_parameters())
    return Outline(
        {name: tuple(value.shape) for name, value in named.items()},
        tuple(name for name, _ in model.named_modules() if name),
        next((name for name, value in named.items() if value is head), ""),
        getattr(config.get_text_config(), "hidden_size", None),
    )


NO_CAUSAL_LM = ("ForMaskedLM", "Classification", "QuestionAnswering", "ForConditionalGeneration", "ForPreTraining")
"""Endings of architectures that read in both directions or answer with labels."""


def check_encoder(path: Path) -> None:
    """Raises HarnessError where the text encoder in a sentence-transformers folder lacks weights, or has them in other
    shapes. Its pooler and the heads of its pre-training are not used."""
    from transformers import AutoModel

    for folder in (path, *sorted(path.glob("*_Transformer"))):
        config = folder / "config.json"
        if not (config.is_file() and '"model_type"' in config.read_text(encoding="utf-8", errors="replace")):
            continue
        try:
            _, report = AutoModel.from_pretrained(str(folder), device_map="meta", **REPORTED)
        except Exception as error:
            raise HarnessError(f"The model in {folder} could not be loaded ({why(error)}).") from error
        unused = [name for name in report["missing_keys"] if name.startswith("pooler.")]
        check_weights(str(folder), {**report, "unexpected_keys": ()}, given=unused)
