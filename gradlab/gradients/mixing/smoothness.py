"""DDCG's test of smoothness, action by action: is the return's variance that of its gradient?

    Var f = σ² (|E ∇f|² + ½ tr Cov ∇f)          exact for quadratic f of N(·, σ² I)
    smooth where  tr Cov ∇f ≥ 2 (1 − c) Var f / σ² − 2 |E ∇f|²,   c = 0.3

(Onoda, Parmas, Yaguchi and Matsuo 2026, arXiv 2604.18161, eq. 14, there for perturbations of θ.) A
jump adds to Var f and not to ∇f. Here f is the return as a function of one action's noise ε_t, all
else held: each pilot path is rolled out again from step t on with ε_t redrawn and the other noise
as it was. Of pairs (ε, ε′) with ∇, ∇′

    Var f = ½ E(f′ − f)²,   |E ∇|² + ½ tr Cov ∇ = ¼ E|∇ + ∇′|² = ½ E[(½ (∇ + ∇′)·(ε′ − ε))²]

the last since ∇ + ∇′ of a quadratic f depends on ε + ε′ alone, which is independent of ε′ − ε. So

    smooth where  E[(½ (∇ + ∇′)·(ε′ − ε))²] ≥ (1 − c) E(f′ − f)²

whose sides agree pair by pair where f is quadratic: starts of different scale raise no false alarm.
The test takes H/2 further Jacobians per step and pair: it is dear where Jacobians are.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gradlab.data.noise import child
from gradlab.gradients.courses import Asked, returns_to_go
from gradlab.gradients.cut import severed
from gradlab.gradients.mixing.head import draws_along
from gradlab.gradients.mixing.nodes import Nodes
from gradlab.gradients.rollout import (
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
    tail_gradient,
)
from gradlab.gradients.starts import Starts, policy_noise_at
from gradlab.gradients.sweeps import discounted_costates
from gradlab.networks.interface import noise_dim

PAIRS = 64
SLACK = 0.3  # c, the paper's for all its tasks


def smooth(here: Nodes, pilot: Asked) -> Tensor:
    """Where the first order may be used, [K, H + 1] bool; beyond a horizon, anything."""
    tail, steps = here.estimator.tail, here.linear.path.horizon + 1
    costates = discounted_costates(
        here.linear, here.tail, tail.discount, here.horizons, tail.terminal_action
    )
    slopes = here.draws.in_noise(costates)[:, :, :PAIRS]
    passed = torch.ones(len(here.horizons), steps, dtype=torch.bool, device=costates.device)
    for t in range(steps):
        later = [k for k, n in enumerate(here.horizons) if n >= t]
        if not later:
            break
        left = tuple(here.horizons[k] - t for k in later)
        f, slope, moved = _redrawn(here, pilot, t, left)
        change = f - here.to_go[later, t, :PAIRS]
        explained = 0.5 * ((slope + slopes[later, t]) * moved).sum(dim=2)
        least = (1 - SLACK) * change.square().mean(dim=1)
        passed[later, t] = explained.square().mean(dim=1) >= least
    return passed


def _redrawn(
    here: Nodes, pilot: Asked, t: int, left: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """γᵗ f′ [K, n] and γᵗ ∇f′ in ε_t [K, n, da], with that noise redrawn; and ε′ − ε [n, da]."""
    estimator, policy, seed = here.estimator, pilot.policy, pilot.seed
    tail, before = estimator.tail, here.linear.path
    at = _with_other_noise(pilot, t, before.states[t, :PAIRS])
    path, K = rollout_with_jacobians(
        estimator.states, policy, at, before.horizon - t, seed, first=t
    )
    if here.counted is not None:
        path = replace(path, alive=path.alive & here.counted[t, :PAIRS])
    model = estimator.states if estimator.jacobians is None else estimator.jacobians
    noise = jacobian_noise(estimator.states, model, path)
    linear = severed(linearize_path(path, model, K, noise, pilot.termination), estimator.cut)
    gradient = tail_gradient(path, tail.critic, tail.value, pilot.termination)
    costates = discounted_costates(linear, gradient, tail.discount, left, tail.terminal_action)
    slope = draws_along(policy, path)[0].in_noise(costates[:, 0])
    returns = returns_to_go(estimator, path, left, pilot.termination)[:, 0]
    moved = path.policy_noise[0] - before.policy_noise[t, :PAIRS]
    return tail.discount**t * returns, tail.discount**t * slope, moved


def _with_other_noise(pilot: Asked, t: int, states: Tensor) -> Starts:
    few = pilot.starts.block(slice(0, PAIRS))
    total, policy = len(pilot.starts.states), pilot.policy
    fresh = policy_noise_at(policy, total, child(pilot.seed, "other"), t, like=states)
    draws = {("policy", pilot.seed, t, noise_dim(policy)): fresh}
    return replace(few, states=states, draws=draws)
