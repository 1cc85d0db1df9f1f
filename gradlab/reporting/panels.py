"""Which figures a report shows, in which order, and what to look for in each.

A section that a file has no numbers for says in one line how to get them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import figures
from gradlab.choice.decays import decay_table
from gradlab.choice.tables import contender_table, weight_table
from gradlab.figures.style import SIZE
from gradlab.gradients.ways import WAYS
from gradlab.runs.profile import Profile
from gradlab.verdicts.advice import advise
from gradlab.verdicts.choice.sentences import cells_words
from gradlab.verdicts.facts import Facts
from gradlab.verdicts.measurement.verdict import Evidence, decays
from gradlab.verdicts.phrases import named
from gradlab.wording import steps

_GAIN = "Gain of a step"
_LASTING = "For how many updates it lasts"
_ERROR = "Bias, variance and error"
_DIRECTION = "Direction and noise"
_SOURCE = "Where the error comes from"
_GROWTH = "Growth with the horizon"
CONTEST = "Estimators and weights"
ORDER = (_GAIN, _LASTING, _ERROR, _DIRECTION, _SOURCE, _GROWTH, CONTEST)
NOTHING = Evidence(None, None, {})


@dataclass(frozen=True)
class Panel:
    """One figure: file name, section, caption."""

    name: str
    section: str
    caption: str
    figure: Figure


def panel(name: str, section: str, caption: str, draw: Callable[..., Axes]) -> Panel:
    """The panel of what `draw(ax=…)` draws."""
    figure = Figure(figsize=SIZE, layout="constrained")
    draw(ax=figure.add_subplot())
    return Panel(name, section, caption, figure)


def panels(profile: Profile, evidence: Evidence = NOTHING) -> list[Panel]:
    """The figures of `profile` in the order of the sections."""
    table = profile.table()
    return [
        *_gain(profile, table, evidence.facts),
        *_lasting(profile),
        *_error(profile, table, evidence),
        *_direction(profile, table),
        *_source(evidence),
        *_growth(profile, table),
        *_contest(evidence),
    ]


def absent(profile: Profile, evidence: Evidence = NOTHING) -> dict[str, str]:
    """Section → how to get what this file does not hold."""
    reasons: dict[str, str] = {}
    if evidence.facts is None or not (evidence.facts.gains or evidence.facts.realised):
        reasons[_GAIN] = (
            "No gain: these gradients were judged against matched truths at given states. "
            "`gradlab measure TASK` judges them where the policy goes."
        )
    if profile.rehearsal is None:
        reasons[_LASTING] = (
            "Not rehearsed: `gradlab measure TASK` does, where starts are drawn and gradients are "
            "judged by the return."
        )
    if evidence.attribution is None or not evidence.attribution.bias:
        reasons[_SOURCE] = (
            "Not attributed: run `gradlab attribute RUN.h5 --keep`, or measure with --attribute."
        )
    if evidence.facts is not None and evidence.facts.void:
        reasons[CONTEST] = "Nothing is chosen, for the reason at the top."
    elif evidence.choice is None or evidence.choice.pair is None:
        reasons[CONTEST] = (
            "No weights: they need an admissible truth, a data gradient and another estimator "
            "under the same truth, measured by this version of gradlab."
        )
    return reasons


def _gain(profile: Profile, table: pd.DataFrame, facts: Facts | None) -> list[Panel]:
    """Gains to first order with realised ones on them; alone where there is no truth."""
    drawn_panels = []
    realised = None if profile.realised is None else profile.realised.table()
    if realised is not None:
        realised.attrs |= table.attrs
    if facts is not None and facts.gains:
        best = advise(facts).cell
        chosen = None if best is None else (best[0], facts.close(best))
        drawn = partial(figures.gain, table, realised, chosen)
        caption = (
            "Above 0 a step helps, below it harms; 100% is the best possible step of its length."
        )
        drawn_panels.append(panel("gain", _GAIN, caption, drawn))
    elif realised is not None:
        caption = "Returns before and after one step of equal length along each gradient."
        drawn = partial(figures.realised_gains, realised)
        drawn_panels.append(panel("realised_gains", _GAIN, caption, drawn))
    return drawn_panels


def _lasting(profile: Profile) -> list[Panel]:
    """Where the gradients' own updates led."""
    rehearsed = profile.rehearsal
    if rehearsed is None:
        return []
    table = rehearsed.table()
    cells = zip(table["estimator"], table["horizon"], strict=True)
    table["candidate"] = [
        named(profile.identities[name]) + (f", {steps(h)}" if h else "") for name, h in cells
    ]
    assumed = " (assumed: give yours with --lr and --optimizer)" if rehearsed.assumed else ""
    caption = (
        f"Updates by {rehearsed.optimizer} at {rehearsed.rate:.2g}{assumed}, batches of "
        f"{rehearsed.batch}, with critic, model and visited states as they are; the return of "
        f"{rehearsed.judges} fresh starts. A gradient lasts up to its highest point, the "
        f"recommended one as far as a second rehearsal shows it, too."
    )
    drawn = partial(figures.return_over_updates, table)
    return [panel("return_over_updates", _LASTING, caption, drawn)]


