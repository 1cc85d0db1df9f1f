"""Finished work is saved elsewhere where its own place can no longer be written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from gradlab.errors import Failure, InputError

Save = Callable[[Path], object]
REFUSED = (OSError, InputError, Failure)


def keep(parts: Mapping[Path, Save]) -> None:
    """Every part at its place; where one of them cannot be, all in a folder of their own.

    Raises:
        Failure: says why and in which folder.
    """
    try:
        for path, save in parts.items():
            save(path)
    except REFUSED as error:
        folder = elsewhere(parts)
        kept = "no other folder takes it" if folder is None else f"kept in {folder}: move it"
        raise Failure(f"{_reason(error, path)}; what was finished is {kept}") from error


def elsewhere(parts: Mapping[Path, Save]) -> Path | None:
    """A new folder that holds all parts under their names; None where no place takes them."""
    for place in (tempfile.gettempdir, Path.cwd, Path.home):
        with suppress(*REFUSED, RuntimeError):
            folder = Path(tempfile.mkdtemp(prefix="gradlab-", dir=place()))
            for path, save in parts.items():
                save(folder / path.name)
            return folder
    return None


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError):
        return f"{path} cannot be written ({error.strerror or error})"
    return str(error)
