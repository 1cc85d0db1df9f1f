"""The command line: one file per command, common arguments in `arguments`, output in `terminal`.

A command is a frozen dataclass of its arguments; `run` calls the package and returns a document.
Numerical packages are imported when a command runs, so that --help is quick.
"""

from gradlab.cli.program import main

__all__ = ["main"]
