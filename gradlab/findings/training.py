"""Returns, gradients, models and weights of training runs, alone and in pairs.

A user's own loop, looked at by a probe: its alarms, and what its newest numbers say.

The checks of the loop's parts bring their own words.
"""

from dataclasses import replace
from functools import partial

from gradlab.findings.finding import Code, register
from gradlab.wording import cosine, percent

_EXPLAINED = "{subject} explains {at} least: {value} of the held-out variance after {n} rows."
_RULE, _PAIRED = "Follow the rule's weights.", "{value}; {n} paired seeds."

register({
    "training return": Code("return", "Return of {subject}: {value}, median of {n} seeds, {at}."),
    "training return of one seed": Code(
        "return", "Return of {subject}: {value} over {n} starts, {at}."
    ),
    "training goal": Code("goal", "{number} of {n} seeds of {subject} reach {threshold}."),
    "training gradient": Code(
        "gradient error", "Gradient MSE of {subject} over |truth|²: {value}, {at}."
    ),
    "training gradient unknown": Code(
        "gradient error", "No error of {subject}'s gradient is known, {at}."
    ),
    "training cosine": Code(
        "gradient direction", "Cosine of {subject}'s gradient with the truth: {value}, {at}.",
        write=cosine,
    ),
    "training bias": Code(
        "squared bias", "Squared bias makes {value} of {subject}'s gradient MSE.",
        severity="note", write=percent,
    ),
    "training bias source": Code(
        "cause of the bias", "Largest part of {subject}'s squared bias: {at}, {value}, median of "
        "{n} seeds.", severity="note", write=percent,
    ),
    "training usable range": Code("horizons", "{subject}'s gradient is usable at h = {at}."),
    "training open range": Code("horizons", "{subject}'s gradient may be usable at h = {at}."),
    "training no range": Code("horizons", "{subject}'s gradient is usable at no h of {at}."),
    "training model": Code("learned model", _EXPLAINED, "So do gradients from it.", write=percent),
    "training model by likelihood": Code(
        "learned model", _EXPLAINED, "`--loss mse` fits squared errors.", write=percent
    ),
    "training weight": Code(
        "weights", "Measured weight of {subject}: {value}, the rule's {threshold}, {at}, {n} "
        "seeds.", severity="note",
    ),
    "training weights by error": Code(
        "weights", "MSE of {subject}'s measured weights over the rule's: {value}, {n} seeds.", _RULE
    ),
    "training weights by gain": Code(
        "weights", "Gain of {subject}'s measured weights less the rule's: {value}, {n} seeds.",
        _RULE, write=percent,
    ),
    "training weights unknown": Code(
        "weights", "{subject}'s measured weights are not compared with the rule's yet."
    ),
    "training lag": Code(
        "age of gradients", "Gradients of {subject} are {number} steps of the policy old on "
        "average, at most {high}; {n} gradients.", severity="note",
    ),
    "training event": Code("event", "{subject}"),
    "training pair of returns": Code(
        "difference", f"Return of {{subject}} less that of {{at}}: {_PAIRED}"
    ),
    "training pair of gradients": Code(
        "difference", f"Relative gradient MSE of {{subject}} over {{at}}: {_PAIRED}"
    ),
    "training pair of models": Code(
        "difference", f"Model's part of the gradient MSE of {{subject}} over {{at}}: {_PAIRED}"
    ),
})  # fmt: skip


_REFIT = "Refit the model where the policy goes."
_CRITIC = "Look at its rate, and whose parameters its optimiser holds."
_TENTH = "Divide the rate by ten."
_SCALE = "Look at the scale of rewards, the discount and the entropy's sign and weight."
_STEPPED = "At {at} a step along the actor's gradient"
_MOVES = "by {value} of its size on average{at}, sound ones by at most 0.8%."
_share = partial(Code, write=percent)

