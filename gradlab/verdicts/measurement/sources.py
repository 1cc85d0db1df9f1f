"""Form 3: which part made the squared bias, and so what to mend first?"""

from __future__ import annotations

from math import isfinite

from gradlab.runs.attribution import CAUSES, Account, Attribution, Part
from gradlab.runs.profile import Profile
from gradlab.verdicts.phrases import ZERO
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import gradient, percent, two

MEND = {
    "states": "the model's rollout",
    "A": "the model's derivatives",
    "B": "the model's derivatives",
    "reward": "the reward's gradient",
    "critic_s": "the critic",
    "critic_a": "the critic",
}


def source(profile: Profile, attribution: Attribution | None, name: str) -> list[Sentence]:
    """The largest share of the squared bias at the attributed horizon of least error."""
    if attribution is None:
        return []
    accounts = [each for each in attribution.bias if each.estimator == name]
    if not accounts:
        return []
    least = min(accounts, key=lambda each: profile.estimate(name, "mse", each.horizon).value)
    return [_told(least, f"N = {attribution.starts}")]


def _told(account: Account, n: str) -> Sentence:
    what = f"the squared bias of {gradient(account.estimator)} at h = {account.horizon}"
    where = f"of {what}"
    if account.lost:
        total = f"{two(account.total.value)}, CI {_ends(account.total.low, account.total.high)}"
        return Sentence(
            "source", False, f"Undecided what makes {what}: it is {ZERO} ({total}, {n})."
        )  # fmt: skip
    if account.cancelling:
        named = " and ".join(
            f"{_share(account.share(c))} for {CAUSES[c]}" for c in account.cancelling
        )
        return Sentence(
            "source", True, f"Causes cancel: shares {where} are {named} ({n}), so that mending "
            f"one of them alone may make it worse."
        )  # fmt: skip
    top = max(account.shapley, key=lambda part: part.value)
    second = max((part for part in account.shapley if part is not top), key=lambda part: part.high)
    if not top.clear or top.low <= second.high:
        return Sentence(
            "source", False, f"Undecided whether {CAUSES[top.name]} ({_share(top)}) or "
            f"{CAUSES[second.name]} ({_share(second)}) makes more {where} ({n})."
        )  # fmt: skip
    text = (
        f"{_share(top)} {where} comes from {CAUSES[top.name]}{_entry(account, top)}"
        f"{_beside(account, top)}: mend {MEND[top.name]} first ({n})."
    )
    return Sentence("source", True, text)


def _entry(account: Account, top: Part) -> str:
    """The entry with most of the share, where it is clear and most of it."""
    mine = [e for e in account.entries if e.cause == top.name and e.part.clear]
    largest = max(mine, key=lambda each: each.part.value, default=None)
    if largest is None or largest.part.value < top.value / 2:
        return ""
    return f", mostly {largest.output} by {largest.input} ({_share(largest.part)})"


def _beside(account: Account, top: Part) -> str:
    """What the states' error explains, where it is not the answer itself."""
    if top.name == "states":
        return ""
    states = account.share("states")
    return "" if states.value == 0 == states.se else f"; errors of states make {_share(states)}"


def _share(part: Part) -> str:
    return f"{_percent(part.fraction)} (CI {_ends(part.fraction_low, part.fraction_high, True)})"


def _ends(low: float, high: float, share: bool = False) -> str:
    shown = [_percent(each) if share else two(each) for each in (low, high)]
    return f"{shown[0]} to {shown[1]}"


def _percent(share: float) -> str:
    return percent(share) if isfinite(share) else ("∞" if share > 0 else "−∞")
