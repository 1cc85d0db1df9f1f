"""Workers that are actors of Ray: on a cluster by its address, or on one started here.

    ClusterPool("local")                  a cluster of this machine, for as long as the pool is open
    ClusterPool("10.0.0.1:6379")          one that `ray start --head` and `ray start` have made

Ray carries calls, arguments and values between machines; nothing is started again by it
(max_restarts=0). gradlab must be installed on every machine, in the same version.
Ray listens on all interfaces of a machine, also where it was given one: who reaches them can
execute code there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self, final

from gradlab.errors import Failure, InputError, one_line, required
from gradlab.machine import python_module, version
from gradlab.workers.interface import CallFailed, Holder, Outcome, WorkerDied, check_name
from gradlab.workers.local import pickled, places, processors

_ANSWER = 5.0  # seconds in which the host of an address has to accept a connection
_PLACED = 60.0  # seconds in which a node has to start a process
LOOK = 5.0  # seconds between two looks at the node that this program is on
SILENT = 25.0  # seconds without an answer about it, after which it is lost
_STORE = 256 << 20  # bytes of the object store of a local cluster
LEAST = 79 << 20  # bytes below which Ray starts none


@final
class ClusterCall:
    """A call of an actor."""

    def __init__(self, ray: Any, worker: ClusterWorker, method: str, reference: Any) -> None:
        self._ray, self._worker, self._method = ray, worker, method
        self.reference = reference

    def result(self) -> Any:
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(self.reference)
        except (errors.RayActorError, errors.WorkerCrashedError) as death:
            self._worker.lost()
            raise WorkerDied(f"the worker, an actor of Ray, died: {_first_line(death)}") from None
        except (errors.ObjectStoreFullError, errors.OutOfMemoryError) as full:
            raise Failure(
                f"the value of {self._method} does not fit into the object store: start Ray with "
                f"a larger --object-store-memory ({_first_line(full)})"
            ) from None
        except errors.RayError as error:
            raise CallFailed(
                f"{self._method} failed in its worker: {_first_line(error)}", type(error).__name__
            ) from None
        return outcome.result(self._method)


@final
class ClusterWorker:
    """One actor and its object."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self._alive = True
        self._place = actor.place.remote()

    @property
    def alive(self) -> bool:
        return self._alive

    def call(self, method: str, *arguments: Any) -> ClusterCall:
        pickled(arguments)  # the same refusal as everywhere; Ray's own would have many lines
        reference = self._actor.serve.remote(method, arguments)
        return ClusterCall(self._ray, self, method, reference)

    def interrupt(self) -> None:
        """Send the signal from a process of the same machine: Ray interrupts no actor. One that
        still has no place, as after the loss of a node, has not begun, and is ended."""
        if not self._alive:
            return
        if not self._ray.wait([self._place], timeout=_ANSWER)[0]:
            self.kill()
            return
        with contextlib.suppress(self._ray.exceptions.RayError):
            node, number = self._ray.get(self._place, timeout=_PLACED)
            sent = self._ray.remote(_os_kill).options(**_at(self._ray, node))
            self._ray.get(sent.remote(number, signal.SIGINT), timeout=_PLACED)

    def kill(self) -> None:
        if self._alive:
            self.lost()
            self._ray.kill(self._actor, no_restart=True)

    def lost(self) -> None:
        self._alive = False


