"""Code blocks of the Markdown pages that readers copy from."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
PYTHON = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
# A line of a probe is none.
COMMAND = re.compile(r"^(?:    |(?=gradlab ))(gradlab (?!probe,)(?:.*\\\n)*.*)$", re.M)
PLACEHOLDER = re.compile(r"\[--|…| ALGORITHM| SIMULATOR|FILE")


def python_blocks() -> dict[str, str]:
    """Source of every ```python block by page and number."""
    return {
        f"{page.relative_to(ROOT)}:{number}": block
        for page in PAGES
        for number, block in enumerate(PYTHON.findall(page.read_text()))
    }


def commands() -> Iterator[tuple[str, str]]:
    """(page, words) of every line that begins with gradlab; lines with placeholders are none."""
    for page in PAGES:
        for line in COMMAND.findall(page.read_text()):
            plain = line.replace("\\\n", " ")
            if not PLACEHOLDER.search(plain):
                yield str(page.relative_to(ROOT)), plain
