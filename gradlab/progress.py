"""Progress of long work, as a function that the work calls."""

import inspect
from collections.abc import Callable

from gradlab import validation
from gradlab.errors import InputError, one_line

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total): called from time to time with done ≤ total; a stage has ended with
done = total, or when the next one begins."""


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


def check_progress(progress: Progress) -> Progress:
    """`progress`, refused where it cannot be called with three arguments."""
    validation.function("progress", progress, "stage, done and total")
    try:
        inspect.signature(getattr(progress, "forward", progress)).bind("", 0, 0)
    except ValueError:  # a signature that nobody knows
        return progress
    except TypeError as error:
        text = f"progress cannot be called ({one_line(error)})"
        raise InputError(f"{text}: give a function of stage, done and total") from None
    return progress
