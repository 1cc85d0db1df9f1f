"""Processes of a run as actors of Ray, which starts a dead one again and repeats its calls.

They take no share of a processor in Ray's accounts: each finds a place, whatever there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from gradlab.errors import Failure, InputError, in_short
from gradlab.training.asynchronous.processes import Process

_ATTEMPTS = 5  # processes that may die of one call, one after another


@final
class Members:
    """All processes of a run.

    Args:
        ray: the module, connected; world: of `execution.packed`.
    """

    def __init__(self, ray: Any, world: bytes) -> None:
        self.ray, self._world = ray, world
        self._actors: list[Any] = []

    def start(self, name: str, kind: type[Process], *arguments: Any) -> Member:
        """Start a process; name: for messages, such as "learner 2"."""
        actor = self.ray.remote(kind).options(
            num_cpus=0, scheduling_strategy="SPREAD",
            max_restarts=-1, max_task_retries=_ATTEMPTS - 1,
        )  # fmt: skip
        self._actors.append(actor.remote(self._world, *arguments))
        return Member(self.ray, name, self._actors[-1])

    def ended(self, calls: Sequence[PendingCall], wait: bool) -> list[PendingCall]:
        """Those that have an answer, or an error; wait: until there is one."""
        listed = [call.reference for call in calls]
        if wait:
            self.ray.wait(listed)
        ended, _ = self.ray.wait(listed, num_returns=len(listed), timeout=0)
        return [call for call in calls if call.reference in ended]

    def end(self) -> None:
        """End all processes at once: none of them has anything to save."""
        for actor in self._actors:
            self.ray.kill(actor)


@final
class Member:
    """A process, whichever has its place."""

    def __init__(self, ray: Any, name: str, actor: Any) -> None:
        self.ray, self.name, self._actor = ray, name, actor

    def call(self, method: str, *arguments: Any) -> PendingCall:
        """Call a method; returns at once, and calls are served in order."""
        return PendingCall(self, method, self._actor.answer.remote(method, *arguments))


@final
class PendingCall:
    """A call that may wait, be served or be over."""

    def __init__(self, member: Member, method: str, reference: Any) -> None:
        self._member, self._method, self.reference = member, method, reference

    def result(self) -> Any:
        """The answer, waited for.

        Raises:
            InputError: the method raised one.
            Failure: it raised something else, or killed every process.
        """
        ray, name = self._member.ray, self._member.name
        try:
            return ray.get(self.reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise InputError(error.cause) from None
            said = f"{type(error.cause).__name__}: {in_short(error.cause)}"
            raise Failure(f"{self._method} failed in {name} with {said}") from None
        except ray.exceptions.RayActorError as death:
            raise Failure(
                f"{name} died {_ATTEMPTS} times of one call ({in_short(death)}); the last saved "
                f"state is kept: go on with resume=True"
            ) from None
