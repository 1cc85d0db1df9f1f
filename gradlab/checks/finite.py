"""Numbers that are not finite, and gradients that are exactly 0: how many, and where first.

All samples of the measurement are counted; the first that is lost is rolled out again to say at
which step, and in which derivative, it leaves the finite numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from gradlab.checks.inspection import Inspection
from gradlab.gradients.courses import linearized
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.starts import Starts
from gradlab.runs.check_results import EFFECT, FINITE, CheckResult
from gradlab.statistics.moments import Moments

_FLOAT32 = 3.4e38
_LARGE = 1e30


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
    one = begin.block(slice(row, row + 1))
    linear = linearized(
        estimator,
        inspected.setting.policy,
        one,
        inspected.setting.seed,
        None,
        inspected.setting.termination,
    )
    for t in range(linear.path.horizon):
        bad = _bad_rows(linear.path.states[t + 1, 0, :, None])
        if bad:
            return f"row {row}: coordinate {bad[0]} of the state after step {t}"
        bad = _bad_rows(torch.cat([linear.A[t, 0], linear.B[t, 0]], dim=1))
        if bad:
            return f"row {row}: derivatives of coordinate {bad[0]} at step {t}"
    return f"row {row}: the product of Jacobians overflows"


def _bad_rows(values: torch.Tensor) -> list[int]:
    return (~torch.isfinite(values).all(dim=1)).nonzero().flatten().tolist()


def _no_effect(name: str, estimator: Estimator, inspected: Inspection) -> CheckResult | None:
    """Actions that change no reward within the horizon, whatever the critic says of them."""
    linear = inspected.along(estimator)
    if not linear.path.horizon:
        return None
    reached = _reached(linear.A, linear.B, linear.K, linear.r_s, linear.r_a)
    idle = [inspected.action(j) for j in (~reached).nonzero().flatten().tolist()]
    if not idle:
        return None
    h = linear.path.horizon
    result = f"{', '.join(idle)} has no effect on any reward within {h} steps"
    meaning = "only the critic moves this action: lengthen the horizon or look for a dead path"
    return CheckResult(f"{EFFECT}, {name}", result, meaning, False)


def _reached(
    A: torch.Tensor, B: torch.Tensor, K: torch.Tensor, r_s: torch.Tensor, r_a: torch.Tensor
) -> torch.Tensor:
    """Which first actions reach some reward, [da]; rewards after the first count along π."""
    reached = (r_a[0] != 0).any(dim=0)
    D = B[0]
    for t in range(1, len(A)):
        c = r_s[t] + torch.einsum("nas,na->ns", K[t], r_a[t])
        reached |= (torch.einsum("nsa,ns->na", D, c) != 0).any(dim=0)
        D = A[t] @ D + B[t] @ (K[t] @ D)
    return reached


def _growth(name: str, estimator: Estimator, inspected: Inspection) -> CheckResult | None:
    """|∂s_t/∂a_0| over the steps: the plot that is asked for first when gradients explode."""
    linear = inspected.along(estimator)
    h = linear.path.horizon
    if h < 2:
        return None
    D, size = linear.B[0], []
    for t in range(1, h):
        size.append(D.flatten(1).norm(dim=1).nan_to_num(nan=torch.inf).max())
        D = linear.A[t] @ D + linear.B[t] @ (linear.K[t] @ D)
    size.append(D.flatten(1).norm(dim=1).nan_to_num(nan=torch.inf).max())
    norms = torch.stack(size)
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
