"""What two measurements of one policy say of one another, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from gradlab.runs.check_results import no_gradient
from gradlab.runs.comparison import Comparison
from gradlab.runs.decision_rules import LogRatio, least_ratio
from gradlab.statistics.comparison import Number, difference
from gradlab.verdicts.phrases import SAME, ZERO, capital, missing, same
from gradlab.verdicts.screen import NOTHING, Fact, Light, Screen, Sentence
from gradlab.wording import gradient, horizons, listed, percent, with_interval

_SHOWN, _LEAD = 36, 8  # characters of a value, and of what it shares with the other
_PARTS = {
    "bias2": "squared bias",
    "variance": "variance",
    "cosine": "cosine",
}


def screen(comparison: Comparison) -> Screen:
    """Whether B is better than A, and for which gradients; the change that was made is below."""
    rest = comparison_verdict(comparison)
    for profile, name in zip((comparison.first, comparison.second), comparison.names, strict=True):
        if void := no_gradient(profile.sanity):
            return Screen(f"{name}: {void[0].sentence}", "none", NOTHING, (), "mse-ratio", rest)
    ratios = {name: ratio for name in comparison.estimators if (ratio := _least(comparison, name))}
    A, B = comparison.names
    if not ratios:
        text = f"Measure more starts: no error of {A} and {B} is known to be above 0 in both."
        return Screen(text, "none", "no error to compare", (), "mse-ratio", rest)
    better = [name for name, ratio in ratios.items() if ratio.high < 0]
    worse = [name for name, ratio in ratios.items() if ratio.low > 0]
    alike = [name for name, ratio in ratios.items() if same(ratio)]
    open_ = [name for name in ratios if name not in (*better, *worse, *alike)]
    lower, raised = _who(comparison, better), _who(comparison, worse)
    if better and worse:
        text = f"Choose by the gradient you use: {B} lowers the error of {lower} and raises that "
        text += f"of {raised}, against {A}."
    elif better:
        text = f"Prefer {B}: it lowers the error of {lower}, against {A}."
    elif worse:
        text = f"Prefer {A}: {B} raises the error of {raised}."
    elif open_:
        text = f"Measure more samples: {B} is not shown to be better or worse than {A}."
    else:
        text = f"Take either: every error of {A} and {B} agrees to within {percent(SAME - 1)}."
    text += f" Open: {_who(comparison, open_)}." if (better or worse) and open_ else ""
    sure = "decided for every gradient (95%)"
    if open_:
        nearest = min(open_, key=lambda name: -abs(ratios[name].value) / ratios[name].se)
        more = _more(comparison, ratios[nearest])
        sure = f"decided for {len(ratios) - len(open_)} of {len(ratios)} gradients; {more}"
        sure += f" for {_who(comparison, [nearest])}" * (len(open_) > 1)
    facts = tuple(_fact(comparison, name, ratio) for name, ratio in list(ratios.items())[:3])
    return Screen(text, "choose" if open_ else "act", sure, facts, "mse-ratio", rest)


def each_with_first(comparisons: Sequence[Comparison]) -> Screen:
    """How many measurements differ from the first, decided gradient by gradient, and which."""
    screens = [screen(comparison) for comparison in comparisons]
    if len(screens) == 1:
        return replace(screens[0], figure=None)
    first, decided = comparisons[0].names[0], sum(each.light == "act" for each in screens)
    text = f"Compare pair by pair: {decided} of {len(screens)} comparisons with {first} are "
    text += "decided for every gradient."
    rest = tuple(Sentence("run", each.light == "act", each.headline) for each in screens)
    light: Light = "act" if decided == len(screens) else "choose"
    return Screen(text, light, f"{decided} of {len(screens)}, each at 95%", (), None, rest)


def _who(comparison: Comparison, names: Sequence[str]) -> str:
    """The gradients, briefly where that names one alone."""
    every = [_gradient(comparison, name).partition(" (")[0] for name in comparison.estimators]
    each = [_gradient(comparison, name) for name in names]
    brief = [one.partition(" (")[0] for one in each]
    return listed([b if every.count(b) == 1 else e for e, b in zip(each, brief, strict=True)], 2)


def _gradient(comparison: Comparison, name: str) -> str:
    return gradient(comparison.first.identities[name])


def _fact(comparison: Comparison, name: str, ratio: LogRatio) -> Fact:
    A, B = comparison.names
    paired = "each replicate at its own best horizon"
    how = f"least MSE of {B} over that of {A}, {paired}, {_samples(comparison)}."
    fact = Fact.ranged(f"× the error, {_who(comparison, [name])}", ratio.estimate, how)
    lost = Number(*ratio.estimate, n=0).spans_decades
    return replace(fact, text=f"unknown ({_samples(comparison)})") if lost else fact


def _least(comparison: Comparison, name: str) -> LogRatio | None:
    """log of B's least error over A's; None where it is lost."""
    over = _finite(comparison, name, "mse")
    pairs = [comparison.estimates(name, "mse", h) for h in over]
    if not pairs:
        return None
    return least_ratio([pair[1] for pair in pairs], [pair[0] for pair in pairs])


def comparison_verdict(comparison: Comparison) -> tuple[Sentence, ...]:
    """What was changed, then estimator by estimator whether B is better than A, and in what."""
    sentences = [_asked(comparison)]
    for name in comparison.estimators:
        error, parts = _error(comparison, name), _parts(comparison, name)
        if error is not None:
            decided, text = error
            sentences.append(Sentence("error", decided, f"{text}{f': {parts}' if parts else ''}."))
        elif parts:
            text = f"{capital(_gradient(comparison, name))}: {parts}."
            sentences.append(Sentence("parts", True, text))
    return tuple(sentences)


def _asked(comparison: Comparison) -> Sentence:
    A, B = comparison.names
    settings = [
        f"{key.replace('_', ' ')} ({' → '.join(_short(one, other))})"
        for key, (one, other) in comparison.changed.items()
    ]
    text = f"{A} against {B}: "
    text += f"they differ in {', '.join(settings)}" if settings else "no recorded setting differs"
    n = _samples(comparison)
    if comparison.unpaired:
        text += f"; not paired, since {comparison.unpaired}: the errors of both add ({n})."
    else:
        text += f"; paired, on the same starts and noise ({n})."
    return Sentence("comparison", True, f"{text} {comparison.skipped}".strip())


def _error(comparison: Comparison, name: str) -> tuple[bool, str] | None:
    """Decided, and the least error over the horizons, each replicate choosing its own."""
    over = _finite(comparison, name, "mse")
    if not over:
        return None
    pairs = [comparison.estimates(name, "mse", h) for h in over]
    best = [over[int(np.argmin([pair[k].value for pair in pairs]))] for k in range(2)]
    ratio = _least(comparison, name)
    (A, B), n = comparison.names, _samples(comparison)
    whose = _gradient(comparison, name)
    if ratio is None:
        return False, f"Undecided: the error of {whose} is {ZERO} ({n})"
    if same(ratio):
        text = f"{A} and {B} have the same error of {whose} to within"
        return True, f"{text} {percent(SAME - 1)} ({n})"
    numbers = with_interval(*ratio.estimate, "×", n)
    if ratio.low > 0 or ratio.high < 0:
        verb = "raises" if ratio.low > 0 else "lowers"
        text = f"{B} {verb} the mean squared error of {whose} to {numbers} that of {A}"
        where = f" (at their best, h = {best[0]} in {A} and {best[1]} in {B})"
        return True, text + (where if len(over) > 1 else "")
    text = f"Undecided whether {B} has the smaller error of {whose}: {numbers} that of {A}"
    return False, f"{text}; {_more(comparison, ratio)}"


def _parts(comparison: Comparison, name: str) -> str:
    """The horizons at which each part is clearly larger or smaller; empty where none is."""
    moves = []
    for quantity, words in _PARTS.items():
        over = _finite(comparison, name, quantity)
        both = (comparison.estimates(name, quantity, h) for h in over)
        gaps = [difference(second, first) for first, second in both]
        up = [h for h, gap in zip(over, gaps, strict=True) if gap.low > 0]
        down = [h for h, gap in zip(over, gaps, strict=True) if gap.high < 0]
        moved = [f"higher at h = {horizons(up)}"] if up else []
        moved += [f"lower at h = {horizons(down)}"] if down else []
        if moved:
            moves.append(f"{words} {' and '.join(moved)}")
    return "; ".join(moves)


def _finite(comparison: Comparison, name: str, quantity: str) -> list[int]:
    """Horizons at which both values are numbers."""
    if quantity not in comparison.quantities:
        return []
    over = comparison.measured(name, quantity)
    pairs = {h: comparison.estimates(name, quantity, h) for h in over}
    return [h for h in over if all(np.isfinite(each.left_out).all() for each in pairs[h])]


def _more(comparison: Comparison, ratio: LogRatio) -> str:
    return f"{missing(ratio.against(comparison.samples), 'samples in each')} decide"


def _samples(comparison: Comparison) -> str:
    counts = [int(each.config["starts"]) for each in (comparison.first, comparison.second)]
    return (
        f"N = {counts[0]:,}" if counts[0] == counts[1] else f"N = {counts[0]:,} and {counts[1]:,}"
    )


def _short(one: object, other: object) -> tuple[str, str]:
    """Two values; of long ones what is around their first difference."""
    texts = ["none" if each in (None, "") else str(each) for each in (one, other)]
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    begin = sum(1 for _ in alike) - _LEAD
    return _around(texts[0], begin), _around(texts[1], begin)


def _around(text: str, begin: int) -> str:
    begin = max(min(begin, len(text) - _SHOWN), 0)
    shown = text[begin : begin + _SHOWN]
    return f"{'…' * (begin > 0)}{shown}{'…' * (begin + _SHOWN < len(text))}"
