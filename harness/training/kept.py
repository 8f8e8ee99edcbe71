"""The generator that a cell leaves behind: `CELL/generator`, a folder that transformers, vLLM and a further cell
(`--set generator.model=CELL/generator`) read."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.planning.shapes import known_assets
from harness.settings.schema import GeneratorSettings
from harness.store.atomic import whole_folder
from harness.store.cards import as_yaml, escape, facts, fenced, front_matter
from harness.store.record import CellRecord
from harness.training.prompts import bind_template

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FOLDER = "generator"
"""Its name in the cell's folder."""
TENSORS = "best."
"""What names of the best weights begin with in a checkpoint."""
HOW_LOADED = ("is_local", "local_files_only")
"""What transformers notes in a tokenizer of how it was read: the same one has another fingerprint offline."""


class BestWeights:
    """The weights of the best validation so far, beside the model on the CPU (`keep.generator=best`).

    direction  of the headline measure; "": neither is better, and the last weights are kept
    """

    def __init__(self, direction: str) -> None:
        self.direction = direction
        self.step: int | None = None
        self.headline = 0.0
        self.weights: dict[str, torch.Tensor] = {}

    def offer(self, step: int, headline: float, model: PreTrainedModel) -> None:
        """Takes the model's weights if the headline is the best so far; of equal ones the first stays."""
        sign = -1 if self.direction == "lower" else 1
        if self.step is None or not self.direction or sign * headline > sign * self.headline:
            self.step, self.headline = step, headline
            self.weights = {name: weight.detach().to("cpu", copy=True) for name, weight in model.named_parameters()}

    def bring_back(self, model: PreTrainedModel) -> None:
        """Gives them to the model."""
        import torch

        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(self.weights[name])

    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
        """(tensors, state) for a checkpoint."""
        if self.step is None:
            return {}, None
        return {TENSORS + name: weight for name, weight in self.weights.items()}, {
            "step": self.step,
            "headline": self.headline,
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any] | None) -> None:
        """The inverse; None: the checkpoint has none, as one of a run that did not keep the best."""
        if state is not None:
            self.step, self.headline = state["step"], state["headline"]
            self.weights = {n.removeprefix(TENSORS): w for n, w in tensors.items() if n.startswith(TENSORS)}


def write_generator(place: Path, model: PreTrainedModel, settings: GeneratorSettings, record: CellRecord) -> str:
    """Writes the model, in its own dtype, with its tokenizer, chat template, generation config and card as the folder
    `place`, whole or not at all; returns the folder's fingerprint. Raises StorageError where it cannot be written.

    The tokenizer is read anew: the one in use has been told how to pad and to cut. The generation config draws as the
    rollouts were drawn, since the base model's may say otherwise (Llama's: temperature 0.6, top-p 0.9)."""
    tokenizer = assets.load_tokenizer(settings.model)
    for name in HOW_LOADED:
        tokenizer.init_kwargs.pop(name, None)
    bind_template(tokenizer, settings.template_values)
    drawing = copy.deepcopy(model.generation_config)
    drawing.update(
        do_sample=True,
        temperature=settings.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=settings.max_completion_tokens,
    )
    drawing._from_model_config = False
    model.config.use_cache = True  # the trainer switched it off
    with whole_folder(place) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        drawing.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(record), encoding="utf-8")
    return assets.fingerprint(str(place))


# ----------------------------------------------------------------------------------------------------------------- card


def model_card(record: CellRecord) -> str:
    """The README.md of a kept generator."""
    base = record.settings["generator"]["model"]
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": hub_name(base),
        "license": hub_licence(base),
        "tags": ["synthetic-data", "grpo"],
    }
    rows = [
        ("task", record.task),
        ("reward", record.reward),
        ("variant", record.variant),
        ("seed", record.seed),
        ("profile", record.profile),
        ("identity of the cell", record.identity),
        ("kept after step", record.generator_step),
        (f"{record.measure} {f'[{record.unit}]' if record.unit else ''}".strip(), record.generator_headline),
        ("the same of the untuned generator", record.floor),
        ("better is", record.direction),
    ]
    return (
        front_matter(front)
        + f"\n# A generator of training texts: {escape(record.task)}, {escape(record.reward)}, seed {record.seed}\n\n"
        "It rewrites articles as texts that move a target model in a wanted direction when that is trained on them. "
        "GRPO trained it on a reward signal.\n\n"
        + facts(rows)
        + f"\nBase model: {base_note(base)}\n\nThe prompt holds the article in the place of `<article>`. Settings:\n\n"
        + fenced(as_yaml(without_paths(record.settings)).rstrip())
    )


def base_note(ref: str) -> str:
    """What is known of a base model and its licence, as Markdown."""
    if assets.is_embedded(ref):
        return "a small model that comes with the harness; its licence is the harness's own."
    if assets.is_local(ref):
        return f"the local folder {escape(Path(ref).name)}; its licence holds for this model too."
    licence = known_assets().get(hub_name(ref), {}).get("licence")
    told = f"its licence ({escape(licence)})" if licence else "the licence on its page there"
    return f"{escape(hub_name(ref))} of the hub; {told} holds for this model too."


def hub_name(ref: str) -> str:
    """OWNER/NAME of a base model on the hub; "" of any other."""
    return "" if assets.is_embedded(ref) or assets.is_local(ref) else ref.partition("@")[0]


def hub_licence(ref: str) -> str:
    """The hub's own word for the licence of a known base model, or ""."""
    return known_assets().get(hub_name(ref), {}).get("hub_licence", "")


def without_paths(data: Any) -> Any:
    """The same data with the last name of every local path alone: a card is made to be shown."""
    if isinstance(data, dict):
        return {name: without_paths(value) for name, value in data.items()}
    if isinstance(data, list):
        return [without_paths(value) for value in data]
    # A prompt, which alone holds "<article>", may begin like a path.
    if isinstance(data, str) and "/" in data and "<article>" not in data and assets.is_local(data):
        return Path(data).name
    return data
