"""Arguments that several commands share, and the functions that read them.

Arguments of any command that no file, generator or folder can hold are refused here.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from gradlab import validation
from gradlab.cli.streams import Document, standard_error, undisturbed
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.options import check, named
from gradlab.storage import records
from gradlab.user_code import executed, is_user_function, own_names
from gradlab.validation import LARGEST

if TYPE_CHECKING:
    from torch import nn

    from gradlab.data.trajectories import Trajectories
    from gradlab.systems.system import System
    from gradlab.tasks import Task
_LONGEST, _DEEPEST = 100_000, 8  # characters of one --set, brackets within brackets

_Groups = tuple[tuple[str, ...], ...]


Whole = Annotated[int | None, named("INT")]
Number = Annotated[float | None, named("FLOAT")]
Widths = Annotated[tuple[int, ...], named("WIDTH")]
File = Annotated[str | None, named("FILE")]
TaskName = Annotated[
    Positional[str],
    named(
        "TASK",
        "A task of `gradlab list tasks`, or your own file.py:function (the file is executed).",
    ),
]
Settings = Annotated[
    UseAppendAction[_Groups],
    named("NAME=VALUE [NAME=VALUE ...]", "Parameters of the task: JSON, or else text.", "set"),
]
ModelFile = Annotated[
    str | None,
    named("FILE", "Model in place of the task's: of `gradlab fit`, or file.py:function."),
]
GradientModelFile = Annotated[
    str | None, named("FILE", "A second model, whose Jacobians are taken along --model's states.")
]
DataFile = Annotated[str | None, named("FILE|minari:ID|FOLDER")]
PolicyFile = Annotated[
    str | None,
    named("FILE", ".safetensors, or file.py:NAME. Default: the task's, else one is fitted."),
]
CriticFile = PolicyFile
Seed = Annotated[int, arg(help="Seed of every random draw.")]
Output = Annotated[Path | None, named("RUN.h5", "File of the run. Default: runs/TASK.h5.")]
Resume = Annotated[bool, arg(help="Continue a run that was stopped; repeat its other arguments.")]
Overwrite = Annotated[bool, arg(help="Replace an earlier run of that name.")]
Explain = Annotated[bool, arg(help="Print the findings below the recommendation, too.")]
NoReport = Annotated[bool, arg(help="Write no HTML report next to the run.")]
Json = Annotated[bool, arg(help="Print one JSON document.")]
_LONGEST_NAME = 200  # bytes: what is kept beside a run has longer names, 255 is the end
_FILES = (
    "file", "data", "policy", "critic", "model", "gradient_model", "profile", "export", "output",
    "html", "before", "after",
)  # fmt: skip


def named_task(name: str, settings: _Groups) -> Task:
    """The task of that name with its parameters."""
    with undisturbed():
        from gradlab.tasks import task_from_name

    return task_from_name(name, parameters(settings))


def parameters(settings: _Groups) -> dict[str, object]:
    """The values of --set by name."""
    given: dict[str, object] = {}
    for pair in (pair for group in settings for pair in group):
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set got {pair!r}, expected NAME=VALUE")
        if key in given:
            raise InputError(f"--set names {key!r} twice: keep one")
        given[key] = _value(key, text)
    return given


def _value(name: str, text: str) -> object:
    if len(text) > _LONGEST:
        raise InputError(f"--set {name} has {len(text)} characters, expected at most {_LONGEST}")
    if (deep := _depth(text)) > _DEEPEST:
        raise InputError(f"--set {name} is nested {deep} deep, expected {_DEEPEST} at most")
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if not _storable(value):
        raise InputError(
            f"--set {name} holds a number beyond 64 bits or the finite ones, or text that is not "
            f"UTF-8"
        )
    return value


def _depth(text: str) -> int:
    steps = ((c in "[{") - (c in "]}") for c in text)  # brackets within strings count, too
    return max(accumulate(steps), default=0)


def _storable(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_storable, (*value, *value.values())))
    if isinstance(value, list):
        return all(map(_storable, value))
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, int | float):
        return abs(value) < float(LARGEST) if isinstance(value, int) else math.isfinite(value)
    return True


def as_words(task: str, parameters: Mapping[str, object]) -> list[str]:
    """The words that name a task with its parameters, as `named_task` reads them."""
    pairs = []
    for key, value in parameters.items():
        plain = isinstance(value, str) and _value(key, value) == value
        pairs.append(f"{key}={value if plain else json.dumps(value)}")
    return [task, *(["--set", *pairs] if pairs else [])]


def model_option(task: Task, model: str | None, gradient_model: str | None = None) -> System | None:
    """The system of --model and --gradient-model: one model, or two as one; None without either."""
    from gradlab.systems.learned import TwoModels

    if model is None:
        if gradient_model is not None:
            raise InputError("--gradient-model needs --model: the model that gives the states")
        return None
    if model != "prior":
        states = named_model(model, task)
    elif task.prior is None:
        raise InputError(f"{task.name} has no prior model: name a file with --model")
    else:
        states = task.prior
    if gradient_model is None:
        return states
    return TwoModels(states, named_model(gradient_model, task, "--gradient-model"))


def with_model(task: Task, model: str | None, gradient_model: str | None = None) -> Task:
    """The task with the model of these options as its prior; its files are kept with a run."""
    system = model_option(task, model, gradient_model)
    if system is None:
        return task
    named = " + ".join(filter(None, (model, gradient_model)))
    return replace(task, prior=system, parameters={**task.parameters, "prior_file": named})


def named_model(name: str, task: Task | None, option: str = "--model") -> System:
    """A learned model from a checkpoint, or the return value of a user's function."""
    from gradlab.networks.checkpoint import OF_OWN, load
    from gradlab.networks.gaussian_ensemble import GaussianEnsemble
    from gradlab.systems.function import from_function
    from gradlab.systems.learned import LearnedSystem
    from gradlab.systems.system import System
    from gradlab.user_code import is_user_function, load_made

    made = is_user_function(name) and not OF_OWN.fullmatch(name)
    model: Any = load_made(name) if made else load(name)
    if inspect.isroutine(model) and task is not None:  # a function that is the step
        model = from_function(model, task.simulator.state_dim, task.simulator.action_dim)
    if isinstance(model, GaussianEnsemble):
        model = LearnedSystem(model, alive=None if task is None else task.alive)
    if not isinstance(model, System):
        kind = type(model).__name__
        raise InputError(f"{option} {name} is a {kind}, expected a System (step, linearize, …)")
    return model


