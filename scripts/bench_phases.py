"""Seconds of each phase of a GRPO step beside the counted floor and the plan's estimate: random weights, true shapes.

    python scripts/bench_phases.py                                      # CPU, 1/16 of the width, minutes
    python scripts/bench_phases.py --width-divisor 1 --prompts 256      # a GPU: lambada_es as the paper has it
    python scripts/bench_phases.py --width-divisor 1 --prompts 2048 --task 67 --target gpt2 --inner-steps 8
    python scripts/bench_phases.py --profile tiny --prompts 192         # what a newcomer's first cell does
    python scripts/bench_phases.py --growth --out reports/studies/phases/growth     # how seconds grow

The harness's own code runs: TRL's trainer, generation, reward, inner training, validation. Only the models are random
and the texts are words that are one token each, so that prompts, rollouts and passages have the lengths that the
paper's have. A step of another size is a multiple: phases are linear in the number of rollouts at a given microbatch.
Writes OUT.json and OUT.md.

floor    counted FLOPs at the rate of a large matrix product measured here, in the phase's dtype
plan     what `run --dry-run` says for these settings on this device

With --growth one thing after the other is doubled from a small step: rollouts, their length, T, width. Exponents of
seconds and of FLOPs are fitted through all points, and through the last two, where fixed costs weigh least. OUT.json
keeps every point; a second call goes on there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from harness import assets
from harness.contracts import RewardContext, TaskContext
from harness.machine.devices import (
    Device,
    measured_device,
    peak_memory,
    reset_peak_memory,
    stopwatch,
    stopwatch_counts_own_seconds,
)
from harness.planning.cost import CellEstimate, estimate
from harness.planning.shapes import Shape, shape_of
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import load_profile, resolve
from harness.settings.schema import Settings
from harness.store.atomic import write_atomic, write_json
from harness.training.generation import Bfloat16Copy, generate
from harness.training.grpo import GeneratorTrainer, make_trainer
from harness.training.inner import InnerTrainer
from harness.training.offload import offloader_for_cell
from harness.training.steps import StepReport
from harness.workers.executor import prepare

NAMES = {
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "gpt2": "openai-community/gpt2",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
    "miniature": "embedded:generator",
}
PHASES = ("generation", "reward", "update", "validation")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    options = parse(arguments)
    return growth(options) if options.growth else one_size(options)


def shapes_of(options: argparse.Namespace) -> tuple[Shape, ...]:
    """Generator's and target's."""
    return tuple(shape_of(NAMES[name]).divided(options.width_divisor) for name in (options.shape, options.target))


def one_size(options: argparse.Namespace) -> dict[str, Any]:
    prepare(torch.get_num_threads(), trust=False)  # as a worker does: freed memory is kept
    set_seed(0)
    device, shapes = measured_device(), shapes_of(options)
    settings = settings_for(options)
    planned = estimate(settings, options.task, options.reward, device, shapes)
    measured, peaks = measure(settings, options, shapes)
    result = {
        "task": options.task,
        "reward": options.reward,
        "shapes": [options.shape, options.target],
        "width_divisor": options.width_divisor,
        "device": device.name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": "CPU seconds" if stopwatch_counts_own_seconds() else "seconds",
        "flops_per_second": device.flops,
        "bandwidth": device.bandwidth,
        "rollouts": settings.grpo.rollouts_per_step,
        "inner_steps": settings.inner.steps,
        "settings": settings.model_dump(mode="json"),
        "phases": compare(measured, peaks, planned, device, settings),
    }
    result |= whole_cell(result, options)
    write_json(options.out.with_suffix(".json"), result)
    write_atomic(options.out.with_suffix(".md"), table(result))
    print(table(result))
    return result


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=NAMES, default="llama-3.2-1b", help="the generator")
    parser.add_argument("--target", choices=NAMES, default="llama-3.2-1b")
    parser.add_argument("--width-divisor", type=int, default=16)
    parser.add_argument("--task", default="lambada_es")
    parser.add_argument("--reward", default="adam_metagrad")
    parser.add_argument("--profile", default="paper", help="tiny: with the miniature's shapes, undivided")
    parser.add_argument("--prompts", type=int, default=8, help="prompts of a GRPO step")
    parser.add_argument("--inner-steps", type=int, default=1)
    parser.add_argument("--passages", type=int, help="what Phi reads; default: in proportion to the prompts")
    parser.add_argument("--steps", type=int, default=3, help="measured GRPO steps, after one that warms up")
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE")
    parser.add_argument("--growth", action="store_true", help="fit how seconds grow with each size")
    parser.add_argument("--doublings", type=int, default=4, help="with --growth: of each size")
    parser.add_argument("--out", type=Path, default=Path("reports/studies/phases/cpu"))
    options = parser.parse_args(arguments)
    if options.profile == "tiny":
        options.shape = options.target = "miniature"
        options.width_divisor = 1
    return options


def settings_for(options: argparse.Namespace) -> Settings:
    from harness.settings.profiles import parse_assignment

    rollouts = 4 * options.prompts
    passages = options.passages or max(8, 2320 * options.prompts // 256)
    own = [parse_assignment(text) for text in options.assignments]
    sizes: dict[str, Any] = {
        "grpo.steps": options.steps + 1,
        "grpo.prompts_per_step": options.prompts,
        "inner.steps": options.inner_steps,
        "inner.prepend_bos": False,  # the words' tokenizer has no such token
        "validation.inner_steps": options.inner_steps,
        "data.article_count": options.prompts * (options.steps + 1),
    }
    if options.profile == "tiny":  # small enough to be measured as it is
        updates = {"grpo.updates_per_step": max(1, rollouts // 32)}
        return resolve(load_profile("tiny"), options.task, options.reward, sizes | updates | dict(own))
    on_gpu = torch.cuda.is_available()
    given = sizes | {
        "grpo.updates_per_step": max(1, rollouts // 128),
        "validation.prompts": rollouts,
        "task.options.metric_examples": passages,
        "task.options.validation_examples": passages,
        "task.options.language_id": "embedded:language_id",
    }
    if not on_gpu:  # bfloat16 is emulated there
        given |= {
            "generator.dtype": "float32",
            "grpo.microbatch": 4,
            "inner.microbatch": 8,
            "generator.batch": 64,
            "task.options.metric_microbatch": 8,
        }
    return resolve(load_profile(options.profile), options.task, options.reward, given | dict(own))


# ------------------------------------------------------------------------------------------------------------ the run


def measure(settings: Settings, options: argparse.Namespace, shapes: tuple[Shape, ...]) -> tuple[dict, dict]:
    """(phase -> seconds of each measured step, phase -> peak bytes on the GPU)."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(place):  # a CPU draws a billion numbers in half a minute
        writer, reader = random_model(shapes[0], "sdpa"), random_model(shapes[1], "eager")
    if settings.target.untie_head:
        head = reader.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    tokens, target_tokens = words(shapes[0].vocab), words(shapes[1].vocab)
    length = settings.generator.max_prompt_tokens
    prompts = [text(length, shapes[0].vocab, i) for i in range(settings.data.article_count)]
    inner = InnerTrainer(reader, target_tokens, settings.inner)
    of_task = TASKS.get(options.task)
    cost = of_task.declares.metric_cost(settings.task.options)
    passages = [text(cost.tokens, shapes[1].vocab, i) for i in range(cost.texts)] if cost else []
    task = of_task.factory(
        TaskContext(options=settings.task.options, references=lambda split: passages, asset=assets.resolve)
    )
    entry = REWARDS.get(options.reward)
    reward = entry.factory(
        RewardContext(
            task=task,
            num_generations=4,
            cross_group=True,
            options=settings.reward.options,
            load_inner=lambda: inner,
            load_tokenizer=lambda: target_tokens,
            asset=assets.resolve,
        )
    )
    bfloat16_copy = Bfloat16Copy(writer) if settings.generator.dtype == "bfloat16" else None
    offloader = offloader_for_cell(settings, writer, reader)
    seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}
    mark: dict[str, float] = {}

    def on_step(report: StepReport) -> None:
        synchronise()
        now, inside = stopwatch(), dict(watched.seconds)
        spent = {phase: inside[phase] - mark[phase] for phase in ("generation", "reward")}
        spent["update"] = now - mark["time"] - sum(spent.values())
        if report.step > 1:
            for phase, value in spent.items():
                seconds[phase].append(value)
        mark.update(time=stopwatch(), **inside)

    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(
            writer,
            tokens,
            prompts,
            reward,
            advantage=entry.advantage,
            generator=settings.generator,
            grpo=settings.grpo,
            seed=0,
            scratch=scratch,
            on_step=on_step,
            bfloat16_copy=bfloat16_copy,
            offloader=offloader,
        )
        held = lambda: [
            thing for thing in (writer, bfloat16_copy and bfloat16_copy.copy, trainer.optimizer) if thing is not None
        ]
        offloader.add("generator", held)
        offloader.add("target", lambda: [reader])
        watched = Watch(trainer)
        mark.update(time=stopwatch(), **watched.seconds)
        trainer.train()
    for _ in range(min(2, options.steps)):
        start = stopwatch()
        offloader.activate("generator")
        rollouts = generate(
            writer,
            tokens,
            prompts[: settings.validation.prompts // 4] * 4,
            settings.generator,
            seed=1,
            bfloat16_copy=bfloat16_copy,
        )
        offloader.activate("target")
        task.evaluate(rollouts, inner.with_steps(settings.validation.inner_steps))
        synchronise()
        seconds["validation"].append(stopwatch() - start)
    return seconds, watched.peaks


def random_model(shape: Shape, attention: str) -> Any:
    """A model of that very shape with random float32 weights."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    if shape.gated:
        config: Any = LlamaConfig(
            vocab_size=shape.vocab,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            max_position_embeddings=max(shape.positions, 2048),
            tie_word_embeddings=shape.tied,
        )
    else:
        config = GPT2Config(
            vocab_size=shape.vocab,
            n_positions=max(shape.positions, 1024),
            n_embd=shape.hidden,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.intermediate,
            tie_word_embeddings=shape.tied,
        )
    config.bos_token_id = config.eos_token_id = config.pad_token_id = shape.vocab - 1
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()


def words(vocab: int) -> Any:
    """A tokenizer whose tokens are words t0, t1, ... between spaces; the last id ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    table = {f"t{i}": i for i in range(vocab - 1)} | {"<eos>": vocab - 1}
    core = Tokenizer(models.WordLevel(table, unk_token="t0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>", unk_token="t0")


def text(length: int, vocab: int, seed: int) -> str:
    ids = torch.randint(vocab - 1, (length,), generator=torch.Generator().manual_seed(seed))
    return " ".join(f"t{i}" for i in ids.tolist())


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Watch:
    """Seconds in a trainer's generation and reward, and peak bytes on the GPU by phase."""

    def __init__(self, trainer: GeneratorTrainer) -> None:
        self.trainer, self.seconds, self.peaks = trainer, {"generation": 0.0, "reward": 0.0}, {}
        self._around("_generate", "generation")
        self._around("_calculate_rewards", "reward")

    def _around(self, method: str, phase: str) -> None:
        inside = getattr(self.trainer, method)

        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            self._peak("update")
            synchronise()
            start = stopwatch()
            try:
                return inside(*arguments, **keywords)
            finally:
                synchronise()
                self.seconds[phase] += stopwatch() - start
                self._peak(phase)

        setattr(self.trainer, method, wrapped)

    def _peak(self, phase: str) -> None:
        if torch.cuda.is_available():
            self.peaks[phase] = max(self.peaks.get(phase, 0), torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()


# ---------------------------------------------------------------------------------------------------------- the result


def compare(measured: dict, peaks: dict, planned: CellEstimate, device: Device, settings: Settings) -> dict[str, Any]:
    target = "tf32" if settings.target.tf32 else settings.target.dtype
    rows = {}
    for phase in planned.phases:
        dtype = target if phase.name == "reward" else settings.generator.dtype
        seconds = statistics.median(measured[phase.name])
        rows[phase.name] = {
            "seconds": seconds,
            "runs": measured[phase.name],
            "flops": phase.flops,
            "floor_seconds": phase.flops / device.flops.get(dtype, device.flops["float32"]),
            "planned_seconds": phase.seconds,
            "measured_over_planned": seconds / phase.seconds,
            "peak_bytes": peaks.get(phase.name),
            "planned_bytes": phase.memory,
        }
    return rows


def whole_cell(result: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The profile's own step and cell, from the measured phases by their number of rollouts."""
    full = resolve(load_profile(options.profile), options.task, options.reward)
    seconds = {name: row["seconds"] for name, row in result["phases"].items()}
    times = full.grpo.rollouts_per_step / result["rollouts"]
    step = times * sum(seconds[phase] for phase in PHASES[:3])
    validations = 1 + -(-full.grpo.steps // full.validation.every)
    validation = seconds["validation"] * full.validation.prompts / result["rollouts"]
    return {
        "profile_step_seconds": step,
        "profile_validation_seconds": validation,
        "profile_cell_hours": (full.grpo.steps * step + validations * validation) / 3600,
    }


def table(result: dict[str, Any]) -> str:
    wide = "1" if result["width_divisor"] == 1 else f"1/{result['width_divisor']}"
    lines = [
        f"`{result['task']}` / `{result['reward']}`, generator {result['shapes'][0]}, target {result['shapes'][1]} at "
        f"{wide} of the width, random weights; {result['rollouts']} rollouts a step, T = "
        f"{result['inner_steps']}; {result['device']}, "
        f"torch {result['torch']}. Medians, {result['clock']}.",
        "",
        "| phase | seconds | floor | seconds / floor | plan | seconds / plan | peak | planned peak |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in result["phases"].items():
        peak = f"{row['peak_bytes'] / 2**30:.1f} GiB" if row["peak_bytes"] else ""
        floor = row["floor_seconds"]
        lines.append(
            f"| {name} | {row['seconds']:.3g} | {floor:.3g} | {row['seconds'] / floor if floor else 0:.2f} | "
            f"{row['planned_seconds']:.3g} | {row['measured_over_planned']:.2f} | {peak} | "
            f"{row['planned_bytes'] / 2**30:.1f} GiB |"
        )
    step, hours = result["profile_step_seconds"], result["profile_cell_hours"]
    lines += [
        "",
        f"At the profile's size that is {step:.3g} s a GRPO step and {hours:.3g} h a cell, validation included, on "
        "this device and at this width.",
    ]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------ how cost grows

SMALLEST = {"prompts": 4, "width_divisor": 32, "inner_steps": 1, "rollout": 16}
"""Where every size starts: a step of seconds. `rollout` is in tokens, for the generator and for the target."""
GROWTH_PROMPT = 64
"""Tokens of a prompt at every point: rollouts that grow to four times as much are then what costs."""
MEMORY = 24 * 2**30
MOST_DOUBLINGS = 20
SIZES = {
    "rollouts a step": ("prompts", 2),
    "tokens a rollout": ("rollout", 2),
    "inner steps T": ("inner_steps", 2),
    "width": ("width_divisor", 0.5),
}
"""What is doubled, and how: the option and its factor."""


def growth(options: argparse.Namespace) -> dict[str, Any]:
    """Every size doubled from the same smallest step, the others held: {"points": {key: point}, "device": ...}."""
    path, device = options.out.with_suffix(".json"), measured_device()
    result = {"task": options.task, "reward": options.reward, "device": device.name, "torch": torch.__version__}
    points = json.loads(path.read_text(encoding="utf-8"))["points"] if path.exists() else {}
    for size in SIZES:
        for doubling in range(options.doublings + 1):
            name, given = point_at(options, size, doubling)
            if name not in points:
                set_seed(0)
                settings = settings_for(given)
                reset_peak_memory()
                measured, _ = measure(settings, given, shapes_of(given))
                planned = estimate(settings, given.task, given.reward, device, shapes_of(given))
                points[name] = {
                    "seconds": {phase: statistics.median(measured[phase]) for phase in PHASES},
                    "flops": {phase.name: phase.flops for phase in planned.phases},
                    "peak_bytes": peak_memory(),
                }
                write_json(path, result | {"points": points})
                print(name, points[name]["seconds"], flush=True)
    result |= {"points": points, "fits": [row for size in SIZES for row in fits(options, points, size)]}
    result["largest"] = {size: largest(options, size, device) for size in SIZES}
    write_json(path, result)
    write_atomic(options.out.with_suffix(".md"), growth_table(result))
    print(growth_table(result))
    return result


def point_at(options: argparse.Namespace, size: str, doubling: int) -> tuple[str, argparse.Namespace]:
    """(name, options) of the smallest step with one size doubled so many times."""
    option, factor = SIZES[size]
    # T splits a step's rollouts: its points have as many as its largest T has steps.
    sizes = SMALLEST | ({"prompts": 2 ** max(2, options.doublings - 2)} if option == "inner_steps" else {})
    sizes |= {option: int(sizes[option] * factor**doubling)}
    lengths = {"generator.max_completion_tokens": sizes["rollout"], "inner.max_tokens": sizes["rollout"]}
    lengths |= {"generator.max_prompt_tokens": GROWTH_PROMPT}
    given = argparse.Namespace(**vars(options) | {name: sizes[name] for name in sizes if name != "rollout"})
    given.assignments = [f"{key}={value}" for key, value in lengths.items()] + options.assignments
    return ", ".join(f"{name} {value}" for name, value in sizes.items()), given


def fits(options: argparse.Namespace, points: dict[str, Any], size: str) -> list[dict[str, Any]]:
    """For each phase the exponents of seconds and of FLOPs over that size: through all points, and the last two."""
    found = [points[point_at(options, size, doubling)[0]] for doubling in range(options.doublings + 1)]
    rows = []
    for phase in PHASES:
        row: dict[str, Any] = {"size": size, "phase": phase}
        for kind in ("seconds", "flops"):
            values = [math.log2(point[kind][phase]) if point[kind][phase] else math.nan for point in found]
            row[kind] = slope(values)
            row[f"last_{kind}"] = values[-1] - values[-2]
        rows.append(row)
    return rows


def slope(values: list[float]) -> float:
    """Least squares over 0, 1, 2, ...: logarithms to base 2 after so many doublings give an exponent."""
    return statistics.linear_regression(range(len(values)), values).slope


def largest(options: argparse.Namespace, size: str, device: Device) -> int:
    """How often that size can be doubled within `MEMORY`, by the plan; at most `MOST_DOUBLINGS` times, and to
    the whole width."""
    most = 0
    for doubling in range(MOST_DOUBLINGS + 1):
        _, given = point_at(options, size, doubling)
        if not given.width_divisor:
            break
        roomy = dataclasses.replace(device, memory=MEMORY)
        settings = settings_for(given)
        if estimate(settings, given.task, given.reward, roomy, shapes_of(given)).memory > MEMORY:
            break
        most = doubling
    return most


def growth_table(result: dict[str, Any]) -> str:
    lines = [
        f"`{result['task']}` / `{result['reward']}`, Llama-3.2-1B's layers at 1/{SMALLEST['width_divisor']} of the "
        f"width and more, random weights; {result['device']}, torch {result['torch']}, CPU seconds where one thread "
        "works. Exponents: cost grows as size to that power. The last column is the largest size by the plan in 24 GB, "
        "the others held at their smallest.",
        "",
        "| size | phase | seconds, all points | seconds, last two | FLOPs, all points | FLOPs, last two | in 24 GB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["fits"]:
        numbers = [row[name] for name in ("seconds", "last_seconds", "flops", "last_flops")]
        doublings = result["largest"][row["size"]]
        times = f"x{2**doublings}" if doublings < MOST_DOUBLINGS else "no limit"
        lines.append(
            f"| {row['size']} | {row['phase']} | {' | '.join(f'{number:.2f}' for number in numbers)} | {times} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
