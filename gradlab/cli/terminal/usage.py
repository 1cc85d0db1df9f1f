"""From words of a command line to a command; an error of the parser is one line of text."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any

import tyro
from tyro.conf import FlagCreatePairsOff

from gradlab.cli.terminal import help_page
from gradlab.errors import InputError

LONGEST = 400  # characters
_TYPES = re.compile(r"no type matching (.+?) could be instantiated from \['?(.*?)'?\]")
_REPEATED = re.compile(r"\{\[(\w+) \[\w+ \.\.\.\]\]\}")
_HELP = ("For full helptext", "Argument helptext")
_CAUSES = "Got errors:"


def parsed(commands: Any, words: Sequence[str]) -> Any:
    """The command that these words are.

    Args:
        commands: a union of dataclasses, each under the name of its subcommand.

    Raises:
        InputError: the words are none of them.
        SystemExit: after --help, which is printed.
    """
    box, page = io.StringIO(), io.StringIO()
    config = (FlagCreatePairsOff,)
    try:
        with contextlib.redirect_stderr(box), contextlib.redirect_stdout(page):
            return tyro.cli(commands, prog="gradlab", args=words, config=config)
    except SystemExit as end:
        if not end.code:  # --help
            help_page.show(commands, words[0], page.getvalue())
            raise
        raise InputError(refusal(box.getvalue())) from None


def refusal(box: str) -> str:
    """The sentences of a box of tyro's, without its frame, its causes and its help."""
    inside = [line.strip().strip("│|").strip() for line in box.splitlines()[1:]]
    sections: list[list[str]] = [[]]
    for line in inside:
        if help_page.FRAME.match(line):
            sections.append([])
        else:
            sections[-1].append(line)
    texts = [" ".join(filter(None, section)).partition(_CAUSES)[0].strip() for section in sections]
    text = " ".join(section for section in texts if section and not section.startswith(_HELP))
    text = _TYPES.sub(_expected, text)
    return f"{text[:LONGEST].rstrip(' .')}; see --help"


def _expected(found: re.Match[str]) -> str:
    """tyro's {None}|{rule,measured}|{[FLOAT [FLOAT ...]]} as "rule, measured or FLOAT ..."."""
    kinds = _REPEATED.sub(r"\1 ...", found[1].removeprefix("{None}|")).split("|")
    words = [kind.strip("{}").replace(",", ", ") for kind in kinds]
    return f"expected {' or '.join(words)}, got '{found[2]}'"
