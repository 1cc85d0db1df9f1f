"""One step along each gradient, and the change of the return: the effect of an error on learning.

    ΔJ(d) = J(θ + η d/|d|) − J(θ),      J = E Σ_{t<T} γᵗ r_t with the moved policy in every action

One half of the starts makes the gradients, the other the returns, with the same noise before and
after the step. All steps have one length η: the largest of a grid (it moves actions by 0.1% …
10% of their size along the truth) at which the return along the truth is still a line there,

    |ΔJ(η) + ΔJ(−η)| ≤ 0.1 |ΔJ(η) − ΔJ(−η)|,

so that to first order a step's share of the truth's gain is the cosine of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradlab.gradients import gram
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.groups import by_group, grouping
from gradlab.gradients.horizons import horizon_gradients
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.setting import Setting
from gradlab.gradients.start_laws import visits
from gradlab.gradients.starts import Starts
from gradlab.measurement.moments.visited import SAMPLES
from gradlab.progress import Progress, silent
from gradlab.runs.one_step import LINEAR, TRUTH, OneStepImprovement
from gradlab.truth.common_random import own_size
from gradlab.truth.moved_returns import Rolling
from gradlab.truth.truth import Truth

JUDGES = 128  # starts that returns are of
MOVES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # by which share of their size actions are moved
FEWEST = 4  # groups on either side

Cell = tuple[str, int]


@dataclass(frozen=True)
class Question:
    """Whose steps are asked for: as they were measured (with entropy, augmented).

    Attributes:
        objective: is the truth the gradient of the return?
    """

    setting: Setting
    truth: Truth
    objective: bool


def one_step_improvement(
    question: Question,
    estimators: Mapping[str, Estimator],
    cells: Sequence[Cell],
    progress: Progress = silent,
) -> OneStepImprovement | None:
    """Steps along the true gradient and along the mean gradient of every cell.

    Args:
        cells: estimator and horizon; the first one's slice is taken beside the truth's.

    Returns:
        None where there is no truth, a gradient is not finite or 0, or the starts do not make two
        sides of at least 4 groups.
    """
    sides = halves(question.setting.starts)
    if sides is None or not question.truth.admissible or not cells:
        return None
    making, judging = sides
    directions = {(TRUTH, 0): _true_direction(question, making)}
    for cell in cells:
        directions[cell] = _direction(question, estimators[cell[0]], cell[1], making)
    sound = {cell: d for cell, d in directions.items() if torch.isfinite(d).all() and d.norm() > 0}
    if (TRUTH, 0) not in sound or len(sound) < 2:
        return None
    unit = {cell: d / d.norm() for cell, d in sound.items()}
    return _stepped(question, unit, cells[0], len(making.states), judging, progress)


def halves(begin: Starts) -> tuple[Starts, Starts] | None:
    """Two sides without a common group, the second of at most `JUDGES` starts; None: not enough."""
    n = len(begin.states)
    _, first, label = np.unique(begin.group.cpu().numpy(), return_index=True, return_inverse=True)
    appearing = first[label]  # labels in the order of appearance
    seen = np.maximum.accumulate(appearing)[:-1]
    coming = np.minimum.accumulate(appearing[::-1])[::-1][1:]
    parting = np.flatnonzero(seen < coming) + 1
    if not len(parting):
        return None
    k = int(parting[np.abs(parting - n / 2).argmin()])
    if min(len(set(label[:k])), len(set(label[k : k + JUDGES]))) < FEWEST:
        return None
    return begin.block(slice(0, k)), begin.block(slice(k, min(k + JUDGES, n)))


def _true_direction(question: Question, making: Starts) -> Tensor:
    """Mean true gradient of the starts that make gradients, [P]."""
    rows, truth = slice(0, len(making.states)), question.truth
    if truth.first is None:
        assert truth.every is not None
        return truth.every.gradients[rows].mean(dim=0)
    policy = question.setting.policy
    noise = making.policy_noise(policy, question.setting.seed, 0)
    jacobian = policy_jacobian(policy, making.states, noise)
    g = truth.first.gradients[rows] * making.weight[:, None]
    return gram.mean_gradients(jacobian, g[None])[0]


def _direction(question: Question, estimator: Estimator, horizon: int, making: Starts) -> Tensor:
    """Mean gradient of one estimator at one horizon, [P]."""
    setting, at = question.setting, making
    if question.objective and not estimator.way.every:
        at = visits(replace(setting, starts=making, horizon=question.truth.horizon), SAMPLES)
    gradients = horizon_gradients(
        estimator, setting.policy, at, horizons=[horizon], seed=setting.seed,
        termination=setting.termination,
    )  # fmt: skip
    return gradients.means[0]


def _stepped(
    question: Question,
    unit: Mapping[Cell, Tensor],
    judged: Cell,
    made: int,
    judging: Starts,
    progress: Progress,
) -> OneStepImprovement:
    true = unit[TRUTH, 0]
    grid = _grid(question, judging, true)
    signed = torch.cat([-grid.flip(0), grid])
    slice_cells = [(TRUTH, 0), judged] if judged in unit else [(TRUTH, 0)]
    moved = [step * unit[cell] for cell in slice_cells for step in signed]
    changes = _changes(question, judging, moved, progress).reshape(
        len(slice_cells), len(signed), -1
    )
    k, curvature = _linear(changes[0].sum(dim=1), len(grid))
    eta = grid[k]
    rest = [cell for cell in unit if cell not in slice_cells]
    label, size = grouping(judging)
    gains = dict(zip(slice_cells, changes[:, len(grid) + k], strict=True))
    if rest:
        stepped = _changes(question, judging, [eta * unit[cell] for cell in rest], progress)
        gains |= dict(zip(rest, stepped, strict=True))
    nothing = torch.zeros_like(changes[:, :1])
    whole = torch.cat([changes[:, : len(grid)], nothing, changes[:, len(grid) :]], dim=1)
    lengths = torch.cat([signed[: len(grid)], signed.new_zeros(1), signed[len(grid) :]])
    return OneStepImprovement(
        cells=tuple(unit),
        gain=by_group(torch.stack([gains[cell] for cell in unit]), label),
        size=size,
        step=float(eta),
        moves=MOVES[k],
        curvature=curvature,
        steps=lengths.numpy(),
        sliced=tuple(list(unit).index(cell) for cell in slice_cells),
        slices=np.stack([by_group(change, label) for change in whole]),
        horizon=question.truth.horizon,
        made=made,
    )


def _grid(question: Question, judging: Starts, direction: Tensor) -> Tensor:
    """Lengths η at which a step along a unit direction moves actions by `MOVES` of their size."""
    policy = question.setting.policy
    noise = judging.policy_noise(policy, question.setting.seed, 0)
    size = own_size(policy, judging.states, noise, direction[None])
    return size * torch.tensor(MOVES).to(direction)


def _changes(
    question: Question, judging: Starts, moved: list[Tensor], progress: Progress
) -> Tensor:
    """J(θ + step) − J(θ) of each step and start, importance weights included, [steps, n]."""
    rolling = Rolling(replace(question.setting, horizon=question.truth.horizon), progress)
    returns = rolling.returns(judging, moved, "steps").returns
    return returns[1:] - returns[:1]


def _linear(along_truth: Tensor, half: int) -> tuple[int, float]:
    """The largest step whose even part is at most `LINEAR` of its odd part; the smallest where
    none is. Its place in the grid and that ratio."""
    down, up = along_truth[:half].flip(0), along_truth[half:]
    ratio = ((up + down).abs() / (up - down).abs().clamp(min=1e-300)).nan_to_num(nan=torch.inf)
    straight = (ratio <= LINEAR).cumprod(dim=0).sum()
    k = max(int(straight) - 1, 0)
    return k, float(ratio[k])
