"""Progress of long work, as a function that the work calls."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total): called from time to time with done ≤ total; a stage has ended with
done = total, or when the next one begins."""


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""
