"""Starts so rare that a sample holds few of them: a pilot, strata, and what none of them covers.

Where 1 start in 100 carries half of E |G|², most samples hold too few of these: variance, error and
their intervals are too low at once; means and gains are covered (`reports/coverage`).

    pilot     M N starts, M = 30, or 10 where a step is dear, for a hundred steps
    score     q = rms over 4 directions of θ of J(θ + d) − J(θ − d), |d| moving actions by 4%; where
              these are dear too, |J − median|
    strata    its quantiles 0, .5, .8, .95, .99, .997, 1, of which
              n_h = N W_h (1/2 + rms_h q/4Σ + rms_h q²/4Σ), at least 8 (4 below N = 128), are
              measured with the weights W_h N/n_h; ends of episodes in at most 1 of 20 starts are
              one more. None where 1 start in 100 carries at most 40% of Σ q² and no end is rare

Refused, by name, are variance, error and SNR

    unseen    where few starts carry much, and those beyond the largest q of the sample 70% of Σ q²
    ends      where episodes end in too few starts (`Pilot.needed`)
    carried   where 1 measured start in 100 carries 40% of E |G|² of an estimator
    tail      where nothing asks for strata, and q² has a Pareto tail without a variance, k > ½,
              or more in a pilot below 2,500 starts (`statistics.tails.no_variance`)
    cut       where few starts carry much and the truth is cut before it converges
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.trajectories import child, stream
from gradlab.findings import Finding
from gradlab.gradients.setting import Setting, Starts
from gradlab.measurement.inner_products import Cells, Measured
from gradlab.measurement.problem import (
    DIRECTIONS,
    FEW,
    FEWEST_DRAWN,
    HEAVY,
    MOVED,
    OF_ENDS,
    RARE_ENDS,
    ROWS,
    SMALL,
    Pilot,
    Problem,
    plan_pilot,
)
from gradlab.networks.interface import flat_parameters, noise_dim
from gradlab.progress import Progress
from gradlab.statistics.moments import Array, Strata
from gradlab.statistics.tails import no_variance, tail_shape
from gradlab.truth.common_random import Rolling, own_size
from gradlab.truth.truth import Truth

_STAGE = "pilot"
_LOOKED_AT = 64  # starts that say how far θ moves the actions
_QUANTILES = (0.5, 0.8, 0.95, 0.99, 0.997)
_SMALLEST = 32  # N from which on there are strata
_TAIL = 0.01  # of the starts
_UNSEEN = 0.7  # share of Σ q² that the sample may have missed


def with_pilot(posed: Problem, wanted: bool | None, progress: Progress) -> Problem:
    """The problem with a pilot where its starts were drawn, and strata where that asks for them.

    Args:
        wanted: strata, whatever the pilot says; None: if it does.
    """
    if not posed.drawn or not (posed.objective or posed.law == "start"):
        return posed
    begin, setting = posed.setting.starts, posed.setting
    n, size = len(begin.states), sum(p.numel() for p in setting.policy.parameters())
    plan = plan_pilot(setting.simulator, size, n, setting.horizon, setting.discount)
    seed = child(setting.seed, _STAGE)
    moves = _moves(setting, seed) if plan.differences else []

    def scored(states: Tensor, name: str) -> tuple[Array, NDArray[np.bool_]]:
        return _scores(setting, states, moves, plan.steps, child(seed, name), progress)

    states = posed.task.starts(plan.size, stream(seed, "starts")).double()
    q, ended = scored(states, "pilot")
    energy = float((q**2).sum())
    if not (np.isfinite(energy) and energy > 0):
        return posed
    random = noise_dim(setting.policy) > 0 or setting.simulator.noise_dim > 0
    pilot = Pilot(plan, len(q), largest_share(q**2), tail_shape(q**2), float(ended.mean()), random)
    possible = posed.objective and posed.division is None and bool((begin.weight == 1).all())
    if (pilot.rare if wanted is None else wanted) and possible and n >= _SMALLEST:
        if plan.larger > plan.size:
            states = posed.task.starts(
                plan.larger, stream(child(seed, "larger"), "starts")
            ).double()
            q, ended = scored(states, "larger")
        ends = float(ended.mean())
        pilot = replace(pilot, size=len(q), tail=largest_share(q**2), ends=ends)
        apart = ended if ends <= RARE_ENDS else np.zeros_like(ended)
        starts, chosen = _drawn(states, q, apart, n, seed)
        if random or len(torch.unique(starts.states, dim=0)) == n:
            unseen = _beyond(q, q[chosen].max())
            pilot = replace(pilot, unseen=unseen, strata=starts.strata)
            return replace(posed, pilot=pilot, setting=replace(setting, starts=starts))
    own, _ = scored(begin.states, "sample")
    return replace(posed, pilot=replace(pilot, unseen=_beyond(q, own.max())))


def largest_share(squares: Array) -> float:
    """Share of their sum that the largest hundredth carries, part of one as such."""
    carried = np.sort(squares)[::-1]
    count = _TAIL * len(carried)
    whole = int(count)
    top = carried[:whole].sum() + (count - whole) * (carried[whole] if whole < len(carried) else 0)
    return float(top / carried.sum())


def _beyond(q: Array, largest: float) -> float:
    return float((q[q > largest] ** 2).sum() / (q**2).sum())


def _moves(setting: Setting, seed: int) -> list[Tensor]:
    """Steps in θ that move the actions by 4% of their size, each with its opposite."""
    policy, starts = setting.policy, setting.starts
    theta = flat_parameters(policy)
    draw = torch.randn(DIRECTIONS, len(theta), generator=stream(seed, "directions")).to(theta)
    trained = torch.cat([p.new_full((p.numel(),), p.requires_grad) for p in policy.parameters()])
    directions = nn.functional.normalize(draw * trained, dim=1)
    few = starts.block(slice(0, min(_LOOKED_AT, len(starts.states))))
    noise = few.policy_noise(policy, setting.seed, 0)
    length = MOVED * own_size(policy, few.states, noise, directions)
    return [sign * length * v for v in directions for sign in (1.0, -1.0)]


def _scores(
    setting: Setting, states: Tensor, moves: list[Tensor], steps: int, seed: int, progress: Progress
) -> tuple[Array, NDArray[np.bool_]]:
    """q of states [n, ds], and whose episode ends; a return that is lost is one that ends."""
    J, ended = [], []
    for k, few in enumerate(torch.split(states, ROWS)):
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


def _drawn(
    states: Tensor, q: Array, apart: NDArray[np.bool_], n: int, seed: int
) -> tuple[Starts, NDArray[np.int64]]:
    """N starts by strata, in random order, and which of the pilot they are."""
    size, few = len(q), FEWEST_DRAWN if n >= SMALL else FEW
    if apart.sum() < few:
        apart = np.zeros_like(apart)
    others = np.flatnonzero(~apart)
    edges = [round(quantile * len(others)) for quantile in (0, *_QUANTILES, 1)]
    edges = [0, *(b for a, b in pairwise(edges) if b - a >= few)]
    edges[-1] = len(others)  # a stratum with too few starts joins the one below
    label = np.full(size, len(edges) - 1)
    label[others[np.argsort(q[others], kind="stable")]] = np.repeat(
        np.arange(len(edges) - 1), np.diff(edges)
    )
    room = np.bincount(label)
    least = np.where(np.arange(len(room)) < len(edges) - 1, few, max(few, n // OF_ENDS))
    share = room / size
    energy = [share * np.sqrt(np.bincount(label, q**k) / room) for k in (2, 4)]
    wanted = share / 2 + sum(part / part.sum() for part in energy) / 4
    count = _counts(n, wanted, room, least)
    generator = stream(seed, "strata")
    chosen = np.concatenate([
        np.flatnonzero(label == h)[torch.randperm(int(room[h]), generator=generator).numpy()[:k]]
        for h, k in enumerate(count)
    ])[torch.randperm(n, generator=generator).numpy()]  # fmt: skip
    strata = Strata(label[chosen], n * share / count, size)
    weight = torch.from_numpy(strata.weight)
    starts = Starts(states[torch.from_numpy(chosen)], weight, torch.arange(n), strata=strata)
    return starts, chosen


def _counts(
    n: int, share: Array, room: NDArray[np.int64], least: NDArray[np.int64]
) -> NDArray[np.int64]:
    """n_h, Σ n_h = N, by what each should have of it, [H]; even but for one."""
    count = 2 * np.round(n * share / 2).astype(np.int64)
    count = np.minimum(np.maximum(count, least), room // 2 * 2)
    while (left := n - count.sum()) != 0:
        step = np.sign(left) * min(abs(left), 2)
        count[np.argmax(room - count if left > 0 else count)] += step
    return count


def rare_starts(posed: Problem, truth: Truth, measured: Measured) -> tuple[Finding, ...]:
    """What few starts carry, or the most that one does where no others are drawn; none where all
    starts have the same return."""
    cells, n = measured.cells, measured.starts
    if posed.drawn and (posed.objective or posed.law == "start"):
        if posed.pilot is None:
            return ()
        found = _carried(posed.pilot, truth, cells, n)
        return found or (Finding("starts_enough", "pass", "", posed.pilot.tail, n=n),)
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
