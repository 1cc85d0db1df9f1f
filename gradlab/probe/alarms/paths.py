"""Alarms from the model's paths of a mixture of horizons, in gradlab's own training loop.

ends early    share that reaches the longest horizon + √(ln(1/level) / 2n) < ½
              (Hoeffding's inequality, n paths as independent)
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from gradlab.probe.alarms.evidence import AlarmEvidence, AlarmTest

HALF = 0.5  # of the paths


def _ended_early(evidence: AlarmEvidence) -> str | None:
    """Most paths end before the longest horizon."""
    share = float(np.asarray(evidence.new["reached"]).reshape(-1)[-1])
    n = int(evidence.new["starts"])
    if not n or not share + sqrt(log(1 / evidence.level) / (2 * n)) < HALF:
        return None
    return (
        f"{share:.0%} of the model's paths last for the horizon {evidence.at('longest'):.0f} that "
        f"is asked for ({n} paths; certainly fewer than half), the mean one "
        f"{evidence.at('lasted'):.2g} steps: what is followed is a shorter horizon's gradient; "
        f"shorten it, or value states beyond terminal ones"
    )


ALARMS = (
    AlarmTest(
        "model paths end early",
        "horizons",
        ("reached", "lasted", "longest", "starts"),
        _ended_early,
    ),
)
