"""What a measurement means, in a few plain sentences, those on what to do now first.

Every form is printed only where its test passes, else its undecided twin; no number comes without
its interval and N. The numbers are those of `decision_rules`, `choice` and the attribution.

    horizon 1   spread 2   sources 3   data or model 4   weights 5   sampling 6   soundness 7, 8
    remedies 10 (of a comparison)   truth 12 (`truth_words`)

Form 2: does the variance explode with the horizon, and how fast?

Forms 7 and 8: are the gradients finite and alive?

Form 4: is the data's gradient or the model's the more accurate one?

Form 6: how many samples one update needs; and where a few of them carry the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log

import numpy as np

from gradlab.choice import Choice, choice_of
from gradlab.choice.decays import FEWEST, decay_table, decays_of
from gradlab.errors import InputError
from gradlab.runs.attribution import Attribution, attribute
from gradlab.runs.check_results import (
    EFFECT,
    FINITE,
    IDLE,
    PREMISE,
    CheckResult,
    failed_premises,
    rare_starts,
)
from gradlab.runs.decision_rules import (
    DIRECTION,
    best_horizons,
    growth_of,
    heavy_horizons,
    horizons_of,
    judged_estimator,
    judged_horizons,
    needed_batch,
    ratio_to_best,
)
from gradlab.runs.identity import data_of
from gradlab.runs.profile import Profile
from gradlab.runs.stages import notice
from gradlab.runs.trimmed_starts import REMEDY, trimming
from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.verdicts.choice.sentences import statements
from gradlab.verdicts.facts import Facts, facts
from gradlab.verdicts.measurement.horizon import (
    admissible_truth,
    horizon,
    imprecise_truth,
    jumps,
    no_truth,
    paired_horizon,
)
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.measurement.sources import source, weights
from gradlab.verdicts.phrases import (
    SAME,
    ZERO,
    capital,
    further,
    inverse,
    missing,
    ratio_of,
    ratio_span,
    same,
)
from gradlab.verdicts.screen import Screen, Sentence
from gradlab.wording import batches, cosine, gradient, percent, samples, span


def batch(profile: Profile, name: str) -> list[Sentence]:
    """Samples that one update needs for a usable direction, or the bias that no number of them
    overcomes."""
    over = [h for h in judged_horizons(profile, name) if h > 0]
    if not over:
        return []
    at = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
    needed, n = needed_batch(profile, name, at), samples(profile.config)
    if needed is None:
        return []
    yours = f"You average N′ = {profile.batch}"
    goal = f"a cosine of one batch with the truth of at least {DIRECTION:g} at h = {at}"
    mean = f"{cosine(needed.value)} (CI {span(needed.cosine.low, needed.cosine.high)}, {n})"
    if needed.cosine.high < DIRECTION:
        text = f"{yours}; no N′ reaches {goal}: bias alone caps it at {mean}."
        return [Sentence("samples", True, text)]
    if needed.batch is None or not np.isfinite(needed.batch.high):
        se = jackknife_se(profile.estimate(name, "cosine", at).left_out)
        gap, starts = abs(needed.value - DIRECTION), int(profile.config["starts"])
        enough = further(more_samples(gap, se, starts))
        text = (
            f"Undecided whether any N′ reaches {goal}: that of the mean is {mean}; {enough} decide."
        )
        return [Sentence("samples", False, text)]
    ends = f"{batches(needed.batch.low)}–{batches(needed.batch.high)}"
    text = f"{yours}; {goal} needs N′ ≈ {batches(needed.size)} (CI {ends}, {n})"
    return [Sentence("samples", True, f"{text}{_longest(profile, name, over[-1], at)}.")]


def _longest(profile: Profile, name: str, H: int, at: int) -> str:
    """The same at the user's horizon, where it is another and known."""
    needed = None if at == H else needed_batch(profile, name, H)
    if needed is None:
        return ""
    if needed.cosine.high < DIRECTION:
        return f", and at h = {H} no N′ does"
    if needed.batch is None or not np.isfinite(needed.batch.high):
        return ""
    ends = f"{batches(needed.batch.low)}–{batches(needed.batch.high)}"
    return f", at h = {H} {batches(needed.size)} (CI {ends})"


def tails(profile: Profile, name: str) -> list[Sentence]:
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
    return [Sentence("tails", True, text)]


_ABOUT = "data or model"