class _Actor:
    """The holder of an object as a process of Ray.

    Args:
        places: in which modules are looked for after its own, as the program does that asks.
    """

    def __init__(self, what: str, arguments: Sequence[Any], places: Sequence[str]) -> None:
        sys.path += [place for place in places if place not in sys.path]
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        self._holder = Holder(what, arguments)

    def place(self) -> tuple[str, int]:
        """The node and the process's number there."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def serve(self, method: str, arguments: Sequence[Any]) -> Outcome:
        return self._holder.serve(method, arguments)


@final
class ClusterPool:
    """Actors of a Ray cluster.

    Args:
        address: "local", or HOST:PORT of a cluster.
        workers: how many there will be; where that is more than the processors, each takes a share
            of one. None: one each.
        store: bytes of the object store of a local cluster.

    Raises:
        InputError: Ray is not installed, nothing answers at the address, versions differ between
            machines, or the store is too small.
    """

    def __init__(self, address: str, workers: int | None = None, store: int = _STORE) -> None:
        self._ray = imported()
        if store < LEAST:
            raise InputError(
                f"store is {store} bytes, too few for Ray's object store: it needs at least "
                f"{LEAST} (79 MiB)"
            )
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _connect(self._ray, address, store)
        try:
            compare_versions(self._ray)
        except BaseException:
            self.close()
            raise
        self._share = min(1.0, self.cores / (workers or 1))
        self._workers: list[ClusterWorker] = []
        self._node = self._ray.get_runtime_context().get_node_id()
        self._seen, self._closed = time.monotonic(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def cores(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 1))

    def start(self, what: str, *arguments: Any) -> ClusterWorker:
        check_name(what)
        pickled(arguments)
        made = self._ray.remote(_Actor).options(
            num_cpus=int(self._share * 1000) / 1000, max_restarts=0, max_task_retries=0
        )
        worker = ClusterWorker(self._ray, made.remote(what, arguments, places()))
        self._workers = [each for each in self._workers if each.alive] + [worker]
        return worker

    def wait(self, calls: Sequence[ClusterCall], timeout: float | None = None) -> list[ClusterCall]:
        if not calls:
            return []
        by_reference = {call.reference: call for call in calls}
        listed = list(by_reference)
        ended, _ = self._ray.wait(listed, num_returns=1, timeout=timeout)
        if ended:
            ended, _ = self._ray.wait(listed, num_returns=len(listed), timeout=0)
        elif time.monotonic() - self._seen > SILENT:
            for worker in self._workers:
                worker.lost()
            raise Failure(
                "the node of Ray that this program is on has died or does not answer: what was at "
                "work is lost; start Ray again, and go on with --resume (resume=True)"
            )
        return [by_reference[reference] for reference in ended]

    def _watch(self) -> None:
        """Note when the node of this program was last known to be alive.

        Ray notices a dead raylet in some 15 s, and then waits without end for a place for the next
        process. It is asked in a thread of its own, because it may not answer at all.
        """
        while not self._closed.wait(LOOK):
            with contextlib.suppress(Exception):
                nodes = {node["NodeID"]: node["Alive"] for node in self._ray.nodes()}
                self._seen = time.monotonic() if nodes.get(self._node) else -SILENT

    def close(self) -> None:
        if hasattr(self, "_closed"):
            self._closed.set()
        for worker in getattr(self, "_workers", ()):
            worker.kill()
        if self._ours:
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def imported() -> Any:
    """Ray, which sends no usage statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A GPU that no worker asks for stays visible, as it is for processes without Ray.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    return required("ray", "ray")


def _connect(ray: Any, address: str, store: int) -> None:
    """Start a cluster of this machine, or join the one at an address."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address == "local":
        with reasons(address):
            ray.init(address="local", num_cpus=processors(), include_dashboard=False,
                     object_store_memory=store, **quiet)  # fmt: skip
        return
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
    _check_health(address)
    with reasons(address):
        ray.init(address=address, **quiet)


def _check_health(address: str) -> None:
    """Ray's own test of a cluster, in a process of its own: `ray.init` waits for two minutes where
    something else listens, and then ends the whole program.
    """
    test = ["health-check", "--skip-version-check", "--address", address]
    words = python_module("ray.scripts.scripts", *test)
    try:
        done = subprocess.run(words, capture_output=True, timeout=_PLACED)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        raise InputError(
            f"what listens at ray={address} does not answer as a Ray cluster: give host and port "
            f"that `ray start --head` has printed"
        )


@contextlib.contextmanager
def reasons(address: str) -> Iterator[None]:
    """Inside, Ray's refusal of a cluster becomes one line."""
    try:
        yield
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        raise InputError(f"ray={address} cannot be used: {one_line(error)[:400]}") from error


def compare_versions(ray: Any) -> None:
    here = _versions()
    probe = ray.remote(_versions)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [probe.options(**_at(ray, node["NodeID"])).remote() for node in nodes]
    for node, reference in zip(nodes, asked, strict=True):
        name = node["NodeManagerHostname"]
        try:
            there = ray.get(reference, timeout=_PLACED)
        except ray.exceptions.GetTimeoutError:
            raise InputError(f"{name} starts no process within {_PLACED:.0f} s") from None
        except ray.exceptions.RayError as error:
            raise InputError(
                f"{name} has no gradlab that works: install it there, too ({_first_line(error)})"
            ) from None
        for package, version_here in here.items():
            if there[package] != version_here:
                raise InputError(
                    f"{package} is {there[package]} on {name} and {version_here} here: install "
                    f"one version on all machines"
                )


def _versions() -> dict[str, str]:
    """The versions here of what all machines need in one version."""
    return {"gradlab": version(), "torch": version("torch")}


def _os_kill(process: int, number: int) -> None:
    """Send a signal to a process of the machine that this is executed on."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _at(ray: Any, node: str) -> dict[str, Any]:
    """Options of a task that only that node may execute, beside whatever is at work there."""
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    return {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": strategy}


def _first_line(error: BaseException) -> str:
    """Ray's errors have dozens of lines, of which the last names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(lines[0] if lines else type(error).__name__)[:300]
