"""`lm_eval`: documents of a task of EleutherAI's harness (extra `lm-eval`), their gold answers scored.

A name means one of the tasks that the installed package brings, which is code like any package. A YAML file of one's
own is read as data: templates are filled in in a sandbox, `!function` and `include` are refused, and its documents
come from files beside it or from a data set of the hub. Nothing is few-shot.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.assets import hub
from harness.contracts import HarnessError, InnerTraining, MetricCost, Reading
from harness.machine.files import read_text
from harness.settings.reading import read_yaml
from tasks.targets.schema import Source
from tasks.targets.sources import Parted, Row, local, parted
from tasks.targets.terms import Bound, Term, encode, likelihood

if TYPE_CHECKING:
    import torch

    from tasks._likelihood import Likelihood, Params

FILES = ("json", "csv", "parquet", "text", "arrow")
"""Kinds of `dataset_path` whose documents lie in files."""
READ = (
    *("task", "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "test_split"),
    *("doc_to_text", "doc_to_target", "doc_to_choice", "target_delimiter", "description", "output_type"),
)
"""Of a task's YAML. What else is there is about metrics, few-shot examples and generation, which nothing here asks."""
CODE = ("include", "class", "custom_dataset", "process_docs", "use_prompt", "unsafe_code")


class LmEvalTerm(Term):
    unit = "nats"
    summary = "mean log-likelihood of the gold answer, of multiple choice less the others' mean"

    @property
    def _is_file(self) -> bool:
        return self.spec.task.endswith((".yaml", ".yml"))

    def readings(self) -> list[Reading]:
        found = [self.file(self.spec.task)] if self._is_file else []
        if self._is_file and not self.place.folder:
            return found
        config = self._config()
        if config["dataset_path"] in FILES:
            return [*found, *(self.file(name) for name in _names(config))]
        return [*found, Reading(config["dataset_path"], config["dataset_path"], data=True)]

    @cached_property
    def rows(self) -> Parted:
        documents = tuple(self._documents())
        source = Source.model_validate({"rows": documents, "examples": self.spec.examples})
        found = parted(source, "", self.place.shares, self.place.seed, ["asked", "gold"])
        return Parted(found.rows, found.said.replace("rows:", f"{self.spec.task}:", 1), found.keys)

    def cost(self) -> MetricCost:
        texts = [context + answer for row in self.limited(self.rows.rows["train"]) for context, answer in row["asked"]]
        return self.planned(Source.model_validate({"rows": ()}), texts, 8)

    def bind(self, inner: InnerTraining, split: str) -> Bound:
        rows = self.limited(self.rows.rows[split])
        code = lambda pair: encode(inner.model, inner.tokenizer, *pair)
        groups = [[code(pair) for pair in row["asked"]] for row in rows]
        shares: list[float] = []
        for row in rows:
            others = len(row["asked"]) - 1
            shares += [1.0 if k == row["gold"] else -1 / others for k in range(others + 1)]
        return _Answers(likelihood(inner.model, groups, inner, self.place.microbatch), shares, len(rows))

    # --------------------------------------------------------------------------------------------------- documents

    def _config(self) -> dict[str, Any]:
        """What the task's YAML says, nothing of it run. Raises HarnessError."""
        if self._is_file:
            path = local(self.spec.task, self.place.folder)
            try:
                data = read_yaml(read_text(path), f"The task {self.spec.task}")
            except (OSError, ValueError) as error:
                raise HarnessError(f"The task {self.spec.task} cannot be read; it must be a YAML file.") from error
            if not isinstance(data, dict) or not isinstance(data.get("dataset_path"), str):
                raise HarnessError(f"The task {self.spec.task} has no dataset_path; it must be a task of lm-eval.")
            if code := [key for key in CODE if data.get(key)]:
                raise HarnessError(
                    f"The task {self.spec.task} says {', '.join(code)}, which is code or another file; write it out."
                )
            return data
        self._check_installed()
        from lm_eval.tasks import TaskManager
        from lm_eval.tasks._yaml_loader import load_yaml

        entry = TaskManager().task_index.get(self.spec.task)
        data = load_yaml(entry.yaml_path, resolve_func=False) if entry and entry.yaml_path else {}
        if not isinstance(data.get("dataset_path"), str):
            raise HarnessError(f"{self.name}: lm-eval has no single task '{self.spec.task}' with a data set; name one.")
        return data

    def _check_installed(self) -> None:
        if find_spec("lm_eval") is None:
            raise HarnessError(
                f"{self.name} needs EleutherAI's harness; `pip install 'dpg-harness[lm-eval]'` brings it."
            )

    def _task(self) -> Any:
        """The package's task."""
        self._check_installed()
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.tasks import TaskManager

        if not self._is_file:
            return TaskManager().load(self.spec.task)["tasks"][self.spec.task]
        config = {key: value for key, value in self._config().items() if key in READ}
        folder = local(self.spec.task, self.place.folder).parent
        if config["dataset_path"] in FILES:
            files = _located(config["dataset_kwargs"]["data_files"], lambda name: str(local(name, self.place.folder)))
            config["dataset_kwargs"] = {"data_files": files}
        elif Path(config["dataset_path"]).exists() or (folder / config["dataset_path"]).exists():
            raise HarnessError(f"The task {self.spec.task}: name files by dataset_path json and data_files, no folder.")
        else:
            hub.parse(config["dataset_path"])
            config["dataset_kwargs"] = None
        chooses = config.get("doc_to_choice") is not None
        for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            if isinstance(config.get(key), str):
                config[key] = _filled(config[key], literal=key == "doc_to_choice", numbers=chooses)
        if config.get("output_type") != "multiple_choice":
            config["output_type"] = "loglikelihood"
        return ConfigurableTask(config=config)

    def _documents(self) -> Iterator[Row]:
        try:
            task = self._task()
            split = self.spec.split or task.config.test_split or task.config.validation_split
            split = split or task.config.training_split
            if split not in task.dataset:
                raise HarnessError(
                    f"The task {self.spec.task} has no split '{split}'; it has {', '.join(map(str, task.dataset))}."
                )
            for document in task.dataset[split]:
                yield _asked(task, document)
        except HarnessError:
            raise
        except Exception as error:  # of the package, of its data and of templates
            first = (str(error).strip() or "no message").splitlines()[0][:200]
            raise HarnessError(
                f"The task {self.spec.task} cannot be used ({type(error).__name__}: {first})."
            ) from error


