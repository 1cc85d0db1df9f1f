"""`gradlab compare A.h5 B.h5 …`: several training runs on one page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradlab.cli.arguments import Document


@dataclass(frozen=True)
class Compare:
    """Draw several training runs of one task side by side."""

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN.h5")]
    """The runs, two or more."""
    output: Annotated[Path, arg(metavar="PAGE.html")] = Path("runs/comparison.html")
    """Where the page is written."""
    json: bool = False
    """Print one JSON document: verdict and path."""

    def run(self, command: str) -> Document:
        """Write the page and say what it says."""
        from gradlab.reporting.output import compare
        from gradlab.training.results import loaded, verdict

        page = compare(self.files, self.output)
        sentences = [each for run in loaded(self.files).values() for each in verdict(run)]
        return {"verdict": [asdict(each) for each in sentences], "report": str(page)}
