"""Jacobians, logs, remedies, races, sweeps.

A model's Jacobians against the simulator's, and what recorded trajectories support.

What a command chose and what came of it: records, fitted models and networks.
"""

from gradlab.findings.finding import Code, Finding, register
from gradlab.wording import below, cosine, percent

# Tests of remedies; numbers are ratios, of the error, the bias or the time.
register({
    "remedy_lowers": Code("lowers the least error"),
    "remedy_raises": Code("raises the least error"),
    "remedy_alike": Code("least error as before"),
    "remedy_unknown": Code("least error not known"),
    "remedy_better": Code("lower error", ":{subject}, h = {at}."),
    "remedy_worse": Code("higher error", ":{subject}, h = {at}."),
    "remedy_variance": Code("change of the variance"),
    "remedy_bias": Code("change of the bias"),
    "remedy_price": Code("time of a fit"),
    "remedy_steps": Code("lower error by steps"),
    "remedy_optimiser": Code("as long a fit without", remedy="Fit longer."),
    "remedy_truth": Code("truth", ":{subject} in {number} of {n} trials ({at})."),
    "remedy_policy": Code(
        "fitted policy", ":{number} of the stabilising feedback.", "Give yours with --policy.",
        "note", percent,
    ),
})  # fmt: skip

# Races and steps.
_UNPAIRED = "unpaired starts stand in"
register({
    "race_peak": Code("highest return"),
    "race_lost": Code("return lost"),
    "race_dropped": Code("dropped: another is better"),
    "no_seed": Code(f"no seeds: {_UNPAIRED}"),
    "step_unsteady": Code(
        f"unsteady: {_UNPAIRED}",
        remedy="Look for running averages in a wrapper and unseeded noise.",
    ),
    "step_lost": Code("actions not finite", ":{number} of {n} starts."),
    "step_cut": Code("episodes cut", ":{number} at {threshold} steps."),
    "step_same": Code("no episode changes"),
    "step_both_below": Code("both ways lower it", remedy="Take shorter steps."),
    "step_both_above": Code("both ways raise it"),
})  # fmt: skip

# Sweeps.
register({
    "run_failed": Code("failed run", "", "Repeat with --resume.", "error"),
})  # fmt: skip


# Files of one's own: what `gradlab check` finds in them.
_BEGIN = "Begin with a file of examples/templates."
_NONE = "Nothing to look at: a gradlab.Task, or a function make_task that returns one"
register({
    "check.fails": Code("Fails", "{at}", severity="error"),
    "check.lacks": Code("World model lacks"),
    "check.nothing": Code("Nothing", f"{_NONE}.", _BEGIN, "error"),
    "check.uncalled": Code("Nothing", f"{_NONE} ({{at}}, if it does).", severity="error"),
    "check.task": Code("Task", "{at}"),
    "check.role": Code("Role", "A {at}."),
    "check.world model": Code(
        "World model", "task, policy, critic = gradlab.tasks.with_world_model(task, {subject})"
    ),
    "check.no prior": Code("No prior model", remedy="`gradlab fit` learns one."),
    "check.certify": Code(
        "Derivatives", "`gradlab certify` says whether they hold.", severity="note"
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
        "one first": "The derivative of {subject}: by {at} of the gradient's norm.",
        "none shown": "The derivative of {subject}, perhaps: at most {at} of the gradient.",
        "unknown": "The derivative of {subject}: by how much is unknown ({n} starts).",
        "not apart": "The derivatives of {subject}: not told apart with {n} starts.",
        "more": "The derivatives of {subject}: not told apart with {n} starts; about {value} more "
        "would.",
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

_OWN = "own derivatives"
register({
    "jacobians.policy": Code("the policy is not yours", remedy="Give it with --policy."),
    "jacobians.certified": Code(
        "certified to (95th percentile)", write=lambda value, _: below(value)
    ),
    "jacobians.none": Code("no usable Jacobian"),
    "jacobians.flagged": Code("not certified, left out", write=percent),
    "jacobians.not finite": Code(
        "not finite", ":{subject}, {value} of {n} samples, first at {at}.",
        "Begin where they are finite.",
    ),
    "jacobians.sound": Code(f"{_OWN} hold"),
    "jacobians.wrong": Code(f"{_OWN} are wrong", "", "Correct it.", "premise"),
    "jacobians.off": Code(
        f"{_OWN} off", ":{at}, {value} of {n} states.", "Run `{subject}`."
    ),
    "jacobians.untested": Code(f"{_OWN} not tested", ":run `{subject}`."),
    "jacobians.entry": Code("error's effect on the gradient", write=percent),
    "jacobians.carried": Code("starts with 90% of it", remedy="Take more starts."),
    "jacobians.distance": Code(
        "error far over near data", remedy="Record data where the policy goes."
    ),
    "jacobians.growth": Code("growth of products, λ", severity="note"),
    "jacobians.doubles": Code("doubling of the variance", severity="note"),
    "jacobians.halves": Code("halving of the variance", severity="note"),
    "jacobians.condition": Code(
        "Condition 1 of MPG", "The model's error grows like step^{value}; MPG's bound needs 1.",
        "Take no horizon from it.", "note",
    ),
    "logs.policy": Code(
        "chance of these actions, p", "", "Give policy and noise as recorded.", "error"
    ),
    "logs.control": Code(
        "gradient off score, no model", "", "Check policy, noise and data.", "error", percent
    ),
    "logs.support": Code("model's gradient off score", write=percent),
    "logs.whole": Code("off the whole score", write=percent),
    "logs.unknown": Code("score near zero"),
    "logs.score": Code(
        "cosine of the mean score", remedy="Record more.", write=lambda x, _: cosine(x)
    ),
    "logs.growth": Code("doubling of the variance", severity="note"),
    "logs.disagreement": Code("disagreement of critics", severity="note", write=percent),
    "logs.critic": Code(
        "Bellman residual over spread", remedy="Refit it on these.", write=percent
    ),
    "logs.beyond": Code("values beyond all returns", remedy="Do not use it.", write=percent),
    "logs.direction": Code("derivatives off those of neighbours", write=percent),
    "logs.no neighbours": Code("derivatives not tested", remedy="Record more."),
    "logs.left out": Code("shorter trajectories left out"),
    "logs.ended": Code("windows that end early", write=percent),
})  # fmt: skip


_RECORD = "Record and simulator"


register({
    "transitions": Code(_RECORD),
    "unstepped": Code("steps that fail"),
    "recorded": Code("Record", "Recorded {n} transitions of {subject} in {at}."),
    "fitted": Code("Fit", ":{subject}, {n} rows, best after {at} epochs."),
    "unfinished": Code("Last epoch was best", remedy="Raise {at}."),
    "explained": Code("Explained variance", write=lambda x, n: percent(x, n + 1)),
    "dropped": Code("Diverged member, dropped"),
    "constant": Code("Constant in these data"),
    "repeated": Code("Repeated rows"),
    "spectral_norms": Code("Spectral norms"),
})  # fmt: skip
