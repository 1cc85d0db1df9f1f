"""Paths and their Jacobians: everything that the sweeps read.

    a_t = π_θ(s_t, ε_t),   s_{t+1} = f(s_t, a_t, ξ_t)
    A, B, r_s, r_a  of the system that is differentiated,   K = ∂π/∂s

The rollout runs without gradients; Jacobians are taken afterwards for all steps at once, in blocks
of rows, so that memory stays bounded whatever the horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import Trace, trace
from gradlab.networks.interface import act, noise_dim
from gradlab.networks.policies import check_stochastic
from gradlab.systems.recorded import Recorded
from gradlab.systems.system import System, standard_normal

ROWS = 2048  # rows linearized at once
ROUNDING = 1e-6  # by which recorded and repeated actions may differ


@dataclass(frozen=True)
class LinearizedPath:
    """A path with A [H, N, ds, ds], B [H, N, ds, da], r_s [H, N, ds], r_a [H, N, da],
    K [H + 1, N, da, ds] and the certificate's flags [H, N]."""

    path: Path
    A: Tensor
    B: Tensor
    r_s: Tensor
    r_a: Tensor
    K: Tensor
    flags: Tensor


@dataclass(frozen=True)
class TailGradient:
    """q_s = ∂Q/∂s [H + 1, N, ds] and q_a = ∂Q/∂a [H + 1, N, da] of the critic along a path."""

    q_s: Tensor
    q_a: Tensor


@dataclass(frozen=True)
class Starts:
    """Start states [N, ds] with importance weights [N] and group labels [N].

    A block of a larger batch (`begin` rows into `of`) sees the noise that the whole batch sees, so
    that a measurement in blocks draws what the measurement in one piece draws. `path` is what was
    recorded from these starts on, if anything.
    """

    states: Tensor
    weight: Tensor
    group: Tensor
    begin: int = 0
    of: int | None = None
    path: Path | None = None

    def block(self, rows: slice) -> Starts:
        """Some of the rows."""
        whole = len(self.states) if self.of is None else self.of
        parts = (self.states[rows], self.weight[rows], self.group[rows])
        path = None if self.path is None else self.path.rows(rows)
        return Starts(*parts, self.begin + rows.start, whole, path)

    def policy_noise(self, policy: nn.Module, seed: int, step: int) -> Tensor:
        """The policy's draws of one step, [N, noise_dim]."""
        return self._rows(partial(policy_noise_at, policy, seed=seed, step=step, like=self.states))

    def dynamics_noise(self, system: System, seed: int, step: int) -> Tensor:
        """The system's draws of one step, [N, noise_dim]."""
        generator = stream(seed, "dynamics", step)
        noise = self._rows(lambda n: system.sample_noise(n, generator, self.states.dtype))
        return noise.to(self.states.device)

    def _rows(self, draw: Callable[[int], Tensor]) -> Tensor:
        n = len(self.states)
        return draw(n if self.of is None else self.of)[self.begin : self.begin + n]


def as_starts(starts: Tensor | Path, state_dim: int) -> Starts:
    """Start states of a tensor [N, ds] or of a path (its first states, weights and groups).

    Raises:
        InputError: for a wrong shape, no rows, an integer dtype or a non-finite state.
    """
    if isinstance(starts, Path):
        path = starts if starts.horizon else None
        result = Starts(starts.states[0], starts.weight, starts.group, path=path)
    else:
        n = starts.shape[0] if starts.ndim else 0
        weight = torch.ones(n, dtype=starts.dtype, device=starts.device)
        result = Starts(starts, weight, torch.arange(n, device=starts.device))
    states = result.states
    if states.ndim != 2 or states.shape[1] != state_dim:
        raise InputError(f"starts has shape {tuple(states.shape)}, expected [N, {state_dim}]")
    if states.shape[0] == 0:
        raise InputError("starts is empty: give at least 2 start states")
    if not states.is_floating_point():
        raise InputError(f"starts is {states.dtype}, expected float32 or float64: call .double()")
    finite = torch.isfinite(states).all(dim=1)
    if not finite.all():
        raise InputError(
            f"starts has {int((~finite).sum())} of {len(finite)} rows that are not finite "
            f"(first: row {int((~finite).nonzero()[0])}): remove them"
        )
    return result


