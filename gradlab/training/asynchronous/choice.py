"""How many processes of each role a run has.

A gradient is computed at the parameters θ_v that its learner was given, and applied when they have
become θ_t. Its lag, or staleness, is t − v (MPG section IV-C, which bounds it by a short queue).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gradlab import validation

Role = Literal["critic", "policy"]  # of a gradient: whose parameters it is of
ROLES: tuple[Role, ...] = get_args(Role)
_OPTIMISER_AND_EVALUATOR = 2


@dataclass(frozen=True)
class Asynchronous:
    """Processes of a run.

    Attributes:
        learners: compute gradients, each on batches of its own.
        actors: step environments, each as many as a run has without processes (`agents`), in turn.
        buffers: hold the transitions and draw batches, each of its share of them.
        queue: gradients that may wait to be applied while their learners go on; 0: a learner waits
            until its gradient has been applied.
        deterministic: gradients are applied in the order in which they were begun, with the queue
            full: a run can be repeated bit for bit, and waits for the slowest learner. With one
            learner, one actor, one buffer and no queue it is the run without processes, bit for
            bit. Else a gradient is applied when it arrives.
    """

    learners: int = 1
    actors: int = 1
    buffers: int = 1
    queue: int = 1
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, least in (("learners", 1), ("actors", 1), ("buffers", 1), ("queue", 0)):
            validation.whole(name, getattr(self, name), least)

    @property
    def processes(self) -> int:
        """All of them, this one included."""
        return self.learners + self.actors + self.buffers + _OPTIMISER_AND_EVALUATOR

    def crowded(self, cores: int) -> str:
        """A line where there are more processes at work than processors, else ""."""
        working = self.learners + 1
        if working <= cores:
            return ""
        return (
            f"{self.learners} learners and the optimiser share {cores} processors: updates per "
            f"second grow with learners up to about {max(1, cores - 1)}"
        )
