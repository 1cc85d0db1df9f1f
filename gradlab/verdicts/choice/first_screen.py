"""The first screen of a choice: what to use, what else may be as good, and what would tell."""

from __future__ import annotations

from dataclasses import replace

from gradlab.choice.values import Best, Cell, Choice, Tried
from gradlab.statistics.quantities import QUANTITIES
from gradlab.verdicts.advice import advise
from gradlab.verdicts.choice.sentences import CALLED, cell_words, cells_words, statements
from gradlab.verdicts.facts import Facts
from gradlab.verdicts.gains import gain_text
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.phrases import further
from gradlab.verdicts.screen import Fact, Light, Screen
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import cosine, cosines, span, two

MANY = 4  # cells in a row that a headline names before it counts


def screen(choice: Choice) -> Screen:
    """Use what is best by the criterion that decides; every other sentence below."""
    rest = tuple(Sentence(e.about, e.decided, e.text) for e in statements(choice))
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
    text += _lowers(choice) + _beyond(choice) + (to_train(choice, best.cell) if helps else "")
    facts = (_fact(choice, best), *_direction(choice, best))
    light: Light = "none" if not helps else "choose" if others else "act"
    sure = _sure(choice, best) if helps else "no gain is shown"
    return Screen(text, light, sure, facts, None, rest)


def as_recommended(choice: Choice, facts: Facts) -> Screen:
    """What the report says, with the command that follows it and the sentences of the choice."""
    first, cell = recommendation(facts), advise(facts).cell
    rest = tuple(Sentence(e.about, e.decided, e.text) for e in statements(choice))
    follow = "" if cell is None else to_train(choice, cell)
    return replace(first, headline=f"{first.headline}{follow}", figure=None, rest=rest)


def to_train(choice: Choice, cell: Cell) -> str:
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


def _beyond(choice: Choice) -> str:
    """The better gradient that needs the simulator's states, named as such."""
    if choice.beyond is None:
        return ""
    cell, gain = choice.beyond.cell, choice.beyond.gain
    return f" With the simulator's states: {cell_words(cell)}, gain {cosine(gain.clipped)}."


def _tried(choice: Choice, tried: Tried, rest: tuple[Sentence, ...]) -> Screen:
    """Without a truth: the step that gained most return."""
    others = tuple(cell for cell in tried.kept if cell != tried.cell)
    text = f"Use {cell_words(tried.cell)}: its step gained most return."
    if not _raises(choice, tried.cell):
        text = f"No step is shown to raise the return; best guess: {cell_words(tried.cell)}."
    if others:
        text += f" Not excluded: {_alternatives(others)}."
    where = f"return gained by a step along {cell_words(tried.cell)}"
    ends = span(tried.interval.low, tried.interval.high)
    fact = Fact(f"{where}, {ends}", two(tried.value), "the best possible gain is unknown")
    sure = "not sure" if others else "sure (nothing else that was tried may be best, 95%)"
    light: Light = "choose" if others else "act"
    return Screen(text + _lowers(choice), light, sure, (fact,), None, rest)


def _raises(choice: Choice, cell: Cell) -> bool:
    return choice.steps is not None and cell in choice.steps.raises


def _lowers(choice: Choice) -> str:
    """What not to use."""
    if choice.steps is None or not choice.steps.lowers:
        return ""
    return f" Lower the return: {_alternatives(choice.steps.lowers, 'cells')}."


def _criterion(best: Best) -> str:
    return CALLED[best.criterion].partition(" (")[0]


def _alternatives(others: tuple[Cell, ...], called: str = "other cells") -> str:
    names = dict.fromkeys(name for name, _ in others)
    if len(names) > MANY:
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


def _direction(choice: Choice, best: Best) -> list[Fact]:
    """The same by the other criterion."""
    other = choice.direction
    return [] if other is None or other is best else [_fact(choice, other)]
