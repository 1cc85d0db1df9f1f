"""What a measurement means beyond its recommendation: a finding for each question, from numbers.

What leaves nothing to decide comes first: failed premises, a return that jumps, a truth that is
imprecise or missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, inf, isfinite, log, nan

from gradlab.choice import Choice, choice_of
from gradlab.errors import InputError
from gradlab.findings import Decision, Finding
from gradlab.findings.checks import (
    concentration,
    failed_premises,
    other_derivative,
    saturated,
    truth_finding,
)
from gradlab.runs.attribution import Attribution, attribute
from gradlab.runs.decision_rules import (
    COSINE,
    EXCESS,
    best_horizons,
    growth_of,
    heavy_horizons,
    horizons_of,
    judged_estimator,
    judged_horizons,
    ratio_to_best,
    usable_horizons,
)
from gradlab.runs.identity import data_of
from gradlab.runs.jumps import UPDATE
from gradlab.runs.profile import Profile
from gradlab.runs.stages import notices
from gradlab.statistics.comparison import Number, more_samples
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.statistics.tails import HEAVY
from gradlab.verdicts.advice import advise
from gradlab.verdicts.attribution import source
from gradlab.verdicts.choice import statements
from gradlab.verdicts.facts import Facts, facts
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.phrases import held, held_ratio, more_of, ranges, row
from gradlab.verdicts.recommendation import Recommendation
from gradlab.wording import at_horizon, gradient, horizons, percent

_ALIGNED = 0.9  # cosine that one batch should have


@dataclass(frozen=True, eq=False)
class Basis:
    """What a profile supports beyond its table; None where it does not.

    Attributes:
        choice: None where there is nothing to choose from, as under several truths.
        attribution: None where no substitutions are stored.
        facts: what decides the next step.
    """

    choice: Choice | None
    attribution: Attribution | None
    facts: Facts | None = None


def evidence(profile: Profile) -> Basis:
    """The choice and the attribution of a profile, and what decides."""
    attribution = None if profile.attribution is None else attribute(profile)
    read = facts(profile)
    try:
        choice = None if read.void else choice_of(profile)
    except InputError:
        choice = None
    return Basis(choice, attribution, read)


def advice(profile: Profile) -> Recommendation:
    """The recommendation of a measurement."""
    known: Basis = profile.evidence
    shown = recommendation(known.facts or facts(profile), verdict(profile))
    # A failed premise names what is saturated by itself, and comes first.
    limits = None if failed_premises(profile.sanity) else saturated(profile.sanity)
    said = [each.said for each in (*notices(profile.config), limits) if each is not None]
    follow = shown.follow and replace(shown.follow, config=profile.config)
    return replace(shown, notice=" ".join(said), follow=follow)


def verdict(profile: Profile, found: Basis | None = None) -> tuple[Finding, ...]:
    """The findings of a measurement, in the order in which they call for action.

    Args:
        found: another evidence than the profile's own.
    """
    known: Basis = profile.evidence if found is None else found
    judged, rare = judged_estimator(profile), concentration(profile.sanity)
    cell = None if known.facts is None else advise(known.facts).cell
    name = cell[0] if cell is not None and any(horizons_of(profile, cell[0])) else judged
    premises = failed_premises(profile.sanity)
    failed = (each for each in every_check(profile) if each.decision == "fail")
    numbers: list[Finding] = []
    if name is not None:
        if not premises and profile.truth["admissible"] and judged_horizons(profile, name):
            # Errors against a truth of 0, or of another model or critic than is meant, decide
            # nothing.
            numbers += _errors(profile, name)
            numbers += source(profile, known.attribution, judged or name)
        numbers += [*_variance(profile, name), *_tails(profile, name)]
    if rare is not None and rare.decision != "pass":  # they carry variances and errors
        numbers = [replace(each, decision="undecided", more=-1) for each in numbers]
    if not premises and not profile.truth["admissible"] and known.choice is not None:
        # Who points where the others do: all that can be said of directions without a truth.
        told = statements(known.choice)
        numbers += [each for each in told if each.code in ("agreement", "no_agreement")]
    truth = truth_finding(profile.truth)
    nothing = (profile.truth.get(each, 1.0) == 0 for each in ("standard_error", "norm"))
    if profile.truth["admissible"] and all(nothing):
        truth = Finding("truth_zero", "fail", n=int(profile.config["starts"]))
    given = [*_jumps(profile), truth]
    doubts = [each for each in given if each.decision != "pass"]
    sound = [each for each in given if each.decision == "pass"]
    return (*premises, *doubts, *(e for e in failed if e not in premises), *numbers, *sound)


def every_check(profile: Profile) -> tuple[Finding, ...]:
    """Those that were recorded, and whether realised gains are those to first order, within their
    intervals; () of a run that was measured without checks."""
    taken, recorded = profile.realised, profile.sanity or ()
    if not recorded or taken is None or not taken.best_is_known:
        return recorded
    apart = taken.disagreements(profile.table(), profile.jumps)
    if not apart:
        stepped = len(taken.stepped)
        return (*recorded, Finding("steps_as_promised", "pass", value=stepped, n=taken.judges))
    worst = max(apart, key=lambda each: abs(each.realised - each.predicted))
    brought = Number(worst.realised, *worst.realised_ends, taken.judges)
    code = "steps_bend" if worst.reason == "step" else "steps_elsewhere"
    decision: Decision = "pass" if all(each.reason == "step" for each in apart) else "fail"
    subject = at_horizon(*worst.cell, profile.identities)
    return (*recorded, row(code, decision, brought, subject, threshold=worst.predicted))


_JUMPS: Mapping[str, tuple[str, Decision]] = {
    "smooth": ("is smooth", "pass"),
    "curved": ("is curved", "pass"),
    "harmless": ("jumps without harm", "pass"),
    "harmful": ("jumps", "fail"),
    "open": ("jumps", "undecided"),
    "rough": ("is rough", "fail"),
}


def _jumps(profile: Profile) -> Iterator[Finding]:
    """What the simulator's gradient promises at the length of an update, and what steps bring."""
    found = profile.jumps
    if found is None or other_derivative(profile.sanity):
        return
    (how, decision), lost = _JUMPS[found.kind], found.first_lost
    if lost is not None:
        count, move = lost
        undecided: Decision = "undecided" if found.kind == "open" else "fail"
        yield Finding(
            "jumps_overflow", undecided, value=count, n=found.samples, at=percent(move), more=-1
        )
    if lost is None or found.kind != "open":
        at = f"{found.count} of {found.tried} starts"
        at += "" if found.step is None else f", near step {found.step}"
        brought = float(found.brought[UPDATE])
        yield Finding(
            "jumps", decision, how, brought, threshold=found.promised, n=found.samples, at=at,
            more=found.missing,
        )  # fmt: skip


