"""Steering on linear-quadratic worlds, where returns and the best policy are known.

    python -m analyses.steering worlds      one line of worlds.jsonl for every world and arm

A world is a random system, a prior whose A and B are off by some per cent, and a policy at a stage
between nothing and the optimum; its critic is exact but for an error that is drawn anew at each
fit, every 25 updates, or once. Worlds lie side by side in the leading axis W. All that is random is
the same for every arm: update k of fit f has its batch of starts, decision d of fit f its judges.

    J_n(θ) = −Σ_{t<n} γᵗ tr(C_W S_t) − γⁿ tr(C_Q [I; W] S_n [I; W]ᵀ),   S_{t+1} = F̂ S_t F̂ᵀ, a = W s

An `Arm` is what is tried (choice), after how many updates it is judged (lengths), whether nothing
may be better (hold), and whether what was judged is what is kept (adopt). Adam goes on throughout,
as in `gradlab train --steer`: a policy that is taken back comes with its moments. Share = (J − J_0)
/(J* − J_0) of the exact return, after every fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.fitting.policies import riccati_gain
from gradlab.systems.linear import LinearQuadratic

REFIT, FITS, COMPARED, JUDGES = 25, 8, 5, 16
HORIZONS, LENGTHS = (0, 1, 5, 25), (1, 5, 25)
GAMMA, T, BATCH = 0.95, 90, 64
STATE, ACTION = 4, 2
FITTED = GAUGED = 64 * T  # steps that a fit, and a gain, are charged
FLOOR = -1.0  # of a share: a lost run
SHOWN = (1, 2, 4, 8)  # fits after which shares are kept
WORLDS = 64  # of a family
FAMILIES = {  # first seed, prior off by, critics off by, the same error at every fit
    "mild": (15000, (0.05, 0.3), (0.05, 0.4), False),
    "hard": (16000, (0.1, 0.6), (0.1, 1.0), False),
    "mild, lasting": (17000, (0.05, 0.3), (0.05, 0.4), True),
    "hard, lasting": (18000, (0.1, 0.6), (0.1, 1.0), True),
    "mild, again": (25000, (0.05, 0.3), (0.05, 0.4), False),
    "hard, again": (26000, (0.1, 0.6), (0.1, 1.0), False),
}
EYE = torch.eye(STATE).double()


@dataclass(frozen=True)
class World:
    """A system, its prior, the first weight W, the error of critics, drawn once or at every fit,
    and the rate of Adam."""

    seed: int
    system: LinearQuadratic
    prior: LinearQuadratic
    weight: Tensor
    error: float
    rate: float
    lasting: bool = False


def world_of(seed: int, family: str = "hard") -> World:
    """Radius of the open loop 1.02 at most; prior and critics off as the family says."""
    generator = torch.Generator().manual_seed(seed)
    _, off_by, error_by, lasting = FAMILIES[family]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    A, B = normal(STATE, STATE), normal(STATE, ACTION) / 2
    A = A / torch.linalg.eigvals(A).abs().max() * between(0.85, 1.02)
    Q, R = torch.eye(STATE).double(), between(0.1, 1.0) * torch.eye(ACTION).double()
    none, off = torch.zeros(STATE, STATE).double(), between(*off_by)
    wrong = [X * (1 + off * normal(*X.shape)) for X in (A, B)]
    system, prior = LinearQuadratic(A, B, Q, R, none), LinearQuadratic(*wrong, Q, R, none)
    best = -riccati_gain(system, torch.zeros(STATE).double(), GAMMA)
    weight = between(0.2, 0.9) * best + 0.05 * normal(ACTION, STATE)
    rate = 0.04 * float(best.square().mean().sqrt()) * between(0.3, 1.0)
    return World(seed, system, prior, weight, between(*error_by), rate, lasting)


def worlds_of(family: str, many: int = WORLDS) -> Worlds:
    """The family's worlds whose first policy has a return."""
    first = FAMILIES[family][0]
    worlds = Worlds(tuple(world_of(seed, family) for seed in range(first, first + many)))
    alive = compute_value(worlds, worlds.weight).isfinite()
    return Worlds(tuple(world for world, on in zip(worlds.each, alive, strict=True) if on))


