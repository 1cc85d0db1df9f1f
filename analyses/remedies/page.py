"""README of reports/remedies: claims about losses, two models and spectral normalisation.

python -m analyses.remedies.page [--output reports/remedies]      rewrites the page
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import tyro

from analyses.harness.criteria import read_verdicts
from analyses.harness.verdicts import THERE, Verdict, found, listed, save

FOLDER = Path("reports/remedies")
HEAD = """# Remedies for a learned model's gradients: claims of the papers, tested again

Measure a remedy on your own model before you take it (`gradlab remedies`): none below is shown to
help in every world where it was tried.

{found}
{there}

Each row is one script; `verdicts.json` has its numbers.
The outcome is about the paper's sentence ([five outcomes](../README.md)); sizes are ours. Papers
compare at equal data, here equal steps; equal time is our condition and stands in the verdict.
Intervals are 95% unless the verdict names another; remedies share data, starts, noise and initial
weights.
"""
TRAINING = """
## Single tasks

[What `gradlab remedies` says](trials/README.md) of two tasks.

## In full training

[MPG on a model that is learned while it trains](training/README.md), with and without each remedy.
"""
LOSSES = ("DD-VS-MSE", "GRADLOSS", "MULTISTEP", "N-W-SENS", "TWO-MODEL", "CAPACITY", "PRED-COST")
# Sections in the order in which they are read; a claim that none names comes last.
SECTIONS: Mapping[str, Sequence[str]] = {
    "Losses on the model, and two models": LOSSES,
    "Spectral normalisation, and how variance and error grow": (
        "SN-VAR", "SN-TRAIN", "HOPPER-SN", "VAR-EXP", "LANDSCAPE", "COND1", "U-SHAPE",
    ),
}  # fmt: skip


def refresh(folder: Path = FOLDER) -> None:
    """Write README.md from the verdicts in the folder."""
    left = read_verdicts(folder)
    parts = [HEAD.format(found=found(list(left.values()), folder), there=THERE)]
    for title, order in SECTIONS.items():
        stems = [stem for name in order for stem in left if _belongs(stem, name)]
        parts.append(_section(title, [left.pop(stem) for stem in stems], folder))
    parts.append(_section("Others", list(left.values()), folder))
    if (folder / "training" / "README.md").is_file():
        parts.append(TRAINING)
    (folder / "README.md").write_text("".join(parts))


def _belongs(stem: str, name: str) -> bool:
    """var-exp-learned is VAR-EXP's."""
    return stem == name.lower() or stem.startswith(f"{name.lower()}-")


def _section(title: str, verdicts: Sequence[Mapping[str, object]], folder: Path) -> str:
    if not verdicts:
        return ""
    return f"\n## {title}\n" + listed(verdicts, folder)


def trials_study(
    measure: Callable[[Path, bool], pd.DataFrame],
    judge: Callable[[pd.DataFrame], Verdict],
    name: str,
) -> Callable[..., None]:
    """The command of a claim that is judged from a file of single trials.

    Args:
        measure: every trial, of which those in the file are read and the others made.
        judge: the verdict from them.
        name: of the file.
    """

    def main(small: bool = False, output: Path = FOLDER, trials: Path | None = None) -> None:
        """Fit what is not yet fitted, measure and judge.

        Args:
            small: one world or size, two trials.
            output: folder of the verdict.
            trials: file of single trials, which is gone on with; None: in the output.
        """
        spec = sys.modules[judge.__module__].__spec__
        assert spec is not None
        table = measure(trials or output / name, small)
        save(judge(table), output, f"python -m {spec.name}")
        refresh(output)

    return main


def main(output: Path = FOLDER) -> None:
    """Rewrite the page.

    Args:
        output: folder of the verdicts.
    """
    refresh(output)


if __name__ == "__main__":
    tyro.cli(main)
