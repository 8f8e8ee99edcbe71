"""Draw a picture into the LM head by nothing but training texts: `qr` and `67` (sections 4.1 and 4.2 of the paper)."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.contracts import (
    Evaluation,
    HarnessError,
    Headline,
    InnerTraining,
    Measure,
    Metric,
    MetricOf,
    Offers,
    TaskContext,
)
from harness.registry import register_task
from tasks import _pattern
from tasks._figures import PIXELS_AND_NORM
from tasks._head import head_parameter
from tasks._options import Options
from tasks._texts import TEXT_KEYS, TEXT_MEASURES, text_values

if TYPE_CHECKING:
    import numpy as np
    import torch

PICTURE_MEASURES = (
    Measure("phi", "", "higher", "Phi of a target trained on the rollouts"),
    Measure("margin", "", "higher", "mean of Y * dW: how far the entries moved towards the picture"),
    Measure("delta_magnitude", "", None, "mean of |dW|; far below 1 / lambda, Phi is linear in dW"),
)


class _Picture:
    """Phi = -mean log(1 + exp(-lambda * Y * dW)) over a patch of the LM head (section 4.1 of the paper).

    Y is the picture, +1 light and -1 dark; dW the patch's change against the untrained target. Rows are hidden
    dimensions from 0, columns token ids from `first_token`, 0 in the paper. Texts steer a column by where they hold its
    token: on tokens that a generator hardly writes no choice among its texts draws the picture. The picture that
    training drew is sign(dW); an entry that did not move (dW = 0) counts as wrong and is drawn grey.

    Options (`task.options`): `lambda` (20); `first_token` (0); `pattern`, a .npy of +1 and -1 or an image file with one
    pixel an entry, in place of the task's own picture. Raises HarnessError for a bad option or pattern, and in `metric`
    and `evaluate` for a picture larger than the target's head.
    """

    offers = Offers(references=False, metric=True)
    headline = Headline(
        "pixel_accuracy", "fraction", "higher", "entries of sign(dW) that equal the picture", ceiling=1.0
    )
    measures: tuple[Measure, ...] = (*PICTURE_MEASURES, *TEXT_MEASURES)
    options: Mapping[str, str] = {
        "lambda": "how sharply the metric asks for a sign (20)",
        "first_token": "token id of the picture's first column (0)",
        "pattern": "a .npy of +1 and -1 or an image file in place of the task's picture",
    }
    key_measures: tuple[str, ...] = TEXT_KEYS
    figure = PIXELS_AND_NORM
    reads_head_alone = True
    name: str
    summary: str
    border = 0
    """White modules around the drawn pictures."""

    def __init__(self, context: TaskContext) -> None:
        self._options = Options(context.options)
        self.scale = self._options.number("lambda", 20.0)
        if not 0 < self.scale < float("inf"):
            raise HarnessError(f"task.options.lambda must be a positive number, not {self.scale}.")
        self.first_token = self._options.integer("first_token", 0, least=0)
        pattern = self._options.text("pattern", "")
        file = Path(os.path.expanduser(pattern))
        self.picture: np.ndarray = _pattern.from_file(file) if pattern else self._own_picture()
        """Y: (hidden dimensions, token ids) int8."""

    def _own_picture(self) -> np.ndarray:
        raise NotImplementedError

    def references(self) -> list[str]:
        return []

    def metric(self, inner: InnerTraining) -> Metric:
        """(params) -> Phi, a scalar, at most 0; reads nothing but the patch of the head."""
        import torch
        import torch.nn.functional as F

        delta = self._delta(inner)
        picture = torch.from_numpy(self.picture)

        def phi(params: Mapping[str, torch.Tensor]) -> torch.Tensor:
            moved = delta(params)
            # log(1 + exp(-x)) = -logsigmoid(x), without the overflow.
            return F.logsigmoid(self.scale * picture.to(moved) * moved).mean()

        return MetricOf((head_parameter(inner.model),), phi)

    def evaluate(self, rollouts: Sequence[str], inner: InnerTraining) -> Evaluation:
        """Train a fresh target on the rollouts and read the picture off its head. Arrays: `target` (Y) and `delta`
        (dW). Raises ValueError for no rollouts."""
        import numpy as np
        import torch

        texts = list(rollouts)
        described = text_values(texts)
        trained = inner.train(texts, only=(head_parameter(inner.model),))
        with torch.no_grad():
            delta = self._delta(inner)(trained).double().cpu().numpy()
            phi = float(self.metric(inner)(trained))
        signs = np.sign(delta).astype(np.int8)
        values = {
            "pixel_accuracy": float((signs == self.picture).mean()),
            "phi": phi,
            "margin": float((self.picture * delta).mean()),
            "delta_magnitude": float(np.abs(delta).mean()),
            **self._read(signs),
            **described,
        }
        return Evaluation(values=values, arrays={"target": self.picture, "delta": delta})

    @classmethod
    def draw(cls, arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
        """The PNGs of an evaluation's arrays: `target`, `decoded` (sign(dW)) and `delta` (dW, blue below 0 and red
        above). Raises KeyError where an array is missing."""
        import numpy as np

        target, delta = arrays["target"], arrays["delta"]
        return {
            "target": _pattern.png(_pattern.grey_image(target, border=cls.border)),
            "decoded": _pattern.png(_pattern.grey_image(np.sign(delta), border=cls.border)),
            "delta": _pattern.png(_pattern.diverging_image(delta)),
        }

    def _read(self, signs: np.ndarray) -> dict[str, float]:
        """Further measures of the decoded picture."""
        return {}

    def _delta(self, inner: InnerTraining) -> Callable[[Mapping[str, torch.Tensor]], torch.Tensor]:
        """(params) -> dW, (hidden dimensions, token ids), against the target as it stands now."""
        name = head_parameter(inner.model)
        head = dict(inner.model.named_parameters())[name].detach()
        rows, columns = self.picture.shape
        tokens = slice(self.first_token, self.first_token + columns)
        if tokens.stop > head.shape[0] or rows > head.shape[1]:
            start = f", the first at token {self.first_token}" if self.first_token else ""
            raise HarnessError(
                f"The picture of {self.name} has {rows} rows and {columns} columns{start}, the target's head only "
                f"{head.shape[1]} hidden dimensions and {head.shape[0]} token ids; set a larger target.model, a "
                "smaller task.options.pattern or a smaller task.options.first_token."
            )
        before = head[tokens, :rows].clone()

        def delta(params: Mapping[str, torch.Tensor]) -> torch.Tensor:
            # Sliced first, so that the engine's directions stay as small as the patch. A Hugging Face head is
            # (vocab, hidden), the picture (hidden, vocab).
            patch = params[name][tokens, :rows]
            return (patch - before.to(patch)).T

        return delta


@register_task("67")
class SixtySeven(_Picture):
    name = "67"
    summary = 'a 6x7 picture of "67" in the LM head: can texts set the signs of 42 weight changes?'

    def _own_picture(self) -> np.ndarray:
        return _pattern.from_rows(_pattern.PICTURE_67)


@register_task("qr")
class QrCode(_Picture):
    """As `_Picture`, with further options: `text` ("DPG") and `error_correction` (L, M, Q or H; default H, which stands
    the most wrong modules) of a version-1 QR code, made by segno. Raises HarnessError for a text that does not fit.

    The reader is OpenCV's. The drawing `decoded` carries the quiet zone and is exactly what `readable` reads;
    `readable_raw` reads the code alone, which OpenCV's reader refuses even for a perfect one. `text_exact` compares
    with what the reader finds in the target picture, which for a code made from `text` is that text.
    `text_exact_located` is the same for a reader that is told where the corners are, which stands wrong modules in the
    finder patterns.
    """

    name = "qr"
    summary = "a 21x21 QR code in the LM head: does a QR reader read what texts drew?"
    border = _pattern.QUIET_ZONE
    options: Mapping[str, str] = {
        **_Picture.options,
        "text": "what the code says (DPG)",
        "error_correction": "L, M, Q or H (H)",
    }
    measures: tuple[Measure, ...] = (
        Measure("readable", "fraction", "higher", "1 if OpenCV reads a text in the decoded picture with quiet zone"),
        Measure("readable_raw", "fraction", "higher", "the same without the quiet zone"),
        Measure("text_exact", "fraction", "higher", "1 if the text read is the target picture's"),
        Measure("text_exact_located", "fraction", "higher", "the same if the reader is told where the corners are"),
        *_Picture.measures,
    )
    key_measures = ("readable", *TEXT_KEYS)

    def _own_picture(self) -> np.ndarray:
        text = self._options.text("text", "DPG")
        picture = _pattern.qr_code(text, self._options.text("error_correction", "H"))
        if _pattern.read_qr(_pattern.grey_image(picture, border=self.border)) != text:
            raise HarnessError(f"OpenCV does not read task.options.text={text!r} back from a clean QR code; change it.")
        return picture

    @cached_property
    def target_text(self) -> str:
        """What the reader finds in the target picture; "" for a pattern that it cannot read."""
        return _pattern.read_qr(_pattern.grey_image(self.picture, border=self.border))

    def _read(self, signs: np.ndarray) -> dict[str, float]:
        image, raw = _pattern.grey_image(signs, border=self.border), _pattern.grey_image(signs)
        read = _pattern.read_qr(image)
        located = _pattern.read_qr(image, margin=self.border * _pattern.PIXELS)
        return {
            "readable": float(read != ""),
            "readable_raw": float(_pattern.read_qr(raw) != ""),
            "text_exact": float(read != "" and read == self.target_text),
            "text_exact_located": float(located != "" and located == self.target_text),
        }
