"""What a measurement means beyond its recommendation, what to do now first.

Every sentence is printed only where its test passes, else its undecided twin; no number comes
without its interval and N. What is said of errors, weights and batches is the choice's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, inf, log

import numpy as np

from gradlab.choice import Choice, choice_of
from gradlab.errors import InputError
from gradlab.findings import Finding, failed
from gradlab.findings.checks import (
    detached,
    failed_premises,
    other_derivative,
    rare_starts,
    saturated,
)
from gradlab.gradients.ways import WAYS
from gradlab.runs.attribution import Attribution, attribute
from gradlab.runs.decision_rules import (
    COSINE,
    EXCESS,
    UsableHorizons,
    best_horizons,
    growth_of,
    heavy_horizons,
    horizons_of,
    judged_estimator,
    judged_horizons,
    ratio_to_best,
    usable_horizons,
)
from gradlab.runs.jumps import UPDATE, Jumps
from gradlab.runs.profile import Profile
from gradlab.runs.stages import REMEDY, notice, trimming
from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.verdicts.attribution import source
from gradlab.verdicts.choice import statements
from gradlab.verdicts.facts import Facts, facts, seconds_of
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.phrases import capital, further, usable_text
from gradlab.verdicts.recommendation import Recommendation, worded
from gradlab.wording import (
    duration,
    gradient,
    horizons,
    percent,
    rounded_up,
    samples,
    span,
    steps,
    times,
    with_ends,
    with_interval,
)


def jumps(profile: Profile) -> list[Finding]:
    """What backpropagation promised at the length of an update, and what it brought."""
    found = profile.jumps
    if found is None or other_derivative(profile.sanity):
        return []
    promised, move = f"{found.promised:+.3g}", percent(float(found.moves[UPDATE]))
    brought = f"{float(found.brought[UPDATE]):+.3g}"
    where = f"{found.count} of {found.tried} starts" + (
        "" if found.step is None else f", near step {found.step}"
    )
    holds = f"the simulator's gradient predicts {promised} per unit step, steps along "
    holds += f"it bring {brought}"
    ends = span(float(found.gap_low[UPDATE]), float(found.gap_high[UPDATE]))
    n = f"N = {found.samples:,}"
    more = (
        f"; about {rounded_up(found.missing):,} more starts would tell" if found.missing > 0 else ""
    )
    text = {
        "harmful": f"The return is discontinuous ({where}): {holds}.",
        "harmless": f"The return is discontinuous ({where}) without harm: {holds} ({n}).",
        "open": f"Undecided whether discontinuities of the return ({where}) do harm: {holds}, a "
        f"gap of {ends} of it ({n}){more}.",
        "rough": f"The return is rough{f' ({where})' * bool(found.count)}: {holds}. Where actions "
        f"move by {percent(float(found.moves[0]))}, they bring {float(found.brought[0]):+.3g}.",
        "curved": f"The return is continuous but curved within an update: {holds}. Where actions "
        f"move by {percent(float(found.moves[-1]))}, they bring {float(found.brought[-1]):+.3g}.",
        "smooth": f"The return is smooth within an update (actions move by {move}): {holds}.",
    }[found.kind].replace("-", "−")
    if found.count:
        run = "profile" if profile.file is None else f'gradlab.load("{profile.file}")'
        text += f" These starts: `{run}.jumps.states`."
    if found.first_lost is not None:
        text = _lost(found) if found.kind == "open" else f"{text} {_lost(found)}"
    return [worded("jumps", found.kind != "open", text)]


def _lost(found: Jumps) -> str:
    """From how many starts returns are lost, and what is left to be said where that is open."""
    n, move = found.first_lost or (0, 0.0)
    text = f"The return overflows from {n} of {found.samples} starts where actions move by "
    text += percent(move)
    if found.kind != "open":
        return f"{text}."
    return f"{text}: what backpropagation predicts is undecided."


def no_truth(profile: Profile) -> str:
    """Why there is none, and what is left."""
    reason = str(profile.truth["reason"])
    if "simulator" in detached(profile.sanity):  # whatever else it seems to be
        reason = "no truth here: the simulator's own gradient is detached"
    return f"{reason[0].upper() + reason[1:]}. No bias and no error is reported."


def admissible_truth(profile: Profile, name: str | None) -> str:
    """What every bias is measured against, and its own standard error."""
    facts, actions = profile.truth, profile.config.get("actions", {})
    kind = "all_" if name is not None and WAYS[actions.get(name, "first")].every else ""
    kind = kind if f"{kind}standard_error" in facts else ""
    error, norm = float(facts[f"{kind}standard_error"]), float(facts[f"{kind}norm"])
    share = f"its standard error is {percent(error / norm)} of its norm" if norm > 0 else ""
    reason = str(facts.get("reason", facts["status"]))
    parts = filter(None, (reason, _divergence(profile), share))
    return f"Truth: {'; '.join(parts)} ({samples(profile.config)})."


def _divergence(profile: Profile) -> str:
    """How much of a cut truth is made beyond the horizons that are judged by it."""
    growth = float(profile.truth.get("lyapunov", -inf)) + log(profile.config.get("discount", 1.0))
    beyond = int(profile.truth.get("horizon", 0)) - profile.horizons[-1]
    if growth <= 0:
        return ""
    if beyond <= 0:
        return "uncut it would diverge"
    return (
        f"uncut it would diverge: the {steps(beyond)} beyond H = {profile.horizons[-1]} make it up "
        f"to {times(exp(min(growth * beyond, 700.0)))} as large"
    )


def imprecise_truth(profile: Profile, name: str | None) -> str:
    """How large its error is, and the starts that would do; or that few starts carry it."""
    truth, config = profile.truth, profile.config
    if truth.get("carried_by_few", False):
        return f"Undecided: {truth['reason']}."
    error, norm = float(truth["standard_error"]), float(truth["norm"])
    if not error and not norm:
        return f"The true gradient is exactly 0, at every start (N = {int(config['starts']):,})."
    size = f"its norm ({norm:.2g})" if norm > 0 else "its norm, which is lost in it"
    bias = ""
    if name is not None and (over := judged_horizons(profile, name)):
        at = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
        least = max(profile.estimate(name, "bias2", at).value, 0.0) ** 0.5
        bias = f" or the bias ({least:.2g} at h = {at})" if error > least / 4 else ""
    missing, starts = int(truth["missing"]), int(config["starts"])
    cost = ""
    if missing > 0:
        factor = (starts + missing) / starts
        seconds = factor * seconds_of(profile)
        again = f"--starts {starts + missing}, {factor:.2g} times as many (≈ {duration(seconds)})"
        cost = f" Rerun with {again}."
    return (
        f"The true gradient is too uncertain: its standard error ({error:.2g}, N = {starts:,}) is "
        f"not small against {size}{bias}.{cost} Comparisons between gradients on the same starts "
        f"hold."
    )


def horizon(profile: Profile, name: str) -> list[Finding]:
    """The usable horizons and the set of the best; the latter alone, from differences on the same
    starts, where the truth is imprecise."""
    n, who = samples(profile.config), gradient(profile.identities[name])
    if profile.truth["status"] == "imprecise":
        return [worded("horizon", True, f"{_best(profile, name, n)}.")]
    usable = usable_horizons(profile, name)
    text = usable_text(who, usable, f"each by its own 95% intervals; {n}")
    if not usable.decided:
        text += f". {capital(_more_for_horizon(profile, name, usable))} decide"
    return [worded("horizon", usable.decided, f"{text}. {_best(profile, name)}.")]


def _more_for_horizon(profile: Profile, name: str, usable: UsableHorizons) -> str:
    """Samples that would settle the first horizon in doubt, by its direction or by its error."""
    starts, at = int(profile.config["starts"]), usable.undecided[0][0]
    measured, ends = (profile.estimate(name, "cosine", at), profile.interval(name, "cosine", at))
    ratio = ratio_to_best(profile, (name, at), name, judged_horizons(profile, name))
    if ratio is not None and not ends.low < COSINE <= ends.high:
        return further(more_samples(abs(ratio.value - log(EXCESS)), ratio.se, starts))
    se = jackknife_se(measured.left_out)
    return further(more_samples(abs(measured.value - COSINE), se, starts))


def _best(profile: Profile, name: str, n: str = "") -> str:
    """Where the error is least, and which other horizons may have the least (95%)."""
    over = judged_horizons(profile, name)
    at = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
    whose = gradient(profile.identities[name])
    text = f"The mean squared error of {whose} is smallest at h = {at}"
    text += ", the data gradient J_0" if at == 0 else ""
    if (ranked := best_horizons(profile, name)) is not None:
        kept = [h for h, here in zip(over, ranked[1].kept, strict=True) if here]
        others = "at no other h"
        if len(kept) > 1:
            others = f"may be smallest at any of h = {horizons(kept)}"
        text += f" ({'; '.join(filter(None, (f'{others}, 95%', n)))})"
    relative = profile.estimate(name, "relative_mse", at)
    ends = interval("relative_mse", relative)
    if not ends.low > 1:  # the error of not moving at all, |truth|²
        return text
    backwards = profile.interval(name, "cosine", at).high < 0
    remedy = "it points backwards" if backwards else "a smaller scale would do better"
    return (
        f"{text}. It is still {with_interval(relative.value, ends.low, ends.high, '×')} that of a "
        f"zero gradient: {remedy}"
    )


def tails(profile: Profile, name: str) -> list[Finding]:
    """Where a few starts carry the numbers, intervals promise more than they keep.

    Where starts were drawn from their law for it (`measurement.rare_starts`), that check says so
    instead: products of Gaussians have tails that the index does not tell from those that matter.
    """
    heavy = heavy_horizons(profile, name)
    if not heavy or rare_starts(profile.sanity) is not None:
        return []
    index = max(profile.estimate(name, "tail_index", h).value for h in heavy)
    where = "every horizon"
    if len(heavy) < len(horizons_of(profile, name)):
        where = f"h = {heavy[0]}" if len(heavy) == 1 else f"{len(heavy)} horizons"
    n = samples(profile.config)
    whose = gradient(profile.identities[name])
    text = (
        f"At {where} a few starts carry much of {whose} (tail index up to {index:.2g}, "
        f"1: Gaussian, {n}): intervals there may cover less than 95%, and more starts would help "
        f"more than usual."
    )
    return [worded("tails", True, text)]


def lost(profile: Profile, name: str) -> list[Finding]:
    """Where the mean gradient stops being finite, if it does."""
    e, q = profile.estimators.index(name), profile.quantities.index("variance")
    value = profile.columns["value"][e, q]
    gone = [h for h in horizons_of(profile, name) if not np.isfinite(value[h])]
    if not gone:
        return []
    text = (
        f"{capital(gradient(profile.identities[name]))} is not finite from h = {gone[0]} on "
        f"({profile.method[e, q, gone[0]]}, {samples(profile.config)}): use a shorter horizon."
    )
    return [worded("health", True, text)]


def health(profile: Profile) -> list[Finding]:
    """Samples that are lost or exactly 0, and inputs without effect: counts, steps, coordinates."""
    texts = [each.said for each in failed(profile.sanity, *_ILL)]
    return [worded("health", True, text) for text in dict.fromkeys(texts)]


def premises(profile: Profile) -> list[Finding]:
    """Why nothing can be decided from this measurement, if there is a reason."""
    failures = failed_premises(profile.sanity)
    return [worded("premises", True, each.said) for each in failures]


def every_check(profile: Profile) -> tuple[Finding, ...]:
    """Those that were recorded, and whether realised gains are those to first order, within their
    intervals; () of a run that was measured without checks."""
    taken = profile.realised
    recorded = profile.sanity or ()
    if not recorded or taken is None or not taken.best_is_known:
        return recorded
    n = f"{taken.judges} fresh starts"
    apart = taken.disagreements(profile.table(), profile.jumps)
    if not apart:
        shown = f"Realised gains agree with first order at {len(taken.stepped)} gradients ({n})."
        return (*recorded, Finding("realised_gains", "pass", text=shown))
    worst = max(apart, key=lambda each: abs(each.realised - each.predicted))
    result = (
        f"Realised gains differ at {len(apart)} of {len(taken.stepped)}: {worst.cell[0]} at h = "
        f"{worst.cell[1]} realised {percent(worst.realised)}, expected {percent(worst.predicted)} "
        f"({n}): {_WHY[worst.reason]}."
    )
    bent = all(each.reason == "step" for each in apart)
    return (*recorded, Finding("realised_gains", "pass" if bent else "fail", text=result))


def checks(profile: Profile) -> list[Finding]:
    """The other checks that need attention, by name."""
    every = every_check(profile)
    bad = failed(every)
    named = [e.title for e in bad if e.code not in _ILL and e.severity != "premise"]
    if not named:
        return []
    need = "needs" if len(bad) == 1 else "need"
    text = f"{len(bad)} of {len(every)} checks {need} attention: {'; '.join(named)}"
    text += "." if len(named) == len(bad) else "; the others have sentences of their own."
    return [worded("sanity", True, text)]


_ILL = (
    "gradients_lost", "gradients_zero", "action_idle", "action_dead", "action_faint",
    "actions_clipped",
)  # fmt: skip


def variance(profile: Profile, name: str) -> list[Finding]:
    """Doubling time of the variance, a power law, slow growth, or none."""
    n, who = samples(profile.config), gradient(profile.identities[name])
    growth = growth_of(profile, name)
    if growth is None:
        text = f"Too few horizons to tell how the variance of {who} grows ({n})."
        return [worded("variance", False, text)]
    stretch = f"from h = {growth.onset} to {growth.last}"
    value, ends = with_ends(growth.slope, growth.low, growth.high)
    slope = f"slope of its logarithm {value} per step {stretch}, CI {ends}, {n}"
    if not growth.grows:
        text = f"No exponential growth of the variance of {who} detected ({slope})."
        return [worded("variance", growth.high < 0, text)]
    if growth.factor < 2:
        text = f"The variance of {who} grows slowly, {growth.factor:.2g}× {stretch} ({slope})."
        return [worded("variance", True, text)]
    if growth.law == "power":
        text = (
            f"The variance of {who} grows {stretch} like h^{growth.power:.2g}, a power law rather "
            f"than an exponential ({slope})."
        )
        return [worded("variance", True, text)]
    time, low, high = (log(2) / each for each in (growth.slope, growth.high, growth.low))
    every = with_interval(time, low, high, f" steps {stretch}", n)
    text = f"The variance of {who} doubles every {every}"
    doubt = f"; a power law h^{growth.power:.2g} fits as well, so do not extrapolate"
    full = text + _exponent(profile) + (doubt if growth.law == "either" else "")
    return [worded("variance", True, f"{full}.")]


def _exponent(profile: Profile) -> str:
    """What the simulator's own closed loop would do: e^{2 (λ + ln γ)} per step, of the worst
    start."""
    found, discount = profile.truth.get("lyapunov"), float(profile.config.get("discount", 1.0))
    if not isinstance(found, int | float):
        return ""
    rate = 2 * (float(found) + log(discount))
    if not rate > 0:
        return ""
    return (
        f"; the simulator's fastest start, λ = {found:.2g} per step, predicts {log(2) / rate:.2g}"
    )


__all__ = [
    "SHOWN",
    "Evidence",
    "Finding",
    "advice",
    "evidence",
    "verdict",
]  # fmt: skip

SHOWN = 6  # sentences that a reader sees before the fold
# What stops everything, what to set now, what to fix, then why.
ORDER = (
    "starts", "health", "agreement", "horizon", "source", "sanity", "variance", "jumps",
    "truth", "tails",
)  # fmt: skip
_OF_VARIANCE = ("horizon", "variance")
_QUIET = ("source", "variance")  # undecided: nothing to do
_WHY = {
    "step": "the return bends within the step: no error of the gradients",
    "jump": "the return jumps within the step, which derivatives along a path do not see",
    "boundary": "episodes end, which derivatives along a path do not see",
    "law": "gradients and returns are of different problems: look at law and truth first",
}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a profile supports beyond its table; None where it does not.

    Attributes:
        choice: None where there is nothing to choose from, as under several truths.
        attribution: None where no substitutions are stored.
        sets: of each estimator the horizons that may have its smallest error.
        facts: what decides the next step.
    """

    choice: Choice | None
    attribution: Attribution | None
    sets: Mapping[str, tuple[int, ...]]
    facts: Facts | None = None