@dataclass(frozen=True, eq=False)
class Draws:
    """All that is random between two fits.

    Attributes:
        error: of the critics, [W, 6, 6]; batches, others: second moments of the starts of every
            update, and of a second set, [25, W, 4, 4]; judges: of every decision's, the same for
            all policies, [25, W, 4, 4]; own: of every policy's own, [13, W, 4, 4].
    """

    error: Tensor
    batches: Tensor
    others: Tensor
    judges: Tensor
    own: Tensor


@dataclass(frozen=True, eq=False)
class Worlds:
    """Worlds side by side."""

    each: tuple[World, ...]

    @cached_property
    def A(self) -> Tensor:
        return torch.stack([world.system.A for world in self.each])

    @cached_property
    def B(self) -> Tensor:
        return torch.stack([world.system.B for world in self.each])

    @cached_property
    def prior(self) -> tuple[Tensor, Tensor]:
        pairs = [(world.prior.A, world.prior.B) for world in self.each]
        return torch.stack([A for A, _ in pairs]), torch.stack([B for _, B in pairs])

    @cached_property
    def R(self) -> Tensor:
        return torch.stack([world.system.R for world in self.each])

    @cached_property
    def weight(self) -> Tensor:
        return torch.stack([world.weight for world in self.each])

    @cached_property
    def rate(self) -> Tensor:
        return torch.tensor([world.rate for world in self.each]).double()

    @cached_property
    def returns_of_best(self) -> Tensor:
        zero = torch.zeros(STATE).double()
        best = [-riccati_gain(world.system, zero, GAMMA) for world in self.each]
        return compute_value(self, torch.stack(best))

    @cache  # noqa: B019  a few sets of worlds a process
    def draws(self, fit: int) -> Draws:
        def moments(name: str, many: int, n: int) -> Tensor:
            each = []
            for world in self.each:
                shape, generator = (many, n, STATE), stream(world.seed, name, fit)
                states = torch.randn(*shape, generator=generator).double()
                each.append(states.mT @ states / n)
            return torch.stack(each, dim=1)

        both = STATE + ACTION
        errors = []
        for world in self.each:
            at = stream(world.seed, "critic", 0 if world.lasting else fit)
            drawn = torch.randn(both, both, generator=at).double()
            errors.append(world.error * (drawn + drawn.T) / both)
        return Draws(
            torch.stack(errors),
            moments("batches", REFIT, BATCH),
            moments("other batches", REFIT, BATCH),
            moments("judges", REFIT, JUDGES),
            moments("own judges", 1 + len(HORIZONS) * len(LENGTHS), JUDGES),
        )


