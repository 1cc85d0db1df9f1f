"""Alarms that need no task: from the norms, actions and successive gradients of the loop itself.

    saturation    share − √(ln(1/level) / 2n) > ½    Hoeffding, n forward passes
    noise         share + t se < 1%                  successive gradients have next to nothing in
                                                     common, all recent bursts together

What is exact has no rate: a number that is not finite, a gradient of exactly 0 through a whole
window, a parameter of the model in the policy's update.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from gradlab.probe.look import Alarm, Look, Row, listed
from gradlab.statistics.successive import Signal, pooled

NOISE = 0.01  # share of a gradient's energy that is signal, below which its cosine is under 0.1
HALF = 0.5  # of the actions
FEWEST = 10  # looks: a head that begins at 0 blocks the first gradients only
RECENT = 16  # rows whose passes are judged together
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
    """Most actions at their limits, by the last rows together: late in a run one row has too few
    passes for the level that is left."""
    if not np.size(look.new.get("saturation", ())):
        return None
    rows = [row for row in look.rows[-RECENT:] if row.get("watched") and "saturation" in row]
    n = sum(int(row["watched"]) for row in rows)
    if not n:
        return None
    passes = np.array([[row["watched"]] for row in rows], dtype=np.float64)
    share = (passes * np.array([row["saturation"] for row in rows])).sum(axis=0) / n
    margin = sqrt(log(len(share) / look.level) / (2 * n))
    j = int(np.nanargmax(share)) if np.isfinite(share).any() else 0
    if not share[j] - margin > HALF:
        return None
    passed = np.asarray(look.new.get("attenuation", ()), dtype=np.float64)
    rest = f"{passed[j]:.1%} of" if len(passed) and np.isfinite(passed[j]) else "no"
    return Alarm(
        "saturated actor",
        f"{share[j]:.0%} of action {j} is at its limit (at least {share[j] - margin:.0%}, {n} "
        f"passes), where a tanh lets {rest} gradient through: lower the policy's gain or its "
        f"targets, or penalise actions before the tanh",
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
