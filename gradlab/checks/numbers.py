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
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.checks.jacobians import CheckContext
from gradlab.checks.premises import FACTOR
from gradlab.data.trajectories import Path
from gradlab.errors import InputError, in_short
from gradlab.findings import Finding, within
from gradlab.gradients.estimator import Estimator, first_horizon
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import (
    TailGradient,
    Trajectory,
    action_gradients,
    discounted_costates,
    sensitivities,
    tail_gradient,
)
from gradlab.gradients.setting import Starts
from gradlab.gradients.trajectory import TermRequest
from gradlab.gradients.weighted_terms import costate_terms
from gradlab.networks.interface import act, last_tanh
from gradlab.networks.mlp import judge
from gradlab.systems.system import Entropic

_FLOAT32 = 3.4e38
_LARGE = 1e30
_TENFOLD = 10.0  # a step: sensitivities that grow so fast explode
_LIMIT = 0.01  # relative error of the mean gradient


def finite(context: CheckContext) -> list[Finding]:
    """Per-sample gradients of every estimator, and the growth of what they are made of."""
    results = _gradients(context)
    paths: dict[int, tuple[str, Trajectory]] = {}
    for name, estimator in context.pathwise().items():
        linear = context.along(estimator)
        paths.setdefault(id(linear), (name, linear))  # once, whichever actions carry θ along it
    for name, linear in paths.values():
        if linear.path.horizon:
            results += _idle(name, linear, context) + _growth(name, linear)
    return results


def _gradients(context: CheckContext) -> list[Finding]:
    begin, cells = context.begin, context.cells
    found = []
    for name, estimator in context.estimators.items():
        squares = {n: moments.squares for (who, n), moments in cells.items() if who == name}
        first = next((n for n in sorted(squares) if not np.isfinite(squares[n]).all()), None)
        if first is not None:
            which = np.flatnonzero(~np.isfinite(squares[first]))
            at = f"h = {first}, {_where(estimator, context, int(which[0]))}"
            count = len(squares[first])
            found.append(Finding("gradients_lost", "fail", name, len(which), n=count, at=at))
        none = {n: int((values == 0).sum()) for n, values in squares.items()}
        most = max(none, key=lambda n: none[n], default=0)
        if none.get(most):
            count, at = len(squares[most]), f"h = {most}"
            found.append(Finding("gradients_zero", "fail", name, none[most], n=count, at=at))
    return found or [Finding("gradients_finite", "pass", n=len(begin.states))]


def _where(estimator: Estimator, context: CheckContext, group: int) -> str:
    """The first step at which a sample of a lost group leaves the finite numbers."""
    begin = context.begin
    label = np.unique(begin.group.numpy(), return_inverse=True)[1]
    row = int(np.flatnonzero(label == group)[0])
    if estimator.jacobians is None:
        return f"row {row}"
    linear = context.asked.elsewhere(begin.block(slice(row, row + 1))).trajectory(estimator)
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


def _idle(name: str, linear: Trajectory, context: CheckContext) -> list[Finding]:
    """Actions that change no reward within the horizon, whatever the critic says of them."""
    idle = (~_reached(linear)).nonzero().flatten().tolist()
    h = linear.path.horizon
    return [Finding("action_idle", "fail", context.action(j), h, at=name) for j in idle]


def _reached(linear: Trajectory) -> Tensor:
    """Which first actions reach some reward, [da]; rewards after the first count along π."""
    reached = (linear.r_a[0] != 0).any(dim=0)
    for t, D in enumerate(sensitivities(linear)[:-1], 1):
        c = linear.r_s[t] + torch.einsum("nas,na->ns", linear.K[t], linear.r_a[t])
        reached |= (torch.einsum("nsa,ns->na", D, c) != 0).any(dim=0)
    return reached


def _growth(name: str, linear: Trajectory) -> list[Finding]:
    """|∂s_t/∂a_0| over the steps: what is asked for first when gradients explode."""
    h = linear.path.horizon
    if h < 2:
        return []
    sizes = [D.flatten(1).norm(dim=1).nan_to_num(nan=torch.inf) for D in sensitivities(linear)]
    norms = torch.stack([size.max() for size in sizes])
    for limit in (_FLOAT32, _LARGE):
        beyond = (norms > limit).nonzero().flatten()
        if len(beyond):
            at = int(beyond[0]) + 1
            return [Finding("chain_overflow", "fail", name, at, threshold=limit, n=h)]
    rate = float((norms[-1] / norms[0]).nan_to_num(nan=0.0)) ** (1 / (h - 1))
    return [within("chain_growth", rate, _TENFOLD, name, unit="×", n=h)]