_CODES = {  # without a title: it is the code
    # Alarms by their kind, and kinds that have several sentences.
    "non-finite gradient": Code(
        "", "the gradient was not finite in {value} of {n} updates ({at}).",
        "Look at the sample beside this.", "error"),
    "non-finite at the end": Code("", "the loop {subject} at update {n}: {at}.", "", "error"),
    "dead path": Code(
        "", "the gradient of {at} was 0 in all of {n} updates.",
        "Look for a detach or a saturated layer."),
    "dead outputs": Code(
        "", "{value} of {threshold} rows of the last layer's weights had a gradient of "
        "exactly 0 in all of {n} updates.", "Look for a detach, or a clamp with exchanged bounds."),
    "dead inputs": Code(
        "", "{value} columns of the first layer's weights had a gradient of exactly 0 "
        "in {n} bursts ({at}).", "Look for inputs that are 0."),
    "gradient no better than noise": _share(
        "", "successive gradients share at most {high} of their squared norm ({number}, {n} "
        "pairs).", "Use larger batches or a smaller learning rate."),
    "exploding gradient": Code(
        "", "the policy's gradient grew {value} times over the last {n} updates.", _SCALE),
    "exploding critic": Code(
        "", "the critic's gradient grew {value} times over the last {n} updates.", _SCALE),
    "falling return": Code(
        "", "the return of {subject} fell from {at}, by {number} ± {threshold}, over "
        "three windows of about {n} updates.",
        "Check the signs of reward and actor's loss, and the critic's targets."),
    "actor does not move": Code(
        "", "the policy has a gradient (norm {value}), and none of {n} steps changed it{at}.",
        "Look at the rate, the clip, and whose parameters the optimiser holds."),
    "no optimiser's step": Code(
        "actor does not move", "the optimiser has made no step in {n} backward passes.",
        "Call its step(), or give the probe the optimiser that steps this policy."),
    "actor moves in part": Code(
        "", "the policy's {at} had a gradient, and none of {n} steps changed them.",
        "Give the optimiser policy.parameters(), or freeze these."),
    "gradient of rounding": Code(
        "actor moves in part", "a gradient of norm {value} moved the policy's {at} in none of {n} "
        "steps.", "Look at the loss's scale, and what broadcasts in it."),
    "one tensor trained": Code(
        "actor moves in part", "of {n} tensors only {at} is trained, all others are frozen.",
        "Thaw them, unless meant."),
    "critic does not move": Code(
        "", "none of {value} steps of its optimiser changed the critic in {n} "
        "updates of the policy (gradient norm {threshold}{at}).", _CRITIC),
    "critic is not stepped": Code(
        "critic does not move", "the critic's optimiser made no step in {n} updates of the policy.",
        _CRITIC),
    "learning rate too large": _share("", f"a step moves the policy {_MOVES}", _TENTH),
    "critic's learning rate too large": _share("", f"a step moves the critic {_MOVES}", _TENTH),
    "learning rate below 0": Code(
        "", "the learning rate of {subject} optimiser is {value} since step {n}.",
        "Does the schedule go on beyond its end?"),
    "saturated actor": _share(
        "", "action {at} is at its limit in {number} of its values (at least {low}, {n} passes).",
        "Lower the policy's gain, or penalise actions before the tanh."),
    "θ leaks into the model": Code(
        "", "policy and prior model share {n} tensors, and the policy's "
        "backward pass left gradients on the model in {value} updates.",
        "Copy the model's tensors."),
    "non-finite Jacobian": Code(
        "", "{value} of {threshold} states have Jacobians that are not finite "
        "({at}); masking them would drop {n} starts.", "Repair the model there.", "error"),
    "dead action": Code(
        "", "the model does not feel action {at}: ∂f/∂a and ∂r/∂a are exactly 0 at all "
        "states of {n} starts.", "Look for a wrong index or a clip."),
    "precision-limited": _share(
        "", "the gradient at the longest horizon is {value} off in float32, and "
        "batches differ by {threshold} ({n} starts).", "Use float64 or a shorter horizon."),
    "diverging sensitivities": Code(
        "", "the simulator's ∂s_t/∂s_0 grows tenfold every {number} steps "
        "under this policy (CI {low}–{high}, {n} starts) and leaves float32 at step {threshold}.",
        "Backpropagate through fewer steps, or stabilise the policy first."),
    "variance doubling time": Code(
        "", "the variance of {subject} at visited states doubles every "
        "{number} steps (CI {low}–{high}, {n} starts).", "Shorten the horizon."),
    "wrong direction": Code(
        "", "{subject} at visited states points away from the true one at {at}: "
        "cosine {number}, at most {high} ({n} starts).",
        "Use a horizon whose sign is right, or improve critic or model.", write=cosine),
    "critic's gradient points away": Code(
        "wrong direction", "a step along the actor's gradient lowers the return: cosine {number} "
        "with the true gradient, at most {high} ({n} starts).",
        "Improve the critic: more of its updates per update of the actor.", write=cosine),
    "worse than without a model": Code(
        "", "{subject} at visited states, horizon {at}, has {number} "
        "times the error of the data gradient (at least {low}, {n} starts).",
        "Shorten the horizon."),
    "critic-dominated bias": _share(
        "", "the critic makes {value} of the squared bias of {subject} at "
        "visited states, horizon {at} ({n} starts).", "Improve the critic before the model."),
    "critic beyond its bound": Code(
        "", "the critic's mean value is {value} ({n} starts), beyond the "
        "{threshold} that the largest reward seen allows.", "Stop, and refit the critic."),
    "drifting model Jacobian": Code(
        "", "the model's Jacobian error is {value} times what it was at {at} ({n} starts).",
        _REFIT),
    # What its newest numbers say.
    "probe.no alarm": _share(
        "alarms", "no alarm in {n} updates; each is raised in at most {value} of sound runs."),
    "probe.few looks": Code("alarms", "{value} of {n} updates were looked at."),
    "probe.reward is 0": Code(
        "reward", "the reward is 0 on every path so far.", "Fix the reward.", "premise"),
    "probe.gradient is 0": Code(
        "true gradient", "the true gradient is exactly 0: this policy does not move the return.",
        "Look for a dead output, ignored actions or a constant reward.", "premise"),
    "probe.return rose": Code("return", "{at} {subject} rose by {value}, N = {n}."),
    "probe.return fell": Code("return", "{at} {subject} fell by {value}, N = {n}."),
    "probe.return open": Code(
        "return", "{at} {subject} is not shown to have changed: {value}, N = {n}."),
    "probe.return below its best": Code(
        "return", "it has fallen by {number} since {at}, its best ({low}–{high}, 99.8%)."),
    "probe.return risen": Code("return", "above its first window (99.8% confidence)."),
    "probe.return not risen": Code(
        "return", "not shown above its first window with 99.8% confidence."),
    "probe.non-finite gradients": _share(
        "gradients", "{number} of {n} gradients were not finite (at most {high})."),
    "probe.saturation": _share(
        "saturation", "action {at}, most of all, is at its limit in {value} ({n} passes)."),
    "probe.batch": Code(
        "signal", "one batch has cosine {value} with the mean gradient ({at}, {n} pairs).",
        write=cosine),
    "probe.signal": _share(
        "signal", "signal makes {value} of one batch's squared gradient norm ({at}, {n} pairs)."),
    "probe.step raised": Code(
        "step", f"{_STEPPED} raised the return: cosine {{value}}, from {{n}} starts.",
        write=cosine),
    "probe.step lowered": Code(
        "step", f"{_STEPPED} lowered the return: cosine {{value}}, from {{n}} starts.",
        "Improve the critic if this lasts.", write=cosine),
    "probe.step open": Code(
        "step", f"{_STEPPED} is not shown to have raised the return: cosine {{value}}, from {{n}} "
        "starts.", "Measure more often, by a larger overhead_budget.", write=cosine),
    "probe.best": Code(
        "step", "{subject} at {at} gains {value} of the best step; no update followed it, from {n} "
        "starts.", write=percent),
    "probe.longer": Code(
        "step", "{subject} at {at} would raise it: cosine {value}, from {n} starts.", write=cosine),
    "probe.horizon": Code(
        "horizon", "{subject} has the smallest error of one batch at h = {number}; {at} may have "
        "it (95%, {n} starts)."),
    "probe.no truth": Code("horizon", "no truth at the newest measurement, so no horizon."),
    "probe.usable": Code(
        "horizon", "{subject} is usable at {at}: cosine ≥ {threshold}, at most 2× the least error "
        "({n} starts)."),
    "probe.perhaps usable": Code("horizon", "{subject} may be usable at {at}, from {n} starts."),
    "probe.not usable": Code("horizon", "{subject} is usable at no horizon, from {n} starts."),
    "probe.against data": Code(
        "data gradient", "one batch of {subject}, {at}, has {value} times the error of the data "
        "gradient, from {n} starts."),
    "probe.weight": Code(
        "weights", "the least error gives h = 0 the weight {value} beside {at}, from {n} starts."),
    "probe.source": Code(
        "source of the bias", "{subject} makes most of the squared bias at {at}, {value} beyond "
        "half, from {n} starts."),
    "probe.critic": Code(
        "critic", "the critic's mean value is {value}; rewards so far allow {threshold}, from {n} "
        "starts."),
    "probe.Jacobians": Code(
        "Jacobians", "the model's Jacobians err by {value} at fresh states, from {n} starts."),
    "probe.Jacobian drift": Code(
        "Jacobians", "their error is {value} times the first measurement's, from {n} starts."),
    "probe.lost Jacobians": Code(
        "Jacobians", "{value} of {threshold} states have Jacobians that are not finite ({at}); "
        "masking them drops {n} starts.", "Repair the model there."),
    "probe.doubling": Code(
        "growth", "the variance of {subject} doubles every {value} steps up to {at}, from {n} "
        "starts."),
    "probe.power law": Code(
        "growth", "the variance of {subject} grows like a power of h up to {at}, from {n} starts."),
    "probe.growth": Code(
        "growth", "the log variance of {subject} changes by {value} per step up to {at}, from {n} "
        "starts."),
    "probe.Lyapunov": Code("growth", "the closed loop has λ = {value} per step, from {n} starts."),
    "probe.cost": _share("cost", "the probe took {value} of the time, budget {threshold}."),
    "probe.no optimiser": Code(
        "update size", "no sizes of updates.", "Give the probe the policy's optimizer."),
    "probe.no limit": Code(
        "saturation", "no limit of the actions is known.", "Set policy.limit = 2.0."),
    "probe.no critic": Code("horizon", "no gradients on the task.", "Give the probe a critic."),
}  # fmt: skip
register(
    {code: replace(each, title=each.title or code, whole=True) for code, each in _CODES.items()}
)