def rollout(
    system: System, policy: nn.Module, starts: Starts, horizon: int, seed: int = 0, first: int = 0
) -> Path:
    """`horizon` steps of `system` under `policy`, without gradients.

    Args:
        first: step number of the starts, so that a long path can be continued on its noise streams.
    """

    def choose(state: Tensor, noise: Tensor) -> Tensor:
        with torch.no_grad():
            return act(policy, state, noise)

    return _roll(system, policy, starts, horizon, seed, first, choose)


def rollout_with_jacobians(
    system: System,
    policy: nn.Module,
    starts: Starts,
    horizon: int,
    seed: int = 0,
    first: int = 0,
    traces: list[Trace] | None = None,
) -> tuple[Path, Tensor]:
    """The same path with K = ∂π/∂s [H + 1, N, da, ds], from the forward passes that made it.

    Args:
        traces: filled with each step's trace, which holds the factors of ∂π/∂θ, where given.
    """
    jacobians: list[Tensor] = []

    def choose(state: Tensor, noise: Tensor) -> Tensor:
        found = trace(policy, state, noise)
        jacobians.append(found.K)
        if traces is not None:
            traces.append(found)
        return found.action

    path = _roll(system, policy, starts, horizon, seed, first, choose)
    return path, torch.stack(jacobians)


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
    found = [trace(policy, path.states[t], path.policy_noise[t]) for t in range(horizon + 1)]
    if traces is not None:
        traces.extend(found)
    return path, torch.stack([each.K for each in found])


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
    if gap > ROUNDING * action.abs().max().clamp_min(1.0):
        raise InputError(
            f"recorded actions differ from the deterministic policy's by up to {float(gap):.2g}, "
            f"so no noise can be inferred: wrap it, gradlab.networks.policies.Gaussian(policy, std)"
        )
    return state.new_zeros(len(state), 0)


def _roll(
    system: System,
    policy: nn.Module,
    starts: Starts,
    horizon: int,
    seed: int,
    first: int,
    choose: Callable[[Tensor, Tensor], Tensor],
) -> Path:
    n, like = starts.states.shape[0], starts.states
    last = first + horizon
    policy_noise = [starts.policy_noise(policy, seed, t) for t in range(first, last + 1)]
    noise = [starts.dynamics_noise(system, seed, t) for t in range(first, last)]
    states, actions, rewards = [like], [], []
    alive = [torch.ones(n, dtype=torch.bool, device=like.device)]
    for t in range(horizon):
        actions.append(choose(states[t], policy_noise[t]))
        with torch.no_grad():
            out = system.step(states[t], actions[t], noise[t])
        states.append(out.state)
        rewards.append(out.reward)
        alive.append(alive[t] & out.alive)
    actions.append(choose(states[horizon], policy_noise[horizon]))
    return Path(
        states=torch.stack(states),
        actions=torch.stack(actions),
        rewards=torch.stack(rewards) if rewards else like.new_empty(0, n),
        policy_noise=torch.stack(policy_noise),
        dynamics_noise=torch.stack(noise) if noise else like.new_empty(0, n, system.noise_dim),
        alive=torch.stack(alive),
        weight=starts.weight,
        group=starts.group,
    )


def policy_noise_at(policy: nn.Module, n: int, seed: int, step: int, like: Tensor) -> Tensor:
    """The policy's standard normal draws of one step, [n, noise_dim], in the dtype of `like`."""
    generator = stream(seed, "policy", step)
    return standard_normal(n, noise_dim(policy), generator).to(like)


def noise_mode(states: System, jacobians: System | None) -> str:
    """At which dynamics noise `jacobians` is differentiated along paths of `states`.

    "own": the path's, where one system makes both; "inferred" from each transition; "mean", at
    zero noise, where it cannot be inferred; "none" where there is nothing to know.
    """
    if jacobians is None or jacobians.noise_dim == 0:
        return "none"
    if jacobians is states:
        return "own"
    return "inferred" if hasattr(jacobians, "infer_noise") else "mean"


