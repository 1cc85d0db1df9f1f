"""`gradlab report RUN.h5`: the page and the figures of a run; of a folder, a sweep's page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.cli.terminal.answer import of_screen
from gradlab.cli.terminal.progress_bars import bars


@dataclass(frozen=True)
class Report:
    """What does a run, or a whole sweep, show?

    Writes one HTML page to decide from, and its figures with their data.

        gradlab report runs/inverted_pendulum.h5
        gradlab report runs/table
    """

    file: Annotated[Positional[Path], arg(metavar="RUN.h5|FOLDER")]
    """The run, RUN.h5, or the folder of a sweep."""
    figures: bool = False
    """Write the figures of a probe's run as files, too, as those of every other run."""
    pdf: bool = False
    """Write the figures as PDF, too, with text that can be edited: about a second for each."""
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document: recommendation, verdict and paths."""

    def run(self, command: str) -> Document:
        """Write the page and return its first screen."""
        from gradlab.reporting.kinds import page_of
        from gradlab.reporting.output import check_page, write

        target, page = check_page(self.file), page_of(self.file)
        apart = page.apart or self.figures or self.pdf
        shown = replace(page, apart=apart, pdf=self.pdf)
        with bars() as progress:
            write(target, shown, progress)
        return of_screen(page.screen) | {"report": str(target)}
