"""E |G|² of every estimator and horizon at some starts, each of them a group of its own.

Norms alone: |G_i|² = λ_iᵀ Θ_i λ_i, with one kernel Θ_i per sample for all horizons. No sums over
samples, no truth and no inner products between estimators are formed, which are what moments cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gradlab.gradients import gram
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.path_gram import path_squared_norms
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts
from gradlab.measurement.moments.held import Held
from gradlab.measurement.moments.inner_products import first_action_gradients, horizons_of


def mean_squares(
    chosen: Mapping[str, Estimator], setting: Setting, at: Starts
) -> dict[tuple[str, int], float]:
    """The mean of |G|² of every estimator at every horizon it has.

    Args:
        setting: with the starts, where gradients with θ in every action are taken.
        at: where those with θ in the first action are taken, with their weights.
    """
    whole = slice(0, len(setting.starts.states))
    staying = {name: estimator for name, estimator in chosen.items() if estimator.way.every}
    held = Held(setting, len(staying))
    squares: dict[tuple[str, int], float] = {}
    for name, estimator in staying.items():
        horizons = tuple(horizons_of(estimator))
        terms = held.rows(estimator, whole, horizons)
        means = path_squared_norms(terms.jacobian, terms.costates).mean(dim=1)
        squares |= {(name, n): float(mean) for n, mean in zip(horizons, means, strict=True)}
    visiting = {name: estimator for name, estimator in chosen.items() if name not in staying}
    if visiting:
        gradients = first_action_gradients(visiting, replace(setting, starts=at))
        noise = at.policy_noise(setting.policy, setting.seed, 0)
        jacobian = policy_jacobian(setting.policy, at.states, noise)
        for name, g in gradients.items():
            means = gram.squared_norms(jacobian, g * at.weight[:, None]).mean(dim=1)
            squares |= {(name, n): float(means[n]) for n in horizons_of(visiting[name])}
    return squares
