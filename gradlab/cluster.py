"""Ray: a cluster by its address, or one of this machine for as long as it is needed.

    cluster("local")                  a cluster of this machine, until the context ends
    cluster("10.0.0.1:6379")          one that `ray start --head` and `ray start` have made

gradlab must be installed on every machine, in the same version. Ray listens on all interfaces of a
machine, also where it was given one: who reaches them can execute code there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradlab.errors import InputError, one_line, required
from gradlab.machine import processors

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
