"""The command line: one file per command, common arguments in `arguments`, output in `terminal`.

A command is a frozen dataclass of its arguments; `run` calls the package and returns a document.
Numerical packages are imported when a command runs, so that --help is quick.
"""

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """`program.main`. The program imports every command, and a command this package."""
    from gradlab.cli import program

    return program.main(arguments)
