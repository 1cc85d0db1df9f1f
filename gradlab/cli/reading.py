"""Commands that read runs: `gradlab report`, `compare` and `choose`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, UseAppendAction, arg

from gradlab.cli import arguments
from gradlab.cli.streams import Document, bars, undisturbed
from gradlab.errors import InputError
from gradlab.options import named
from gradlab.progress import Progress, silent
from gradlab.storage.whole_files import journal_of
from gradlab.verdicts.recommendation import Recommendation

if TYPE_CHECKING:
    from gradlab.runs.profile import Profile


@dataclass(frozen=True)
class Report:
    """What does a run, or a whole sweep, show?

    Writes one HTML page to decide from, and its figures with their data.

        gradlab report runs/inverted_pendulum.h5
        gradlab report runs/td3-pendulum.h5 --follow
    """

    WITHOUT: ClassVar = {"--overwrite": "an earlier page of gradlab is replaced"}

    file: Annotated[Positional[Path], arg(metavar="RUN.h5|FOLDER")]
    """The run, or the folder of a sweep."""
    figures: bool = False
    """Write the figures of a probe's run as files, too."""
    pdf: bool = False
    """Write the figures as PDF, too: about a second each."""
    follow: bool = False
    """Write the page again whenever the run has grown, until Ctrl-C."""
    explain: arguments.Explain = False
    json: arguments.Json = False

    def run(self, command: str) -> Document:
        """Write the page and return its recommendation."""
        if self.follow:
            return self._followed()
        with bars() as progress:
            advice, target = self._written(progress)
        return advice.document | {"report": str(target)}

    def _written(self, progress: Progress = silent) -> tuple[Recommendation, Path]:
        from gradlab.reporting.output import check_page, page_of, write

        target, page = check_page(self.file), page_of(self.file)
        apart = page.apart or self.figures or self.pdf
        return page.advice, write(target, replace(page, apart=apart, pdf=self.pdf), progress)

    def _followed(self) -> Document:
        """Ctrl-C, or a reader of a pipe that has seen enough, ends it; the last page stays."""
        if self.file.is_dir():
            raise InputError(f"--follow is of one run, {self.file} is a folder: leave it out")
        with undisturbed():
            from gradlab.reporting import output  # noqa: F401 (matplotlib, which takes a second)

        said, document = "", Document()
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            for complete in _looks(self.file):
                try:
                    advice, target = self._written()
                except InputError as error:  # not begun, or without a row that a page needs
                    if complete:
                        raise
                    news, stream = f"gradlab: {error}", sys.stderr
                else:
                    document = advice.document | {"report": str(target)}
                    # Standard output proper, where a command's document is printed at its end.
                    news, stream = str(advice), sys.__stdout__
                if news != said and not self.json:
                    print(news, file=stream, flush=True)
                said = news
        return document if self.json else {"report": document.get("report", "none was written")}


_EVERY = 2.0  # seconds between two looks at a run that grows


def _looks(path: Path) -> Iterator[bool]:
    """Whether the run is complete, its writer having folded the journal: now, and whenever the run
    or its journal has changed, until it is."""
    before: object = None
    while True:
        run, journal = stamps = [_stamp(place) for place in (path, journal_of(path))]
        complete = run is not None and journal is None
        if stamps != before:
            yield complete
        if complete:
            return
        before = stamps
        time.sleep(_EVERY)


def _stamp(place: Path) -> tuple[int, int] | None:
    """What changes with every row."""
    try:
        there = place.stat()
    except FileNotFoundError:
        return None
    return there.st_size, there.st_mtime_ns


@dataclass(frozen=True)
class Compare:
    """How do measurements of one policy, or training runs of one task, differ?

    Training runs with the same seeds are paired with the first.

        gradlab compare runs/nll.h5 runs/dd.h5
        gradlab compare runs/mpg-v2.h5 runs/td3.h5 --output runs/returns.html
    """

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN.h5|FOLDER")]
    """Two measurements, or two or more training runs, or the folder of a sweep."""
    output: Annotated[Path, arg(metavar="PAGE.html")] = Path("runs/comparison.html")
    """Where the page is written."""
    explain: arguments.Explain = False
    json: arguments.Json = False

    def run(self, command: str) -> Document:
        """Write the page and return its recommendation."""
        from gradlab.reporting.output import compared, named, write

        target = named(self.output)
        page, table = compared(self.files)
        with bars() as progress:
            write(target, page, progress)
        differences = {"table": table.to_dict("records"), "report": str(target)}
        return page.advice.document | differences


@dataclass(frozen=True)
class Choose:
    """Which horizon, estimator and weights suit an update, and how sure is that?

    Measures nothing again; `gradlab report` draws the run's own choice.

        gradlab choose runs/inverted_pendulum.h5 --batch 64
        gradlab choose run.h5 --estimator model --estimator data --by mse
    """

    file: Annotated[Positional[Path], arg(metavar="RUN.h5")]
    """A run of `gradlab measure`."""
    batch: Annotated[int | None, named("N")] = None
    """N′, the samples that one update averages. Default: the run's."""
    estimator: Annotated[UseAppendAction[tuple[str, ...]], named("NAME")] = ()
    """A candidate. Default: all that need no simulator, where there are such."""
    by: Annotated[Literal["gain", "mse", "direction"] | None, named("gain|mse|direction")] = None
    """Criterion. Default: gain, or mse where the truth is not the return's."""
    explain: arguments.Explain = False
    json: arguments.Json = False

    def run(self, command: str) -> Document:
        """Choose from the file alone."""
        from gradlab.runs.profile import load
        from gradlab.verdicts.choice import chosen

        profile = load(self.file)
        start = _start(profile, self.file)
        choice, advice, train, untrained = chosen(
            profile, self.batch, self.estimator or None, self.by, start
        )
        every = (choice.gain, choice.mse, choice.direction)
        best = [each.row() for each in every if each is not None]
        document: Document = advice.document | {"best": best}
        follow = {"train": train, "untrained": untrained, "run": str(self.file)}
        return document | {kind: text for kind, text in follow.items() if text}


def _start(profile: Profile, run: Path) -> list[str]:
    """The words that name a run's task and networks for `gradlab train`; none where it does not
    say how they were made, or begins with networks or a model that no row begins with."""
    source = profile.config.get("source", {})
    model, kinds = source.get("model") or _OWN, profile.config.get("kinds", {})
    if not source or source.get("gradient_model") or not model.endswith(_OWN):
        return []
    words = arguments.as_words(source["task"], source["parameters"])
    words += ["--model", "learned"] if source.get("model") else []
    for kind, known in (("policy", "policy"), ("critic", "q_critic")):
        file = source[kind] or str(arguments.beside(run, kind))
        if kinds.get(kind) != known or (file.endswith(_OWN) and not Path(file).is_file()):
            return []
        words += [f"--{kind}", file]
    return words


_OWN = ".safetensors"
