"""Returns, gradients, models and weights of training runs, alone and in pairs."""

from gradlab.findings.finding import Code, register
from gradlab.wording import cosine, percent

_EXPLAINED = "{subject} explains {at} least: {value} of the held-out variance after {n} rows."
_RULE, _PAIRED = "Follow the rule's weights.", "{value}; {n} paired seeds."

register({
    "training return": Code("return", "Return of {subject}: {value}, median of {n} seeds, {at}."),
    "training return of one seed": Code(
        "return", "Return of {subject}: {value} over {n} starts, {at}."
    ),
    "training goal": Code("goal", "{number} of {n} seeds of {subject} reach {at}."),
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
