"""Jacobians, logs, remedies, races, sweeps."""

from gradlab.findings.finding import Code, register
from gradlab.wording import percent

# Tests of remedies; numbers are ratios, of the error, the bias or the time.
register({
    "remedy_lowers": Code("Error", "{subject} lowers the least error {value} ({at})."),
    "remedy_raises": Code("Error", "{subject} raises the least error {value} ({at})."),
    "remedy_alike": Code(
        "Error", "{subject} is not shown to change the least error: {value} ({at})."
    ),
    "remedy_unknown": Code("Error", "The least error with {subject} is not known ({at})."),
    "remedy_better": Code("Better", "{subject} lowers the error at h = {at}."),
    "remedy_worse": Code("Worse", "{subject} raises the error at h = {at}."),
    "remedy_variance": Code("Variance", "{subject} multiplies the variance by {value} at {at}."),
    "remedy_bias": Code("Bias", "{subject} multiplies the bias by {value} at {at}."),
    "remedy_price": Code("Price", "A step of fitting {subject} takes {value} the time."),
    "remedy_steps": Code(
        "Equal steps", "{subject} lowers the least error {value} at equal steps alone.",
    ),
    "remedy_optimiser": Code(
        "Optimiser", "As long a fit without {subject} lowers the least error {value}.",
        "Fit longer.",
    ),
    "remedy_truth": Code("Truth", "The truth is {subject} in {number} of {n} trials: {at}."),
    "remedy_policy": Code(
        "Policy", "The policy was fitted: {number} of the stabilising feedback.",
        "Give your own with --policy.", "note", percent,
    ),
})  # fmt: skip

# Races and steps.
register({
    "race_peak": Code(
        "Highest return", "The return along {subject} is highest after {at}: {value}."
    ),
    "race_lost": Code("Lost return", "The return along {subject} was lost."),
    "race_dropped": Code("Dropped", "Dropped {subject} after {at}: another one is better."),
    "no_seed": Code("Pairing", "Resets take no seed: {n} unpaired starts stand in."),
    "step_unsteady": Code(
        "Pairing", "One seed gives two returns: {n} unpaired starts stand in.",
        "Look for running averages in a wrapper, and for noise that no seed fixes.",
    ),
    "step_lost": Code("Lost actions", "Actions were not finite in {number} of {n} starts."),
    "step_cut": Code("Length", "{number} episodes did not end and were cut at {threshold} steps."),
    "step_same": Code("No change", "All {n} episodes are the same before and after."),
    "step_both_below": Code("Ridge", "The opposite step lowers the return, too.",
                            "Take shorter steps, unless the policy stands on a ridge."),
    "step_both_above": Code("Any move", "The opposite step raises the return, too."),
})  # fmt: skip

# Sweeps.
register({
    "run_failed": Code("Failed", "The run {subject} failed: {at}.", "Repeat with --resume.",
                       "error"),
})  # fmt: skip
