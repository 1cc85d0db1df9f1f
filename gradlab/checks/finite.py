"""Numbers that are not finite, and gradients that are exactly 0: how many, and where first.

All samples of the measurement are counted; the first that is lost is rolled out again to say at
which step, and in which derivative, it leaves the finite numbers. Mean gradients at the longest
horizon in float32 are compared with float64.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.checks.inspection import Inspection
from gradlab.errors import InputError, in_short
from gradlab.gradients.courses import Shared, linearized
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.gram import path_mean_gradients
from gradlab.gradients.rollout import LinearizedPath
from gradlab.gradients.starts import Starts
from gradlab.gradients.sweeps import sensitivities
from gradlab.gradients.weighted_terms import carried
from gradlab.runs.check_results import EFFECT, FINITE, CheckResult
from gradlab.statistics.moments import Moments

_FLOAT32 = 3.4e38
_LARGE = 1e30
_LIMIT = 0.01  # relative error of the mean gradient


def finite(
    inspected: Inspection, begin: Starts, cells: Mapping[tuple[str, int], Moments]
) -> list[CheckResult]:
    """Per-sample gradients of every estimator, and the growth of what they are made of.

    Args:
        begin: all starts of the measurement.
        cells: moments of every estimator and horizon.
    """
    results = [_gradients(inspected, begin, cells)]
    for name, estimator in inspected.pathwise().items():
        if estimator.way.mixed:  # along the path of the pathwise gradient beside it
            continue
        more = _no_effect(name, estimator, inspected), _growth(name, estimator, inspected)
        results += [result for result in more if result is not None]
    return results


def _gradients(
    inspected: Inspection, begin: Starts, cells: Mapping[tuple[str, int], Moments]
) -> CheckResult:
    lost, zero = [], []
    for name, estimator in inspected.estimators.items():
        squares = {n: moments.squares for (who, n), moments in cells.items() if who == name}
        first = next((n for n in sorted(squares) if not np.isfinite(squares[n]).all()), None)
        if first is not None:
            which = np.flatnonzero(~np.isfinite(squares[first]))
            where = _where(estimator, inspected, begin, int(which[0]))
            what = f"{len(which)} of {len(squares[first])} groups from h = {first} on"
            lost.append(f"{name}: {what} (first: group {which[0]}, {where})")
        none = {n: int((values == 0).sum()) for n, values in squares.items()}
        if none and max(none.values()):
            most = max(none, key=lambda n: none[n])
            count = len(squares[most])
            zero.append(f"{name}: {none[most]} of {count} groups exactly 0 at h = {most}")
    if not lost and not zero:
        n = len(begin.states)
        text = f"all {n} samples of every estimator and horizon are finite and not 0"
        return CheckResult(FINITE, text, "nothing is masked, nothing is lost", True)
    meaning = "one lost sample spoils the mean: use a shorter horizon or repair that state"
    if not lost:
        meaning = "exact zeros are saturated actions or dead paths, not small gradients"
    return CheckResult(FINITE, "; ".join(lost + zero), meaning, False)


def _where(estimator: Estimator, inspected: Inspection, begin: Starts, group: int) -> str:
    """The first step at which a sample of a lost group leaves the finite numbers."""
    label = np.unique(begin.group.numpy(), return_inverse=True)[1]
    row = int(np.flatnonzero(label == group)[0])
    if estimator.jacobians is None:
        return f"row {row}"
    here, one = inspected.setting, begin.block(slice(row, row + 1))
    linear = linearized(estimator, here.policy, one, here.seed, here.termination)
    for t in range(linear.path.horizon):
        bad = _bad_rows(linear.path.states[t + 1, 0, :, None])
        if bad:
            return f"row {row}: coordinate {bad[0]} of the state after step {t}"
        bad = _bad_rows(torch.cat([linear.A[t, 0], linear.B[t, 0]], dim=1))
        if bad:
            return f"row {row}: derivatives of coordinate {bad[0]} at step {t}"
    return f"row {row}: the product of Jacobians overflows"


def _bad_rows(values: Tensor) -> list[int]:
    return (~torch.isfinite(values).all(dim=1)).nonzero().flatten().tolist()


def _no_effect(name: str, estimator: Estimator, inspected: Inspection) -> CheckResult | None:
    """Actions that change no reward within the horizon, whatever the critic says of them."""
    linear = inspected.along(estimator)
    if not linear.path.horizon:
        return None
    reached = _reached(linear)
    idle = [inspected.action(j) for j in (~reached).nonzero().flatten().tolist()]
    if not idle:
        return None
    h = linear.path.horizon
    result = f"{', '.join(idle)} has no effect on any reward within {h} steps"
    meaning = "only the critic moves this action: lengthen the horizon or look for a dead path"
    return CheckResult(f"{EFFECT}, {name}", result, meaning, False)


def _reached(linear: LinearizedPath) -> Tensor:
    """Which first actions reach some reward, [da]; rewards after the first count along π."""
    reached = (linear.r_a[0] != 0).any(dim=0)
    for t, D in enumerate(sensitivities(linear)[:-1], 1):
        c = linear.r_s[t] + torch.einsum("nas,na->ns", linear.K[t], linear.r_a[t])
        reached |= (torch.einsum("nsa,ns->na", D, c) != 0).any(dim=0)
    return reached


def _growth(name: str, estimator: Estimator, inspected: Inspection) -> CheckResult | None:
    """|∂s_t/∂a_0| over the steps: the plot that is asked for first when gradients explode."""
    linear = inspected.along(estimator)
    h = linear.path.horizon
    if h < 2:
        return None
    sizes = [D.flatten(1).norm(dim=1).nan_to_num(nan=torch.inf) for D in sensitivities(linear)]
    norms = torch.stack([size.max() for size in sizes])
    check = f"sensitivities ∂s_t/∂a_0 of {name}"
    rate = float((norms[-1] / norms[0]).log10()) / (h - 1)
    result = f"largest norm {float(norms[0]):.2g} at t = 1, {float(norms[-1]):.2g} at t = {h}"
    for limit, words in ((_FLOAT32, "the range of float32"), (_LARGE, f"{_LARGE:g}")):
        beyond = (norms > limit).nonzero().flatten()
        if len(beyond):
            result += f"; beyond {words} from t = {int(beyond[0]) + 1} on"
            meaning = "chains of Jacobians explode: shorten the horizon or stabilise the policy"
            return CheckResult(check, result, meaning, False)
    growing = rate > 0.05
    meaning = f"grows tenfold every {1 / rate:.2g} steps" if growing else "does not explode"
    return CheckResult(check, result, meaning, rate < 1.0)


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
    check, here = (
        f"float32 against float64, {name} at h = {estimator.tail.horizon}",
        inspected.setting,
    )
    try:
        single = in_float32(
            estimator, here.policy, here.starts, here.seed, here.termination, copies
        )
    except (RuntimeError, TypeError, InputError) as error:
        result = f"float32 is not supported ({in_short(error)})"
        return CheckResult(check, result, "not tested", True)
    limited = not single.error <= _LIMIT
    result = (
        f"cosine {single.cosine:.6g}, relative error {single.error:.1g} "
        f"({len(here.starts.states)} starts)"
    )
    remedy = "yes; use float64 or a shorter horizon before blaming the model"
    meaning = f"precision-limited: {remedy if limited else 'no'}"
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
