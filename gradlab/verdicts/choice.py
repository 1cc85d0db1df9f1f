"""A choice in words: its first screen, and a handful of sentences with interval and N.

Where gains or steps decide and nobody asked for other candidates, batches or criteria, the choice
says what the report of the measurement says (`verdicts.measurement.recommendation`).
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from math import exp, isfinite

from gradlab.choice.choosing import choice_of
from gradlab.choice.values import Best, Cell, Choice, Criterion, Mixing, Parting, Tried
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.findings.checks import failed_premises
from gradlab.gradients.ways import WAYS
from gradlab.runs.profile import Profile, check_profile
from gradlab.runs.stages import trimming
from gradlab.statistics.mixing import Weights
from gradlab.statistics.quantities import QUANTITIES
from gradlab.verdicts.advice import Advice, advise
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import KEEP, recommendation
from gradlab.verdicts.phrases import SAME, ZERO, capital, further, gain_text, with_sign
from gradlab.verdicts.recommendation import Field, Light, Recommendation, worded
from gradlab.wording import (
    AT_STARTS,
    at_horizon,
    horizons,
    label,
    turned,
    updates,
    with_interval,
)

CALLED = {
    "gain": "gain (what one small step adds to the return, in shares of the best one)",
    "mse": "mean squared error",
    "direction": "direction (cosine of one batch)",
}
_LARGEST = {
    "gain": "largest gain",
    "mse": "lowest mean squared error",
    "direction": "best direction",
}
_CARRIED = "No number of starts is known to tell them apart: the true gradient rests on few"
_ALIKE = 0.01  # of the best possible gain, or cosine
_FEW = 2  # pairs of candidates that more starts would tell apart, mentioned


def statements(choice: Choice) -> tuple[Finding, ...]:
    """Horizon, direction, weights, what if, and what a reader has to know."""
    every = sorted(
        (choice.gain, choice.mse, choice.direction), key=lambda each: each is not choice.best
    )
    n = f"N = {choice.samples:,}"
    found: list[Finding] = []
    if (tried := choice.tried) is not None:  # without a truth: what realised gains say
        text = (
            f"Most return gained by a step along {cell_words(choice, tried.cell)}: "
            f"{with_interval(tried.value, tried.interval.low, tried.interval.high)}, "
            f"the best possible is unknown; {_may_be_best(choice, tried.kept)}."
        )
        found.append(worded("realised", tried.kept == (tried.cell,), text))
    found += [_best(choice, each) for each in every if each is not None]
    if choice.beyond is not None:  # does not compete, and is better
        gain = choice.beyond.gain
        text = (
            f"With the simulator's states {cell_words(choice, choice.beyond.cell)} gains more: "
            f"{turned(gain.clipped, gain.low, gain.high)}, {n}; it does not compete."
        )
        found.append(worded("beyond", True, text))
    found += _steps(choice) + _criteria(choice)
    if choice.pair is not None:
        found.append(_weights(choice, choice.pair))
    found += _agreement(choice)
    return (*found, *(worded("note", True, each) for each in choice.notes))


def cell_words(choice: Choice, cell: Cell) -> str:
    """One gradient at one horizon: `model, BPTT at h = 5`."""
    return cells_words(choice, [cell])


def cells_words(choice: Choice, cells: Iterable[Cell]) -> str:
    """Cells by gradient, runs of horizons joined: `model, BPTT at h = 3–7, 12`."""
    by_name: defaultdict[str, list[int]] = defaultdict(list)
    for name, horizon in cells:
        alone = at_horizon(name, horizon, choice.identities) == AT_STARTS
        by_name[AT_STARTS if alone else label(name, choice.identities)].append(horizon)
    return "; ".join(
        name if name == AT_STARTS else f"{name} at h = {horizons(own)}"
        for name, own in by_name.items()
    )


def _best(choice: Choice, best: Best) -> Finding:
    ends = best.interval.low, best.interval.high
    if best.criterion == "gain":
        value = gain_text(best.number(choice.samples))
    elif best.criterion != "mse":
        value = turned(best.value, *ends)
    elif best.value > 0:
        value = with_interval(best.value, *ends)
    else:  # a noise-corrected error that is not above 0 is known from above only
        value = f"at most {ends[1]:.2g} (upper end of its CI)"
    text = (
        f"Best {CALLED[best.criterion]} at N′ = {choice.batch}: {cell_words(choice, best.cell)}, "
        f"{value}, N = {choice.samples:,}"
    )
    if best.kept == (best.cell,):
        return worded(best.criterion, True, f"{text}; {_may_be_best(choice, best.kept)}.")
    text += f". {capital(_may_be_best(choice, best.kept))}"
    apart = _apart(best)
    parts = [
        f"{further(each.more)} separate {cell_words(choice, each.member)} from "
        f"{cell_words(choice, each.contender)}"
        for each in apart[:_FEW]
    ]
    more = "" if best.partings else f" {capital(further(None))} shrink it."
    if choice.carried:
        more = f" {_CARRIED}."
    elif parts:
        more = f" Not enough starts to say more: {'; '.join(parts)}."
    return worded(best.criterion, False, f"{text}.{more}")


def _apart(best: Best) -> list[Parting]:
    """Pairs of candidates that more starts would tell apart: one that is worse by a cosine too
    small is not worth them."""
    gaps = (best.ranks.gap[best.candidates.index(each.member)] for each in best.partings)
    return [
        each
        for each, gap in zip(best.partings, gaps, strict=True)
        if best.criterion == "mse" or not gap < _ALIKE
    ]


def _may_be_best(choice: Choice, kept: tuple[Cell, ...]) -> str:
    if len(kept) == 1:
        return "nothing else may be best (95%)"
    return f"any of these may be best (95%): {cells_words(choice, kept)}"


def _steps(choice: Choice) -> list[Finding]:
    """Which steps lower the return, and which raise it."""
    if choice.steps is None:
        return []
    how = "realised on fresh starts" if choice.steps.realised else "to first order"
    parts = [
        f"{verb}: {cells_words(choice, cells)}"
        for verb, cells in (("lower it", choice.steps.lowers), ("raise it", choice.steps.raises))
        if cells
    ]
    said = "; ".join(parts) if parts else "none is shown to raise or to lower it"
    text = f"Effect of steps on the return ({how}, N = {choice.samples:,}, 95% jointly): {said}."
    return [worded("steps", bool(parts), text)]


def _criteria(choice: Choice) -> list[Finding]:
    """Whether plain steps and scale-free optimisers want different things."""
    mse, direction = choice.mse, choice.direction
    if mse is None or direction is None:
        return []
    both = set(mse.kept) & set(direction.kept)
    if mse.cell == direction.cell:
        text = f"Error and direction of one step both choose {cell_words(choice, mse.cell)}."
    elif both:
        among = cells_words(choice, [cell for cell in mse.candidates if cell in both])
        text = f"The criteria are not shown to differ: {among} may be best by both."
    else:
        text = (
            f"The criteria differ: for plain gradient steps {cell_words(choice, mse.cell)}, for "
            f"optimisers that drop the scale, as Adam, {cell_words(choice, direction.cell)}."
        )
    return [worded("criteria", not both or mse.cell == direction.cell, text)]


def _weights(choice: Choice, mixing: Mixing) -> Finding:
    """Weights by what decides, and their error beside that of the papers' rule."""
    weights = choice.weights or mixing.mse
    by = "mean squared error" if weights is mixing.mse else choice.by
    text = "none: no mixture points along the truth"
    if weights.share.any():
        text = _shares(choice, mixing, weights)
    text = f"Weights of {cells_words(choice, mixing.cells)}, by {by}: {text}"
    against = mixing.against
    if against is None:
        return worded("weights", False, f"{text}.")
    ends = exp(against.interval.low), exp(against.interval.high)
    text += (
        f". On {against.unseen} starts that did not choose them the measured weights have "
        f"{with_interval(against.ratio, *ends, '×')} the error of the {against.rule}."
    )
    return worded("weights", ends[1] < 1 / SAME or ends[0] > SAME, text)


