"""Annotated pictures of committed reports, in light and dark: `python -m docs.pages.pictures`.

Needs Chromium. Run it again when a report is made again; the pictures are committed.
"""

import os
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs" / "pictures"
# Name of the picture: report, height in pixels, width, selectors in the order of their numbers.
PICTURES = {
    "first-screen": (
        "reports/path-tracking/report.html",
        920,
        1000,
        ("dl.fields", "p.light", ".first svg", "dl.facts", "details.section"),
    ),
    # Of examples/cleanrl_td3.py with γ² in its target, `--log runs/cleanrl.h5`.
    "probe": ("runs/cleanrl.html", 600, 1000, ()),
}
MARK = """([selector, number]) => {
    const element = document.querySelector(selector);
    if (!element) throw new Error("no " + selector);
    const box = element.getBoundingClientRect(), mark = document.createElement("div");
    mark.textContent = number;
    mark.style = `position:absolute; left:${Math.max(box.left + window.scrollX - 30, 2)}px;
        top:${box.top + window.scrollY}px; width:26px; height:26px; border-radius:13px; z-index:9;
        background:#b3261e; color:#fff; font:bold 15px/26px sans-serif; text-align:center`;
    document.body.append(mark);
}"""


def main() -> None:
    """Writes NAME-light.png and NAME-dark.png of every picture."""
    FOLDER.mkdir(exist_ok=True)
    browser_path = os.environ.get("GRADLAB_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, (report, height, width, selectors) in PICTURES.items():
            for scheme in ("light", "dark"):
                size = {"width": width, "height": height}
                page = browser.new_page(color_scheme=scheme, viewport=size)
                page.goto((ROOT / report).as_uri())
                annotate(page, selectors)
                page.screenshot(path=FOLDER / f"{name}-{scheme}.png")


def annotate(page: Page, selectors: tuple[str, ...]) -> None:
    """A red number beside the first element of each selector; the page keeps room for them."""
    page.add_style_tag(content="body { padding-left: 34px !important }")
    for number, selector in enumerate(selectors, 1):
        page.evaluate(MARK, [selector, number])


if __name__ == "__main__":
    main()
