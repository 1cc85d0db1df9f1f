"""`gradlab report RUN.h5`: the page and the figures of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from gradlab.cli.arguments import Document

if TYPE_CHECKING:
    from gradlab.profile import Profile


@dataclass(frozen=True)
class Report:
    """Write the HTML report and the figures of a run."""

    file: Annotated[Positional[Path], arg(metavar="RUN.h5")]
    """The run, RUN.h5."""
    json: bool = False
    """Print one JSON document: verdict and paths."""

    def run(self, command: str) -> Document:
        """Write the page and say what it says."""
        from gradlab.jacobians.run import holds_jacobians
        from gradlab.logged.run import holds_logs
        from gradlab.probe.results import holds_probe
        from gradlab.remedies.run import holds_remedies
        from gradlab.reporting import report
        from gradlab.training.results import holds_training

        page = report(self.file)
        told = _measurement
        if holds_training(self.file):
            told = _training
        elif holds_probe(self.file):
            told = _probe
        elif holds_jacobians(self.file):
            told = _comparison
        elif holds_remedies(self.file):
            told = _remedies
        elif holds_logs(self.file):
            told = _logs
        return {"verdict": told(self.file), "report": str(page)}


def _measurement(file: Path) -> list[Document]:
    from gradlab.profile import load

    return sentences(load(file))


def _comparison(file: Path) -> list[Document]:
    from gradlab.cli import jacobians
    from gradlab.jacobians.run import load

    return jacobians.sentences(load(file))


def _training(file: Path) -> list[Document]:
    from gradlab.training.results import load
    from gradlab.training.verdicts import verdict

    return [asdict(sentence) for sentence in verdict(load(file))]


def _probe(file: Path) -> list[Document]:
    from gradlab.probe.results import load
    from gradlab.probe.verdict import verdict

    return [asdict(sentence) for sentence in verdict(load(file))]


def _remedies(file: Path) -> list[Document]:
    from gradlab.cli import remedies
    from gradlab.remedies.run import load

    return remedies.sentences(load(file))


def _logs(file: Path) -> list[Document]:
    from gradlab.cli import logs
    from gradlab.logged.run import load

    return logs.sentences(load(file))


def sentences(profile: Profile) -> list[Document]:
    """The verdict as plain values."""
    from gradlab.verdict import verdict

    return [asdict(sentence) for sentence in verdict(profile)]
