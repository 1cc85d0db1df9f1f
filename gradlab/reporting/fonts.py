"""Fonts of PDF figures, cut down once for all figures of a page.

Journals refuse PDF files with Type 3 fonts; embedding a TrueType font costs a quarter of a second a
figure, nearly all of it for parsing the whole font again. A font with the characters of all figures
alone, and the same outlines, is embedded in a tenth of that.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text


@contextlib.contextmanager
def cut_down(figures: Sequence[Figure], folder: Path) -> Iterator[None]:
    """Inside, the figures' texts take their glyphs from small fonts that are written to `folder`.

    Texts with characters that their font does not have keep it: another one has to fill in.
    """
    texts: dict[str, list[Text]] = defaultdict(list)
    for figure in figures:
        for text in figure.findobj(Text):
            if text.get_text() and text.get_fontproperties().get_file() is None:
                texts[str(findfont(text.get_fontproperties()))].append(text)
    changed = []
    for number, (file, own) in enumerate(texts.items()):
        known = get_font(file).get_charmap()
        whole = [text for text in own if all(ord(c) in known for c in text.get_text() if c != "\n")]
        small = folder / f"{number}.ttf"
        _cut(file, {ord(c) for text in whole for c in text.get_text()}, small)
        for text in whole:
            text.get_fontproperties().set_file(str(small))
        changed += whole
    try:
        yield
    finally:
        for text in changed:
            text.get_fontproperties().set_file(None)


def _cut(file: str, characters: set[int], small: Path) -> None:
    """Writes the font of these characters and the hyphen and minus that an axis may need."""
    from fontTools import subset  # takes half a second, which a page without new figures saves
    from fontTools.ttLib import TTFont

    options = subset.Options(layout_features=[], glyph_names=False, hinting=True)
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "kern", "FFTM"]
    with TTFont(file, lazy=True) as font:
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=characters | set(range(32, 127)))
        cutter.subset(font)
        font.save(small)
