"""Numbers that are not finite, and gradients that are exactly 0: how many, and where first.

All samples of the measurement are counted; the first that is lost is rolled out again to say at
which step, and in which derivative, it leaves the finite numbers. Mean gradients at the longest
horizon in float32 are compared with float64.

Sizes of the gradient's terms over the horizon, of critics and of actions.

    ∇ (Σ_{t<n} γᵗ r_t  −  α Σ γᵗ log π_t  +  γⁿ Q(s_n, a_n)),      the norm of each mean by n

A loss that averages one term over time and sums another changes its meaning with the horizon; a
critic beyond r_max / (1 − γ) cannot be right; an action at its limit passes no gradient on. That
rewards drown a critic at the longest horizon alone is what γⁿ and damping make of it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.checks.inspection import Inspection
from gradlab.checks.premises import FACTOR
from gradlab.data.trajectories import Path
from gradlab.errors import InputError, in_short
from gradlab.gradients import gram
from gradlab.gradients.courses import Shared, linearized
from gradlab.gradients.estimator import Estimator, first_horizon
from gradlab.gradients.gram import path_mean_gradients
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import (
    LinearizedPath,
    TailGradient,
    action_gradients,
    discounted_costates,
    sensitivities,
    tail_gradient,
)
from gradlab.gradients.setting import Starts
from gradlab.gradients.weighted_terms import carried
from gradlab.networks.interface import act, last_tanh
from gradlab.networks.mlp import judge
from gradlab.runs.check_results import EFFECT, FINITE, SATURATED, CheckResult
from gradlab.statistics.moments import Moments
from gradlab.systems.system import Entropic

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


_DOMINANT = 100.0  # times all other terms together at the longest horizon
_REWARDS = "reward sum"
_SATURATED = 0.5  # share of actions at their limit
_REMEDY = (
    "sits at its limit and passes hardly any gradient on. If updates hardly move the return, "
    "divide the policy's last layer (weights and bias) by 10, and measure again"
)
_NEAR = 1e-3  # of the limit
_BENT = 0.01  # of a tanh's, which passes 2% on there


def scale(inspected: Inspection) -> list[CheckResult]:
    """Terms of each gradient, the critics' size, saturated actions, realised horizons."""
    results = [
        _terms(name, estimator, inspected)
        for name, estimator in inspected.pathwise().items()
        if not estimator.way.mixed
    ]
    results += [_critics(inspected), _saturation(inspected), _realised(inspected)]
    return [result for result in results if result is not None]


