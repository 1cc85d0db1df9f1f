"""Alarms: what a row of the probe says that a user should hear at once. Rows in, sentences out.

Every test has a false-alarm rate of at most `ALPHA` over a whole run, however often it is made:
look k is tested at level α / (k (k + 1)), which sums to α over all k (a union bound, so that looks
may depend on each other). One-sided, with estimates taken as normal unless said otherwise.

    doubling      ln-variance slope b:  b − z se > ln 2 / H           doubles within the horizon H,
                  exponential, not a power law, and H is not among what may be best (95%)
    noise         share + z se < 1%                                    cosine of a batch below 0.1
    critic        bias²(true dynamics) − ½ bias²(model) − z se > 0     the critic makes most of it
    bound         |mean Q| − z se > r_max / (1 − γ)                    promises what none can pay
    drift         ln error now − ln error at first − z se > 0          the prior's Jacobians lose
    saturation    share − √(ln(1/level) / 2n) > ½    (Hoeffding, n forward passes as independent)

What is exact has no rate: a number that is not finite, a gradient of exactly 0 through a whole
window, a parameter of the model in the policy's update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, sqrt
from typing import Any

import numpy as np
from scipy import stats

from gradlab.statistics.growth import DECISIVE
from gradlab.statistics.successive import Signal, pooled

ALPHA = 0.01
NOISE = 0.01  # share of a gradient's energy that is signal, below which its cosine is under 0.1
HALF = 0.5  # of the actions
FEWEST = 10  # looks: a head that begins at 0 blocks the first gradients only
POOL = 64  # bursts that are judged together
ROUNDING = 1e-6  # of a logarithm whose samples do not differ at all
PERSISTENT = 3  # bursts in which a column is dead
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Alarm:
    """One sentence that ends with what to do, and the kind by which it is rate-limited."""

    kind: str
    message: str


@dataclass(frozen=True)
class Look:
    """The rows of one table, the newest last, and what is needed to judge them.

    Attributes:
        count: rows of this table so far, those that are no longer here included.
        names: of the parameters.
    """

    rows: Sequence[Row]
    count: int
    names: Sequence[str] = ()

    @property
    def new(self) -> Row:
        return self.rows[-1]

    @property
    def level(self) -> float:
        """Probability of a false alarm at this look."""
        return ALPHA / (self.count * (self.count + 1))

    @property
    def z(self) -> float:
        return _quantile(self.count)

    def at(self, name: str) -> float:
        """A number of the newest row; NaN where it has none."""
        return float(self.new.get(name, np.nan))


@lru_cache(maxsize=4096)
def _quantile(count: int) -> float:
    return float(stats.norm.isf(ALPHA / (count * (count + 1))))


def examine(table: str, look: Look) -> list[Alarm]:
    """The alarms that the newest row of a table gives."""
    found = (test(look) for test in TESTS.get(table, ()))
    return [each for each in found if each is not None]


def nonfinite(look: Look) -> Alarm | None:
    """A gradient that is not finite."""
    lost = int(look.new.get("nonfinite_updates", 0))
    if not lost:
        return None
    where = _listed(np.asarray(look.new["nonfinite"]) > 0, look.names)
    return Alarm(
        "non-finite gradient",
        f"the gradient was not finite in {lost} of {int(look.at('looked'))} updates ({where}): "
        f"stop before it spreads, and look at the sample that is named beside this",
    )


def dead_parameters(look: Look) -> Alarm | None:
    """Tensors whose gradient was exactly 0 in every update of the window."""
    looked = int(look.new.get("looked", 0))
    dead = np.asarray(look.new.get("zero", ())) >= looked
    if looked < FEWEST or not dead.any():
        return None
    return Alarm(
        "dead path",
        f"the gradient of {_listed(dead, look.names)} was exactly 0 in all of {looked} updates: "
        f"nothing that the loss sees depends on it; look for a detach or a saturated layer",
    )


def saturated(look: Look) -> Alarm | None:
    """Most actions at their limits."""
    n = int(look.new.get("watched", 0))
    share = np.asarray(look.new.get("saturation", ()), dtype=np.float64)
    if not n or not len(share):
        return None
    margin = sqrt(log(1 / look.level) / (2 * n))
    j = int(np.nanargmax(share)) if np.isfinite(share).any() else 0
    if not share[j] - margin > HALF:
        return None
    return Alarm(
        "saturated actor",
        f"{share[j]:.0%} of action {j} is at its limit (at least {share[j] - margin:.0%}, {n} "
        f"passes), where no gradient gets through: lower the policy's gain or its targets",
    )


def model_trained(look: Look) -> Alarm | None:
    """θ and the model's parameters are not apart."""
    count, shared = int(look.new.get("model_gradients", 0)), int(look.new.get("model_shared", 0))
    if shared:
        return Alarm(
            "θ leaks into the model",
            f"{shared} tensors of the policy are also the prior model's: every policy update "
            f"changes the model; copy them",
        )
    if not count:
        return None
    return Alarm(
        "θ leaks into the model",
        f"the policy's backward pass left gradients on the prior model in {count} updates, and its "
        f"optimiser steps them: detach the model, or take it out of the optimiser",
    )


