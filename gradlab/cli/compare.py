"""`gradlab compare A.h5 B.h5 …`: measurements, or training runs, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.cli.terminal.answer import of_screen
from gradlab.cli.terminal.progress_bars import bars


@dataclass(frozen=True)
class Compare:
    """How do measurements of one policy, or training runs of one task, differ?

    Training runs with the same seeds are paired with the first, seed by seed: differences of return
    and ratios of the gradient's error.

        gradlab compare runs/nll.h5 runs/dd.h5
        gradlab compare runs/mpg-v2.h5 runs/td3.h5 --output runs/returns.html
    """

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN.h5|FOLDER")]
    """Measurements (each is compared with the first), or training runs; two or more. The folder of
    a sweep stands for its runs that are done."""
    output: Annotated[Path, arg(metavar="PAGE.html")] = Path("runs/comparison.html")
    """Where the page is written."""
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document: recommendation, verdict, path, and the table of differences."""

    def run(self, command: str) -> Document:
        """Write the page and return its first screen."""
        from gradlab.reporting.kinds import compared
        from gradlab.reporting.output import named, write

        target = named(self.output)
        page, table = compared(self.files)
        with bars() as progress:
            write(target, page, progress)
        differences = {"table": table.to_dict("records"), "report": str(target)}
        return of_screen(page.screen) | differences
