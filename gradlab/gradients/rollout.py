"""Paths and their Jacobians: everything that the sweeps read.

    a_t = π_θ(s_t, ε_t),   s_{t+1} = f(s_t, a_t, ξ_t)
    A, B, r_s, r_a  of the system that is differentiated,   K = ∂π/∂s

The rollout runs without gradients; Jacobians are taken afterwards for all steps at once, in blocks
of rows, so that memory stays bounded whatever the horizon.

One sweep along a path for every horizon: of sensitivities forwards, or of costates backwards.

θ in the first action, later actions from π_old (MPG eq. 6):

    D_1 = B_0,  D_{t+1} = M_t D_t,  M = A + B K
    g_0 = Q_a(s_0)
    g_n = r_a(0) + Σ_{t=1}^{n−1} γᵗ D_tᵀ c_t + γⁿ D_nᵀ q_n,   c = r_s + Kᵀ r_a,  q = Q_s + Kᵀ Q_a

The sweep is da columns wide, so a whole profile costs about one rollout instead of H of them.
θ in every action (MPG eq. 5, with its tail term), horizons as a leading axis:

    λⁿ_n = Q_a(s_n),               pⁿ_n = q_n
    λⁿ_t = r_a + γ B_tᵀ pⁿ_{t+1},  pⁿ_t = c_t + γ M_tᵀ pⁿ_{t+1}     (t < n)
    full_n = Σ_{t=0}^{n} γᵗ J_θπ(s_t)ᵀ λⁿ_t
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data import trajectories
from gradlab.data.trajectories import Path, Trajectories, stream
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import PolicyJacobian, Trace, trace
from gradlab.gradients.setting import Setting, Starts, as_starts
from gradlab.networks.interface import act, check_policy, noise_dim
from gradlab.networks.mlp import judge
from gradlab.networks.policies import check_stochastic
from gradlab.systems.system import (
    Recorded,
    System,
    Transition,
    linearize_running,
    lost_step,
    step_running,
)
from gradlab.tasks.task import OTHER_BOUNDS

ROWS = 2048  # rows linearized at once


@dataclass(frozen=True)
class Trajectory:
    """A path with A [H, N, ds, ds], B [H, N, ds, da], r_s [H, N, ds], r_a [H, N, da],
    K [H + 1, N, da, ds] and the certificate's flags [H, N].

    `jacobians` makes J = ∂π/∂θ at its states, samples (t, i), which is made once.
    """

    path: Path
    A: Tensor
    B: Tensor
    r_s: Tensor
    r_a: Tensor
    K: Tensor
    flags: Tensor
    jacobians: Callable[[], PolicyJacobian] | None = field(default=None, repr=False)

    @cached_property
    def jacobian(self) -> PolicyJacobian:
        """∂π/∂θ at every step."""
        assert self.jacobians is not None
        return self.jacobians()

    def cut(self, steps: int) -> Trajectory:
        """The first steps."""
        blocks = {name: getattr(self, name)[:steps] for name in _BLOCKS}
        return Trajectory(self.path.cut(steps), **blocks, K=self.K[: steps + 1])

    def rows(self, rows: slice) -> Trajectory:
        """From some of the starts."""
        blocks = {name: getattr(self, name)[:, rows] for name in (*_BLOCKS, "K")}
        return Trajectory(self.path.rows(rows), **blocks)

    def followed_by(self, rest: Trajectory) -> Trajectory:
        """With the path that begins where this one ends: H steps have H + 1 states."""
        ours, theirs = self.path, rest.path
        once = dict.fromkeys(("weight", "group"), 0)
        ends = once | dict.fromkeys(("states", "actions", "policy_noise", "alive"), 1)
        path = {
            name: x if name in once else torch.cat([x[: len(x) - ends.get(name, 0)], y])
            for (name, x), y in zip(vars(ours).items(), vars(theirs).values(), strict=True)
        }
        A, B, r_s, r_a, flags = (
            torch.cat([getattr(self, name), getattr(rest, name)]) for name in _BLOCKS
        )
        return Trajectory(Path(**path), A, B, r_s, r_a, torch.cat([self.K[:-1], rest.K]), flags)


_BLOCKS = ("A", "B", "r_s", "r_a", "flags")


@dataclass(frozen=True)
class TailGradient:
    """q_s = ∂Q/∂s [H + 1, N, ds] and q_a = ∂Q/∂a [H + 1, N, da] of the critic along a path."""

    q_s: Tensor
    q_a: Tensor


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
        traced = trace(policy, state, noise)
        jacobians.append(traced.K)
        if traces is not None:
            traces.append(traced)
        return traced.action

    path = _roll(system, policy, starts, horizon, seed, first, choose)
    return path, torch.stack(jacobians)


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
    states, actions, rewards, policy_noise, noise = [like], [], [], [], []
    alive = [torch.ones(n, dtype=torch.bool, device=like.device)]
    steps = follow(system, policy, starts, seed, first, choose)
    for action, e, xi, out in islice(steps, horizon):
        actions.append(action)
        policy_noise.append(e)
        noise.append(xi)
        states.append(out.state)
        rewards.append(out.reward)
        alive.append(alive[-1] & out.alive)
    policy_noise.append(starts.policy_noise(policy, seed, first + horizon))
    actions.append(choose(states[-1], policy_noise[-1]))
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


def follow(
    system: System,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    first: int,
    choose: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[tuple[Tensor, Tensor, Tensor, Transition]]:
    """Action, policy noise, dynamics noise and what follows of every step, without end.

    Args:
        first: number of the first step; choose: the action at states and policy noise.
    """
    state = starts.states
    for t in count(first):
        e, xi = starts.policy_noise(policy, seed, t), starts.dynamics_noise(system, seed, t)
        action = choose(state, e)
        with torch.no_grad():
            out = step_running(system, state, action, xi)
        yield action, e, xi, out
        state = out.state


@torch.no_grad()
def states_at(
    system: System, policy: nn.Module, starts: Starts, when: Tensor, seed: int, mask: bool
) -> tuple[Tensor, Tensor]:
    """States [n · k, ds] at the times `when` [n, k] of paths from n starts, and which are alive.

    Paths are simulated only as long as they are needed, on noise drawn for all of them.

    Args:
        mask: stop at ends.
    """
    n, k = when.shape
    state, alive = starts.states.clone(), torch.ones(n, dtype=torch.bool)
    states, still = state[:, None].repeat(1, k, 1), torch.ones(n, k, dtype=torch.bool)
    last = when.amax(dim=1)
    for t in range(int(last.max())):
        running = ((last > t) & (alive | (not mask))).nonzero()[:, 0]
        e, xi = starts.policy_noise(policy, seed, t), starts.dynamics_noise(system, seed, t)
        for block in row_blocks(len(running)):
            rows = running[block]
            out = step_running(system, state[rows], act(policy, state[rows], e[rows]), xi[rows])
            state[rows], alive[rows] = out.state, alive[rows] & out.alive
        which, sample = (when == t + 1).nonzero(as_tuple=True)
        states[which, sample], still[which, sample] = state[which], alive[which]
    return states.flatten(0, 1), still.flatten()


def geometric_times(discount: float, shape: tuple[int, ...], seed: int) -> Tensor:
    """T ~ Geometric(1 − γ), P(T ≥ t) = γᵗ."""
    uniform = torch.rand(shape, generator=stream(seed, "time"), dtype=torch.float64)
    return (torch.log1p(-uniform) / math.log(discount)).floor().long()


_SMALL = 1e30  # |state| up to which a step that is not finite is lost by itself, not by overflow


@torch.no_grad()
def check_rollouts(setting: Setting, steps: int) -> None:
    """Refuse a simulator that leaves the finite numbers within `steps` steps from some start.

    Beyond the horizon it may overflow, or end a simulation that diverges: the truth is cut there.

    Raises:
        InputError: names step, start, state and action; of a return that overflows step and starts.
    """
    simulator, starts, state = setting.simulator, setting.starts, setting.starts.states
    counted, total = starts.weight != 0, torch.zeros_like(starts.weight)

    def choose(state: Tensor, noise: Tensor) -> Tensor:
        return act(setting.policy, state, noise)

    followed = follow(simulator, setting.policy, starts, setting.seed, 0, choose)
    for t, (action, _, _, after) in enumerate(islice(followed, steps)):
        within, there = t < setting.horizon, torch.isfinite(after.state).all(dim=1)
        ended = ~(there | after.alive) & (torch.isfinite(after.reward) | (not within))
        seen = counted & ~(ended & (not within or setting.termination == "mask"))
        rows = (seen & (state.abs().amax(dim=1) <= _SMALL)).nonzero()[:, 0]
        out = Transition(*(x[rows] for x in after))
        if (lost := lost_step(state[rows], action[rows], out)) is not None:
            start = int(starts.group[rows[lost[0]]])
            raise InputError(
                f"the simulator fails in step {t} from start {start}: {lost[1]}; make it finite "
                f"there. {OTHER_BOUNDS}"
            )
        total += torch.where(seen, setting.discount**t * after.reward, 0.0)
        over = (seen & ~(there & torch.isfinite(total))).nonzero()[:, 0]
        if within and len(over):
            largest = float(state[over].abs().max())
            raise InputError(
                f"the return overflows in step {t}, from {len(over)} of {len(seen)} starts (first: "
                f"start {int(starts.group[over[0]])}), after finite steps; states are up to "
                f"{largest:.2g}: shorten the horizon, scale the rewards, or use a policy that "
                f"keeps the states bounded"
            )
        state = after.state
        counted = counted & (after.alive | (setting.termination == "ignore"))


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
    path: Path,
    jacobians: System,
    K: Tensor,
    noise: Tensor | None,
    termination: str = "ignore",
) -> Trajectory:
    """Jacobians of `jacobians` at every step of the path, K = ∂π/∂s along it beside them.

    Under termination "mask" everything is 0 from the first terminal state on, whatever the system
    does there, so that neither rewards nor sensitivities reach beyond it.
    """
    h, n, ds = path.states.shape[0] - 1, path.states.shape[1], path.states.shape[2]
    da = path.actions.shape[2]
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    xi = None if noise is None else noise.flatten(0, 1)
    blocks = [
        linearize_running(jacobians, s[rows], a[rows], None if xi is None else xi[rows])
        for rows in row_blocks(h * n)
    ]
    new = path.states.new_zeros

    def gather(parts: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        return torch.cat(parts).reshape(h, n, *shape) if parts else new(0, n, *shape)

    flags = [block.certificate.flags for block in blocks]
    linear = Trajectory(
        path=path,
        A=gather([block.A for block in blocks], (ds, ds)),
        B=gather([block.B for block in blocks], (ds, da)),
        r_s=gather([block.r_s for block in blocks], (ds,)),
        r_a=gather([block.r_a for block in blocks], (da,)),
        K=K,
        flags=torch.cat(flags).reshape(h, n) if flags else new(0, n).bool(),
    )
    return _masked(linear) if termination == "mask" else linear


def _masked(linear: Trajectory) -> Trajectory:
    alive = linear.path.alive

    def kept(x: Tensor) -> Tensor:
        here = alive[: len(x)].reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        return torch.where(here, x, 0.0)

    A, B, r_s, r_a, K = map(kept, (linear.A, linear.B, linear.r_s, linear.r_a, linear.K))
    return Trajectory(linear.path, A, B, r_s, r_a, K, linear.flags & alive[:-1])


def tail_gradient(
    path: Path, critic: nn.Module | None, value: str, termination: str = "ignore"
) -> TailGradient:
    """Gradients of the critic at every state and action of the path; zero without a critic."""
    if critic is None:
        return TailGradient(torch.zeros_like(path.states), torch.zeros_like(path.actions))
    s, a = path.states.flatten(0, 1), path.actions.flatten(0, 1)
    ds = s.shape[1]

    def block(rows: slice) -> Tensor:
        leaf_s, leaf_a = s[rows].detach().requires_grad_(), a[rows].detach().requires_grad_()
        q = judge(critic, value, leaf_s, leaf_a)
        if not q.requires_grad:  # a constant
            return torch.zeros_like(torch.cat([leaf_s, leaf_a], dim=1))
        grads = torch.autograd.grad(q.sum(), (leaf_s, leaf_a), allow_unused=True)
        pairs = zip(grads, (leaf_s, leaf_a), strict=True)
        return torch.cat([torch.zeros_like(x) if g is None else g for g, x in pairs], dim=1)

    with torch.enable_grad():
        both = torch.cat([block(rows).detach() for rows in row_blocks(len(s))])
    if termination == "mask":
        both = torch.where(path.alive.flatten()[:, None], both, 0.0)
    q_s, q_a = both[:, :ds], both[:, ds:]
    return TailGradient(q_s.reshape(path.states.shape), q_a.reshape(path.actions.shape))


def row_blocks(total: int) -> Iterator[slice]:
    """Slices of at most `ROWS` rows that cover `total`."""
    return (slice(begin, min(begin + ROWS, total)) for begin in range(0, total, ROWS))


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


def sensitivities(linear: Trajectory, before: Tensor | None = None) -> Tensor:
    """D_1 … D_H = ∂s_t/∂a_0, [H, N, ds, da].

    Args:
        before: D at the first state of the path, where the path continues an earlier one.
    """
    K = linear.K
    D = linear.B[0] if before is None else (linear.A[0] + linear.B[0] @ K[0]) @ before
    swept = [D]
    for t in range(1, linear.path.horizon):
        D = linear.A[t] @ D + linear.B[t] @ (K[t] @ D)
        swept.append(D)
    return torch.stack(swept)


def closed_loop_reward_gradient(linear: Trajectory) -> Tensor:
    """c_t = r_s + Kᵀ r_a for t = 0 … H − 1, [H, N, ds]."""
    h = linear.path.horizon
    return linear.r_s + torch.einsum("hnas,hna->hns", linear.K[:h], linear.r_a)


def action_gradients(linear: Trajectory, tail: TailGradient, discount: float) -> Tensor:
    """g_n for n = 0 … H, [H + 1, N, da], in reward units per action unit."""
    q, q_a = tail.q_s + torch.einsum("hnas,hna->hns", linear.K, tail.q_a), tail.q_a[:1]
    h = linear.path.horizon
    if h == 0:
        return q_a
    D = sensitivities(linear)
    weight = (discount ** torch.arange(h + 1, dtype=D.dtype, device=D.device))[:, None, None]
    c = closed_loop_reward_gradient(linear)
    later = weight[1:h] * torch.einsum("hnsa,hns->hna", D[: h - 1], c[1:])
    returns = torch.cat([linear.r_a[:1], later]).cumsum(dim=0)
    tails = weight[1:] * torch.einsum("hnsa,hns->hna", D, q[1:])
    return torch.cat([q_a, returns + tails])


def discounted_costates(
    linear: Trajectory,
    tail: TailGradient,
    discount: float,
    horizons: tuple[int, ...],
    terminal_action: str = "attached",
) -> Tensor:
    """γᵗ λⁿ_t for n in `horizons`, t = 0 … H: [len(horizons), H + 1, N, da], 0 for t > n."""
    path = linear.path
    h, (n, ds), da = path.horizon, path.states.shape[1:], path.actions.shape[2]
    q = tail.q_s + torch.einsum("hnas,hna->hns", linear.K, tail.q_a)
    c = closed_loop_reward_gradient(linear)
    new = path.states.new_zeros
    costates, p = new(len(horizons), h + 1, n, da), new(len(horizons), n, ds)
    attached = 1.0 if terminal_action == "attached" else 0.0
    for t in reversed(range(h + 1)):
        ends = [k for k, horizon in enumerate(horizons) if horizon == t]
        inside = [k for k, horizon in enumerate(horizons) if horizon > t]
        if inside:
            ahead = discount * p[inside]
            back = torch.einsum("nsa,kns->kna", linear.B[t], ahead)
            costates[inside, t] = linear.r_a[t] + back
            closed = linear.A[t] + linear.B[t] @ linear.K[t]
            p[inside] = c[t] + torch.einsum("nij,kni->knj", closed, ahead)
        if ends:
            costates[ends, t] = attached * tail.q_a[t]
            p[ends] = q[t]
    gamma = discount ** torch.arange(h + 1, dtype=p.dtype, device=p.device)
    return costates * gamma[:, None, None]
