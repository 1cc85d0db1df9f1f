"""The last section of reports/jacobians/README.md: claims that were tested with these Jacobians."""

from __future__ import annotations

from pathlib import Path

from analyses.harness.criteria import read_verdicts
from analyses.harness.verdicts import listed

CLAIMS = ("var-exp", "landscape")
HEADING = "## Claims of the papers"
HEAD = """
Each row is one script; numbers and figure lie beside this file. The outcome is that of the
criterion that opens the script ([four words](../README.md)). Intervals are 95%.
"""


def refresh(folder: Path) -> None:
    """Rewrite the section from the verdicts in the folder; everything above it is kept."""
    readme = folder / "README.md"
    above = readme.read_text().partition(HEADING)[0] if readme.exists() else ""
    found = read_verdicts(folder)
    verdicts = [found[name] for name in CLAIMS if name in found]
    section = f"{HEADING}\n{HEAD}{listed(verdicts, folder)}" if verdicts else ""
    readme.write_text(f"{above.rstrip()}\n\n{section}".lstrip())
