"""The command line: one file per command, common arguments in `arguments`, output in `terminal`.

    gradlab measure TASK → RUN.h5 + RUN.html      gradlab jacobians TASK → RUN.h5 + RUN.html
    gradlab train ALGORITHM TASK → RUN.h5 + RUN.html, and checkpoints beside it
    gradlab report RUN.h5 → RUN.html              gradlab compare A.h5 B.h5 → one page
    gradlab sweep FILE.toml → a folder of runs, their index and its page
    gradlab certify SIMULATOR → a verdict, and the exit code
    gradlab watch RUN.h5 → the terminal, or a page of this machine, while it is written
    gradlab audit FILE.py:FUNCTION → one screen; exit code 1 where something is wrong
    gradlab list        gradlab selftest

A command is a frozen dataclass of its arguments; `run` calls the package and returns a document.
Numerical packages are imported when a command runs, so that --help is quick.
"""

from gradlab.cli.program import main

__all__ = ["main"]
