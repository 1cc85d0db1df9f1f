"""Errors of the argument parser as one line, like every other refusal."""

from __future__ import annotations

import re

LONGEST = 400  # characters
_RULE = re.compile(r"^[─\-+╭╮╰╯]+$")
_TYPES = re.compile(r"no type matching \{None\}\|(\S+) could be instantiated from \['?(.*?)'?\]")
_HELP = ("For full helptext", "Argument helptext")
_CAUSES = "Got errors:"


def refusal(box: str) -> str:
    """The sentences of a box of tyro's, without its frame, its causes and its help."""
    inside = [line.strip().strip("│|").strip() for line in box.splitlines()[1:]]
    sections: list[list[str]] = [[]]
    for line in inside:
        if _RULE.match(line):
            sections.append([])
        else:
            sections[-1].append(line)
    texts = [" ".join(filter(None, section)).partition(_CAUSES)[0].strip() for section in sections]
    text = " ".join(section for section in texts if section and not section.startswith(_HELP))
    text = _TYPES.sub(r"expected \1, got '\2'", text)
    return f"{text[:LONGEST].rstrip(' .')}; see --help"
