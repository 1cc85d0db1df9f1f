"""RUN.h5 → RUN.html and RUN_figures/*.png, *.pdf."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from gradlab import journal
from gradlab.comparison import Comparison, compared
from gradlab.errors import InputError
from gradlab.files import placed
from gradlab.jacobians.run import holds_jacobians
from gradlab.jacobians.run import load as load_jacobians
from gradlab.logged.run import holds_logs
from gradlab.logged.run import load as load_logs
from gradlab.probe.results import holds_probe
from gradlab.probe.results import load as load_probe
from gradlab.profile import load
from gradlab.readings import readings
from gradlab.remedies.run import holds_remedies
from gradlab.remedies.run import load as load_remedies
from gradlab.remedies.verdict import verdict as remedies_verdict
from gradlab.reporting import (
    comparison_page,
    jacobian_page,
    logged_page,
    panels,
    probe_page,
    probe_panels,
    remedies_page,
    series_page,
    training_page,
)
from gradlab.reporting.page import render
from gradlab.reporting.panels import Panel
from gradlab.reporting.shell import GENERATOR
from gradlab.series import series
from gradlab.training.results import holds_training, loaded
from gradlab.training.results import load as load_training
from gradlab.verdict import Sentence, evidence, through_training, verdict

PROFILE, TRAINING, PROBE = "profile", "training", "probe"


def report(path: str | Path) -> Path:
    """Writes the page of the run at `path` next to it, and its figures in a folder.

    An earlier page of gradlab is replaced; anything else of that name is left alone.

    Returns:
        The path of the HTML file.

    Raises:
        InputError: the run cannot be read, or its folder not written.
    """
    path = Path(path)
    page = check_page(path)
    make = _measurement
    if holds_training(path):
        make = _training
    elif holds_probe(path):
        make = _probe
    elif holds_jacobians(path):
        make = _jacobians
    elif holds_remedies(path):
        make = _remedies
    elif holds_logs(path):
        make = _logs
    return _written(page, *make(path))


def compare(paths: Sequence[str | Path], page: str | Path) -> Path:
    """Writes one page of several training runs, or of two measurements, and its figures beside it.

    Raises:
        InputError: runs of different kinds, tasks, policies or truths, the wrong number of them,
            or a file that cannot be written.
    """
    page = _named(page)
    make = _two_measurements if kind_of(paths) == PROFILE else _several_runs
    return _placed(page, *make(paths))


def _named(page: str | Path) -> Path:
    """Where the user wants a page."""
    page = Path(page)
    if page.suffix != ".html":
        raise InputError(f"output is {page}: name a file that ends in .html")
    check_page(page)
    return page


def _placed(page: Path, drawn: list[Panel], text: str) -> Path:
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{page.parent} cannot be made ({error.strerror})") from error
    return _written(page, drawn, text)


def follow(
    paths: Sequence[str | Path], iterations: Sequence[int], ramp: int, page: str | Path
) -> tuple[Sentence, pd.DataFrame]:
    """Writes one page of measurements at several checkpoints of a training, and its figures.

    Args:
        iterations: of the checkpoints, one per path; ramp: T of MPG's rule for weights.

    Returns:
        Its verdict and the table behind it.

    Raises:
        InputError: as `compare`, or iterations that do not fit.
    """
    page = _named(page)
    found = series([load(path) for path in paths], iterations, ramp)
    table, told = found.table(), through_training(found.profiles, found.data_weight)
    drawn = series_page.panels(found, table)
    title = f"{next(iter(found.profiles.values())).config.get('task')} through training"
    _placed(page, drawn, series_page.render(found, table, told, title, drawn))
    return told, table


def kind_of(paths: Sequence[str | Path]) -> str:
    """The one kind of all runs: "training" or "profile".

    Raises:
        InputError: names two files of different kinds, or a kind that is not compared.
    """
    kinds = {str(path): journal.kind(path) for path in paths}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{path}: {what}" for path, what in kinds.items())
        raise InputError(f"runs are of different kinds ({told}): compare runs of one kind")
    found = next(iter(kinds.values()), TRAINING)
    if found == PROBE:
        raise InputError(
            f"{paths[0]} is a probe's run, of one loop at its own steps: look at each with "
            f"`gradlab report`, and compare what `gradlab measure` finds of their policies"
        )
    if found not in (PROFILE, TRAINING):
        raise InputError(f"{paths[0]} is a run of {found}: compare training runs or measurements")
    return found


def two_profiles(paths: Sequence[str | Path]) -> Comparison:
    """The comparison of exactly two measurements, named by their files.

    Raises:
        InputError: another number of files, or measurements that have no comparison.
    """
    if len(paths) != 2:
        raise InputError(f"compare got {len(paths)} measurements, expected two")
    first, second = (Path(path) for path in paths)
    names = (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))
    return compared(load(first), load(second), names)


def _two_measurements(paths: Sequence[str | Path]) -> tuple[list[Panel], str]:
    comparison = two_profiles(paths)
    drawn = comparison_page.panels(comparison)
    title = f"{comparison.names[0]} and {comparison.names[1]}"
    return drawn, comparison_page.render(comparison, title, drawn)


def _several_runs(paths: Sequence[str | Path]) -> tuple[list[Panel], str]:
    runs = loaded(paths)
    drawn = training_page.panels(runs)
    title = f"{' and '.join(runs)} on {next(iter(runs.values())).task}"
    return drawn, training_page.render(runs, title, drawn)


def _written(page: Path, drawn: list[Panel], text: str) -> Path:
    try:
        _save_figures(drawn, page.with_name(f"{page.stem}_figures"))
        with placed(page) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{page.parent} cannot be written ({reason}): copy the run") from error
    return page


def _training(path: Path) -> tuple[list[Panel], str]:
    run = load_training(path)
    runs = {run.name: run}
    drawn = training_page.panels(runs)
    return drawn, training_page.render(runs, f"{run.name} on {run.task}", drawn)


def _measurement(path: Path) -> tuple[list[Panel], str]:
    profile = load(path)
    known = evidence(profile)
    drawn = panels.panels(profile, known)
    title = str(profile.config.get("task") or path.stem)
    told = verdict(profile, known)
    return drawn, render(profile, told, title, drawn, known, readings(profile))


def _probe(path: Path) -> tuple[list[Panel], str]:
    run = load_probe(path)
    drawn = probe_panels.panels(run)
    return drawn, probe_page.render(run, run.task or path.stem, drawn)


def _jacobians(path: Path) -> tuple[list[Panel], str]:
    run = load_jacobians(path)
    drawn = jacobian_page.panels(run)
    return drawn, jacobian_page.render(run, str(run.config.get("task") or path.stem), drawn)


def _remedies(path: Path) -> tuple[list[Panel], str]:
    run = load_remedies(path)
    drawn = remedies_page.panels(run)
    title = f"Remedies on {run.config.get('task') or path.stem}"
    return drawn, remedies_page.render(run, remedies_verdict(run), title, drawn)


def _logs(path: Path) -> tuple[list[Panel], str]:
    run = load_logs(path)
    drawn = logged_page.panels(run)
    title = str(run.config.get("task") or path.stem)
    return drawn, logged_page.render(run, title, drawn)


def check_page(path: str | Path) -> Path:
    """Where the page of the run at `path` goes.

    Raises:
        InputError: a file is there that gradlab did not write.
    """
    page = Path(path).with_suffix(".html")
    if page.exists() and not _is_ours(page):
        raise InputError(f"{page} exists and is no gradlab report: move it or rename the run")
    return page


def _is_ours(page: Path) -> bool:
    try:
        with page.open(encoding="utf-8") as file:
            return GENERATOR in file.read(4000)
    except (OSError, UnicodeDecodeError):
        return False


def _save_figures(drawn: list[Panel], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        for panel in drawn:
            panel.figure.savefig(folder / f"{panel.name}.png", dpi=160, facecolor="white")
            panel.figure.savefig(folder / f"{panel.name}.pdf", metadata={"CreationDate": None})
