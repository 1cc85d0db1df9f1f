"""Alarms from gradients alone: of single updates, of a window, and of successive updates.

    noise         share + t se < 1%       successive gradients have next to nothing in common, all
                                          recent bursts together

t is Student's quantile at the test's level. What is exact has no rate: a number that is not finite,
a gradient of exactly 0 through a whole window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlab.probe.alarms.evidence import Alarm, AlarmTest, Evidence, Row, listed
from gradlab.statistics.successive import Signal, pooled

NOISE = 0.01  # share of a gradient's energy that is signal, below which its cosine is under 0.1
FEWEST = 10  # updates: a head that begins at 0 blocks the first gradients only
POOL = 64  # bursts that are judged together
PERSISTENT = 3  # bursts in which a column is dead
SHARED = 0.05  # of a batch, from which on the message mentions it
NONFINITE, ENDED = "non-finite gradient", "non-finite at the end"
ORIGIN, LOST_CRITIC = "origin of a non-finite gradient", "non-finite critic gradient"


def nonfinite(evidence: Evidence) -> str | None:
    """A gradient that is not finite."""
    lost = int(evidence.new["nonfinite_updates"])
    if not lost:
        return None
    where = listed(np.asarray(evidence.new["nonfinite"]) > 0, evidence.names)
    return (
        f"the gradient was not finite in {lost} of {int(evidence.at('looked'))} updates ({where}): "
        f"stop before it spreads, and look at the sample that is named beside this"
    )


def lost_now(sizes: Sequence[Any], names: Sequence[str]) -> Alarm:
    """The gradient of this update, as soon as it is lost."""
    where = listed(~np.isfinite([float(x) for x in sizes]), names) or "its norm"
    return Alarm(
        NONFINITE,
        f"the gradient of this update is not finite ({where}): stop before it spreads, and look "
        f"at the sample that is named beside this",
    )


def spoilt(
    what: str, which: Sequence[bool], names: Sequence[str], updates: int, since: int, origin: str,
    error: BaseException | None,
) -> Alarm:  # fmt: skip
    """What a loop leaves behind that is not finite.

    Args:
        what: is lost; which: of the tensors; since: the update that lost it first, < 1: not seen.
    """
    ended = "ended" if error is None else "died"
    text = f"the loop {ended} at update {updates}"
    text += "" if error is None else f" ({type(error).__name__})"
    text += f": {what} ({listed(np.array(which), names)})"
    step = "its step" if since == updates else f"the step of update {since}"
    text += f" since {step}" if since > 0 else ""
    return Alarm(ENDED, f"{text}; {origin}" if origin else text)


def dead_parameters(evidence: Evidence) -> str | None:
    """Tensors whose gradient was exactly 0 in every update of the window."""
    looked = int(evidence.new["looked"])
    dead = np.asarray(evidence.new["zero"]) >= looked
    if looked < FEWEST or not dead.any():
        return None
    return (
        f"the gradient of {listed(dead, evidence.names)} was exactly 0 in all of {looked} updates: "
        f"nothing that the loss sees depends on it; look for a detach or a saturated layer"
    )


def noise(evidence: Evidence) -> str | None:
    """Successive gradients without anything in common, by all recent bursts."""
    rows = [row for row in evidence.rows[-POOL:] if np.isfinite(row["share_se"])]
    if not rows:
        return None
    signal = pooled([signal_of(row) for row in rows])
    top = signal.share + evidence.reach(signal.pairs - 1) * signal.se
    if not top < NOISE:
        return None
    return (
        f"successive gradients have at most {max(top, 0.0):.2%} of their squared norm in common "
        f"({signal.share:.2%} ± {signal.se:.2%}, {signal.pairs} pairs{_overlap(evidence)}): each "
        f"is mostly noise, or undoes the step before; use {_less_noise(evidence.critic_alone)}"
    )


def _less_noise(critic_alone: bool) -> str:
    if critic_alone:
        return "larger batches or a smaller learning rate"
    return "larger batches, a smaller learning rate or a shorter horizon"


def dead_inputs(evidence: Evidence) -> str | None:
    """Inputs of the first layer whose weights have had no gradient in several bursts.

    Hidden units that never fire are counted in the rows, but a few of them are no alarm.
    """
    last = evidence.rows[-PERSISTENT:]
    counts = [int(row.get("dead_inputs", 0)) for row in last]
    if len(last) < PERSISTENT or not min(counts):
        return None
    columns = "column" if min(counts) == 1 else "columns"
    return (
        f"{min(counts)} {columns} of the first layer's weights had a gradient of exactly 0 in "
        f"{PERSISTENT} bursts ({evidence.new.get('dead_where', '')}): always 0, or cut off; look "
        f"at what the policy is given"
    )


def _overlap(evidence: Evidence) -> str:
    share = evidence.at("overlap")
    return f", batches that share {share:.0%} of their samples" if share > SHARED else ""


def signal_of(row: Row) -> Signal:
    """The signal of a row of "successive"."""
    return Signal(int(row.get("fresh", row["pairs"])), *(float(row[name]) for name in PRODUCTS))


PRODUCTS = ("energy", "signal", "root_squares", "signal_share", "share_se")
ALARMS = (
    AlarmTest(NONFINITE, "vitals", ("looked", "nonfinite", "nonfinite_updates"), nonfinite),
    AlarmTest("dead path", "vitals", ("looked", "zero"), dead_parameters),
    AlarmTest("gradient no better than noise", "successive", ("pairs", *PRODUCTS), noise),
    AlarmTest("dead inputs", "successive", ("dead_inputs",), dead_inputs),
)
