"""Processes that are replaced where they die, and calls that are repeated then.

A spare process has imported everything and waits for a role: imports take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from gradlab.errors import Failure
from gradlab.workers import Call, Pool, Worker, WorkerDied

_MEMBER = "gradlab.training.asynchronous.processes:Member"
_ATTEMPTS = 5  # processes that may die of one call, one after another

_Arguments = Callable[[], tuple[Any, ...]]
Note = Callable[[str], None]


@final
class Supervisor:
    """All processes of a run.

    Attributes:
        replaced: how many have died so far.

    Args:
        world: `messages.packed`.
    """

    def __init__(self, pool: Pool, world: bytes, note: Note) -> None:
        self._pool, self._world, self.note = pool, world, note
        self.replaced = 0
        self._workers: list[Worker] = []
        self._spare: Worker | None = None

    def start(self, role: str, *arguments: Any) -> Worker:
        """A process of a role: the spare one, if there is one."""
        worker = self._spare or self._begun()
        self._spare = None
        worker.call("become", role, *arguments)
        return worker

    def have_spare(self) -> None:
        """Start the one that waits, where none does."""
        self._spare = self._spare or self._begun()

    def _begun(self) -> Worker:
        self._workers.append(self._pool.start(_MEMBER, self._world))
        return self._workers[-1]

    def end(self) -> None:
        """End all processes at once: none of them has anything to save."""
        for worker in self._workers:
            worker.kill()

    def ended(
        self, pending: Sequence[PendingCall], timeout: float | None = None
    ) -> list[PendingCall]:
        """Those that have an answer, at least one unless `timeout` seconds pass before."""
        while True:
            by_call = {id(one.sent): one for one in pending}
            calls = self._pool.wait([one.sent for one in pending], timeout)
            over = [by_call[id(call)] for call in calls]
            answered = [one for one in over if one.answered()]
            if answered or timeout is not None or not pending:
                return answered


@final
class Supervised:
    """A process of a role, replaced where it dies.

    Args:
        name: for messages, such as "learner 2"; role: a key of `processes.ROLES`.
        lost: is called when the process has died, before its calls are repeated.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        name: str,
        role: str,
        arguments: tuple[Any, ...],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.supervisor, self.name = supervisor, name
        self._role, self._arguments, self._lost = role, arguments, lost
        self._open: list[PendingCall] = []
        self.worker = supervisor.start(role, *arguments)

    def call(self, method: str, arguments: _Arguments) -> PendingCall:
        """Call a method; the arguments are made anew where it is repeated."""
        call = PendingCall(self, method, arguments)
        self._open.append(call)
        return call

    def replace(self, death: WorkerDied) -> None:
        """Start another process, which is given all open calls in their order."""
        self.supervisor.replaced += 1
        self.supervisor.note(f"{self.name}: {death}; another process takes its place")
        self._lost()
        self.worker = self.supervisor.start(self._role, *self._arguments)
        for call in self._open:
            call.send()
        self.supervisor.have_spare()

    def close(self, call: PendingCall) -> None:
        """A call is answered, or not wanted any more."""
        self._open = [other for other in self._open if other is not call]


@final
class PendingCall:
    """A call, whichever process answers it."""

    def __init__(self, process: Supervised, method: str, arguments: _Arguments) -> None:
        self._process, self._method, self._arguments = process, method, arguments
        self._deaths = 0
        self.send()

    def send(self) -> None:
        """Call the process that has the role now."""
        self.sent: Call = self._process.worker.call("do", self._method, *self._arguments())

    def drop(self) -> None:
        """No answer is wanted."""
        self._process.close(self)

    def answered(self) -> bool:
        """Whether a call that has ended has an answer; if its process died, it is repeated."""
        try:
            self.value = self.sent.result()
        except WorkerDied as death:
            self._deaths += 1
            if self._deaths == _ATTEMPTS:
                raise Failure(
                    f"{self._process.name} died {_ATTEMPTS} times of one call: {death}; the last "
                    f"saved state is kept: go on with resume=True"
                ) from death
            self._process.replace(death)
            return False
        self._process.close(self)
        return True

    def result(self) -> Any:
        """The answer, waited for."""
        while not hasattr(self, "value"):
            self.answered()
        return self.value
