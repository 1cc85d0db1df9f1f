"""What logs and a model said without a simulator: one long table, in one file.

Reading needs neither the data nor torch. `block` names whose number it is, `step` a horizon or a
step, `output` a coordinate. The sections:

    policy      are the actions the policy's own? Standardised residuals, per action
    gradient    of "score" and "model" at every horizon: mean_norm, variance, cosine_self (of the
                mean with its own expectation); of the model also variance_critics and, where it
                sets in, variance_slope per step; of "whole" the score of the whole recorded return
    agreement   the model's gradient less the score's, of one and the same return ("same"), and of
                the whole recorded return ("whole"): bias2, relative_bias2, excess over what is
                called agreement, cosine, variance_ratio; none where the model's is exactly 0
    critic      per critic: Bellman residual, calibration against observed returns, values beyond
                the return bound
    direction   the model's directional derivatives against held-out neighbours, per output
    prediction  the model's error after k steps under the recorded actions
"""

from __future__ import annotations

from typing import ClassVar

from gradlab.runs.long_table import LongTable


class LogsRun(LongTable):
    """What `measure_logs` found; its notes: what was left out and why, laws of growth."""

    kind: ClassVar = "logs"
    called: ClassVar = "comparison of logs with a model"
    units: ClassVar = {"step": "steps", "n": "samples"}


load = LogsRun.load
