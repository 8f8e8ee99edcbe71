"""What a target's file may say: names, types and ranges, unknown keys refused with the nearest names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.contracts import HarnessError

MOST = 10**9
MOST_TERMS = 32
Count = Annotated[int, Field(ge=1, le=MOST)]
Place = Annotated[int, Field(ge=0, le=MOST)]
Weight = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Source(Section):
    """Where rows are from: exactly one of `file`, `dataset`, `embedded` and `rows`."""

    file: Text | None = Field(None, description="JSON lines or Parquet, as a path from the target's file.")
    dataset: Text | None = Field(None, description="A data set of the hub: OWNER/NAME[/CONFIG][@REVISION].")
    split: Literal["train", "validation", "test"] = Field("train", description="With `dataset`: the part that is read.")
    embedded: Literal["passages"] | None = Field(None, description="The embedded world's passages, with their splits.")
    language: Literal["de", "en", "es", "fr", "it"] = Field("en", description="With `embedded`.")
    rows: tuple[Any, ...] | None = Field(None, description="Rows written here: texts, or mappings of fields.")
    examples: Count | None = Field(None, description="Rows of a split that are read at most; default: all.")
    whole: bool = Field(False, description="Every split is all of it: what is measured was also asked for.")

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        given = [name for name in ("file", "dataset", "embedded", "rows") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of file, dataset, embedded and rows (given: {', '.join(given) or 'none'})"
            )
        return self

    @property
    def said(self) -> str:
        """In messages."""
        return self.file or self.dataset or (f"embedded {self.embedded} ({self.language})" if self.embedded else "rows")


class Texts(Source):
    """Mean log-likelihood of a text's scored tokens, in nats per token, every text weighing the same."""

    text: Text = Field("text", description="The field of the text.")
    prompt: Text | None = Field(None, description="The field of what stands before it and is not scored.")
    scored: Literal["whole", "last_word"] = Field("whole", description="The whole text, or its last word alone.")
    max_tokens: Annotated[int, Field(ge=2, le=MOST)] | None = Field(
        None, description="Texts are cut to so many tokens; default: as many as the target reads."
    )


class Keep(Texts):
    """As good as before on these: 0 where nothing changed, below where the target got worse."""

    measure: Literal["loss", "kl"] = Field(
        "loss", description="The log-likelihood less the untrained target's, or minus the KL divergence to that."
    )


class Preference(Source):
    """Margin of chosen over rejected completions: the difference of their log-likelihoods after the prompt."""

    prompt: Text | None = Field("prompt", description="Its field; rows without it have it in both completions.")
    chosen: Text = Field("chosen", description="Its field.")
    rejected: Text = Field("rejected", description="Its field.")
    length: Literal["sum", "mean"] = Field("sum", description="A completion's log-likelihood: of all, or a token.")
    form: Literal["margin", "log_sigmoid"] = Field("margin", description="The margin, or log sigmoid(beta * margin).")
    beta: Annotated[float, Field(gt=0, le=1e6)] = 0.1
    reference: Text | None = Field(
        None, description="A model whose margin is taken off: `untrained`, a folder (from the file) or a hub id."
    )


class Weights(Section):
    """A named matrix of the target or a slice of it, judged by exactly one of `image`, `grid`, `norm`, `distance`."""

    matrix: Text = Field(description="Name of the parameter, or `head`.")
    rows: tuple[Place, Place] | None = Field(None, description="First row, and the one after the last; default: all.")
    columns: tuple[Place, Place] | None = Field(None, description="The same of its columns.")
    image: Text | None = Field(None, description="A picture that the signs of its change should show (PNG or .npy).")
    grid: str | None = Field(None, max_length=2**20, description="The same as lines of + (light) and - (dark).")
    sharpness: Annotated[float, Field(gt=0, le=1e12)] = Field(20.0, description="The paper's lambda, for a picture.")
    norm: Literal["up", "down"] | None = Field(None, description="A larger or a smaller Frobenius norm.")
    distance: Text | None = Field(None, description="Nearer to this checkpoint: a folder (from the file) or a hub id.")

    @model_validator(mode="after")
    def _one_aim(self) -> Weights:
        given = [name for name in ("image", "grid", "norm", "distance") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of image, grid, norm and distance (given: {', '.join(given) or 'none'})"
            )
        for name, span in (("rows", self.rows), ("columns", self.columns)):
            if span and span[0] >= span[1]:
                raise ValueError(f"{name} takes the first and the one after the last, so {list(span)} is empty")
        return self


class Difference(Section):
    """A direction as the mean hidden state over the texts of `toward` less that over `away`, untrained target."""

    toward: Texts
    away: Texts


