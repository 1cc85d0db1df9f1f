"""What a comparison of Jacobians found: one long table, in one file.

Reading needs neither the task nor torch. The sections of the table:

    block        errors at the simulator's states: A, B, r_s, r_a, and of next_state and reward;
                 by root mean square and by the median over starts of their median step
    certificate  the estimated error of the simulator's own blocks, and the share that failed
    entry        output × input: error and size, standardised by what the path varies; effect of
                 the error on the policy gradient (BPTT, mean over starts), relative to its norm;
                 share, the square of that effect over the largest one's
    gradient     how many starts carry 90% of its summed norms
    time         errors, flagged and terminated share along the rollout
    distance     errors by distance from the nearest data (x)
    growth       mean ln σ_k of the chained Jacobians, k in `output`, loop in `block`
    exponent     finite-time Lyapunov exponents
    product      relative error of the model's chained product
    model_error  error of the model's own rollout
    horizon      what follows: steps and exponents that a reader decides from
"""

from __future__ import annotations

from gradlab.runs.long_table import LongTable

MEANING = {"A": "∂s'/∂s", "B": "∂s'/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a"}


class JacobianRun(LongTable):
    """What `compare_jacobians` found; its notes: counts of masked samples, first losses, laws,
    and what the test of the simulator's own derivatives says."""

    kind = "jacobians"
    noun = "comparison of Jacobians"


load = JacobianRun.load
