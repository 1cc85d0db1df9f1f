"""What leaves nothing to decide from a probe's newest measurement on the task.

    reward   no reward but 0 on any path
    policy   a true gradient of exactly 0

A model that is exact is no such reason: its gradients compete, and that it is exact is said where
its Jacobians are (`verdicts.probe.measured`).

The scale of a critic takes returns, which `gradlab.measure` has and a probe's short paths have not.
"""

from __future__ import annotations

import numpy as np

from gradlab.runs.probe.results import ProbeRun


def void(run: ProbeRun) -> tuple[str, ...]:
    """Sentences, the first reason first; () where something can be decided."""
    if not run.measured:
        return ()
    row = {name: column[-1] for name, column in run.measured.items()}
    reasons = []
    if float(row.get("reward_max", np.nan)) == 0:
        reasons.append(
            "The reward is 0 on every path of the task so far: the true gradient is exactly 0, so "
            "nothing can be decided: mend the reward."
        )
    elif float(row.get("truth_norm", np.nan)) == 0:
        reasons.append(
            "The true gradient is exactly 0: this policy does not move the return, or the reward "
            "is constant, so nothing can be decided: look for a dead output or ignored actions."
        )
    return tuple(reasons)
