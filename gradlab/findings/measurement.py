"""What a measurement means: errors, horizons, growth, causes, choice, comparison."""

from gradlab.findings.finding import Code, register
from gradlab.wording import cosine, percent, share


def _three(value: float, digits: int) -> str:
    return f"{value:.3g}"


_STEP = "A step along {subject} brings {value} of the best gain, promised {threshold}"
_OF = "the squared bias of {at}"
_SET = "{value}; 95% set: {at}"

register({
    # Before all else.
    "interrupted": Code("stage", "Interrupted in {subject}: what comes from there on is missing."),
    "starts_repeat": Code(
        "starts", "{number} of {threshold} starts repeat others and count once: N = {n}."
    ),
    "starts_trimmed": Code(
        "starts", "Starts trimmed to the {at} of their law: another question than the task's own "
        "starts.",
    ),
    # Horizons and errors of one gradient.
    "usable_horizons": Code("usable horizons", "{subject} is usable at h = {at}."),
    "no_usable_horizon": Code("usable horizons", "{subject} is usable at none of h = {at}."),
    "best_horizon": Code("best horizon", "{subject} errs least at h = {number}, 95% set {at}."),
    "longest_horizon": Code(
        "longest horizon", "{subject} at h = {at} has {value} its least MSE.",
        "Shorten the horizon, or scale the step down.",
    ),
    "above_zero_gradient": Code(
        "error", "{subject} at h = {at} has {value} the MSE of a zero gradient.", "Scale it down."
    ),
    "batch_for_direction": Code("batch", "{value} samples give {subject} at h = {at} cosine 0.9."),
    "biased_direction": Code(
        "direction", "Bias leaves {subject} at h = {at} a cosine of {value}.", write=cosine
    ),
    "data_against_model": Code(
        "data gradient", "The data gradient has {value} the least MSE of {subject}."
    ),
    "gradient_not_finite": Code(
        "finite gradients", "{subject} is not finite from h = {at} on.", "Use a shorter horizon.",
        "error",
    ),
    # Growth.
    "variance_doubles": Code(
        "growth", "The variance of {subject} doubles every {value}, h = {at}."
    ),
    "variance_doubles_as": Code(
        "growth", "The variance of {subject} doubles every {value}, h = {at}; Lyapunov predicts "
        "{threshold}.",
    ),
    "variance_power": Code("growth", "The variance of {subject} grows like h^{number}, h = {at}."),
    "variance_slope": Code(
        "growth", "The log-variance of {subject} changes by {value} per step, h = {at}."
    ),
    "heavy_tails": Code(
        "tails", "Few starts carry {subject} at h = {at}: tail index {number}, limit {threshold}.",
        "Intervals may be too narrow: measure more starts.",
    ),
    # Jumps, steps, updates, and what else competes.
    "jumps": Code(
        "jumps", "The return {subject} ({at}): its gradient's steps bring {number} per unit, "
        "promised {threshold}.", "These starts: `jumps.states`.", write=_three,
    ),
    "jumps_overflow": Code(
        "jumps", "The return overflows from {number} of {n} starts where actions move by {at}."
    ),
    "steps_as_promised": Code("first order", "{number} steps bring what gradients promise."),
    "steps_bend": Code("first order", f"{_STEP}: the return bends.", write=share),
    "steps_elsewhere": Code(
        "first order", f"{_STEP}.", "Gradients and returns are of different problems.", write=share
    ),
    "no_updates": Code(
        "updates", "No update along {subject} was made.", "Leave out `--no-rehearsal`."
    ),
    "updates_hold": Code("updates", "{subject} holds until the critic's next fit."),
    "updates_fall": Code(
        "updates", "{number} updates along {subject} lower the return; {threshold} raise it."
    ),
    "few_judges": Code(
        "updates", "{number} judging starts are fewer than {threshold}.", "Give `--judges 64`."
    ),
    "step_lowers": Code("updates", "One step along {subject} lowers the return."),
    "updates_of": Code("updates", "{at} along {subject} change the return by {value}."),
    "larger_gain": Code(
        "one step", "{subject} gains more in one step, {value}, not shown over updates.",
        write=share,
    ),
    "critic_gain": Code("critic", "{subject} gains {value} of the best step.", write=share),
    "batch_gain": Code("batch", "A batch of {at} gains {value} of the best step.", write=share),
    "gain_beyond": Code(
        "simulator states", "With simulator states {subject} gains {value}.", write=share
    ),
    # Causes of bias and variance.
    "fix": Code("causes", f"Fixing {{subject}} lowers {_OF} by {{value}}.", write=percent),
    "fix_unsized": Code("causes", f"Fixing {{subject}} lowers {_OF}."),
    "fix_nothing": Code("causes", f"Fixing one or two causes never lowers {_OF}."),
    "fix_harms": Code(
        "causes", f"{{subject}} fixed alone raises {_OF} by {{value}}.", write=percent
    ),
    "cause": Code("causes", f"{{subject}} makes {{value}} of {_OF}.", write=percent),
    "causes_cancel": Code("causes", "Causes cancel in {subject} at h = {at}."),
    "no_bias": Code("causes", "The squared bias of {subject} at h = {at} is not told from 0."),
    "variance_cause": Code(
        "causes", "{subject} makes {value} of the variance of {at}.", write=percent
    ),
    "no_causes": Code("causes", "{subject} is not attributed: {at}."),
    # Choice.
    "largest_gain": Code("gain", f"{{subject}} has the largest gain, {_SET}.", write=share),
    "least_error": Code("error", f"{{subject}} has the least MSE, {_SET}."),
    "best_direction": Code("direction", f"{{subject}} has the best cosine, {_SET}.", write=cosine),
    "largest_return": Code("return", f"A step along {{subject}} adds most, {_SET}."),
    "step_raises": Code("one step", "A step along {subject} raises the return ({at})."),
    "step_falls": Code("one step", "A step along {subject} lowers the return ({at})."),
    "updates_raise": Code("updates", "{at} along {subject} raise the return."),
    "updates_lower": Code("updates", "{at} along {subject} lower the return."),
    "returns_only": Code("gain", "Not compared by gain: only returns count."),
    "mixture": Code("weights", "The weight of {subject} is {value}.", write=percent),
    "mixture_error": Code("weights", "Mixed, {value} the MSE of the best one."),
    "mixture_cosine": Code("weights", "Mixed, {value} more cosine than the best one."),
    "no_mixture": Code("weights", "No mixture of {subject} points along the truth."),
    "mixture_against_rule": Code("weights", "Measured weights have {value} the MSE of the {at}."),
    "agreement": Code(
        "agreement", "The cosine between {subject} is {value} at {at}.", write=cosine
    ),
    "no_agreement": Code("agreement", "{number} pairs of gradients are lost in noise."),
    "not_competing": Code("choice", "{subject} does not compete: {at}."),
    "theory": Code(
        "theory", "RP-PGM 5.10 has h* = {number} for {subject} ({at}).", severity="note"
    ),
    "theory_outside": Code(
        "theory", "RP-PGM 5.10 has h* = {number} for {subject}, and does not apply ({at}).",
        severity="note",
    ),
    "theory_none": Code(
        "theory", "RP-PGM 5.10 has no h* for {subject}: {at}.", severity="note"
    ),
    # Two measurements.
    "changed": Code("change", "{subject} differ in {at}."),
    "unpaired": Code("change", "Not paired, {at}: both errors add."),
    "less_compared": Code("change", "Not compared: {at}."),
    "error_ratio": Code("error", "The least MSE of {subject} becomes {value} {at}."),
    "preferred": Code("comparison", "{subject}: prefer {at}."),
})  # fmt: skip
