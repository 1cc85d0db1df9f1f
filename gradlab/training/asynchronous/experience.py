"""Actors and buffers, from the optimiser's side.

Every transition is kept here, too, once its actor has sent it: so a buffer that dies is filled
again, and the saved state is that of a run without processes. Steps of the actors are stored in the
order in which they were begun, and there are as many for each update as settings have it: an update
waits for a step that is due. With several actors the next steps are under way meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from gradlab.data.replay import Replay
from gradlab.training.asynchronous.messages import Arrays, arrays, policy_of, tensors
from gradlab.training.asynchronous.supervision import PendingCall, Supervised, Supervisor
from gradlab.training.asynchronous.work import Work
from gradlab.training.collection import Ended
from gradlab.training.state import Run


@final
class Actors:
    """The processes that step environments, in turn."""

    def __init__(self, supervisor: Supervisor, work: Work) -> None:
        self._work = work
        self._actors = [
            Supervised(supervisor, f"actor {k}", "actor", (k,))
            for k in range(len(work.environments))
        ]
        self._under_way: deque[tuple[int, PendingCall]] = deque()

    def step(self, run: Run) -> Ended:
        """The next step into replay, waited for."""
        policy = policy_of(run.learner)
        while len(self._under_way) < len(self._actors):
            self._begin(policy)
        actor, call = self._under_way.popleft()
        rows, ended, state = call.result()
        run.replay.put(tensors({"rows": rows})["rows"])
        self._work.environments[actor].load(tensors(state))
        self._work.window.step(actor)
        return ended  # type: ignore[no-any-return]

    def recall(self) -> None:
        """Steps under way are begun again later."""
        for _, call in self._under_way:
            call.drop()
        self._under_way.clear()

    def _begin(self, policy: Arrays) -> None:
        taken = sum(each.steps for each in self._work.environments) + len(self._under_way)
        actor = taken % len(self._actors)
        state = arrays(self._work.environments[actor].saved())
        call = self._actors[actor].call("step", lambda: (policy, state))
        self._under_way.append((actor, call))


@final
class Buffers:
    """The processes that draw batches, in turn; with a queue, one of each is drawn ahead."""

    def __init__(self, supervisor: Supervisor, run: Run) -> None:
        choice = run.settings.asynchronous
        assert choice is not None and run.work is not None
        self._work, self._ahead = run.work, choice.buffers if choice.queue else 0
        turn = choice.actors * run.settings.agents
        self._buffers = [
            _Buffer(supervisor, k, choice.buffers, turn) for k in range(choice.buffers)
        ]
        self._drawn: deque[PendingCall] = deque()

    def next(self, run: Run) -> tuple[int, Arrays]:
        """The number of the next batch, and its columns."""
        while len(self._drawn) <= self._ahead:
            self._begin(run, self._work.batches + len(self._drawn))
        batch: Arrays = self._drawn.popleft().result()
        self._work.batches += 1
        return self._work.batches - 1, batch

    def recall(self) -> None:
        """Batches that no learner has are drawn again later."""
        for call in self._drawn:
            call.drop()
        self._drawn.clear()

    def _begin(self, run: Run, number: int) -> None:
        row = run.algorithm
        uniform = run.learner.draws.uniform("batch", number * row.reuse, (row.batch,))
        buffer = self._buffers[number % len(self._buffers)]
        self._drawn.append(buffer.draw(run.replay, uniform.numpy()))


@final
class _Buffer:
    """One buffer, which is sent what it lacks with each draw.

    Args:
        turn: transitions that go to one buffer before the next has its turn.
    """

    def __init__(self, supervisor: Supervisor, number: int, count: int, turn: int) -> None:
        self._number, self._count, self._turn = number, count, turn
        self._newest = -1  # number of the last transition that it has
        self._process = Supervised(supervisor, f"buffer {number}", "buffer", (count,), self._lost)

    def draw(self, replay: Replay, uniform: NDArray[Any]) -> PendingCall:
        until = replay.added  # what is stored later is no part of this batch
        return self._process.call("draw", lambda: (*self._lacking(replay, until), uniform))

    def _lacking(self, replay: Replay, until: int) -> tuple[int, NDArray[Any]]:
        """The place of the first row that it lacks, and the rows [E, n, width]."""
        oldest = max(replay.added - len(replay), self._newest + 1)
        numbers = np.arange(oldest, until)
        mine = numbers[numbers // self._turn % self._count == self._number]
        first = self._places(mine)[0] if len(mine) else self._places(self._newest) + 1
        self._newest = int(mine[-1]) if len(mine) else self._newest
        at = torch.from_numpy(mine % replay.rows.shape[1]).to(replay.rows.device)
        return int(first), replay.rows[:, at].cpu().numpy()

    def _places(self, numbers: Any) -> Any:
        """Of transitions that are this buffer's, among those that are."""
        return numbers // (self._turn * self._count) * self._turn + numbers % self._turn

    def _lost(self) -> None:
        self._newest = -1
