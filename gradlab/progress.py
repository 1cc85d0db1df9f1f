"""Progress of long work, as a function that the work calls."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

from gradlab import validation
from gradlab.errors import InputError, one_line

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total): called from time to time with done ≤ total; a stage has ended with
done = total, or when the next one begins."""


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


def _refusal(function: Callable[..., Any]) -> str:
    """Why it cannot be called with three arguments; "" where it can, or nobody knows."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    with contextlib.suppress(TypeError):
        signature.bind("", 0, 0)
        return ""
    return f"it takes {signature}"


def check_progress(progress: Progress) -> Progress:
    """`progress`, refused where it cannot be called; what it raises itself is raised as it is."""
    arguments = "a function of stage, done and total"
    validation.function("progress", progress, "stage, done and total")
    if progress is silent:
        return progress
    if refusal := _refusal(getattr(progress, "forward", progress)):
        raise InputError(f"progress cannot be called ({refusal}): give {arguments}")

    def told(stage: str, done: int, total: int) -> None:
        try:
            progress(stage, done, total)
        except TypeError as error:
            trace = error.__traceback__
            if trace is not None and trace.tb_next is not None:
                raise  # from inside of it
            raise InputError(
                f"progress cannot be called ({one_line(error)}): give {arguments}"
            ) from error

    return told
