"""What became of a policy that followed a gradient: own updates, own paired returns.

    direction    the mean gradient of fresh samples: at visited states where θ is in the first
                 action, from fresh starts where it is in all of them
    one update   θ + η g/|g|, η moving the first actions by 4% along the recommended direction (the
                 critic's where none is), and the same for all
    many         Adam at the rate that the measurement names, else 3e-4, or the one whose first step
                 moves the first actions by 4% (rms over rms), if less; a fresh batch for each
    return       Σ_{t<T} γᵗ r_t of fresh starts, policies on the same noise; T and the number of
                 starts are the world's. Starts double until the 95% interval of the mean difference
                 leaves 0, at most to the world's limit

Of gradlab only the estimators' gradients are used here: neither its steps nor its returns.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor, nn

from analyses.advice.worlds import Cell
from gradlab.data.trajectories import child, stream
from gradlab.fitting import fit_critic
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Tail, as_starts
from gradlab.gradients.start_laws import initial, visitation
from gradlab.gradients.trajectory import TermRequest
from gradlab.gradients.weighted_terms import costate_terms
from gradlab.networks.interface import act, double_copy, flat_parameters, noise_dim
from gradlab.systems.system import System

MOVE, RATE = 0.04, 3e-4
REFIT = 25  # updates between two fits of the critic
HORIZONS = (0, 1, 2, 4, 8, 16, 25)  # of what is compared in hindsight
PER_TRAJECTORY = 8  # visited states
Candidate = tuple[str, int]  # estimator, horizon


@dataclass(frozen=True)
class Change:
    """Mean paired difference of returns with its 95% interval, and how many starts it took."""

    mean: float
    low: float
    high: float
    starts: int

    @property
    def decided(self) -> bool:
        return self.low > 0 or self.high < 0

    def row(self) -> list[float]:
        return [self.mean, self.low, self.high, self.starts]


def directions(
    cell: Cell,
    policy: nn.Module,
    critic: nn.Module,
    name: str,
    horizons: Sequence[int],
    samples: int,
    seed: int,
) -> dict[Candidate, Tensor]:
    """The mean gradient of fresh samples at some horizons, [P] each."""
    task, world = cell.task, cell.world
    # Whose states and whose derivatives, by the names that a measurement has by default.
    simulator, prior = cell.task.simulator, cell.task.prior
    found: dict[str, tuple[System, System | None]] = {"data": (simulator, None)}
    if prior is not None:
        found |= {"model": (prior, prior), "mixed": (simulator, prior)}
    states, jacobians = (found | {"true_dynamics": (simulator, simulator)})[
        name.removesuffix("_all")
    ]
    every = name.endswith("_all")
    if every:
        begin = as_starts(initial(task, samples, seed), task.simulator.state_dim)
    else:
        at = visitation(task, policy, samples, seed, PER_TRAJECTORY, world.termination)
        begin = as_starts(at, task.simulator.state_dim)
    tail = Tail(max(horizons), double_copy("critic", critic), task.discount)
    estimator = Estimator(states, jacobians, "all" if every else "first", tail)
    terms = costate_terms(
        estimator, TermRequest(policy, begin, tuple(horizons), seed, world.termination)
    )
    means = terms.sums() / terms.costates.shape[2]
    return {(name, h): g for h, g in zip(horizons, means, strict=True)}


def moved(policy: nn.Module, theta: Tensor) -> nn.Module:
    """A copy of the policy at θ [P]."""
    other = copy.deepcopy(policy)
    nn.utils.vector_to_parameters(theta, other.parameters())
    return other


def length_of(cell: Cell, step: Tensor) -> float:
    """By what a step [P] is multiplied to move the first actions by 4%."""
    policy, theta = cell.policy, flat_parameters(cell.policy)
    state = cell.task.starts(256, stream(cell.seed, "advice move"))
    noise = torch.zeros(len(state), noise_dim(policy), dtype=state.dtype)
    small = 1e-6 * float(theta.norm() / step.norm())
    with torch.no_grad():
        before = act(policy, state, noise)
        after = act(moved(policy, theta + small * step), state, noise)
    size, by = (x.square().mean().sqrt() for x in (before, after - before))
    return float(MOVE * size / by * small)


def returns(cell: Cell, policies: Sequence[nn.Module], n: int, seed: int) -> Tensor:
    """Discounted returns [K, n] of several policies, from the same starts on the same noise."""
    task, world, many = cell.task, cell.world, len(policies)
    state = task.starts(n, stream(seed, "advice starts")).double().repeat(many, 1)
    total, alive = state.new_zeros(many * n), torch.ones(many * n, dtype=torch.bool)
    generator = stream(seed, "advice noise")
    for t in range(world.steps):
        e = torch.randn(n, noise_dim(cell.policy), generator=generator, dtype=torch.float64)
        xi = task.simulator.sample_noise(n, generator).repeat(many, 1)
        running = alive.nonzero()[:, 0] if world.termination == "mask" else torch.arange(len(alive))
        if not len(running):
            break
        with torch.no_grad():
            pieces = zip(policies, state.chunk(many), strict=True)
            action = torch.cat([act(policy, rows, e) for policy, rows in pieces])
            out = task.simulator.step(state[running], action[running], xi[running])
        total[running] += task.discount**t * out.reward
        state[running], alive[running] = out.state, out.alive
    return total.reshape(many, n)


def differences(cell: Cell, policies: Sequence[nn.Module], seed: int, most: int = 0) -> Tensor:
    """J of each policy − J of the first, per start, [K − 1, n]; starts double until the intervals
    of all leave 0, up to `most` (0: never)."""
    n, found = cell.world.judges, []
    while True:
        R = returns(cell, policies, n, child(seed, f"judges {len(found)}"))
        found.append(R[1:] - R[0])
        joined = torch.cat(found, 1)
        done = all(change(each).decided for each in joined)
        if done or 2 * joined.shape[1] > most:
            return joined
        n = joined.shape[1]


def change(difference: Tensor, level: float = 0.95) -> Change:
    """Mean of paired differences [n] with Student's interval."""
    x = difference.numpy()
    if not np.isfinite(x).all():
        return Change(-np.inf, -np.inf, -np.inf, len(x))
    half = scipy.stats.t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5
    return Change(float(x.mean()), float(x.mean() - half), float(x.mean() + half), len(x))


def stepped(cell: Cell, gradient: Tensor, length: float) -> nn.Module:
    """The policy after a plain step of that length in θ."""
    return moved(cell.policy, flat_parameters(cell.policy) + length * gradient / gradient.norm())


def followed(cell: Cell, candidate: Candidate, updates: int, rate: float) -> nn.Module:
    """The policy after so many updates of Adam along one candidate, the critic fitted anew every
    25 updates."""
    policy, critic, (name, h) = copy.deepcopy(cell.policy), cell.critic, candidate
    theta = nn.Parameter(flat_parameters(policy))
    optimizer = torch.optim.Adam([theta], rate)
    for update in range(updates):
        seed = child(cell.seed, f"advice update {update}")
        if update and not update % REFIT:
            critic = fit_critic(cell.task, policy, termination=cell.world.termination, seed=seed)
        theta.grad = -directions(cell, policy, critic, name, (h,), cell.world.batch, seed)[
            candidate
        ]
        optimizer.step()
        policy = moved(policy, theta.detach())
    return policy


def as_row(gained: Mapping[Candidate, Tensor]) -> dict[str, Any]:
    return {f"{name} {h}": change(x).row() for (name, h), x in gained.items()}