def evidence(profile: Profile) -> Evidence:
    """The choice, the attribution and the sets of horizons of a profile."""
    attribution = None if profile.attribution is None else attribute(profile)
    sets: dict[str, tuple[int, ...]] = dict.fromkeys(profile.estimators, ())
    for name in profile.estimators:
        if (ranked := best_horizons(profile, name)) is not None:
            over, ranks = ranked
            sets[name] = tuple(h for h, here in zip(over, ranks.kept, strict=True) if here)
    read = facts(profile)
    try:
        choice = None if read.void else choice_of(profile)
        return Evidence(choice, attribution, sets, read)
    except InputError:
        return Evidence(None, attribution, sets, read)


def verdict(profile: Profile, found: Evidence | None = None) -> tuple[Finding, ...]:
    """The sentences that head a report, in the order in which they call for action.

    Args:
        found: `evidence(profile)`, where it is known already.
    """
    name = judged_estimator(profile)
    known = evidence(profile) if found is None else found
    void = premises(profile)
    # What every bias is measured against, or why it is not.
    if not profile.truth["admissible"]:
        truth = worded("truth", False, no_truth(profile))
    elif profile.truth["status"] == "imprecise":
        truth = worded("truth", False, imprecise_truth(profile, name))
    else:
        truth = worded("truth", True, admissible_truth(profile, name))
    sentences = [*void, *jumps(profile), truth, *health(profile), *checks(profile)]
    if name is not None:
        # Errors against a truth of 0, or of another model or critic than is meant, decide nothing.
        sentences += [] if void else _of_errors(profile, known, name)
        sentences += lost(profile, name) or variance(profile, name)
        sentences += tails(profile, name)
    if starts := trimming(profile.config):
        sentences.append(worded("starts", True, starts))
    sentences = sorted(sentences, key=lambda each: _place(profile, each))
    return tuple(_at_this_size(profile, sentences))


