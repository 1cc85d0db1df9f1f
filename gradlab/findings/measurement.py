"""What a measurement means: errors, horizons, growth, causes, choice, comparison."""

from gradlab.findings.finding import Code, register
from gradlab.wording import cosine, percent, share

_MORE_STARTS = "Measure more starts, or `--trim-starts 0.01`: another question."

register({
    # Horizons and errors of one gradient.
    "usable_horizons": Code(
        "usable horizons", "{subject} is usable at h = {at}: cosine 0.7, twice the least MSE "
        "(N = {n})."),
    "no_usable_horizon": Code(
        "usable horizons", "{subject} is usable at none of h = {at} (N = {n}).",
        "Look at where its error comes from."),
    "best_horizon": Code(
        "best horizon", "The MSE of {subject} is least at h = {number}, 95% set {at} (N = {n})."),
    "longest_horizon": Code(
        "longest horizon", "{subject} at h = {at} has {value} its least MSE (N = {n}).",
        "Use a shorter horizon."),
    "above_zero_gradient": Code(
        "error", "{subject} at h = {at} has {value} the MSE of a zero gradient (N = {n}).",
        "Scale it down."),
    "batch_for_direction": Code(
        "batch", "A batch of {value} gives {subject} at h = {at} a cosine of 0.9 (N = {n})."),
    "biased_direction": Code(
        "direction", "No batch gives {subject} at h = {at} a cosine of 0.9: bias leaves {value} "
        "(N = {n}).", "Fix its bias.", write=cosine),
    "data_against_model": Code(
        "data gradient", "The data gradient has {value} the least MSE of {subject} (N = {n})."),
    "gradient_not_finite": Code(
        "finite gradients", "{subject} is not finite from h = {at} on (N = {n}).",
        "Use a shorter horizon.", "error"),
    # Growth.
    "variance_doubles": Code(
        "growth", "The variance of {subject} doubles every {value}, h = {at} (N = {n})."),
    "variance_doubles_as": Code(
        "growth", "The variance of {subject} doubles every {value}, h = {at}; by the simulator's "
        "Lyapunov exponent {threshold} (N = {n})."),
    "variance_power": Code(
        "growth", "The variance of {subject} grows like h^{number}, h = {at} (N = {n})."),
    "variance_slope": Code(
        "growth", "The log-variance of {subject} changes by {value} per step, h = {at} (N = {n})."),
    "heavy_tails": Code(
        "tails", "A few starts carry {subject} at h = {at}: tail index {number}, limit {threshold} "
        "(N = {n}).", "Its intervals may be too narrow: measure more starts."),
    # The truth that errors are against.
    "bias_against": Code(
        "truth", "Truth: {at}; its standard error is {value} of its norm (N = {n}).",
        write=percent),
    "bias_against_none": Code("truth", "No bias and no error: {at}."),
    "bias_against_unsure": Code(
        "truth", "The true gradient's standard error is {value} of its norm (N = {n}).",
        "Differences between gradients on the same starts hold.", write=percent),
    "bias_against_few": Code(
        "truth", "1% of the starts carry {value} of the squared true gradient (N = {n}).",
        _MORE_STARTS, write=percent),
    "bias_against_zero": Code("truth", "The true gradient is 0 at every start (N = {n})."),
    # Jumps: what the simulator's gradient promises, and what steps bring.
    "jumps_smooth": Code(
        "jumps", "The return is smooth within an update: steps along its gradient bring {number} "
        "per unit, promised {threshold} (N = {n})."),
    "jumps_curved": Code(
        "jumps", "The return is curved: steps along its gradient bring {number} per unit, promised "
        "{threshold} (N = {n})."),
    "jumps_harmless": Code(
        "jumps", "The return jumps ({at}), without harm: steps along its gradient bring {number} "
        "per unit, promised {threshold} (N = {n})."),
    "jumps_harmful": Code(
        "jumps", "The return jumps ({at}): steps along its gradient bring {number} per unit, "
        "promised {threshold} (N = {n}).", "These starts: `jumps.states` of the run."),
    "jumps_rough": Code(
        "jumps", "The return is rough: steps along its gradient bring {number} per unit, promised "
        "{threshold} (N = {n}).", "Follow what updates raised."),
    "jumps_overflow": Code(
        "jumps", "The return overflows from {number} of {n} starts where actions move by {at}."),
    # Steps, updates, and what else competes.
    "steps_as_promised": Code(
        "first order", "Steps along {number} gradients bring what they promise ({n} starts)."),
    "steps_bend": Code(
        "first order", "A step along {subject} brings {value} of the best gain, promised "
        "{threshold} ({n} starts): the return bends.", write=share),
    "steps_elsewhere": Code(
        "first order", "A step along {subject} brings {value} of the best gain, promised "
        "{threshold} ({n} starts).", "Gradients and returns are of different problems.",
        write=share),
    "no_updates": Code(
        "updates", "No update along {subject} was made.", "Leave out `--no-rehearsal`."),
    "updates_hold": Code("updates", "{subject} holds until the critic's next fit."),
    "updates_fall": Code(
        "updates", "{number} updates along {subject} lower the return; {threshold} raise it."),
    "few_judges": Code(
        "updates", "{number} judging starts tell less than {threshold}.", "Give `--judges 64`."),
    "step_lowers": Code("updates", "One step along {subject} lowers the return."),
    "updates_of": Code(
        "updates", "{at} along {subject} change the return by {value} ({n} starts)."),
    "larger_gain": Code(
        "one step", "{subject} gains more in one step, {value}, not shown over updates.",
        write=share),
    "critic_gain": Code("critic", "{subject} gains {value} of the best step.", write=share),
    "batch_gain": Code("batch", "A batch of {at} gains {value} of the best step.", write=share),
    "gain_beyond": Code(
        "simulator states", "{subject} gains {value} of the best step, and needs the simulator's "
        "states.", write=share),
    # Causes of bias and variance.
    "fix": Code(
        "causes", "Fix {subject} first: the squared bias of {at} falls by {value} (N = {n}).",
        write=percent),
    "fix_unsized": Code(
        "causes", "Fix {subject} first: the squared bias of {at} falls (N = {n})."),
    "fix_nothing": Code(
        "causes", "Fixing one or two causes does not lower the squared bias of {at} (N = {n})."),
    "fix_harms": Code(
        "causes", "Fixing {subject} alone raises the squared bias of {at} by {value} (N = {n}).",
        write=percent),
    "cause": Code(
        "causes", "{subject} makes {value} of the squared bias of {at} (N = {n}).", write=percent),
    "causes_cancel": Code("causes", "Causes cancel in {subject} at h = {at} (N = {n})."),
    "no_bias": Code(
        "causes", "The squared bias of {subject} at h = {at} is not told from 0 (N = {n})."),
    "variance_cause": Code(
        "causes", "{subject} makes {value} of the variance of {at} (N = {n}).", write=percent),
    "no_causes": Code("causes", "{subject} is not attributed: {at}."),
    # Choice.
    "largest_gain": Code(
        "gain", "{subject} has the largest gain, {value}; 95% set: {at} (N = {n}).", write=share),
    "least_error": Code(
        "mean squared error", "{subject} has the least MSE, {value}; 95% set: {at} (N = {n})."),
    "best_direction": Code(
        "direction", "{subject} has the best cosine, {value}; 95% set: {at} (N = {n}).",
        write=cosine),
    "largest_return": Code(
        "return", "One step along {subject} adds most return, {value}; 95% set: {at} (N = {n})."),
    "step_raises": Code(
        "one step", "A step along {subject} raises the return ({at}, N = {n})."),
    "step_falls": Code("one step", "A step along {subject} lowers the return ({at}, N = {n})."),
    "updates_raise": Code("updates", "{at} along {subject} raise the return ({n} starts)."),
    "updates_lower": Code("updates", "{at} along {subject} lower the return ({n} starts)."),
    "returns_only": Code("gain", "Not compared by gain: only measured returns count."),
    "mixture": Code("weights", "The weight of {subject} beside {at} is {value} (N = {n})."),
    "no_mixture": Code("weights", "No mixture of {subject} points along the truth."),
    "mixture_against_rule": Code(
        "weights", "Measured weights have {value} the MSE of the {at}, on {n} other starts."),
    "agreement": Code(
        "agreement", "The cosine between {subject} is {value} at {at} (N = {n}).", write=cosine),
    "no_agreement": Code("agreement", "{number} pairs of gradients are lost in noise (N = {n})."),
    "not_competing": Code("choice", "{subject} does not compete: {at}."),
    # Two measurements.
    "changed": Code("change", "{subject} differ in {at} (N = {n})."),
    "unpaired": Code("change", "Not paired, {at}: the errors of both add."),
    "less_compared": Code("change", "{at}"),
    "error_ratio": Code(
        "error", "The least MSE of {subject} becomes {value} {at} (N = {n})."),
    "preferred": Code("comparison", "{subject}: prefer {at}."),
})  # fmt: skip
