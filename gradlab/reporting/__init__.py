"""One self-contained page from a run: the first screen, figures, every number, how it was made."""

from gradlab.reporting.output import report
from gradlab.reporting.page import render

__all__ = ["render", "report"]
