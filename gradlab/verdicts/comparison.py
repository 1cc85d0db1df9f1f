"""What two measurements of one policy say of one another, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from gradlab.findings import Finding
from gradlab.findings.checks import no_gradient
from gradlab.runs.comparison import Comparison
from gradlab.runs.decision_rules import LogRatio, least_ratio
from gradlab.statistics.comparison import Number, difference
from gradlab.verdicts.phrases import SAME, ZERO, capital, missing, same
from gradlab.verdicts.recommendation import Field, Light, Recommendation, worded
from gradlab.wording import gradient, horizons, listed, percent, with_interval

_SHOWN, _LEAD = 36, 8  # characters of a value, and of what it shares with the other
_PARTS = {
    "bias2": "squared bias",
    "variance": "variance",
    "cosine": "cosine",
}


def screen(comparison: Comparison) -> Recommendation:
    """Whether B is better than A, and for which gradients; the change that was made is below."""
    rest = comparison_verdict(comparison)
    for profile, name in zip((comparison.first, comparison.second), comparison.names, strict=True):
        if void := no_gradient(profile.sanity):
            why = Field("why", f"{name}: {void[0].said}")
            return Recommendation("none", (Field("prefer", NEITHER), why), _FIGURE, rest)
    ratios = {name: ratio for name in comparison.estimators if (ratio := _least(comparison, name))}
    A, B = comparison.names
    if not ratios:
        nothing = Field("why", f"no error of {A} and {B} is known to be above 0 in both")
        more = Field("decide", "measure more starts")
        return Recommendation("none", (Field("prefer", NEITHER), nothing, more), _FIGURE, rest)
    better = [name for name, ratio in ratios.items() if ratio.high < 0]
    worse = [name for name, ratio in ratios.items() if ratio.low > 0]
    alike = [name for name, ratio in ratios.items() if same(ratio)]
    open_ = [name for name in ratios if name not in (*better, *worse, *alike)]
    prefer = NEITHER if not (better or worse) else B if not worse else A
    if better and worse:
        prefer = "by the gradient you use"
    elif not (better or worse or open_):
        prefer = f"either: every error agrees to within {percent(SAME - 1)}"
    named = {"lower error": better, "higher error": worse, "undecided": open_}
    said = "; ".join(f"{what}: {_who(comparison, of)}" for what, of in named.items() if of)
    decided = ""
    if open_:
        nearest = min(open_, key=lambda name: -abs(ratios[name].value) / ratios[name].se)
        decided = _more(comparison, ratios[nearest])
        decided += f" for {_who(comparison, [nearest])}" * (len(open_) > 1)
    fields = (
        Field("prefer", prefer),
        Field(f"{B} against {A}", said or "no difference"),
        Field("decide", decided),
        *(_ratio(comparison, name, ratio) for name, ratio in list(ratios.items())[:2]),
    )
    shown = tuple(each for each in fields if each.text)
    return Recommendation("choose" if open_ else "act", shown, _FIGURE, rest)


NEITHER = "neither yet"
_FIGURE = "mse-ratio"


def each_with_first(comparisons: Sequence[Comparison]) -> Recommendation:
    """How many measurements differ from the first, decided gradient by gradient, and which."""
    screens = [screen(comparison) for comparison in comparisons]
    if len(screens) == 1:
        return replace(screens[0], figure=None)
    first, decided = comparisons[0].names[0], sum(each.light == "act" for each in screens)
    many = f"{decided} of {len(screens)} comparisons with {first}, for every gradient (95%)"
    rest = []
    for comparison, each in zip(comparisons, screens, strict=True):
        said = "; ".join(["prefer " + each.fields[0].text, *(e.text for e in each.fields[1:2])])
        rest.append(worded("run", each.light == "act", f"{comparison.names[1]}: {said}."))
    light: Light = "act" if decided == len(screens) else "choose"
    fields = (Field("prefer", "pair by pair"), Field("decided", many))
    return Recommendation(light, fields, None, tuple(rest))


def _who(comparison: Comparison, names: Sequence[str]) -> str:
    """The gradients, briefly where that names one alone."""
    every = [_gradient(comparison, name).partition(" (")[0] for name in comparison.estimators]
    each = [_gradient(comparison, name) for name in names]
    brief = [one.partition(" (")[0] for one in each]
    return listed([b if every.count(b) == 1 else e for e, b in zip(each, brief, strict=True)], 2)


def _gradient(comparison: Comparison, name: str) -> str:
    return gradient(comparison.first.identities[name])


def _ratio(comparison: Comparison, name: str, ratio: LogRatio) -> Field:
    A, B = comparison.names
    paired = "each replicate at its own best horizon"
    how = f"least MSE of {B} over that of {A}, {paired}, {_samples(comparison)}."
    field = Field.ranged(f"error ratio, {_who(comparison, [name])}", ratio.estimate, how)
    lost = Number(*ratio.estimate, n=0).spans_decades
    text = f"unknown ({_samples(comparison)})" if lost else f"{field.text} of {A}'s"
    return replace(field, text=text)


def _least(comparison: Comparison, name: str) -> LogRatio | None:
    """log of B's least error over A's; None where it is lost."""
    over = _finite(comparison, name, "mse")
    pairs = [comparison.estimates(name, "mse", h) for h in over]
    if not pairs:
        return None
    return least_ratio([pair[1] for pair in pairs], [pair[0] for pair in pairs])


def comparison_verdict(comparison: Comparison) -> tuple[Finding, ...]:
    """What was changed, then estimator by estimator whether B is better than A, and in what."""
    sentences = [_asked(comparison)]
    for name in comparison.estimators:
        error, parts = _error(comparison, name), _parts(comparison, name)
        if error is not None:
            decided, text = error
            sentences.append(worded("error", decided, f"{text}{f': {parts}' if parts else ''}."))
        elif parts:
            text = f"{capital(_gradient(comparison, name))}: {parts}."
            sentences.append(worded("parts", True, text))
    return tuple(sentences)


def _asked(comparison: Comparison) -> Finding:
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
    return worded("comparison", True, f"{text} {comparison.skipped}".strip())


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
