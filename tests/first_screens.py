"""What holds of the first screen of every kind of run."""

from pathlib import Path
from typing import Any

from gradlab.reporting.page import Page, render
from gradlab.verdict.screen import FACTS, NUMBERS, WORDS, counted

FOLD = ((1200, 800), (420, 900))
BEFORE = """() => { const walk = document.createTreeWalker(document.querySelector("main"));
    let text = ""; for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      if (node.nodeName === "FIGURE") return text;
      if (node.nodeName === "#text") text += node.textContent + " "; } return text; }"""


def check_first_screen(browser: Any, page: Page, folder: Path) -> None:
    """One recommendation, its sureness, a figure and at most three numbers, above the fold."""
    assert not page.screen.headline.startswith("Undecided")
    assert page.screen.sure and len(page.screen.numbers) <= FACTS
    assert all(fact.how for fact in page.screen.numbers)
    path = folder / "first.html"
    path.write_text(render(page), encoding="utf-8")
    for width, height in FOLD:
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(path.as_uri(), wait_until="load")
        words, numbers = counted(tab.evaluate(BEFORE))
        assert words <= WORDS and numbers <= NUMBERS
        box = tab.locator("#verdict").bounding_box()
        assert box["y"] + box["height"] <= height
        assert tab.locator("#verdict figure svg").count() == 1
        assert tab.locator("main > details.section[open]").count() <= 1
        tab.close()
