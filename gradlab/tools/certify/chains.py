"""Chained Jacobians against differences of the T-step return, and smoothed gradients at kinks.

    R_T = Σ_{t<T} γᵗ r_t,      dR_T = Σ_{t<T} γᵗ (r_s δ_t + r_a δa_t),   δ_{t+1} = A δ_t + B δa_t
    ∇_a E R_T(a + σu)  =  E u (R_T(a + σu) − R_T(a − σu)) / 2σ,     u ~ N(0, I)

A sign is certain where the difference is larger than what two step sizes disagree by; the horizon
is the largest T before fewer than 95% of the certain signs are shown to agree. A kink has no
derivative that could be wrong, yet its one-sided gradient can be far from that of the smoothed
return, which a stochastic policy follows (Suh et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.statistics.intervals import Interval
from gradlab.statistics.moments import sample_mean
from gradlab.statistics.over_groups import mean_interval
from gradlab.systems.system import System
from gradlab.tools.certify.comparison import Units
from gradlab.tools.certify.evaluation import Derivative, Points, evenly, outputs
from gradlab.tools.certify.result import FINITE, Finding, percentage
from gradlab.tools.certify.sampling import Law
from gradlab.wording import cosine, percent, steps, with_interval


@dataclass(frozen=True)
class Chain:
    """M trajectories of T steps.

    Attributes:
        first: z_0 = (s_0, a_0), [M, ds + da].
        actions: a_1 … a_{T−1}, [T − 1, M, da].
        noise: ξ_0 … ξ_{T−1}, [T, M, noise_dim], or None.
    """

    system: System
    first: Tensor
    actions: Tensor
    noise: Tensor | None
    discount: float

    @property
    def steps(self) -> int:
        return len(self.actions) + 1

    def rolled(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """R_1 … R_T [T, k · M] of k moved copies of the first points, and z_0 … z_{T−1} along them
        [T, k · M, ds + da]. A trajectory that leaves the numbers starts again, with returns NaN."""
        times, path, rows = len(z) // len(self.first), [z], []
        total = torch.zeros(len(z)).to(z)
        for t in range(self.steps):
            y = outputs(
                self.system,
                Points(path[t], None if self.noise is None else self.noise[t].repeat(times, 1)),
            )
            total = total + self.discount**t * y[:, -1]
            rows.append(total)
            if t + 1 < self.steps:
                lost = ~torch.isfinite(y).all(1)
                after = torch.cat([y[:, :-1], self.actions[t].repeat(times, 1)], 1)
                path.append(torch.where(lost[:, None], self.first.repeat(times, 1), after))
                total = torch.where(lost, torch.nan, total)
        return torch.stack(rows), torch.stack(path)

    def tangents(self, derivative: Derivative, directions: Tensor, path: Tensor) -> Tensor:
        """dR_1 … dR_T [T, M, k] along directions [M, ds + da, k] of the first points, by the
        Jacobians at z_t of `path` [T, M, ds + da], all of them in one batch."""
        noise = None if self.noise is None else self.noise.flatten(0, 1)
        every = derivative(self.system, Points(path.flatten(0, 1), noise))
        ds, moved, rows = self.system.state_dim, directions, []
        total = torch.zeros_like(directions[:, 0])
        for t, J in enumerate(every.reshape(*path.shape[:2], *every.shape[1:])):
            change = J @ moved
            total = total + self.discount**t * change[:, -1]
            rows.append(total)
            moved = torch.cat([change[:, :ds], torch.zeros_like(directions[:, ds:])], 1)
        return torch.stack(rows)


_POINTS, _PAIRS, _STEPS = 16, 128, 5


@dataclass(frozen=True)
class Smoothed:
    """Medians over the kinks.

    Attributes:
        gap: |∇R − ∇E R| over |∇E R|.
        noise: standard error of the smoothed gradient over its norm.
        cosine: of both.
        points: number of kinks.
    """

    gap: float
    noise: float
    cosine: float
    points: int


def smoothed(chain: Chain, derivative: Derivative, sigma: Tensor, draw: Tensor) -> Smoothed:
    """
    Args:
        chain: from kinks.
        sigma: σ of every action, [da].
        draw: u, [pairs, M, da].
    """
    pairs, m, da = draw.shape
    ds = chain.system.state_dim
    moves = torch.cat([draw.new_zeros(pairs, m, ds), sigma * draw], 2)
    z = torch.cat([chain.first + moves, chain.first - moves]).reshape(2 * pairs * m, -1)
    R = chain.rolled(z)[0][-1].reshape(2, pairs, m, 1)
    samples = draw * (R[0] - R[1]) / 2
    mean, error = samples.mean(0), samples.std(0) / pairs**0.5
    into = torch.cat([draw.new_zeros(ds, da), torch.diag(sigma)]).expand(m, -1, -1)
    path = chain.tangents(derivative, into, chain.rolled(chain.first)[1])[-1]
    size = mean.norm(dim=1).clamp_min(1e-300)
    finite = torch.isfinite(path).all(1) & torch.isfinite(samples).all(2).all(0)
    if not bool(finite.any()):
        return Smoothed(float("nan"), float("nan"), float("nan"), 0)
    gap = ((path - mean).norm(dim=1) / size)[finite].median()
    alike = torch.nn.functional.cosine_similarity(path, mean, dim=1)[finite].median()
    noise = (error.norm(dim=1) / size)[finite].median()
    return Smoothed(float(gap), float(noise), float(alike), int(finite.sum()))


_DIRECTIONS = 4
AGREE, _CERTAIN = 0.95, 0.2  # share of signs that agree; least share that is certain
_STEP = 4.0  # times ε^{1/3} of the spread
_ROUNDING = 32.0


@dataclass(frozen=True)
class _Signs:
    """Of T = 1 … H steps: share of the directions with a finite derivative, of these the share of
    certain signs, and of these the share that agrees, with its 95% interval over starts.

    Attributes:
        directions: that signs were asked of.
    """

    finite: tuple[float, ...]
    certain: tuple[float, ...]
    agree: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    directions: int
    constant: bool = False  # the reward, as far as moved trajectories show

    @property
    def horizon(self) -> int:
        """The largest T before signs are shown not to agree; as far as enough are certain."""
        for t, high in enumerate(self.high):
            if not self._enough(t) or not high >= AGREE:
                return t
        return len(self.certain)

    @property
    def decidable(self) -> bool:
        """Whether enough signs are certain at the first step to say anything."""
        return not self.constant and self._enough(0)

    @property
    def undecided(self) -> str:
        """Why it is not."""
        if self.finite[0] < FINITE:
            return "too few derivatives are finite"
        return "the reward is constant" if self.constant else "lost in rounding"

    @property
    def turns(self) -> bool:
        """Whether signs are wrong beyond it, and not only uncertain."""
        h = self.horizon
        return h < len(self.certain) and self._enough(h)

    def _enough(self, t: int) -> bool:
        return self.finite[t] >= FINITE and self.certain[t] >= _CERTAIN


def _signs(
    chain: Chain, derivative: Derivative, units: Units, epsilon: float, draw: Tensor
) -> _Signs:
    """
    Args:
        draw: standard normal [M, ds + da, k], the directions in spreads.
    """
    directions = draw * units.z[:, None]
    h = _STEP * epsilon ** (1 / 3)
    steps = torch.tensor([h, h / 4]).to(draw)
    # One rollout has the first points, then these moved by ± every step along every direction.
    sides = torch.stack([steps, -steps], 1)[..., None, None, None]
    ends = chain.first + sides * directions.permute(2, 0, 1)  # [sizes, signs, k, M, ds + da]
    R, path = chain.rolled(torch.cat([chain.first, ends.reshape(-1, chain.first.shape[1])]))
    m, k = len(chain.first), directions.shape[2]
    given = chain.tangents(derivative, directions, path[:, :m])
    R = R[:, m:].reshape(chain.steps, 2, 2, k, m).transpose(3, 4)  # [T, sizes, signs, M, k]
    wide, narrow = ((R[:, :, 0] - R[:, :, 1]) / (2 * steps[:, None, None])).unbind(1)
    rounding = _ROUNDING * epsilon * R[:, 0].abs().amax(1) / h
    error = 2 * (wide - narrow).abs() + rounding
    finite = torch.isfinite(narrow) & torch.isfinite(error) & torch.isfinite(given)
    certain = (narrow.abs() > error) & finite
    agree = (given.sign() == narrow.sign()) & certain
    counts = certain.flatten(1).sum(1)
    shares = agree.flatten(1).sum(1).double() / counts  # 114 of 120 are 95%, not less
    # Over starts: the directions of one are wrong together.
    over = zip(agree.sum(2).numpy(), certain.sum(2).numpy(), strict=True)
    intervals = [_interval(right[size > 0], size[size > 0]) for right, size in over]
    known = wide[torch.isfinite(wide)]
    constant = bool(len(known)) and not bool(known.any())  # no return moves with its first state
    whole = finite.flatten(1).sum(1)
    share = tuple((counts / whole.clamp_min(1)).tolist())
    left = tuple((whole / certain[0].numel()).tolist())
    agreeing = tuple(shares.nan_to_num().tolist())
    low, high = ([getattr(each, end) for each in intervals] for end in ("low", "high"))
    return _Signs(left, share, agreeing, tuple(low), tuple(high), certain[0].numel(), constant)


def _interval(right: NDArray[np.int64], size: NDArray[np.int64]) -> Interval:
    """Of a share over starts; unknown with one."""
    if len(size) < 2:
        return Interval(0.0, 1.0, np.nan, "one start")
    return mean_interval(sample_mean(right.astype(float), size.astype(float)))


_STARTS = 30  # trajectories of a chain: with 16 moved ones each, they just fill two calls
_SMOOTHING = 0.1  # σ of the smoothed return, in spreads of the actions
_AT_LIMIT = 1e-3  # of it, within which a stencil may reach it
_COARSE = 1e-9  # precision of the step, above which its rounding may look like a kink
_DIFFERS = 0.1  # of the smoothed gradient, from which a gap is named


@dataclass(frozen=True)
class Ahead:
    """What rollouts from examined points need.

    Attributes:
        starts: rows of the points from which gradients are chained.
        horizon: most steps of a chained gradient.
    """

    drawn: Law
    points: Points
    starts: Tensor
    units: Units
    epsilon: float
    discount: float
    horizon: int

    def chain(self, rows: Tensor, steps: int, name: str) -> Chain:
        """From some points, along actions of the law; moved trajectories have the same ones."""
        drawn, first, m = self.drawn, self.points.at(rows), len(rows)
        system, noise = drawn.system, None
        actions = drawn.action_size * drawn.draw(f"{name} actions", steps - 1, m, system.action_dim)
        if first.noise is not None:
            later = drawn.draw(f"{name} noise", steps - 1, m, system.noise_dim)
            noise = torch.cat([first.noise[None], later])
        z = first.z
        for t in range(steps - 1 if drawn.policy is not None else 0):
            s = outputs(system, Points(z, None if noise is None else noise[t]))[:, :-1]
            actions[t] = drawn.actions(s, f"{name} {t}")
            z = torch.cat([s, actions[t]], 1)
        return Chain(system, first.z, actions, noise, self.discount)


def chained(ahead: Ahead, name: str, derivative: Derivative) -> tuple[list[Finding], _Signs]:
    """How far the sign of the chained gradient is right."""
    rows = ahead.starts[evenly(len(ahead.starts), _STARTS)]
    run = ahead.chain(rows, ahead.horizon, "chain")
    draw = ahead.drawn.draw("directions", len(rows), run.first.shape[1], _DIRECTIONS)
    result = _signs(run, derivative, ahead.units, ahead.epsilon, draw)
    if not result.decidable:
        text = f"The sign of the chained gradient is not decidable ({result.undecided})."
        return [Finding("sign", "note", text, 0.0, source=name)], result
    if not result.turns:
        return [], result
    h = result.horizon
    n = round(result.finite[h] * result.certain[h] * result.directions)
    agree = result.agree[h]
    ends = max(result.low[h], 0), min(result.high[h], 1)
    share = with_interval(agree, *ends, write=percent)
    text = (
        f"After {steps(h + 1)} the sign of the chained gradient is right in {round(agree * n)} of "
        f"{n} directions that can be decided, {share}, less than the {AGREE:.0%} that are needed."
    )
    found = Finding("sign", "rough", text, 1 - agree, sign_kept=False, source=name)
    return [found], result


def at_kinks(
    ahead: Ahead, name: str, derivative: Derivative, onset: Tensor, wrong: bool
) -> tuple[list[Finding], dict[str, Any]]:
    """The gradient of the smoothed return beside that of the return, at points [N] of `onset`: not
    where an action is on its limit, whose derivative is that of one side by convention, nor where
    a derivative is wrong, whose gap would be said of the kink."""
    actions, limit = ahead.points.z[:, ahead.drawn.system.state_dim :], ahead.drawn.action_limit
    edge = torch.full(actions.shape[1:], torch.nan) if limit is None else limit
    clipped = onset & ((actions.abs() - edge).abs() <= _AT_LIMIT * edge).any(1)
    count, on_limit = int(onset.sum()), int(clipped.sum())
    if not count:
        return [], {}
    those = "all" if on_limit == count else on_limit
    what = "a kink, a jump or a coarse rounding" if ahead.epsilon > _COARSE else "a kink or a jump"
    text = (
        f"The step has {what} at {count} of {len(onset)} states"
        f"{f', at {those} of them where an action is on its limit' * bool(on_limit)}: "
        f"that alone makes no derivative wrong"
    )
    rows = (onset & ~clipped).nonzero().flatten()
    if wrong or not len(rows):
        return [Finding("rough", "rough", f"{text}.", 0.0, stratum="onset", source=name)], {}
    rows = rows[evenly(len(rows), _POINTS)]
    run = ahead.chain(rows, _STEPS, "smoothing")
    spread = _SMOOTHING * ahead.units.z[ahead.drawn.system.state_dim :]
    draw = ahead.drawn.draw("smoothing", _PAIRS, len(rows), len(spread))
    result = smoothed(run, derivative, spread, draw)
    numbers = {"gap": result.gap, "noise": result.noise, "cosine": result.cosine}
    decided = result.points > 0 and result.gap > max(_DIFFERS, 2 * result.noise)
    if result.points:
        turned = f"cosine {cosine(result.cosine)}"
        if actions.shape[1] == 1:
            side = "opposite" if result.cosine < 0 else "same"
            turned = f"of the {side} sign" if result.cosine else "it is 0"
        far = f"differs by {percentage(result.gap)} ({turned})"
        near = "is not shown to differ"
        text += (
            f". The gradient of the {_STEPS}-step return by the first action "
            f"{far if decided else near} from that of the return smoothed over actions "
            f"(σ {_SMOOTHING:.0%} of their spread, {_PAIRS} pairs, standard error "
            f"{percentage(result.noise)}; median of {result.points} of these "
            f"states{', none of them on a limit' * bool(on_limit)})"
        )
    size = result.gap if decided else 0.0
    found = Finding("rough", "rough", f"{text}.", size, stratum="onset", source=name)
    return [found], numbers
