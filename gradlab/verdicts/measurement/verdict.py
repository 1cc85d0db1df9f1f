"""What a measurement means, in a few plain sentences, those on what to do now first.

Every form is printed only where its test passes, else its undecided twin; no number comes without
its interval and N. The numbers are those of `decision_rules`, `choice` and the attribution.

    horizon 1   spread 2   sources 3   data or model 4   weights 5   sampling 6   soundness 7, 8
    remedies 10 (of a comparison)   truth 12 (`truth_words`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gradlab.choice import Choice, choice_of
from gradlab.errors import InputError
from gradlab.runs.attribution import Attribution
from gradlab.runs.attribution_shares import attribute
from gradlab.runs.check_results import rare_starts
from gradlab.runs.decision_rules import best_horizons, judged_estimator, judged_horizons
from gradlab.runs.profile import Profile
from gradlab.runs.stages import notice
from gradlab.runs.trimmed_starts import REMEDY, trimming
from gradlab.verdicts.choice.sentences import statements
from gradlab.verdicts.facts import Facts, facts
from gradlab.verdicts.measurement.data_or_model import ABOUT, data_against
from gradlab.verdicts.measurement.horizon import horizon, paired_horizon
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.measurement.sampling import batch, tails
from gradlab.verdicts.measurement.soundness import checks, health, lost, premises
from gradlab.verdicts.measurement.sources import source
from gradlab.verdicts.measurement.truth import admissible_truth, imprecise_truth, jumps, no_truth
from gradlab.verdicts.measurement.variance import variance
from gradlab.verdicts.measurement.weights import weights
from gradlab.verdicts.screen import Screen
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import samples

__all__ = [
    "SHOWN", "Evidence", "Sentence", "evidence", "first_screen", "verdict",
]  # fmt: skip

SHOWN = 6  # sentences that a reader sees before the fold
# What stops everything, what to set now, what to mend, then why.
ORDER = (
    "starts", "health", "agreement", "horizon", "source", "weights", "samples", ABOUT,
    "sanity", "variance", "jumps", "truth", "tails",
)  # fmt: skip
OF_VARIANCE = ("horizon", "samples", "variance", "weights", ABOUT)
QUIET = ("source", "weights", "variance")  # undecided: nothing to do


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
    sets = {name: _set(profile, name) for name in profile.estimators}
    read = facts(profile)
    try:
        choice = None if read.void else choice_of(profile)
        return Evidence(choice, attribution, sets, read)
    except InputError:
        return Evidence(None, attribution, sets, read)


def _set(profile: Profile, name: str) -> tuple[int, ...]:
    ranked = best_horizons(profile, name)
    if ranked is None:
        return ()
    over, ranks = ranked
    return tuple(h for h, here in zip(over, ranks.kept, strict=True) if here)


def verdict(profile: Profile, found: Evidence | None = None) -> tuple[Sentence, ...]:
    """The sentences that head a report, in the order in which they call for action.

    Args:
        found: `evidence(profile)`, where it is known already.
    """
    name = judged_estimator(profile)
    known = evidence(profile) if found is None else found
    void = premises(profile)
    sentences = void + jumps(profile) + _of_truth(profile, name)
    sentences += health(profile) + checks(profile)
    if name is not None:
        # Errors against a truth of 0, or of another model or critic than is meant, decide nothing.
        sentences += [] if void else _of_errors(profile, known, name)
        sentences += lost(profile, name) or variance(profile, name)
        sentences += tails(profile, name)
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
        if each.about in OF_VARIANCE:
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


def _of_truth(profile: Profile, name: str | None) -> list[Sentence]:
    """What every bias is measured against, or why it is not."""
    if not profile.truth["admissible"]:
        return [Sentence("truth", False, no_truth(profile))]
    if profile.truth["status"] == "imprecise":
        return [Sentence("truth", False, imprecise_truth(profile, name))]
    return [Sentence("truth", True, admissible_truth(profile, name))]


def _of_errors(profile: Profile, known: Evidence, name: str) -> list[Sentence]:
    """All that needs a truth; where that is imprecise, only what rests on paired differences;
    where there is none, whether estimators agree."""
    if not profile.truth["admissible"]:
        return _agreement(known.choice)
    if not judged_horizons(profile, name):
        return data_against(profile, name)
    sentences = data_against(profile, name) + source(profile, known.attribution, name)
    sentences += weights(known.choice)
    if profile.truth["status"] == "imprecise":
        return sentences + paired_horizon(profile, name)
    return sentences + horizon(profile, name) + batch(profile, name)


def _agreement(choice: Choice | None) -> list[Sentence]:
    """Who points where the others do: all that can be said of directions without a truth."""
    said = () if choice is None else statements(choice)
    return [Sentence(e.about, e.decided, e.text) for e in said if e.about == "agreement"]


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
    return place + (len(ORDER) if not sentence.decided and sentence.about in QUIET else 0)
