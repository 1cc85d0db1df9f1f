"""Returns, gradients, models and weights of training runs, alone and in pairs."""

from gradlab.findings.finding import Code, register
from gradlab.wording import cosine, percent

_RULE = "Follow the rule's weights."

register({
    "training return": Code("return"),
    "training return of one seed": Code("return of one seed"),
    "training goal": Code("goal", ":{subject}, {number} of {n} seeds reach {at}."),
    "training gradient": Code("gradient MSE over |truth|²"),
    "training gradient unknown": Code("gradient error not known"),
    "training cosine": Code("cosine with the truth", write=cosine),
    "training bias": Code("bias² over MSE", severity="note", write=percent),
    "training bias source": Code("largest cause of bias", severity="note", write=percent),
    "training usable range": Code("usable horizons", ":{subject}, h = {at}."),
    "training open range": Code("perhaps usable horizons", ":{subject}, h = {at}."),
    "training no range": Code("usable horizons", ":{subject}, none of h = {at}."),
    "training model": Code(
        "least explained output", remedy="So do gradients from it.", write=percent
    ),
    "training model by likelihood": Code(
        "least explained output", remedy="`--loss mse` fits squared errors.", write=percent
    ),
    "training weight": Code("measured weight", severity="note"),
    "training weights by error": Code("MSE of measured weights", remedy=_RULE),
    "training weights by gain": Code("gain of measured weights", remedy=_RULE, write=percent),
    "training weights unknown": Code("measured weights not judged"),
    "training lag": Code(
        "age of gradients", ":{subject}, {number} steps of the policy, at most {high}.",
        severity="note",
    ),
    "training event": Code("event", "{subject}"),
    "training pair of returns": Code("difference of returns"),
    "training pair of gradients": Code("ratio of gradient MSEs"),
    "training pair of models": Code("ratio of model MSEs"),
})  # fmt: skip
