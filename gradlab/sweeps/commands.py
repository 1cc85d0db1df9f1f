"""What a sweep has to know of a command: its fields, and how their values become words."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradlab.errors import InputError
from gradlab.validation import shown

PARAMETERS = "set"  # the one field that is a table, of a task's parameters
# Fields that no row may have, with the reason.
CHOSEN = {
    "output": "the sweep names every run's file; --output of `gradlab sweep` is their folder",
    "html": "the sweep names every run's page",
    "resume": "--resume of `gradlab sweep` goes on with every run that can be",
    "overwrite": "a sweep replaces nothing: name another folder, or go on with resume=True",
    "json": "each run's output goes to its log, in words",
    "explain": "each run's output goes to its log: see its page",
}


@dataclass(frozen=True)
class Command:
    """One command of the command line.

    Attributes:
        positional: the fields that are given without a name, in order.
        fields: names of all fields that a row may have.
        files: the options that name what a run writes, with their suffixes; the first is the run.
        again: words that let a run start anew at its file, or go on there.
    """

    name: str
    positional: tuple[str, ...]
    fields: tuple[str, ...]
    files: Mapping[str, str]
    again: Callable[[Path], list[str]]

    @property
    def suffix(self) -> str:
        """That of a run's file."""
        return next(iter(self.files.values()))

    def check_field(self, name: str, place: str) -> None:
        """
        Raises:
            InputError: no row may have a field of that name; says why, or which are nearest.
        """
        if name in CHOSEN:
            raise InputError(f"{place} has {name!r}: {CHOSEN[name]}")
        if name not in self.fields:
            near = difflib.get_close_matches(name, self.fields, n=3, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else f"see gradlab {self.name} --help"
            raise InputError(f"{place} has {name!r}, no field of `gradlab {self.name}` ({hint})")

    def words(self, values: Mapping[str, object], place: str) -> list[str]:
        """The command with these values, without what it writes.

        Raises:
            InputError: a positional field is missing, or a value cannot be an option's.
        """
        for name in self.positional:
            if name not in values:
                raise InputError(f"{place} has no {name!r}: give one in [settings], e.g.")
        first = [_word(name, values[name], place) for name in self.positional]
        options = [name for name in values if name not in self.positional]
        return [self.name, *first, *(w for name in options for w in _words(name, values, place))]

    def outputs(self, run: Path) -> list[str]:
        """The words that name what a run writes."""
        return [
            word
            for option, suffix in self.files.items()
            for word in (f"--{option}", str(run.with_name(run.stem + suffix)))
        ]


def _words(name: str, values: Mapping[str, object], place: str) -> list[str]:
    """The words of one option."""
    option, value = f"--{name.replace('_', '-')}", values[name]
    if value is None or isinstance(value, bool):
        return [option] if value else []
    if isinstance(value, Mapping):
        keys = [_word(name, key, place) for key in value]
        given = zip(keys, value.values(), strict=True)
        return [option, *(f"{key}={_json(each)}" for key, each in given)] if value else []
    if isinstance(value, list | tuple):
        return [option, *(_word(name, each, place) for each in value)] if value else []
    text = _text(name, value, place)
    # Else "-0.5" and "-file" would be read as options.
    return [f"{option}={text}"] if text.startswith("-") else [option, text]


def _word(name: str, value: object, place: str) -> str:
    """A value that stands alone, where text such as "--help" would be an option."""
    text = _text(name, value, place)
    if isinstance(value, str) and text.startswith("-"):
        raise InputError(f"{place}: {name} has {shown(value)}, which begins with -: give a name")
    return text


def _text(name: str, value: object, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{place}: {name} has {shown(value)}, expected text or a number")
    return str(value)


def _json(value: object) -> str:
    """A parameter's value as --set takes it: text stays as it is unless it would be a number."""
    if isinstance(value, str) and not _is_json(value):
        return value
    try:
        return json.dumps(value)
    except TypeError:
        raise InputError(
            f"{PARAMETERS} has {shown(value)}, expected text, a number or a list"
        ) from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def known(names: Sequence[str], got: object) -> str:
    """The name of a command that can be swept.

    Raises:
        InputError: it is none of them.
    """
    if not isinstance(got, str) or got not in names:
        near = difflib.get_close_matches(str(got), names, n=1)
        hint = f" (nearest: {near[0]})" if near else ""
        raise InputError(
            f"command of the sweep is {shown(got)}{hint}, expected one of {', '.join(names)}"
        )
    return got
