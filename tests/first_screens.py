"""Pages in a browser, and what holds of the recommendation of every kind of run."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from gradlab.reporting.page import Page, render
from gradlab.verdicts.recommendation import MOST

FOLD = ((1200, 800, "light"), (420, 900, "dark"))
WORDS = 40  # of a field, at most


def opened(
    tab: Any, path: Path, scheme: str = "light", width: int = 1200, height: int = 900
) -> list[str]:
    """Shows the page in the tab; what it asks for or complains about comes into the list."""
    seen: list[str] = []

    def note(text: str) -> None:
        if not text.startswith("data:"):
            seen.append(text)

    tab.on("request", lambda request: note(request.url))
    tab.on("console", lambda message: note(message.text))
    tab.on("pageerror", lambda error: note(str(error)))
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": height})
    tab.goto(path.as_uri(), wait_until="load")
    return seen


def drawing(page: Page, *names: str) -> Page:
    """The page with these figures and nothing in the others, whose drawing takes the time."""
    panels = (
        each if each.name in names else replace(each, fill=lambda f: f.set_layout_engine("none"))
        for each in page.panels
    )
    return replace(page, panels=tuple(panels))


# Of every colour of the page's own words: a text, its colour and what lies behind it.
PLAIN = """() => { const found = {}, walk = document.createTreeWalker(document.body, 4);
    const behind = (e) => { for (; e; e = e.parentElement) {
        const colour = getComputedStyle(e).backgroundColor;
        if (!/, 0\\)$|transparent/.test(colour)) return colour; } return "rgb(255, 255, 255)"; };
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
        const e = node.parentElement;
        if (!node.textContent.trim() || e.closest("svg, script, style")) continue;
        const colours = [getComputedStyle(e).color, behind(e)];
        found[colours] ??= [node.textContent.trim(), ...colours]; }
    return Object.values(found); }"""


def faint(tab: Any) -> list[str]:
    """Words of the page, figures apart, that hardly stand out (WCAG AA)."""
    return [words for words, ink, paper in tab.evaluate(PLAIN) if contrast(ink, paper) < 4.5]


def check_first_screen(tab: Any, page: Page, folder: Path) -> None:
    """The fields of the recommendation and a figure, above the fold."""
    fields = page.advice.fields
    assert 0 < len(fields) <= MOST and all(each.name and each.text for each in fields)
    assert all(len(each.text.split()) <= WORDS for each in fields), page.advice
    assert len({each.name for each in fields}) == len(fields)
    shown = {each.name for each in page.panels} & {page.advice.figure} or {page.panels[0].name}
    path, html = folder / "first.html", render(drawing(page, *shown))
    assert not repeated(words_of(html)), repeated(words_of(html))
    path.write_text(html, encoding="utf-8")
    for width, height, scheme in FOLD:
        opened(tab, path, scheme, width, height)
        assert not illegible(tab), illegible(tab)
        assert not small(tab), small(tab)
        assert not faint(tab), faint(tab)
        box = tab.locator("#verdict").bounding_box()
        assert box["y"] + box["height"] <= height
        assert tab.locator("#verdict figure svg").count() == 1
        assert tab.locator("#verdict dl.fields > dt").all_text_contents() == [
            each.name for each in fields
        ]


# Of every text of the figures: its words, box and colour, the box of its figure; not of what is
# turned, whose box is larger than it, and not of numbers in the cells of a map.
WRITTEN = """() => [...document.querySelectorAll("figure svg text")].flatMap((text) => {
    const turned = /rotate\\((?!-?90\\b|-?0\\b)/.test(text.getAttribute("transform") || "");
    const cell = /fill: *(#|var\\(--paper)/.test(text.getAttribute("style") || "");
    const [box, page] = [text, text.closest("svg")].map((e) => e.getBoundingClientRect())
        .map((b) => [b.left, b.top, b.right, b.bottom]);
    const shown = !turned && !cell && text.textContent.trim();
    return shown ? [[text.textContent, box, getComputedStyle(text).fill, page]] : [];
})"""


# Texts of figures, numbers in the cells of maps among them, with their heights in pixels.
HEIGHTS = """() => [...document.querySelectorAll("figure svg text")].map((text) => {
    const page = text.closest("svg"), wide = page.getBoundingClientRect().width;
    const zoom = wide / page.viewBox.baseVal.width;
    return [text.textContent, wide ? parseFloat(getComputedStyle(text).fontSize) * zoom : 99]; })"""
LEAST = 9.0  # pixels, on a phone


def small(tab: Any) -> list[str]:
    """Texts of the figures in sight that nobody can read."""
    return [words for words, height in tab.evaluate(HEIGHTS) if words and height < LEAST]


def illegible(tab: Any) -> list[str]:
    """Texts of the figures in sight that are cut off, cover one another, or hardly stand out."""
    style = "(e) => getComputedStyle(e).backgroundColor"
    back = tab.locator("#verdict").evaluate(style)
    texts, found = tab.evaluate(WRITTEN), []
    for k, (words, (left, top, right, bottom), fill, page) in enumerate(texts):
        if left < page[0] - 2 or right > page[2] + 2 or top < page[1] - 2 or bottom > page[3] + 2:
            found.append(f"cut off: {words}")
        if contrast(fill, back) < 4.5:
            found.append(f"faint: {words}")
        for others, box, _, of in texts[:k]:
            wide = min(right, box[2]) - max(left, box[0])
            high = min(bottom, box[3]) - max(top, box[1])
            if of == page and wide > 2 and high > 3:
                found.append(f"covered: {words} by {others}")
    return found


class Text(HTMLParser):
    """Blocks of text outside figures, scripts, tables and what fields open to."""

    skipped = ("style", "script", "svg", "table", "figure")

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.blocks, self.details = 0, [""], [False]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.inside += tag in self.skipped
        if tag == "details":
            self.details.append(("class", "how") in attrs)
            self.inside += self.details[-1]
        if tag in ("p", "li", "div", "summary", "td", "dd", "dt", "section"):
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag in self.skipped
        if tag == "details":
            self.inside -= self.details.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.blocks[-1] += data


def repeated(text: str) -> list[str]:
    """Sentences of at least five words that stand in a text twice."""
    found = [each.strip() for each in re.split(r"(?<=[.!?])\s+(?=[^a-z\s])|\n", text)]
    long = [each for each in found if len(each.split()) >= 5]
    return [each for each in dict.fromkeys(long) if long.count(each) > 1]


def words_of(html: str) -> str:
    reader = Text()
    reader.feed(html)
    return "\n".join(" ".join(block.split()) for block in reader.blocks)


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG)."""
    parts = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
