"""The realised gains of a measurement: what the user's update does to the return of fresh starts.

From as many starts as were measured; cells beside the most important ones (`step_plan`) may take
15% of the measurement, both counted in simulator steps, so that every number depends on the seed
and not on a clock:

    measured = L (N T + n H · (visited states per start + 1 with θ in all actions)),

n of N starts being used. L is how many steps take as long as one Jacobian and what is made of it:
by differences a pair for each column and one for the certificate; of a torch system the products
of gradients take the time, rather than the Jacobian (measured: as long as 40 to 200 steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor

from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting
from gradlab.measurement.moments.inner_products import Measured
from gradlab.measurement.step_plan import chosen_cells, first_cells, planned
from gradlab.measurement.steps import Direction, judging_starts, realise
from gradlab.progress import Progress, silent
from gradlab.runs.identity import Identity
from gradlab.runs.one_step import TRUE_CELL, Cell
from gradlab.runs.realised import Realised
from gradlab.systems.system import by_differences
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.truth import Truth

SHARE = 0.15  # of the measurement
CLOSED_FORM = 40  # steps for a Jacobian that needs no differences, and its products
FEWEST = 4  # starts that an interval needs
LEAST_LEFT = 0.1  # γᵀ beyond a return that a small budget cuts


@dataclass(frozen=True)
class Stepping:
    """What was measured, as it was measured (with entropy, augmented).

    Attributes:
        chosen: the estimators; measured: their mean gradients; table: of the profile.
        identities: who each estimator is.
        truth: against which they were measured.
        move: by which share of their size the user's update moves the actions.
        beside: mean gradients [P] by name that are neither truth nor estimator.
    """

    task: Task
    setting: Setting
    chosen: Mapping[str, Estimator]
    measured: Measured
    truth: Truth
    table: pd.DataFrame
    identities: Mapping[str, Identity]
    move: float
    beside: Mapping[str, Tensor | None]


def realised_gains(
    stepping: Stepping, judges: int | None = None, progress: Progress = silent
) -> Realised:
    """Gains of the truth, where there is one, and of the cells that are worth their price.

    Args:
        judges: starts that returns are of; None: as many as were measured.
    """
    task, truth, means = stepping.task, stepping.truth, stepping.measured.means
    true = stepping.measured.truth_mean if truth.admissible else None
    gains = stepping.table[stepping.table["quantity"] == "gain"] if true is not None else None
    references = {(name, 0): Direction(d) for name, d in stepping.beside.items() if d is not None}
    if true is not None and truth.every is not None:
        references[TRUE_CELL] = Direction(true, truth.every.norm)
    horizons: tuple[int, ...] = (truth.horizon,)
    if true is None and truth.status != "jumps":
        horizons = tuple(effective_horizon(task.discount, left) for left in (0.01, LEAST_LEFT))
    cells = chosen_cells(means, gains, _controls(stepping))
    first = first_cells(cells, gains, _families(stepping))
    plan = planned(
        first, [cell for cell in cells if cell not in first], horizons,
        SHARE * measured_steps(stepping), judges or len(stepping.setting.starts.states),
        len(references),
    )  # fmt: skip
    norms = _norms(stepping.table)
    directions = references | {cell: Direction(means[cell], norms[cell]) for cell in plan.cells}
    judging = judging_starts(task, plan.judges, stepping.setting.seed)
    setting = replace(stepping.setting, starts=judging, horizon=plan.horizon)
    return realise(setting, directions, stepping.move, plan.once, progress)


def _families(stepping: Stepping) -> list[list[str]]:
    """Estimators that need nothing of the simulator, and all that are not made like the truth."""
    simulator, controls = stepping.setting.simulator, _controls(stepping)
    modelled = [name for name, one in stepping.chosen.items() if one.states is not simulator]
    return [modelled, [name for name in stepping.chosen if name not in controls]]


def measured_steps(stepping: Stepping) -> int:
    """What the measurement takes, in steps of its simulator."""
    setting, measured, truth = stepping.setting, stepping.measured, stepping.truth
    system = setting.simulator
    per_jacobian = CLOSED_FORM
    if by_differences(system):
        per_jacobian = 2 * (system.state_dim + system.action_dim + 1)
    along = 0
    for actions, states in (("first", measured.visits), ("all", 1)):
        unrolled = [
            estimator for estimator in stepping.chosen.values()
            if estimator.actions == actions and estimator.jacobians is not None
        ]  # fmt: skip
        along += states * setting.horizon * bool(unrolled)
    tried = truth.scouts if truth.scouts and not truth.admissible else len(setting.starts.states)
    return per_jacobian * (measured.starts * along + tried * truth.horizon)


def _controls(stepping: Stepping) -> list[str]:
    """Estimators with the simulator's own states and Jacobians, as the truth has."""
    simulator = stepping.setting.simulator
    return [
        name for name, estimator in stepping.chosen.items()
        if estimator.states is simulator and estimator.jacobians is simulator
    ]  # fmt: skip


def check_judges(judges: int | None) -> None:
    """
    Raises:
        InputError: too few to be judged by.
    """
    if judges is not None and (not isinstance(judges, int) or judges < FEWEST):
        raise InputError(f"judges is {judges!r}, expected an integer ≥ {FEWEST}, or None")


def _norms(table: pd.DataFrame) -> dict[Cell, float]:
    """Noise-corrected norms of the mean gradients."""
    rows = table[table["quantity"] == "mean_norm"]
    columns = (rows[name] for name in ("estimator", "horizon", "value"))
    return {(str(name), int(h)): float(value) for name, h, value in zip(*columns, strict=True)}
