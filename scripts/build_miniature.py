"""Rebuild the embedded miniature: tokenizer, generator, target, language identifier and static embedding.

    python scripts/build_miniature.py                         everything, about 30 minutes on two idle cores
    python scripts/build_miniature.py --only tokenizer        one stage (or several: --only generator,target)
    python scripts/build_miniature.py --into /tmp/copy        somewhere else, to compare with what is shipped
    python scripts/build_miniature.py --only quality --samples samples.txt    measure what is there

Stages, in order: tokenizer, language_id, embedding, generator, target (these two side by side), quality. The generator
and the target need the tokenizer; quality needs everything. A stage writes its folder and its entry in manifest.json
(sha256 and size of every file, settings, package versions) when it has finished; an interrupted one leaves what was
there. Two builds on the same machine and package versions give identical files: every stage runs on one thread and
every random stream is seeded. Different CPUs may differ in the last bits of the trained weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

# One thread: sums in a fixed order, so that a rebuild gives the same bits.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

from harness.miniature import ASSETS, combined, corpus, file_hash  # noqa: E402

PACKAGES = ("torch", "transformers", "tokenizers", "fasttext", "sentence-transformers", "numpy")
SPECIAL = ("<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|endoftext|>' }}"
    "{% else %}{{ '<|user|>' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def say(stage: str, text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {stage:<11} {text}", flush=True)


# ----------------------------------------------------------------------------------------------------------- tokenizer

TOKENIZER = {"vocabulary": 1024, "documents": 12_000}


def byte_level_bpe(texts: Iterable[str], size: int) -> Any:
    """A `tokenizers.Tokenizer`: byte-level BPE of `size` entries, bytes first (so ids 0-20 are '!' to '5'), every digit
    a piece of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def build_tokenizer(into: Path, _assets: Path) -> dict[str, Any]:
    from transformers import PreTrainedTokenizerFast

    size = TOKENIZER["vocabulary"] - len(SPECIAL)
    core = byte_level_bpe(corpus.tokenizer_texts(TOKENIZER["documents"]), size)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[1],
        extra_special_tokens=list(SPECIAL[2:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=LM_SHAPE["n_positions"],
        clean_up_tokenization_spaces=False,
    )
    if len(tokenizer) != TOKENIZER["vocabulary"]:
        raise SystemExit(f"the tokenizer has only {len(tokenizer)} entries: it needs more documents")
    tokenizer.save_pretrained(into)
    lengths = [len(tokenizer(text)["input_ids"]) for text in corpus.articles("validation", 300)]
    say(
        "tokenizer",
        f"prompt {len(tokenizer(corpus.PROMPT)['input_ids'])} tokens; articles mean "
        f"{sum(lengths) / len(lengths):.0f}, longest {max(lengths)}",
    )
    return dict(TOKENIZER)


# ----------------------------------------------------------------------------------------------------- language models

LM_SHAPE = {"vocab_size": 1024, "n_positions": 256, "n_embd": 128, "n_layer": 3, "n_head": 4}


@dataclass(frozen=True)
class LmSettings:
    """Plain documents and prompted ones are separate micro-batches of one optimizer step. Muon trains the matrices of
    the blocks, Adam the rest: at equal tokens it brought the loss from 1.74 (AdamW throughout) to 1.10 nats."""

    steps: int
    plain: int
    prompted: int
    practice: int = 0  # how many steps, the first ones, answer in other languages often (corpus.generator_documents)
    muon_lr: float = 1e-2
    muon_momentum: float = 0.95
    adam_lr: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup: int = 50
    clip: float = 1.0
    seed: int = 0


GENERATOR = LmSettings(steps=8400, plain=16, prompted=7, practice=4200)
TARGET = LmSettings(steps=800, plain=24, prompted=0)


def quiet() -> None:
    """No progress bars inside the log, and no advice: right-padded training needs no attention mask."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def load_tokenizer(assets: Path) -> Any:
    from transformers import AutoTokenizer

    if not (assets / "tokenizer" / "tokenizer.json").exists():
        raise SystemExit("there is no tokenizer yet: run the stage `tokenizer` first")
    return AutoTokenizer.from_pretrained(assets / "tokenizer")


Row = tuple[list[int], int]  # token ids, how many of the first are not scored


def encode(documents: Iterator[corpus.Document], tokenizer: Any) -> list[Row]:
    """Plain: bos text eos, scored after bos. Prompted: user PROMPT article assistant text eos, scored after assistant
    and the words that are given. The chat template says the same (a test compares)."""
    user, assistant = tokenizer.convert_tokens_to_ids(list(SPECIAL[2:]))
    end = tokenizer.eos_token_id
    every = list(documents)
    texts = tokenizer([document.text for document in every])["input_ids"]
    if every[0].prompt is None:
        return [([end, *text, end], 1) for text in texts]
    prompts = tokenizer([document.prompt for document in every])["input_ids"]
    givens = tokenizer([" ".join(document.text.split(" ")[: document.given]) for document in every])["input_ids"]
    return [
        ([user, *prompt, assistant, *text, end], 2 + len(prompt) + len(given))
        for prompt, text, given in zip(prompts, texts, givens, strict=True)
    ]


def batches(rows: list[Row], size: int, pad: int, rng: Random) -> list[Any]:
    """Shuffled batches (input_ids, labels), each (size, S) int64, of rows of similar length, right-padded."""
    import torch

    longest = LM_SHAPE["n_positions"]
    groups = []
    for start in range(0, len(rows), 16 * size):
        window = sorted(rows[start : start + 16 * size], key=lambda row: len(row[0]))
        groups += [window[i : i + size] for i in range(0, len(window), size)]
    rng.shuffle(groups)
    made = []
    for group in groups:
        length = min(longest, max(len(ids) for ids, _ in group))
        padded = [(ids + [pad] * length)[:length] for ids, _ in group]
        labels = [([-100] * first + ids[first:] + [-100] * length)[:length] for ids, first in group]
        made.append((torch.tensor(padded), torch.tensor(labels)))
    return made


def new_lm(tokenizer: Any, seed: int) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        **LM_SHAPE,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return GPT2LMHeadModel(config)


def train_lm(name: str, model: Any, steps: list[list[Any]], settings: LmSettings) -> None:
    """Train in place; `steps` holds the micro-batches of every optimizer step. The loss is the mean over all scored
    tokens of the step."""
    import torch
    import torch.nn.functional as F

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("transformer.h.")]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or not n.startswith("transformer.h.")]
    optimizers = [
        torch.optim.Muon(
            matrices,
            lr=settings.muon_lr,
            momentum=settings.muon_momentum,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.Adam(rest, lr=settings.adam_lr, betas=settings.betas),
    ]

    def schedule(step: int) -> float:
        warm = min(1.0, (step + 1) / settings.warmup)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / len(steps)))))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) for optimizer in optimizers]
    model.train()
    started, tokens, shown = time.monotonic(), 0, [0.0] * max(len(part) for part in steps)
    for step, parts in enumerate(steps):
        scored = sum(int((labels[:, 1:] != -100).sum()) for _, labels in parts)
        for kind, (ids, labels) in enumerate(parts):
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")
            (loss / scored).backward()
            mean = loss.item() / int((labels[:, 1:] != -100).sum())
            shown[kind] = mean if step == 0 else 0.95 * shown[kind] + 0.05 * mean
            tokens += ids.numel()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for each in (*optimizers, *schedulers):
            each.step()
        model.zero_grad(set_to_none=True)
        if (step + 1) % 50 == 0 or step + 1 == len(steps):
            spent = time.monotonic() - started
            losses = " ".join(f"{value:.3f}" for value in shown)
            left = spent / (step + 1) * (len(steps) - step - 1)
            say(name, f"step {step + 1}/{len(steps)} loss {losses} ({tokens / spent:.0f} tokens/s, {left:.0f} s left)")
    model.eval()


def build_lm(name: str, into: Path, assets: Path) -> dict[str, Any]:
    import torch

    quiet()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer, settings = load_tokenizer(assets), GENERATOR if name == "generator" else TARGET
    rng, pad = Random(settings.seed), tokenizer.pad_token_id
    if name == "generator":
        plain = corpus.generator_documents(settings.steps * settings.plain, prompted=False)
        phases = ((settings.practice, True), (settings.steps - settings.practice, False))
        parts = (
            corpus.generator_documents(steps * settings.prompted, prompted=True, practice=practice)
            for steps, practice in phases
        )
        kinds = [
            batches(encode(plain, tokenizer), settings.plain, pad, rng),
            [batch for part in parts for batch in batches(encode(part, tokenizer), settings.prompted, pad, rng)],
        ]
    else:
        plain = corpus.target_documents(settings.steps * settings.plain)
        kinds = [batches(encode(plain, tokenizer), settings.plain, pad, rng)]
    model = new_lm(tokenizer, settings.seed)
    say(
        name,
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, "
        f"{sum(ids.numel() for kind in kinds for ids, _ in kind) / 1e6:.1f} M tokens",
    )
    train_lm(name, model, [list(parts) for parts in zip(*kinds, strict=True)], settings)
    # Trained with the tanh approximation; the exact curve is within 5e-4 of it and costs a CPU a quarter.
    model.config.activation_function = "gelu"
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)
    return asdict(settings) | LM_SHAPE | {"tokenizer": file_hash(assets / "tokenizer" / "tokenizer.json")}


# --------------------------------------------------------------------------------------------------------- language id

LANGUAGE_ID = {
    "examples": 16_000,
    "dim": 8,
    "bucket": 8_000,
    "minn": 2,
    "maxn": 4,
    "minCount": 40,
    "epoch": 10,
    "lr": 0.2,
    "wordNgrams": 1,
    "loss": "softmax",
    "seed": 0,
    "thread": 1,
}


TRAIN_LANGUAGE_ID = """
import json, sys, fasttext
fasttext.train_supervised(sys.argv[1], verbose=0, **json.loads(sys.argv[3])).save_model(sys.argv[2])
"""


def build_language_id(into: Path, _assets: Path) -> dict[str, Any]:
    """fastText 0.9.3 on one thread sets only a tenth of its input matrix and leaves the rest as the memory was: now a
    NaN, now not, and another file each time. glibc's MALLOC_PERTURB_=255 hands memory out as zeros, which trains well;
    it is read when a process starts, hence the subprocess."""
    options = {key: value for key, value in LANGUAGE_ID.items() if key != "examples"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        with file.open("w", encoding="utf-8") as lines:
            for text, language in corpus.language_examples(LANGUAGE_ID["examples"]):
                lines.write(f"__label__{language} {text}\n")
        subprocess.run(
            [sys.executable, "-c", TRAIN_LANGUAGE_ID, str(file), str(into / "model.bin"), json.dumps(options)],
            check=True,
            env=os.environ | {"MALLOC_PERTURB_": "255"},
        )
    return dict(LANGUAGE_ID)


# ----------------------------------------------------------------------------------------------------------- embedding

EMBEDDING = {
    "vocabulary": 4096,
    "dim": 64,
    "pairs": 80_000,
    "batch": 256,
    "lr": 0.03,
    "scale": 20.0,
    "seed": 0,
    "tokenizer_documents": 12_000,
}


def build_embedding(into: Path, _assets: Path) -> dict[str, Any]:
    """In-batch negatives (the multiple negatives ranking loss of sentence-transformers), both directions."""
    import torch
    import torch.nn.functional as F
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.set_num_threads(1)
    torch.manual_seed(EMBEDDING["seed"])
    core = byte_level_bpe(corpus.tokenizer_texts(EMBEDDING["tokenizer_documents"]), EMBEDDING["vocabulary"])
    module = StaticEmbedding(core, embedding_dim=EMBEDDING["dim"])
    with torch.no_grad():
        module.embedding.weight.normal_(std=0.1)
    optimizer = torch.optim.Adam(module.parameters(), lr=EMBEDDING["lr"])
    pairs, size = list(corpus.embedding_pairs(EMBEDDING["pairs"])), EMBEDDING["batch"]
    steps = len(pairs) // size

    def embed(texts: list[str]) -> torch.Tensor:
        rows = [encoding.ids for encoding in core.encode_batch(texts, add_special_tokens=False)]
        offsets = torch.tensor([0, *(len(row) for row in rows[:-1])]).cumsum(0)
        return F.normalize(module.embedding(torch.tensor([i for row in rows for i in row]), offsets), dim=1)

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = EMBEDDING["lr"] * (1 - step / steps)
        first, second = zip(*pairs[step * size : (step + 1) * size], strict=True)
        scores = EMBEDDING["scale"] * embed(list(first)) @ embed(list(second)).T
        goal = torch.arange(size)
        loss = (F.cross_entropy(scores, goal) + F.cross_entropy(scores.T, goal)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            say("embedding", f"step {step + 1}/{steps} loss {loss.item():.3f}")
    SentenceTransformer(modules=[module], device="cpu").save(str(into), create_model_card=False)
    return dict(EMBEDDING)


# ------------------------------------------------------------------------------------------------------------- quality


def build_quality(assets: Path, samples: Path | None) -> dict[str, Any]:
    """Figures for the manifest (see harness/miniature/quality.py); sampled texts go to the file `samples`."""
    import torch

    from harness.miniature import quality

    quiet()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"language_id": quality.language_id(assets), "embedding": quality.embedding(assets)}
    for name in figures:
        say("quality", f"{name}: {json.dumps(figures[name])}")
    figures["generator"], texts = quality.generator(assets)
    say("quality", f"generator: {json.dumps(figures['generator'])}")
    if samples is not None:
        samples.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    losses = {
        "target": quality.last_word_losses(assets / "target"),
        "generator": quality.last_word_losses(assets / "generator"),
    }
    tokenizer = load_tokenizer(assets)
    for language in corpus.OTHER_LANGUAGES:
        settings = LmSettings(steps=REFERENCE_STEPS, plain=24, prompted=0, muon_lr=5e-3, adam_lr=2e-3)
        documents = corpus.reference_documents(settings.steps * settings.plain, language)
        rows = encode(documents, tokenizer)
        parts = [[part] for part in batches(rows, settings.plain, tokenizer.pad_token_id, Random(0))]
        model = quality.load_lm(assets / "target")
        train_lm(f"ref-{language}", model, parts, settings)
        losses[f"target after {settings.steps} steps on {language}"] = {
            language: quality.last_word_loss(model, tokenizer, language)
        }
    figures["token_nats"] = {name: quality.token_losses(assets / name) for name in ("generator", "target")}
    say("quality", f"nats a token: {json.dumps(figures['token_nats'])}")
    figures["last_word_nats"] = losses
    for name, values in losses.items():
        say("quality", f"last word, nats a word, {name}: {json.dumps(values)}")
    return figures


REFERENCE_STEPS = 200


def scan_corpora() -> dict[str, int]:
    """Every text that the stages train on, searched for the components of the task's UUID."""

    def words(documents: Iterator[corpus.Document]) -> Iterator[str]:
        return (f"{document.prompt or ''}\n{document.text}" for document in documents)

    plain, prompted = GENERATOR.steps * GENERATOR.plain, GENERATOR.steps * GENERATOR.prompted
    practised = corpus.generator_documents(GENERATOR.practice * GENERATOR.prompted, prompted=True, practice=True)
    return corpus.scan(
        {
            "articles": (text for split in corpus.SUBJECTS for text in corpus.articles(split)),
            "tokenizer": corpus.tokenizer_texts(TOKENIZER["documents"]),
            "language_id": (text for text, _ in corpus.language_examples(LANGUAGE_ID["examples"])),
            "embedding": (f"{first}\n{second}" for first, second in corpus.embedding_pairs(EMBEDDING["pairs"])),
            "generator, plain": words(corpus.generator_documents(plain, prompted=False)),
            "generator, practice": words(practised),
            "generator, prompted": words(corpus.generator_documents(prompted, prompted=True)),
            "target": words(corpus.target_documents(TARGET.steps * TARGET.plain)),
        }
    )


# ---------------------------------------------------------------------------------------------------------------- main

STAGES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "tokenizer": build_tokenizer,
    "language_id": build_language_id,
    "embedding": build_embedding,
    "generator": lambda into, assets: build_lm("generator", into, assets),
    "target": lambda into, assets: build_lm("target", into, assets),
}
SIDE_BY_SIDE = ("generator", "target")


