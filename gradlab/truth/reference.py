"""Policy gradients by plain automatic differentiation: the definition, kept for the tests.

    J_n = Σ_{t<n} γᵗ r_t + γⁿ Q(s_n, a_n)          differentiated once, per start

Nothing is shared with the sweeps: derivatives come from autograd through `System.step`. Where the
differentiated system is not the one that makes the states, the model's derivative is spliced onto
the simulator's value by x.detach() + (y − y.detach()).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import jacobian_noise, rollout
from gradlab.gradients.starts import Starts
from gradlab.networks.interface import act
from gradlab.networks.mlp import judge


def reference_gradients(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    seed: int = 0,
    termination: str = "ignore",
) -> Tensor:
    """Per-sample gradients [N, P] by one backward pass per start; differentiable systems only."""
    states, tail, horizon = estimator.states, estimator.tail, estimator.tail.horizon
    jacobians = states if estimator.jacobians is None else estimator.jacobians
    frozen = copy.deepcopy(policy)
    later = policy if estimator.way.every else frozen
    path = rollout(states, policy, starts, horizon, seed)
    xi = jacobian_noise(states, jacobians, path)
    s, total, discounting = starts.states, starts.states.new_zeros(len(starts.weight)), 1.0
    for t in range(horizon):
        a = act(policy if t == 0 else later, s, path.policy_noise[t])
        out = jacobians.step(s, a, None if xi is None else xi[t])
        mask = path.alive[t].to(s.dtype) if termination == "mask" else 1.0
        total = total + discounting * mask * out.reward
        s = path.states[t + 1] + (out.state - out.state.detach())
        discounting *= tail.discount
    if tail.critic is not None:
        mask = path.alive[horizon].to(s.dtype) if termination == "mask" else 1.0
        tail_policy = policy if horizon == 0 else later
        if tail.terminal_action == "detached":
            tail_policy = frozen
        a = act(tail_policy, s, path.policy_noise[horizon])
        total = total + discounting * mask * judge(tail.critic, tail.value, s, a)
    parameters, gradients = list(policy.parameters()), []
    trained = [p for p in parameters if p.requires_grad]
    for term in total * starts.weight:  # zeros for frozen and unused parameters
        grads = torch.autograd.grad(term, trained, retain_graph=True, allow_unused=True)
        given = {id(p): g for p, g in zip(trained, grads, strict=True) if g is not None}
        flat = [given.get(id(p), torch.zeros_like(p)).flatten() for p in parameters]
        gradients.append(torch.cat(flat))
    return torch.stack(gradients)
