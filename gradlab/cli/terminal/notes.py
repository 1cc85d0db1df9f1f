"""Warnings of gradlab as one line, like every other message."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradlab.cli.terminal.progress_bars import standard_error
from gradlab.errors import Doubtful


@contextmanager
def in_one_line() -> Iterator[None]:
    """Inside, gradlab's warnings are single lines; warnings of other packages stay as they are."""
    before = warnings.showwarning

    def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, Doubtful):
            standard_error(f"gradlab: note: {message}")
        else:
            before(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
