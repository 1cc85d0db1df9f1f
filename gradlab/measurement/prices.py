"""Prices of the stages of long work, before it begins: work × seconds per piece of it.

The seconds come from a short timed probe (`measurement.machine_rates`). Of N starts, horizon H, P
parameters, a truth of T steps, K visited states per start:

    pilot                up to 10 to 120 N starts, returns of a hundred steps (`rare_starts`)
    truth                N T (Jacobian + its share of an explicit gradient)
    finite differences   min(N, 64) · 8 directions · 4 policies · T steps
    jumps                (6 N + 888) T steps, these 888 with a θ of each row's own
    estimators           N H (K + 1) Jacobians of a prior model, N H K of the simulator
    realised gains       15 N T steps and more     checks  15%     rehearsal  not known

Good to a factor of two where nothing else runs: T is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan

from gradlab.wording import duration

# Measured: what is made of an explicit gradient (norms, products, kernels) per gradient formed.
_PASSES = 2.5
_SHARE = 0.15  # checks, measured
_MOVED = 6  # returns of a start by which jumps are looked for
_CRITIC = 2  # updates of a policy in one of a critic, whose target is evaluated and moved, too
_BISECTED = 888  # and of those that are bisected
_STEPPED = 15  # returns of a start along the most important gradients


@dataclass(frozen=True)
class Price:
    """The predicted price of one stage.

    Attributes:
        work: the counts that it is made of, in words; empty where they are not known.
        seconds: NaN where it cannot be predicted.
        at_most: the stage may end earlier, as soon as its answer stands.
    """

    stage: str
    work: str = ""
    seconds: float = nan
    at_most: bool = False

    def __str__(self) -> str:
        if not isfinite(self.seconds):
            return ", ".join(filter(None, (self.work, "price unknown")))
        taken = f"{'at most' if self.at_most else 'about'} {duration(self.seconds)}"
        taken = "less than 1 s" if self.seconds < 1 else taken
        return ", ".join(filter(None, (self.work, taken)))


@dataclass(frozen=True)
class Rates:
    """Seconds that one piece of work takes here and now.

    Attributes:
        step: of policy and simulator, one state.
        moved: the same where every state has a θ of its own, as where jumps are bisected.
        jacobian, prior: the derivatives of simulator and prior model at one state; prior is 0
            where there is none.
        summed, gradient: what one state adds to an explicit gradient of θ, and one such gradient.
        update: one step of descent for a policy or a critic that is made.
    """

    step: float
    jacobian: float
    prior: float
    summed: float
    gradient: float
    update: float
    moved: float


@dataclass(frozen=True)
class MeasurementWork:
    """The counts of a measurement.

    Attributes:
        starts, horizon: N, H; truth: T, the steps that a truth is expected to take.
        visits: K, visited states per start; 0 where gradients are judged at the starts.
        estimators: how many differentiate the simulator, and how many a prior model.
        most_truth, most_visited: Jacobians that a dear simulator is asked for, at most.
        pilot: steps of a pilot for rare starts.
    """

    starts: int
    horizon: int
    truth: int
    visits: int
    through_simulator: int
    through_prior: int
    most_truth: float = inf
    most_visited: float = inf
    pilot: float = 0.0


def measurement(work: MeasurementWork, rates: Rates) -> tuple[Price, ...]:
    """The stages of `measure`, in order."""
    n, H = work.starts, work.horizon
    unrolled = min(n * work.truth, work.most_truth)
    every = bool(work.visits)  # θ in all actions, too, and an explicit truth
    truth = unrolled * (rates.jacobian + every * _PASSES * rates.summed)
    stepped = _differenced(n) * unrolled / n
    visited = min(n * H * max(work.visits, 1), work.most_visited)
    staying = min(n * H, visited) if every else 0
    # From the starts the simulator's own Jacobians are those of the truth's path.
    taken = visited * work.through_simulator + (visited + staying) * work.through_prior
    jacobians = visited * work.through_simulator * rates.jacobian
    jacobians += (visited + staying) * work.through_prior * rates.prior
    names = work.through_simulator + work.through_prior
    explicit = every * names * staying / max(H, 1) * (H + 1)
    estimators = jacobians + _PASSES * explicit * rates.gradient
    price = stepped * rates.step
    counted = f"{_many(stepped)} steps"
    tried = (_MOVED + _BISECTED / n) * unrolled
    bisected = unrolled * _BISECTED / n * rates.moved
    stages = [
        Price("pilot", f"{_many(work.pilot)} steps", work.pilot * rates.step),
        Price("truth", f"{_many(unrolled)} Jacobians", truth, at_most=True),
        Price("finite differences", counted, price, at_most=unrolled < n * work.truth),
        Price(
            "jumps",
            f"{_many(tried)} steps",
            _MOVED * unrolled * rates.step + bisected,
            at_most=True,
        ),
        Price(
            "estimators",
            f"{_many(taken)} Jacobians" + (f", {_many(explicit)} gradients" if explicit else ""),
            estimators,
        ),
        Price("realised gains", "", _STEPPED * unrolled * rates.step, at_most=True),
    ]
    so_far = sum(stage.seconds for stage in stages[1:])
    stages.append(Price("rehearsal"))
    if not every:
        left_out = ("jumps", "realised gains", "rehearsal")
        stages = [stage for stage in stages if stage.stage not in left_out]
    return (*stages, Price("checks", "", _SHARE * (so_far - bisected)))


def _differenced(starts: int) -> int:
    """Returns of all starts by which the truth is held against finite differences."""
    return min(starts, 64) * 8 * 4


def network(kind: str, steps: int, updates: int, rates: Rates) -> Price:
    """A policy or a critic that is made: simulator steps for its data, then updates."""
    work = f"{_many(steps)} steps, {_many(updates)} updates"
    dearer = _CRITIC if kind == "critic" else 1
    return Price(kind, work, steps * rates.step + updates * dearer * rates.update)


def left_after(prices: Sequence[Price], stage: str) -> float:
    """Predicted seconds of the stages planned after `stage`; NaN where one of them, or the stage's
    place in the plan, is unknown."""
    names = [price.stage for price in prices]
    if stage not in names:
        return nan
    return sum((price.seconds for price in prices[names.index(stage) + 1 :]), 0.0)


def _many(count: float) -> str:
    """Two significant digits, with separators: a price, not a count."""
    return f"{int(float(f'{count:.2g}')):,}"
