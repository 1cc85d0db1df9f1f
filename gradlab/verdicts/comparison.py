"""What two measurements of one policy say of one another, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradlab.findings import Finding
from gradlab.findings.checks import no_gradient
from gradlab.runs.comparison import Comparison
from gradlab.runs.decision_rules import LogRatio, least_ratio
from gradlab.statistics.comparison import Number
from gradlab.verdicts.phrases import SAME, held_ratio, missing, same
from gradlab.verdicts.recommendation import Field, Recommendation
from gradlab.wording import label, listed, percent


def screen(comparison: Comparison) -> Recommendation:
    """Whether B is better than A, and for which gradients; the change that was made is below."""
    rest = comparison_verdict(comparison)
    for profile, name in zip((comparison.first, comparison.second), comparison.names, strict=True):
        if void := no_gradient(profile.sanity):
            why = Field("why", f"{name}: {void[0].sentence}")
            return Recommendation("none", (Field("prefer", _NEITHER), why), _FIGURE, rest)
    ratios = {name: ratio for name in comparison.estimators if (ratio := _least(comparison, name))}
    A, B = comparison.names
    if not ratios:
        nothing = Field("why", f"no error of {A} and {B} is known to be above 0 in both")
        more = Field("decide", "measure more starts")
        return Recommendation("none", (Field("prefer", _NEITHER), nothing, more), _FIGURE, rest)
    better = [name for name, ratio in ratios.items() if ratio.high < 0]
    worse = [name for name, ratio in ratios.items() if ratio.low > 0]
    alike = [name for name, ratio in ratios.items() if same(ratio)]
    open_ = [name for name in ratios if name not in (*better, *worse, *alike)]
    prefer = _NEITHER if not (better or worse) else B if not worse else A
    if better and worse:
        prefer = "by the gradient you use"
    elif not (better or worse or open_):
        prefer = f"either: every error agrees to within {percent(SAME - 1)}"
    named = {"lower error": better, "higher error": worse, "undecided": open_}
    said = "; ".join(f"{what}: {_who(comparison, of)}" for what, of in named.items() if of)
    decided = ""
    if open_:
        nearest = min(open_, key=lambda name: -abs(ratios[name].value) / ratios[name].se)
        undecided = ratios[nearest].against(comparison.samples)
        decided = f"{missing(undecided, 'samples in each')} decide"
        decided += f" for {_who(comparison, [nearest])}" * (len(open_) > 1)
    fields = (
        Field("prefer", prefer),
        Field(f"{B} against {A}", said or "no difference"),
        Field("decide", decided),
        *(_ratio(comparison, name, ratio) for name, ratio in list(ratios.items())[:2]),
    )
    shown = tuple(each for each in fields if each.text)
    return Recommendation("choose" if open_ else "act", shown, _FIGURE, rest)


_SHOWN = 60  # characters of a value
_NEITHER = "neither yet"
_FIGURE = "mse-ratio"


def _who(comparison: Comparison, names: Sequence[str]) -> str:
    return listed([label(name, comparison.first.identities) for name in names], 2)


def _ratio(comparison: Comparison, name: str, ratio: LogRatio) -> Field:
    A, B = comparison.names
    how = f"least MSE of {B} over that of {A}, {_samples(comparison)}"
    field = Field.ranged(f"error ratio, {_who(comparison, [name])}", ratio.estimate, how)
    lost = Number(*ratio.estimate, n=0).spans_decades
    text = f"unknown ({_samples(comparison)})" if lost else f"{field.text} of {A}'s"
    return replace(field, text=text)


def _least(comparison: Comparison, name: str) -> LogRatio | None:
    """log of B's least error over A's; None where it is lost."""
    over = comparison.measured(name, "mse") if "mse" in comparison.quantities else ()
    every = [comparison.estimates(name, "mse", h) for h in over]
    pairs = [e for e in every if all(np.isfinite(each.left_out).all() for each in e)]
    if not pairs:
        return None
    return least_ratio([pair[1] for pair in pairs], [pair[0] for pair in pairs])


def comparison_verdict(comparison: Comparison) -> tuple[Finding, ...]:
    """What was changed, then gradient by gradient how the least error changes."""
    A, B = comparison.names
    settings = (
        f"{key.replace('_', ' ')} ({' → '.join(map(_short, values))})"
        for key, values in comparison.changed.items()
    )
    n = comparison.samples
    at = ", ".join(settings) or "no recorded setting"
    found = [Finding("changed", "pass", f"{A} and {B}", n=n, at=at)]
    if comparison.unpaired:
        found.append(Finding("unpaired", "skipped", n=n, at=comparison.unpaired))
    if comparison.skipped:
        found.append(Finding("less_compared", "skipped", n=n, at=comparison.skipped))
    for name in comparison.estimators:
        if ratio := _least(comparison, name):
            whose, at = _who(comparison, [name]), f"from {A} to {B}"
            shown = held_ratio("error_ratio", ratio, n, 1.0, "either", whose, at)
            found.append(replace(shown, decision="pass", more=0) if same(ratio) else shown)
    return tuple(found)


def _samples(comparison: Comparison) -> str:
    counts = [int(each.config["starts"]) for each in (comparison.first, comparison.second)]
    return (
        f"N = {counts[0]:,}" if counts[0] == counts[1] else f"N = {counts[0]:,} and {counts[1]:,}"
    )


def _short(value: object) -> str:
    text = "none" if value in (None, "") else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
