"""A user's own loop, looked at by a probe: what its checks find, and what its numbers say."""

from dataclasses import replace
from functools import partial

from gradlab.findings.finding import Code, register
from gradlab.wording import cosine, percent

_ORIGIN = "origin of a non-finite gradient"
_ROWS = "Look at the rewards and targets of these rows."
_REFIT = "Refit the model where the policy goes now."
_share = partial(Code, write=percent)

_CODES = {  # without a title: it is the code
    # Alarms by their kind, and kinds that have several sentences.
    "non-finite gradient": Code(
        "", "the gradient was not finite in {value} of {n} updates ({at}).",
        "Look at the sample beside this.", "error"),
    "nan.parameter": Code(
        _ORIGIN, "{at} of {subject} is not finite itself.", "",
        "error"),
    "nan.input": Code(_ORIGIN, "the input of {subject} is not finite in {at}.", _ROWS, "error"),
    "nan.column": Code(_ORIGIN, "{subject} of the batch is not finite in {at}.", _ROWS, "error"),
    "nan.operation": Code(
        _ORIGIN, "{subject} came first out of {at}.", "Fix it, or leave the sample out.", "error"),
    "nan.negative": Code(
        _ORIGIN, "the {subject} of a negative number is NaN: {at}.", "An action beyond ±1 in "
        "log(1 − a²)?", "error"),
    "nan.one row": Code(
        _ORIGIN, "the deviation over one row is NaN: {at}.", "Leave it out.", "error"),
    "nan.loss of rows": Code(
        _ORIGIN, "what the loss sent to {subject} is not finite in {at}.", _ROWS, "error"),
    "nan.loss of all rows": Code(
        _ORIGIN, "what the loss sent to {subject} is not finite in {at}.", "Look for a root, norm "
        "or power at 0, and for a target that spoils a mean.", "error"),
    "nan.unseen": Code(
        _ORIGIN, "which sample is not known.", "Declare probe.networks(critic=…) and "
        "probe.losses(…).", "error"),
    "non-finite gradient of another network": Code(
        "", "the gradient of the {subject}'s optimiser was not finite in update {n}.",
        "Look at the sample beside this.", "error"),
    "loss not asked": Code(
        "", "the loss of kind {subject} could not be asked: {at}.",
        "Hand over what it needs by look(batch)."),
    "dead path": Code(
        "", "the gradient of {at} was exactly 0 in all of {n} updates.",
        "Look for a detach or a saturated layer."),
    "gradient no better than noise": _share(
        "", "successive gradients share at most {high} of their "
        "squared norm ({number}, {n} pairs).", "Use larger batches."),
    "falling return": Code(
        "", "the return of {subject} fell from {at}, by {number} ± {threshold}, over "
        "three windows of about {n} updates.",
        "Check signs of rewards and losses, and the critic's targets."),
    "no optimiser's step": Code(
        "actor does not move", "the optimiser has made no step in {n} backward passes.",
        "Give the probe the one that steps this policy."),
    "saturated actor": _share(
        "", "action {at} is at its limit in {number} of its values ("
        "{n} rows).", "Penalise actions before the tanh."),
    "non-finite Jacobian": Code(
        "", "{value} of {threshold} states have Jacobians that are not finite "
        "({at}); masking them would drop {n} starts.", "Repair the model there.", "error"),
    "diverging sensitivities": Code(
        "", "the simulator's ∂s_t/∂s_0 grows tenfold every {number} steps "
        "under this policy (CI {low}–{high}, {n} starts) and leaves float32 at step {threshold}.",
        "Backpropagate through fewer steps."),
    "variance doubling time": Code(
        "", "the variance of {subject} at visited states doubles every "
        "{number} steps (CI {low}–{high}, {n} starts).", "Shorten the horizon."),
    "wrong direction": Code(
        "", "{subject} at visited states points away from the true one at {at}: "
        "cosine {number}, at most {high} ({n} starts).", "Use a horizon whose sign is right.",
        write=cosine),
    "critic's gradient points away": Code(
        "wrong direction", "a step along the actor's gradient lowers the return: cosine {number} "
        "with the true gradient, at most {high} ({n} starts).", "Improve the critic, by more of "
        "its updates per update of the actor.", write=cosine),
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
        "", "the model's Jacobian error is {value} times what it was at "
        "{at} ({n} starts).", _REFIT),
    # What its newest numbers say.
    "probe.no alarm": _share(
        "alarms", "no alarm in {n} updates; each is raised in at most {value} of sound runs."),
    "probe.reward is 0": Code(
        "reward", "the reward is 0 on every path of the task so far, and so is the true gradient.",
        "Fix the reward.", "premise"),
    "probe.gradient is 0": Code(
        "true gradient", "the true gradient is exactly 0: this policy does not move the return.",
        "Look for ignored actions or a constant reward.", "premise"),
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
        "saturation", "action {at}, the most of all, is at its limit in {value} of its values "
        "({n} passes)."),
    "probe.batch": Code(
        "signal", "one batch has cosine {value} with the mean gradient ({at}, {n} pairs).",
        write=cosine),
    "probe.signal": _share(
        "signal", "signal makes {value} of one batch's squared gradient norm ({at}, {n} pairs)."),
    "probe.step raised": Code(
        "step", "at {at} a step along the actor's gradient raised the return: cosine {value}, "
        "from {n} "
        "starts.", write=cosine),
    "probe.step lowered": Code(
        "step", "at {at} a step along the actor's gradient lowered the return: cosine {value}, "
        "from {n} "
        "starts.", "Improve the critic if this lasts.", write=cosine),
    "probe.step open": Code(
        "step", "at {at} a step along the actor's gradient is not shown to have raised the return: "
        "cosine {value}, from {n} starts.", write=cosine),
    "probe.horizon": Code(
        "horizon", "{subject} has the smallest error of one batch at h = {number}; {at} may have "
        "it (95%, {n} starts)."),
    "probe.no truth": Code(
        "horizon", "no admissible truth at the newest measurement: no horizon was chosen."),
    "probe.cost": _share("cost", "the probe took {value} of the time, a look every {n} updates."),
    "probe.no optimiser": Code(
        "update size", "no sizes of updates.", "Give the probe the policy's optimizer."),
    "probe.no limit": Code(
        "saturation", "no limit of the actions is known.", "Set policy.limit = 2.0, or end the "
        "policy in a tanh."),
    "probe.no critic": Code("horizon", "no gradients on the task.", "Give the probe a critic."),
}  # fmt: skip
register(
    {code: replace(each, title=each.title or code, whole=True) for code, each in _CODES.items()}
)
