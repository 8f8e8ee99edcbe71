"""`weights`: what a named matrix of the target, or a slice of it, should become."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import HarnessError, InnerTraining, Measure, Outline, Reading
from tasks import _pattern
from tasks.targets.sources import local
from tasks.targets.terms import Bound, Term

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel

    from tasks._likelihood import Params

HEAD = "head"


class WeightsTerm(Term):
    @property
    def summary(self) -> str:  # type: ignore[override]
        spec = self.spec
        if self.draws:
            return "how far the slice's change shows the picture"
        return f"{'' if spec.norm == 'up' else 'minus '}{'the norm of' if spec.norm else 'the distance to'} the slice"

    @property
    def draws(self) -> bool:
        """Whether a picture is asked for."""
        return self.spec.image is not None or self.spec.grid is not None

    @property
    def of_head(self) -> bool:
        """Whether its matrix is the LM head, by that word."""
        return self.spec.matrix == HEAD

    def measures(self) -> tuple[Measure, ...]:
        if not self.draws:
            return super().measures()
        pixels = Measure(f"{self.name}_pixels", "fraction", "higher", "entries whose change has the picture's sign")
        return (*super().measures(), pixels)

    def readings(self) -> list[Reading]:
        if self.spec.image is not None:
            return [self.file(self.spec.image)]
        return [self.checkpoint] if self.spec.distance is not None else []

    @property
    def checkpoint(self) -> Reading:
        """The other weights: a folder or file from the target's file, an embedded model or one of the hub."""
        ref = self.spec.distance
        if not assets.is_embedded(ref) and (Path(self.place.folder, ref).exists() or assets.is_local(ref)):
            return self.file(ref)
        return Reading(ref, ref)

    @cached_property
    def picture(self) -> np.ndarray | None:
        """(rows, columns) int8 of +1 and -1; None where none is asked for. Raises HarnessError."""
        if self.spec.image is not None:
            return _pattern.from_file(local(self.spec.image, self.place.folder))
        if self.spec.grid is None:
            return None
        lines = [line.strip() for line in self.spec.grid.splitlines() if line.strip()]
        if not lines or len({len(line) for line in lines}) > 1 or set("".join(lines)) - set("+-"):
            raise HarnessError(f"{self.name}: a grid is lines of + and -, all of one length.")
        return _pattern.from_rows(tuple(lines))

    def check(self, outline: Outline) -> None:
        spec = self.spec
        name = outline.head if self.of_head else spec.matrix
        if name not in outline.parameters:
            near = difflib.get_close_matches(str(name), outline.parameters, n=3, cutoff=0.4)
            hint = (
                f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(list(outline.parameters)[:8])}."
            )
            raise HarnessError(f"{self.name}: the target has no parameter '{spec.matrix}'; {hint}")
        self._span(outline.parameters[name])

    def _span(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """The slice of a matrix of this shape. Raises HarnessError where it lacks it."""
        if len(shape) != 2:
            raise HarnessError(f"{self.name}: '{self.spec.matrix}' has the shape {list(shape)}, so it is no matrix.")
        spans = []
        for axis, said in enumerate((self.spec.rows, self.spec.columns)):
            word, start = ("rows", "columns")[axis], said[0] if said else 0
            stop = said[1] if said else shape[axis]
            if self.picture is not None:
                needed = self.picture.shape[axis]
                if start + needed > stop:
                    raise HarnessError(
                        f"{self.name}: the picture has {needed} {word}, and '{self.spec.matrix}' ({shape[0]} x "
                        f"{shape[1]}) has {max(0, stop - start)} from {start} on; use a smaller one or another matrix."
                    )
                stop = start + needed
            if stop > shape[axis]:
                raise HarnessError(
                    f"{self.name}: '{self.spec.matrix}' has {shape[axis]} {word}, so there is no {start} to {stop}."
                )
            spans.append(slice(start, stop))
        return spans[0], spans[1]

    def bind(self, inner: InnerTraining, split: str) -> Bound:
        from tasks._head import head_parameter

        name = head_parameter(inner.model) if self.of_head else self.spec.matrix
        matrix = dict(inner.model.named_parameters()).get(name)
        if matrix is None:
            raise HarnessError(f"{self.name}: the target has no parameter '{name}'.")
        span = self._span(tuple(matrix.shape))
        if self.picture is not None:
            return _Drawn(name, span, matrix.detach()[span].clone(), self.picture, self.spec.sharpness, self.name)
        other = self._other(name, inner.model, tuple(matrix.shape))[span] if self.spec.distance is not None else None
        return _Norm(name, span, 1.0 if self.spec.norm == "up" else -1.0, other)

    def _other(self, name: str, model: PreTrainedModel, shape: tuple[int, ...]) -> torch.Tensor:
        """The checkpoint's matrix of this name, with or without the prefix that architectures put before it."""
        import torch
        from safetensors import SafetensorError, safe_open

        path, short = assets.resolve(self.checkpoint.ref), name.removeprefix(f"{model.base_model_prefix}.")
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        known: list[str] = []
        for file in files:
            try:
                with safe_open(file, framework="pt") as tensors:
                    known += tensors.keys()
                    found = next((each for each in (name, short) if each in tensors.keys()), None)
                    value = tensors.get_tensor(found) if found else None
            except (SafetensorError, OSError) as error:
                raise HarnessError(f"{self.name}: {self.spec.distance} is no safetensors checkpoint.") from error
            if value is not None:
                if tuple(value.shape) != shape or not bool(torch.isfinite(value).all()):
                    raise HarnessError(
                        f"{self.name}: '{name}' of {self.spec.distance} has the shape {list(value.shape)} or numbers "
                        f"that are not finite; the target's is {list(shape)}."
                    )
                return value
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {len(known)} others."
        raise HarnessError(f"{self.name}: {self.spec.distance} has no '{name}'; {hint}")


class _Norm(Bound):
    """The slice's Frobenius norm, or that of its difference from another one, times `sign`."""

    def __init__(self, name: str, span: tuple[slice, slice], sign: float, other: torch.Tensor | None) -> None:
        self.reads, self.name = (name,), name
        self.span, self.sign, self.other = span, sign, other

    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        value = params[self.name][self.span]
        yield self.sign * (value if self.other is None else value - self.other.to(value)).norm()


class _Drawn(Bound):
    """-mean log(1 + exp(-sharpness * Y * dW)), as the paper's pictures (section 4.1)."""

    def __init__(
        self,
        name: str,
        span: tuple[slice, slice],
        before: torch.Tensor,
        picture: np.ndarray,
        sharpness: float,
        term: str,
    ) -> None:
        self.reads, self.name = (name,), name
        self.span, self.before = span, before
        self.picture, self.sharpness, self.term = picture, sharpness, term

    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        import torch
        import torch.nn.functional as F

        moved = self._moved(params)
        yield F.logsigmoid(self.sharpness * torch.as_tensor(self.picture).to(moved) * moved).mean()

    def looked(self, params: Params) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        import numpy as np

        moved = self._moved(params).detach().double().cpu().numpy()
        right = float((np.sign(moved).astype(np.int8) == self.picture).mean())
        arrays = {f"{self.term}/target": self.picture, f"{self.term}/delta": moved}
        return {f"{self.term}_pixels": right}, arrays

    def _moved(self, params: Params) -> torch.Tensor:
        value = params[self.name][self.span]
        return value - self.before.to(value)


def draw(arrays: Any) -> dict[str, bytes]:
    """The PNGs of an evaluation's arrays: of each term `target`, `decoded` (the signs) and `delta`."""
    import numpy as np

    found = {}
    for key, delta in arrays.items():
        term, _, kind = key.partition("/")
        if kind == "delta":
            found[f"{term}_target"] = _pattern.png(_pattern.grey_image(arrays[f"{term}/target"]))
            found[f"{term}_decoded"] = _pattern.png(_pattern.grey_image(np.sign(delta)))
            found[f"{term}_delta"] = _pattern.png(_pattern.diverging_image(delta))
    return found
