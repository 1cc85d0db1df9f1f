"""Columns of the table "vitals": norms, steps, actions and cost of the updates since the last row.

The first of them follow from a `Window` by the formula beside their unit; a new one is a row here,
at the end, since files keep this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradlab.runs.probe.columns import ProbeColumn, Window, column_means, mean

LAYER, ACTION = ("parameter",), ("action",)
CRITIC = {
    "critic_steps": ProbeColumn(unit="steps of the critic's optimiser since the last row"),
    "critic_looked": ProbeColumn(unit="of these: whose gradient was looked at"),
    "critic_stepped": ProbeColumn(unit="of these: whose step was looked at"),
    "critic_still": ProbeColumn(
        unit="of these: that left a tensor as it was, the least of all tensors"
    ),
    "critic_norm": ProbeColumn(unit="loss per parameter unit, mean over those looked at"),
    "critic_ratio": ProbeColumn(unit="|Δφ| / |φ|, mean over those whose step was looked at"),
    "critic_rate": ProbeColumn(unit="learning rate, the largest of the critic's parameters"),
}
VITALS: Mapping[str, ProbeColumn] = {
    "step": ProbeColumn(unit="as the loop counts", shared=True),
    "looked": ProbeColumn(unit="updates", shared=True, formula=lambda w: len(w.sizes)),
    "grad_norm": ProbeColumn(
        unit="loss per parameter unit, before clipping, window mean",
        formula=lambda w: mean(w.norms),
    ),
    "grad_norm_max": ProbeColumn(
        unit="loss per parameter unit",
        formula=lambda w: float(w.norms.max()) if len(w.norms) else np.nan,
    ),
    "marked": ProbeColumn(
        unit="1: gradients are those of `with probe(step)`, 0: the optimiser's", shared=True
    ),
    "update_ratio": ProbeColumn(
        unit="|Δθ| / |θ|, mean over every fourth update of the window",
        formula=lambda w: mean(w.ratios),
    ),
    "learning_rate": ProbeColumn(unit="the largest of the policy's parameters"),
    "layer_norm": ProbeColumn(
        LAYER,
        "loss per parameter unit, window mean",
        formula=lambda w: w.of_trained(column_means(w.sizes)),
    ),
    "layer_ratio": ProbeColumn(
        LAYER,
        "|Δθ| / |θ|, mean over every fourth update",
        formula=lambda w: column_means(w.layer_ratios),
    ),
    "nonfinite": ProbeColumn(
        LAYER, "updates", formula=lambda w: (~w.finite).sum(0).astype(np.float64)
    ),
    "nonfinite_updates": ProbeColumn(
        unit="updates", formula=lambda w: int((~w.finite).any(1).sum())
    ),
    "zero": ProbeColumn(
        LAYER,
        "updates with a gradient of exactly 0",
        formula=lambda w: w.of_trained((w.sizes == 0).sum(0)),
    ),
    "stepped": ProbeColumn(unit="updates whose step was looked at", formula=lambda w: len(w.moves)),
    "still": ProbeColumn(
        LAYER,
        "of these: updates that left the tensor exactly as it was",
        formula=lambda w: w.of_trained((w.moves[:, 0] == 0).sum(0)),
    ),
    "saturation": ProbeColumn(ACTION, "share of actions at their limit"),
    "attenuation": ProbeColumn(ACTION, "mean 1 − (a/limit)²: what a tanh at the end lets through"),
    "watched": ProbeColumn(unit="forward passes", shared=True),
    # gradlab's own learner keeps θ and the models apart, and records losses and returns itself.
    "model_gradients": ProbeColumn(
        unit="marked passes that left gradients on the prior model", user=True
    ),
    "model_shared": ProbeColumn(
        unit="tensors of the policy that the prior model holds, too", user=True
    ),
    "reaches": ProbeColumn(text=True),
    "critic_loss": ProbeColumn(unit="as noted by the loop, window mean", user=True),
    "episode_return": ProbeColumn(
        unit="reward, mean of the episodes noted in the window", user=True
    ),
    "due": ProbeColumn(text=True, user=True),
    **CRITIC,
    "own_seconds": ProbeColumn(unit="s spent by the probe so far", shared=True),
    "elapsed": ProbeColumn(unit="s since the first update", shared=True),
    "spent": ProbeColumn(unit="share of the time", shared=True),
}


def summed_up(window: Window) -> dict[str, Any]:
    """The numbers of a window, by column."""
    return {
        name: column.formula(window)
        for name, column in VITALS.items()
        if column.formula is not None
    }
