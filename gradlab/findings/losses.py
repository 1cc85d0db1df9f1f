"""Laws of a loss, and its conformance: a row for each law, with what it says where it is broken.

"critic.reward"            holds           "critic.reward.negated"    broken, or undecided
"critic.reward.skipped"    not asked       "critic.reward.meant"      declared as broken on purpose
"""

from gradlab.findings.finding import Code, register
from gradlab.wording import percent

# What a law needs → the line to write.
NEEDS = {
    "actor": "actor=policy",
    "bonus": "entropy=lambda batch: …",
    "bootstrap": "target=[q1_target, q2_target]",
    "clip": "clip=0.2",
    "critic": "critic=[q1, q2]",
    "discount": "discount=0.99",
    "draw": "draw=lambda observation: (action, log_prob)",
    "columns": "the five columns one by one",
    "ends": 'columns={"terminated": "done"}',
    "level": "a scalar critic",
    "log_prob": "log_prob=lambda batch: …",
    "path": "critic=[q1, q2], no model",
    "prediction": "critic=[q1, q2], not of logits",
    "several": "target=[q1_target, q2_target]",
    "target": "target=[q1_target, q2_target]",
    "temperature": "temperature=log_alpha",
    "temperature_loss": "temperature_loss=lambda log_prob: …",
    "trace": "trace=0.95",
} | {
    name: f'columns={{"{name}": "…"}}'
    for name in (
        "action", "advantage", "next_observation", "observation", "old_log_prob", "return",
        "reward", "truncated",
    )
}  # fmt: skip

_TWO = "{value}, not {threshold}"
_BENT = "Uneven: are targets clipped or rescaled?"
_NORM = "BatchNorm: call eval() first."