def _data_against(profile: Profile, name: str) -> list[Sentence]:
    """The data gradient against the best horizon of another estimator."""
    data = data_of(profile.identities)
    if data is None or profile.identities[name].data:
        return []
    over = [h for h in judged_horizons(profile, name) if h > 0]
    n, who = samples(profile.config), gradient(profile.identities[name])
    ratio = ratio_to_best(profile, (data, 0), name, over)
    if ratio is None:
        text = f"Undecided: the errors of {who} and of the data gradient are {ZERO} ({n})."
        return [Sentence(_ABOUT, False, text)]
    best = min(over, key=lambda h: profile.estimate(name, "mse", h).value)
    at = f"at its best horizon h = {best}"
    numbers = f"mean squared error, CI {ratio_span(ratio)}, {n}"
    if same(ratio):
        text = f"The data gradient and {who} {at} have the same error to within"
        return [Sentence(_ABOUT, True, f"{text} {percent(SAME - 1)} ({n}).")]
    decision = ratio.against(int(profile.config["starts"]))
    if decision.kind == "above":
        text = f"{capital(who)} {at} is {ratio_of(ratio)} more accurate than the data gradient"
        text += f" ({numbers})."
        if interval("relative_mse", profile.estimate(data, "relative_mse", 0)).low > 1:
            text += " The data gradient is worse than a zero gradient here, so this says more of "
            text += "the critic."
        return [Sentence(_ABOUT, True, text)]
    if decision.kind == "below":
        turned = inverse(ratio)
        text = (
            f"The data gradient is {ratio_of(turned)} more accurate than {who} {at} (mean "
            f"squared error, CI {ratio_span(turned)}, {n})."
        )
        return [Sentence(_ABOUT, True, text)]
    text = (
        f"Undecided whether the data gradient or {who} {at} is more accurate: the ratio of their "
        f"mean squared errors is {ratio_of(ratio)[:-1]} (CI {ratio_span(ratio)}, {n}); "
        f"{missing(decision)} separate them."
    )
    return [Sentence(_ABOUT, False, text)]


def decays(profile: Profile) -> list[Sentence]:
    """The temporal decay of the smallest error, and those that may have it."""
    if len(decays_of(profile)) < FEWEST or "mse" not in profile.quantities:
        return []
    table = decay_table(profile)
    error = table[table["quantity"] == "mse"].sort_values("value")
    kept = sorted(table.loc[table["kept"], "alpha"].unique())
    among = f"{kept[0]:g} to {kept[-1]:g} may have it" if len(kept) > 1 else "no other has it"
    text = (
        f"Temporal decay: α = {error['alpha'].iloc[0]:g} has the smallest error; {among} (95%). A "
        f"smaller α shortens the way through the states: less variance, more bias."
    )
    return [Sentence("decay", len(kept) == 1, text)]


def lost(profile: Profile, name: str) -> list[Sentence]:
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
    return [Sentence("health", True, text)]


def health(profile: Profile) -> list[Sentence]:
    """Samples that are lost or exactly 0, and inputs without effect: counts, steps, coordinates."""
    texts = [each.sentence for each in profile.sanity or () if _ill(each)]
    return [Sentence("health", True, text) for text in dict.fromkeys(texts)]


def premises(profile: Profile) -> list[Sentence]:
    """Why nothing can be decided from this measurement, if there is a reason."""
    failures = failed_premises(profile.sanity)
    return [Sentence("premises", True, each.sentence) for each in failures]


def checks(profile: Profile) -> list[Sentence]:
    """The other checks that ask for attention, by name."""
    failed = [e for e in profile.sanity or () if not e.passed]
    named = [e.check for e in failed if not _ill(e) and not e.check.startswith(PREMISE)]
    if not named:
        return []
    asks = "asks" if len(named) == 1 else "ask"
    total = len(profile.sanity or ())
    text = f"{len(named)} of {total} sanity checks {asks} for attention: {'; '.join(named)}."
    return [Sentence("sanity", True, text)]


def _ill(finding: CheckResult) -> bool:
    kinds = (FINITE, EFFECT, IDLE)
    return not finding.passed and finding.check.startswith(kinds)


def variance(profile: Profile, name: str) -> list[Sentence]:
    """Doubling time of the variance, a power law, slow growth, or none."""
    n, who = samples(profile.config), gradient(profile.identities[name])
    growth = growth_of(profile, name)
    if growth is None:
        text = f"Growth of the variance of {who}: too few horizons to tell ({n})."
        return [Sentence("variance", False, text)]
    stretch = f"from h = {growth.onset} to {growth.last}"
    slope = (
        f"slope of its logarithm {growth.slope:.2g} per step {stretch}, CI "
        f"{span(growth.low, growth.high)}, {n}"
    )
    if not growth.grows:
        text = f"No exponential growth of the variance of {who} detected ({slope})."
        return [Sentence("variance", growth.high < 0, text)]
    if growth.factor < 2:
        text = f"The variance of {who} grows slowly, {growth.factor:.2g}× {stretch} ({slope})."
        return [Sentence("variance", True, text)]
    if growth.law == "power":
        text = (
            f"The variance of {who} grows {stretch} like h^{growth.power:.2g}, a power law rather "
            f"than an exponential ({slope})."
        )
        return [Sentence("variance", True, text)]
    doubling = log(2) / growth.slope
    text = (
        f"The variance of {who} doubles every {doubling:.2g} steps {stretch} "
        f"(CI {span(log(2) / growth.high, log(2) / growth.low)}, {n})"
    )
    doubt = f"; a power law h^{growth.power:.2g} fits as well, so do not extrapolate"
    full = text + _exponent(profile) + (doubt if growth.law == "either" else "")
    return [Sentence("variance", True, f"{full}.")]


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
    "SHOWN", "Evidence", "Sentence", "evidence", "first_screen", "verdict",
]  # fmt: skip

