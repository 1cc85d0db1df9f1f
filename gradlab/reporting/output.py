"""Pages of runs: RUN.h5 → RUN.html and RUN_figures/*.png, *.csv, and *.pdf where it is asked for.

Every kind of run has a row: its page, its recommendation, its comparison.

    KINDS[run.kind]     a run of a new kind is a row here, and its class one in `runs.run`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from gradlab import validation
from gradlab.errors import InputError, imported
from gradlab.progress import Progress, silent
from gradlab.reporting import (
    comparison_page,
    findings_page,
    probe_page,
    profile_page,
    training_page,
)
from gradlab.reporting.page import Page, PageSource, lay_out, render
from gradlab.reporting.shell import GENERATOR
from gradlab.runs.probe.schema import KIND as PROBE
from gradlab.runs.run import Run, load
from gradlab.runs.training import results as training_results
from gradlab.storage import journal, records
from gradlab.storage.records import check_output
from gradlab.storage.whole_files import placed
from gradlab.verdicts.measurement.verdict import advice
from gradlab.verdicts.probe.screen import screen as probe_screen
from gradlab.verdicts.recommendation import Recommendation, lines
from gradlab.verdicts.training import screen as training_screen

PROFILE, TRAINING = "profile", training_results.KIND


@dataclass(frozen=True)
class Kind:
    """How a run of one kind is shown.

    Attributes:
        page: the page of a run, its source, and a name for it.
        advice: the recommendation of a run, without its figures.
        compared: the page of several files and the table of their differences; None: runs of this
            kind are not compared, `alone` has what to do instead.
    """

    page: Callable[[Any, PageSource, str], Page]
    advice: Callable[[Any], Recommendation]
    compared: Callable[[Sequence[str | Path]], tuple[Page, pd.DataFrame]] | None = None
    alone: str = ""


# A row of a tool is named, and its runs are not shown where the folder of the tool is not.
_FINDINGS = Kind(findings_page.page, findings_page.advice)
KINDS: Mapping[str, Kind | str] = {
    PROFILE: Kind(profile_page.page, advice, comparison_page.of_files),
    TRAINING: Kind(
        training_page.page, lambda run: training_screen({run.name: run}),
        training_page.of_files,
    ),
    PROBE: Kind(
        probe_page.page, probe_screen,
        alone="is a probe's run, of one loop at its own steps: look at each with `gradlab report`, "
        "and compare what `gradlab measure` finds of their policies",
    ),
    "jacobians": "gradlab.tools.jacobians.page:KIND",
    "remedies": "gradlab.tools.remedies.page:KIND",
    "logs": "gradlab.tools.logs.page:KIND",
    "race": "gradlab.tools.race.page:KIND",
    "certificate": "gradlab.tools.certify.page:KIND",
    "audit": _FINDINGS,
    "conformance": _FINDINGS,
}  # fmt: skip
_FOLDER, _SWEEPS = "gradlab.tools.sweep.table:load", "gradlab.tools.sweep.page:KIND"


def page_of(path: Path, run: Run | None = None) -> Page:
    """The page of the run at `path`, or of the sweep in that folder; a run that cannot be read is
    refused with the command that makes it again.

    Args:
        run: what was just written there; None: it is read.
    """
    try:
        run, kind = _read(path) if run is None else (run, _row(run.kind))
        config, attributes = getattr(run, "config", {}), getattr(run, "attributes", {})
        command = str(config.get("command") or attributes.get("command") or "")
        return kind.page(run, PageSource(str(path), command), path.stem)
    except InputError as error:
        raise InputError(f"{error}{_again(path)}") from error


def _again(path: Path) -> str:
    """The command that makes the run again; "" where the file does not know it."""
    try:
        command = "" if path.is_dir() else str(records.attributes(path).get("command", ""))
    except InputError:
        return ""
    return f": make it again with `{command}`" if command else ""


def advice_of(path: str | Path) -> Recommendation:
    """The recommendation of the run at `path`."""
    run, kind = _read(Path(path))
    found: Recommendation = kind.advice(run)
    return found


def recommended(run: Run) -> Recommendation:
    """The recommendation of a run that was read, or has just been measured."""
    return _row(run.kind).advice(run)


def compared(paths: Sequence[str | Path]) -> tuple[Page, pd.DataFrame]:
    """The page of several runs of one kind, and the table of their differences.

    A folder stands for the runs of its sweep that are done.
    """
    paths = [file for path in paths for file in files(Path(path))]
    words = {str(path): journal.kind(path) for path in paths}
    if len(set(words.values())) > 1:
        listing = ", ".join(f"{path}: {word}" for path, word in words.items())
        raise InputError(f"runs are of different kinds ({listing}): compare runs of one kind")
    word = next(iter(words.values()), TRAINING)
    kind = _row(word, f"{paths[0] if paths else word}")
    if kind.compared is None:
        default = f"is a run of {word}: compare training runs or measurements"
        raise InputError(f"{paths[0]} {kind.alone or default}")
    return kind.compared(paths)


def files(path: Path) -> list[Path]:
    """The file itself, or the runs that are done of the sweep in that folder."""
    if not path.is_dir():
        return [path]
    done: list[Path] = _read(path)[0].files()
    if not done:
        raise InputError(f"{path} has no run that is done: go on with resume=True")
    return done


def _read(path: Path) -> tuple[Any, Kind]:
    """The run, or the sweep in a folder, and its row."""
    if path.is_dir():
        return imported(_FOLDER)(path), imported(_SWEEPS)
    run = load(path)
    return run, _row(run.kind, f"{path} is a run of kind {run.kind!r}, which")


def _row(name: str, what: str = "") -> Kind:
    """Raises InputError: `what`, a run of that kind, has none."""
    if name not in KINDS:
        raise InputError(f"{what or repr(name)} has no page: gradlab.load(path) reads it")
    row = KINDS[name]
    kind: Kind = imported(row) if isinstance(row, str) else row
    return kind


_SWEEP = "sweep.json"  # the index in a folder of runs, beside which its page goes


def report(path: str | Path, figures: bool = False, pdf: bool = False, quiet: bool = False) -> Path:
    """Writes the page of the run at `path` beside it, and its figures in a folder.

    A sweep's page is in its folder. A probe's page is written without figures, because it is asked
    for again and again while the loop runs. An earlier page of gradlab is replaced; anything else
    of that name is left alone.

    Args:
        figures: write the figures of a probe, too.
        pdf: write figures also as PDF with text that can be edited: about a second for each.
        quiet: do not print the recommendation.

    Returns:
        The path of the HTML file.

    Raises:
        InputError: the run cannot be read, or its folder not written.
    """
    target, page = check_page(path), page_of(Path(path))
    write(target, replace(page, apart=page.apart or figures or pdf, pdf=pdf))
    if not quiet:
        print("\n".join([*lines(page.advice), "", f"report: {target}"]))
    return target


def compare(paths: Sequence[str | Path], page: str | Path) -> Path:
    """Writes one page of several training runs, or of measurements, and its figures beside it.

    Raises:
        InputError: runs of different kinds, tasks, policies or truths, the wrong number of them,
            or a file that cannot be written.
    """
    return write(named(page), compared(paths)[0])


def named(page: str | Path) -> Path:
    """Where the user wants a page."""
    page = Path(page)
    if page.suffix != ".html":
        raise InputError(f"output is {page}: name a file that ends in .html")
    check_page(page)
    return page


def write(target: Path, page: Page, progress: Progress = silent) -> Path:
    """Writes a page, its figures first where they are files, too: their layout is the page's.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{target.parent} cannot be made ({error.strerror})") from error
    lay_out(page)
    try:
        if page.apart:
            folder = target.with_name(f"{target.stem}_figures")
            folder.mkdir(exist_ok=True)
            for number, panel in enumerate(page.panels, 1):  # for slides, and what they show
                panel.figure.savefig(folder / f"{panel.name}.png", dpi=160, facecolor="white")
                panel.table.to_csv(folder / f"{panel.name}.csv", index=False)
                if page.pdf:
                    with matplotlib.rc_context({"pdf.fonttype": 42}):  # text that can be edited
                        path = folder / f"{panel.name}.pdf"
                        panel.figure.savefig(path, metadata={"CreationDate": None})
                progress("figures", number, len(page.panels))
        with placed(target) as temporary:
            temporary.write_text(render(page), encoding="utf-8", errors="replace")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{target.parent} cannot be written ({reason}): copy the run") from error
    return target


def check_page(path: str | Path) -> Path:
    """Where the page of the run at `path` goes; of a sweep, into its folder.

    Raises:
        InputError: a file is there that gradlab did not write, or its folder cannot be written.
    """
    run = validation.path("path", path)
    page = (run / _SWEEP if run.is_dir() else run).with_suffix(".html")
    try:
        check_output(page, overwrite=True)
    except InputError as error:
        raise InputError(f"the page {page.name} has no place ({error}), or copy the run") from error
    try:
        with page.open(encoding="utf-8") as file:
            ours = GENERATOR in file.read(4000)
    except FileNotFoundError:
        ours = True
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise InputError(f"{page} exists and is no gradlab report: move it or rename the run")
    return page
