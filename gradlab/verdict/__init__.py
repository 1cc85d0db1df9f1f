"""What a measurement means, in a few plain sentences.

Every sentence is printed only where its test passes, else its "undecided" twin; no number comes
without its interval and N. The numbers are those of `judgement`.
"""

from __future__ import annotations

from math import exp, log

import numpy as np

from gradlab.judgement import (
    COSINE,
    DIRECTION,
    EXCESS,
    LogRatio,
    UsableHorizon,
    growth_of,
    heavy_horizons,
    horizons_of,
    judged_estimator,
    judged_horizons,
    longest_pass,
    needed_batch,
    ratio_to_best,
    usable_horizon,
)
from gradlab.profile import Profile
from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.theory import theory_sentence
from gradlab.truth_words import admissible_truth, imprecise_truth, no_truth
from gradlab.verdict.sentence import Sentence
from gradlab.wording import batches, gradient, percent, rounded_up, samples, span, steps, times

__all__ = ["Sentence", "verdict"]

SAME = 1.05  # errors within 5% of one another are called the same


def verdict(profile: Profile) -> tuple[Sentence, ...]:
    """The sentences that head a report."""
    name = judged_estimator(profile)
    if not profile.truth["admissible"]:
        sentences = [Sentence("truth", False, no_truth(profile))]
    elif profile.truth["status"] == "imprecise":
        sentences = [Sentence("truth", False, imprecise_truth(profile, name))]
    else:
        judged = name is not None and judged_horizons(profile, name)
        sentences = [_horizon(profile, name)] if name is not None and judged else []
        sentences += _batch(profile, name) if name is not None and judged else []
        cut = profile.truth["status"] == "cut"
        sentence = Sentence("truth", True, admissible_truth(profile, name))
        sentences.insert(0 if cut else len(sentences), sentence)
    if name is not None:
        if profile.truth["admissible"] and "data" in profile.estimators and name != "data":
            sentences.append(_data_against(profile, name))
        sentences.append(_lost(profile, name) or _variance(profile, name))
        sentences += _theory(profile, name) + _tails(profile, name)
    return tuple(sentences + _checks(profile))


# Sentence forms ----------------------------------------------------------------------------------


def _horizon(profile: Profile, name: str) -> Sentence:
    found, n = usable_horizon(profile, name), samples(profile.config)
    who, H = gradient(name), max(horizons_of(profile, name))
    best = f"the mean squared error is smallest at h = {found.best}"
    best += ", the data gradient J_0" if found.best == 0 else ""
    best += f" (CI {found.best_low}–{found.best_high})" + _against_zero(profile, name, found.best)
    yours = "" if found.best == H else f" {_excess(profile, name, H)}"
    if found.high == 0:
        why, alone = _obstacle(profile, name, 1), longest_pass(profile, name)
        text = f"No horizon of {who} is usable ({n}): at h = 1 {why}; {best}.{yours}"
        if len(alone) > 1:
            text += f" Without the shorter ones h = {alone[0]}–{alone[-1]} would be."
        return Sentence("horizon", True, text)
    if found.low == 0:
        more = _more_for_horizon(profile, name, found)
        text = (
            f"Undecided whether {who} has a usable horizon: none or up to {steps(found.high)} "
            f"(95% CI, {n}); {more} decide; {best}.{yours}"
        )
        return Sentence("horizon", False, text)
    text = (
        f"Usable horizon of {who} ≈ {steps(found.value)} (95% CI {found.low}–{found.high}, {n}); "
        f"{best}.{yours}"
    )
    return Sentence("horizon", True, text)


def _against_zero(profile: Profile, name: str, horizon: int) -> str:
    """A warning where an error is above that of not moving at all, |truth|²."""
    relative = profile.estimate(name, "relative_mse", horizon)
    found = interval("relative_mse", relative)
    if not found.low > 1:
        return ""
    remedy = "a smaller scale would do better"
    if interval("cosine", profile.estimate(name, "cosine", horizon)).high < 0:
        remedy = "it points backwards"
    return (
        f", where it is still {times(relative.value)} (CI {span(found.low, found.high)}) that of "
        f"a zero gradient ({remedy})"
    )


def _excess(profile: Profile, name: str, horizon: int) -> str:
    """The error of the longest horizon, the user's setting, against the best one's."""
    ratio = ratio_to_best(profile, (name, horizon), name, judged_horizons(profile, name))
    if ratio is None:
        return f"The gradient at H = {horizon} is not finite or lost in noise."
    if _same(ratio):
        return f"H = {horizon} has the error of the best to within {percent(SAME - 1)}."
    if ratio.low > 0:
        return f"H = {horizon} has {_ratio(ratio)} (CI {_ratio_span(ratio)}) the error of the best."
    return (
        f"Undecided whether H = {horizon} is worse: {_ratio(ratio)} the error of the best "
        f"(CI {_ratio_span(ratio)})."
    )


