"""One seed of a learner by itself: the same networks, optimisers and draws, an axis of length 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from gradlab.training.learner import Learner
from gradlab.training.settings import Settings


def alone(
    learner: Learner, member: int, state: Mapping[str, Tensor] | None = None, **changes: object
) -> Learner:
    """A learner of one seed, without a model.

    Args:
        state: of the learner; default: its present one.
        changes: settings that differ, such as precision="float64".
    """
    settings: Settings = replace(learner.settings, **changes)  # type: ignore[arg-type]
    settings = replace(settings, seeds=1, first_seed=learner.seeds[member])
    single = Learner(learner.algorithm, learner.task, settings)
    state = learner.state() if state is None else state
    single.load(_sliced(state, member, learner.algorithm.critics))
    single.in_force = learner.in_force[[member]]
    return single


def _sliced(state: Mapping[str, Tensor], member: int, critics: int) -> dict[str, Tensor]:
    """Of one seed, whose critics are side by side."""
    sliced = {}
    for name, value in state.items():
        count = critics if name.startswith(("critic", "target_critic")) else 1
        sliced[name] = value[member * count : (member + 1) * count] if value.ndim else value
    return sliced