def networks(**files: str | None) -> dict[str, nn.Module]:
    """The networks named on the command line, loaded before any work begins."""
    from gradlab.networks.checkpoint import load

    return {kind: load(file) for kind, file in files.items() if file is not None}


def named_data(name: str, task: Task | None) -> tuple[Trajectories, list[Document]]:
    """A record by name, with the task's names of its coordinates, and whether the task's simulator
    makes such transitions, which is also said before the work begins."""
    from gradlab.data import record_files
    from gradlab.data.trajectories import check_widths
    from gradlab.fitting import collection

    data = record_files.read(name)
    if task is None:
        return data, []
    check_widths(data, task.simulator.state_dim, task.simulator.action_dim)
    names = {key: getattr(task, key) for key in ("state_names", "action_names")}
    data = replace(data, **{key: value for key, value in names.items() if value})
    try:
        agreement = collection.agreement(task, data)
        found = Finding("transitions", agreement.decision, text=str(agreement))
    except InputError as error:
        found = Finding("unstepped", "skipped", name, at=str(error))
    standard_error(f"{name}: {found.sentence}")
    return data, [found.document]


def beside(run: Path, kind: str) -> Path:
    """The file of a fitted network."""
    return run.with_name(f"{run.stem}.{kind}.safetensors")


_FITTED = {"policy": "a stabilising policy", "critic": "a critic of the policy"}


def whose(run: Path, kinds: Sequence[str], trained: str = "") -> str:
    """Whose the networks are that were not given, and the options that give them; "" without any.

    Args:
        kinds: those that were not given.
        trained: those that come with the task, in words; "" where they were fitted.
    """
    if not kinds:
        return ""
    files = " and ".join(str(beside(run, kind)) for kind in kinds)
    fitted = f"{' and '.join(_FITTED[kind] for kind in kinds)}, fitted here and kept in {files}"
    options = " ".join(f"--{kind} FILE" for kind in kinds)
    return f"{trained or fitted}; give yours with {options}"


def check_outputs(run: Path, made: tuple[str, ...], overwrite: bool, page: bool) -> None:
    """Refuses, before the long work, what cannot be written."""
    if run.suffix not in (".h5", ".hdf5"):
        raise InputError(f"--output is {run}: name a file that ends in .h5")
    records.check_output(run, overwrite)
    for kind in made:
        records.check_output(beside(run, kind), overwrite)
    if page:
        from gradlab.reporting.output import check_page

        check_page(run)


def check_words(words: Sequence[str]) -> None:
    for k, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InputError(f"argument {k} is no UTF-8 text: rename what it names") from None
        if "\0" in word:
            raise InputError(f"argument {k} holds a NUL: leave it out")


def check_fields(command: Any) -> None:
    """Check the fields of a command, whatever their use."""
    check(command, _option)
    for field in fields(command):
        given = getattr(command, field.name)
        for value in given if isinstance(given, tuple) else (given,):
            if isinstance(value, str) and value.endswith((".py", ".py:")):
                file = value.rstrip(":")
                there = ", ".join(own_names(executed(file))) or "nothing"
                raise InputError(
                    f"{file} needs a name, {file}:NAME, and has {there}: gradlab check "
                    f"{shlex.quote(file)} says what they are"
                )
            if isinstance(value, Path) or (value is not None and field.name in _FILES):
                _check_place(_option(field.name), str(value))


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _check_place(option: str, text: str) -> None:
    """Refuses what no file can be called, and devices."""
    path = Path(text.rpartition(":")[0] if is_user_function(text) else text)
    if not text or path.name in ("", ".."):
        raise validation.expected(option, text, "the name of a file")
    longest = max(len(part.encode()) for part in path.parts)
    if longest > _LONGEST_NAME:
        raise InputError(
            f"{option} has a name of {longest} bytes, expected {_LONGEST_NAME} or less"
        )
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{option} is {text!r}, which cannot be reached ({reason})") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{option} is {text}, a device or pipe: name a file")