def _shares(choice: Choice, mixing: Mixing, weights: Weights) -> str:
    """With their intervals."""
    shown = [
        f"{with_interval(share, low, high)} {cell_words(choice, cell)}"
        for cell, share, low, high in zip(
            mixing.cells, weights.share, weights.low, weights.high, strict=True
        )
    ]
    return ", ".join(shown)


def _agreement(choice: Choice) -> list[Finding]:
    """Only without a truth: who points where the others do."""
    of_pairs, unknown = defaultdict[str, list[str]](list), 0
    for each in choice.agreement:
        (name, h), ends = each.second, each.interval
        if not isfinite(each.cosine) or (ends.low <= -1 and ends.high >= 1):
            unknown += 1
            continue
        same = each.first[1] == h
        first = label(each.first[0], choice.identities) if same else cell_words(choice, each.first)
        value = turned(each.cosine, ends.low, ends.high)
        of_pairs[f"{first} and {label(name, choice.identities)}"].append(f"{value} at h = {h}")
    parts = [f"{pair}: {', '.join(values)}" for pair, values in of_pairs.items()]
    if unknown:
        many = f"{unknown} pairs are" if unknown > 1 else "1 pair is"
        parts.append(f"{many} undecided, one of the two gradients is {ZERO}")
    if not parts:
        return []
    text = f"Cosines between estimators (N = {choice.samples:,}): {'; '.join(parts)}."
    return [worded("agreement", True, text)]


