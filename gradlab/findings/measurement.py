"""What a measurement means: errors, horizons, growth, causes, choice, comparison."""

from gradlab.findings.finding import Code, register
from gradlab.wording import cosine, percent, share

_AT = ":{subject}, h = {at}, {value}."
_SET = ":{subject}, {value}; 95% set: {at}."
_PROMISED = ":{subject} brings {value} of the best gain, promised {threshold}."
_SHORTER = "Use a shorter horizon."

register({
    # Before all else.
    "interrupted": Code("interrupted", "Interrupted in {subject}: the rest is missing."),
    "starts_repeat": Code(
        "starts", "{number} of {threshold} starts repeat others and count once: N = {n}."
    ),
    "starts_trimmed": Code("starts", "Starts trimmed to the {at}: another question."),
    # Horizons and errors of one gradient.
    "usable_horizons": Code("usable horizons", ":{subject}, h = {at}."),
    "no_usable_horizon": Code("usable horizons", ":{subject}, none of h = {at}."),
    "best_horizon": Code("least error", ":{subject}, h = {number}, 95% set {at}."),
    "longest_horizon": Code("MSE over the least", _AT, "Shorten the horizon or the step."),
    "above_zero_gradient": Code("MSE over a zero gradient's", _AT, "Scale it down."),
    "batch_for_direction": Code("batch for cosine 0.9", _AT),
    "biased_direction": Code("cosine that bias leaves", _AT, write=cosine),
    "data_against_model": Code("MSE of the data gradient over the least"),
    "gradient_not_finite": Code(
        "not finite", ":{subject}, from h = {at} on.", _SHORTER, "error"
    ),
    # Growth.
    "variance_doubles": Code("doubling of the variance", _AT),
    "variance_doubles_as": Code(
        "doubling of the variance", f"{_AT[:-1]}; Lyapunov predicts {{threshold}}."
    ),
    "variance_power": Code("growth of the variance", ":{subject}, h^{number}, h = {at}."),
    "variance_slope": Code("slope of the log-variance", _AT),
    "heavy_tails": Code("tail index", _AT, "Intervals may be too narrow: measure more starts."),
    # Jumps, steps, updates, and what else competes.
    "jumps": Code(
        "jumps", "The return {subject} ({at}): steps bring {number}, promised {threshold}.",
        "These starts: `jumps.states`.", write=lambda x, _: f"{x:.3g}",
    ),
    "jumps_overflow": Code(
        "jumps", "The return overflows from {number} of {n} starts by moves of {at}."
    ),
    "steps_as_promised": Code("first order", "{number} steps bring what gradients promise."),
    "steps_bend": Code("return that bends", _PROMISED, write=share),
    "steps_elsewhere": Code(
        "first order", _PROMISED, "Gradients and returns are of different problems.", write=share
    ),
    "no_updates": Code("no updates made", remedy="Leave out `--no-rehearsal`."),
    "updates_hold": Code("updates until the critic's fit"),
    "updates_fall": Code(
        "updates", ":{number} along {subject} lower the return; {threshold} raise it."
    ),
    "few_judges": Code("few judging starts", ":{number} of {threshold}.", "Give `--judges 64`."),
    "step_lowers": Code("step that lowers the return"),
    "updates_of": Code("change of the return"),
    "larger_gain": Code("larger gain in one step", write=share),
    "critic_gain": Code("gain", write=share),
    "batch_gain": Code("gain of a batch", write=share),
    "gain_beyond": Code("gain with simulator states", write=share),
    # Causes of bias and variance.
    "fix": Code("bias that a fix removes", write=percent),
    "fix_unsized": Code("bias that a fix removes"),
    "fix_nothing": Code("no fix removes bias"),
    "fix_harms": Code("bias that a fix adds", write=percent),
    "cause": Code("cause of the bias", write=percent),
    "causes_cancel": Code("causes that cancel", ":{subject}, h = {at}."),
    "no_bias": Code("bias not known", ":{subject}, h = {at}."),
    "variance_cause": Code("cause of the variance", write=percent),
    "no_causes": Code("not attributed"),
    # Choice.
    "largest_gain": Code("largest gain", _SET, write=share),
    "least_error": Code("least MSE", _SET),
    "best_direction": Code("best cosine", _SET, write=cosine),
    "largest_return": Code("largest return of a step", _SET),
    "step_raises": Code("step that raises the return"),
    "step_falls": Code("step that lowers the return"),
    "updates_raise": Code("updates that raise the return"),
    "updates_lower": Code("updates that lower the return"),
    "returns_only": Code("no gain: returns decide"),
    "mixture": Code("weight in the mixture", write=percent),
    "mixture_error": Code("MSE over the best one's"),
    "mixture_cosine": Code("cosine beyond the best one's"),
    "no_mixture": Code("no mixture helps"),
    "mixture_against_rule": Code("MSE of measured weights"),
    "agreement": Code("cosine between gradients", write=cosine),
    "no_agreement": Code("pairs lost in noise"),
    "theory": Code("theory", ":{subject}, h* = {number} (RP-PGM 5.10; {at}).", severity="note"),
    "theory_outside": Code(
        "theory", ":{subject}, h* = {number}, not valid (RP-PGM 5.10; {at}).", severity="note"
    ),
    "theory_none": Code("theory", ":{subject}, no h* ({at}).", severity="note"),
    # Two measurements.
    "changed": Code("differences"),
    "unpaired": Code("not paired"),
    "less_compared": Code("not compared"),
    "error_ratio": Code("change of the least MSE"),
})  # fmt: skip
