"""Realised gains: what the user's update does to the return of fresh starts.

    ΔJ(d) = J(θ + η d/|d|) − J(θ),      J = E_ζ Σ_{t<T} γᵗ r_t with the moved policy in every action

The simulator is only stepped. All copies of the policy run from the same judging starts on the same
noise. η is the length of the user's update; the truth, the data gradient and the cells of largest
gain are stepped along by a quarter, once and three times of it, further cells by the update alone,
as many as 15% of the measurement buys, counted in simulator steps and not by a clock:

    measured = L (N T + n H · (visited states per start + 1 with θ in all actions)),

n of N starts being used, L the steps that take as long as one Jacobian and what is made of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.data.trajectories import child, stream
from gradlab.gradients.setting import Setting, Starts, as_starts, by_group, grouping
from gradlab.measurement.inner_products import Measured
from gradlab.measurement.resolve import Resolved
from gradlab.measurement.update import Update, UpdateTest, reach
from gradlab.progress import Progress, silent
from gradlab.runs.identity import Cell
from gradlab.runs.realised import TRUE_CELL, Realised, Status
from gradlab.systems.system import System, by_differences
from gradlab.tasks import Task
from gradlab.truth.agreement import precision_of
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.returns import paired_returns
from gradlab.truth.truth import Truth

MOVES = (0.25, 1.0, 3.0)  # lengths of a step, in units of the user's update
UPDATE = 1  # place of the update itself
FEWEST, MOST = 5, 10  # cells
_GRID = (1, 2, 5, 10)  # horizons, and the longest, where no gain says which


@dataclass(frozen=True)
class _Plan:
    """What is rolled out: cells at all lengths, further ones at the update's, steps of an episode,
    and how many steps that makes."""

    everywhere: tuple[Cell, ...]
    once: tuple[Cell, ...]
    judges: int
    horizon: int
    steps: int

    @property
    def cells(self) -> tuple[Cell, ...]:
        return (*self.everywhere, *self.once)


def planned(
    first: Sequence[Cell],
    further: Sequence[Cell],
    horizons: Sequence[int],
    budget: float,
    judges: int,
    references: int = 0,
) -> _Plan:
    """
    Args:
        first: cells that are stepped along in any case; further: the first ones first.
        horizons: T that will do, the best one first; another one only where what has to be rolled
            out exceeds the budget.
        budget: simulator steps.
        judges: starts that returns are of.
        references: directions beside those of the cells, at all lengths.
    """
    rollouts = 1 + len(MOVES) * (len(first) + references)
    fitting = [T for T in horizons if T * judges * rollouts <= budget]
    horizon = fitting[0] if fitting else horizons[-1]
    room = int(budget / (horizon * judges)) - rollouts
    once = tuple(further[: max(room, FEWEST - len(first), 0)])
    return _Plan(tuple(first), once, judges, horizon, horizon * judges * (rollouts + len(once)))


def chosen_cells(
    measured: Iterable[Cell],
    gains: pd.DataFrame | None,
    controls: Collection[str] = (),
    most: int = MOST,
) -> tuple[Cell, ...]:
    """The cells whose steps are worth their price, the first ones first.

    With gains to first order: the data gradient, each estimator's best horizon, the shortest that
    is shown to harm, those of controls, the longest. Without: the data gradient and a geometric
    grid of horizons, whose middle comes first.

    Args:
        measured: every cell that has a mean gradient.
        gains: rows of a profile's table with quantity "gain"; None: there is no truth. Where that
            is not distinguishable from zero no gain is finite, and cells are chosen as without one.
        controls: estimators that are made like the truth: what they gain is seldom news.
    """
    by_name: dict[str, list[int]] = {}
    for name, horizon in measured:
        by_name.setdefault(name, []).append(horizon)
    data = [(name, 0) for name, over in by_name.items() if max(over) == 0]
    over = {
        name: sorted(h for h in horizons if h)
        for name, horizons in by_name.items()
        if max(horizons)
    }
    if gains is None or not np.isfinite(gains["value"]).any():
        spread = []
        for place in (2, 0, 3, 4, 1):
            for name, horizons in over.items():
                wanted = (*_GRID, horizons[-1])[place]
                spread.append((name, min(horizons, key=lambda h: abs(h - wanted))))
        return tuple(dict.fromkeys([*data, *spread]))[:most]
    chosen = [_telling(name, horizons, gains) for name, horizons in over.items()]
    judged = [cells for name, cells in zip(over, chosen, strict=True) if name not in controls]
    control = [cells for name, cells in zip(over, chosen, strict=True) if name in controls]
    ordered = [cells[k] for some in (judged, control) for k in (0, 1) for cells in some]
    longest = [(name, horizons[-1]) for name, horizons in over.items()]
    return tuple(dict.fromkeys(cell for cell in (*data, *ordered, *longest) if cell))[:most]


def first_cells(
    cells: Sequence[Cell], gains: pd.DataFrame | None, families: Sequence[Collection[str]]
) -> tuple[Cell, ...]:
    """Of the chosen cells those that are stepped along at every length: the data gradient, and of
    each family of estimators the cell of largest gain, the first one where no gain is known."""
    value: dict[Cell, float] = {}
    if gains is not None:
        columns = (gains[name] for name in ("estimator", "horizon", "value"))
        value = {(str(n), int(h)): float(v) for n, h, v in zip(*columns, strict=True)}
    data = [cell for cell in cells if cell[1] == 0]
    best = []
    for names in families:
        own = [cell for cell in cells if cell[1] > 0 and cell[0] in names]
        known = [cell for cell in own if np.isfinite(value.get(cell, np.nan))]
        best += [max(known, key=lambda cell: value[cell])] if known else own[:1]
    return tuple(dict.fromkeys([*data, *best]))


def _telling(
    name: str, horizons: list[int], gains: pd.DataFrame
) -> tuple[Cell | None, Cell | None]:
    """The horizon of largest gain and the shortest one that is shown to harm."""
    rows = gains[(gains["estimator"] == name) & gains["horizon"].isin(horizons)]
    rows = rows[np.isfinite(rows["value"])].sort_values("horizon")
    if not len(rows):
        return None, None
    over, harming = rows["horizon"].to_numpy(), rows["ci_high"].to_numpy() < 0
    best = int(over[int(rows["value"].to_numpy().argmax())])
    return (name, best), (name, int(over[harming][0])) if harming.any() else None


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
    means = {cell: directions[cell].mean for cell in sound}
    judging, policy = setting.starts, setting.policy
    returning = replace(setting, seed=child(setting.seed, STREAM))
    along = [means[TRUE_CELL]] if TRUE_CELL in means else list(means.values())
    sizes = [reach(policy, returning, mean / mean.norm()) for mean in along]
    lengths = min(sizes, default=0.0) * move * np.array(MOVES)
    test = UpdateTest(means, lengths.tolist(), (1,), Update("length"))
    taken = [
        (cell, k) for cell in sound for k in range(len(MOVES)) if k == UPDATE or cell not in once
    ]
    steps = test.steps(policy) if taken else torch.zeros(0)
    moved = [steps[sound.index(cell), k, 0] for cell, k in taken]
    returns, paired = paired_returns(returning, judging, moved, "realised gains", progress)
    label, size = grouping(judging)
    before = returns[0]
    change = by_group(returns[1:] - before, label)
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
        ended=float((~paired.alive[0][0]).double().mean()),
        steps=paired.steps,
        at=UPDATE,
    )


def _status(direction: Tensor) -> Status:
    norm = float(direction.norm())
    if not np.isfinite(norm):
        return "not finite"
    return "stepped" if norm > 0 else "zero"


_SHARE = 0.15  # of the measurement
CLOSED_FORM = 40  # steps for a Jacobian that needs no differences, and its products
_FEWEST = 4  # starts that an interval needs
LEAST_LEFT = 0.1  # γᵀ beyond a return that a small budget cuts


def realised_gains(
    asked: Resolved,
    measured: Measured,
    truth: Truth,
    beside: Mapping[str, Tensor],
    table: pd.DataFrame,
    move: float,
    progress: Progress = silent,
) -> Realised:
    """Gains of the truth, where there is one, and of the cells that are worth their price.

    Args:
        measured: mean gradients; truth: theirs; table: of the profile.
        beside: mean gradients that are no truth, by what they are stepped along as.
        move: by which share of their size the user's update moves the actions.
    """
    setting, means = asked.setting, measured.means
    true = measured.truth_mean if truth.admissible else None
    gains = table[table["quantity"] == "gain"] if true is not None else None
    references = {(name, 0): Direction(mean) for name, mean in beside.items()}
    if true is not None and truth.every is not None:
        norm, starts = truth.every.norm, setting.starts
        if len(truth.every.gradients) == len(starts.states):
            norm = precision_of(truth.every.gradients, starts).norm.item()
        # Else the truth was cut: its norm is of the half that judges, and the direction's mean is
        # of the other half, too.
        references[TRUE_CELL] = Direction(true, norm)
    horizons: tuple[int, ...] = (truth.horizon,)
    if true is None and truth.status != "jumps":
        horizons = tuple(
            effective_horizon(asked.task.discount, left) for left in (0.01, LEAST_LEFT)
        )
    simulator = setting.simulator
    controls = [  # they have the simulator's own states and Jacobians, as the truth has
        name for name, one in asked.chosen.items()
        if one.states is simulator and one.jacobians is simulator
    ]  # fmt: skip
    modelled = [name for name, one in asked.chosen.items() if one.states is not simulator]
    unlike_truth = [name for name in asked.chosen if name not in controls]
    cells = chosen_cells(means, gains, controls)
    first = first_cells(cells, gains, [modelled, unlike_truth])
    plan = planned(
        first, [cell for cell in cells if cell not in first], horizons,
        _SHARE * measured_steps(asked, measured, truth),
        asked.config.judges or len(setting.starts.states),
        len(references),
    )  # fmt: skip
    rows = table[table["quantity"] == "mean_norm"]  # noise-corrected
    columns = (rows[name] for name in ("estimator", "horizon", "value"))
    norms = {(str(name), int(h)): float(value) for name, h, value in zip(*columns, strict=True)}
    directions = references | {cell: Direction(means[cell], norms[cell]) for cell in plan.cells}
    judging = judging_starts(asked.task, plan.judges, setting.seed)
    setting = replace(setting, starts=judging, horizon=plan.horizon)
    return realise(setting, directions, move, plan.once, progress)


def jacobian_steps(system: System) -> int:
    """What a Jacobian, and its products, takes in steps of the system."""
    if by_differences(system):
        return 2 * (system.state_dim + system.action_dim + 1)
    return CLOSED_FORM


def measured_steps(asked: Resolved, measured: Measured, truth: Truth) -> int:
    """What the measurement takes, in steps of its simulator."""
    setting = asked.setting
    system = setting.simulator
    along = 0
    for actions, states in (("first", measured.visits), ("all", 1)):
        unrolled = [
            estimator for estimator in asked.chosen.values()
            if estimator.actions == actions and estimator.jacobians is not None
        ]  # fmt: skip
        along += states * setting.horizon * bool(unrolled)
    tried = len(setting.starts.states if truth.refused is None else truth.refused.gradients)
    return jacobian_steps(system) * (measured.starts * along + tried * truth.horizon)