def precision(context: CheckContext) -> list[Finding]:
    """float32 against float64 for every estimator."""
    single = _in_single(context.asked)
    return [
        _compared(name, estimator, context.asked, single, len(context.setting.starts.states))
        for name, estimator in context.estimators.items()
    ]


def _compared(
    name: str, estimator: Estimator, double: TermRequest, single: TermRequest, n: int
) -> Finding:
    at = f"h = {estimator.tail.horizon}"
    try:
        _, error = _apart(estimator, double, single)
    except (RuntimeError, TypeError, InputError) as why:
        return Finding("float32_untested", "skipped", name, at=in_short(why))
    return within("float32", error, _LIMIT, name, n=n, at=at)


def _in_single(asked: TermRequest) -> TermRequest:
    """Copies of policy and starts in float32."""
    starts = asked.starts
    begin = replace(
        starts, states=starts.states.float(), weight=starts.weight.float(), path=None, draws={}
    )
    return replace(
        asked, policy=copy.deepcopy(asked.policy).float(), starts=begin, paths={}, made={}
    )


def in_float32(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    termination: str = "ignore",
) -> tuple[float, float]:
    """The mean gradient at the estimator's own horizon, on copies in float32, against float64: the
    cosine of both, and |difference| / |float64's|.

    Raises:
        RuntimeError, TypeError, InputError: where the system cannot compute in float32.
    """
    asked = TermRequest(policy, starts, (), seed, termination)
    return _apart(estimator, asked, _in_single(asked))


def _apart(estimator: Estimator, double: TermRequest, single: TermRequest) -> tuple[float, float]:
    critic, tail = estimator.tail.critic, estimator.tail
    rounded = None if critic is None else copy.deepcopy(critic).float()
    narrow = replace(estimator, tail=replace(tail, critic=rounded))
    exact, short = _mean(estimator, double), _mean(narrow, single).double()
    cosine = float(nn.functional.cosine_similarity(exact, short, dim=0))
    gap = float((exact - short).norm() / exact.norm().clamp_min(1e-300))
    return cosine, gap


def _mean(estimator: Estimator, asked: TermRequest) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        terms = costate_terms(estimator, asked.over((estimator.tail.horizon,)))
    return terms.sums()[0] / terms.costates.shape[2]


_DOMINANT = 100.0  # times all other terms together at the longest horizon
_REWARDS = "reward sum"
_SATURATED = 0.5  # share of actions at their limit
_NEAR = 1e-3  # of the limit
_BENT = 0.01  # of a tanh's, which passes 2% on there
_EARLY = 0.25  # share of the starts whose episode ends at its first step


def scale(context: CheckContext) -> list[Finding]:
    """Terms that drown all others, critics beyond any return, saturated actions, early ends."""
    results = [
        _terms(name, estimator, context)
        for name, estimator in context.pathwise().items()
        if estimator.tail.horizon and not estimator.way.mixed
    ]
    results += [_critics(context), _saturation(context), _short(context)]
    return [result for result in results if result is not None]


def _terms(name: str, estimator: Estimator, context: CheckContext) -> Finding | None:
    """At the longest horizon; rewards that drown a critic there alone are damping's work."""
    H, tail = estimator.tail.horizon, estimator.tail
    linear, shown = context.along(estimator), sorted({max(1, first_horizon(estimator)), H})
    critic = tail_gradient(linear.path, tail.critic, tail.value, context.setting.termination)
    norms = {
        term: _norms(estimator, context, *part, tuple(shown))
        for term, part in _parts(estimator, linear, critic).items()
    }
    largest = max(norms, key=lambda term: norms[term][-1])
    first, last = (sum(x[k] for t, x in norms.items() if t != largest) for k in (0, -1))
    share = norms[largest][-1] / max(last, 1e-300)
    faded = largest == _REWARDS and first * _DOMINANT >= norms[largest][0] and shown[0] < H
    if len(norms) < 2 or share <= _DOMINANT or faded:
        return None
    at = f"{name} at h = {H}"
    return Finding("term_drowns", "fail", largest, share, threshold=_DOMINANT, at=at)


