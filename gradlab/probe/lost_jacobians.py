"""Jacobians that are not finite in a few states: how many, where first, and what is next to it.

A user who masks such states wants to know what share of the batch goes with them, and whether a
contact or a limit makes them; who repairs them wants the state, and one beside it that works.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradlab.gradients.rollout import LinearizedPath
from gradlab.statistics.moments import Array

Flags = NDArray[np.bool_]


def lost(linear: LinearizedPath, simulator_flags: Tensor) -> dict[str, Any]:
    """Counts over all states of the path, and the first loss in words.

    Args:
        linear: with the Jacobians of the model in use; simulator_flags: [H, N], where the
            simulator's certificate failed.
    """
    J = np.concatenate([linear.A.numpy(), linear.B.numpy()], 3)
    rewards = np.concatenate([linear.r_s.numpy(), linear.r_a.numpy()], 2)
    bad = ~(np.isfinite(J).all((2, 3)) & np.isfinite(rewards).all(2))
    flagged = linear.flags.numpy() | simulator_flags.numpy()
    return {
        "jacobian_states": bad.size,
        "jacobian_nonfinite": int(bad.sum()),
        "jacobian_flagged": int(flagged.sum()),
        "starts_lost": int(bad.any(0).sum()),
        "nonfinite_where": _where(linear.path.states.numpy(), J, bad, flagged),
    }


def _where(states: Array, J: Array, bad: Flags, flagged: Flags) -> str:
    """The first loss; empty where there is none."""
    if not bad.any():
        return ""
    step, start = (int(each) for each in np.argwhere(bad)[0])
    place = f"first at step {step} of start {start}"
    if not np.isfinite(states[step, start]).all():
        coordinate = int(np.flatnonzero(~np.isfinite(states[step, start]))[0])
        return f"{place}, where coordinate {coordinate} of the state itself is not finite"
    entry = np.argwhere(~np.isfinite(J[step, start]))
    what = f"∂s′{entry[0][0]}/∂{_input(entry[0][1], J.shape[2])}" if len(entry) else "∂r"
    contact = ", its certificate flagged (contact or limit)" if flagged[step, start] else ""
    return f"{place}, {what}{contact}{_nearest(states, bad, step, start)}"


def _input(column: int, ds: int) -> str:
    return f"s{column}" if column < ds else f"a{column - ds}"


def _nearest(states: Array, bad: Flags, step: int, start: int) -> str:
    """The closest state whose Jacobians are finite, in spreads of the states."""
    rows = states[: len(bad)]
    sound = ~bad & np.isfinite(rows).all(2)
    if not sound.any():
        return ""
    spread = rows[sound].std(0)
    gaps = (rows[sound] - rows[step, start]) / np.where(spread > 0, spread, 1.0)
    distance = np.sqrt((gaps**2).mean(1))
    t, n = np.argwhere(sound)[distance.argmin()]
    return (
        f"; finite at step {t} of start {n}, {distance.min():.2g} standard deviations of the "
        f"states away"
    )
