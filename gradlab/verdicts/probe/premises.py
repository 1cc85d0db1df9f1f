"""What leaves nothing to decide from a probe's newest measurement on the task.

    reward   no reward but 0 on any path
    policy   a true gradient of exactly 0
    model    Jacobians and biases that are exactly the simulator's

A loop that follows the critic alone has no model that its premises could be about.

The scale of a critic takes returns, which `gradlab.measure` has and a probe's short paths have not.
"""

from __future__ import annotations

import numpy as np

from gradlab.runs.probe.results import ProbeRun

TINY = np.log(1e-9)  # relative error of Jacobians that differ by rounding


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
    if not run.critic_alone and _same(run, row):
        reasons.append(
            "The model is the simulator itself, in derivatives and errors: it has no error to "
            "judge, so nothing can be decided about a model: give the one that you train with."
        )
    return tuple(reasons)


def _same(run: ProbeRun, row: dict[str, np.ndarray]) -> bool:
    names = list(run.estimators)
    if "model" not in names or "true_dynamics" not in names:
        return False
    bias = np.asarray(row.get("bias2", np.full((len(names), 1), np.nan)))
    own, true = bias[names.index("model"), 1:], bias[names.index("true_dynamics"), 1:]
    known = np.isfinite(own) & np.isfinite(true)
    close = np.allclose(own[known], true[known], rtol=1e-6, atol=0.0)
    return bool(known.any()) and close and float(row.get("jacobian_error", np.nan)) < TINY
