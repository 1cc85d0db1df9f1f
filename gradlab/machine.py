"""What this machine has, or what a container grants of it; how a child process begins on it."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from functools import cache
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
_RUN = """\
import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""


def python_module(name: str, *words: str) -> list[str]:
    """The command that runs a module in a child process.

    -P keeps the working folder off its path, where a downloaded run may lie beside an `h5py.py`;
    the place of this gradlab comes last, for one that is not installed.
    """
    place = Path(__file__).resolve().parent.parent
    return [sys.executable, "-P", "-c", _RUN, str(place), name, *words]


@cache
def version(package: str = "gradlab-rl") -> str:
    """Of an installed package, gradlab's own by default; its description is parsed whole, once in
    a process. A checkout on the path alone is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def memory() -> float:
    """Bytes of memory."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    granted = _LIMIT.read_text().strip() if _LIMIT.is_file() else "max"
    return float(min(machine, int(granted)) if granted.isdigit() else machine)