def _batch(profile: Profile, name: str) -> list[Sentence]:
    """Samples that one update needs for a usable direction, or the bias that no number of them
    overcomes."""
    over = [h for h in judged_horizons(profile, name) if h > 0]
    if not over:
        return []
    at = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
    found, n = needed_batch(profile, name, at), samples(profile.config)
    if found is None:
        return []
    yours = f"You average N′ = {profile.batch}"
    goal = f"a cosine of one batch with the truth of at least {DIRECTION:g} at h = {at}"
    mean = f"{min(found.value, 1.0):.2g} (CI {span(found.cosine.low, found.cosine.high)}, {n})"
    if found.cosine.high < DIRECTION:
        text = f"{yours}; no N′ reaches {goal}: bias alone caps it at {mean}."
        return [Sentence("samples", True, text)]
    if found.batch is None or not np.isfinite(found.batch.high):
        se = jackknife_se(profile.estimate(name, "cosine", at).left_out)
        more = _more(profile, abs(found.value - DIRECTION), se)
        text = f"Undecided whether any N′ reaches {goal}: that of the mean is {mean}; {more} tell."
        return [Sentence("samples", False, text)]
    ends = f"{batches(found.batch.low)}–{batches(found.batch.high)}"
    text = f"{yours}; {goal} needs N′ ≈ {batches(found.size)} (CI {ends}, {n})."
    return [Sentence("samples", True, text)]


def _theory(profile: Profile, name: str) -> list[Sentence]:
    text = theory_sentence(profile, name)
    return [Sentence("theory", True, text)] if text else []


def _tails(profile: Profile, name: str) -> list[Sentence]:
    """Where a few starts carry the numbers, intervals promise more than they keep."""
    heavy = heavy_horizons(profile, name)
    if not heavy:
        return []
    index = max(profile.estimate(name, "tail_index", h).value for h in heavy)
    where = "every horizon"
    if len(heavy) < len(horizons_of(profile, name)):
        where = f"h = {heavy[0]}" if len(heavy) == 1 else f"{len(heavy)} horizons"
    n = samples(profile.config)
    text = (
        f"At {where} a few starts carry much of {gradient(name)} (tail index up to {index:.2g}, "
        f"1: Gaussian, {n}): intervals there may cover less than 95%, and more starts would help "
        f"more than usual."
    )
    return [Sentence("tails", True, text)]


def _checks(profile: Profile) -> list[Sentence]:
    """The checks that ask for attention, by name."""
    failed = [each.check for each in profile.sanity or () if not each.passed]
    if not failed:
        return []
    asks = "asks" if len(failed) == 1 else "ask"
    text = f"{len(failed)} of {len(profile.sanity or ())} sanity checks {asks} for attention: "
    return [Sentence("sanity", True, text + "; ".join(failed) + ".")]


def _data_against(profile: Profile, name: str) -> Sentence:
    rivals = [h for h in judged_horizons(profile, name) if h > 0]
    n, who = samples(profile.config), gradient(name)
    ratio = ratio_to_best(profile, ("data", 0), name, rivals)
    if ratio is None:
        text = f"Undecided: the errors of {who} and of the data gradient are lost in noise ({n})."
        return Sentence("data or model", False, text)
    best = min(rivals, key=lambda h: profile.estimate(name, "mse", h).value)
    at = f"at its best horizon h = {best}"
    if _same(ratio):
        text = f"The data gradient and {who} {at} have the same error to within"
        return Sentence("data or model", True, f"{text} {percent(SAME - 1)} ({n}).")
    if ratio.low > 0:
        text = (
            f"{who[0].upper() + who[1:]} {at} is {_ratio(ratio)} more accurate than the data "
            f"gradient (mean squared error, CI {_ratio_span(ratio)}, {n}).{_poor_critic(profile)}"
        )
        return Sentence("data or model", True, text)
    if ratio.high < 0:
        text = (
            f"The data gradient is {times(exp(-ratio.value))} more accurate than {who} {at} (mean "
            f"squared error, CI {span(exp(-ratio.high), exp(-ratio.low))}, {n})."
        )
        return Sentence("data or model", True, text)
    text = (
        f"Undecided whether the data gradient or {who} {at} is more accurate: the ratio of their "
        f"mean squared errors is {exp(ratio.value):.2g} (CI {_ratio_span(ratio)}, {n}); "
        f"{_more(profile, abs(ratio.value), ratio.se)} separate them."
    )
    return Sentence("data or model", False, text)


