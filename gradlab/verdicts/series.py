"""The first screen of several checkpoints of one training: when to weigh data, when the model."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

from gradlab.runs.decision_rules import LogRatio
from gradlab.runs.profile import Profile
from gradlab.verdicts.measurement.data_or_model import crossing, data_over_model, through_training
from gradlab.verdicts.screen import Fact, Light, Screen
from gradlab.wording import known, span, two

FIGURE = "mse-through-training"
HOW = "MSE of the data gradient over that of the model at the longest horizon, paired, {n} starts."


def screen(profiles: Mapping[int, Profile], data_weight: Mapping[int, float]) -> Screen:
    """Iteration → measurement, and the weight that a rule gives to the data gradient."""
    rest = (through_training(profiles, data_weight),)
    ratios = {k: r for k in sorted(profiles) if (r := data_over_model(profiles[k])) is not None}
    decided = {k: 1 if r.low > 0 else -1 for k, r in ratios.items() if r.low > 0 or r.high < 0}
    facts = tuple(_fact(k, ratios[k], profiles[k]) for k in _shown(ratios))
    text, light = _told(decided)
    sure = f"{len(decided)} of {len(profiles)} checkpoints decide (95%)"
    if not ratios:
        return Screen("No checkpoint has a truth to compare by.", "none", sure, (), FIGURE, rest)
    return Screen(text, light, sure, facts, FIGURE, rest)


def _told(decided: Mapping[int, int]) -> tuple[str, Light]:
    if not decided:
        return "Weigh data and model alike: at no checkpoint is one shown to be nearer.", "choose"
    names = {1: "the model", -1: "the data gradient"}
    first, turn = next(iter(decided)), crossing(decided)
    if turn is None:
        return f"Weigh {names[decided[first]]} throughout: wherever one is nearer, it is.", "act"
    before, after = names[decided[turn[0]]], names[decided[turn[1]]]
    text = f"Weigh {before} up to iteration {turn[0]} and {after} from {turn[1]} on."
    back = crossing({k: v for k, v in decided.items() if k >= turn[1]})
    return text + (f" Their order turns back by {back[1]}." if back else ""), "act"


def _shown(ratios: Mapping[int, LogRatio]) -> list[int]:
    """The first, middle and last checkpoint."""
    at = list(ratios)
    return sorted({at[0], at[len(at) // 2], at[-1]}) if at else []


def _fact(at: int, ratio: LogRatio, profile: Profile) -> Fact:
    n = int(profile.config["starts"])
    low, high = exp(ratio.low), exp(ratio.high)
    text = known(f"{two(exp(ratio.value))}×", low, high, f"{n} starts")
    ends = "" if text.startswith("unknown") else f", {span(low, high)}"
    label = f"the model's error: that of data at iteration {at}{ends}"
    return Fact(label, text, HOW.format(n=n))
