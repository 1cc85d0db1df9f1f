"""The return along lines through θ: the surface that a gradient climbs, without a derivative.

    V(α) = E[Σ_{t<n} γᵗ r_t + γⁿ Q(s_n, a_n)]   at θ + α l u,   |u| = 1

It is an estimator's own surface: its states, its tail, and θ moved in the actions that carry it
("first", or "all" as in RP-PGM, Fig. 3), from the same starts with the same noise at every α. So
V′(0) = l u · E g where the estimator's Jacobians are those of its states; of the simulator's T
steps it is the true slope. The length l is such that α = 1 moves the actions by half their size
(at most by |θ|): lines along different directions share an axis that means something.

Its roughness is mean |second difference| / (max − min), averaged over the axes, whatever its scale:
a straight line has 0, the parabola α² on 21 points of [−1, 1] has 0.02.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator, checked, softened
from gradlab.gradients.starts import Starts, by_group, grouping
from gradlab.gradients.tail import Setting
from gradlab.networks.interface import act, flat_parameters
from gradlab.networks.mlp import judge
from gradlab.progress import Progress, silent
from gradlab.statistics.comparison import difference
from gradlab.statistics.moments import Estimate, sample_mean
from gradlab.truth.common_random import Perturbed, own_size, perturbed_rollout
from gradlab.truth.oracles import perturbed

ALPHAS = np.linspace(-1.0, 1.0, 21)
REACH = 0.5  # share of their size by which α = 1 moves the actions

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Slice:
    """The return along one line.

    Attributes:
        length: l, the norm of the step in θ at α = 1.
        sums: V(α) summed over each group of starts, [21, G]; size: [G] starts in it.
    """

    length: float
    sums: _Floats
    size: _Floats

    def change(self, place: int) -> Estimate:
        """V(α) − V(0), paired by start; `place` of α in `ALPHAS`."""
        return sample_mean(self.sums[place] - self.sums[len(ALPHAS) // 2], self.size)

    def roughness(self) -> Estimate:
        """Of the line's mean return."""
        means = [sample_mean(of_alpha, self.size) for of_alpha in self.sums]
        left_out = np.stack([mean.left_out for mean in means])
        value = roughness(np.array([mean.value for mean in means]))
        return Estimate(value, np.array([roughness(values) for values in left_out.T]))

    def rows(self) -> list[dict[str, float]]:
        """alpha, value = V(α) − V(0), ci_low, ci_high and n, the number of starts."""
        rows, nothing = [], self.change(len(ALPHAS) // 2)
        for place, alpha in enumerate(ALPHAS):
            change = self.change(place)
            ends = difference(change, nothing)
            row = {"alpha": float(alpha), "value": change.value, "ci_low": ends.low}
            rows.append(row | {"ci_high": ends.high, "n": int(self.size.sum())})
        return rows


def slices(
    estimator: Estimator,
    policy: nn.Module,
    starts: Tensor | Path | Starts,
    directions: Mapping[str, Tensor],
    *,
    seed: int = 0,
    termination: str = "ignore",
    progress: Progress = silent,
) -> dict[str, Slice]:
    """The estimator's surface along each direction.

    Args:
        estimator: its Jacobians are not used.
        directions: name → [P]; of any length but 0.
        seed: of the noise, as in `Estimator.gradients`.

    Raises:
        InputError: what does not fit, named; a direction that has no length or is not finite.
    """
    begin = checked(estimator, policy, starts, termination)
    estimator, policy = softened(estimator, policy)
    if not estimator.way.pathwise:
        raise InputError(
            f"actions is {estimator.actions!r}, which moves no action: use 'first' or 'all'"
        )
    noise = begin.policy_noise(policy, seed, 0)
    theta = max(float(flat_parameters(policy).norm()), 1.0)
    lines = {}
    for done, (name, direction) in enumerate(directions.items(), 1):
        norm = direction.norm()
        if not (torch.isfinite(norm) and norm > 0):
            raise InputError(f"direction {name!r} has norm {float(norm):g}: it leads nowhere")
        unit: Tensor = direction / norm
        # Moves the first actions by REACH of their size, θ by no more than its own (or 1).
        moved = REACH * own_size(policy, begin.states, noise, unit[None])
        length = min(moved, theta)
        values = _returns(estimator, policy, begin, length * unit, seed, termination)
        label, size = grouping(begin)
        lines[name] = Slice(length, by_group(values, label), size)
        progress("slices", done, len(directions))
    return lines


def table(lines: Mapping[str, Slice]) -> pd.DataFrame:
    """Of the figure `loss_slices`: direction, alpha, value, ci_low, ci_high, n."""
    return pd.DataFrame(
        [{"direction": name, **row} for name, line in lines.items() for row in line.rows()]
    )


def random_direction(policy: nn.Module, seed: int = 0) -> Tensor:
    """Unit length, [P]; each parameter tensor's share of it is that of its norm in θ (RP-PGM).

    Tensors that are 0 or not trained stay as they are.
    """
    generator, parts = stream(seed, "slice"), []
    for p in policy.parameters():
        drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64).flatten()
        weight = float(p.detach().norm()) * p.requires_grad
        parts.append(weight * drawn / drawn.norm())
    return nn.functional.normalize(torch.cat(parts), dim=0)


def _returns(
    estimator: Estimator,
    policy: nn.Module,
    begin: Starts,
    step: Tensor,
    seed: int,
    termination: str,
) -> Tensor:
    """V at each α and start, importance weights included, [21, N]."""
    tail = estimator.tail
    moved = [perturbed(policy, alpha * step) for alpha in ALPHAS.tolist()]
    setting = Setting(estimator.states, policy, begin, tail.discount, tail.horizon, seed=seed)
    rolled = perturbed_rollout(setting, moved, estimator.actions, silent, "slices")
    n, rewards, last = (
        len(begin.states),
        rolled.rewards,
        _tail(estimator, policy, rolled, begin, seed),
    )
    if termination == "mask":
        rewards = torch.where(rolled.alive[:-1], rewards, 0.0)
        last = torch.where(rolled.alive[-1], last, 0.0)
    values: Tensor = (rewards.sum(dim=0) + last).reshape(len(ALPHAS), n)
    return begin.weight * values


def _tail(
    estimator: Estimator, policy: nn.Module, rolled: Perturbed, begin: Starts, seed: int
) -> Tensor:
    """γⁿ Q of the last states, [21 · N]."""
    tail, state, action = estimator.tail, rolled.state, rolled.action
    if tail.critic is None:
        return state.new_zeros(len(state))
    with torch.no_grad():
        if tail.terminal_action == "detached":
            noise = begin.policy_noise(policy, seed, tail.horizon)
            action = act(policy, state, noise.repeat(len(ALPHAS), 1))
        value = judge(tail.critic, tail.value, state, action)
    return tail.discount**tail.horizon * value


def roughness(values: NDArray[np.float64]) -> float:
    """Of returns on a grid of at least 3 points along every axis; NaN where it is flat
    or not finite."""
    if not np.isfinite(values).all():
        return float("nan")
    bends = [np.abs(np.diff(values, 2, axis=axis)).mean() for axis in range(values.ndim)]
    spread = float(values.max() - values.min())
    return float(np.mean(bends)) / spread if spread > 0 else float("nan")
