"""No page of the built site loads anything from elsewhere; links for readers may lead anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
ELSEWHERE = re.compile(r"(https?:)?//")
IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


def setup(app: Sphinx) -> None:
    """Fails a build whose pages would send requests."""
    app.connect("build-finished", _check)


def _check(app: Sphinx, error: Exception | None) -> None:
    if error is None and (requests := sorted(set(requested(Path(app.outdir))))):
        raise ValueError("pages load from elsewhere: " + ", ".join(requests))


def requested(site: Path) -> Iterator[str]:
    """Addresses that pages and style sheets load."""
    for page in site.rglob("*.html"):
        reader = _Loads()
        reader.feed(page.read_text())
        yield from reader.addresses
    for sheet in site.rglob("*.css"):
        yield from IN_STYLES.findall(sheet.read_text())


class _Loads(HTMLParser):
    """What the tags of a page load when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps the addresses of scripts, images, frames and style sheets elsewhere."""
        address = dict(attrs).get(LOADING.get(tag, ""))
        if address and ELSEWHERE.match(address):
            self.addresses.append(address)
