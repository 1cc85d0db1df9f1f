"""From words of a command line to a command; an error of the parser is one line of text.

`--help` is a question, usage, arguments, options and two examples: the docstring of the command's
class (examples are its indented lines) and tyro's rows of arguments, wrapped to 80 columns.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import re
import shutil
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, get_args

import tyro
from tyro.conf import FlagCreatePairsOff

from gradlab.cli.answer import bold
from gradlab.errors import InputError

_WIDEST, _NARROWEST, _COLUMN = 80, 48, 20  # columns; where explanations begin
_TITLES = {"positional arguments": "Arguments", "options": "Options"}
_FRAME = re.compile(r"^[─\-+╭╮╰╯]+$")
_DEFAULT = re.compile(r" ?\((default|repeatable|required)(?:: ?(.*))?\)$")
_NONE = (
    "None",
    "False",
    "True",
    "",
)  # of flags, and what "Default: …" in the words of an option says better

_QUESTION = "How good is your policy gradient?"
_END = (
    "`gradlab COMMAND --help` shows the options of a command and two examples, "
    "`gradlab --version` the version."
)


def _of_command(name: str, command: type, page: str, about: str) -> Iterator[str]:
    """Lines of `gradlab NAME --help`; `page` is tyro's, `about` the word after the command."""
    question, *remarks = _paragraphs(command)
    defaults = command.defaults(about) if hasattr(command, "defaults") else {}
    sections = _grouped(_sections(page), getattr(command, "GROUPS", {}), defaults)
    words = " ".join(
        invocation
        for title, rows in sections.items()
        for invocation, text in rows
        if title == "Arguments" or text.endswith("Required.")
    )
    yield from _wrapped(question)
    yield from ("", *_wrapped(f"usage: gradlab {name} {words} [options]".replace("  ", " ")))
    for remark in remarks:
        yield from ("", *_wrapped(remark))
    for title, rows in sections.items():
        yield from ("", f"{title}:")
        for invocation, text in rows:
            yield from _row(invocation, text, _COLUMN)
    yield from ("", "Examples:", *(f"  {each}" for each in examples(command)))


def examples(command: type) -> list[str]:
    """The indented lines of a command's docstring."""
    lines = (inspect.getdoc(command) or "").splitlines()
    return [line.strip() for line in lines if line.startswith("    ")]


def _paragraphs(command: type) -> list[str]:
    blocks = (inspect.getdoc(command) or "").split("\n\n")
    return [" ".join(block.split()) for block in blocks if not block.startswith("    ")]


def _sections(page: str) -> dict[str, list[tuple[str, str]]]:
    """Rows (invocation, explanation) of tyro's page by the title of their section."""
    sections: dict[str, list[tuple[str, str]]] = {}
    rows: list[tuple[str, str]] = []
    for line in page.splitlines():
        inside = line.strip("│|").rstrip()
        text = inside.strip()
        if text in _TITLES:
            rows = sections.setdefault(_TITLES[text], [])
        elif not text or _FRAME.match(text) or not sections:
            continue
        elif inside.startswith("   ") and rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {text}".strip())
        else:
            invocation, _, first = text.partition("  ")
            rows.append((invocation, first.strip()))
    # An invocation without the None of its type: what is not given needs no name.
    return {
        title: [
            (
                each.replace("{None,", "{").replace("{None}|", "").replace(",None}", "}"),
                _explained(text, title),
            )
            for each, text in rows
        ]
        for title, rows in sections.items()
    }


def _grouped(
    sections: dict[str, list[tuple[str, str]]],
    groups: Mapping[str, Sequence[str]],
    defaults: Mapping[str, str],
) -> dict[str, list[tuple[str, str]]]:
    """The options of each group under its title, in its order, after all others.

    Args:
        defaults: what stands in the place of "Default: …" of some options.
    """
    rows = {  # by field: a row begins "--measure-every INT" or "-h, --help"
        row[0].split()[0].removeprefix("--").replace("-", "_"): row
        for row in sections.get("Options", ())
    }
    for name in rows.keys() & defaults.keys():
        invocation, text = rows[name]
        rows[name] = (invocation, f"{text.partition(' Default: ')[0]} {defaults[name]}")
    others = [row for name, row in rows.items() if not any(name in x for x in groups.values())]
    parts = {title: [rows[x] for x in names if x in rows] for title, names in groups.items()}
    return sections | {"Options": others} | parts


def _explained(text: str, title: str) -> str:
    """An explanation that ends in its default, where it has one."""
    if text == "show this help message and exit":
        return "Show this page."
    if not (end := _DEFAULT.search(text)):
        return text
    kind, value = end.groups()
    text = text[: end.start()]
    if kind == "repeatable":
        return f"{text} May be repeated."
    if kind == "required":
        return text if title == "Arguments" else f"{text} Required."
    if value in _NONE:
        return text
    return f"{text} Default: {value}."


def _row(name: str, text: str, column: int) -> list[str]:
    indent = " " * (column + 2)
    lines = _wrapped(text, indent)
    if len(name) >= column:
        return [f"  {name}", *lines]
    return [f"  {name:{column}}{lines[0].lstrip() if lines else ''}", *lines[1:]]


def _wrapped(text: str, indent: str = "") -> list[str]:
    columns = shutil.get_terminal_size().columns
    width = max(_NARROWEST, min(_WIDEST, columns))
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


