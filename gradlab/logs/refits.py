"""Critics fitted to the logs, where none is given: their spread over bootstraps of the data.

    y = Σ_{k<n} γᵏ r_{t+k} + γⁿ Q̄(s_{t+n}, a_{t+n})        along the recorded actions, on policy

Each critic is fitted (as `fitting.critics` does) to its own bootstrap of every other trajectory;
the rest is measured on, so that no gradient has a critic that was fitted to its trajectory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.data.noise import child, stream
from gradlab.data.trajectories import DIMS, Trajectories
from gradlab.errors import InputError
from gradlab.fitting.critics import Evaluation, fit_to
from gradlab.logs.features import constant
from gradlab.logs.windows import FEWEST, bounds
from gradlab.networks.mlp import QCritic
from gradlab.progress import Progress, silent

STEPS = 25  # n, fewer towards the end of a trajectory


def halves(record: Trajectories) -> tuple[Trajectories, Trajectories]:
    """Every other trajectory to fit on, and the others to measure on.

    Raises:
        InputError: there are fewer than twice as many trajectories as intervals need.
    """
    _, number = torch.unique_consecutive(record.trajectory, return_inverse=True)
    if int(number[-1]) + 1 < 2 * FEWEST:
        raise InputError(
            f"data has {int(number[-1]) + 1} trajectories, expected at least {2 * FEWEST} to fit "
            f"critics on half of them: give a critic, or record more"
        )
    return _rows(record, number % 2 == 1), _rows(record, number % 2 == 0)


def refitted(
    record: Trajectories, discount: float, count: int, seed: int, progress: Progress = silent
) -> list[QCritic]:
    """`count` critics, each of its own bootstrap of the trajectories."""
    data, number = evaluation(record, discount)
    still, spread = constant(record.state), record.state.double().std(dim=0)
    scale = torch.where(still, 1.0, 1 / torch.where(still, 1.0, spread)).tolist()
    critics = []
    for k in range(count):
        stream_seed = child(seed, f"refit {k}")
        drawn = torch.randint(
            int(number.max()) + 1,
            (int(number.max()) + 1,),
            generator=stream(stream_seed, "bootstrap"),
        )
        times = torch.bincount(drawn, minlength=int(number.max()) + 1)[number]
        rows = torch.arange(len(number)).repeat_interleave(times)
        critics.append(fit_to(_chosen(data, rows), scale, stream_seed, progress))
    return critics


def evaluation(record: Trajectories, discount: float) -> tuple[Evaluation, Tensor]:
    """n-step targets of every row that has one, and the number of its trajectory [M]."""
    state, action = record.state.double(), record.action.double()
    _, last = bounds(record)
    row, ended = torch.arange(len(record)), record.terminated[last]
    # Where a trajectory merely stops, its last action is what the critic values.
    n = (last - row + ended.long()).clamp_max(STEPS)
    returns = torch.zeros_like(record.reward, dtype=torch.float64)
    for k in range(STEPS):
        at = (row + k).clamp_max(len(record) - 1)
        returns += torch.where(k < n, discount**k * record.reward[at].double(), 0.0)
    end = torch.minimum(row + n, last)
    over = row + n > last
    keep = n > 0
    _, number = torch.unique_consecutive(record.trajectory, return_inverse=True)
    bootstrap = torch.where(over, 0.0, torch.pow(discount, n.double()))
    data = Evaluation(state, action, returns, state[end], action[end], bootstrap)
    return _chosen(data, keep), number[keep]


def _chosen(data: Evaluation, rows: Tensor) -> Evaluation:
    names = ("state", "action", "returns", "last_state", "last_action", "bootstrap")
    return Evaluation(*(getattr(data, name)[rows] for name in names))


def _rows(record: Trajectories, keep: Tensor) -> Trajectories:
    columns = {name: getattr(record, name)[keep] for name in DIMS}
    return Trajectories(**columns, state_names=record.state_names, action_names=record.action_names)