def noise(look: Look) -> Alarm | None:
    """A gradient without a signal, by all recent bursts."""
    found = pooled([_signal(row) for row in look.rows[-POOL:] if np.isfinite(row["share_se"])] or
                   [_signal(look.new)])  # fmt: skip
    top = found.share + look.z * found.se
    if not top < NOISE:
        return None
    return Alarm(
        "gradient no better than noise",
        f"at most {max(top, 0.0):.2%} of a gradient's squared norm is signal ({found.share:.2%} ± "
        f"{found.se:.2%}, {found.pairs} pairs of successive batches), so its cosine with the mean "
        f"is below {sqrt(NOISE):.1f}: use larger batches or a shorter horizon",
    )


def dead_inputs(look: Look) -> Alarm | None:
    """Inputs of the first layer whose weights have had no gradient in several bursts.

    Hidden units that never fire are counted in the rows, but a few of them are no alarm.
    """
    last = look.rows[-PERSISTENT:]
    counts = [int(row.get("dead_inputs", 0)) for row in last]
    if len(last) < PERSISTENT or not min(counts):
        return None
    return Alarm(
        "dead inputs",
        f"{min(counts)} columns of the first layer's weights had a gradient of exactly 0 in "
        f"{PERSISTENT} bursts ({look.new.get('dead_where', '')}): these inputs are always 0, or "
        f"cut off",
    )


def doubling(look: Look) -> Alarm | None:
    """Variance that doubles within the horizon."""
    slope, se = look.at("growth"), look.at("growth_se")
    horizon = np.shape(look.new.get("variance", ((),)))[1] - 1
    low, high = slope - look.z * se, slope + look.z * se
    # Variance also grows as more rewards are summed: that is no fault where it is not exponential,
    # nor while the longest horizon may still be best (NaN: no truth to choose a horizon by).
    sound = look.at("kept_high") >= horizon or not look.at("growth_evidence") > DECISIVE
    if not (horizon > 0 and low * horizon > log(2)) or sound:
        return None
    return Alarm(
        "variance doubling time",
        f"the variance of the model gradient doubles every {log(2) / slope:.2g} steps (between "
        f"{log(2) / high:.2g} and {log(2) / low:.2g}, {_starts(look)}), so {horizon} steps "
        f"multiply it by {exp(slope * horizon):.2g}: shorten the horizon",
    )


def critic_dominated(look: Look) -> Alarm | None:
    """A bias that the critic makes, not the model."""
    gap, se = look.at("critic_gap"), look.at("critic_gap_se")
    if not gap - look.z * se > 0:
        return None
    bias2 = np.asarray(look.new["bias2"])[:, -1]
    share = bias2[3] / bias2[1] if bias2[1] > 0 else np.inf
    return Alarm(
        "critic-dominated bias",
        f"with the simulator's own dynamics {share:.0%} of the model gradient's squared bias is "
        f"left at the longest horizon ({_starts(look)}; more than half is certain): improve the "
        f"critic before the model, or lengthen the horizon",
    )


def critic_beyond_bound(look: Look) -> Alarm | None:
    """A critic that promises more than all rewards together."""
    value, se, bound = (look.at(name) for name in ("value", "value_se", "return_bound"))
    if not abs(value) - look.z * se > bound:
        return None
    return Alarm(
        "critic beyond its bound",
        f"the critic's mean value is {value:.3g} ± {se:.2g} ({_starts(look)}), but the largest "
        f"reward seen, {look.at('reward_max'):.3g}, sums to at most {bound:.3g}: stop and refit it",
    )


def jacobian_drift(look: Look) -> Alarm | None:
    """A prior whose Jacobians are worse than when the run began."""
    known = [row for row in look.rows if np.isfinite(row.get("jacobian_error", np.nan))]
    if len(known) < 2:
        return None
    first, now = known[0], known[-1]
    gap = float(now["jacobian_error"] - first["jacobian_error"])
    se = sqrt(now["jacobian_error_se"] ** 2 + first["jacobian_error_se"] ** 2)
    if now is not look.new or not gap - look.z * se > ROUNDING:
        return None
    low, high = (exp(gap + sign * look.z * se) for sign in (-1, 1))
    return Alarm(
        "drifting model Jacobian",
        f"the prior's Jacobian error is {exp(gap):.2g} times what it was at step "
        f"{int(first['step'])} (between {low:.2g} and {high:.2g}, {_starts(look)}): where the "
        f"policy goes now the model is worse; refit it there",
    )


def dead_actions(look: Look) -> Alarm | None:
    """Actions that the differentiated system does not feel."""
    dead = np.asarray(look.new.get("dead_action", ())) > 0
    if not dead.any():
        return None
    which = ", ".join(map(str, np.flatnonzero(dead)))
    return Alarm(
        "dead action",
        f"∂f/∂a and ∂r/∂a of action {which} are exactly 0 at all states of {_starts(look)}: "
        f"the model does not feel it; look for a wrong index or a clip",
    )


TESTS: Mapping[str, tuple[Callable[[Look], Alarm | None], ...]] = {
    "vitals": (nonfinite, dead_parameters, saturated, model_trained),
    "successive": (noise, dead_inputs),
    "measured": (doubling, critic_dominated, critic_beyond_bound, jacobian_drift, dead_actions),
}


def _signal(row: Row) -> Signal:
    names = ("energy", "signal", "root_squares", "signal_share", "share_se")
    return Signal(int(row["pairs"]), *(float(row[name]) for name in names))


def _starts(look: Look) -> str:
    return f"{int(look.at('starts'))} starts"


def _listed(which: Any, names: Sequence[str]) -> str:
    """At most three names, and how many more."""
    found = [names[int(k)] if k < len(names) else f"parameter {k}" for k in np.flatnonzero(which)]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more