def _errors(profile: Profile, name: str) -> Iterator[Finding]:
    """Usable and best horizons, direction, and the data gradient beside it; where the truth is
    imprecise only what rests on differences on the same starts."""
    who, n = gradient(profile.identities[name]), int(profile.config["starts"])
    over = judged_horizons(profile, name)
    best = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
    imprecise, data = profile.truth["status"] == "imprecise", data_of(profile.identities)
    if not imprecise:
        yield _usable(profile, name)
    kept = best_horizons(profile, name) or (best,)
    yield Finding("best_horizon", "pass", who, best, n=n, at=horizons(kept))
    longest = ratio_to_best(profile, (name, over[-1]), name, over)
    if over[-1] != best and longest is not None:
        yield held_ratio("longest_horizon", longest, n, EXCESS, "below", who, str(over[-1]))
    if data is not None and (against := ratio_to_best(profile, (data, 0), name, over)) is not None:
        yield held_ratio("data_against_model", against, n, 1.0, "either", who)
    if imprecise:
        return
    relative = profile.estimate(name, "relative_mse", best)
    ends = interval("relative_mse", relative)
    if ends.low > 1:  # the error of not moving at all, |truth|²
        above = Number(relative.value, ends.low, ends.high, n)
        yield row("above_zero_gradient", "fail", above, who, str(best), "×")
    snr = profile.estimate(name, "snr", best).value if "snr" in profile.quantities else nan
    if snr > 0:
        yield _batch(profile, name, best, snr)


