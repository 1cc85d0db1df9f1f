"""Docstrings of the package are plain text: what reStructuredText would read as marks is kept."""

from collections.abc import Iterator

from sphinx.application import Sphinx

MARKS = str.maketrans({"|": r"\|", "*": r"\*"})


def setup(app: Sphinx) -> None:
    """Before napoleon, whose own marks stay."""
    app.connect("autodoc-process-docstring", _plain, priority=400)


def _plain(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]):
    lines[:] = plain(lines)


def plain(lines: list[str]) -> Iterator[str]:
    """The lines with marks escaped; an indented block after a blank line is literal."""
    literal, blank, above = False, True, ""
    for line in list(lines):
        inside = line.startswith("    ")
        if line.strip():
            if not inside:
                literal, above = False, line
            elif blank and not literal and not _opens_section(above):
                literal = True
                yield "::"
                yield ""
        blank = not line.strip()
        yield line if literal else _escaped(line)


def _opens_section(line: str) -> bool:
    """Whether it is the line of "Args:", "Returns:" and the like, whose blocks are napoleon's."""
    return line.endswith(":") and line[:-1].isalpha()


def _escaped(line: str) -> str:
    """Marks outside of `code`; a name that ends in _ is no link."""
    parts = line.translate(MARKS).split("`")
    kept = line.split("`")
    return "`".join(
        kept[i] if i % 2 else part.replace('_"', r'\_"') for i, part in enumerate(parts)
    )
