"""The mean gradient of one horizon by plain backpropagation through time, where autograd passes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gradlab.data.trajectories import Path
from gradlab.gradients.estimator import Estimator, checked, with_entropy
from gradlab.gradients.rollout import noise_mode
from gradlab.gradients.setting import Starts
from gradlab.networks.interface import act
from gradlab.networks.mlp import judge
from gradlab.systems.system import Recorded, System


def mean_gradient(
    estimator: Estimator,
    policy: nn.Module,
    starts: Tensor | Path | Starts,
    seed: int = 0,
    termination: str = "ignore",
) -> Tensor:
    """Mean gradient [P] alone, which `Estimator.mean_gradient` gives, by one plain backward pass
    where autograd can pass."""
    begin = checked(estimator, policy, starts, termination)
    return mean_gradient_again(estimator, policy, begin, seed, termination)


def mean_gradient_again(
    estimator: Estimator, policy: nn.Module, begin: Starts, seed: int, termination: str
) -> Tensor:
    """`mean_gradient` of what has passed its checks before, such as a policy some updates later."""
    plain, soft = with_entropy(estimator, policy)
    if not _autograd_passes(plain):
        return estimator.mean_gradient(policy, begin, seed, termination)
    parameters = list(soft.parameters())
    trained = [p for p in parameters if p.requires_grad]
    with torch.enable_grad():
        mean = _mean_return(plain, soft, begin, seed, termination)
        if not mean.requires_grad:  # a critic that no action moves, alone
            return torch.cat([torch.zeros_like(p).flatten() for p in parameters])
        grads = iter(torch.autograd.grad(mean, trained, materialize_grads=True))
    return torch.cat(
        [(next(grads) if p.requires_grad else torch.zeros_like(p)).flatten() for p in parameters]
    )


def objective(
    estimator: Estimator,
    policy: nn.Module,
    starts: Tensor | Path | Starts,
    seed: int = 0,
    termination: str = "ignore",
) -> Tensor:
    """A scalar whose gradient in θ is the mean gradient: the n-step return, mean over the starts.

    Where autograd cannot pass, as of a score or a cut path, it is ⟨θ, mean gradient⟩, whose value
    means nothing.
    """
    begin = checked(estimator, policy, starts, termination)
    plain, soft = with_entropy(estimator, policy)
    if _autograd_passes(plain):
        return _mean_return(plain, soft, begin, seed, termination)
    mean = estimator.mean_gradient(policy, begin, seed, termination)
    theta = torch.cat([p.flatten() for p in policy.parameters()])
    return theta @ mean.to(theta)


def _autograd_passes(estimator: Estimator) -> bool:
    """Through the estimator's path, all of whose derivatives are counted?"""
    model = estimator.jacobians if estimator.jacobians is not None else estimator.states
    detached = not estimator.way.pathwise or bool(estimator.cut) or estimator.replay is not None
    return not detached and not isinstance(estimator.states, Recorded) and model.differentiable


def _mean_return(
    estimator: Estimator, policy: nn.Module, starts: Starts, seed: int, termination: str
) -> Tensor:
    """The n-step return, weighted mean over the starts, with its graph."""
    return (_returns(estimator, policy, starts, seed, termination) * starts.weight).mean()


def _returns(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    termination: str,
) -> Tensor:
    """n-step returns [N] with their graph."""
    tail, n = estimator.tail, len(starts.states)
    model = estimator.jacobians if estimator.jacobians is not None else estimator.states
    frozen = copy.deepcopy(policy).requires_grad_(False)
    s, alive = starts.states, torch.ones(n, dtype=torch.bool, device=starts.states.device)
    total = s.new_zeros(n)

    def choose(t: int, carries: bool) -> Tensor:
        e = starts.policy_noise(policy, seed, t)
        return act(policy if carries else frozen, s, e)

    for t in range(tail.horizon):
        a = choose(t, carries=estimator.way.carries(t))
        xi = starts.dynamics_noise(estimator.states, seed, t)
        s_next, reward, on = _step(estimator.states, model, s, a, xi)
        if termination == "mask":
            # A finished sample waits at its start, where nothing overflows, and counts no more.
            reward = torch.where(alive, reward, 0.0)
            alive = alive & on
            s_next = torch.where(alive[:, None], s_next, starts.states)
        total, s = total + tail.discount**t * reward, s_next
    if tail.critic is not None:
        attached = estimator.way.all_actions and tail.terminal_action == "attached"
        a = s[:, :0]  # a V critic's
        if tail.value == "Q":
            a = choose(tail.horizon, carries=tail.horizon == 0 or attached)
        value = judge(tail.critic, tail.value, s, a)
        value = torch.where(alive, value, 0.0) if termination == "mask" else value
        total = total + tail.discount**tail.horizon * value
    return total


def _step(
    states: System, model: System, s: Tensor, a: Tensor, xi: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Next state and reward: values of `states`, derivatives of `model`."""
    if model is states:
        out = states.step(s, a, xi)
        return out.state, out.reward, out.alive
    with torch.no_grad():
        true = states.step(s, a, xi)
    noise = None
    if noise_mode(states, model) == "inferred":
        noise = getattr(model, "infer_noise")(s.detach(), a.detach(), true.state)  # noqa: B009
    out = model.step(s, a, noise)
    state = true.state + (out.state - out.state.detach())
    return state, true.reward + (out.reward - out.reward.detach()), true.alive
