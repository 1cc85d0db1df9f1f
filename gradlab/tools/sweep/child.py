"""The process of one run: a command of the command line that does not outlive who started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def main(parent: int, words: Sequence[str]) -> int:
    """Run one command; the exit code."""
    from gradlab.cli import program

    return program.main(words) if follow(parent) else 1


def follow(parent: int) -> bool:
    """Let this process be killed when the thread that started it ends; whether it still lives."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