def _asked(task: Any, document: Mapping[str, Any]) -> Row:
    """{asked: [[context, answer], ...], gold: which}: the gold answer alone, or all choices."""
    config = task.config
    before = config.description if isinstance(config.description, str) else ""
    delimiter = config.target_delimiter or ""
    context, target = task.doc_to_text(document), task.doc_to_target(document)
    if task.OUTPUT_TYPE != "multiple_choice":
        target = target[0] if isinstance(target, list) else target
        return {"asked": [[before + str(context), f"{delimiter}{target}"]], "gold": 0}
    choices = [str(choice) for choice in task.doc_to_choice(document)]
    if isinstance(context, int):  # the choices stand in the context, and what follows is the same
        return {"asked": [[before + choice, f"{delimiter}{target}"] for choice in choices], "gold": context}
    target = target[0] if isinstance(target, list) else target
    gold = target if isinstance(target, int) else choices.index(str(target))
    if not 0 <= gold < len(choices) or len(choices) < 2:
        raise HarnessError(f"A document has {len(choices)} choices and the gold one is number {gold}; repair it.")
    return {"asked": [[before + context, f"{delimiter}{choice}"] for choice in choices], "gold": gold}


def _filled(template: str, *, literal: bool, numbers: bool) -> Callable[[Mapping[str, Any]], Any]:
    """(document) -> the field of this name, or the template filled in without access to anything else; as the package
    has it, choices are then a list as Python writes it, and digits the number of a choice."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    compiled = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(
        template
    )

    def fill(document: Mapping[str, Any]) -> Any:
        if template in document:
            return document[template]
        text = compiled.render(**document)
        if literal:
            return ast.literal_eval(text)
        return int(text) if numbers and text.isdigit() else text

    return fill


def _names(config: Mapping[str, Any]) -> list[str]:
    """The documents' files, as the YAML has them."""
    found: list[str] = []

    def note(name: str) -> str:
        found.append(name)
        return name

    _located((config.get("dataset_kwargs") or {}).get("data_files"), note)
    if not found:
        raise HarnessError("A task of lm-eval on files needs dataset_kwargs with data_files; name them.")
    return found


def _located(files: Any, place: Callable[[str], str]) -> Any:
    """`data_files` with each name placed: a name, a list of them, or either by split."""
    if isinstance(files, Mapping):
        return {split: _located(each, place) for split, each in files.items()}
    if isinstance(files, list):
        return [place(name) for name in files]
    return place(files) if isinstance(files, str) else files


class _Answers(Bound):
    def __init__(self, texts: Likelihood, shares: list[float], documents: int) -> None:
        self.texts, self.shares, self.documents = texts, shares, documents

    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        import torch

        for sums, _, places in self.texts.each(params):
            yield (torch.tensor(self.shares).to(sums)[places] * sums).sum() / self.documents
