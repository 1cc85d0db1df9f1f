"""Samples of one seed's gradients and a truth, at replayed or visited states.

    replayed   s ~ the seed's replay        E J_θπᵀ ∂_a Q^π(s, π(s))              (`shared_truth`)
    visited    s ~ ν from the task's starts ∇_θ E_ζ[V^π] from these starts        (`objective`)

The simulator is unrolled for either. At replayed states a truth is compared with finite differences
at the first measurement and at every tenth: these test the simulator's Jacobians, which do not
change as the policy does. Where episodes end, or the truth has to be cut, `matched_truth` compares
them every time, and always the gradient of the return. An imprecise truth will do: the samples
judge differences against one and the same truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from gradlab.data.noise import child
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting
from gradlab.gradients.tail import Tail
from gradlab.measurement.moments.inner_products import Measured, estimator_moments
from gradlab.measurement.moments.visited import objective_moments
from gradlab.measurement.problem import starts_of
from gradlab.measurement.shared_truth import shared_truth
from gradlab.progress import silent
from gradlab.statistics.grams import Grams
from gradlab.training.measured.gradient_errors import critic_of, model_of
from gradlab.training.state import Run
from gradlab.truth.reasons import Status
from gradlab.truth.truth import matched_truth

NAME = "mixture"


@dataclass(frozen=True, eq=False)
class Sample:
    """One seed's gradients: inner products of those horizons whose gradients are finite.

    Attributes:
        status: of the truth; grams: None where it is none, or no gradient is finite.
        here: [K], is the horizon among them?
    """

    status: Status
    grams: Grams | None
    here: np.ndarray


def at_replay(run: Run, seed: int, states: Tensor, check: bool) -> Sample:
    """Against the truth of the states' own first actions."""
    horizons, termination = run.algorithm.horizons, run.settings.termination
    truth = shared_truth(
        run.task, _policy(run, seed), states, max(horizons), run.algorithm.batch, termination,
        _draw(run, seed), check=check,
    )  # fmt: skip
    if not truth.reference.admissible:
        return _nothing(run)
    measured = estimator_moments(
        {NAME: _estimator(run, seed)}, truth.setting, truth.reference, silent
    )
    return _sample(run, truth.reference.status, measured)


def of_the_return(run: Run, seed: int) -> Sample:
    """Against the gradient of the return, at states visited from fresh starts of the task."""
    task, settings, draw = run.task, run.settings, _draw(run, seed)
    policy, horizons = _policy(run, seed), run.algorithm.horizons
    begin, termination = starts_of(task, settings.measure_starts, draw), settings.termination
    setting = Setting(
        task.simulator, policy, begin, task.discount, max(horizons), termination, draw
    )
    truth = matched_truth(setting, kinds=["all"])
    if not truth.admissible:
        return _nothing(run)
    try:
        measured = objective_moments(
            {NAME: _estimator(run, seed)}, setting, truth, silent, kept=horizons
        )
    except InputError:  # visited states that are not finite
        return _nothing(run)
    return _sample(run, truth.status, measured)


def _nothing(run: Run) -> Sample:
    return Sample("none", None, np.zeros(len(run.algorithm.horizons), dtype=bool))


def _policy(run: Run, seed: int) -> nn.Module:
    return run.learner.policy_of(seed).double().cpu()


def _draw(run: Run, seed: int) -> int:
    return child(run.learner.seeds[seed], f"measured weights {run.iteration}")


def _estimator(run: Run, seed: int) -> Estimator:
    model, critic = model_of(run, seed), critic_of(run, seed)
    return Estimator(
        model, model, "first", Tail(max(run.algorithm.horizons), critic, run.task.discount)
    )


def _sample(run: Run, status: Status, measured: Measured) -> Sample:
    horizons = run.algorithm.horizons
    here = np.array([bool(np.isfinite(measured.cells[NAME, n].squares).all()) for n in horizons])
    if not here.any():
        return Sample(status, None, here)
    cells = [(NAME, n) for n, good in zip(horizons, here, strict=True) if good]
    return Sample(status, measured.kernels[0].grams(cells), here)
