"""One self-contained page from a run: verdict, figures, every number, how it was computed."""

from gradlab.reporting.page import render
from gradlab.reporting.report import report

__all__ = ["render", "report"]