def _error(profile: Profile, table: pd.DataFrame, evidence: Evidence) -> list[Panel]:
    """Every gradient's error, then one figure per estimator with a horizon."""
    every = [str(name) for name in dict.fromkeys(table["estimator"])]
    names = [name for name in every if not profile.identities[name].data]
    together = partial(
        figures.mse,
        table,
        truth_norm2=_zero_level(table, every),
        truth_error2=_truth_error(profile, every),
    )
    compare = "Lower is better. Below the level of data, unrolling pays."
    drawn = [panel("mse", _ERROR, compare, together)]
    for number, name in enumerate(names, 1):
        alone = partial(
            figures.bias_variance,
            table,
            estimator=name,
            batch=profile.batch,
            truth_norm2=_zero_level(table, [name]),
            truth_error2=_truth_error(profile, [name]),
            kept=evidence.sets.get(name, ()),
        )
        caption = (
            f"{name}: where squared bias and variance / N′ cross, their sum is near its least."
        )
        drawn.append(panel(f"error-{number}-{_file_name(name)}", _ERROR, caption, alone))
    return drawn + _decay(profile)


def _decay(profile: Profile) -> list[Panel]:
    """The error over the temporal decay, where several were measured."""
    drawn = [(each.text, decay_table(profile)) for each in decays(profile)]
    return [panel("decay", _ERROR, text, partial(figures.decay, table)) for text, table in drawn]


def _direction(profile: Profile, table: pd.DataFrame) -> list[Panel]:
    cosine = "1 is the true direction; at 0 a step along the gradient gains nothing."
    signs = "A step that moves half of the parameters the wrong way is no better than chance."
    noise = "Below the line at 1 / N′ the mean of one batch is mostly noise."
    snr = partial(figures.snr, table, batch=profile.batch)
    drawn = [panel("cosine", _DIRECTION, cosine, partial(figures.cosine, table))]
    if (table["quantity"] == "sign_agreement").any():
        agreement = partial(figures.sign_agreement, table)
        drawn.append(panel("sign_agreement", _DIRECTION, signs, agreement))
    return [*drawn, panel("snr", _DIRECTION, noise, snr)]


def _source(evidence: Evidence) -> list[Panel]:
    """Shares of the squared bias over the horizon, and the entries of the derivatives."""
    if evidence.attribution is None or not evidence.attribution.bias:
        return []
    table, drawn_panels = evidence.attribution.table(), []
    names = list(dict.fromkeys(each.estimator for each in evidence.attribution.bias))
    for number, name in enumerate(names, 1):
        shares = "What each part makes of the squared bias; a share below 0 hides another's error."
        entries = "Output by input: the derivatives whose errors move the gradient most."
        file = f"{number}-{_file_name(name)}"
        drawn = partial(figures.ledger, table, estimator=name)
        drawn_panels.append(panel(f"ledger-{file}", _SOURCE, f"{name}: {shares}", drawn))
        drawn = partial(figures.entries, table, estimator=name)
        drawn_panels.append(panel(f"entries-{file}", _SOURCE, f"{name}: {entries}", drawn))
    return drawn_panels


def _growth(profile: Profile, table: pd.DataFrame) -> list[Panel]:
    rate, discount = profile.truth.get("lyapunov"), profile.config.get("discount")
    comparable = (
        isinstance(rate, int | float) and isinstance(discount, int | float) and discount > 0
    )
    exponent = float(rate) + log(float(discount)) if comparable else None  # type: ignore[arg-type]
    caption = (
        "A straight rise is an explosion. Singular values, open loop and Condition 1 of MPG: "
        "gradlab jacobians TASK."
    )
    drawn = partial(figures.sample_norm, table, exponent=exponent)
    return [panel("sample_norm", _GROWTH, caption, drawn)]


def _contest(evidence: Evidence) -> list[Panel]:
    """Contenders and weights of MPG's pair."""
    if evidence.choice is None or evidence.choice.pair is None:
        return []
    pair = evidence.choice.pair
    contenders = (
        f"Mixtures of {cells_words(pair.cells)} alone. Mixing that only shrinks gains nothing over "
        "one gradient at its best scale; the rules are "
        "shown at several times of their ramp T."
    )
    shares = "Weights from all starts with their 95% intervals, beside those of the papers' rules."
    drawn = {
        "contest": (contenders, partial(figures.contest, contender_table(pair))),
        "weights": (shares, partial(figures.choice_weights, weight_table(pair))),
    }
    return [panel(name, CONTEST, caption, draw) for name, (caption, draw) in drawn.items()]


def _truth_error(profile: Profile, names: Sequence[str]) -> float | None:
    """Squared standard error of the truth, where all named estimators share one truth."""
    actions = profile.config.get("actions")
    carried = actions if isinstance(actions, Mapping) else {}
    every = {WAYS[carried[name]].every for name in names if name in carried}
    if len(every) > 1:
        return None
    separate = every == {True} and "all_standard_error" in profile.truth
    error = profile.truth.get("all_standard_error" if separate else "standard_error")
    return float(error) ** 2 if isinstance(error, int | float) else None


def _zero_level(table: pd.DataFrame, names: Sequence[str]) -> float | None:
    """|truth|², the error of a zero gradient, where all named estimators share one truth."""
    rows = table[table["estimator"].isin(names)]
    error = rows[rows["quantity"] == "mse"].set_index(["estimator", "horizon"])["value"]
    relative = rows[rows["quantity"] == "relative_mse"].set_index(["estimator", "horizon"])["value"]
    levels = (error / relative).dropna()
    if levels.empty or levels.max() > levels.min() * (1 + 1e-6):
        return None
    return float(levels.iloc[0])


def _file_name(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40]
