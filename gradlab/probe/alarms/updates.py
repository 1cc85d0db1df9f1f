"""Alarms that need no task: from the norms, actions and successive gradients of the loop itself.

    saturation    share − √(ln(1/level) / 2n) > ½    Hoeffding, n forward passes, and every of the
                                                     last 16 rows > ½
    noise         share + t se < 1%                  successive gradients have next to nothing in
                                                     common, all recent bursts together

What is exact has no rate: a number that is not finite, a gradient of exactly 0 through a whole
window, a parameter of the model in the policy's update, a tanh that has let under 2% of the
gradient through since the first window.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.probe.alarms.evidence import Alarm, Look, Row, listed
from gradlab.statistics.successive import Signal, pooled

NOISE = 0.01  # share of a gradient's energy that is signal, below which its cosine is under 0.1
HALF = 0.5  # of the actions
FEWEST = 10  # looks: a head that begins at 0 blocks the first gradients only
RECENT = 16  # rows whose passes are judged together
BORN = 0.02  # of the gradient through a tanh, in a window in which sound actors let 5% or more
FULL = 0.99  # of the actions at their limits
COST = 0.1  # of it, above which a saturated actor still learns
POOL = 64  # bursts that are judged together
PERSISTENT = 3  # bursts in which a column is dead
SHARED = 0.05  # of a batch, from which on the sentence mentions it


def nonfinite(look: Look) -> Alarm | None:
    """A gradient that is not finite."""
    lost = int(look.new.get("nonfinite_updates", 0))
    if not lost:
        return None
    where = listed(np.asarray(look.new["nonfinite"]) > 0, look.names)
    return Alarm(
        "non-finite gradient",
        f"the gradient was not finite in {lost} of {int(look.at('looked'))} updates ({where}): "
        f"stop before it spreads, and look at the sample that is named beside this",
    )


def lost_now(sizes: Sequence[Any], names: Sequence[str]) -> Alarm:
    """The gradient of this update, as soon as it is lost."""
    where = listed(~np.isfinite([float(x) for x in sizes]), names) or "its norm"
    return Alarm(
        "non-finite gradient",
        f"the gradient of this update is not finite ({where}): stop before it spreads, and look "
        f"at the sample that is named beside this",
    )


def dead_parameters(look: Look) -> Alarm | None:
    """Tensors whose gradient was exactly 0 in every update of the window."""
    looked = int(look.new.get("looked", 0))
    dead = np.asarray(look.new.get("zero", ())) >= looked
    if looked < FEWEST or not dead.any():
        return None
    return Alarm(
        "dead path",
        f"the gradient of {listed(dead, look.names)} was exactly 0 in all of {looked} updates: "
        f"nothing that the loss sees depends on it; look for a detach or a saturated layer",
    )


def saturated(look: Look) -> Alarm | None:
    """Actions at their limits since the run began, or most of them for `RECENT` rows.

    Sound actors saturate within tens of updates while their critic is young, and come back.
    """
    if not np.size(look.new.get("saturation", ())):
        return None
    rows = [row for row in look.rows[-RECENT:] if row.get("watched") and "saturation" in row]
    n = sum(int(row["watched"]) for row in rows)
    if not n:
        return None
    passes = np.array([[row["watched"]] for row in rows], dtype=np.float64)
    shares = np.array([row["saturation"] for row in rows], dtype=np.float64)
    share = (passes * shares).sum(axis=0) / n
    margin = sqrt(log(len(share) / look.level) / (2 * n))
    passed = _passed(look.new, len(share))
    lasted = (len(rows) == RECENT) & (shares > HALF).all(axis=0) & ~(passed > COST)
    begun = (passed < BORN) & (_passed(look.rows[0], 1) < BORN)
    begun |= np.isnan(passed) & (shares > FULL).all(axis=0)  # the loop does not say what passes
    born = begun & (look.count == len(look.rows)) & (share - margin > HALF)
    bad = born | (lasted & (share - margin > HALF))
    if not bad.any():
        return None
    j = int(np.argmax(np.where(bad, share, -1.0)))
    since = "since the run began" if born[j] else f"at least {share[j] - margin:.0%}"
    rest = f"{passed[j]:.1%} of" if np.isfinite(passed[j]) else "no"
    return Alarm(
        "saturated actor",
        f"{share[j]:.0%} of action {j} is at its limit ({since}, {n} passes), where a tanh lets "
        f"{rest} gradient through: lower the policy's gain or its targets, or penalise actions "
        f"before the tanh",
    )


def _passed(row: Row, actions: int) -> NDArray[np.float64]:
    """What a tanh lets through by action; NaN where it is not known."""
    return np.asarray(row.get("attenuation", np.full(actions, np.nan)), dtype=np.float64)


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
    """Successive gradients without anything in common, by all recent bursts."""
    known = [row for row in look.rows[-POOL:] if np.isfinite(row["share_se"])]
    if not known:
        return None
    found = pooled([signal_of(row) for row in known])
    top = found.share + look.reach(found.pairs - 1) * found.se
    if not top < NOISE:
        return None
    return Alarm(
        "gradient no better than noise",
        f"successive gradients have at most {max(top, 0.0):.2%} of their squared norm in common "
        f"({found.share:.2%} ± {found.se:.2%}, {found.pairs} pairs{_overlap(look)}): each is "
        f"mostly noise, or undoes the step before; use larger batches, a smaller learning rate or "
        f"a shorter horizon",
    )


def dead_inputs(look: Look) -> Alarm | None:
    """Inputs of the first layer whose weights have had no gradient in several bursts.

    Hidden units that never fire are counted in the rows, but a few of them are no alarm.
    """
    last = look.rows[-PERSISTENT:]
    counts = [int(row.get("dead_inputs", 0)) for row in last]
    if len(last) < PERSISTENT or not min(counts):
        return None
    columns = "column" if min(counts) == 1 else "columns"
    return Alarm(
        "dead inputs",
        f"{min(counts)} {columns} of the first layer's weights had a gradient of exactly 0 in "
        f"{PERSISTENT} bursts ({look.new.get('dead_where', '')}): always 0, or cut off; look at "
        f"what the policy is given",
    )


def _overlap(look: Look) -> str:
    share = look.at("overlap")
    return f", batches that share {share:.0%} of their samples" if share > SHARED else ""


def signal_of(row: Row) -> Signal:
    """What a row of "successive" says."""
    names = ("energy", "signal", "root_squares", "signal_share", "share_se")
    return Signal(int(row.get("fresh", row["pairs"])), *(float(row[name]) for name in names))
