"""The pilot of a measurement: how many starts, of how many steps, and what it says of a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradlab.statistics.strata import Strata
from gradlab.systems.system import System
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.scout import linearization_price

MANY, SOME, MOST = 30, 10, 1 << 16  # starts of the pilot per start of the sample, and in all
MORE = 4  # times as many where strata are drawn from it
_STEPS = 100  # of the pilot, or twice the horizon
DIRECTIONS, MOVED = 4, 0.04  # differences of a start, and the share by which actions are moved
SECONDS, MULTIPLIED = 3.0, 1.5e-10  # of a core for a pilot, and for one product of the policy
_OWN = 200  # products of a step itself, of a simulator whose Jacobians are cheap
ROWS = 8192  # starts of the pilot that are rolled out at once
FEWEST, FEW, SMALL = 8, 4, 128  # starts of a stratum, from N = SMALL on and below
HEAVY = 0.4  # share of a mean square that these may carry
RARE_ENDS, OF_ENDS = 0.05, 8  # starts whose episode ends: rare up to it, 1 of 8 of the sample
NEEDED, NEEDED_SMALL, NEEDED_PLAIN = 1.3, 2.0, 8.0  # of them in the sample, were it plain


@dataclass(frozen=True)
class PilotPlan:
    """Starts of a pilot, and of that from which strata are drawn; steps of each, and whether it
    takes differences."""

    size: int
    larger: int
    steps: int
    differences: bool

    @property
    def price(self) -> int:
        """Steps of the simulator."""
        return self.size * self.steps * (1 + 2 * DIRECTIONS * self.differences)


def plan_pilot(
    simulator: System, parameters: int, starts: int, horizon: int, discount: float
) -> PilotPlan:
    """The best score from the largest pilot that is affordable; the smallest one at least."""
    steps = min(effective_horizon(discount), max(2 * horizon, _STEPS))
    stencil = 2 * (simulator.state_dim + simulator.action_dim + 1)
    price = linearization_price(simulator) / stencil + MULTIPLIED * (_OWN + parameters)
    many = [max(min(each * starts, MOST), 2 * starts) for each in (MANY, SOME)]
    plans = [PilotPlan(size, size, steps, way) for way in (True, False) for size in many]
    plan = next((plan for plan in plans if plan.price * price <= SECONDS), plans[-1])
    larger = min(MORE * plan.size, max(MOST, plan.size))
    affordable = plan.price * price * larger / plan.size <= SECONDS
    return replace(plan, larger=larger) if affordable else plan


@dataclass(frozen=True, eq=False)
class Pilot:
    """Scores of a pilot, and what a sample has of them.

    Attributes:
        plan: of it; size: its starts.
        tail: share of Σ q² that 1 start in 100 carries; shape: Pareto k of q².
        ends: share of starts whose episode ends within its steps.
        random: policy or simulator are.
        unseen: share of Σ q² beyond the largest q of the sample.
        strata: of the sample; None: it is plain.
    """

    plan: PilotPlan
    size: int
    tail: float
    shape: float
    ends: float
    random: bool
    unseen: float = 0.0
    strata: Strata | None = None

    @property
    def rare(self) -> bool:
        """Do few starts carry much, or end?"""
        return self.tail > HEAVY or 0 < self.ends <= RARE_ENDS

    def needed(self, n: int) -> int:
        """Starts from which on ends of episodes are covered; 0 where N of them do."""
        plain = self.strata is None or self.random
        count = NEEDED_PLAIN if plain else NEEDED if n >= SMALL else NEEDED_SMALL
        if not self.ends > 0 or n * self.ends >= count:
            return 0
        least = (NEEDED_PLAIN if self.random else NEEDED) / self.ends
        return int(max(2 ** np.ceil(np.log2(least)), SMALL))


def recorded(pilot: Pilot) -> dict[str, object]:
    """As a file keeps it; of each stratum its share of the starts, and how many were measured."""
    strata = pilot.strata
    shares = [] if strata is None else (strata.times * strata.count / strata.count.sum()).tolist()
    return {
        "starts": pilot.size,
        "steps": pilot.plan.steps,
        "score": "differences" if pilot.plan.differences else "returns",
        "tail": pilot.tail,
        "shape": pilot.shape,
        "ends": pilot.ends,
        "unseen": pilot.unseen,
        "shares": shares,
        "counts": [] if strata is None else strata.count.astype(int).tolist(),
    }
