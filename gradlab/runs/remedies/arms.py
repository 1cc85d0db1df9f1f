"""The arms of a remedies' test: ways to make a model, each one thing away from the baseline.

The baseline, "nll", is fitted by likelihood. Under *equal steps* every arm takes as many steps of
the optimiser as the baseline; under *equal time* the baseline is fitted for as long as the arm was.
"""

from __future__ import annotations

from collections.abc import Mapping

BASELINE = "nll"
HALF = "half the rows"  # what "more-data" is compared with
SIMULATOR = "simulator"
STEPS, TIME = "equal steps", "equal time"

# In one line each, for lists and pages.
ABOUT: Mapping[str, str] = {
    "spectral": "layers of the model but the last held at spectral norm 1 (RP-PGM, appendix B.1)",
    "dd": "likelihood and directional derivatives to the nearest points, one model (DDPPO eq. 9)",
    "two-model": "states of the baseline, Jacobians of dd's model (DDPPO, Algorithm 1)",
    "multistep": "squared error along 5 steps of the model's own predictions (RP-PGM Fig. 6)",
    "mse": "squared error of one step in the place of the likelihood",
    "double-parameters": "hidden layers widened to twice the parameters (DDPPO Figs. 4 and 7)",
    "ensemble": "7 members in the place of one",
    "more-data": "the baseline against itself on half the rows",
    "sobolev": "likelihood and Jacobians of the simulator: the ceiling of losses on derivatives",
}
# At the beginning of a sentence, in the singular.
NAMES: Mapping[str, str] = {
    "spectral": "spectral normalisation",
    "dd": "the directional-derivative loss",
    "two-model": "a second model for the Jacobians",
    "multistep": "the multi-step loss",
    "mse": "squared error",
    "double-parameters": "twice the parameters",
    "ensemble": "an ensemble",
    "more-data": "doubling the rows",
    "sobolev": "a loss on the simulator's Jacobians",
}
DEFAULT = ("spectral", "dd", "multistep", "two-model")


def longer(arm: str) -> str:
    """The name of the baseline that was fitted for as long as an arm."""
    return f"{BASELINE} as long as {arm}"
