"""Steps along given directions, and the returns that they make on fresh starts.

    ΔJ(d) = J(θ + η d/|d|) − J(θ),      J = E_ζ Σ_{t<T} γᵗ r_t with the moved policy in every action

The simulator is only stepped: no derivative of it is taken. All copies of the policy run from the
same judging starts on the same noise, of streams of their own. η is the length of the user's
update: along the truth it moves the actions by the share of their size by which that moves them;
without a truth along the direction that moves them most. A shorter length would be chosen so that
the return is a line, and jumps are not met there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.noise import child, stream
from gradlab.gradients.groups import by_group, grouping
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts, as_starts
from gradlab.measurement.step_plan import MOVES, UPDATE
from gradlab.progress import Progress, silent
from gradlab.runs.one_step import TRUE_CELL, Cell
from gradlab.runs.realised import Realised, Status
from gradlab.tasks import Task
from gradlab.truth.common_random import own_size
from gradlab.truth.moved_returns import Rolling

STREAM = "judges"


@dataclass(frozen=True)
class Direction:
    """Where to step: a mean gradient [P], and the norm of its expectation (noise-corrected)."""

    mean: Tensor
    norm: float = float("nan")

    @property
    def kept(self) -> float:
        """Share of its length that is not noise; NaN where that is unknown."""
        length = float(self.mean.norm())
        return float(np.minimum(self.norm / length, 1.0)) if length > 0 else float("nan")


def judging_starts(task: Task, n: int, seed: int) -> Starts:
    """n starts of the task's law that made none of its gradients."""
    drawn = task.starts(n, stream(seed, STREAM)).double()
    return as_starts(drawn, task.simulator.state_dim)


def realise(
    setting: Setting,
    directions: Mapping[Cell, Direction],
    move: float,
    once: Collection[Cell] = (),
    progress: Progress = silent,
) -> Realised:
    """Realised gains along every direction that is one.

    Args:
        setting: whose starts the returns are of, none of those that made the directions; whose
            horizon T ≥ 1 rewards are summed.
        directions: by estimator and horizon; `TRUE_CELL` is the truth, if there is one.
        move: by which share of their size the user's update moves the actions.
        once: directions that are stepped along by the update alone, not by `MOVES` of it.
    """
    cells = tuple(sorted(directions, key=lambda cell: cell != TRUE_CELL))
    status = {cell: _status(directions[cell].mean) for cell in cells}
    sound = [cell for cell in cells if status[cell] == "stepped"]
    unit = {cell: directions[cell].mean / directions[cell].mean.norm() for cell in sound}
    rolling = Rolling(replace(setting, seed=child(setting.seed, STREAM)), progress)
    judging = setting.starts
    lengths = _lengths(rolling.setting, unit, move)
    taken = [
        (cell, k) for cell in sound for k in range(len(MOVES)) if k == UPDATE or cell not in once
    ]
    steps = [float(lengths[k]) * unit[cell] for cell, k in taken]
    rolled = rolling.returns(judging, steps, "realised gains")
    label, size = grouping(judging)
    before = rolled.returns[0]
    change = by_group(rolled.returns[1:] - before, label)
    gain = np.full((len(cells), len(MOVES), len(size)), np.nan)
    for (cell, k), row in zip(taken, change, strict=True):
        gain[cells.index(cell), k] = row
        if not np.isfinite(row).all():
            status[cell] = "lost"
    for cell in cells:
        if status[cell] == "lost":
            gain[cells.index(cell)] = np.nan
    return Realised(
        cells=cells,
        status=tuple(status[cell] for cell in cells),
        gain=gain,
        before=by_group(before[None], label)[0],
        size=size,
        lengths=lengths,
        moves=tuple(move * each for each in MOVES),
        kept=np.array([directions[cell].kept for cell in cells]),
        norm=directions[TRUE_CELL].norm if TRUE_CELL in directions else float("nan"),
        horizon=setting.horizon,
        termination=setting.termination,
        ended=float((~rolled.alive[0]).double().mean()),
        steps=rolled.steps,
        at=UPDATE,
    )


def _status(direction: Tensor) -> Status:
    norm = float(direction.norm())
    if not np.isfinite(norm):
        return "not finite"
    return "stepped" if norm > 0 else "zero"


def _lengths(setting: Setting, unit: Mapping[Cell, Tensor], move: float) -> NDArray[np.float64]:
    """η of the steps in θ, [S]."""
    along = [unit[TRUE_CELL]] if TRUE_CELL in unit else list(unit.values())
    policy, judging = setting.policy, setting.starts
    noise = judging.policy_noise(policy, setting.seed, 0)
    sizes = [
        own_size(policy, judging.states, noise, direction[None], judging.weight)
        for direction in along
    ]
    return min(sizes, default=0.0) * move * np.array(MOVES)