# Law: title; name → what is broken; name → why it is undecided, and what would decide. A title
# stands before each.
_Names = dict[str, str]
_LAWS: dict[str, tuple[str, _Names, _Names]] = {
    "loss.finite": ("loss", {"not_finite": "NaN or infinite, from {at}."}, {}),
    "loss.repeats": (
        "repeated call", {}, {"differs": "Differs by {value}: hand it its draws as columns."},
    ),
    "critic.precision": ("precision", {}, {"half": "{at}: ask without autocast."}),
    "critic.predictions": (
        "fitted critics", {"unused": "No gradient at {at}."},
        {"silent": "{at} gives no tensor of B rows in forward: declare what does."},
    ),
    "critic.detached": (
        "detached target",
        {"target": "A gradient reaches the {at}.", "own": "A gradient through {at}'s next value."},
        {},
    ),
    "critic.rows": (
        "rows of the target",
        {"mixed": "Moved by another row's {at}: [B, 1] against [B], or a batch statistic."}, {},
    ),
    "critic.mask": (
        "mask of ends", {"left_out": "Targets go on beyond ends.", "inverted": "Inverted."}, {},
    ),
    "critic.reward": (
        "reward in the target",
        {"masked": "Left out at ends.", "lost": "Left out.", "negated": "Negated.",
         "uneven": "Not alike in all rows.", "discounted": "{value} of it: γ times?"},
        {"bent": _BENT},
    ),
    "critic.entropy": (
        "entropy in the target",
        {"ends": "Also at ends.", "left_out": "Left out.", "negated": "Wrong sign.",
         "size": "{value} of it.", "log": "Log α in the place of α."},
        {"draws": "There; its size is unknown, since the loss draws something else first."},
    ),
    "critic.discount": (
        "discount of the target",
        {
            "left_out": f"{_TWO}: left out.", "squared": f"{_TWO}: twice.",
            "unused": "No next value.", "one_step": f"{_TWO}: one step's?", "other": f"{_TWO}.",
        },
        {"bent": _BENT},
    ),
    "critic.targets": (
        "target networks",
        {"unused": "{at}: not used.", "aside": "{at}: another network's values count."}, {},
    ),
    "critic.next_value": (
        "next value",
        {"here": "Moves with the row's own {at}.", "still": "Not of next observations."},
        {"batch_norm": _NORM, "aside": "A term of the row's {at} beside it: meant?"},
    ),
    "critic.beyond": (
        "ends", {"moves": "What follows an end counts: (1 − d) left out?"}, {"batch_norm": _NORM},
    ),
    "critic.time_limits": ("time limits", {"moves": "Taken for ends."}, {}),
    "critic.level": (
        "level of the target", {"ends": "Not the reward at ends."},
        {"elsewhere": "More than r + γ v: declare temperature, or return a dict of terms."},
    ),
    "critic.twins": ("twins", {"largest": "The largest counts."}, {}),
    "critic.descends": ("sign", {"rises": "Wrong in {value} of the rows."}, {}),
    "critic.weights": (
        "weights of rows", {"uneven": "Uneven by {value}, without a column `weight`."},
        {"silent": "{value} of the rows count nothing: give a column `mask`."},
    ),
    "actor.gradient": (
        "gradient of the actor",
        {
            "sampled": "Zero: sampled ({at}).", "discrete": "Zero: no derivative ({at}).",
            "detached": "Zero: detached ({at}).", "no_grad": "Zero: without gradients ({at}).",
            "zero": "Zero: a clamp, a saturated tanh?", "apart": "None: another actor is called.",
        }, {},
    ),
    "actor.finite": ("finite gradient", {"not_finite": "Not of {at}."}, {}),
    "actor.lost": (
        "lost path of an action",
        {
            "sampled": "Sampled ({at}): use rsample, or a score.",
            "discrete": "No derivative ({at}).",
            "detached": "Detached ({at}).", "no_grad": "Without gradients ({at}).",
        }, {},
    ),
    "actor.reached": (
        "given actions", {"apart": "The {at} is given none of the actor's."},
        {"own_loss": "The {at} stands beside a score: its own loss?"},
    ),
    "actor.values": ("values", {"detached": "The {at}'s are detached."}, {}),
    "actor.score": (
        "score",
        {"constant": "Zero on average, of a cut action ({at}).",
         "cancels": "Cancels with the path of its action ({at})."}, {},
    ),
    "actor.parameters": (
        "parameters", {"none": "No path to {at}.", "zero": "Zero gradient of {at}."}, {},
    ),
    "actor.sign": ("sign", {"rises": "The loss rises with Q in {value} of the rows."},
                   {"masked": "Rows are masked."}),
    "actor.rows": (
        "weights of rows", {"uneven": "Uneven by {value}: a minimum over the batch?"},
        {"weighed": "Rows have weights."},
    ),
    "actor.twins": ("twins", {"largest": "The largest counts."}, {}),
    "actor.own": (
        "own actions", {"moves": "Moved by the row's {at}."},
        {"moves?": "Moved by the row's {at}: cloning? Declare meant=[\"own\"]."},
    ),
    "actor.density": (
        "density",
        {"other": "Not of the drawn action: {value} in the place of 1.",
         "several": "{value} numbers a row: sum them."},
        {"discrete": "Discrete actions.", "mean": "One action.",
         "scaled": "Off by a factor, {value}: is the action scaled after log π?"},
    ),
    "actor.entropy": (
        "entropy",
        {"left_out": "Left out.", "detached": "log π is detached.", "negated": "Wrong sign.",
         "size": "{value} of it."}, {},
    ),
    "actor.temperature": ("temperature", {"negated": "Moves the wrong way."}, {}),
    "policy.weights": (
        "weights by advantage",
        {"still": "None.", "negated": "Negated.", "other_row": "Of {value} rows off.",
         "apart": "Correlation {value}."},
        {"alike": "Rows are alike: take different states.",
         "bent": "Rising, not in proportion: declare monotone=True.",
         "uneven": "Of the right sign, correlation {value}: are long rows meant to count less?"},
    ),
    "policy.ratio": (
        "ratio",
        {"anew": "Always 1: is the old log π computed anew?", "negated": "Inverted.",
         "apart": "Correlation {value} with advantages."},
        {"unused": "None; declare clip where one is meant."},
    ),
    "policy.clip": (
        "clip",
        {"unclipped": "None.", "other_side": "On the wrong side.", "elsewhere": "Elsewhere."},
        {"detached": "Not asked: detached ratio."},
    ),
    "policy.bonus": (
        "entropy bonus", {"negated": "Wrong sign."},
        {"value": "Declare critic, apart from the actor."},
    ),
    "policy.value": (
        "fitted value",
        {"unused": "No gradient.", "mixed": "Moved by other rows' returns: [B, 1] against [B]?",
         "apart": "Not the row's return."},
        {"silent": "The critic is not called.", "scaled": "A scaled return.",
         "tokens": "Several a row."},
    ),
    "gae.linear": ("linearity", {"offset": "Zeros do not give zeros."}, {}),
    "gae.environments": ("environments", {"mixed": "Mixed."}, {}),
    "gae.reward": (
        "reward", {"negated": "Negated.", "decay": "{value} a step, γλ = {threshold}."}, {},
    ),
    "gae.ends": (
        "ends",
        {"left_out": "Left out.", "late": "One step late.", "early": "One step early."}, {},
    ),
    "gae.value": (
        "next value", {"swapped": "γ and λ are exchanged.", "discount": f"{_TWO}."}, {},
    ),
    "gae.time_limits": ("time limits", {"lost": "Their last value is lost."}, {}),
    "gae.last_value": ("last value", {"lost": "Lost, or elsewhere."}, {}),
}  # fmt: skip


def _four(value: float, digits: int) -> str:
    """γ is told from γ² by its third digit."""
    return f"{value:.4g}"


for _law, (_title, _broken, _open) in _LAWS.items():
    _name = _law.partition(".")[2]
    _or = f'Correct it, or declare meant=["{_name}"].'
    register(
        {_law: Code(_title, "Holds.", write=_four)}
        | {
            f"{_law}.{name}": Code(_title, text, _or, "error", _four)
            for name, text in _broken.items()
        }
        | {f"{_law}.{name}": Code(_title, text, write=_four) for name, text in _open.items()}
        | {
            f"{_law}.skipped": Code(_title, "Needs {at}."),
            f"{_law}.meant": Code(_title, "Meant so."),
            f"{_law}.error": Code(_title, "{at}."),
        }
    )
register({
    "conform.exact": Code("gradient", "Exact: {value} × the gradient."),
    "conform.designed": Code("gradient", "Biased by design, {at}: cosine {value}."),
    "conform.biased": Code("gradient", "Biased: cosine {value}.", "Does its source say so?"),
    "conform.zero": Code("gradient", "Zero.", "Correct it.", "error"),
    "conform.downhill": Code("gradient", "Downhill: cosine {value}.", "Correct its sign.", "error"),
    "conform.scale": Code("scale", "{value} × the gradient."),
    "conform.rest": Code("rest", "{value} of it beyond.", write=percent),
    "conform.term": Code("term", "{value} {subject}, of {threshold}."),
})  # fmt: skip
