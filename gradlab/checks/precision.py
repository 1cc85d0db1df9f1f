"""Mean gradients at the longest horizon in float32, compared with float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from gradlab.checks.inspection import Inspection
from gradlab.errors import InputError
from gradlab.gradients.courses import Shared
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.gram import path_mean_gradients
from gradlab.gradients.starts import Starts
from gradlab.gradients.weighted_terms import carried
from gradlab.runs.check_results import CheckResult

_LIMIT = 0.01  # relative error of the mean gradient


def precision(inspected: Inspection) -> list[CheckResult]:
    """float32 against float64 for every estimator."""
    copies = _Copies.of(inspected.setting.policy, inspected.setting.starts)
    return [
        _compared(name, estimator, inspected, copies)
        for name, estimator in inspected.estimators.items()
    ]


@dataclass(frozen=True)
class _Copies:
    """Policy and starts in float32, and the paths in both precisions that estimators share."""

    policy: nn.Module
    starts: Starts
    double: Shared = field(default_factory=Shared)
    single: Shared = field(default_factory=Shared)

    @staticmethod
    def of(policy: nn.Module, starts: Starts) -> _Copies:
        begin = replace(
            starts, states=starts.states.float(), weight=starts.weight.float(), path=None, draws={}
        )
        return _Copies(copy.deepcopy(policy).float(), begin)


def _compared(
    name: str, estimator: Estimator, inspected: Inspection, copies: _Copies
) -> CheckResult:
    check = f"float32 against float64, {name} at h = {estimator.tail.horizon}"
    try:
        single = in_float32(
            estimator,
            inspected.setting.policy,
            inspected.setting.starts,
            inspected.setting.seed,
            inspected.setting.termination,
            copies,
        )
    except (RuntimeError, TypeError, InputError) as error:
        reason = str(error).splitlines()[0][:90]
        return CheckResult(check, f"float32 is not supported ({reason})", "not tested", True)
    limited = not single.error <= _LIMIT
    result = (
        f"cosine {single.cosine:.6g}, relative error {single.error:.1g} "
        f"({len(inspected.setting.starts.states)} starts)"
    )
    meaning = "precision-limited: no"
    if limited:
        meaning = (
            "precision-limited: yes; use float64 or a shorter horizon before blaming the model"
        )
    return CheckResult(check, result, meaning, not limited)


@dataclass(frozen=True)
class _Rounding:
    """Cosine of the mean gradients in float32 and in float64, and |difference| / |float64's|."""

    cosine: float
    error: float


def in_float32(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    termination: str = "ignore",
    copies: _Copies | None = None,
) -> _Rounding:
    """The mean gradient at the estimator's own horizon, on copies in float32, against float64.

    Args:
        copies: of this policy and these starts, where several estimators are compared.

    Raises:
        RuntimeError, TypeError, InputError: where the system cannot compute in float32.
    """
    copies = _Copies.of(policy, starts) if copies is None else copies
    critic, tail = estimator.tail.critic, estimator.tail
    rounded = None if critic is None else copy.deepcopy(critic).float()
    single = replace(estimator, tail=replace(tail, critic=rounded))
    exact = _mean(estimator, policy, starts, seed, termination, copies.double)
    short = _mean(single, copies.policy, copies.starts, seed, termination, copies.single).double()
    cosine = float(nn.functional.cosine_similarity(exact, short, dim=0))
    gap = float((exact - short).norm() / exact.norm().clamp_min(1e-300))
    return _Rounding(cosine, gap)


def _mean(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    termination: str,
    shared: Shared,
) -> Tensor:
    horizons = (estimator.tail.horizon,)
    with torch.random.fork_rng(devices=[]):
        terms = carried(estimator, policy, starts, horizons, seed, termination, shared)
    return path_mean_gradients(terms.jacobian, terms.costates, terms.ends)[0]
