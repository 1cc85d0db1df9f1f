"""`choose`: a choice with its words, which are those of the report's first screen.

Where gains or steps decide and nobody asked for other candidates, batches or criteria, the choice
and the report answer one question, and one function answers it (`verdicts.measurement
.recommendation`); else the choice has words of its own.

The first screen of a choice: what to use, what else may be as good, and what would tell.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gradlab.choice.choosing import choice_of
from gradlab.choice.values import Best, Cell, Choice, Criterion, Tried
from gradlab.errors import InputError
from gradlab.runs.check_results import failed_premises
from gradlab.runs.profile import Profile, check_profile
from gradlab.statistics.quantities import QUANTITIES
from gradlab.verdicts.advice import advise
from gradlab.verdicts.choice.sentences import CALLED, cell_words, cells_words, statements
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.phrases import further, gain_text
from gradlab.verdicts.screen import Fact, Light, Screen, Sentence
from gradlab.wording import cosine, cosines, span, two

_MANY = 4  # cells in a row that a headline names before it counts


def screen(choice: Choice) -> Screen:
    """Use what is best by the criterion that decides; every other sentence below."""
    rest = statements(choice)
    best = choice.best or choice.mse or choice.direction
    if best is None and choice.tried is not None:
        return _tried(choice, choice.tried, rest)
    if best is None:
        text = "Use no gradient on the word of this file: nothing in it can be chosen from."
        return Screen(text, "none", "no error is known", (), None, rest)
    others = tuple(cell for cell in best.kept if cell != best.cell)
    among = "" if choice.beyond is None else " of those that need no simulator"
    text = (
        f"Use {cell_words(best.cell)}: the best {_criterion(best)}{among} at batch {choice.batch}."
    )
    helps = choice.by != "gain" or best.interval.low > 0
    if not helps:
        text = f"No gradient is shown to raise the return; best guess: {cell_words(best.cell)}."
    if others:
        text += f" Not excluded: {_alternatives(others)}."
    text += _lowers(choice)
    if choice.beyond is not None:
        cell, gain = choice.beyond.cell, choice.beyond.gain
        text += f" With the simulator's states: {cell_words(cell)}, gain {cosine(gain.clipped)}."
    text += _to_train(choice, best.cell) if helps else ""
    also = choice.direction
    judged = [best] if also is None or also is best else [best, also]
    facts = tuple(_fact(choice, each) for each in judged)
    light: Light = "none" if not helps else "choose" if others else "act"
    sure = _sure(choice, best) if helps else "no gain is shown"
    return Screen(text, light, sure, facts, None, rest)


def _to_train(choice: Choice, cell: Cell) -> str:
    """The command that follows a gradient from the measured networks; "" where no row does."""
    name, h = cell
    rows = {
        "first": f"mpg-v2 TASK --horizons {h} --weights 1",
        "all": f"n-step-adp TASK --horizons {h} --beta 0",
    }
    identity = choice.identities[name]
    if identity.systems != ("model", "model") or identity.actions not in rows or not h:
        return ""
    networks = "--policy FILE --critic FILE --policy-rate 1e-5"
    return f" To train with it: `gradlab train {rows[identity.actions]} {networks}`."


def _tried(choice: Choice, tried: Tried, rest: tuple[Sentence, ...]) -> Screen:
    """Without a truth: the step that gained most return."""
    others = tuple(cell for cell in tried.kept if cell != tried.cell)
    text = f"Use {cell_words(tried.cell)}: its step gained most return."
    if not (choice.steps is not None and tried.cell in choice.steps.raises):
        text = f"No step is shown to raise the return; best guess: {cell_words(tried.cell)}."
    if others:
        text += f" Not excluded: {_alternatives(others)}."
    where = f"return gained by a step along {cell_words(tried.cell)}"
    ends = span(tried.interval.low, tried.interval.high)
    fact = Fact(f"{where}, {ends}", two(tried.value), "the best possible gain is unknown")
    sure = "not sure" if others else "sure (nothing else that was tried may be best, 95%)"
    light: Light = "choose" if others else "act"
    return Screen(text + _lowers(choice), light, sure, (fact,), None, rest)


def _lowers(choice: Choice) -> str:
    """What not to use."""
    if choice.steps is None or not choice.steps.lowers:
        return ""
    return f" Lower the return: {_alternatives(choice.steps.lowers, 'cells')}."


def _criterion(best: Best) -> str:
    return CALLED[best.criterion].partition(" (")[0]


def _alternatives(others: tuple[Cell, ...], called: str = "other cells") -> str:
    names = dict.fromkeys(name for name, _ in others)
    if len(names) > _MANY:
        return f"{len(others)} {called} of {len(names)} gradients"
    return cells_words(others)


def _sure(choice: Choice, best: Best) -> str:
    if len(best.kept) == 1:
        return "sure (nothing else may be best, 95%)"
    if choice.carried:
        return "not sure; the truth rests on few starts"
    if not best.partings:
        return f"not sure; {further(None)} decide"
    first = best.partings[0]
    rival = first.member if first.contender == best.cell else first.contender
    return f"not sure; {further(first.more)} separate it from {cell_words(rival)}"


def _fact(choice: Choice, best: Best) -> Fact:
    ends = (best.interval.low, best.interval.high)
    where = f"{_criterion(best)} of {cell_words(best.cell)}"
    if best.criterion == "gain":
        return Fact(where, gain_text(best.number(choice.samples)), f"{choice.samples} samples.")
    if best.criterion != "mse":
        shown = Fact(f"{where}, {cosines(*ends)}", cosine(best.value), "")
    else:
        shown = Fact(f"{where}, {span(*ends)}", two(best.value), "")
    name = {"mse": "mse", "direction": "cosine_batch"}.get(best.criterion, best.criterion)
    quantity = next((each for each in QUANTITIES.values() if each.name == name), None)
    formula = "" if quantity is None else f"{quantity.formula} ({quantity.source}), "
    return Fact(shown.label, shown.text, f"{formula}{choice.samples} samples.")


def choose(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    *,
    by: Criterion | None = None,
    iteration: int | None = None,
    ramp: int | None = None,
) -> Choice:
    """The horizon, the estimator and the weights that a measurement supports, and how surely.

    `print(choice)` says it in a few lines, those of the report's first screen.

    Args:
        batch: N′, samples that one update averages; None: as the profile was measured for.
        estimators: who competes; None: what a user can run, of the gradients under the truth of the
            model's: those that need neither states nor derivatives of the simulator, where there
            are such (`runs.competing`).
        by: the criterion that decides. "gain": what one small step along the mean gradient adds to
            the return, only under its gradient as the truth (the default there); "mse": the mean
            squared error (the default elsewhere); "direction": the expected cosine of one batch.
            All that can be computed are in the choice.
        iteration: training time at which the papers' rule-based weights are shown; None: at the
            start, in the middle and at the end of their ramp.
        ramp: T of these rules, in iterations; None: 9000, as in MPG.

    Raises:
        InputError: a measurement from which nothing can be decided (its reward is constant, say),
            an unknown estimator or criterion, estimators under different truths, gains under a
            truth that is not the gradient of the return, or numbers out of range.
    """
    return chosen(profile, batch, estimators, by, iteration, ramp)[0]


def chosen(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    by: Criterion | None = None,
    iteration: int | None = None,
    ramp: int | None = None,
) -> tuple[Choice, Screen]:
    """The choice and its first screen; arguments and errors as of `choose`."""
    check_profile(profile)
    if void := failed_premises(profile.sanity):
        raise InputError(f"nothing can be chosen: {void[0].result}; {void[0].meaning}")
    choice = choice_of(profile, batch, estimators, by, iteration, ramp)
    asked = batch is None and not estimators and by in (None, "gain")
    first = screen(choice)
    if asked and choice.by in (None, "gain"):
        # What the report says, with the command that follows it and the sentences of the choice.
        read = facts(profile)
        said, cell = recommendation(read), advise(read).cell
        follow = "" if cell is None else _to_train(choice, cell)
        first = replace(said, headline=f"{said.headline}{follow}", figure=None, rest=first.rest)
    numbers = [f"{each.label}: {each.text}" for each in first.numbers]
    text = "\n".join([first.headline, f"How sure: {first.sure}.", *numbers])
    return replace(choice, recommendation=text), first