_MANY = 4  # cells in a row that a headline names before it counts


def advice_of(choice: Choice) -> Recommendation:
    """Use what is best by the criterion that decides; every other sentence below."""
    rest = statements(choice)
    best = choice.best or choice.mse or choice.direction
    if choice.beyond is not None:
        more = f"{cell_words(choice, choice.beyond.cell)} gains {gain_text(choice.beyond.gain)}"
        rest = (*rest, worded("beyond", True, f"With simulator states: {more}."))
    if best is None and choice.tried is not None:
        return _tried(choice, choice.tried, rest)
    if best is None:
        nothing = Field("why", "this file holds no known error of any gradient")
        return Recommendation("none", (Field("use", KEEP), nothing), None, rest)
    others = tuple(cell for cell in best.kept if cell != best.cell)
    helps = choice.by != "gain" or best.interval.low > 0
    among = "" if choice.beyond is None else " of those that need no simulator"
    use = (
        f"{cell_words(choice, best.cell)}: {_LARGEST[best.criterion]}{among}, batch {choice.batch}"
    )
    why = "" if helps else f"no gain is shown; best guess {cell_words(choice, best.cell)}"
    fields = (
        Field("use", use if helps else KEEP),
        Field("why", why),
        _value(choice, best),
        Field("not excluded", _alternatives(choice, others) if others else ""),
        Field("avoid", _lowers(choice)),
        Field("decide", _wanted(choice, best) if helps else ""),
    )
    light: Light = "none" if not helps else "choose" if others else "act"
    return Recommendation(light, tuple(each for each in fields if each.text), None, rest)


def _rehearsed(choice: Choice, advice: Advice, profile: Profile) -> tuple[Finding, ...]:
    """What the rehearsed updates do, which one step does not say."""
    told = profile.rehearsal
    if told is None:
        return ()
    made = advice.updates or told.lengths[-1]
    after = {cell: told.after(cell, made) for cell in told.cells}
    did = {
        "lower it": [cell for cell, each in after.items() if each.high < 0],
        "raise it": [cell for cell, each in after.items() if each.low > 0],
    }
    parts = [f"{verb}: {cells_words(choice, cells)}" for verb, cells in did.items() if cells]
    said = "; ".join(parts) or "none is shown to raise or to lower it"
    many = (
        f"{updates(made)}, in {told.draws} draws of batches, {told.judges:,} starts, each by its "
    )
    many += "own 95%"
    return (worded("rehearsed", bool(parts), f"Effect on the return ({many}): {said}."),)


_ROWS = "docs/howto/choose_and_train.md"
_BEGINS = f"no row of `gradlab train` begins with what was measured: use the loop in {_ROWS}"
_FOLLOWS = f"no command is written for this gradient: see the table in {_ROWS}"
_CAREFUL = "1e-5"  # of a policy that is good already: `_ROWS`