def _poor_critic(profile: Profile) -> str:
    """A warning where J_0 itself is worse than none: the comparison then speaks of the critic."""
    found = interval("relative_mse", profile.estimate("data", "relative_mse", 0))
    if not found.low > 1:
        return ""
    return " The data gradient is worse than a zero gradient here, so this says more of the critic."


def _variance(profile: Profile, name: str) -> Sentence:
    n, who = samples(profile.config), gradient(name)
    growth = growth_of(profile, name)
    if growth is None:
        text = f"Growth of the variance of {who}: too few horizons to tell ({n})."
        return Sentence("variance", False, text)
    stretch = f"from h = {growth.onset} to {growth.last}"
    slope = (
        f"slope of its logarithm {growth.slope:.2g} per step {stretch}, CI "
        f"{span(growth.low, growth.high)}, {n}"
    )
    if not growth.grows:
        text = f"No exponential growth of the variance of {who} detected ({slope})."
        return Sentence("variance", growth.high < 0, text)
    if growth.factor < 2:
        text = f"The variance of {who} grows slowly, {growth.factor:.2g}× {stretch} ({slope})."
        return Sentence("variance", True, text)
    if growth.law == "power":
        text = (
            f"The variance of {who} grows {stretch} like h^{growth.power:.2g}, a power law rather "
            f"than an exponential ({slope})."
        )
        return Sentence("variance", True, text)
    doubling = log(2) / growth.slope
    text = (
        f"The variance of {who} doubles every {doubling:.2g} steps {stretch} "
        f"(CI {span(log(2) / growth.high, log(2) / growth.low)}, {n})"
    )
    doubt = f"; a power law h^{growth.power:.2g} fits as well, so do not extrapolate"
    return Sentence("variance", True, text + (doubt if growth.law == "either" else "") + ".")


def _lost(profile: Profile, name: str) -> Sentence | None:
    """Where gradients stop being finite, if they do."""
    e, q = profile.estimators.index(name), profile.quantities.index("variance")
    lost = [
        h for h in horizons_of(profile, name) if not np.isfinite(profile.columns["value"][e, q, h])
    ]
    if not lost:
        return None
    who = gradient(name)
    text = (
        f"{who[0].upper() + who[1:]} is not finite from h = {lost[0]} on "
        f"({profile.method[e, q, lost[0]]}, {samples(profile.config)}): use a shorter horizon."
    )
    return Sentence("health", True, text)


def _obstacle(profile: Profile, name: str, horizon: int) -> str:
    """Which of the two conditions fails at a horizon, with its number."""
    cosine = profile.estimate(name, "cosine", horizon)
    found = interval("cosine", cosine)
    if not found.low >= COSINE:
        shown = f"{min(cosine.value, 1.0):.2g}" if np.isfinite(cosine.value) else "lost in noise"
        return (
            f"its cosine with the truth is {shown} (CI {span(found.low, found.high)}, wanted: "
            f"lower end ≥ {COSINE})"
        )
    values = [profile.estimate(name, "mse", h).value for h in judged_horizons(profile, name)]
    excess = profile.estimate(name, "mse", horizon).value / min(values)
    return f"its mean squared error is {times(excess)} the smallest (wanted: ≤ {EXCESS:g}×)"


def _more_for_horizon(profile: Profile, name: str, found: UsableHorizon) -> str:
    """Samples that would settle the first horizon in doubt, by its direction or by its error."""
    over = judged_horizons(profile, name)
    at = min(found.value + 1, max(over))
    cosine = profile.estimate(name, "cosine", at)
    ends, ratio = interval("cosine", cosine), ratio_to_best(profile, (name, at), name, over)
    if ratio is not None and not ends.low < COSINE <= ends.high:
        return _more(profile, abs(ratio.value - log(EXCESS)), ratio.se)
    return _more(profile, abs(cosine.value - COSINE), jackknife_se(cosine.left_out))


def _more(profile: Profile, gap: float, se: float) -> str:
    if not np.isfinite(gap) or not np.isfinite(se) or gap <= 0:
        return "more samples would"
    missing = more_samples(gap, se, int(profile.config["starts"]))
    if missing is None:
        return "no affordable number of samples would"
    return f"about {rounded_up(missing)} more samples would" if missing else "a few more would"


def _same(ratio: LogRatio) -> bool:
    return -log(SAME) < ratio.low and ratio.high < log(SAME)


def _ratio(ratio: LogRatio) -> str:
    return times(exp(ratio.value))


def _ratio_span(ratio: LogRatio) -> str:
    return span(exp(ratio.low), exp(ratio.high))
