"""What a measurement means: errors, horizons, growth, causes, choice, comparison."""

from gradlab.findings.finding import Code, Severity, register
from gradlab.wording import Writer, cosine, percent, share


def _on(
    title: str, sentence: str, remedy: str = "", severity: Severity = "warning",
    write: Writer = Code.write,
) -> Code:  # fmt: skip
    """A code whose sentence ends with its samples."""
    return Code(title, f"{sentence} (N = {{n}}).", remedy, severity, write)


def _three(value: float, digits: int) -> str:
    return f"{value:.3g}"


_STEP = "A step along {subject} brings {value} of the best gain, promised {threshold}"
_SHORTER = "Use a shorter horizon."
_OF = "the squared bias of {at}"
_SET = "{value}; 95% set: {at}"

register({
    # Horizons and errors of one gradient.
    "usable_horizons": _on("usable horizons", "{subject} is usable at h = {at}"),
    "no_usable_horizon": _on("usable horizons", "{subject} is usable at none of h = {at}"),
    "best_horizon": _on("best horizon", "{subject} errs least at h = {number}, 95% set {at}"),
    "longest_horizon": _on(
        "longest horizon", "{subject} at h = {at} has {value} its least MSE", _SHORTER
    ),
    "above_zero_gradient": _on(
        "error", "{subject} at h = {at} has {value} the MSE of a zero gradient", "Scale it down."
    ),
    "batch_for_direction": _on("batch", "{value} samples give {subject} at h = {at} cosine 0.9"),
    "biased_direction": _on(
        "direction", "Bias leaves {subject} at h = {at} a cosine of {value}", write=cosine
    ),
    "data_against_model": _on(
        "data gradient", "The data gradient has {value} the least MSE of {subject}"
    ),
    "gradient_not_finite": _on(
        "finite gradients", "{subject} is not finite from h = {at} on", _SHORTER, "error"
    ),
    # Growth.
    "variance_doubles": _on("growth", "The variance of {subject} doubles every {value}, h = {at}"),
    "variance_doubles_as": _on(
        "growth", "The variance of {subject} doubles every {value}, h = {at}; Lyapunov predicts "
        "{threshold}",
    ),
    "variance_power": _on("growth", "The variance of {subject} grows like h^{number}, h = {at}"),
    "variance_slope": _on(
        "growth", "The log-variance of {subject} changes by {value} per step, h = {at}"
    ),
    "heavy_tails": _on(
        "tails", "Few starts carry {subject} at h = {at}: tail index {number}, limit {threshold}",
        "Intervals may be too narrow: measure more starts.",
    ),
    # Jumps, steps, updates, and what else competes.
    "jumps": _on(
        "jumps", "The return {subject} ({at}): its gradient's steps bring {number} per unit, "
        "promised {threshold}", "These starts: `jumps.states`.", write=_three,
    ),
    "jumps_overflow": Code(
        "jumps", "The return overflows from {number} of {n} starts where actions move by {at}."
    ),
    "steps_as_promised": _on("first order", "{number} steps bring what gradients promise"),
    "steps_bend": _on("first order", f"{_STEP}: the return bends", write=share),
    "steps_elsewhere": _on(
        "first order", _STEP, "Gradients and returns are of different problems.", write=share
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
    "updates_of": _on("updates", "{at} along {subject} change the return by {value}"),
    "larger_gain": _on(
        "one step", "{subject} gains more in one step, {value}, not shown over updates", write=share
    ),
    "critic_gain": _on("critic", "{subject} gains {value} of the best step", write=share),
    "batch_gain": _on("batch", "A batch of {at} gains {value} of the best step", write=share),
    "gain_beyond": _on(
        "simulator states", "With simulator states {subject} gains {value}", write=share
    ),
    # Causes of bias and variance.
    "fix": _on("causes", f"Fixing {{subject}} lowers {_OF} by {{value}}", write=percent),
    "fix_unsized": _on("causes", f"Fixing {{subject}} lowers {_OF}"),
    "fix_nothing": _on("causes", f"Fixing one or two causes never lowers {_OF}"),
    "fix_harms": _on("causes", f"{{subject}} fixed alone raises {_OF} by {{value}}", write=percent),
    "cause": _on("causes", f"{{subject}} makes {{value}} of {_OF}", write=percent),
    "causes_cancel": _on("causes", "Causes cancel in {subject} at h = {at}"),
    "no_bias": _on("causes", "The squared bias of {subject} at h = {at} is not told from 0"),
    "variance_cause": _on(
        "causes", "{subject} makes {value} of the variance of {at}", write=percent
    ),
    "no_causes": Code("causes", "{subject} is not attributed: {at}."),
    # Choice.
    "largest_gain": _on("gain", f"{{subject}} has the largest gain, {_SET}", write=share),
    "least_error": _on("error", f"{{subject}} has the least MSE, {_SET}"),
    "best_direction": _on("direction", f"{{subject}} has the best cosine, {_SET}", write=cosine),
    "largest_return": _on("return", f"A step along {{subject}} adds most, {_SET}"),
    "step_raises": _on("one step", "A step along {subject} raises the return ({at})"),
    "step_falls": _on("one step", "A step along {subject} lowers the return ({at})"),
    "updates_raise": _on("updates", "{at} along {subject} raise the return"),
    "updates_lower": _on("updates", "{at} along {subject} lower the return"),
    "returns_only": Code("gain", "Not compared by gain: only returns count."),
    "mixture": _on("weights", "The weight of {subject} beside {at} is {value}"),
    "no_mixture": _on("weights", "No mixture of {subject} points along the truth"),
    "mixture_against_rule": _on("weights", "Measured weights have {value} the MSE of the {at}"),
    "agreement": _on("agreement", "The cosine between {subject} is {value} at {at}", write=cosine),
    "no_agreement": _on("agreement", "{number} pairs of gradients are lost in noise"),
    "not_competing": Code("choice", "{subject} does not compete: {at}."),
    # Two measurements.
    "changed": _on("change", "{subject} differ in {at}"),
    "unpaired": Code("change", "Not paired, {at}: both errors add."),
    "less_compared": Code("change", "{at}"),
    "error_ratio": _on("error", "The least MSE of {subject} becomes {value} {at}"),
    "preferred": Code("comparison", "{subject}: prefer {at}."),
})  # fmt: skip
