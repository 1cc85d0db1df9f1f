"""Jacobians, logs, remedies, races, sweeps.

A model's Jacobians against the simulator's, and what recorded trajectories support.

What a command chose and what came of it: records, fitted models and networks.
"""

from gradlab.findings.finding import Code, Finding, register
from gradlab.wording import below, cosine, percent

# Tests of remedies; numbers are ratios, of the error, the bias or the time.
register({
    "remedy_lowers": Code("Error", "{subject} lowers the least error {value} ({at})."),
    "remedy_raises": Code("Error", "{subject} raises the least error {value} ({at})."),
    "remedy_alike": Code(
        "Error", "{subject} is not shown to change the least error: {value} ({at})."
    ),
    "remedy_unknown": Code("Error", "The least error with {subject} is unknown ({at})."),
    "remedy_better": Code("Better", "{subject} lowers the error at h = {at}."),
    "remedy_worse": Code("Worse", "{subject} raises the error at h = {at}."),
    "remedy_variance": Code("Variance", "{subject} multiplies the variance by {value} at {at}."),
    "remedy_bias": Code("Bias", "{subject} multiplies the bias by {value} at {at}."),
    "remedy_price": Code("Price", "A step of fitting {subject} takes {value} the time."),
    "remedy_steps": Code(
        "Equal steps", "{subject} lowers the least error {value} at equal steps alone."
    ),
    "remedy_optimiser": Code(
        "Optimiser", "As long a fit without {subject} lowers the error {value}.", "Fit longer."
    ),
    "remedy_truth": Code("Truth", "The truth is {subject} in {number} of {n} trials: {at}."),
    "remedy_policy": Code(
        "Policy", "The policy was fitted: {number} of the stabilising feedback.",
        "Give yours with --policy.", "note", percent,
    ),
})  # fmt: skip

# Races and steps.
_UNPAIRED = "{n} unpaired starts stand in."
register({
    "race_peak": Code("Highest return", "The return along {subject} peaks after {at}: {value}."),
    "race_lost": Code("Lost return", "The return along {subject} was lost."),
    "race_dropped": Code("Dropped", "Dropped {subject} after {at}: another is better."),
    "no_seed": Code("Pairing", f"Resets take no seed: {_UNPAIRED}"),
    "step_unsteady": Code(
        "Pairing", f"One seed gives two returns: {_UNPAIRED}",
        "Look for running averages in a wrapper and unseeded noise.",
    ),
    "step_lost": Code("Lost actions", "Actions were not finite in {number} of {n} starts."),
    "step_cut": Code("Length", "{number} episodes were cut at {threshold} steps."),
    "step_same": Code("No change", "All {n} episodes are the same."),
    "step_both_below": Code(
        "Ridge", "The opposite step lowers the return, too.", "Take shorter steps."
    ),
    "step_both_above": Code("Any move", "The opposite step raises the return, too."),
})  # fmt: skip

# Sweeps.
register({
    "run_failed": Code(
        "Failed", "The run {subject} failed: {at}.", "Repeat with --resume.", "error"
    ),
})  # fmt: skip


# Files of one's own: what `gradlab check` finds in them.
_BEGIN = "Begin with a file of examples/templates."
register({
    "check.fails": Code("Fails", "{at}", severity="error"),
    "check.lacks": Code("World model", "It lacks {at}."),
    "check.nothing": Code(
        "Nothing", "Nothing to look at: a gradlab.Task, or a function make_task that returns one.",
        _BEGIN, "error",
    ),
    "check.uncalled": Code(
        "Nothing", "Nothing to look at: a gradlab.Task, or a function make_task that returns one "
        "({at}, if it does).", severity="error",
    ),
    "check.task": Code("Task", "{at}"),
    "check.role": Code("Role", "A {at}."),
    "check.world model": Code(
        "World model", "A world model: task, policy, critic = "
        "gradlab.tasks.with_world_model(task, {subject})",
    ),
    "check.no prior": Code(
        "Prior", "None: gradients of the simulator alone are measured.", "`gradlab fit` learns one."
    ),
    "check.certify": Code(
        "Derivatives", "`gradlab certify` says whether they are its step's.", severity="note"
    ),
    "check.no task": Code("Network", "A module without a task to try it on.", severity="note"),
    "check.neither": Code("Network", "Neither policy nor critic of the task ({at})."),
    "check.widths": Code("Model", "{at}."),
    "check.gymnasium": Code(
        "Environment", "Steps in numpy, without gradients.",
        "Let gradlab.Probe(policy, optimizer, env=…) watch a loop in it.",
    ),
    "check.environment": Code(
        "Environment", "Write `def make_task(): return gradlab.Task(name, {at}, None, starts, "
        "discount, horizon)`.", _BEGIN,
    ),
})  # fmt: skip


