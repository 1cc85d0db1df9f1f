"""The realised gains of a measurement: which cells are stepped, from how many starts.

They may take 15% of the measurement, both counted in simulator steps, so that the number of starts
and every number that follows depend on the seed and not on a clock:

    measured = L (N T + n H · (visited states per start + 1 with θ in all actions)),

n of N starts being used. L is how many steps take as long as one Jacobian and what is made of it:
by differences a pair for each column and one for the certificate; of a torch system the products
of gradients take the time, rather than the Jacobian (measured: as long as 40 to 200 steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting
from gradlab.measurement.moments.inner_products import Measured
from gradlab.measurement.step_plan import chosen_cells, planned
from gradlab.measurement.steps import Direction, judging_starts, realise
from gradlab.progress import Progress, silent
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
        truth: against which they were measured.
    """

    task: Task
    setting: Setting
    chosen: Mapping[str, Estimator]
    measured: Measured
    truth: Truth
    table: pd.DataFrame


def realised_gains(
    stepping: Stepping, judges: int | None = None, progress: Progress = silent
) -> Realised:
    """Gains of the truth, where there is one, and of the cells that are worth their price.

    Args:
        judges: starts that returns are of; None: what 15% of the measurement buys.
    """
    task, truth, means = stepping.task, stepping.truth, stepping.measured.means
    true = stepping.measured.truth_mean if truth.admissible else None
    gains = stepping.table[stepping.table["quantity"] == "gain"]
    horizons: tuple[int, ...] = (truth.horizon,)
    if true is None:
        horizons = tuple(effective_horizon(task.discount, left) for left in (0.01, LEAST_LEFT))
    plan = planned(
        chosen_cells(means, gains if true is not None else None, _controls(stepping)),
        horizons, SHARE * measured_steps(stepping), true is not None, judges,
    )  # fmt: skip
    norms = _norms(stepping.table)
    directions = {cell: Direction(means[cell], norms[cell]) for cell in plan.cells}
    if true is not None and truth.every is not None:
        directions[TRUE_CELL] = Direction(true, truth.every.norm)
    judging = judging_starts(task, plan.judges, stepping.setting.seed)
    setting = replace(stepping.setting, starts=judging, horizon=plan.horizon)
    return realise(setting, directions, progress)


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
