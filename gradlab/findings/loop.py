"""A loop's own parts: who moved which network, and what is stored against what was recorded.

The first code of each check is its claim: it passes, waits or is skipped by it.
"""

from gradlab.findings.finding import Code, register
from gradlab.wording import percent


def _claim(title: str, sentence: str) -> Code:
    return Code(title, sentence, "{at}.", "note")


def _fault(title: str, sentence: str, remedy: str) -> Code:
    return Code(title, sentence, remedy, "error")


register({
    "moved_own": _claim("own steps", "Networks move by their own optimiser."),
    "moved_still": _fault(
        "own steps", "{subject} has not moved in {n} steps of its optimiser.",
        "Does the optimiser hold it, and reaches its loss it? Else freeze it, "
        "`requires_grad_(False)`.",
    ),
    "moved_in_part": _fault(
        "own steps", "{n} steps moved {subject}, but never {at}.",
        "Does the optimiser hold all of it, and reaches its loss all? Else freeze that part, "
        "`requires_grad_(False)`.",
    ),
    "moved_alone": _claim("steps of others", "Nothing else moves a network."),
    "moved_by_another": _fault(
        "steps of others", "{subject} moves at {at} in {n} of {threshold} looks.",
        "Give each optimiser its own parameters, or declare one optimiser for both roles.",
    ),
    "moved_between": _fault(
        "steps of others", "{subject} moves between steps in {n} of {threshold} looks.",
        "Are network and target exchanged? Else declare the optimiser that moves it.",
    ),
    "moved_size": _claim("size of steps", "A step moves a network by 0.003% to 5% of its size."),
    "moved_far": Code(
        "size of steps", "A step moves {subject} by {number} of its size, limit {threshold}.",
        "Divide its rate by ten.", "error", percent,
    ),
    "moved_little": Code(
        "size of steps", "A step moves {subject} by {number} of its size, limit {threshold}.",
        "Is its rate, or its clip, far too small, or Adam's `eps` too large?", "error",
    ),
    "moved_settings": _claim("settings", "Rates, `eps` and weight decays are usual."),
    "moved_unusual": _fault(
        "settings", "{at} of the optimiser of {subject} is {number}, limit {threshold}.",
        "Is it another argument's?",
    ),
    "moved_gradient": _claim("gradients", "Networks step along their own losses."),
    "moved_mixed": _fault(
        "gradients", "In {n} of {threshold} steps {subject} holds what another loss sent.",
        "Call `zero_grad()` right before the `backward()` of its own loss, and make targets under "
        "`no_grad`.",
    ),
    "moved_uncleared": _fault(
        "gradients", "Gradients of {subject} add up in {n} of {threshold} steps.",
        "Call `zero_grad()` before each `backward()`.",
    ),
    "moved_targets": _claim("targets", "Targets follow their networks."),
    "moved_target_same": _fault(
        "targets", "{subject} is {at} itself.", "Make it a `copy.deepcopy`."
    ),
    "moved_target_stepped": _fault(
        "targets", "{subject} moves at {at} in {n} of {threshold} looks.",
        "Which optimiser holds the targets?",
    ),
    "moved_target_frozen": _fault(
        "targets", "{subject} has not moved in {n} steps of {at}.", "Is it updated?"
    ),
    "moved_target_astray": _fault(
        "targets", "{subject} moves, and not towards {at}.", "Is it another network's target?"
    ),
    "moved_target_fast": _fault(
        "targets", "{subject} takes {number} of {at} at each step, limit {threshold}.",
        "Are τ and 1 − τ exchanged?",
    ),
    "moved_twins": _claim("twins", "Critics differ from each other."),
    "moved_twins_equal": _fault(
        "twins", "{subject} and {at} are equal in every weight.",
        "Give each its own initial weights: the minimum of both is one of them.",
    ),
})  # fmt: skip
