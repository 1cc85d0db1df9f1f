"""The fields of training runs: what the return came to, whether anything was learned, what next.

return, change, learned    of one run, median of its seeds
use, return, lead          of several, the best one against the others
goal                       seeds that reached what the field calls solved
next                       the first thing to do about it
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
from gradlab.verdicts.recommendation import Field, Light, Recommendation, Sentence
from gradlab.verdicts.training.sentences import verdict
from gradlab.wording import change, listed, two, with_ends, with_interval

_FIGURE, _BEST = "returns", "returns-best"  # of one run, and of several
_MANY = 100  # seeds that nobody trains
_NAMED = 2  # runs or seeds that are named before they are counted


def screen(runs: Mapping[str, Training]) -> Recommendation:
    """One run: has it learned? Several: which is best?"""
    sentences = [each for name, run in runs.items() for each in verdict(run, name)]
    rest = (*paired_verdict(runs), *sentences)
    if len(runs) > 1:
        return _several(runs, rest)
    ((name, run),) = runs.items()
    return _one(name, run, rest)


def _one(name: str, run: Training, rest: tuple[Sentence, ...]) -> Recommendation:
    result = outcome(run)
    n, k = len(result.seeds), result.improved
    if not len(result.finite):
        lost = Field("learned", f"no: {name} diverged in every seed on {run.task}")
        todo = Field("next", "read its events")
        return Recommendation("none", (lost, todo), _FIGURE, rest)
    light: Light = "none" if not k else "act" if result.chance < 0.05 else "choose"
    p = f"p = {two(result.chance)}"
    learned = f"no: 0 of {n} seeds end above their start"
    if k:
        learned = f"{k} of {n} seed{'s' * (n > 1)} end{'s' * (n == 1)} above the start"
        learned = f"{'yes' if light == 'act' else 'not shown'}: {learned} ({p})"
    fields = (
        _return(run, result),
        Field("change", _change_of(run, result), "From the first evaluation to the last."),
        Field("learned", f"{learned}; {name} on {run.task}"),
        *_goal(run),
        Field("next", _next(run, result, light)),
    )
    return Recommendation(light, fields, _FIGURE, rest)


def _return(run: Training, result: RunOutcome) -> Field:
    n = len(result.seeds)
    starts = run.config["settings"].get("evaluation_starts")
    how = (
        f"Median over the seeds of the return at iteration {result.iterations:,}: the mean over "
        f"{starts} fixed starts (evaluations/return_mean)."
    )
    text = two(result.median)
    if len(result.finite) > 1:
        value, ends = with_ends(result.median, result.finite.min(), result.finite.max())
        text = f"{value}, median of {n} seeds ({ends})"
    return Field("return", f"{text}; {_summed(run)}, iteration {result.iterations:,}", how)


def _change_of(run: Training, result: RunOutcome) -> str:
    """Of the median; of a policy that was measured and made a few updates, with its interval."""
    first = float(np.nanmedian(result.first))
    if not _given(run) or len(result.seeds) > 1:
        return change(first, result.median)
    half = 1.96 * float(run.errors[-1, 0])
    last = with_interval(result.median, result.median - half, result.median + half)
    return f"{two(first)} → {last} on the evaluation starts"


def _given(run: Training) -> bool:
    return "policy" in run.config.get("given_networks", {})


def _next(run: Training, result: RunOutcome, light: Light) -> str:
    """The first thing to do; where a given policy does not rise, that it was measured by another
    return."""
    n, k, first = len(result.seeds), result.improved, float(np.nanmedian(result.first))
    todo = []
    if run.events:
        todo.append(f"read its {len(run.events)} event{'s' * (len(run.events) > 1)}")
    if result.peak > first > result.median:
        todo.append(f"stop near iteration {result.peak_at:,}, where it was {two(result.peak)}")
    if 0 < k < n and result.failed:
        seeds = listed([f"seed {s}" for s in result.failed], _NAMED)
        todo.append(f"look at {seeds}, no better than before")
    if light == "choose" and k == n and result.missing:
        todo.append(f"run {result.missing} more seed{'s' * (result.missing > 1)}")
    if not k and not todo:
        done, asked = result.iterations, run.config["settings"].get("iterations")
        todo.append("measure the gradient of this policy: `gradlab measure --policy`")
        if _given(run):
            todo = ["measure again: evaluations are undiscounted, a measurement promises the other"]
        elif asked and done < asked / 2:
            todo = [f"train longer: {done:,} of {asked:,} iterations are done"]
    return "; ".join(todo[:_NAMED]) or "use it"


def _summed(run: Training) -> str:
    """Which return an evaluation is: that of a measurement is discounted, and of other steps."""
    steps = run.config["settings"].get("episode")
    return f"undiscounted, {steps:,} steps" if steps else "undiscounted"


def _goal(run: Training) -> list[Field]:
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
    text = f"{counts[goal]} of {len(run.seeds)} seeds reach {goal:g}{at}"
    how = "Seeds whose return came to be at least the goal; iteration: the median of their first."
    return [Field("goal", text, how)]


def _several(runs: Mapping[str, Training], rest: tuple[Sentence, ...]) -> Recommendation:
    order, others = ranked(runs), against_best(runs)
    best, found = order[0], outcome(runs[order[0]])
    task = runs[best].task
    if not len(found.finite):
        lost = Field("use", f"none: every run on {task} diverged")
        return Recommendation("none", (lost, Field("next", "read their events")), _BEST, rest)
    failed = {name: len(outcome(run).failed) for name, run in runs.items()}
    whose = listed([f"{n} of {name}" for name, n in failed.items() if n], _NAMED)
    lengths = len({outcome(run).iterations for run in runs.values()}) > 1
    notes = ["lengths of runs differ"] * lengths
    notes += [f"seeds that end no better than before training: {whose}"] if whose else []
    if found.improved:
        light, lead, todo = _lead(others)
        use = f"{best} on {task}, the highest median"
    else:
        light, lead, todo = "none", "", "train longer, or measure the gradient of one policy"
        use = f"none on {task}: no seed of {best}, the highest median, ends above its start"
    how = "Median over the seeds of the return at the last evaluation (evaluations/return_mean)."
    medians = "; ".join(f"{name} {two(outcome(runs[name]).median)}" for name in order[:3])
    fields = (
        Field("use", use),
        Field("lead", lead),
        Field("return", f"{medians}; {_summed(runs[best])}", how),
        *_gap(others, order),
        Field("next", "; ".join(filter(None, (todo, *notes)))),
    )
    return Recommendation(light, tuple(each for each in fields if each.text), _BEST, rest)


def _lead(others: Sequence[AgainstBest]) -> tuple[Light, str, str]:
    """The light, which others are shown to be worse, and what would separate the rest."""
    out = [each.name for each in others if each.excluded]
    kept = [each for each in others if not each.excluded]
    if not kept:
        every = listed(out, _NAMED) if len(out) <= _NAMED else "every other run"
        return "act", f"better than {every}: no 95% interval of a difference holds 0", ""
    alike = listed([each.name for each in kept], _NAMED)
    lead = f"better than {listed(out, _NAMED)}; " if out else ""
    more = max(each.more or _MANY for each in kept)
    todo = "seeds differ more than runs" if more >= _MANY else f"run about {more} more seeds"
    return "choose", f"{lead}these seeds do not separate it from {alike}", todo


def _gap(others: Sequence[AgainstBest], order: Sequence[str]) -> list[Field]:
    """The difference to the next one, where it is more than noise."""
    second = next((each for each in others if each.name == order[1]), None)
    if second is None or second.gap is None or not second.excluded:
        return []
    gap = second.gap
    how = (
        f"Mean over {gap.n} seeds of both of {order[0]}'s final return less {order[1]}'s; "
        f"leave-one-seed-out interval, widened for {len(others)} other runs."
    )
    return [Field.ranged("difference", gap.negative.estimate, how)]


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