def _terms(name: str, estimator: Estimator, inspected: Inspection) -> CheckResult | None:
    H = estimator.tail.horizon
    shown = sorted({max(1, first_horizon(estimator)), max(1, (H + 1) // 2), H})
    if H < 1:
        return None
    linear, tail = inspected.along(estimator), estimator.tail
    critic = tail_gradient(linear.path, tail.critic, tail.value, inspected.setting.termination)
    parts = _parts(estimator, linear, critic)
    norms = {
        term: _norms(estimator, inspected, part, q, tuple(shown))
        for term, (part, q) in parts.items()
    }
    grid = ", ".join(str(h) for h in shown)
    words = [f"{term} {', '.join(f'{v:.2g}' for v in values)}" for term, values in norms.items()]
    result = f"norms at h = {grid}: {'; '.join(words)}"
    last = {term: values[-1] for term, values in norms.items()}
    largest = max(last, key=lambda term: last[term])
    others = sum(value for term, value in last.items() if term != largest)
    share = last[largest] / max(others, 1e-300)
    check = f"scale of the terms of {name}"
    first = sum(values[0] for term, values in norms.items() if term != largest)
    faded = largest == _REWARDS and first * _DOMINANT >= norms[largest][0] and shown[0] < H
    if len(last) > 1 and share > _DOMINANT and not faded:
        meaning = f"the {largest} drowns everything else at h = {H}: check its scale"
        return CheckResult(check, result, meaning, False)
    return CheckResult(check, result, f"the {largest} is the largest term at h = {H}", True)


def _parts(
    estimator: Estimator, linear: LinearizedPath, critic: TailGradient
) -> dict[str, tuple[LinearizedPath, TailGradient]]:
    """The path with all but one term's derivatives left out; their gradients add up."""
    no_tail = TailGradient(torch.zeros_like(critic.q_s), torch.zeros_like(critic.q_a))
    no_reward = replace(linear, r_s=torch.zeros_like(linear.r_s), r_a=torch.zeros_like(linear.r_a))
    if not isinstance(estimator.jacobians, Entropic):
        parts = {_REWARDS: (linear, no_tail)}
        return parts | ({"critic": (no_reward, critic)} if estimator.tail.critic else {})
    plain, price = _split(linear.r_a)
    entropy = TailGradient(no_tail.q_s, _split(critic.q_a)[1])
    value = TailGradient(critic.q_s, _split(critic.q_a)[0])
    parts = {_REWARDS: (replace(linear, r_a=plain), no_tail)}
    parts |= {"critic": (no_reward, value)} if estimator.tail.critic else {}
    return parts | {"entropy": (replace(no_reward, r_a=price), entropy)}


def _split(by_action: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives in a and in log π, each with zeros for the other."""
    price = torch.zeros_like(by_action)
    price[..., -1] = by_action[..., -1]
    return by_action - price, price


def _norms(
    estimator: Estimator,
    inspected: Inspection,
    linear: LinearizedPath,
    tail: TailGradient,
    horizons: tuple[int, ...],
) -> list[float]:
    here, path, discount = inspected.setting, linear.path, estimator.tail.discount
    weight = here.starts.weight[:, None]
    if not estimator.way.every:
        g = action_gradients(linear, tail, discount)[list(horizons)] * weight
        jacobian = policy_jacobian(here.policy, here.starts.states, path.policy_noise[0])
        return [float(x) for x in gram.mean_gradients(jacobian, g).norm(dim=1)]
    kind = estimator.tail.terminal_action
    costates = discounted_costates(linear, tail, discount, horizons, kind) * weight
    s, e = path.states.flatten(0, 1), path.policy_noise.flatten(0, 1)
    jacobian = policy_jacobian(here.policy, s, e)
    return [float(x) for x in path_mean_gradients(jacobian, costates, horizons).norm(dim=1)]


def _critics(inspected: Inspection) -> CheckResult | None:
    """No return exceeds r_max / (1 − γ); beyond the longest path at hand rewards may be larger."""
    rewards = [
        inspected.along(estimator).path.rewards
        for estimator in inspected.pathwise().values()
        if estimator.tail.horizon and not isinstance(estimator.states, Entropic)
    ]
    every = inspected.estimators.values()
    critics = {id(e.tail.critic): e for e in every if e.tail.critic is not None}
    discount = inspected.setting.discount
    if not rewards or not critics or discount >= 1:
        return None
    largest = max(float(r.abs().nan_to_num(nan=torch.inf).max()) for r in rewards)
    limit, values = largest / (1 - discount), []
    for estimator in critics.values():
        if estimator.jacobians is None:
            continue
        path, critic = inspected.along(estimator).path, estimator.tail.critic
        assert critic is not None
        s, a = path.states.flatten(0, 1), path.actions.flatten(0, 1)
        with torch.no_grad():
            value = judge(critic, estimator.tail.value, s, a)
        values.append(float(value.abs().nan_to_num(nan=torch.inf).max()))
    if not values:
        return None
    result = f"largest |Q| {max(values):.3g}, r_max / (1 − γ) = {limit:.3g} along these paths"
    if max(values) <= FACTOR * limit:
        return CheckResult(
            "size of the critic", result, "at no state beyond what returns can be", True
        )
    meaning = (
        f"at some states beyond any return of rewards up to {FACTOR:g} times as large: refit it"
    )
    return CheckResult("size of the critic", result, meaning, False)


def _saturation(inspected: Inspection) -> CheckResult | None:
    paths = [inspected.along(estimator).path for estimator in inspected.pathwise().values()]
    if inspected.action_limit is not None:
        a = torch.cat([path.actions for path in paths])
        edge = (1 - _NEAR) * a.new_tensor(inspected.action_limit)
    else:  # of the tanh that the policy ends with
        found = [_bent(inspected.setting.policy, path) for path in paths]
        known = [each for each in found if each is not None]
        if not known:
            return None
        a = torch.cat(known)
        edge = a.new_full(a.shape[-1:], 1 - _BENT)
    at = (a[..., : len(edge)].abs() >= edge).double().mean(dim=(0, 1))
    words = [f"{inspected.action(j)} {share:.1%}" for j, share in enumerate(at.tolist())]
    result = f"share of actions at or beyond their limit: {', '.join(words)}"
    if float(at.max()) < _SATURATED:
        return CheckResult(SATURATED, result, "limits cut off few gradients", True)
    worst = int(at.argmax())
    meaning = f"{float(at[worst]):.0%} of {inspected.action(worst)} {_REMEDY}"
    return CheckResult(SATURATED, result, meaning, False)


def _bent(policy: nn.Module, path: Path) -> Tensor | None:
    """Values of the tanh that the actions along a path end with, [H + 1, N, da]; None: none."""
    with torch.enable_grad():
        state, noise = path.states.flatten(0, 1), path.policy_noise.flatten(0, 1)
        found = last_tanh(act(policy, state, noise))
    return None if found is None else found.detach().reshape(*path.states.shape[:2], -1)


def _realised(inspected: Inspection) -> CheckResult | None:
    """How many of the asked steps are made before a terminal state, on the longest paths."""
    paths = {
        name: inspected.along(estimator).path for name, estimator in inspected.pathwise().items()
    }
    name = max(paths, key=lambda name: paths[name].horizon, default="")
    if not name or not paths[name].horizon:
        return None
    path, check = paths[name], f"realised horizon of {name}"
    steps = path.alive[:-1].sum(dim=0).double()
    ended, H = float((~path.alive[-1]).double().mean()), path.horizon
    early = float((~path.alive[1]).double().mean())
    result = (
        f"{ended:.0%} of the starts reach a terminal state within {H} steps, {early:.0%} at the "
        f"first; {float(steps.mean()):.3g} steps on average"
    )
    if inspected.setting.termination == "ignore":
        return CheckResult(check, result, "rollouts run on beyond it, as asked", True)
    meaning = "rewards stop there, and the boundary's share of the gradient is missing"
    return CheckResult(check, result, meaning, early < 0.25)
