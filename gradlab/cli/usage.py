"""From the words of a command to its dataclass; an error of the parser is one line of text.

A command's help is the docstring of its class (a question, remarks and two indented examples), then
tyro's own page of its arguments.
"""

from __future__ import annotations

import difflib
import inspect
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import tyro
from tyro._errors import (
    BadValue,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    UnrecognizedArgs,
    on_parse_error,
)
from tyro.conf import FlagCreatePairsOff

from gradlab.errors import InputError
from gradlab.options import hints

_WIDTH, _LONGEST = 80, 400  # columns of the text above the arguments; characters of a refusal
_VALUES = {  # what the parser says of a value: what is expected, "" for what its option takes
    r"invalid literal for int\(\) with base 10: (.*)": "an integer",
    r"could not convert string to float: (.*)": "a number",
    r"no type .+ instantiated from \[(.*?)\]": "",
}


def question(command: type) -> str:
    """The first line of a command's docstring."""
    return (inspect.getdoc(command) or "").partition("\n")[0]


def overview(commands: Mapping[str, type]) -> str:
    """The page of `gradlab --help`: every command with its question."""
    rows = (
        textwrap.fill(question(each), _WIDTH, initial_indent=f"  {name:11}",
                      subsequent_indent=" " * 13)
        for name, each in commands.items()
    )  # fmt: skip
    return "\n".join(
        ("How good is your policy gradient?", "", "usage: gradlab COMMAND [options]", "",
         "Commands:", *rows, "", "`gradlab COMMAND --help` shows its options and two examples.")
    )  # fmt: skip


def parsed(name: str, command: type, words: Sequence[str]) -> Any:
    """The command that these words are.

    Raises:
        InputError: they are not; SystemExit: they ask for help, which is printed.
    """
    blocks = (inspect.getdoc(command) or "").split("\n\n")
    about = "\n\n".join(
        textwrap.indent(textwrap.dedent(each), "  ")
        if each.startswith(" ")
        else textwrap.fill(each, _WIDTH)
        for each in blocks
    )
    if {"-h", "--help"} & set(words):
        print(about, end="\n\n")
    with on_parse_error(partial(_refuse, name, command, words)):
        return tyro.cli(
            command, prog=f"gradlab {name}", description="", args=words,
            config=(FlagCreatePairsOff,),
        )  # fmt: skip


def meant(word: str, known: Collection[str]) -> str:
    """The names that are near to a word, as a question; "" where none is."""
    near = difflib.get_close_matches(word, known, n=2)
    return f": did you mean {' or '.join(near)}?" if near else ""


def _refuse(name: str, command: type, words: Sequence[str], event: ParseErrorEvent) -> NoReturn:
    """Raises what is wrong with the words, in one short line."""
    of, see, options = f"gradlab {name}", f"; see gradlab {name} --help", _options(command)
    typed = [each.partition("=")[0] for each in words if each.startswith("--") and len(each) > 2]
    argument: Any = getattr(event, "argument", None)
    shown = ""
    if argument is not None:
        shown = argument.lowered.metavar if argument.is_positional() else argument.display_name()
    if unknown := [each for each in typed if each not in options]:
        reason = getattr(command, "WITHOUT", {}).get(unknown[0])
        more = f": {reason}" if reason else meant(unknown[0], options)
        told = f"{of} has no option {unknown[0]}{more}"
    elif isinstance(event, UnrecognizedArgs):
        told = f"{of} takes no further {event.tokens[0]!r}"
    elif isinstance(event, MissingArgs):
        missed = (each.arg.get_invocation_text()[1] for each in event.missing_arguments)
        told = f"{of} needs {' '.join(map(str, missed))}"
    elif isinstance(event, BadValue):
        told = f"{of}: {shown} needs a value" if shown.startswith("-") else f"{of} needs {shown}"
    elif isinstance(event, InvalidChoice):
        choices = ", ".join(each for each in event.choices if each != "None")
        told = f"{shown} is {event.value!r}, expected one of {choices}"
    else:
        told = getattr(event, "message", f"{of} cannot be understood")
        told = f"{shown}: {told}" if shown else told
        for pattern, wanted in _VALUES.items():
            if found := re.search(pattern, told):
                takes = wanted or argument.lowered.metavar
                told = f"{shown} is {found[1]}, expected {takes}"
    raise InputError(f"{told[:_LONGEST].rstrip(' .')}{see}")


def _options(command: type) -> list[str]:
    """Its options as they are typed."""
    found = ["--help"]
    for field, hint in hints(command).items():
        marks = (getattr(each, "name", None) for each in getattr(hint, "__metadata__", ()))
        found.append(f"--{next(filter(None, marks), field).replace('_', '-')}")
    return found