def phrase(code: str, **known: object) -> str:
    """A sentence of the table inside of a field: no capital, no full stop."""
    text = Finding(code, "pass", **known).sentence  # type: ignore[arg-type]
    return f"{text[:1].lower()}{text[1:].removesuffix('.')}"


# Field → code → sentence. What decides them are numbers of the run, not rows of it.
_JACOBIANS = {
    "use": {
        "uncertified": "None of its Jacobians: no sample passed its certificate.",
        "chain holds": "All {subject}: its chained Jacobians hold.",
        "chain weak": "Fewer than {subject}: there the chain hardly helps.",
        "chain ends": "At most {subject}: beyond, no chain is better.",
        "no chain": "No chain of its Jacobians: one step is worse than none.",
        "decays": "Any horizon: in the closed loop of {subject} the gradient decays.",
        "decays so far": "A longer path, --horizon {threshold}: the gradient decays, but in few "
        "steps.",
        "slows": "A longer path, --horizon {threshold}: the variance doubles in {value}, slower "
        "and slower.",
        "grows": "Short rollouts: the variance doubles in {value}.",
        "few grow": "Short rollouts: from the fastest starts the variance doubles in {value}.",
        "undecided": "A longer path: this one shows neither growth nor decay.",
        "few may grow": "Long rollouts after `gradlab measure` only: from the fastest starts the "
        "gradient may grow.",
        "no product": "No product of its Jacobians: they are singular or not finite.",
    },
    "fix first": {
        "frozen": "The policy: it has no trainable parameters.",
        "one first": "The derivative of {subject}: its error changes the gradient most.",
        "none shown": "The derivative of {subject}, perhaps: no error is shown to matter.",
        "rivals": "The derivatives of {subject}: which matters most is open.",
    },
    "evidence": {
        "rate": "λ = {value}",
        "no rate": "No growth rate.",
        "unmeasured": "No effect is measured.",
        "no effect": "No error of this model changes the gradient.",
        "share": "By {subject} of its norm.",
        "at most": "At most {subject} of the gradient.",
        "unknown": "By how much is unknown ({n} starts).",
        "not apart": "Not told apart with {n} starts.",
        "more": "Not told apart with {n} starts; about {value} more would.",
    },
    "error": {
        "error": "{subject} in {at}, the largest of a block.",
        "how error": "|Model − simulator| / |simulator| over {n} steps.",
    },
    "chain": {
        "chain": "Error {subject} after {value} steps; that of zero is 1.",
        "how chain": "Median over starts, closed loop.",
    },
    "growth": {
        "closed": "{subject} λ per step in closed loop.",
        "discounted": "{subject} λ per step in closed loop; γ makes up for {threshold}.",
    },
}
_LOGS = {
    "use": {
        "deterministic": "Nothing yet: without noise no score exists.",
        "contradicted": "Nothing yet: scores contradict even the critic alone (h = 0).",
        "no horizon": "No model step yet: these data judge no horizon.",
        "supported": "The model's gradient up to {subject}: these data support it (95%).",
        "until": "The model's gradient up to {subject}: these data support it (95%), and refute it "
        "from {at} on.",
        "refuted": "No step of this model: it differs from the score (95%).",
        "undecided": "No model step yet: these data do not decide.",
        "no data": "No score yet: these data give none.",
        "settled": "The score: these trajectories settle its direction.",
        "noisy": "Not the score alone: it is too noisy.",
    },
    "next": {
        "with noise": "Record with known noise.",
        "check": "Check policy, noise and data.",
        "refit": "Refit the model.",
        "record": "Record more trajectories.",
        "open": "Horizons that are open: {value}.",
        "open more": "Horizons that are open: {value}; about {threshold} more trajectories decide.",
    },
    "difference": {
        "difference": "{subject} off from the score at {at}.",
        "how difference": "|E model − E score| / |E score|, without noise.",
    },
    "score": {
        "cosine": "Cosine {subject} over {at}.",
        "how score": "Of the mean score with its expectation.",
    },
    "variance": {
        "ratio": "{subject} times the score's, at {at}.",
        "how variance": "Of one trajectory's gradient.",
    },
}
for _tool, _fields in (("jacobians", _JACOBIANS), ("logs", _LOGS)):
    for _title, _texts in _fields.items():
        codes = {name: Code(_title, text, whole=True) for name, text in _texts.items()}
        register({f"{_tool}.{name}": code for name, code in codes.items()})

