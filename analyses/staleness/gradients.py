"""What stale gradients are worth at one place: against the truth there, and against fresh ones.

    G_i = Σ_layers D_i ⊗ x_i      of state i: the layer's input x_i, and the gradient D_i there

Inner products of two such gradients, of one policy or of two, need the factors alone:
G_i·T_i = Σ_layers (D_i·D'_i)(x_i·x'_i). No [N, P] is made, and thousands of states fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from analyses.mpg_table_1.runs import task_of
from analyses.staleness.networks import ROW, Networks, Place, Scale
from gradlab.gradients.estimator import Estimator, checked
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.tail import Tail
from gradlab.gradients.weighted_terms import carried
from gradlab.measurement.assembly import shared_truth
from gradlab.measurement.moments.along_paths import difference
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, Moments, PairSums, estimates, pair_mean
from gradlab.systems.system import System
from gradlab.tasks import Task
from gradlab.training.loop import scheduled, settings_of
from gradlab.user_code.calls import differentiating

BATCH = 256


@dataclass(frozen=True)
class Gradients:
    """Of each of N states, layer by layer.

    Attributes:
        layers: D [N, out] and x [N, in + 1], whose last column is the bias's one.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    def __len__(self) -> int:
        return len(self.layers[0][0])

    @cached_property
    def own(self) -> PairSums:
        """With themselves."""
        return self.sums(self)

    def sums(self, other: Gradients) -> PairSums:
        """With those of another policy of the same layers, at the same states."""
        own = left = right = torch.zeros(len(self), dtype=torch.float64)
        for (D, x), (E, y) in zip(self.layers, other.layers, strict=True):
            own = own + (D * E).sum(dim=1) * (x * y).sum(dim=1)
            left = left + ((D @ (E.T @ y)) * x).sum(dim=1)
            right = right + ((E @ (D.T @ x)) * y).sum(dim=1)
        return PairSums(own.numpy(), left.numpy(), right.numpy())


def measured(place: Place, scale: Scale, most: int) -> pd.DataFrame:
    """A row for every lag: cosine and squared bias against the truth at lag 0, NaN where there is
    none, and the cosine with the gradient at lag 0.

    Args:
        most: states of those recorded.
    """
    task, states = task_of(place.task), place.states()[:most]
    settings = settings_of(ROW, task, None, {"iterations": scale.iterations})
    weights = scheduled(ROW.weights, settings)(place.iteration, ROW.horizons)
    true, status = true_gradients(task, place.networks(0)[0], states, settings.termination)
    fresh, rows = None, []
    for lag in scale.lags:
        stale = mixture(task, place.networks(lag), states, weights, settings.termination)
        fresh = stale if fresh is None else fresh
        row = {"task": place.task, "iteration": place.iteration, "seed": place.seed, "lag": lag,
               "states": len(states), "truth": status}  # fmt: skip
        against = {} if true is None else moments(stale, true)
        row |= _ends("cosine", "cosine", against) | _ends("bias2", "bias2", against)
        row["truth2"] = np.nan if true is None else squared_mean(true)
        row |= {"length2": squared_mean(stale)}
        rows.append(row | _ends("turned", "cosine", moments(stale, fresh)))
    return pd.DataFrame(rows)


def _ends(column: str, name: str, found: Mapping[str, Estimate]) -> dict[str, float]:
    if name not in found:
        return dict.fromkeys((column, f"{column}_low", f"{column}_high"), np.nan)
    ends = interval(name, found[name])
    return {column: found[name].value, f"{column}_low": ends.low, f"{column}_high": ends.high}


def moments(stale: Gradients, true: Gradients) -> Mapping[str, Estimate]:
    """Debiased estimates, as of any measurement."""
    own, cross, truth = stale.own, stale.sums(true), true.own
    between = difference(own, cross, truth)
    return estimates(Moments(np.ones(len(stale)), own.own, own, truth, between, cross), BATCH)


def squared_mean(found: Gradients) -> float:
    """Of the mean over states, debiased."""
    return pair_mean(found.own, np.ones(len(found))).value


def mixture(
    task: Task, networks: Networks, states: Tensor, weights: np.ndarray, termination: str
) -> Gradients:
    """MPG's gradient; later actions follow the same old policy."""
    policy, critic = networks
    assert task.prior is not None
    tails = [
        (float(weight), Tail(h, critic, task.discount))
        for weight, h in zip(weights, ROW.horizons, strict=True)
        if weight
    ]
    return gradients(task.prior, policy, tails, states, termination)


def true_gradients(
    task: Task, policy: nn.Module, states: Tensor, termination: str
) -> tuple[Gradients | None, str]:
    """And how they were found; None where no return converges."""
    shared = shared_truth(task, policy, states, max(ROW.horizons), BATCH, termination, check=False)
    reference = shared.reference
    if not reference.admissible or reference.first is None:
        return None, reference.reason
    jacobian = policy_jacobian(policy, states, states.new_zeros(len(states), 0))
    return by_layers(jacobian, reference.first.gradients), reference.status


@differentiating
def gradients(
    system: System,
    policy: nn.Module,
    tails: list[tuple[float, Tail]],
    states: Tensor,
    termination: str,
) -> Gradients:
    """With θ in the first action, along a system with its own Jacobians, weighted over tails."""
    costates, jacobian = torch.zeros(1), None
    for weight, tail in tails:
        estimator = Estimator(system, system, "first", tail)
        begin = checked(estimator, policy, states, termination)
        terms = carried(estimator, policy, begin, (tail.horizon,), 0, termination)
        costates = costates + weight * terms.costates[0, 0]
        jacobian = terms.jacobian
    assert jacobian is not None
    return by_layers(jacobian, costates)


def by_layers(jacobian: PolicyJacobian, costates: Tensor) -> Gradients:
    """J_iᵀ λ_i of λ [N, da], by the factors of J."""
    layers = []
    for factor in jacobian.factors:
        assert factor.inputs is not None
        signal = torch.einsum("na,nao->no", costates, factor.signals)
        layers.append((signal, torch.nn.functional.pad(factor.inputs, (0, 1), value=1.0)))
    return Gradients(tuple(layers))