def _usable(profile: Profile, name: str) -> Finding:
    """At which horizons a gradient is usable, or may be, and the samples that would tell."""
    who, n = gradient(profile.identities[name]), int(profile.config["starts"])
    usable = usable_horizons(profile, name)
    if usable.usable:
        last = usable.usable[-1][1]
        return Finding("usable_horizons", "pass", who, last, n=n, at=ranges(usable.usable))
    if not usable.undecided:
        return Finding("no_usable_horizon", "fail", who, n=n, at=horizons(usable.measured))
    # What settles the first one in doubt, by its direction or by its error.
    at, over = usable.undecided[0][0], judged_horizons(profile, name)
    measured, ends = profile.estimate(name, "cosine", at), profile.interval(name, "cosine", at)
    ratio = ratio_to_best(profile, (name, at), name, over)
    gap, se = measured.value - COSINE, jackknife_se(measured.left_out)
    if ratio is not None and not ends.low < COSINE <= ends.high:
        gap, se = ratio.value - log(EXCESS), ratio.se
    more = more_of(more_samples(abs(gap), se, n))
    return Finding("usable_horizons", "undecided", who, n=n, at=ranges(usable.undecided), more=more)


def _batch(profile: Profile, name: str, h: int, snr: float) -> Finding:
    """Samples whose mean has the cosine that a batch should have, or that none has:
    cos(N) = c / √(1 + 1 / (N snr)), c the cosine of the mean."""
    who, n = gradient(profile.identities[name]), int(profile.config["starts"])
    ends = profile.interval(name, "cosine", h)
    cosine = Number(profile.estimate(name, "cosine", h).value, ends.low, ends.high, n)
    if not min(cosine.low, cosine.value) > _ALIGNED:
        return held("biased_direction", cosine, _ALIGNED, "above", who, str(h))
    value, high, low = (
        ceil(1 / (snr * ((min(c, 1.0) / _ALIGNED) ** 2 - 1))) for c in cosine.estimate
    )
    return row("batch_for_direction", "pass", Number(value, low, high, n), who, str(h))


def _variance(profile: Profile, name: str) -> Iterator[Finding]:
    """Doubling time of the variance, a power law, its slope, or from where on it is lost."""
    who, n = gradient(profile.identities[name]), int(profile.config["starts"])
    place = profile.estimators.index(name), profile.quantities.index("variance")
    value = profile.columns["value"][place]
    lost = [h for h in horizons_of(profile, name) if not isfinite(value[h])]
    if lost:
        yield Finding("gradient_not_finite", "fail", who, n=n, at=str(lost[0]))
    growth = None if lost else growth_of(profile, name)
    if growth is None:
        return
    at, slope = f"{growth.onset}–{growth.last}", (growth.slope, growth.low, growth.high)
    if not growth.grows or growth.factor < 2:
        decided = growth.grows or growth.high < 0
        yield row("variance_slope", "pass" if decided else "undecided", Number(*slope, n), who, at)
    elif growth.law == "power":
        yield Finding("variance_power", "pass", who, growth.power, n=n, at=at)
    else:
        time, high, low = (log(2) / each for each in slope)
        # Of the simulator's own closed loop, e^{2 (λ + ln γ)} per step, from the worst start.
        exponent = float(profile.truth.get("lyapunov", -inf))
        rate = 2 * (exponent + log(float(profile.config.get("discount", 1.0))))
        code, promised = "variance_doubles", nan
        if rate > 0:
            code, promised = "variance_doubles_as", log(2) / rate
        number = Number(time, low, high, n)
        yield row(code, "pass", number, who, at, " steps", promised)


def _tails(profile: Profile, name: str) -> Iterator[Finding]:
    """Where a few starts carry the numbers, intervals promise more than they keep.

    Where starts were drawn from their law for it (`measurement.concentration`), that check says so
    instead: products of Gaussians have tails that the index does not tell from those that matter.
    """
    heavy = heavy_horizons(profile, name)
    if heavy and concentration(profile.sanity) is None:
        index = max(profile.estimate(name, "tail_index", h).value for h in heavy)
        who, n = gradient(profile.identities[name]), int(profile.config["starts"])
        yield Finding("heavy_tails", "fail", who, index, threshold=HEAVY, n=n, at=horizons(heavy))
