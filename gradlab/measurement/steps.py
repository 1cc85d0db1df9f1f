"""Steps along given directions, and the returns that they make on fresh starts.

    ΔJ(d) = J(θ + η d/|d|) − J(θ),      J = E_ζ Σ_{t<T} γᵗ r_t with the moved policy in every action

The simulator is only stepped: no derivative of it is taken. All copies of the policy run from the
same judging starts on the same noise, of streams of their own. The two lengths η are neighbours on
a grid that moves actions by .03% … 10% of their size along the truth, the longer one the longest at
which the return along the truth is still a line on a few of the starts,

    |ΔJ(η) + ΔJ(−η)| ≤ 0.1 |ΔJ(η) − ΔJ(−η)|.

Without a truth they move actions by 1% and 3% along the direction that moves them most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import child, stream
from gradlab.gradients.groups import by_group, grouping
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts, as_starts
from gradlab.measurement.step_plan import LENGTHS, PROBED
from gradlab.progress import Progress, silent
from gradlab.runs.one_step import LINEAR, TRUE_CELL, Cell
from gradlab.runs.realised import Realised, Status
from gradlab.tasks import Task
from gradlab.truth.common_random import own_size
from gradlab.truth.moved_returns import Rolling

MOVES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # by which share of their size actions are moved
UNKNOWN = 3  # place of the shorter length where no truth says which range is linear
# Shorter steps hardly ever move the end of an episode, which much of the change may come from.
ENDING = 3
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
    setting: Setting, directions: Mapping[Cell, Direction], progress: Progress = silent
) -> Realised:
    """Realised gains along every direction that is one.

    Args:
        setting: whose starts the returns are of, none of those that made the directions; whose
            horizon T ≥ 1 rewards are summed.
        directions: by estimator and horizon; `TRUE_CELL` is the truth, if there is one.
    """
    cells = tuple(sorted(directions, key=lambda cell: cell != TRUE_CELL))
    status = {cell: _status(directions[cell].mean) for cell in cells}
    sound = [cell for cell in cells if status[cell] == "stepped"]
    unit = {cell: directions[cell].mean / directions[cell].mean.norm() for cell in sound}
    rolling = Rolling(replace(setting, seed=child(setting.seed, STREAM)), progress)
    judging = setting.starts
    lengths, place, probed = _lengths(rolling, judging, unit)
    steps = [eta * unit[cell] for cell in sound for eta in lengths]
    if TRUE_CELL in unit:
        steps += [-eta * unit[TRUE_CELL] for eta in lengths]
    rolled = rolling.returns(judging, steps, "realised gains")
    label, size = grouping(judging)
    before = rolled.returns[0]
    change = by_group(rolled.returns[1:] - before, label).reshape(-1, LENGTHS, len(size))
    gain = np.full((len(cells), LENGTHS, len(size)), np.nan)
    for k, cell in enumerate(sound):
        if np.isfinite(change[k]).all():
            gain[cells.index(cell)] = change[k]
        else:
            status[cell] = "lost"
    return Realised(
        cells=cells,
        status=tuple(status[cell] for cell in cells),
        gain=gain,
        opposite=change[-1] if TRUE_CELL in unit else np.zeros((0, len(size))),
        before=by_group(before[None], label)[0],
        size=size,
        lengths=np.array(lengths),
        moves=MOVES[place : place + LENGTHS],
        kept=np.array([directions[cell].kept for cell in cells]),
        norm=directions[TRUE_CELL].norm if TRUE_CELL in directions else float("nan"),
        horizon=setting.horizon,
        termination=setting.termination,
        ended=float((~rolled.alive[0]).double().mean()),
        steps=rolled.steps + probed,
    )


def _status(direction: Tensor) -> Status:
    norm = float(direction.norm())
    if not np.isfinite(norm):
        return "not finite"
    return "stepped" if norm > 0 else "zero"


def _lengths(
    rolling: Rolling, judging: Starts, unit: Mapping[Cell, Tensor]
) -> tuple[list[float], int, int]:
    """Norms of the steps in θ, the first one's place among `MOVES`, and steps taken to find it."""
    along = [unit[TRUE_CELL]] if TRUE_CELL in unit else list(unit.values())
    policy = rolling.setting.policy
    noise = judging.policy_noise(policy, rolling.setting.seed, 0)
    sizes = [own_size(policy, judging.states, noise, direction[None]) for direction in along]
    grid = [move * min(sizes, default=0.0) for move in MOVES]
    place, taken = UNKNOWN, 0
    if TRUE_CELL in unit:
        few = judging.block(slice(0, min(PROBED, len(judging.states))))
        signed = [sign * eta * unit[TRUE_CELL] for sign in (1, -1) for eta in grid]
        probed = rolling.returns(few, signed, "step lengths")
        up, down = (probed.returns[1:] - probed.returns[0]).sum(dim=1).reshape(2, -1)
        ratio = (up + down).abs() / (up - down).abs().clamp(min=1e-300)
        straight = int((ratio.nan_to_num(nan=torch.inf) <= LINEAR).cumprod(dim=0).sum())
        place, taken = max(straight - LENGTHS, 0), probed.steps
    if rolling.setting.termination == "mask":
        place = max(place, ENDING)
    return grid[place : place + LENGTHS], place, taken