def _to_train(
    choice: Choice, cell: Cell, profile: Profile, start: Sequence[str], advice: Advice | None = None
) -> tuple[str, str]:
    """The command that follows a gradient with the settings of its measurement, as rehearsed: every
    update on a batch of its own; or why no row does.

    Args:
        start: the words that name task and networks.
        advice: what is advised of that cell, where it is that of the report.
    """
    name, h = cell
    rows = {
        "first": f"mpg-v2 --horizons {h} --weights 1 --delay 1",
        "all": f"n-step-adp --horizons {h} --beta 0",
    }
    identity, config = choice.identities[name], profile.config
    followed = identity.systems == ("model", "model") and identity.actions in rows and h
    data = identity.data or not (h or WAYS[identity.actions].every)  # the same gradient
    if not start:
        return "", _BEGINS
    if not (followed or data) or trimming(config) or config.get("entropy"):
        return "", _FOLLOWS
    row, options = rows["first" if data else identity.actions].split(" ", 1)
    rehearsed, rate, length = profile.rehearsal, _CAREFUL, ""
    if advice is not None and advice.updates is not None and rehearsed is not None:
        length = f" --value-rate 0 --iterations {advice.updates}"  # until the critic's next fit
        rate = f"{rehearsed.rate:.2g}" if rehearsed.optimizer == "adam" else rate
    ends = f"--termination {config['termination']} " if "termination" in config else ""
    command = (
        f"gradlab train {row} {shlex.join(start)} {options} --reuse 1 --batch {choice.batch} "
        f"{ends}--policy-rate {rate}{length}"
    )
    return command, ""


def _tried(choice: Choice, tried: Tried, rest: tuple[Finding, ...]) -> Recommendation:
    """Without a truth: the step that gained most return."""
    others = tuple(cell for cell in tried.kept if cell != tried.cell)
    helps = choice.steps is not None and tried.cell in choice.steps.raises
    estimate = tried.value, tried.interval.low, tried.interval.high
    where = cell_words(choice, tried.cell)
    fields = (
        Field("use", where if helps else KEEP),
        Field("why", "" if helps else "no step is shown to raise the return"),
        Field("tested", f"{with_sign(*estimate)} return by a step along {where}"),
        Field("not excluded", _alternatives(choice, others) if others else ""),
        Field("avoid", _lowers(choice)),
    )
    light: Light = "choose" if others else "act"
    return Recommendation(light, tuple(each for each in fields if each.text), None, rest)


def _lowers(choice: Choice) -> str:
    """What not to use."""
    if choice.steps is None or not choice.steps.lowers:
        return ""
    return f"{_alternatives(choice, choice.steps.lowers, 'cells')}: lower return"


def _alternatives(choice: Choice, others: tuple[Cell, ...], called: str = "other cells") -> str:
    names = dict.fromkeys(name for name, _ in others)
    if len(names) > _MANY:
        return f"{len(others)} {called} of {len(names)} gradients"
    return cells_words(choice, others)


def _wanted(choice: Choice, best: Best) -> str:
    """What would tell the best one from the others; "" where nothing else may be best."""
    if len(best.kept) == 1:
        return ""
    if choice.carried:
        return "the true gradient rests on few starts"
    if not best.partings:
        return f"{further(None)} decide"
    first = next(iter(_apart(best)), best.partings[0])
    rival = first.member if first.contender == best.cell else first.contender
    return f"{further(first.more)} separate it from {cell_words(choice, rival)}"


def _value(choice: Choice, best: Best) -> Field:
    """What the best one has by its criterion, with interval."""
    ends, samples = (best.interval.low, best.interval.high), f"{choice.samples:,} samples."
    name = {"mse": "mse", "direction": "cosine_batch"}.get(best.criterion, best.criterion)
    quantity = QUANTITIES.get(name)
    how = samples if quantity is None else f"{quantity.formula} ({quantity.source}), {samples}"
    called = CALLED[best.criterion].partition(" (")[0]
    if best.criterion == "gain":
        return Field(called, gain_text(best.number(choice.samples)), how)
    if best.criterion == "mse":
        return Field.ranged(called, (best.value, *ends), how)
    return Field(called, turned(best.value, *ends), how)


