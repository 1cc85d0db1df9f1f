"""Jacobians, logs, remedies, races, sweeps."""

from gradlab.findings.finding import Code, register

# Races and steps.
register({
    "race_peak": Code("Highest return", "The return along {subject} is highest after {at}: {value}."),
    "race_lost": Code("Lost return", "The return along {subject} was lost."),
    "race_dropped": Code("Dropped", "Dropped {subject} after {at}: another one is better."),
    "race_unpaired": Code("Pairing", "Resets take no seed: {n} unpaired starts stand in."),
    "step_no_seed": Code("Pairing", "Resets take no seed: {n} unpaired starts stand in."),
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
