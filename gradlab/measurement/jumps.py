"""Does the return jump where a pathwise gradient is followed as far as an update goes?

Along u = truth/|truth|, on the truth's own noise, at moves η_k of a quarter of the user's update,
the update and three times it (`runs.jumps` has the numbers and their kinds):

    p_i = G_i·u      d_ik = (J_i(η_k) − J_i(−η_k)) / 2η_k      e_ik = d_ik − p_i

    bisection   of the 24 starts with the largest |e_i2|, [−η_2, η_2] is cut 5 times into 8 parts,
                of which that with the largest |J(b) − J(a) − p (b − a)| is kept: a jump leaves more
                than 30% of the first round's residual and half of the second's; where less than 15%
                of the first are left, as of a smooth return from the second on, nothing jumps
    harm        E e_2 / |E p| with an interval, against ±20%
    lost        returns that leave the finite numbers leave it open, unless the others refute it

Found: 105 of 105 jumps, 0 of 210 false with 512 starts (`analyses/truths/jumps.py` at 57789d45).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.findings import Finding
from gradlab.gradients.setting import Setting, by_group
from gradlab.networks.interface import noise_dim
from gradlab.progress import Progress, silent
from gradlab.runs.jumps import HARMFUL, UPDATE, Jumps, kind_of
from gradlab.runs.realised import PATHWISE, SCORE
from gradlab.statistics.intervals import student
from gradlab.truth.agreement import PRECISION, precision_of
from gradlab.truth.common_random import own_size
from gradlab.truth.returns import Rollouts, along, stepped
from gradlab.truth.score_actions import PAIRS, score_gradients
from gradlab.truth.truth import Truth

_Floats = NDArray[np.float64]
SUSPECTS, ROUNDS, PARTS = 24, 5, 8
LEFT, KEPT = 0.3, 0.5  # of the first and of the second round's residual, what a jump leaves
_SMOOTH = LEFT / 2  # of the first round's, below which nothing is looked for any more
# Of what the update changes, rms over the starts: below it nothing is told from rounding, also of
# a simulator in float32.
_NEGLIGIBLE = 1e-3
_MOVES = (0.25, 1.0, 3.0)  # in units of the user's update
_HELD = 1.2e8  # numbers of the score function's paths that are held at once
_WIDTH = 0.4  # of a gap's interval, from which on it may decide
_STAGE = "jumps"


def find_jumps(
    setting: Setting, gradients: Tensor, move: float, progress: Progress = silent
) -> Jumps | None:
    """What paired returns say of a pathwise gradient of the T-step return.

    Args:
        setting: with the horizon T, the starts and the seed of the gradients.
        gradients: G_i, [N, P], weights included.
        move: by which share of their size the user's update moves the actions.

    Returns:
        None where the mean gradient is 0 or not finite. What is said of slopes at a length is of
        the starts whose returns are finite there.
    """
    mean = gradients.mean(dim=0)
    if not (torch.isfinite(gradients).all() and float(mean.norm()) > 0):
        return None
    u, starts = mean / mean.norm(), setting.starts
    noise = starts.policy_noise(setting.policy, setting.seed, 0)
    size = own_size(setting.policy, starts.states, noise, u[None], starts.weight)
    eta = size * move * np.array(_MOVES)
    steps = [sign * k * u for sign in (1, -1) for k in eta]
    rollouts = Rollouts(setting, [(starts, steps)], _STAGE, progress)
    (returns,) = rollouts.until(setting.horizon)
    up, down = returns[1:].reshape(2, len(eta), -1)
    p = gradients @ u
    d = (up - down) / (2 * torch.from_numpy(eta).to(p)[:, None])
    e, kept = d - p, torch.isfinite(d)
    suspects, found, sizes, at, taken = _bisect(
        setting, u, float(eta[UPDATE]), p, e[UPDATE], down[UPDATE], up[UPDATE], progress
    )
    group = starts.group
    ends = [_gap(each[rows], p[rows], group[rows]) for each, rows in zip(e, kept, strict=True)]
    gap, low, high = (np.array(column) for column in zip(*ends, strict=True))
    roughness = float(_rms(p[kept[0]]) / _rms(d[0, kept[0]]).clamp(min=1e-300))
    at_update = float(low[UPDATE]), float(high[UPDATE])
    lost = tuple((~kept).sum(dim=1).tolist())
    kind = kind_of(roughness, len(found), gap, low, high, any(lost))
    missing = -1 if any(lost) else _missing(float(gap[UPDATE]), at_update, len(p))
    return Jumps(
        kind=kind,
        moves=move * np.array(_MOVES),
        lengths=eta,
        promised=float(p.mean()),
        brought=np.array([float(each[rows].mean()) for each, rows in zip(d, kept, strict=True)]),
        gap=gap,
        gap_low=low,
        gap_high=high,
        spread=float(_squares(e[0, kept[0]]) / _squares(e[UPDATE, kept[UPDATE]]).clamp(min=1e-300)),
        roughness=roughness,
        tried=suspects,
        starts=found.numpy(),
        states=starts.states[found].double().cpu().numpy(),
        sizes=np.asarray(sizes.numpy(), dtype=np.float64),
        at=at.numpy(),
        missing=missing if kind == "open" else 0,
        samples=len(p),
        horizon=setting.horizon,
        steps=rollouts.steps + taken,
        lost=lost,
    )


def truth_at_length(
    setting: Setting,
    truth: Truth,
    move: float,
    plain: Setting | None = None,
    temperature: float = 0.0,
    progress: Progress = silent,
) -> tuple[Truth, Jumps | None, dict[str, Tensor]]:
    """A truth after it was tried at the length of an update.

    Returns:
        The truth: one that is refuted has the status "jumps", or "score" where that of the score
        function takes its place, whose standard error is then below 1/4 of its norm. What the trial
        found; None without a pathwise gradient. Mean gradients [P] that are no truth, `PATHWISE`
        and `SCORE`, and are steps to be tried all the same.

    Args:
        setting: of the truth's starts, at the estimators' horizon.
        move: by which share of their size the user's update moves the actions.
        plain: without entropy, of all starts, and its temperature; None: the setting itself.
    """
    tried = truth.pathwise
    if tried is None:
        return truth, None, {}
    at_T = replace(setting, horizon=truth.horizon)
    jumps = find_jumps(at_T, tried.gradients, move, progress)
    if jumps is None or not jumps.refuted:
        return truth, jumps, {}
    none = replace(truth, status="jumps", first=None, every=None, refused=tried)
    beside = {PATHWISE: tried.gradients.mean(dim=0)}
    own = at_T if plain is None else replace(plain, horizon=truth.horizon)
    if missing := _without_score(own.policy):
        return replace(none, finding=Finding(missing, "fail")), jumps, beside
    G = score_gradients(own, temperature=temperature, pairs=_pairs(own), progress=progress)
    n, lost = len(G), int((~torch.isfinite(G).all(dim=1)).sum())
    if lost:
        why = Finding("truth_score_lost", "fail", "", lost, n=n)
        return replace(none, finding=why), jumps, beside
    by_score = precision_of(G, own.starts).at(1)
    if not by_score.precise:
        error, more = by_score.relative_se, by_score.missing
        why = Finding(
            "truth_score_imprecise", "undecided", "", error, threshold=PRECISION, n=n, more=more
        )
        return replace(none, finding=why), jumps, beside | {SCORE: G.mean(dim=0)}
    found = Finding("truth_score", "pass", "", truth.horizon, n=n)
    scored = replace(none, status="score", every=by_score, finding=found, checked=False)
    return scored, jumps, beside


def _without_score(policy: nn.Module) -> str:
    """The code of what a policy lacks for its score; "" where it has one."""
    if noise_dim(policy) == 0:
        return "truth_without_score"
    return "" if hasattr(policy, "log_prob") else "truth_without_density"


def _pairs(setting: Setting) -> int:
    """Of paths from each start: fewer where their states would not fit into memory."""
    width = setting.simulator.state_dim + setting.simulator.action_dim + 4
    held = 2 * setting.horizon * len(setting.starts.states) * width
    return max(2, min(PAIRS, int(_HELD / held)))


def _bisect(
    setting: Setting, u: Tensor, eta: float, p: Tensor, e: Tensor, down: Tensor, up: Tensor,
    progress: Progress,
) -> tuple[int, Tensor, Tensor, Tensor, int]:  # fmt: skip
    """Jumps of the returns of the starts whose slope at ±η is farthest from the promised one, of
    those whose returns are finite there.

    Returns:
        How many were suspected; the starts that jump, by how much, at which step; steps taken.
    """
    finite = torch.isfinite(e).nonzero()[:, 0]
    rows = finite[e[finite].abs().argsort(descending=True)[:SUSPECTS]]
    suspects, taken = len(rows), 0
    a, b = -eta * torch.ones_like(p[rows]), eta * torch.ones_like(p[rows])
    J_a, J_b = down[rows], up[rows]
    share = torch.arange(PARTS + 1).to(p) / PARTS
    left = p.new_zeros(0, suspects)
    for _ in range(ROUNDS):
        if not len(rows):
            break
        grid = a[:, None] + (b - a)[:, None] * share
        inner = grid[:, 1:-1]
        rewards, _, steps = _along(
            setting, u, rows.repeat_interleave(PARTS - 1), inner.flatten(), progress
        )
        taken += steps
        J = torch.cat([J_a[:, None], rewards.sum(dim=0).view_as(inner), J_b[:, None]], dim=1)
        residual = (J.diff(dim=1) - p[rows, None] * grid.diff(dim=1)).abs().nan_to_num(nan=-1.0)
        part = residual.argmax(dim=1, keepdim=True)
        left = torch.cat([left, residual.amax(dim=1)[None]])
        going = left[-1] > _SMOOTH * left[0]
        rows, left = rows[going], left[:, going]
        a, b, J_a, J_b = (
            x.gather(1, part + k)[going, 0] for x, k in ((grid, 0), (grid, 1), (J, 0), (J, 1))
        )
    if not len(rows):
        nothing = torch.zeros(0, dtype=torch.int64)
        return suspects, nothing, p.new_zeros(0), nothing, taken
    jumps = (
        (left[-1] > LEFT * left[0])
        & (left[-1] > KEPT * left[1])
        & (left[-1] > _NEGLIGIBLE * _rms((up - down)[finite]))
    )
    rows, sizes, ends = rows[jumps], left[-1, jumps], torch.cat([a[jumps], b[jumps]])
    at = torch.zeros(0, dtype=torch.int64)
    if len(rows):
        rewards, alive, steps = _along(setting, u, rows.repeat(2), ends, progress)
        at, taken = _where(rewards, alive, setting), taken + steps
    return suspects, rows, sizes, at, taken


def _along(
    setting: Setting, u: Tensor, rows: Tensor, lengths: Tensor, progress: Progress
) -> tuple[Tensor, Tensor, int]:
    """From start rows[j] with the policy at θ + lengths[j] u: γᵗ r_t [T, R], weights included,
    alive [T, R] after each step, steps taken."""
    starts, steps = setting.starts, []
    going = stepped(setting, [(starts, rows)], along(setting.policy, u, lengths))
    for t, step in enumerate(islice(going, setting.horizon)):
        steps.append(step)
        progress(_STAGE, t + 1, setting.horizon)
    paid, alive = (
        torch.stack(list(each)) for each in zip(*((s.paid, s.alive) for s in steps), strict=True)
    )
    return starts.weight[rows] * paid, alive, sum(step.running for step in steps)


def _where(rewards: Tensor, alive: Tensor, setting: Setting) -> Tensor:
    """The step at which two paths on both sides of a jump part: where one of them ends, else where
    their rewards [T, 2 C] differ most, [C]. All paths of one side come first."""
    (r_a, r_b), (alive_a, alive_b) = (both.chunk(2, dim=1) for both in (rewards, alive))
    parted = (alive_a != alive_b).int()
    gamma = setting.discount ** torch.arange(len(r_a)).to(r_a)
    at = ((r_a - r_b).abs() / gamma[:, None]).argmax(dim=0)
    if setting.termination != "mask":
        return at
    return torch.where(parted.any(dim=0), parted.argmax(dim=0), at)


def _gap(e: Tensor, p: Tensor, group: Tensor) -> tuple[float, float, float]:
    """E e / |E p| and the ends of its 95% interval, from sums over the groups of starts [n].

    v_g = (e_g − gap p_g)² linearises it; t has (Σ v)²/Σ v² degrees of freedom, few where few groups
    carry the spread. Nothing is known without a start.
    """
    if not len(p):
        return np.nan, -np.inf, np.inf
    _, label = torch.unique(group, return_inverse=True)
    brought, promised = by_group(torch.stack([e, p]), label)
    G, total = len(promised), promised.sum()
    gap = float(brought.sum() / total)
    apart = np.abs(brought - gap * promised)
    if G < 2 or not apart.sum() > 0:
        half = 0.0 if G > 1 else np.inf
    else:
        v = (apart / apart.max()) ** 2  # of what explodes the fourth power is none
        freedom = min(float(v.sum() ** 2 / (v**2).sum()), G - 1.0)
        half = student(freedom) * float(np.sqrt(v.sum() * G / (G - 1)) * apart.max() / abs(total))
    return gap, gap - half, gap + half


def _missing(gap: float, ends: tuple[float, float], n: int) -> int:
    """Further starts whose interval would be narrow enough to decide; −1 where nobody knows."""
    width = ends[1] - ends[0]
    if not np.isfinite(width):
        return -1
    far = max(abs(abs(gap) - HARMFUL), width / 20)  # that of a gap at the threshold is unknown
    times = width / _WIDTH if width > _WIDTH else width / 2 / far
    return int(np.ceil(n * times**2)) - n


def _squares(x: Tensor) -> Tensor:
    return x.square().sum()


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()