_OWN, _DATA = "own derivatives", "Record data where the policy goes."
register({
    "jacobians.policy": Code("policy", "The policy is not yours.", "Give it with --policy."),
    "jacobians.certified": Code(
        "certificate", "The simulator's Jacobians are exact to {value} (95th percentile of {at}).",
        write=lambda value, _: below(value),
    ),
    "jacobians.none": Code("certificate", "None of {n} Jacobians of the simulator can be used."),
    "jacobians.flagged": Code(
        "certificate", "{value} failed the certificate and are left out.", write=percent
    ),
    "jacobians.not finite": Code(
        "not finite", "The {subject}'s Jacobians are not finite in {value} of {n} samples, first "
        "at {at}.", "Begin where they are finite.",
    ),
    "jacobians.sound": Code(_OWN, "The simulator's derivatives are those of its step."),
    "jacobians.wrong": Code(
        _OWN, "The simulator's {at} is not that of its step.", "Correct it.", "premise"
    ),
    "jacobians.off": Code(
        _OWN, "The simulator's {at} is off in {value} of {n} states.", "Run `{subject}`."
    ),
    "jacobians.untested": Code(
        _OWN, "The simulator's derivatives are not tested.", "Run `{subject}`."
    ),
    "jacobians.entry": Code(
        "effect", "The error of {subject} changes the gradient by {value} of its norm.",
        write=percent,
    ),
    "jacobians.carried": Code(
        "concentration", "{value} of {n} starts carry 90% of the gradient.", "Take more starts."
    ),
    "jacobians.distance": Code(
        "data", "Far from the data {subject} errs {value} as much as near it.", _DATA
    ),
    "jacobians.growth": Code(
        "growth", "Products in {at} loop grow by λ = {value} per step.", severity="note"
    ),
    "jacobians.doubles": Code(
        "variance", "The variance doubles in {value} ({subject}).", severity="note"
    ),
    "jacobians.halves": Code(
        "variance", "The variance halves in {value} ({subject}).", severity="note"
    ),
    "jacobians.condition": Code(
        "Condition 1 of MPG", "The model's error grows like step^{value}; MPG's bound needs 1.",
        "Take no horizon from it.", "note",
    ),
    "logs.policy": Code(
        "policy", "The actions are this policy's own: p = {value}.",
        "Give policy and noise as recorded.", "error",
    ),
    "logs.control": Code(
        "policy", "At {at}, without a model, gradient and score differ by {value}.",
        "Check policy, noise and data.", "error", percent,
    ),
    "logs.support": Code(
        "support", "The model's gradient is {value} off the score at {at}.", write=percent
    ),
    "logs.whole": Code(
        "whole return", "Nearest at {at}, the model's gradient is {value} off the score of all "
        "{subject}.", write=percent,
    ),
    "logs.unknown": Code("support", "At {at} the score is too near zero."),
    "logs.score": Code(
        "score", "The mean score over {subject} has cosine {value} with its expectation; "
        "{threshold} can judge.", "Record more.", write=lambda x, _: cosine(x),
    ),
    "logs.growth": Code(
        "variance", "The model's variance doubles every {value} beyond {at}.", severity="note"
    ),
    "logs.disagreement": Code(
        "critics", "Critics change the gradient by {value} of its norm at {at}.", severity="note",
        write=percent,
    ),
    "logs.critic": Code(
        "critics", "The mean Bellman residual of {subject} is {value} of its spread.",
        "Refit it on these.", write=percent,
    ),
    "logs.beyond": Code(
        "critics", "{value} of the values of {subject} are beyond all returns ({at}).",
        "Do not use it.", write=percent,
    ),
    "logs.direction": Code(
        "derivatives", "The model's derivatives are {value} off those of neighbours, most in "
        "{subject}.", write=percent,
    ),
    "logs.no neighbours": Code(
        "derivatives", "Too few trajectories test the model's derivatives.", "Record more."
    ),
    "logs.lost": Code("prediction", "Predictions are not finite from step {value} on."),
    "logs.prediction": Code(
        "prediction", "After {subject} the model's prediction is {value} of the change off.",
        "Refit the model.", write=percent,
    ),
    "logs.left out": Code("data", "{value} trajectories shorter than {subject} are left out."),
    "logs.ended": Code(
        "data", "{value} of the windows end early, which pathwise gradients do not see.",
        write=percent,
    ),
})  # fmt: skip


_RECORD = "Record and simulator"


def _near_one(share: float, digits: int = 2) -> str:
    return percent(share, digits + 1)


register({
    "transitions": Code(_RECORD, "{subject} and the simulator: {at}."),
    "unstepped": Code(_RECORD, "The simulator could not step {subject}: {at}"),
    "recorded": Code("Record", "Recorded {n} transitions of {subject} in {at}."),
    "fitted": Code("Fit", "{subject}: fitted on {n} rows, best after {at} epochs."),
    "unfinished": Code("Fit", "{subject}: the last epoch was the best.", "Raise {at}."),
    "explained": Code(
        "Explained", "{subject}: {value} of the variance explained.", write=_near_one
    ),
    "dropped": Code("Diverged", "{subject}: member {at} diverged and is dropped."),
    "constant": Code("No effect known", "{subject}: constant in these data: {at}."),
    "repeated": Code("Repeated rows", "{subject}: {n} rows repeat an earlier (s, a)."),
    "spectral_norms": Code("Spectral norms", "{subject}: spectral norms {at}."),
})  # fmt: skip
