"""Starts so rare that a sample holds few of them: a pilot says what the sample may have missed.

Where 1 start in 100 carries half of E |G|², most samples hold too few of these: variance, error and
their intervals are too low at once; means and gains are covered (`reports/coverage`). No statistic
of the sample itself finds the samples that have none of them: those are the ones that look tame.

    pilot     M N starts, M = 30, or 10 where a step is dear, for a hundred steps
    score     q = rms over 4 directions of θ of J(θ + d) − J(θ − d), |d| moving actions by 4%; where
              these are dear too, |J − median|

Refused, by name, are variance, error and SNR

    unseen    where few starts carry much, and those beyond the largest q of the sample 70% of Σ q²
    ends      where episodes end in too few starts (`NEEDED` of N)
    carried   where 1 measured start in 100 carries 40% of E |G|² of an estimator
    tail      where q² has a Pareto tail without a variance, k > ½, or more in a pilot below 2,500
              starts (`statistics.tails.no_variance`)
    cut       where few starts carry much and the truth is cut before it converges
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.trajectories import child, stream
from gradlab.findings import Finding
from gradlab.gradients.setting import Setting, Starts
from gradlab.measurement.inner_products import Cells, Measured
from gradlab.measurement.resolve import Resolved
from gradlab.measurement.visited import linearization_price
from gradlab.networks.interface import flat_parameters
from gradlab.progress import Progress
from gradlab.statistics.moments import Array
from gradlab.statistics.tails import no_variance, tail_shape
from gradlab.systems.system import System
from gradlab.truth.common_random import Rolling, own_size
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.truth import Truth

MANY, SOME, MOST = 30, 10, 1 << 16  # starts of the pilot per start of the sample, and in all
HEAVY = 0.4  # share of a mean square that 1 start in 100 may carry
RARE_ENDS, NEEDED = 0.05, 8.0  # starts whose episode ends: rare up to it; of them in the sample
_STEPS = 100  # of the pilot, or twice the horizon
_DIRECTIONS, _MOVED = 4, 0.04  # differences of a start, and the share by which actions are moved
_SECONDS, _MULTIPLIED = 3.0, 1.5e-10  # of a core for a pilot, and for one product of the policy
_OWN = 200  # products of a step itself, of a simulator whose Jacobians are cheap
_ROWS = 8192  # starts of the pilot that are rolled out at once
_STAGE = "pilot"
_LOOKED_AT = 64  # starts that say how far θ moves the actions
_TAIL = 0.01  # of the starts
_UNSEEN = 0.7  # share of Σ q² that the sample may have missed


@dataclass(frozen=True)
class PilotPlan:
    """Starts of a pilot; steps of each, and whether it takes differences."""

    size: int
    steps: int
    differences: bool

    @property
    def price(self) -> int:
        """Steps of the simulator."""
        return self.size * self.steps * (1 + 2 * _DIRECTIONS * self.differences)


def plan_pilot(
    simulator: System, parameters: int, starts: int, horizon: int, discount: float
) -> PilotPlan:
    """The best score from the largest pilot that is affordable; the smallest one at least."""
    steps = min(effective_horizon(discount), max(2 * horizon, _STEPS))
    stencil = 2 * (simulator.state_dim + simulator.action_dim + 1)
    price = linearization_price(simulator) / stencil + _MULTIPLIED * (_OWN + parameters)
    many = [max(min(each * starts, MOST), 2 * starts) for each in (MANY, SOME)]
    plans = [PilotPlan(size, steps, way) for way in (True, False) for size in many]
    return next((plan for plan in plans if plan.price * price <= _SECONDS), plans[-1])


@dataclass(frozen=True, eq=False)
class Pilot:
    """Scores of a pilot, and what a sample has of them.

    Attributes:
        size: its starts.
        tail: share of Σ q² that 1 start in 100 carries; shape: Pareto k of q².
        ends: share of starts whose episode ends within its steps.
        unseen: share of Σ q² beyond the largest q of the sample.
    """

    size: int
    tail: float
    shape: float
    ends: float
    unseen: float = 0.0

    @property
    def rare(self) -> bool:
        """Do few starts carry much, or end?"""
        return self.tail > HEAVY or 0 < self.ends <= RARE_ENDS

    def needed(self, n: int) -> int:
        """Starts from which on ends of episodes are covered; 0 where N of them do."""
        if not self.ends > 0 or n * self.ends >= NEEDED:
            return 0
        return int(2 ** np.ceil(np.log2(NEEDED / self.ends)))


def made_pilot(posed: Resolved, progress: Progress) -> Pilot | None:
    """Of the law that the starts were drawn from; None where all have the same return."""
    setting, n = posed.setting, len(posed.setting.starts.states)
    size = sum(p.numel() for p in setting.policy.parameters())
    plan = plan_pilot(setting.simulator, size, n, setting.horizon, setting.discount)
    seed = child(setting.seed, _STAGE)
    moves = _moves(setting, seed) if plan.differences else []

    def scored(states: Tensor, name: str) -> tuple[Array, NDArray[np.bool_]]:
        return _scores(setting, states, moves, plan.steps, child(seed, name), progress)

    q, ended = scored(posed.task.starts(plan.size, stream(seed, "starts")).double(), "pilot")
    energy = q**2
    if not (np.isfinite(energy.sum()) and energy.sum() > 0):
        return None
    own, _ = scored(setting.starts.states, "sample")
    unseen = float(energy[q > own.max()].sum() / energy.sum())
    return Pilot(len(q), largest_share(energy), tail_shape(energy), float(ended.mean()), unseen)


def largest_share(squares: Array) -> float:
    """Share of their sum that the largest hundredth carries, part of one as such."""
    carried = np.sort(squares)[::-1]
    count = _TAIL * len(carried)
    whole = int(count)
    top = carried[:whole].sum() + (count - whole) * (carried[whole] if whole < len(carried) else 0)
    return float(top / carried.sum())


def _moves(setting: Setting, seed: int) -> list[Tensor]:
    """Steps in θ that move the actions by 4% of their size, each with its opposite."""
    policy, starts = setting.policy, setting.starts
    theta = flat_parameters(policy)
    draw = torch.randn(_DIRECTIONS, len(theta), generator=stream(seed, "directions")).to(theta)
    trained = torch.cat([p.new_full((p.numel(),), p.requires_grad) for p in policy.parameters()])
    directions = nn.functional.normalize(draw * trained, dim=1)
    few = starts.block(slice(0, min(_LOOKED_AT, len(starts.states))))
    noise = few.policy_noise(policy, setting.seed, 0)
    length = _MOVED * own_size(policy, few.states, noise, directions)
    return [sign * length * v for v in directions for sign in (1.0, -1.0)]


def _scores(
    setting: Setting, states: Tensor, moves: list[Tensor], steps: int, seed: int, progress: Progress
) -> tuple[Array, NDArray[np.bool_]]:
    """q of states [n, ds], and whose episode ends; a return that is lost is one that ends."""
    J, ended = [], []
    for k, few in enumerate(torch.split(states, _ROWS)):
        part = Starts(few, torch.ones_like(few[:, 0]), torch.arange(len(few)))
        here = replace(setting, starts=part, horizon=steps, seed=child(seed, str(k)))
        rolled = Rolling(here, progress).returns(part, moves, _STAGE)
        J.append(rolled.returns.numpy())
        ended.append(~rolled.alive[0].numpy())
    returns, end = np.concatenate(J, axis=1), np.concatenate(ended)
    if moves:
        q = np.sqrt(((returns[1::2] - returns[2::2]) ** 2).mean(axis=0))
    else:
        q = np.abs(returns[0] - np.nanmedian(returns[0]))
    lost = ~np.isfinite(q)
    return np.where(lost, q[~lost].max(initial=0.0), q), end | lost


def rare_starts(
    posed: Resolved, truth: Truth, measured: Measured, progress: Progress
) -> tuple[Finding, ...]:
    """What few starts carry, or the most that one does where no others are drawn; none where all
    starts have the same return."""
    cells, n = measured.cells, measured.starts
    if posed.drawn and (posed.objective or posed.config.law == "start"):
        pilot = made_pilot(posed, progress)
        if pilot is None:
            return ()
        found = _carried(pilot, truth, cells, n)
        return found or (Finding("starts_enough", "pass", "", pilot.tail, n=n),)
    share = {key: float(x.max() / x.sum()) for key, x in _known(cells).items()}
    if not share:
        return ()
    most = max(share, key=lambda key: share[key])
    return (Finding("starts_undrawn", "skipped", "", share[most], n=n, at=_cell(most)),)


def _carried(pilot: Pilot, truth: Truth, cells: Cells, n: int) -> tuple[Finding, ...]:
    """Why variance, error and SNR are not decided at N = n."""
    found = []
    if pilot.rare and pilot.unseen > _UNSEEN:
        found.append(
            Finding("starts_unseen", "fail", "", pilot.unseen, threshold=_UNSEEN, n=pilot.size)
        )
    if needed := pilot.needed(n):
        found.append(Finding("starts_ending", "fail", "", 1 / pilot.ends, threshold=needed, n=n))
    carried = {key: largest_share(x) for key, x in _known(cells).items()}
    if carried and carried[most := max(carried, key=lambda key: carried[key])] > HEAVY:
        at, share = _cell(most), carried[most]
        found.append(Finding("starts_few_carry", "fail", "", share, threshold=HEAVY, n=n, at=at))
    limit = no_variance(pilot.size)
    if not pilot.rare and pilot.shape > limit:
        found.append(Finding("starts_tail", "fail", "", pilot.shape, threshold=limit, n=pilot.size))
    if truth.status == "cut" and pilot.rare:
        found.append(Finding("starts_beyond_cut", "fail", "", truth.horizon, n=n))
    return tuple(found)


def _known(cells: Cells) -> dict[tuple[str, int], Array]:
    """Squares of the gradients of every cell where all are finite and some are not 0."""
    squares = {key: cell.squares for key, cell in cells.items()}
    return {key: x for key, x in squares.items() if np.isfinite(x).all() and x.any()}


def _cell(cell: tuple[str, int]) -> str:
    return f"{cell[0]} at h = {cell[1]}"