def _parts(
    estimator: Estimator, linear: Trajectory, critic: TailGradient
) -> dict[str, tuple[Trajectory, TailGradient]]:
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
    context: CheckContext,
    linear: Trajectory,
    tail: TailGradient,
    horizons: tuple[int, ...],
) -> list[float]:
    here, path, discount = context.setting, linear.path, estimator.tail.discount
    weight = here.starts.weight[:, None]
    if not estimator.way.all_actions:
        g = action_gradients(linear, tail, discount)[list(horizons)] * weight
        jacobian = policy_jacobian(here.policy, here.starts.states, path.policy_noise[0])
        return [float(x) for x in (jacobian.T @ g / g.shape[1]).norm(dim=1)]
    kind = estimator.tail.terminal_action
    costates = discounted_costates(linear, tail, discount, horizons, kind) * weight
    s, e = path.states.flatten(0, 1), path.policy_noise.flatten(0, 1)
    jacobian = policy_jacobian(here.policy, s, e)
    means = jacobian.T @ costates.flatten(1, 2) / costates.shape[2]
    return [float(x) for x in means.norm(dim=1)]


def _critics(context: CheckContext) -> Finding | None:
    """No return exceeds r_max / (1 − γ); beyond the longest path at hand rewards may be larger."""
    rewards = [
        _largest(context.along(estimator).path.rewards)
        for estimator in context.pathwise().values()
        if estimator.tail.horizon and not isinstance(estimator.states, Entropic)
    ]
    every = context.estimators.values()
    critics = {id(e.tail.critic): e for e in every if e.tail.critic is not None}
    values = [0.0]
    for estimator in critics.values():
        if estimator.jacobians is None:
            continue
        path, tail = context.along(estimator).path, estimator.tail
        assert tail.critic is not None
        with torch.no_grad():
            s, a = path.states.flatten(0, 1), path.actions.flatten(0, 1)
            values.append(_largest(judge(tail.critic, tail.value, s, a)))
    if not rewards or context.setting.discount >= 1:
        return None
    limit = max(rewards) / (1 - context.setting.discount)
    if max(values) <= FACTOR * limit:
        return None
    return Finding("critic_beyond", "fail", "", max(values), threshold=limit)


def _largest(values: Tensor) -> float:
    return float(values.abs().nan_to_num(nan=torch.inf).max())


def _saturation(context: CheckContext) -> Finding | None:
    paths = [context.along(estimator).path for estimator in context.pathwise().values()]
    if context.task.action_limit is not None:
        a = torch.cat([path.actions for path in paths])
        edge = (1 - _NEAR) * a.new_tensor(context.task.action_limit)
    else:  # of the tanh that the policy ends with
        found = [_bent(context.setting.policy, path) for path in paths]
        known = [each for each in found if each is not None]
        if not known:
            return None
        a = torch.cat(known)
        edge = a.new_full(a.shape[-1:], 1 - _BENT)
    at = (a[..., : len(edge)].abs() >= edge).double().mean(dim=(0, 1))
    share, who = float(at.max()), context.action(int(at.argmax()))
    return within("actions_saturated", share, _SATURATED, who)


def _bent(policy: nn.Module, path: Path) -> Tensor | None:
    """Values of the tanh that the actions along a path end with, [H + 1, N, da]; None: none."""
    with torch.enable_grad():
        state, noise = path.states.flatten(0, 1), path.policy_noise.flatten(0, 1)
        found = last_tanh(act(policy, state, noise))
    return None if found is None else found.detach().reshape(*path.states.shape[:2], -1)


def _short(context: CheckContext) -> Finding | None:
    """How many starts end at their first step, where rewards stop at an end."""
    paths = [context.along(estimator).path for estimator in context.pathwise().values()]
    longest = max(paths, key=lambda path: path.horizon, default=None)
    if longest is None or not longest.horizon or context.setting.termination == "ignore":
        return None
    early = float((~longest.alive[1]).double().mean())
    return within("episodes_short", early, _EARLY, n=longest.alive.shape[1])
