"""From the words of a command to its dataclass; an error of the parser is one line of text.

A command's help is the docstring of its class (a question, remarks and two indented examples), then
tyro's own page of its arguments.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff

from gradlab.errors import InputError

_WIDTH, _LONGEST = 80, 400  # columns of the text above the arguments; characters of a refusal
_FRAME = re.compile(r"^[─\-+╭╮╰╯]+$")
_VALUES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)"),
     lambda m: f"{m[2]} is {m[1]!r}, expected one of "
     + ", ".join(x for x in m[3].replace("'", "").split(", ") if x != "None")),
    (re.compile(r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)"),
     r"\1 is \2, expected an integer"),
    (re.compile(r"Error parsing (\S+): could not convert string to float: (.*)"),
     r"\1 is \2, expected a number"),
)  # fmt: skip


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
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                command, prog=f"gradlab {name}", description="", args=words,
                config=(FlagCreatePairsOff,),
            )  # fmt: skip
    except SystemExit as end:
        if not end.code:
            raise
        told = box.getvalue().splitlines()[1:]
        raise InputError(_refusal(name, command, words, told)) from None


def meant(word: str, known: Collection[str]) -> str:
    """The names that are near to a word, as a question; "" where none is."""
    near = difflib.get_close_matches(word, known, n=2)
    return f": did you mean {' or '.join(near)}?" if near else ""


def _refusal(name: str, command: type, words: Sequence[str], told: Sequence[str]) -> str:
    """What is wrong with the words, in one short line; `told` is what tyro says of them."""
    options = _options(command)
    text, see = _box(told), f"; see gradlab {name} --help"
    unknown = [x.partition("=")[0] for x in words if x.startswith("--")]
    if unknown := [each for each in unknown if each not in options and len(each) > 2]:
        reason = getattr(command, "WITHOUT", {}).get(unknown[0])
        more = f": {reason}" if reason else meant(unknown[0], options)
        return f"gradlab {name} has no option {unknown[0]}{more}{see}"
    if text.startswith("Missing from"):
        return f"gradlab {name} needs {' '.join(_missed(told))}{see}"
    if lost := re.match(r"Missing value for argument '(.+?)'", text):
        if lost[1].startswith("-"):
            return f"gradlab {name}: {lost[1]} needs a value{see}"
        return f"gradlab {name} needs {lost[1]}{see}"
    if extra := re.match(r"Unrecognized options?: (.*?)(?: Perhaps.*)?$", text):
        return f"gradlab {name} takes no further {extra[1]!r}{see}"
    if union := re.match(r"Error parsing (\S+): no type .+ instantiated from \[(.*?)\]", text):
        return f"{union[1]} is {union[2]}, expected {options.get(union[1], 'another')}{see}"
    for pattern, words_of in _VALUES:
        text = pattern.sub(words_of, text)
    return f"{text[:_LONGEST].rstrip(' .')}{see}"


def _options(command: Any) -> dict[str, str]:
    """What each takes, by its name as it is typed."""
    found = {"--help": ""}
    for field, hint in get_type_hints(command, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        name, takes = (
            next(filter(None, (getattr(each, key, None) for each in marks)), "")
            for key in ("name", "metavar")
        )
        no = "no-" if getattr(command, field, None) is True else ""
        found[f"--{no}{(name or field).replace('_', '-')}"] = str(takes)
    return found


def _missed(told: Sequence[str]) -> list[str]:
    """The arguments that the box misses: their lines are indented less than their words."""
    lines = [re.sub(r"^[│|]|[│|]$", "", line.strip("\n")).rstrip() for line in told]
    begin = next(k for k, line in enumerate(lines) if "Missing from" in line) + 1
    indent = len(lines[begin]) - len(lines[begin].lstrip())
    rows = takewhile(lambda line: not _FRAME.match(line.strip()), lines[begin:])
    return [line.strip() for line in rows if len(line) - len(line.lstrip()) == indent]


def _box(told: Sequence[str]) -> str:
    """The words of the box before its pointers to help."""
    lines = filter(None, (each.strip().strip("│|").strip() for each in told))
    parts = (list(part) for frame, part in groupby(lines, _FRAME.match) if not frame)
    return " ".join(next(parts, [])).partition("Got errors:")[0].strip()
