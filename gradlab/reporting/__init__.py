"""One self-contained page from a run: verdict, figures, every number, how it was computed."""

from gradlab.reporting.output import report
from gradlab.reporting.page import render

__all__ = ["render", "report"]