SHOWN = 6  # sentences that a reader sees before the fold
# What stops everything, what to set now, what to mend, then why.
ORDER = (
    "starts", "health", "agreement", "horizon", "source", "weights", "samples", _ABOUT,
    "sanity", "decay", "variance", "jumps", "truth", "tails",
)  # fmt: skip
_OF_VARIANCE = ("horizon", "samples", "decay", "variance", "weights", _ABOUT)
_QUIET = ("source", "weights", "variance")  # undecided: nothing to do


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


def verdict(profile: Profile, found: Evidence | None = None) -> tuple[Sentence, ...]:
    """The sentences that head a report, in the order in which they call for action.

    Args:
        found: `evidence(profile)`, where it is known already.
    """
    name = judged_estimator(profile)
    known = evidence(profile) if found is None else found
    void = premises(profile)
    # What every bias is measured against, or why it is not.
    if not profile.truth["admissible"]:
        truth = Sentence("truth", False, no_truth(profile))
    elif profile.truth["status"] == "imprecise":
        truth = Sentence("truth", False, imprecise_truth(profile, name))
    else:
        truth = Sentence("truth", True, admissible_truth(profile, name))
    sentences = [*void, *jumps(profile), truth, *health(profile), *checks(profile)]
    if name is not None:
        # Errors against a truth of 0, or of another model or critic than is meant, decide nothing.
        sentences += [] if void else _of_errors(profile, known, name)
        sentences += lost(profile, name) or variance(profile, name)
        sentences += tails(profile, name)
    sentences += [] if void else decays(profile)
    if starts := trimming(profile.config):
        sentences.append(Sentence("starts", True, starts))
    sentences = sorted(sentences, key=lambda each: _place(profile, each))
    return tuple(_at_this_size(profile, sentences))


def _at_this_size(profile: Profile, sentences: list[Sentence]) -> list[Sentence]:
    """Sentences on variances or errors decide nothing where rarer starts carry them; the first of
    them names what would help."""
    check = rare_starts(profile.sanity)
    if check is None or check.passed:
        return sentences
    helps = f" More starts would help, or --trim-starts {REMEDY:g}: another question."
    judged = []
    for each in sentences:
        if each.about in _OF_VARIANCE:
            text = f"Not reliable at {samples(profile.config)}: {each.text}{helps}"
            judged.append(replace(each, decided=False, text=text))
            helps = ""
        else:
            judged.append(each)
    return judged


def first_screen(profile: Profile, found: Evidence | None = None) -> Screen:
    """The first screen of a measurement; `found` is its evidence, where it is known already."""
    known = evidence(profile) if found is None else found
    screen = recommendation(known.facts or facts(profile), verdict(profile, known))
    return replace(screen, notice=notice(profile.config))


def _of_errors(profile: Profile, known: Evidence, name: str) -> list[Sentence]:
    """All that needs a truth; where that is imprecise, only what rests on paired differences;
    where there is none, whether estimators agree."""
    if not profile.truth["admissible"]:
        # Who points where the others do: all that can be said of directions without a truth.
        said = () if known.choice is None else statements(known.choice)
        return [Sentence(e.about, e.decided, e.text) for e in said if e.about == "agreement"]
    if not judged_horizons(profile, name):
        return _data_against(profile, name)
    sentences = _data_against(profile, name) + source(profile, known.attribution, name)
    sentences += weights(known.choice)
    if profile.truth["status"] == "imprecise":
        return sentences + paired_horizon(profile, name)
    return sentences + horizon(profile, name) + batch(profile, name)


def _place(profile: Profile, sentence: Sentence) -> int:
    """Where a sentence stands: what leaves nothing to decide comes first, then a truth that is
    cut, imprecise or missing, and what is undecided and calls for nothing last."""
    if sentence.about == "premises":
        return -3
    if sentence.about == "jumps" and profile.jumps is not None and profile.jumps.doubtful:
        return -2
    whole = profile.truth["admissible"] and profile.truth["status"] == "converged"
    if sentence.about == "truth" and not whole:
        return -1
    place = ORDER.index(sentence.about)
    return place + (len(ORDER) if not sentence.decided and sentence.about in _QUIET else 0)