def jacobian_noise(states: System, jacobians: System, path: Path) -> Tensor | None:
    """Noise [H, N, dn] at which `jacobians` is differentiated (see `noise_mode`)."""
    if jacobians is states:
        return path.dynamics_noise
    mode = noise_mode(states, jacobians)
    if mode == "mean" and isinstance(states, Recorded):
        raise InputError(
            "jacobians is a noisy model without infer_noise, so the noise of recorded transitions "
            "cannot be inferred: give it infer_noise(state, action, next_state)"
        )
    if mode != "inferred":
        return None
    s, s_next = path.states[:-1].flatten(0, 1), path.states[1:].flatten(0, 1)
    infer = getattr(jacobians, "infer_noise")  # noqa: B009 - not in the protocol: few have it
    inferred: Tensor = infer(s, path.actions[:-1].flatten(0, 1), s_next)
    return inferred.reshape(*path.actions[:-1].shape[:2], jacobians.noise_dim)


def linearize_path(
    path: Path, jacobians: System, K: Tensor, noise: Tensor | None
) -> LinearizedPath:
    """Jacobians of `jacobians` at every step of the path, K = ∂π/∂s along it beside them."""
    h, n, ds = path.states.shape[0] - 1, path.states.shape[1], path.states.shape[2]
    da = path.actions.shape[2]
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    xi = None if noise is None else noise.flatten(0, 1)
    blocks = [
        jacobians.linearize(s[rows], a[rows], None if xi is None else xi[rows])
        for rows in row_blocks(h * n)
    ]
    new = path.states.new_zeros

    def gather(parts: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        return torch.cat(parts).reshape(h, n, *shape) if parts else new(0, n, *shape)

    flags = [block.certificate.flags for block in blocks]
    return LinearizedPath(
        path=path,
        A=gather([block.A for block in blocks], (ds, ds)),
        B=gather([block.B for block in blocks], (ds, da)),
        r_s=gather([block.r_s for block in blocks], (ds,)),
        r_a=gather([block.r_a for block in blocks], (da,)),
        K=K,
        flags=torch.cat(flags).reshape(h, n) if flags else new(0, n).bool(),
    )


def policy_jacobians(path: Path, policy: nn.Module) -> Tensor:
    """K = ∂π/∂s at every state of a path that was made elsewhere, [H + 1, N, da, ds]."""
    h1, n, ds = path.states.shape
    s, e = path.states.flatten(0, 1), path.policy_noise.flatten(0, 1)

    def block(rows: slice) -> Tensor:
        return trace(policy, s[rows], e[rows]).K

    return _mapped(block, h1 * n).reshape(h1, n, -1, ds)


def tail_gradient(path: Path, critic: nn.Module | None, value: str) -> TailGradient:
    """Gradients of the critic at every state and action of the path; zero without a critic."""
    if critic is None:
        return TailGradient(torch.zeros_like(path.states), torch.zeros_like(path.actions))
    s, a = path.states.flatten(0, 1), path.actions.flatten(0, 1)
    ds = s.shape[1]

    def block(rows: slice) -> Tensor:
        leaf_s, leaf_a = s[rows].detach().requires_grad_(), a[rows].detach().requires_grad_()
        q = critic(leaf_s) if value == "V" else critic(leaf_s, leaf_a)
        grads = torch.autograd.grad(q.sum(), (leaf_s, leaf_a), allow_unused=True)
        pairs = zip(grads, (leaf_s, leaf_a), strict=True)
        return torch.cat([torch.zeros_like(x) if g is None else g for g, x in pairs], dim=1)

    both = _mapped(block, len(s))
    q_s, q_a = both[:, :ds], both[:, ds:]
    return TailGradient(q_s.reshape(path.states.shape), q_a.reshape(path.actions.shape))


def row_blocks(total: int) -> Iterator[slice]:
    """Slices of at most `ROWS` rows that cover `total`."""
    return (slice(begin, min(begin + ROWS, total)) for begin in range(0, total, ROWS))


def _mapped(function: Callable[[slice], Tensor], total: int) -> Tensor:
    with torch.enable_grad():
        return torch.cat([function(rows).detach() for rows in row_blocks(total)])
