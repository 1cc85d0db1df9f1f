"""The first screen of training runs: what to do, then what has learned or is best, how surely.

    events    read them        a seed that ends below its start    look at it
    a peak    stop there       too few seeds                       run more

The state of the runs stands second, and what has no room is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradlab.runs.training.pairs import (
    OWN,
    WHOLE,
    AgainstBest,
    Pair,
    RunOutcome,
    against_best,
    outcome,
    pairs,
    ranked,
)
from gradlab.runs.training.results import GOALS, Training, first_reached
from gradlab.verdicts.screen import NUMBERS, WORDS, Fact, Light, Screen, Sentence, counted
from gradlab.verdicts.training.sentences import verdict
from gradlab.wording import change, duration, listed, two, with_ends, with_interval

_FIGURE, _BEST = "returns", "returns-best"  # of one run, and of several
_MANY = 100  # seeds that nobody trains
_NAMED = 2  # runs or seeds that a headline names before it counts


def screen(runs: Mapping[str, Training]) -> Screen:
    """One run: has it learned? Several: which is best?"""
    sentences = [each for name, run in runs.items() for each in verdict(run, name)]
    rest = (*paired_verdict(runs), *sentences)
    if len(runs) > 1:
        return _several(runs, rest)
    ((name, run),) = runs.items()
    return _one(name, run, rest)


def _one(name: str, run: Training, rest: tuple[Sentence, ...]) -> Screen:
    result = outcome(run)
    n, k = len(result.seeds), result.improved
    if not len(result.finite):
        text = f"Read its events first: {name} diverged in every seed on {run.task}."
        return Screen(text, "none", f"all of {n}", _numbers(run, result), _FIGURE, rest)
    first = float(np.nanmedian(result.first))
    returns = f"return {change(first, result.median)}"
    median = f"{returns}, the median of {n} seeds" if n > 1 else returns
    light, sure = _sure(result)
    given = "policy" in run.config.get("given_networks", {})
    if given and n == 1:  # a few updates of a policy that was measured
        half = 1.96 * float(run.errors[-1, 0])
        last = with_interval(result.median, result.median - half, result.median + half)
        median = returns = f"return {two(first)} → {last} on the evaluation starts"
    if light == "choose" and given:
        sure += "; by the undiscounted return, where a measurement promises the discounted one"
    rises = "learns" if light == "act" else "ends higher on"  # by chance, perhaps
    if k == 0:
        state = f"{name} has not learned {run.task}, {median}"
    elif k < n:
        state = f"{name} {rises} {run.task} in {k} of {n} seeds, median {returns}"
    else:
        median += ", and every seed improves" * (n > 1)
        state = f"{name} {rises} {run.task}, {median}"
    # What to do with its reason, "" where the state of the run is the reason.
    todo: list[tuple[str, str]] = []
    if run.events:
        todo.append((f"Read its {len(run.events)} event{'s' * (len(run.events) > 1)} first", ""))
    if result.peak > first > result.median:
        reason = f"the median return was {two(result.peak)} there"
        todo.append((f"Stop earlier, near iteration {result.peak_at:,}", reason))
    if 0 < k < n and result.failed:
        one, seeds = len(result.failed) == 1, listed([str(s) for s in result.failed], _NAMED)
        reason = f"{'it ends' if one else 'they end'} no better than before training"
        todo.append((f"Look at seed{'s' * (not one)} {seeds} first", reason))
    if light == "choose" and k == n and result.missing:
        more = f"{result.missing} more seed{'s' * (result.missing > 1)}"
        todo.append((f"Run {more}", f"with {n} the rise is not shown"))
    if not todo and k:
        todo, state = [(f"Use {name} on {run.task}", "")], median
    if not todo and given:
        reason = "the undiscounted return does not rise, a measurement promises the discounted one"
        todo, state = [("Measure this policy again before use", reason)], f"{name}: {median}"
    (lead, why), *others = todo or [("Do not use this policy", "")]
    text = f"{lead}: {why}. {state}." if why else f"{lead}: {state}."
    if given and lead.startswith("Run"):  # the change is what was asked for, more seeds are not
        text = f"{state[0].upper()}{state[1:]}. {lead}: {why}."
    for what, why in others:  # as long as there is room
        longer = f"{text} {what}{f': {why}' if why else ''}."
        words, numbers = counted(f"{longer} {sure}")
        text = longer if words <= WORDS and numbers <= NUMBERS else text
    return Screen(text, light, sure, _numbers(run, result), _FIGURE, rest)


def _sure(result: RunOutcome) -> tuple[Light, str]:
    """By the chance that as many seeds rise for nothing."""
    n, k = len(result.seeds), result.improved
    if k == 0:
        return "none", f"no seed of {n} improves" if n > 1 else "the seed does not improve"
    if result.chance < 0.05:
        return "act", f"shown (p = {two(result.chance)})"
    return "choose", f"not shown (p = {two(result.chance)})"


def _numbers(run: Training, result: RunOutcome) -> tuple[Fact, ...]:
    settings = run.config["settings"]
    n = len(result.seeds)
    how = (
        f"Median over the seeds of the return at iteration {result.iterations:,}: the mean over "
        f"{settings.get('evaluation_starts')} fixed starts of {settings.get('episode')} steps "
        f"(evaluations/return_mean)."
    )
    label = f"final return ({_summed(run)}), {n} seed{'s' * (n > 1)}"
    last = Fact(label, two(result.median), how)
    if len(result.finite) > 1:
        last = Fact.ranged(label, (result.median, result.finite.min(), result.finite.max()), how)
    took = float(run.seconds[-1])
    when = Fact(
        f"for {result.iterations:,} iterations, all seeds", duration(took),
        "Wall time at the last evaluation (evaluations/seconds).",
    )  # fmt: skip
    return (last, *_goal(run), when)


def _summed(run: Training) -> str:
    """Which return an evaluation is: that of a measurement is discounted, and of other steps."""
    steps = run.config["settings"].get("episode")
    return f"undiscounted, {steps:,} steps" if steps else "undiscounted"


def _goal(run: Training) -> list[Fact]:
    """The highest goal that half of the seeds reached by training, else the lowest; of those that
    were not reached before it."""
    goals = [goal for goal in GOALS.get(run.task, ()) if (run.returns[0] < goal).any()]
    if not goals:
        return []
    counts = {goal: int((first_reached(run, goal) > run.iteration[0]).sum()) for goal in goals}
    half = len(run.seeds) / 2
    goal = next((each for each in reversed(goals) if counts[each] >= half), goals[0])
    reached = first_reached(run, goal)
    trained = reached[reached > run.iteration[0]]
    at = f" by iteration {np.median(trained):,.0f}" if len(trained) else ""
    text = f"{counts[goal]} of {len(run.seeds)}"
    how = "Seeds whose return came to be at least the goal; iteration: the median of their first."
    return [Fact(f"seeds reach the goal {goal:g}{at}", text, how)]


def _several(runs: Mapping[str, Training], rest: tuple[Sentence, ...]) -> Screen:
    order, others = ranked(runs), against_best(runs)
    best, found = order[0], outcome(runs[order[0]])
    task = runs[best].task
    if not len(found.finite):
        return Screen(
            f"Read their events first: every run on {task} diverged.", "none",
            f"all of {len(runs)}", (), _BEST, rest,
        )  # fmt: skip
    light: Light = "none"
    if found.improved:
        text, light, sure = _best(best, runs, others)
        failed = {name: outcome(run).failed for name, run in runs.items()}
        count = sum(len(each) for each in failed.values())
        if count:
            whose = listed([name for name, each in failed.items() if each], _NAMED)
            seeds = f"1 seed of {whose} ends" if count == 1 else f"{count} seeds of {whose} end"
            text += f" {seeds} no better than before training."
    else:
        sure = "no seed of the best run improves"
        text = (
            f"Use none on {task}: {best} has the highest median, final return "
            f"{two(found.median)}, but no seed of it ends above its start."
        )
    if len({outcome(run).iterations for run in runs.values()}) > 1:
        sure += "; lengths of runs differ"
    return Screen(text, light, sure, _other_numbers(runs, order), _BEST, rest)


def _best(
    best: str, runs: Mapping[str, Training], others: Sequence[AgainstBest]
) -> tuple[str, Light, str]:
    """Which run to take, the light, and how sure that is."""
    median = two(outcome(runs[best]).median)
    lead = f"Use {best} on {runs[best].task}: final return {median}, the highest median"
    out = [each.name for each in others if each.excluded]
    kept = [each for each in others if not each.excluded]
    if not kept:
        every = listed(out, _NAMED) if len(out) <= _NAMED else "every other run"
        return f"{lead}. Better than {every}.", "act", "no 95% interval of a difference holds 0"
    better = f" Better than {listed(out, _NAMED)}." if out else ""
    alike = listed([each.name for each in kept], _NAMED)
    text = f"{lead}.{better} These seeds do not separate it from {alike}."
    more = max(each.more or _MANY for each in kept)
    if more >= _MANY:
        return text, "choose", "seeds differ more than runs"
    return text, "choose", f"about {more} more seeds would decide"


def _other_numbers(runs: Mapping[str, Training], order: Sequence[str]) -> tuple[Fact, ...]:
    """The medians of the best and the next, and their difference where it is more than noise."""
    how = "Median over the seeds of the return at the last evaluation (evaluations/return_mean)."
    facts = [
        Fact(
            f"median final return ({_summed(runs[name])}), {name}",
            two(outcome(runs[name]).median),
            how,
        )
        for name in order[:2]
    ]
    second = next((each for each in against_best(runs) if each.name == order[1]), None)
    if second is None or second.gap is None or not second.excluded:
        return tuple(facts)
    gap = second.gap
    paired = (
        f"Mean over {gap.n} seeds of both of {order[0]}'s final return less {order[1]}'s; "
        f"leave-one-seed-out interval, widened for {len(runs) - 1} other runs."
    )
    return (*facts, Fact.ranged("difference of mean final returns", gap.negative.estimate, paired))


def paired_verdict(runs: Mapping[str, Training]) -> list[Sentence]:
    """Every run against the first: return and gradient error, and what both say together."""
    base, *others = runs
    sentences = (_sentence(name, runs[name], base, runs[base]) for name in others)
    return [each for each in sentences if each is not None]


def _sentence(name: str, run: Training, base: str, first: Training) -> Sentence | None:
    paired = {pair.quantity: pair for pair in pairs(first, run)}
    final, whole = (paired.get(q) for q in ("final return", "mean return over the run"))
    if final is None or whole is None:
        return None
    whole_error, own_error = paired.get(WHOLE), paired.get(OWN)
    named = {
        "final return": final, "return averaged over the run": whole,
        "relative gradient MSE": whole_error, "the model's own part of it": own_error,
    }  # fmt: skip
    parts = [f"{what} {_change(pair)}" for what, pair in named.items() if pair is not None]
    shared = len(np.intersect1d(first.seeds, run.seeds))
    lost = f" of {shared}, the others diverged" if final.seeds < shared else ""
    says = f"{name} against {base}, paired over {final.seeds} seeds{lost}: {', '.join(parts)}"
    judged = {"the return": final.side}
    judged |= {"the gradient": -whole_error.side} if whole_error else {}
    judged |= {"the model's part": -own_error.side} if own_error else {}
    moved = {1: "better", -1: "worse", 0: "not shown to change"}
    clauses = ", ".join(f"{what} is {moved[side]}" for what, side in judged.items())
    text = f"{says}: {clauses}."
    if first.config.get("given_networks", {}) != run.config.get("given_networks", {}):
        text += " The runs begin with different networks: the difference holds that, too."
    return Sentence("remedy", any(judged.values()), text)


def _change(pair: Pair) -> str:
    value, ends = with_ends(pair.change, pair.low, pair.high)
    if pair.ratio:
        return f"{value}× [{ends}] ({pair.measurements:.0f} measurements a seed)"
    return f"{'+' if pair.change > 0 else ''}{value} [{ends}]"
