"""How old gradients were when they were applied, and what each process did, from row to row.

lag = t − v       steps of the network between θ_v, at which a gradient was computed, and θ_t
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gradlab.storage.journal_tables import Column, Table
from gradlab.training.asynchronous.choice import ROLES, Asynchronous


def bins(choice: Asynchronous) -> int:
    """Lags that are counted apart; the last of them counts longer ones, too. In order of arrival a
    gradient can be overtaken, so that none is the longest."""
    return 2 * (choice.learners + choice.queue) + 1


def table(choice: Asynchronous) -> Table:
    """Rows of windows, numbered as those of the updates."""
    counts = {f"{role}_lag": Column(("lag",), "gradients") for role in ROLES}
    columns = counts | {
        "mean_lag": Column(unit="steps of the policy"),
        "largest_lag": Column(unit="steps of the policy"),
        "learner_gradients": Column(("learner",)),
        "learner_seconds": Column(("learner",), "s of computing"),
        "actor_steps": Column(("actor",), "steps of its environments"),
        "replaced": Column(unit="processes that died, since the run began here"),
        "seconds": Column(unit="s"),
    }
    scales = {"lag": bins(choice), "learner": choice.learners, "actor": choice.actors}
    return Table("iteration", columns, {name: range(size) for name, size in scales.items()})


@final
class Window:
    """Counts since the last row."""

    def __init__(self, choice: Asynchronous) -> None:
        self._choice = choice
        self._lags: dict[str, Counter[int]] = {}
        self._empty()

    def gradient(self, role: str, lag: int, learner: int, seconds: float) -> None:
        """A gradient was applied."""
        self._lags[role][lag] += 1
        self._gradients[learner] += 1
        self._seconds[learner] += seconds

    def step(self, actor: int) -> None:
        """An actor's environments took a step."""
        self._steps[actor] += 1

    def row(self, iteration: int, seconds: float, replaced: int) -> dict[str, Any]:
        """The row of the window that ends at `iteration`; begins the next."""
        policy = np.array(sorted(self._lags["policy"].elements()), dtype=np.float64)
        row = {f"{role}_lag": self._counted(role) for role in ROLES} | {
            "iteration": iteration,
            "learner_gradients": self._gradients,
            "learner_seconds": self._seconds,
            "actor_steps": self._steps,
            "replaced": replaced,
            "seconds": seconds,
        }
        if len(policy):
            row |= {"mean_lag": policy.mean(), "largest_lag": policy[-1]}
        self._empty()
        return row

    def state(self) -> dict[str, Tensor]:
        """The open window, for `load`."""
        state = {
            f"{role}_lag": torch.tensor(sorted(lags.elements()), dtype=torch.long)
            for role, lags in self._lags.items()
        }
        counts = {"gradients": self._gradients, "seconds": self._seconds, "steps": self._steps}
        return state | {name: torch.from_numpy(x.copy()) for name, x in counts.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._lags = {role: Counter(state[f"{role}_lag"].tolist()) for role in ROLES}
        self._gradients, self._seconds, self._steps = (
            state[name].numpy().copy() for name in ("gradients", "seconds", "steps")
        )

    def _counted(self, role: str) -> Any:
        """How many gradients had each lag, [bins]."""
        lags = np.array(list(self._lags[role].elements()), dtype=np.int64)
        return np.bincount(np.minimum(lags, bins(self._choice) - 1), minlength=bins(self._choice))

    def _empty(self) -> None:
        self._lags = {role: Counter() for role in ROLES}
        self._gradients = np.zeros(self._choice.learners)
        self._seconds = np.zeros(self._choice.learners)
        self._steps = np.zeros(self._choice.actors)