def closed_loop(worlds: Worlds, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F = A + BW, Q + WᵀRW, and whether discounted returns exist, of weights [..., W, 2, 4]."""
    F = worlds.A + worlds.B @ weight
    alive = torch.linalg.eigvals(F.nan_to_num(1e6)).abs().amax(dim=-1) < GAMMA**-0.5
    return F, EYE + weight.mT @ worlds.R @ weight, alive & weight.isfinite().all(-1).all(-1)


def sum_discounted(F: Tensor, first: Tensor) -> Tensor:
    """X = first + γ F X Fᵀ, [..., 4, 4]."""
    squared = torch.einsum("...ij,...kl->...ikjl", F, F).flatten(-4, -3).flatten(-2, -1)
    eye = torch.eye(STATE**2).double()
    return torch.linalg.solve(eye - GAMMA * squared, first.flatten(-2)).unflatten(-1, (4, 4))


def cost_to_go(worlds: Worlds, weight: Tensor) -> tuple[Tensor, Tensor]:
    """P with V(s) = −sᵀPs, [..., W, 4, 4], zeros where there is none; and where there is one."""
    F, cost, alive = closed_loop(worlds, weight)
    one = alive[..., None, None]
    return sum_discounted(torch.where(one, F, 0.0).mT, torch.where(one, cost, 0.0)), alive


def compute_value(worlds: Worlds, weight: Tensor) -> Tensor:
    """The exact return from starts of unit covariance, [..., W]; −∞ where there is none."""
    P, alive = cost_to_go(worlds, weight)
    return torch.where(alive, -P.diagonal(dim1=-2, dim2=-1).sum(-1), -torch.inf)


def true_gradient(worlds: Worlds, weight: Tensor) -> Tensor:
    """∇_W of the exact return, [W, 2, 4], where there is one."""
    F, _, alive = closed_loop(worlds, weight)
    P, _ = cost_to_go(worlds, weight)
    visits = sum_discounted(torch.where(alive[..., None, None], F, 0.0), EYE.expand_as(F))
    return -2 * (worlds.R @ weight + GAMMA * worlds.B.mT @ P @ F) @ visits


def fit_critic(
    worlds: Worlds, weight: Tensor, fit: int, better: float = 1.0
) -> tuple[Tensor, Tensor]:
    """C with Q(s, a) = −(s, a)ᵀ C (s, a), off by the error of this fit [W, 6, 6]; where it is."""
    P, alive = cost_to_go(worlds, weight)
    both = torch.cat([worlds.A, worlds.B], dim=2)
    exact = GAMMA * both.mT @ P @ both
    exact[:, :STATE, :STATE] += EYE
    exact[:, STATE:, STATE:] += worlds.R
    error = worlds.draws(fit).error / better
    return exact + exact.flatten(1).norm(dim=1)[:, None, None] * error, alive


def model_gradient(
    worlds: Worlds, weight: Tensor, critic: Tensor, horizon: Tensor, moments: Tensor
) -> Tensor:
    """∇_W J_n of weights [C, W, 2, 4] at horizons [C, W], from starts of second moments [W, 4, 4],
    θ in all actions."""
    A, B = worlds.prior
    with torch.enable_grad():
        W = weight.detach().requires_grad_()
        F, S = A + B @ W, moments.expand(*W.shape[:2], STATE, STATE)
        both = torch.cat([EYE.expand_as(F), W], dim=-2)
        cost, tail = EYE + W.mT @ worlds.R @ W, both.mT @ critic @ both
        total = torch.zeros(()).double()
        for t in range(int(horizon.max()) + 1):
            paid = torch.where(t < horizon, (cost * S).sum(dim=(-2, -1)), 0.0)
            if t in HORIZONS:
                paid = paid + torch.where(t == horizon, (tail * S).sum(dim=(-2, -1)), 0.0)
            total = total - GAMMA**t * paid.sum()
            S = F @ S @ F.mT
        (found,) = torch.autograd.grad(total, W)
    return found


@dataclass(frozen=True, eq=False)
class Policy:
    """Weights [..., W, 2, 4] and Adam's moments of them, after as many updates of the run."""

    weight: Tensor
    mean: Tensor
    square: Tensor
    updates: int = 0

    def picked(self, index: Tensor) -> Policy:
        """Of every world the entry [W] along the first axis."""
        worlds = torch.arange(len(index))
        parts = (part[index, worlds] for part in (self.weight, self.mean, self.square))
        return Policy(*parts, self.updates)


def ascend(policy: Policy, gradient: Tensor, rate: Tensor) -> Policy:
    """One update of Adam with its defaults; a gradient that is not finite does nothing."""
    gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
    mean = 0.9 * policy.mean + 0.1 * gradient
    square = 0.999 * policy.square + 0.001 * gradient.square()
    k = policy.updates + 1
    step = (mean / (1 - 0.9**k)) / ((square / (1 - 0.999**k)).sqrt() + 1e-8)
    return Policy(policy.weight + rate[..., None, None] * step, mean, square, k)


def judged_return(worlds: Worlds, weight: Tensor, moments: Tensor) -> Tensor:
    """Mean return over T steps from starts of these second moments, [..., W]."""
    F, cost = worlds.A + worlds.B @ weight, EYE + weight.mT @ worlds.R @ weight
    P = torch.zeros_like(F)
    for _ in range(T):
        P = cost + GAMMA * F.mT @ P @ F
    return -(P * moments).sum(dim=(-2, -1)).nan_to_num(nan=torch.inf, posinf=torch.inf)


@dataclass(frozen=True)
class Arm:
    """
    Attributes:
        choice: what is tried next. "fixed": J_n of `horizon`; "first": the one of largest gain at
            the first fit; "gain": at every decision; "all"; "turn": the next one after a refusal.
        lengths: updates after which it is judged; the last: between two decisions.
        hold: the present policy is judged, too, and kept where it is the best.
        paired: the same judges for all; adopt: the judged policy is taken, else its horizon is
            followed for its length on other batches; halve: of the step after a refusal.
        decay: the rate falls to 0 on a line; better: critics' errors are divided by it, and fits
            cost its square; long: as many updates as the budget of steps buys, else 200.
    """

    choice: Literal["fixed", "first", "gain", "all", "turn"]
    lengths: tuple[int, ...] = (REFIT,)
    hold: bool = False
    horizon: int = 0
    paired: bool = True
    adopt: bool = True
    halve: bool = False
    decay: bool = False
    better: float = 1.0
    long: bool = True

    @property
    def judged(self) -> int:
        """Policies that a decision judges."""
        options = len(self.lengths) * (len(HORIZONS) if self.choice == "all" else 1)
        return options + self.hold if options + self.hold > 1 else 0

    @property
    def price(self) -> int:
        """Steps of the simulator between two fits, the fit included."""
        decisions = REFIT // self.lengths[-1]
        gauged = GAUGED * decisions if self.choice == "gain" else 0
        judged = decisions * self.judged * JUDGES * T
        return round(FITTED * self.better**2) + gauged + judged


ARMS: dict[str, Arm] = {
    **{f"fixed {n}": Arm("fixed", horizon=n) for n in HORIZONS},
    **{f"fixed {n}, hold": Arm("fixed", hold=True, horizon=n) for n in HORIZONS},
    "first": Arm("first"),
    "first, hold": Arm("first", hold=True),
    "first, lengths, hold": Arm("first", LENGTHS, hold=True),
    **{f"gain {k}": Arm("gain", (k,)) for k in LENGTHS},
    **{f"gain {k}, hold": Arm("gain", (k,), hold=True) for k in LENGTHS},
    "rehearse": Arm("all", LENGTHS, hold=True),
    "rehearse, no hold": Arm("all", LENGTHS),
    "rehearse, unpaired": Arm("all", LENGTHS, hold=True, paired=False),
    "rehearse, 25 only": Arm("all", hold=True),
    "rehearse, followed": Arm("all", LENGTHS, hold=True, adopt=False),
    "accept": Arm("turn", (COMPARED,), hold=True, halve=True),
    "accept, whole steps": Arm("turn", (COMPARED,), hold=True),
}
BUDGET = FITS * ARMS["rehearse"].price  # of the comparison at equal steps
BETTER = (ARMS["rehearse"].price / FITTED) ** 0.5  # critics, of as many steps as judging takes
KINDS = {  # what a fixed gradient may spend the steps on that judging takes
    "decay": Arm("fixed", decay=True, long=False),
    "long, decay": Arm("fixed", decay=True),
    "better critics": Arm("fixed", better=BETTER),
    "better critics, decay": Arm("fixed", better=BETTER, decay=True),
}
STRONGER = {
    f"fixed {n}, {kind}": replace(arm, horizon=n) for kind, arm in KINDS.items() for n in HORIZONS
}
AGAIN = {name: arm for name, arm in ARMS.items() if name[:5] == "fixed"} | STRONGER
AGAIN |= {name: ARMS[name] for name in ("rehearse", "accept")}


def fits_of(arm: Arm) -> int:
    """As many as the comparisons need: 8, and all that the budget of steps buys."""
    return max(FITS, BUDGET // arm.price) if arm.long else FITS


def arms_of(family: str) -> dict[str, Arm]:
    return AGAIN if family.endswith("again") else ARMS


def highest_gain(worlds: Worlds, policy: Policy, critic: Tensor, moments: Tensor) -> Tensor:
    """Place [W] of the horizon whose gradient points most along the true one."""
    horizons = torch.tensor(HORIZONS)[:, None].expand(-1, len(worlds.each))
    weight = policy.weight.expand(len(HORIZONS), *policy.weight.shape)
    tried = model_gradient(worlds, weight, critic, horizons, moments).flatten(2)
    true = true_gradient(worlds, policy.weight).flatten(1)
    return torch.cosine_similarity(tried, true[None], dim=2).argmax(dim=0)


def follow(
    worlds: Worlds, policy: Policy, critic: Tensor, place: Tensor, rate: Tensor,
    batches: Tensor, lengths: tuple[int, ...],
) -> Policy:  # fmt: skip
    """Policies [C · L, W] after each of the lengths along the horizons at these places [C, W]."""
    many, horizons = len(place), torch.tensor(HORIZONS)[place]
    start = (policy.weight, policy.mean, policy.square)
    now = Policy(*(part.expand(many, *part.shape) for part in start), policy.updates)
    kept = []
    for k in range(lengths[-1]):
        gradient = model_gradient(worlds, now.weight, critic, horizons, batches[k])
        now = ascend(now, gradient, rate)
        if k + 1 in lengths:
            kept.append(now)
    parts = zip(*((each.weight, each.mean, each.square) for each in kept), strict=True)
    return Policy(*(torch.stack(part, dim=1).flatten(0, 1) for part in parts), now.updates)


@torch.no_grad()
def run_arm(worlds: Worlds, arm: Arm, fits: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares [fits, W] after every fit, and the share of decisions [W] that held."""
    many, every = len(worlds.each), arm.lengths[-1]
    none = torch.zeros_like(worlds.weight)
    policy, rate = Policy(worlds.weight, none, none), worlds.rate
    place = torch.full((many,), len(HORIZONS) - 1)
    if arm.choice == "fixed":
        place = torch.full((many,), HORIZONS.index(arm.horizon))
    share, refused, decided, shares = torch.ones(many).double(), torch.zeros(many), 0, []
    for fit in range(fits):
        critic, alive = fit_critic(worlds, policy.weight, fit, arm.better)
        draws = worlds.draws(fit)
        for d in range(REFIT // every):
            rows = slice(d * every, (d + 1) * every)
            batches = draws.batches[rows]
            if arm.choice == "gain" or (arm.choice == "first" and not fit and not d):
                place = highest_gain(worlds, policy, critic, batches[0])
            places = place[None]
            if arm.choice == "all":
                places = torch.arange(len(HORIZONS))[:, None].expand(-1, many)
            left = 1 - policy.updates / (fits * REFIT) if arm.decay else 1.0
            moving = torch.where(alive, rate * share * left, 0.0)
            tried = follow(worlds, policy, critic, places, moving, batches, arm.lengths)
            best, held = torch.zeros(many, dtype=torch.long), ~alive
            if arm.judged:
                judges = draws.judges[d] if arm.paired else draws.own[1:]
                own = draws.judges[d] if arm.paired else draws.own[0]
                returns, best = judged_return(worlds, tried.weight, judges).max(dim=0)
                if arm.hold:
                    held = held | ~(returns > judged_return(worlds, policy.weight, own))
            if not arm.adopt:
                chosen = places[best // len(arm.lengths), torch.arange(many)][None]
                other = draws.others[rows]
                tried = follow(worlds, policy, critic, chosen, moving, other, arm.lengths)
                best = best % len(arm.lengths)
            taken, kept = tried.picked(best), held[:, None, None]
            policy = Policy(
                torch.where(kept, policy.weight, taken.weight),
                torch.where(kept, policy.mean, taken.mean),
                torch.where(kept, policy.square, taken.square),
                tried.updates,
            )
            if arm.choice == "turn":
                place = torch.where(held, (place + 1) % len(HORIZONS), place)
            if arm.halve:
                share = torch.where(held, share / 2, (1.3 * share).clamp_max(1.0))
            refused, decided = refused + held, decided + 1
        shares.append(share_of(worlds, policy.weight))
    return torch.stack(shares).numpy(), (refused / decided).numpy()


def share_of(worlds: Worlds, weight: Tensor) -> Tensor:
    """Of the improvement that the first policy leaves to the best one, [W]."""
    begin = compute_value(worlds, worlds.weight)
    return (compute_value(worlds, weight) - begin) / (worlds.returns_of_best - begin)
