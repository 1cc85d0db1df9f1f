"""`gradlab compare A.h5 B.h5 …`: two measurements, or several training runs, on one page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradlab.cli.arguments import Document


@dataclass(frozen=True)
class Compare:
    """Put two measurements of one policy, or several training runs of one task, side by side.

    Training runs with the same seeds are paired with the first, seed by seed: differences of return
    and ratios of the gradient's error. With --iterations, measurements at several checkpoints of
    one training: where the order of data and model turns, and the weights that suit beside those of
    MPG's rule.
    """

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN.h5")]
    """Two measurements (the second is judged against the first), or two or more training runs."""
    output: Annotated[Path, arg(metavar="PAGE.html")] = Path("runs/comparison.html")
    """Where the page is written."""
    iterations: Annotated[tuple[int, ...], arg(metavar="K")] = ()
    """Iterations of the checkpoints that were measured, one per file."""
    ramp: int = 9000
    """T of MPG's rule for weights, in iterations, beside --iterations."""
    json: bool = False
    """Print one JSON document: verdict, path, and the table of differences."""

    def run(self, command: str) -> Document:
        """Write the page and say what it says."""
        from gradlab.reporting.output import PROFILE, compare, kind_of

        if self.iterations:
            return self._through_training()
        page = compare(self.files, self.output)
        told = self._measurements if kind_of(self.files) == PROFILE else self._training
        return told() | {"report": str(page)}

    def _through_training(self) -> Document:
        from gradlab.reporting.output import follow

        told, table = follow(self.files, self.iterations, self.ramp, self.output)
        return {
            "verdict": [asdict(told)],
            "table": table.to_dict("records"),
            "report": str(self.output),
        }

    def _training(self) -> Document:
        from gradlab.training.pairs import paired_verdict, table
        from gradlab.training.results import loaded
        from gradlab.training.verdicts import verdict

        runs = loaded(self.files)
        sentences = [each for name, run in runs.items() for each in verdict(run, name)]
        sentences += paired_verdict(runs)
        told = [asdict(each) for each in sentences]
        return {"verdict": told, "table": table(runs).to_dict("records")}

    def _measurements(self) -> Document:
        from gradlab.reporting.output import two_profiles
        from gradlab.verdict.compared import comparison_verdict

        comparison = two_profiles(self.files)
        sentences = [asdict(each) for each in comparison_verdict(comparison)]
        return {"verdict": sentences, "table": comparison.table().to_dict("records")}
