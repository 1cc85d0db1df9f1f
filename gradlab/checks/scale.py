"""Sizes of the gradient's terms over the horizon, of critics and of actions.

    ∇ (Σ_{t<n} γᵗ r_t  −  α Σ γᵗ log π_t  +  γⁿ Q(s_n, a_n)),      the norm of each mean by n

A loss that averages one term over time and sums another changes its meaning with the horizon; a
critic beyond r_max / (1 − γ) cannot be right; an action at its limit passes no gradient on. That
rewards drown a critic at the longest horizon alone is what γⁿ and damping make of it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gradlab.checks.inspection import Inspection
from gradlab.checks.premises import FACTOR
from gradlab.data.path import Path
from gradlab.gradients import gram
from gradlab.gradients.estimator import Estimator, first_horizon
from gradlab.gradients.gram import path_mean_gradients
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import LinearizedPath, TailGradient, tail_gradient
from gradlab.gradients.sweeps import action_gradients, discounted_costates
from gradlab.networks.interface import act, last_tanh
from gradlab.networks.mlp import judge
from gradlab.runs.check_results import SATURATED, CheckResult
from gradlab.systems.entropy import Entropic

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