_LONGEST = 400  # characters
_TYPES = re.compile(r"no type matching (.+?) could be instantiated from \['?(.*?)'?\]")
_REPEATED = re.compile(r"\{\[(\w+) \[\w+ \.\.\.\]\]\}")
_HELP = ("For full helptext", "Argument helptext")
_CAUSES = "Got errors:"
_VALUES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)"),
     lambda m: f"{m[2]} is {m[1]!r}, expected one of "
     + ", ".join(x for x in m[3].replace("'", "").split(", ") if x != "None")),
    (re.compile(r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)"),
     r"\1 is \2, expected an integer"),
    (re.compile(r"Error parsing (\S+): could not convert string to float: (.*)"),
     r"\1 is \2, expected a number"),
)  # fmt: skip


def parsed(commands: Any, words: Sequence[str]) -> Any:
    """The command that these words are.

    Args:
        commands: a union of dataclasses, each under the name of its subcommand.
    """
    box, page = io.StringIO(), io.StringIO()
    config = (FlagCreatePairsOff,)
    try:
        with contextlib.redirect_stderr(box), contextlib.redirect_stdout(page):
            return tyro.cli(commands, prog="gradlab", args=words, config=config)
    except SystemExit as end:
        by_name = {
            mark.name: row.__origin__ for row in get_args(commands) for mark in row.__metadata__
        }
        if end.code:
            told = box.getvalue().splitlines()[1:]
            raise InputError(_refusal(commands, by_name, words, told)) from None
        word, about = [*words, ""][:2]
        command = by_name.get(word)
        if command:
            first, *others = _of_command(word, command, page.getvalue(), about)
        else:  # every command with its question
            first, others = _QUESTION, ["", "usage: gradlab COMMAND [options]", "", "Commands:"]
            for name, each in by_name.items():
                others += _row(name, _paragraphs(each)[0], 11)
            others += ["", *_wrapped(_END)]
        bold(first)
        print("\n".join(others))
        raise


def _refusal(
    commands: Any, by_name: Mapping[str, type], words: Sequence[str], told: Sequence[str]
) -> str:
    """What is wrong with the words, in one short line; `told` is what tyro says of them."""
    name = words[0] if words else ""
    if name not in by_name:
        said = f"gradlab has no command {name!r}" if name else "gradlab needs a command"
        return f"{said}{_meant(name, by_name)}; see gradlab --help"
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        tyro.cli(commands, prog="gradlab", args=[name, "--help"], config=(FlagCreatePairsOff,))
    rows = {title: [row[0] for row in x] for title, x in _sections(page.getvalue()).items()}
    options = {each.strip() for row in rows["Options"] for each in row.split()[0].split(",")}
    text = _box(told)
    see = f"; see gradlab {name} --help"
    unknown = [x.partition("=")[0] for x in words if x.startswith("--")]
    if unknown := [each for each in unknown if each not in options and len(each) > 2]:
        reason = getattr(by_name[name], "WITHOUT", {}).get(unknown[0])
        more = f": {reason}" if reason else _meant(unknown[0], options)
        return f"gradlab {name} has no option {unknown[0]}{more}{see}"
    if text.startswith("Missing from"):
        return f"gradlab {name} needs {' '.join(_missed(told))}{see}"
    if lost := re.match(r"Missing value for argument '(.+?)'", text):
        if lost[1].startswith("-"):
            return f"gradlab {name}: {lost[1]} needs a value{see}"
        return f"gradlab {name} needs {' '.join(rows['Arguments'])}{see}"
    if extra := re.match(r"Unrecognized options?: (.*?)(?: Perhaps.*)?$", text):
        return f"gradlab {name} takes no further {extra[1]!r}{see}"
    for pattern, words_of in _VALUES:
        text = pattern.sub(words_of, text)
    text = _TYPES.sub(_expected, text)
    return f"{text[:_LONGEST].rstrip(' .')}{see}"


def _meant(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=2)
    return f": did you mean {' or '.join(near)}?" if near else ""


def _missed(told: Sequence[str]) -> list[str]:
    """The arguments that the box misses: their lines are indented less than their words."""
    lines = [re.sub(r"^[│|]|[│|]$", "", line.strip("\n")).rstrip() for line in told]
    begin = next(k for k, line in enumerate(lines) if "Missing from" in line) + 1
    indent = len(lines[begin]) - len(lines[begin].lstrip())
    rows = takewhile(lambda line: not _FRAME.match(line.strip()), lines[begin:])
    return [line.strip() for line in rows if len(line) - len(line.lstrip()) == indent]


def _box(told: Sequence[str]) -> str:
    """The words of the box without the pointers to help."""
    sections: list[list[str]] = [[]]
    for line in (each.strip().strip("│|").strip() for each in told):
        if _FRAME.match(line):
            sections.append([])
        else:
            sections[-1].append(line)
    texts = [" ".join(filter(None, each)).partition(_CAUSES)[0].strip() for each in sections]
    return " ".join(each for each in texts if each and not each.startswith(_HELP))


def _expected(found: re.Match[str]) -> str:
    """tyro's {None}|{rule,measured}|{[FLOAT [FLOAT ...]]} as "rule, measured or FLOAT ..."."""
    kinds = _REPEATED.sub(r"\1 ...", found[1].removeprefix("{None}|")).split("|")
    words = [kind.strip("{}").replace(",", ", ") for kind in kinds]
    return f"expected {' or '.join(words)}, got '{found[2]}'"
