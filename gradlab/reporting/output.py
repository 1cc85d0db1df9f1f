"""RUN.h5 → RUN.html and RUN_figures/*.png, *.pdf."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import matplotlib

from gradlab.errors import InputError
from gradlab.jacobians.run import holds_jacobians
from gradlab.jacobians.run import load as load_jacobians
from gradlab.profile import load
from gradlab.reporting import jacobian_page, panels
from gradlab.reporting.page import render
from gradlab.reporting.panels import Panel
from gradlab.reporting.shell import GENERATOR
from gradlab.verdict import verdict


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
    drawn, text = _jacobians(path) if holds_jacobians(path) else _measurement(path)
    try:
        _save_figures(drawn, path.with_name(f"{path.stem}_figures"))
        _put(page, text)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{page.parent} cannot be written ({reason}): copy the run") from error
    return page


def _measurement(path: Path) -> tuple[list[Panel], str]:
    profile = load(path)
    drawn = panels.panels(profile)
    title = str(profile.config.get("task") or path.stem)
    return drawn, render(profile, verdict(profile), title, drawn)


def _jacobians(path: Path) -> tuple[list[Panel], str]:
    run = load_jacobians(path)
    drawn = jacobian_page.panels(run)
    return drawn, jacobian_page.render(run, str(run.config.get("task") or path.stem), drawn)


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


def _put(page: Path, text: str) -> None:
    temporary = page.with_name(f".{page.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, page)
    finally:
        temporary.unlink(missing_ok=True)