def _by_returns(
    profile: Profile, choice: Choice, start: Sequence[str]
) -> tuple[Choice, Recommendation, str, str]:
    """Where a premise of every gain fails: the one gradient whose returns were measured, of those
    that are asked for, compared with no other.

    Raises:
        InputError: there is none.
    """
    read = facts(profile)
    told, advice = recommendation(read), advise(read)
    if (cell := advice.cell) is None or cell[0] not in choice.estimators:
        raise InputError(f"nothing can be chosen: {told.field('why') or told.fix_first}")
    alone = worded("premises", False, "Not compared by gain: only measured returns count.")
    rest = (alone, *_rehearsed(choice, advice, profile), *told.rest)
    first = replace(told, figure=None, rest=rest)
    empty = Choice(
        choice.estimators, choice.excluded, choice.batch, choice.samples, False,
        identities=choice.identities,
    )  # fmt: skip
    follow = _to_train(choice, cell, profile, start, advice)
    return replace(empty, recommendation=str(first)), first, *follow


def choose(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    *,
    by: Criterion | None = None,
) -> Choice:
    """The horizon, the estimator and the weights that a measurement supports, with their intervals.

    `print(choice)` prints the report's first screen.

    Args:
        batch: N′, samples that one update averages; None: as the profile was measured for.
        estimators: names of those that compete. None: those with the model's truth that need
            neither states nor derivatives of the simulator, if there are any
            (`runs.competing`).
        by: the criterion that decides. "gain": what one small step along the mean gradient adds to
            the return, only under its gradient as the truth (the default there); "mse": the mean
            squared error (the default elsewhere); "direction": the expected cosine of one batch.
            All that can be computed are in the choice.

    Raises:
        InputError: a measurement from which nothing can be decided (its reward is constant, say),
            an unknown estimator or criterion, estimators under different truths, gains under a
            truth that is not the gradient of the return, or numbers out of range.
    """
    return chosen(profile, batch, estimators, by)[0]


def chosen(
    profile: Profile,
    batch: int | None = None,
    estimators: Collection[str] | None = None,
    by: Criterion | None = None,
    start: Sequence[str] = (),
) -> tuple[Choice, Recommendation, str, str]:
    """The choice, its recommendation, and the command of `gradlab train` that follows it or why
    there is none; both "" where nothing is recommended. Arguments and errors as of `choose`.

    Args:
        start: the words that name task and networks in a command that trains; () where none does.
    """
    check_profile(profile)
    choice = choice_of(profile, batch, estimators, by)
    if failed_premises(profile.sanity):  # what returns alone say, as on the report's first screen
        return _by_returns(profile, choice, start)
    first = advice_of(choice)
    best, advice = choice.best or choice.mse or choice.direction, None
    cell = None if best is None or first.light == "none" else best.cell
    if by in (None, "gain") and choice.by in (None, "gain"):
        read = facts(profile)
        advice = advise(read)
        # Where no gain is believed returns decide, whichever batch is asked for.
        returns = best is None or read.uncertain
        competes = not estimators or (advice.cell is not None and advice.cell[0] in estimators)
        own = batch in (None, profile.batch) and not estimators
        if not (own or (returns and competes)):
            advice = None
    if advice is not None:
        # What the report says, with the sentences of the choice.
        cell, told = advice.cell, recommendation(read)
        if choice.batch != profile.batch and told.light == "act":  # at which nobody tried it
            text = f"{told.tested}; at batch {profile.batch}"
            fields = (replace(e, text=text) if e.name == "tested" else e for e in told.fields)
            told = replace(told, light="choose", fields=tuple(fields))
        beyond = {
            "beyond",
            *(each.code for each in told.rest),
        }  # than the recommended, not the largest gain
        rest = tuple(each for each in first.rest if each.code not in beyond)
        about = choice, advice, profile
        rest = (*_rehearsed(*about), *told.rest, *rest)
        first = replace(told, figure=None, rest=rest)
    follow = ("", "") if cell is None else _to_train(choice, cell, profile, start, advice)
    return replace(choice, recommendation=str(first)), first, *follow
