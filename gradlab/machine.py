"""What this machine has, or what a container grants of it; how a child process begins on it.

Ray: a cluster by its address, or one of this machine for as long as it is needed.

    cluster("local")                  a cluster of this machine, until the context ends
    cluster("10.0.0.1:6379")          one that `ray start --head` and `ray start` have made

gradlab must be installed on every machine, in the same version. Ray listens on all interfaces of a
machine, also where it was given one: who reaches them can execute code there.
"""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from gradlab.errors import InputError, one_line, required

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


_ANSWER = 5.0  # seconds in which the host of an address has to accept a connection
_STORE = 256 << 20  # bytes of the object store of a cluster of this machine; Ray starts none of 78


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Inside, the module `ray`, connected.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be used.
    """
    ray = imported()
    if ray.is_initialized():  # by who calls, who ends it
        yield ray
        return
    given: dict[str, Any] = {"address": address}
    if address == "local":
        given |= {"num_cpus": processors(), "include_dashboard": False}
        given |= {"object_store_memory": _STORE}
    else:
        _check_answer(address)
    try:
        ray.init(**given, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many classes, some of them Exception itself
        raise InputError(f"ray={address} cannot be used: {one_line(error)[:400]}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def imported() -> Any:
    """Ray, which sends no usage statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A GPU that no task asks for stays visible, as it is for processes without Ray.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    return required("ray", "ray")


def _check_answer(address: str) -> None:
    """Whether a program listens there: `ray.init` would wait for two minutes where none does."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InputError(f'ray is {address!r}, expected "local" or HOST:PORT of a cluster')
    try:
        socket.create_connection((host, int(port)), _ANSWER).close()
    except OSError as error:
        raise InputError(
            f"nothing answers at ray={address} within {_ANSWER:.0f} s ({error.strerror or error}): "
            f"start it with `ray start --head`, or check host and port"
        ) from None
