"""A choice: its recommendation, and a finding for what each criterion, step and mixture says.

Where gains or steps decide and nobody asked for other candidates, batches or criteria, the choice
says what the report of the measurement says (`verdicts.measurement.recommendation`).
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite

from gradlab.choice.choosing import choice_of
from gradlab.choice.values import Best, Choice, Criterion
from gradlab.errors import InputError
from gradlab.findings import Decision, Finding
from gradlab.gradients.ways import WAYS
from gradlab.runs.decision_rules import COSINE
from gradlab.runs.identity import Cell
from gradlab.runs.profile import Profile, check_profile
from gradlab.runs.stages import trimmed_share
from gradlab.statistics.comparison import Number
from gradlab.statistics.quantities import QUANTITIES
from gradlab.verdicts.advice import Advice, advise
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import KEEP, recommendation
from gradlab.verdicts.phrases import SAME, further, gain_text, held, more_of, row, with_sign
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import AT_STARTS, at_horizon, horizons, label, turned, updates

# Criterion → what a field calls it, its column, its best value, the code of its finding.
_CRITERIA: Mapping[str, tuple[str, str, str, str]] = {
    "gain": ("gain", "gain", "largest gain", "largest_gain"),
    "mse": ("mean squared error", "mse", "lowest mean squared error", "least_error"),
    "direction": ("direction", "cosine_batch", "best direction", "best_direction"),
    "return": ("tested", "", "", "largest_return"),
}
_THEORY = ("theory", "theory_outside", "theory_none")
_SHOWN = 0.005  # weights from which on they are a percent
_MANY = 4  # gradients in a row that a field names before it counts


def statements(choice: Choice) -> tuple[Finding, ...]:
    """Horizon, direction, weights, and what steps do."""
    return tuple(_statements(choice))


def _statements(choice: Choice) -> Iterator[Finding]:
    n, how = choice.samples, "realised" if choice.tried else "to first order"
    every = (choice.tried, choice.gain, choice.mse, choice.direction)
    for best in sorted(filter(None, every), key=lambda each: each is not choice.best):
        yield _best(choice, best)
    for beyond, gain in choice.beyond.items():  # does not compete, and is better
        yield row("gain_beyond", "pass", gain, cells_words(choice, [beyond]))
    for code, cells in (("step_falls", choice.lowers), ("step_raises", choice.raises)):
        if cells:
            yield Finding(code, "pass", cells_words(choice, cells), n=n, at=how)
    if (decides := choice.best or choice.mse) is not None:
        yield from _weights(choice, decides)
    yield from _agreement(choice)


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
    """What is best by one criterion; no further starts are known where few carry the truth."""
    decision: Decision = "pass" if best.kept == (best.cell,) else "undecided"
    where = cells_words(choice, [best.cell]), cells_words(choice, best.kept)
    found = row(_CRITERIA[best.criterion][3], decision, best.number, *where)
    more = 0 if best is choice.tried else -1 if choice.carried else more_of(best.more)
    return replace(found, more=more)


def _weights(choice: Choice, best: Best) -> Iterator[Finding]:
    """Weights by what decides, and what they add to the best single gradient and to the rule."""
    n, mixed, weights = choice.samples, best.mixed, best.weights
    if weights is not None and weights.share.any():
        ends = (weights.share, weights.low, weights.high)
        for cell, share, low, high in zip(mixed, *(each.tolist() for each in ends), strict=True):
            if share >= _SHOWN:
                number = Number(share, low, high, n)
                yield row("mixture", "pass", number, cells_words(choice, [cell]))
    elif weights is not None:
        yield Finding("no_mixture", "pass", cells_words(choice, mixed), n=n)
    if best.held_out is not None and best.criterion == "mse":
        yield held("mixture_error", best.held_out, 1.0, "below", unit="×")
    elif best.held_out is not None:
        yield held("mixture_cosine", best.held_out, 0.0, "above")
    if choice.against is not None:
        shown = choice.against.high < 1 / SAME or choice.against.low > SAME
        decision: Decision = "pass" if shown else "undecided"
        yield row("mixture_against_rule", decision, choice.against, "", choice.rule, "×")


def _agreement(choice: Choice) -> Iterator[Finding]:
    """Only without a truth: who points where the others do."""
    lost = 0
    for (first, _), (second, h), cosine in choice.agreement:
        if not isfinite(cosine.value) or (cosine.low <= -1 and cosine.high >= 1):
            lost += 1
            continue
        who = " and ".join(label(each, choice.identities) for each in (first, second))
        yield held("agreement", cosine, COSINE, "above", who, f"h = {h}")
    if lost:
        yield Finding("no_agreement", "undecided", value=lost, n=choice.samples)


def advice_of(choice: Choice) -> Recommendation:
    """Use what is best by the criterion that decides, or, without a truth, what gained most return;
    every finding below."""
    best, rest, n = choice.leading, statements(choice), choice.samples
    if best is None:
        nothing = Field("why", "this file holds no known error of any gradient")
        return Recommendation("none", (Field("use", KEEP), nothing), None, rest)
    called, column, largest, _ = _CRITERIA[best.criterion]
    cell, kept, helps = best.cell, best.kept, choice.by != "gain" or best.number.low > 0
    use, why = f": {largest}, batch {choice.batch}", "no gain is shown; best guess "
    how = f"{QUANTITIES[column].formula}; {n:,} starts" if column else ""
    if best is choice.tried:
        helps = cell in choice.raises
        use, why = "", "no step raises the return: "
    light: Light = "none" if not helps else "choose" if len(kept) > 1 else "act"
    value = Field(called, _value(choice, best), how)
    where, lowered = cells_words(choice, [cell]), choice.lowers
    fields = (
        Field("use", where + use if helps else KEEP),
        Field("why", "" if helps else why + where),
        value,
        Field("not excluded", _several(choice, [each for each in kept if each != cell])),
        Field("avoid", f"{_several(choice, lowered)}: lower return" if lowered else ""),
        Field("decide", _wanted(choice, best) if column and helps else ""),
    )
    return Recommendation(light, tuple(each for each in fields if each.text), None, rest)


def _several(choice: Choice, cells: Sequence[Cell]) -> str:
    names = {name for name, _ in cells}
    if len(names) > _MANY:
        return f"{len(cells)} cells of {len(names)} gradients"
    return cells_words(choice, cells)


def _value(choice: Choice, best: Best) -> str:
    """What the best one has by its criterion, with interval."""
    number = best.number
    if best is choice.tried:
        along = cells_words(choice, [best.cell])
        return f"{with_sign(*number.estimate)} return by a step along {along}"
    if best.criterion == "gain":
        return gain_text(number)
    if best.criterion == "mse":
        return Field.ranged("", number.estimate, "").text
    return turned(*number.estimate)


def _wanted(choice: Choice, best: Best) -> str:
    """What would tell the best one from the others; "" where they are alike, or none are."""
    if len(best.kept) == 1 or best.more == 0:
        return ""
    return (
        "the true gradient rests on few starts"
        if choice.carried
        else f"{further(best.more)} exclude one"
    )


def _rehearsed(choice: Choice, advice: Advice, profile: Profile) -> Iterator[Finding]:
    """What the rehearsed updates do, which one step does not say, each by its own 95%."""
    told = profile.rehearsal
    if told is None:
        return
    made = advice.updates or told.lengths[-1]
    after = {cell: told.after(cell, made) for cell in told.cells}
    did = {
        "updates_lower": [cell for cell, each in after.items() if each.high < 0],
        "updates_raise": [cell for cell, each in after.items() if each.low > 0],
    }
    for code, cells in did.items():
        if cells:
            yield Finding(code, "pass", cells_words(choice, cells), n=told.judges, at=updates(made))


_ROWS = "docs/training.md"
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
    data = identity.data or not (h or WAYS[identity.actions].all_actions)  # the same gradient
    if not start:
        return "", _BEGINS
    if not (followed or data) or trimmed_share(config) or config.get("entropy"):
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
            (`runs.identity`).
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
    choice, read = choice_of(profile, batch, estimators, by), facts(profile)
    first, advice = advice_of(choice), advise(read)
    theory = tuple(each for each in profile.sanity or () if each.code in _THEORY)
    first = replace(first, rest=(*first.rest, *theory))
    best, cell, void = choice.best or choice.mse or choice.direction, advice.cell, bool(read.void)
    competes = not estimators or (cell is not None and cell[0] in estimators)
    own = batch in (None, profile.batch) and not estimators
    # Where no gain is believed returns decide, whichever batch is asked for.
    returns = best is None or read.uncertain
    by_gain = by in (None, "gain") and choice.by in (None, "gain")
    if not void and not (by_gain and (own or (returns and competes))):
        cell = None if best is None or first.light == "none" else best.cell
        follow = ("", "") if cell is None else _to_train(choice, cell, profile, start)
        return replace(choice, recommendation=str(first)), first, *follow
    # What the report says, with the findings of the choice.
    told, rest = recommendation(read), first.rest
    if void:
        # The one gradient whose returns were measured, compared with no other.
        if cell is None or cell[0] not in choice.estimators:
            raise InputError(f"nothing can be chosen: {told.field('why') or told.fix_first}")
        choice = Choice(
            choice.estimators, choice.excluded, choice.batch, choice.samples, False,
            identities=choice.identities,
        )  # fmt: skip
        rest = (Finding("returns_only", "undecided"),)
    if choice.batch != profile.batch and told.light == "act":  # at which nobody tried it
        text = f"{told.tested}; at batch {profile.batch}"
        fields = (replace(e, text=text) if e.name == "tested" else e for e in told.fields)
        told = replace(told, light="choose", fields=tuple(fields))
    # What gains more than the recommended one, not than that of largest gain.
    rest = tuple(each for each in rest if each.code != "gain_beyond")
    rest = (*_rehearsed(choice, advice, profile), *told.rest, *rest)
    first = replace(told, figure=None, rest=rest)
    follow = ("", "") if cell is None else _to_train(choice, cell, profile, start, advice)
    return replace(choice, recommendation=str(first)), first, *follow
