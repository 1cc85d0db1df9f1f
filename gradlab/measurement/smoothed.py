"""Estimators against the true gradient and, beside it, against gradients of smoothed returns.

A pathwise gradient that is exact along every path is not that of the expected return where the
return jumps. Its error against the plain truth says nothing of that, since that truth is pathwise,
too; its error against a return smoothed by σ does (`gradlab.truth.smoothed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gradlab import validation
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.other_critics import Critics
from gradlab.measurement.assembly import assembled, truth_values
from gradlab.measurement.laws import Law
from gradlab.measurement.moments.inner_products import Measured, estimator_moments
from gradlab.measurement.moments.visited import objective_moments
from gradlab.measurement.problem import Given, Problem, problem
from gradlab.progress import Progress, silent
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.smoothed import Smoothing, smoothed_truth
from gradlab.truth.truth import Truth, matched_truth
from gradlab.user_code.grad_mode import differentiating

if TYPE_CHECKING:
    from pandas import DataFrame

TRUE = "true"


@differentiating
def against_smoothed(
    task: Task,
    policy: nn.Module,
    critic: Critics,
    smoothings: Sequence[Smoothing],
    estimators: Mapping[str, Estimator] | None = None,
    horizon: int | None = None,
    starts: int | Tensor | Path = 256,
    batch: int = 256,
    termination: str = "ignore",
    law: Law | None = None,
    seed: int = 0,
    trim_starts: float = 0.0,
    also: Sequence[str] = (),
    progress: Progress = silent,
) -> DataFrame:
    """The table of `measure`, once for each reference.

    Samples of the estimators are the same for all references, so that their errors are paired.
    Returns are as long as the true one; where there is none, as γᵀ = 1%, and never shorter than the
    horizon.

    Args:
        smoothings: references beside the true gradient; at visited states, of all actions.
        law, others: as of `measure`.

    Returns:
        The long table with a column "reference": "true", or the smoothing in words. Estimators with
        θ in other actions than a smoothing have no error against it. Columns `norm` and
        `standard_error` are the reference's own.

    Raises:
        InputError: names the argument, what it got and what to do.
    """
    validation.instance("smoothings", smoothings, (tuple, list), "a tuple of Smoothing")
    if not smoothings or not all(isinstance(one, Smoothing) for one in smoothings):
        raise InputError(
            "smoothings is no sequence of Smoothing(sigma, actions): give at least one"
        )
    given = Given(
        task, policy, critic, estimators, horizon, starts, batch, None, termination, law, seed,
        trim_starts, also,
    )  # fmt: skip
    posed = problem(given, "a smoothed return is measured whole")
    if posed.alpha:
        raise InputError(
            "estimators have entropy, whose smoothed return is not known: leave it out"
        )
    _check_kinds(posed, smoothings)
    return _joined(posed, _references(posed, smoothings, progress), progress)


def _check_kinds(posed: Problem, smoothings: Sequence[Smoothing]) -> None:
    for smoothing in smoothings:
        if smoothing.actions not in posed.kinds:
            raise InputError(
                f"a smoothing has actions {smoothing.actions!r}, but the estimators' truth has θ "
                f"in {' or '.join(posed.kinds)}: use those, or law='start' for the first action"
            )


def _references(
    posed: Problem, smoothings: Sequence[Smoothing], progress: Progress
) -> Iterator[tuple[str, Truth]]:
    truth = matched_truth(posed.setting, kinds=posed.kinds, progress=progress)
    yield TRUE, truth
    steps = truth.horizon if truth.admissible else effective_horizon(posed.setting.discount)
    longest = replace(posed.setting, horizon=max(steps, posed.setting.horizon, 1))
    for smoothing in smoothings:
        yield str(smoothing), smoothed_truth(longest, smoothing, progress)


def _joined(
    posed: Problem, references: Iterator[tuple[str, Truth]], progress: Progress
) -> DataFrame:
    import pandas as pd

    tables = []
    for name, truth in references:
        values = truth_values(truth, posed.truth)
        profile = assembled(
            _moments(posed, truth, progress).cells, posed.setting.horizon, posed.batch, {}, {},
            values,
        )  # fmt: skip
        own = {key: values.get(key) for key in ("norm", "standard_error")}
        profile = replace(profile, identities=posed.identities)
        tables.append(profile.table().assign(reference=name, **own))
    return pd.concat(tables, ignore_index=True)


def _moments(posed: Problem, truth: Truth, progress: Progress) -> Measured:
    if posed.objective:
        return objective_moments(posed.chosen, posed.setting, truth, progress)
    return estimator_moments(posed.chosen, posed.setting, truth, progress)
