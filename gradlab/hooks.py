"""Progress of long work, told to whoever wants to hear it."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total): called from time to time with done ≤ total."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