def run_stage(name: str, assets: Path) -> dict[str, Any]:
    """Build one asset beside its place, then put it there. Returns its manifest entry."""
    started = time.monotonic()
    say(name, "started")
    assets.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=assets, prefix=f".{name}-") as folder:
        built = Path(folder) / name
        built.mkdir()
        settings = STAGES[name](built, assets)
        for file in built.rglob("*"):
            file.chmod(0o644)
        shutil.rmtree(assets / name, ignore_errors=True)
        built.rename(assets / name)
    files = {
        str(file.relative_to(assets / name).as_posix()): {"sha256": file_hash(file), "bytes": file.stat().st_size}
        for file in sorted((assets / name).rglob("*"))
        if file.is_file()
    }
    size = sum(file["bytes"] for file in files.values())
    say(name, f"done in {time.monotonic() - started:.0f} s, {size / 1e6:.2f} MB")
    return {"fingerprint": combined(files), "files": files, "settings": settings}


def record(assets: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change manifest.json, written whole or not at all."""
    file = assets / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"version": 1, "assets": {}}
    change(manifest)
    manifest["packages"] = {package: version(package) for package in PACKAGES}
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(file)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        default=",".join([*STAGES, "quality"]),
        metavar="STAGE[,STAGE]",
        help="stages to run, in their fixed order (default: all)",
    )
    parser.add_argument("--into", type=Path, default=ASSETS, metavar="FOLDER", help="default: the package's assets")
    parser.add_argument("--jobs", type=int, default=2, help="processes for generator and target (default: 2)")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="where `quality` writes sampled texts")
    chosen = parser.parse_args()
    chosen.only = chosen.only.split(",")
    unknown = [name for name in chosen.only if name not in (*STAGES, "quality")]
    if unknown:
        parser.error(f"unknown stage {unknown[0]!r}: choose from {', '.join([*STAGES, 'quality'])}")
    return chosen


def main() -> None:
    chosen = arguments()
    assets: Path = chosen.into.resolve()
    for name in (name for name in STAGES if name in chosen.only and name not in SIDE_BY_SIDE):
        entry = run_stage(name, assets)
        record(assets, lambda manifest, name=name, entry=entry: manifest["assets"].__setitem__(name, entry))
    together = [name for name in SIDE_BY_SIDE if name in chosen.only]
    if together:
        with ProcessPoolExecutor(max(1, min(chosen.jobs, 2)), mp_context=get_context("spawn")) as pool:
            running = {pool.submit(run_stage, name, assets): name for name in together}
            for future in as_completed(running):
                name, entry = running[future], future.result()
                record(assets, lambda manifest, name=name, entry=entry: manifest["assets"].__setitem__(name, entry))
    if "quality" in chosen.only:
        found = scan_corpora()
        say("quality", f"texts with a component of the task's UUID: {json.dumps(found)}")
        figures = build_quality(assets, chosen.samples) | {"forbidden_texts": found}
        record(assets, lambda manifest: manifest.__setitem__("quality", figures))


if __name__ == "__main__":
    main()
