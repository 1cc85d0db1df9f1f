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
    """Processes of a run. Deterministic with one learner, one actor, one buffer and no queue it is
    the run without processes, bit for bit."""

    learners: int = 1
    """Processes that compute gradients, each on batches of its own, for a run in several processes
    (asynchronous training). Default: 1 where there are any processes, else the run is in one."""
    actors: int = 1
    """Processes that step environments, each as many as --agents, in turn."""
    buffers: int = 1
    """Processes that hold transitions, a share each, and draw batches."""
    queue: int = 1
    """Gradients that may wait to be applied while their learners go on; 0: learners wait for theirs
    to be applied."""
    deterministic: bool = False
    """Apply gradients in the order in which they were begun: the run can be repeated bit for bit,
    and waits for the slowest learner. Else a gradient is applied when it arrives."""

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