class Activations(Texts):
    """Mean projection of a layer's hidden states on a direction of length 1, over the texts' tokens."""

    layer: Text = Field(description="Name of a module of the target, as transformer.h.1 or model.layers.1.")
    direction: Text | None = Field(None, description="FILE.safetensors, or FILE.safetensors:NAME of a tensor in it.")
    difference: Difference | None = None
    positions: Literal["all", "last"] = "all"

    @model_validator(mode="after")
    def _one_direction(self) -> Activations:
        if (self.direction is None) == (self.difference is None):
            raise ValueError("give exactly one of direction and difference")
        return self


class LmEval(Section):
    """A task of EleutherAI's harness: log-likelihood of the gold answer, of multiple choice its margin over the others
    on average."""

    task: Text = Field(description="A name, or a task's YAML as a path from the target's file.")
    split: Text | None = Field(None, description="The documents' split; default: the task's own for tests.")
    examples: Count | None = Field(None, description="Documents of a split that are read at most; default: all.")


class Term(Section):
    """One thing that is wanted: exactly one kind, how much it weighs and what it is called."""

    texts: Texts | None = None
    keep: Keep | None = None
    preference: Preference | None = None
    weights: Weights | None = None
    activations: Activations | None = None
    lm_eval: LmEval | None = None
    weight: Weight = Field(1.0, description="Below 0: unlearn. 0: only measured.")
    name: str = Field("", description="Of its measures; default: its kind.")

    @model_validator(mode="after")
    def _one_kind(self) -> Term:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a term is exactly one of {', '.join(KINDS)} (given: {', '.join(given) or 'none'})")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def spec(self) -> Any:
        """What it says of its kind."""
        return getattr(self, self.kind)


KINDS = ("texts", "keep", "preference", "weights", "activations", "lm_eval")


class Shares(Section):
    """Of rows that name no split themselves."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _whole(self) -> Shares:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("the shares of train, validation and test must add up to 1")
        return self


class Definition(Section):
    """What is wanted of a target, all that its numbers depend on but the content of the files that it names."""

    terms: tuple[Term, ...] = Field(min_length=1, max_length=MOST_TERMS)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Of the splits.")
    splits: Shares = Shares()
    microbatch: Count = Field(32, description="Texts a pass at most; fewer where inner.memory_budget asks for it.")
    headline: str = Field("gain", description="The measure that the task is judged by.")

    def recorded(self) -> dict[str, Any]:
        """As plain data without defaults: what a cell stores, and what its identity is taken of. A field that comes
        with a later version changes no identity."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def named_terms(self) -> list[tuple[str, Term]]:
        """(name, term): a term without a name is called by its kind, the second of a kind `texts_2`."""
        taken: dict[str, int] = {}
        found = []
        for term in self.terms:
            name = term.name or term.kind
            taken[name] = taken.get(name, 0) + 1
            again = not term.name and taken[name] > 1
            found.append((f"{name}_{taken[name]}" if again else name, term))
        return found


class File(Definition):
    """A target's file."""

    name: str = Field(description="Names the task in results.")
    summary: str = Field("", max_length=120, description="One line.")
    settings: dict[str, Any] = Field(default_factory=dict, description="As a profile's, over its own for all tasks.")

    def definition(self) -> Definition:
        kept = {name: getattr(self, name) for name in Definition.model_fields}
        return Definition.model_validate(kept)


def parsed(data: Any, what: str, model: type[Definition] = File) -> Any:
    """Plain data as a File or a Definition. Raises HarnessError, a sentence a fault."""
    if not isinstance(data, Mapping):
        raise HarnessError(f"{what} must be a mapping with some of the keys {', '.join(model.model_fields)}.")
    try:
        found = model.model_validate(data)
    except ValidationError as error:
        raise HarnessError(" ".join(dict.fromkeys(_explained(error, what, model)))) from error
    names = [name for name, _ in found.named_terms()]
    for name in names:
        if not NAME.fullmatch(name):
            raise HarnessError(
                f"{what} calls a term '{name[:60]}'; use small letters, digits and _, beginning with a letter."
            )
        if names.count(name) > 1:
            raise HarnessError(f"{what} calls two terms '{name}'; give each a name of its own.")
    return found


def _explained(error: ValidationError, what: str, model: type[BaseModel]) -> Iterator[str]:
    for one in error.errors(include_url=False):
        place = ".".join(map(str, one["loc"])) or "the file"
        if one["type"] == "extra_forbidden":
            known = _fields_at(model, one["loc"][:-1])
            name = str(one["loc"][-1])[:80]
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}."
            where = ".".join(map(str, one["loc"][:-1]))
            yield f"{what} has an unknown field '{name}'{f' in {where}' if where else ''}; {hint}"
        elif one["type"] == "missing":
            yield f"{what} lacks {place}; add it."
        else:
            given = one.get("input")
            shown = "" if isinstance(given, dict | BaseModel) else f" (given: {repr(given)[:100]})"
            yield f"{what} has a bad {place}: {one['msg'].removeprefix('Value error, ')}{shown}."


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the section at this place of a file."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = next(each for each in _models(annotation))
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)
