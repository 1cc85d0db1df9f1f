"""`gradlab choose RUN.h5`: horizon and weights of a gradient, with their confidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.cli.terminal.answer import of_screen


@dataclass(frozen=True)
class Choose:
    """Which horizon, estimator and weights suit an update, and how sure is that?

    Reads the file of a measurement and computes nothing again.

        gradlab choose runs/inverted_pendulum.h5 --batch 64
        gradlab choose run.h5 --estimator model --estimator data --by mse
    """

    file: Annotated[Positional[Path], arg(metavar="RUN.h5")]
    """The run, RUN.h5, of `gradlab measure`."""
    batch: Annotated[int | None, arg(metavar="N")] = None
    """N′, the samples that one update of your algorithm averages. Default: the run's."""
    estimator: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME")] = ()
    """A candidate; may be repeated. Default: all that need neither states nor derivatives of the
    simulator, where there are such."""
    by: Literal["gain", "mse", "direction"] | None = None
    """Criterion: the gain of one small step along the mean gradient, the mean squared error, or
    the expected cosine of one batch. Default: gain where the truth is the gradient of the return,
    else mse."""
    iteration: Annotated[int | None, arg(metavar="K")] = None
    """Iteration of training at which the papers' rule-based weights are shown. Default: at the
    start, in the middle and at the end of their ramp."""
    ramp: Annotated[int | None, arg(metavar="T")] = None
    """Length of that ramp, in iterations. Default: 9000."""
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document: sentences and tables."""

    def run(self, command: str) -> Document:
        """Choose from the file alone."""
        from gradlab.choice.tables import best_table, contender_table, trial_table, weight_table
        from gradlab.runs.profile import load
        from gradlab.verdicts.choice.choosing import chosen

        choice, screen = chosen(
            load(self.file),
            self.batch,
            self.estimator or None,
            self.by,
            self.iteration,
            self.ramp,
        )
        document: Document = of_screen(screen) | {
            "best": best_table(choice).to_dict("records"),
            "what if": trial_table(choice).to_dict("records"),
            "run": str(self.file),
        }
        for name, mixing in (("pair", choice.pair), ("several", choice.several)):
            if mixing is not None:
                document[f"weights of {name}"] = weight_table(mixing).to_dict("records")
                document[f"contenders of {name}"] = contender_table(mixing).to_dict("records")
        return document
