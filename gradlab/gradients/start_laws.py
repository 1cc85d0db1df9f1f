"""States that a policy visits: as the starts of a gradient, and with the Jacobians there.

Laws of starts are ζ, the discounted visitation ν, and mixtures of them.

    ζ           the task's own starts
    ν           (1 − γ) Σ_t γᵗ P(s_t = ·) = law of s_T,  T ~ Geometric(1 − γ)     (RP-PGM eq. 2.3)
    μ           β ν + (1 − β) ζ                                               (RP-PGM Remark 5.9)

Each start takes its T with probability β and 0 otherwise, independently: strata would bias |mean|²
by O(variance between the laws / n). Draws belong to streams of their own (seed, name).

Visited Jacobians are those of the simulator and of a model at every state and action of
one path, as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.trajectories import Path, stream
from gradlab.errors import InputError
from gradlab.gradients.estimator import TERMINATIONS
from gradlab.gradients.rollout import geometric_times, jacobian_noise, row_blocks, states_at
from gradlab.gradients.setting import Setting, Starts, as_starts
from gradlab.networks.interface import check_policy, double_copy
from gradlab.progress import Progress
from gradlab.systems.system import BLOCKS, System, linearize_running, step_running, whole
from gradlab.tasks import Task
from gradlab.user_code import differentiating

_FEWEST = 4  # groups that a jackknife needs


def initial(task: Task, n: int, seed: int = 0) -> Path:
    """n independent starts of the task, ζ: those that `measure(task, …, starts=n)` takes."""
    _check_count("n", n)
    states = task.starts(n, stream(seed, "starts"))
    return _as_path(as_starts(states, task.simulator.state_dim))


@differentiating
def visitation(
    task: Task,
    policy: nn.Module,
    n: int,
    seed: int = 0,
    per_trajectory: int = 1,
    termination: str = "ignore",
) -> Path:
    """n states from ν under the policy on the simulator; arguments as in `mixture`."""
    return mixture(task, policy, n, 1.0, seed, per_trajectory, termination)


@differentiating
def mixture(
    task: Task,
    policy: nn.Module,
    n: int,
    beta: float,
    seed: int = 0,
    per_trajectory: int = 1,
    termination: str = "ignore",
) -> Path:
    """n states from μ = β ν + (1 − β) ζ; a larger β changes only the starts that it moves to ν.

    Args:
        per_trajectory: states taken from one trajectory, at independent T; they share a group.
            n is a multiple of it. Fewer trajectories are simulated, each state still follows μ.
        termination: "ignore" simulates on; "mask" gives weight 0 to states at or past a terminal
            one, so that weighted means are those of the trajectories that are alive.

    Raises:
        InputError: an argument out of its range, or states that leave the finite numbers.
    """
    _check_count("n", n)
    _check_count("per_trajectory", per_trajectory)
    if n % per_trajectory:
        raise InputError(f"n is {n}, expected a multiple of per_trajectory, {per_trajectory}")
    if not 0 <= beta <= 1:
        raise InputError(f"beta is {beta!r}, expected a number from 0 to 1")
    if termination not in TERMINATIONS:
        raise InputError(f"termination is {termination!r}, expected one of {TERMINATIONS}")
    visiting = stream(seed, "visitation").initial_seed()
    when = geometric_times(task.discount, (n,), visiting)
    chosen = torch.rand(n, generator=stream(visiting, "choice"), dtype=torch.float64) < beta
    when = torch.where(chosen, when, 0).reshape(-1, per_trajectory)
    drawn = task.starts(len(when), stream(seed, "starts")).double()
    begin = as_starts(drawn, task.simulator.state_dim)
    policy = double_copy("policy", policy)
    check_policy(policy, drawn, task.simulator.action_dim)
    mask = termination == "mask"
    states, alive = states_at(task.simulator, policy, begin, when, visiting, mask)
    _check_finite(states)
    weight = alive.double() if mask else torch.ones(n, dtype=torch.float64)
    group = torch.arange(len(when)).repeat_interleave(per_trajectory)
    return _as_path(Starts(states, weight, group))


def visits(setting: Setting, samples: int) -> Starts:
    """States that the policy visits from given starts, as many per start, in its start's group.

    Their times follow P(t) ∝ γᵗ, t < T, spread over its quantiles within a start (systematic
    sampling); each has the weight Σ_{t<T} γᵗ of its start, so that from starts of law ζ

        E[Σ of weight · f(s) over a start's samples / samples] = Σ_{t<T} γᵗ E_ζ[f(s_t)],

    which tends to E_ν[f] / (1 − γ). Under termination "mask" states past an end weigh 0.

    Args:
        setting: with its horizon T ≥ 1.

    Raises:
        InputError: the states leave the finite numbers.
    """
    starts, discount, horizon = setting.starts, setting.discount, setting.horizon
    visiting, n = stream(setting.seed, "visitation").initial_seed(), len(starts.states)
    total = (1 - discount**horizon) / (1 - discount)
    shift = torch.rand(n, 1, generator=stream(visiting, "time"), dtype=torch.float64)
    quantile = (torch.arange(samples) + shift) / samples
    when = torch.log1p(-quantile * (1 - discount**horizon)) / math.log(discount)
    when = when.floor().long().clamp_max(horizon - 1)
    mask = setting.termination == "mask"
    fresh = as_starts(starts.states, setting.simulator.state_dim)
    states, alive = states_at(setting.simulator, setting.policy, fresh, when, visiting, mask)
    _check_finite(states)
    weight = total * starts.weight.repeat_interleave(samples)
    weight = torch.where(alive, weight, 0.0) if mask else weight
    group = starts.group.repeat_interleave(samples)
    return Starts(states, weight, group)


def alive_counts(at: Starts) -> tuple[int, int, int]:
    """States that weigh anything, groups that have such a state, and all groups."""
    alive = at.weight != 0
    every, some = (len(torch.unique(group)) for group in (at.group, at.group[alive]))
    return int(alive.sum()), some, every


def check_alive(at: Starts) -> None:
    """
    Raises:
        InputError: fewer groups than a jackknife needs have a state that weighs anything.
    """
    alive, some, every = alive_counts(at)
    if some < _FEWEST:
        raise InputError(
            f"{alive} of {len(at.states)} visited states are alive, in {some} of {every} groups of "
            f"starts, expected {_FEWEST} or more: the episodes end at once; take more starts, "
            f"termination='ignore', law='start', or a policy whose episodes last"
        )


def repeated(starts: Tensor | Path, samples: int) -> Path:
    """Each start `samples` times, in one group: several samples per start (MAAC, section 3).

    The copies stand together, and each draws its own policy and dynamics noise.
    """
    _check_count("samples", samples)
    width = starts.states.shape[-1] if isinstance(starts, Path) else starts.shape[-1]
    once = as_starts(starts, width)
    states, weight, group = (
        x.repeat_interleave(samples, dim=0) for x in (once.states, once.weight, once.group)
    )
    return _as_path(Starts(states, weight, group))


def _as_path(starts: Starts) -> Path:
    """A path of horizon 0 without actions: states, weights and groups of starts."""
    n, new = len(starts.states), starts.states.new_empty
    return Path(
        states=starts.states[None],
        actions=new(1, n, 0),
        rewards=new(0, n),
        policy_noise=new(1, n, 0),
        dynamics_noise=new(0, n, 0),
        alive=torch.ones(1, n, dtype=torch.bool, device=starts.states.device),
        weight=starts.weight,
        group=starts.group,
    )


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, expected an integer ≥ 1")


def _check_finite(states: Tensor) -> None:
    finite = torch.isfinite(states).all(dim=1)
    if not finite.all():
        raise InputError(
            f"the policy drives the simulator out of the finite numbers before "
            f"{int((~finite).sum())} of {len(finite)} starts are reached: use one that stays"
        )


Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Jacobians along a path and their certificate.

    Attributes:
        J: [H, N, ds + 1, ds + da], rows s' and r, columns s and a.
        flags: [H, N], samples whose Jacobian failed its certificate.
        finite: [H, N], samples whose Jacobian is finite.
        errors: estimated relative error per block, each [H, N].
        step: of the finite differences, [H, N], or None for exact derivatives.
    """

    J: Array
    flags: Flags
    finite: Flags
    errors: Mapping[str, Array]
    step: Array | None

    @property
    def usable(self) -> Flags:
        return ~self.flags & self.finite


@dataclass(frozen=True, eq=False)
class Visited:
    """A path, the simulator's Jacobians along it, and a model's where there is one.

    Attributes:
        states [H + 1, N, ds], actions [H, N, da], rewards [H, N], alive [H + 1, N], group [N].
        K: ∂π/∂s, [H, N, da, ds].
        true, guess: the simulator's and the model's blocks.
        predicted: the model's mean next state and reward, [H, N, ds + 1].
    """

    states: Array
    actions: Array
    rewards: Array
    alive: Flags
    group: NDArray[np.int64]
    K: Array
    true: Blocks
    guess: Blocks | None = None
    predicted: Array | None = None

    @property
    def kept(self) -> Flags:
        """[H, N], the samples that are compared."""
        return self.true.usable if self.guess is None else self.true.usable & self.guess.usable

    @property
    def wrong(self) -> Array:
        """ΔJ, the model's Jacobian less the simulator's; 0 where masked."""
        assert self.guess is not None
        with np.errstate(invalid="ignore"):
            difference = self.guess.J - self.true.J
        return np.where(self.kept[..., None, None], difference, 0.0)

    @property
    def spread(self) -> tuple[Array, Array]:
        """Standard deviations along the path: of rows (s', r) [ds + 1], columns (s, a) [ds + da].

        What does not vary, or is masked altogether, has the scale 1.
        """
        if not self.kept.any():
            ds, da = self.states.shape[2], self.actions.shape[2]
            return np.ones(ds + 1), np.ones(ds + da)
        s, a, r = self.states[:-1][self.kept], self.actions[self.kept], self.rewards[self.kept]
        with np.errstate(over="ignore", invalid="ignore"):
            rows = np.concatenate([s.std(0), r.std(0, keepdims=True)])
            columns = np.concatenate([s.std(0), a.std(0)])
        return np.where(rows > 0, rows, 1.0), np.where(columns > 0, columns, 1.0)


def visit(
    simulator: System, model: System | None, path: Path, K: Tensor, progress: Progress
) -> Visited:
    """Differentiate both along the path."""
    visited = Visited(
        states=path.states.numpy(),
        actions=path.actions[:-1].numpy(),
        rewards=path.rewards.numpy(),
        alive=path.alive.numpy(),
        group=path.group.numpy(),
        K=K[:-1].detach().numpy(),
        true=blocks(simulator, path, path.dynamics_noise, progress, "simulator"),
    )
    if model is None:
        return visited
    guess = blocks(model, path, jacobian_noise(simulator, model, path), progress, "model")
    H, n = path.rewards.shape
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    with torch.no_grad():
        out = step_running(model, s, a, None)
    predicted = torch.cat([out.state, out.reward[:, None]], 1).reshape(H, n, -1)
    return replace(visited, guess=guess, predicted=predicted.numpy())


def blocks(
    system: System, path: Path, noise: Tensor | None, progress: Progress, stage: str
) -> Blocks:
    """Jacobians of one system at every step of the path, in blocks of rows."""
    H, n = path.rewards.shape
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    xi = None if noise is None else noise.flatten(0, 1)
    linear = []
    for rows in row_blocks(H * n):
        given = None if xi is None else xi[rows]
        linear.append(linearize_running(system, s[rows], a[rows], given))
        progress(f"Jacobians of the {stage}", rows.stop, H * n)

    def joined(parts: list[Tensor]) -> Any:
        together = torch.cat(parts).detach().cpu().numpy()
        return together.reshape(H, n, *together.shape[1:])

    J = joined([whole(x) for x in linear])
    steps = [x.certificate.step for x in linear if x.certificate.step is not None]
    return Blocks(
        J=J,
        flags=joined([x.certificate.flags for x in linear]),
        finite=np.isfinite(J).all((2, 3)),
        errors={name: joined([x.certificate.error[name] for x in linear]) for name in BLOCKS},
        step=joined(steps) if steps else None,
    )


def jacobian_squares(visited: Visited) -> dict[str, tuple[Array, Array]]:
    """Block → squared norms of its error and of itself, each [H, N]."""
    ds = visited.states.shape[2]
    true, wrong = visited.true.J, visited.wrong
    s, r = slice(0, ds), slice(ds, None)
    parts = {"A": (s, s), "B": (s, r), "r_s": (r, s), "r_a": (r, r)}
    return {
        block: (_square(wrong[..., i, j]), _square(true[..., i, j]))
        for block, (i, j) in parts.items()
    }


def _square(X: Array) -> Array:
    return np.asarray((X**2).sum((2, 3)))
