"""Would float32 have given the same gradient? Mean gradients at the longest horizon, twice."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.gradients.carried import carried
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.path_gram import path_mean_gradients
from gradlab.gradients.starts import Starts
from gradlab.sanity.probe import Probe

LIMIT = 0.01  # relative error of the mean gradient


def precision(probe: Probe) -> list[Finding]:
    """float32 against float64 for every estimator."""
    return [_compared(name, each, probe) for name, each in probe.estimators.items()]


def _compared(name: str, estimator: Estimator, probe: Probe) -> Finding:
    check = f"float32 against float64, {name} at h = {estimator.tail.horizon}"
    try:
        found = in_float32(estimator, probe.policy, probe.starts, probe.seed, probe.termination)
    except (RuntimeError, TypeError, InputError) as error:
        reason = str(error).splitlines()[0][:90]
        return Finding(check, f"float32 is not supported ({reason})", "not tested", True)
    limited = not found.error <= LIMIT
    result = (
        f"cosine {found.cosine:.6g}, relative error {found.error:.1g} "
        f"({len(probe.starts.states)} starts)"
    )
    meaning = "precision-limited: no"
    if limited:
        meaning = (
            "precision-limited: yes; use float64 or a shorter horizon before blaming the model"
        )
    return Finding(check, result, meaning, not limited)


@dataclass(frozen=True)
class Rounding:
    """Cosine of the mean gradients in float32 and in float64, and |difference| / |float64's|."""

    cosine: float
    error: float


def in_float32(
    estimator: Estimator, policy: nn.Module, starts: Starts, seed: int, termination: str = "ignore"
) -> Rounding:
    """The mean gradient at the estimator's own horizon, on copies in float32, against float64.

    Raises:
        RuntimeError, TypeError, InputError: where the system cannot compute in float32.
    """
    exact = _mean(estimator, policy, starts, seed, termination)
    short = _mean(*_single(estimator, policy, starts), seed, termination).double()
    cosine = float(nn.functional.cosine_similarity(exact, short, dim=0))
    gap = float((exact - short).norm() / exact.norm().clamp_min(1e-300))
    return Rounding(cosine, gap)


def _single(
    estimator: Estimator, policy: nn.Module, starts: Starts
) -> tuple[Estimator, nn.Module, Starts]:
    critic = estimator.tail.critic
    single = None if critic is None else copy.deepcopy(critic).float()
    begin = replace(
        starts, states=starts.states.float(), weight=starts.weight.float(), path=None, draws={}
    )
    tail = replace(estimator.tail, critic=single)
    return replace(estimator, tail=tail), copy.deepcopy(policy).float(), begin


def _mean(
    estimator: Estimator, policy: nn.Module, starts: Starts, seed: int, termination: str
) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        found = carried(estimator, policy, starts, (estimator.tail.horizon,), seed, termination)
    return path_mean_gradients(found.jacobian, found.costates, found.ends)[0]
