"""θ in the documented actions, and nowhere else.

    ∂/∂θ of the n-step return with θ in the documented actions only, the others from a frozen copy,
    by common-random-number differences, against the estimator's own gradient along a direction

and nothing but the policy may change with θ: critic and systems give the same values when the
user's policy is moved, and their parameters receive no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from gradlab.checks.jacobians import CheckContext
from gradlab.checks.premises import random_moves
from gradlab.data.trajectories import stream
from gradlab.findings import Decision, Finding
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting
from gradlab.gradients.trajectory import TermRequest
from gradlab.gradients.weighted_terms import costate_terms
from gradlab.networks.interface import act, flat_parameters
from gradlab.networks.mlp import judge
from gradlab.systems.system import System, machine_epsilon
from gradlab.truth.oracles import perturbed

_LONGEST = 5  # steps: differences of long chaotic returns say nothing
_TOLERANCE = 0.01  # of the gradient's size along a typical direction
_DIRECTIONS = 3
_MOVED, _FARTHER = 1e-4, 100.0  # of it, along a direction; times as far where steps are in float32


def leaks(context: CheckContext) -> list[Finding]:
    """θ in the documented actions, and in nothing but the policy."""
    return _shared(context) + [
        _documented(name, estimator, context)
        for name, estimator in context.pathwise().items()
        if estimator.states is estimator.jacobians
        if estimator.way.pathwise and not estimator.cut and estimator.replay is None
    ]


def _shared(context: CheckContext) -> list[Finding]:
    """Move the user's policy: does anything else change? Are tensors shared?"""
    policy, critics = context.policy, context.critics
    systems = {context.name(system): system for system in context.systems()}
    setting, s = context.setting, context.setting.starts.states
    noise = setting.starts.policy_noise(setting.policy, setting.seed, 0)
    with torch.no_grad():
        a = act(setting.policy, s, noise)
    # Without the log π that entropy adds.
    a = a[:, : min((system.action_dim for system in systems.values()), default=None)]
    addresses = {p.data_ptr() for p in policy.parameters()}
    shared = [p for critic in critics for p in critic.parameters() if p.data_ptr() in addresses]
    values = {name: partial(_stepped, system, s, a) for name, system in systems.items()}
    values |= {f"critic {k}": partial(_valued, critic, s, a) for k, critic in enumerate(critics, 1)}
    before = {name: value().nan_to_num() for name, value in values.items()}
    with _moved(policy):
        changed = [
            name
            for name, value in values.items()
            if not torch.equal(value().nan_to_num(), before[name])
        ]
    found = [Finding("theta_leaks", "fail", name) for name in changed]
    if shared:
        found.append(Finding("theta_shared", "fail", "critics", len(shared)))
    return found or [Finding("theta_alone", "pass")]


def _stepped(system: System, s: Tensor, a: Tensor) -> Tensor:
    with torch.no_grad():
        out = system.step(s, a, None)
    return torch.cat([out.state, out.reward[:, None]], dim=1)


def _valued(critic: nn.Module, s: Tensor, a: Tensor) -> Tensor:
    like = next(critic.parameters(), s)
    s, a = s.to(like), a.to(like)
    with torch.no_grad():
        try:
            return judge(critic, "Q", s, a)
        except TypeError:  # a critic of states alone
            return judge(critic, "V", s, a)


@contextmanager
def _moved(policy: nn.Module) -> Iterator[None]:
    """The user's policy at other parameters for a moment; a graph that holds it stays valid."""
    before = [p.data for p in policy.parameters()]
    try:
        for p, move in zip(policy.parameters(), random_moves(policy), strict=True):
            p.data = p.data + move
        yield
    finally:
        for p, data in zip(policy.parameters(), before, strict=True):
            p.data = data


def _documented(name: str, estimator: Estimator, context: CheckContext) -> Finding:
    n = min(_LONGEST, estimator.tail.horizon)
    short, here = replace(estimator, tail=replace(estimator.tail, horizon=n)), context.setting
    terms = costate_terms(short, TermRequest(here.policy, here.starts, (n,), here.seed))
    G = terms.jacobian.gradients(terms.costates[0]).mean(dim=0)
    directions = _directions(here.policy)
    typical = float(G.norm()) / len(G) ** 0.5
    along = directions @ G
    least = _MOVED * (_FARTHER if _in_float32(short, here) else 1.0)
    narrow, wide = (_differences(short, here, directions, least * k) for k in (1.0, 2.0))
    gap = (along - narrow).abs()
    allowed = _TOLERANCE * torch.clamp(along.abs(), min=typical) + (narrow - wide).abs() / 3
    off = float((gap / typical).max()) if typical > 0 else float(gap.max())
    decision: Decision = "pass" if (gap <= allowed).all() else "fail"
    return Finding("theta_counted", decision, name, off, at=f"h = {n}")


def _directions(policy: nn.Module) -> Tensor:
    """Random directions among the trained parameters, as long as the number of parameters'
    root, so that each coordinate is moved by about 1."""
    theta = flat_parameters(policy)
    draw = torch.randn(_DIRECTIONS, len(theta), generator=stream(0, "sanity directions"))
    trained = torch.cat([p.new_full((p.numel(),), p.requires_grad) for p in policy.parameters()])
    return nn.functional.normalize(draw.to(theta) * trained, dim=1)


def _in_float32(estimator: Estimator, here: Setting) -> bool:
    """Do its states step in float32, though they are float64?"""
    s, system = here.starts.states, estimator.states
    a = act(here.policy, s, here.starts.policy_noise(here.policy, here.seed, 0))
    return machine_epsilon(_stepped(system, s, a)) > torch.finfo(s.dtype).eps


def _differences(estimator: Estimator, here: Setting, directions: Tensor, scale: float) -> Tensor:
    """Central differences of the n-step return with its tail along each direction, by so much of
    the size of θ."""
    epsilon = scale * max(float(flat_parameters(here.policy).norm()), 1e-3)
    plus, minus = (
        [_return(estimator, here, perturbed(here.policy, sign * epsilon * v)) for v in directions]
        for sign in (1.0, -1.0)
    )
    return (torch.stack(plus) - torch.stack(minus)) / (2 * epsilon)


def _return(estimator: Estimator, here: Setting, moved: nn.Module) -> Tensor:
    """Mean n-step return of the starts, θ moved in the actions that carry it."""
    tail, system, starts = estimator.tail, estimator.states, here.starts
    s, total = starts.states, starts.states.new_zeros(len(starts.states))
    last = tail.horizon
    with torch.no_grad():
        for t in range(last + 1):
            frozen = not estimator.way.carries(t)
            frozen |= t == last and tail.terminal_action == "detached"
            noise = starts.policy_noise(here.policy, here.seed, t)
            a = act(here.policy if frozen else moved, s, noise)
            if t == last:
                break
            out = system.step(s, a, starts.dynamics_noise(system, here.seed, t))
            total = total + tail.discount**t * out.reward
            s = out.state
        if tail.critic is not None:
            value = judge(tail.critic, tail.value, s, a)
            total = total + tail.discount**last * value
    return (total * starts.weight).mean()