def _at_this_size(profile: Profile, sentences: list[Finding]) -> list[Finding]:
    """Sentences on variances or errors decide nothing where rarer starts carry them; the first of
    them names what would help."""
    check = rare_starts(profile.sanity)
    if check is None or check.decision == "pass":
        return sentences
    helps = f" More starts would help, or --trim-starts {REMEDY:g}: another question."
    judged = []
    for each in sentences:
        if each.code in _OF_VARIANCE:
            text = f"Not reliable at {samples(profile.config)}: {each.text}{helps}"
            judged.append(replace(each, decision="undecided", text=text))
            helps = ""
        else:
            judged.append(each)
    return judged


def advice(profile: Profile, found: Evidence | None = None) -> Recommendation:
    """The recommendation of a measurement; `found` is its evidence, where it is known already."""
    known = evidence(profile) if found is None else found
    shown = recommendation(known.facts or facts(profile), verdict(profile, known))
    # A failed premise names what is saturated by itself, and comes first.
    limits = None if failed_premises(profile.sanity) else saturated(profile.sanity)
    said = notice(profile.config), limits.said if limits else ""
    follow = shown.follow and replace(shown.follow, config=profile.config)
    return replace(shown, notice=" ".join(filter(None, said)), follow=follow)


def _of_errors(profile: Profile, known: Evidence, name: str) -> list[Finding]:
    """All that needs a truth; where that is imprecise, only what rests on paired differences;
    where there is none, whether estimators agree."""
    if not profile.truth["admissible"]:
        # Who points where the others do: all that can be said of directions without a truth.
        said = () if known.choice is None else statements(known.choice)
        return [e for e in said if e.code == "agreement"]
    if not judged_horizons(profile, name):
        return []
    return source(profile, known.attribution, name) + horizon(profile, name)


def _place(profile: Profile, sentence: Finding) -> int:
    """Where a sentence stands: what leaves nothing to decide comes first, then a truth that is
    cut, imprecise or missing, and what is undecided and calls for nothing last."""
    if sentence.code == "premises":
        return -3
    if sentence.code == "jumps" and profile.jumps is not None and profile.jumps.doubtful:
        return -2
    whole = profile.truth["admissible"] and profile.truth["status"] == "converged"
    if sentence.code == "truth" and not whole:
        return -1
    place = ORDER.index(sentence.code)
    return place + (len(ORDER) if sentence.decision != "pass" and sentence.code in _QUIET else 0)
