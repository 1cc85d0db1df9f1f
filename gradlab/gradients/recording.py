"""Trajectories of a policy on a simulator, and recorded ones as paths.

Of a recorded path the noise is inferred that must have made it, and K along it:

    ε_t with π_θ(s_t, ε_t) = a_t,   ξ_t with f(s_t, a_t, ξ_t) = s_{t+1}        (RP-PGM eq. 4.5)

The policy's noise is inferred here, the model's in `rollout.jacobian_noise`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data import trajectories
from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import Trace, trace
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import Starts, as_starts
from gradlab.networks.interface import act, check_policy, noise_dim
from gradlab.networks.policies import check_stochastic
from gradlab.systems.system import System


def record(
    simulator: System, policy: nn.Module, starts: Tensor | Path, horizon: int, seed: int = 0
) -> Trajectories:
    """One trajectory per start, of `horizon` transitions or up to the first terminal state.

    Its noise streams are its own: a gradient measured at the same seed draws other noise.

    Raises:
        InputError: a horizon below 1, starts or a policy that do not fit, or a state that leaves
            the finite numbers.
    """
    if not isinstance(horizon, int) or horizon < 1:
        raise InputError(f"horizon is {horizon!r}, expected an integer ≥ 1")
    begin = as_starts(starts, simulator.state_dim)
    check_policy(policy, begin.states, simulator.action_dim)
    recording = stream(seed, "recording").initial_seed()
    return trajectories.from_path(rollout(simulator, policy, begin, horizon, recording))


_ROUNDING = 1e-6  # by which recorded and repeated actions may differ


def recorded_with_jacobians(
    policy: nn.Module,
    starts: Starts,
    horizon: int,
    seed: int = 0,
    traces: list[Trace] | None = None,
) -> tuple[Path, Tensor]:
    """A recorded path with the policy's noise inferred from its actions, and K along it.

    A tail action that was not recorded (NaN) is drawn from the policy.

    Raises:
        InputError: no path was given, it is shorter than the horizon, or the policy cannot have
            taken its actions.
    """
    if starts.path is None or starts.path.horizon < horizon:
        have = 0 if starts.path is None else starts.path.horizon
        raise InputError(
            f"starts has {have} recorded steps, the estimator needs {horizon}: give "
            f"gradlab.data.trajectories.segments(trajectories, {horizon})"
        )
    path = starts.path.cut(horizon)
    unknown = path.actions.isnan().any(dim=2)
    actions, noise = path.actions.clone(), []
    for t in range(horizon + 1):
        drawn = starts.policy_noise(policy, seed, t)
        with torch.no_grad():
            fresh = act(policy, path.states[t], drawn)
        actions[t] = torch.where(unknown[t][:, None], fresh, actions[t])
        inferred = _policy_noise(policy, path.states[t], actions[t])
        noise.append(torch.where(unknown[t][:, None], drawn, inferred))
    path = replace(path, actions=actions, policy_noise=torch.stack(noise))
    traced = [trace(policy, path.states[t], path.policy_noise[t]) for t in range(horizon + 1)]
    if traces is not None:
        traces.extend(traced)
    return path, torch.stack([traced_step.K for traced_step in traced])


def _policy_noise(policy: nn.Module, state: Tensor, action: Tensor) -> Tensor:
    """The noise with which the policy takes these actions."""
    if noise_dim(policy):
        check_stochastic(policy)
        invertible: Any = policy
        with torch.no_grad():
            inferred: Tensor = invertible.infer_noise(state, action)
        return inferred
    with torch.no_grad():
        gap = (policy(state) - action).abs().max()
    if gap > _ROUNDING * action.abs().max().clamp_min(1.0):
        raise InputError(
            f"recorded actions differ from the deterministic policy's by up to {float(gap):.2g}, "
            f"so no noise can be inferred: wrap it, gradlab.networks.policies.Gaussian(policy, std)"
        )
    return state.new_zeros(len(state), 0)
