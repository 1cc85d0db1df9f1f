"""RUN.h5 → RUN.html and RUN_figures/*.png, *.csv, and *.pdf where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib

from gradlab import validation
from gradlab.errors import InputError
from gradlab.progress import Progress, silent
from gradlab.reporting import kinds
from gradlab.reporting.page import Page, lay_out, render
from gradlab.reporting.shell import GENERATOR
from gradlab.storage.records import check_output
from gradlab.storage.whole_files import placed
from gradlab.verdicts.recommendation import lines

_SWEEP = "sweep.json"  # the index in a folder of runs, beside which its page goes


def report(path: str | Path, figures: bool = False, pdf: bool = False, quiet: bool = False) -> Path:
    """Writes the page of the run at `path` beside it, and its figures in a folder.

    A sweep's page is in its folder. A probe's page is written without figures, because it is asked
    for again and again while the loop runs. An earlier page of gradlab is replaced; anything else
    of that name is left alone.

    Args:
        figures: write the figures of a probe, too.
        pdf: write figures also as PDF with text that can be edited: about a second for each.
        quiet: do not print the recommendation.

    Returns:
        The path of the HTML file.

    Raises:
        InputError: the run cannot be read, or its folder not written.
    """
    target, page = check_page(path), kinds.page_of(Path(path))
    write(target, replace(page, apart=page.apart or figures or pdf, pdf=pdf))
    if not quiet:
        print("\n".join([*lines(page.advice), "", f"report: {target}"]))
    return target


def compare(paths: Sequence[str | Path], page: str | Path) -> Path:
    """Writes one page of several training runs, or of measurements, and its figures beside it.

    Raises:
        InputError: runs of different kinds, tasks, policies or truths, the wrong number of them,
            or a file that cannot be written.
    """
    return write(named(page), kinds.compared(paths)[0])


def named(page: str | Path) -> Path:
    """Where the user wants a page."""
    page = Path(page)
    if page.suffix != ".html":
        raise InputError(f"output is {page}: name a file that ends in .html")
    check_page(page)
    return page


def write(target: Path, page: Page, progress: Progress = silent) -> Path:
    """Writes a page, its figures first where they are files, too: their layout is the page's.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target.parent} cannot be made ({error.strerror})") from error
    lay_out(page)
    try:
        if page.apart:
            folder = target.with_name(f"{target.stem}_figures")
            folder.mkdir(exist_ok=True)
            for number, panel in enumerate(page.panels, 1):  # for slides, and what they show
                panel.figure.savefig(folder / f"{panel.name}.png", dpi=160, facecolor="white")
                panel.table.to_csv(folder / f"{panel.name}.csv", index=False)
                if page.pdf:
                    with matplotlib.rc_context({"pdf.fonttype": 42}):  # text that can be edited
                        path = folder / f"{panel.name}.pdf"
                        panel.figure.savefig(path, metadata={"CreationDate": None})
                progress("figures", number, len(page.panels))
        with placed(target) as temporary:
            temporary.write_text(render(page), encoding="utf-8", errors="replace")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{target.parent} cannot be written ({reason}): copy the run") from error
    return target


def check_page(path: str | Path) -> Path:
    """Where the page of the run at `path` goes; of a sweep, into its folder.

    Raises:
        InputError: a file is there that gradlab did not write, or its folder cannot be written.
    """
    run = validation.path("path", path)
    page = (run / _SWEEP if run.is_dir() else run).with_suffix(".html")
    try:
        check_output(page, overwrite=True)
    except InputError as error:
        raise InputError(f"the page {page.name} has no place ({error}), or copy the run") from error
    if page.exists() and not _is_ours(page):
        raise InputError(f"{page} exists and is no gradlab report: move it or rename the run")
    return page


def _is_ours(page: Path) -> bool:
    try:
        with page.open(encoding="utf-8") as file:
            return GENERATOR in file.read(4000)
    except (OSError, UnicodeDecodeError):
        return False
