"""What training runs found, and the fields of their recommendation.

return, change, learned    of one run, median of its seeds
use, return, lead          of several, the best one against the others
goal                       seeds that reached what the field calls solved
next                       the first thing to do about it

Everything here is read without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import exp, isnan, nan

import numpy as np

from gradlab.findings import Decision, Finding
from gradlab.runs.decision_rules import COSINE, EXCESS, in_ranges
from gradlab.runs.training import measured_weights as weights
from gradlab.runs.training import pairs
from gradlab.runs.training.results import GOALS, Floats, Training, first_reached, lags
from gradlab.statistics.comparison import decide
from gradlab.statistics.over_groups import aggregate
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import change, listed, two, with_ends, with_interval

_Ends = tuple[float, float, float]  # a value and its interval
_EXPLAINED = 0.5  # of an output's held-out variance, below which a model does not predict it
_PARTS = {
    "bias2_states": "the model's states",
    "bias2_jacobians": "the model's Jacobians",
    "bias2_tail": "the tail (its critic, or the cut)",
}
_PAIRED = {"final return": "returns", pairs.WHOLE: "gradients", pairs.OWN: "models"}


def verdict(run: Training, name: str = "") -> list[Finding]:
    """Final return, goal, the gradient's error and the model's, and what went wrong.

    Args:
        name: what to call the run; default: its algorithm.
    """
    name = name or run.name
    found = [*_returns(run, name), *measured(run, name), *_gradient(run, name), *_model(run, name)]
    if told := lags(run):
        mean, largest, n = told
        found.append(Finding("training lag", "pass", name, mean, high=largest, n=n))
    events = (f"{name}: {text}" for text in run.events)
    return found + [Finding("training event", "fail", name, text=text) for text in events]


def _returns(run: Training, name: str) -> Iterator[Finding]:
    subject, at, n = f"{name} on {run.task}", f"iteration {run.iteration[-1]:,}", len(run.seeds)
    if n > 1:
        yield Finding("training return", "pass", subject, *_middle(run.returns[-1]), n=n, at=at)
    else:
        starts = run.config["settings"]["evaluation_starts"]
        code, ends = "training return of one seed", _alone(run)
        yield Finding(code, "pass", subject, *ends, n=starts, at=at)
    if goal := _goal(run):
        level, count, _ = goal
        half: Decision = "pass" if count >= n / 2 else "fail"
        yield Finding("training goal", half, name, count, n=n, at=f"{level:g}")


def _alone(run: Training) -> _Ends:
    """The last return of the first seed, with 95% over its starts."""
    value, half = float(run.returns[-1, 0]), 1.96 * float(run.errors[-1, 0])
    return value, value - half, value + half


def _middle(values: Floats) -> _Ends:
    """Median over seeds with the order statistics around it."""
    ends = aggregate(values)
    return float(ends.value), float(ends.low), float(ends.high)


def _judged(low: float, high: float, limit: float) -> Decision:
    return "pass" if low >= limit else "fail" if high < limit else "undecided"


def _newest(run: Training, column: str) -> Floats:
    """Values of every seed and horizon, and their ends, [3, E, horizon]."""
    return np.array([run.gradients[f"{column}{end}"][-1] for end in ("", "_low", "_high")])


def _over_seeds(run: Training, column: str) -> _Ends:
    """At the longest horizon, of the seeds that have a value; of one, its own interval."""
    every = _newest(run, column)[..., -1]
    every = every[:, np.isfinite(every[0])]
    if every.shape[1] > 1:
        return _middle(every[0])
    value, low, high = every[:, 0].tolist() if every.size else (nan, nan, nan)
    return value, low, high


def _gradient(run: Training, name: str) -> Iterator[Finding]:
    """Of the longest horizon, when it was last measured."""
    found, law = run.gradients, run.config.get("gradient_law", "")
    if not found:
        return
    at = f"h = {int(found['horizon'][-1])}, iteration {int(found['iteration'][-1]):,}"
    error, direction = _over_seeds(run, "relative_mse"), _over_seeds(run, "cosine")
    if isnan(error[0]):
        at = ": ".join([at, *(str(why) for why in found.get("truth_reason", ())[-1:] if why)])
        yield Finding("training gradient unknown", "undecided", name, at=at)
        return
    at = f"{at}, {law or 'starts of the task'}"
    n = int(np.nanmax(found["starts"][-1])) if law else run.config["settings"]["gradient_starts"]
    small: Decision = "pass" if error[0] < 1 else "undecided"
    yield Finding("training gradient", small, name, *error, threshold=1.0, n=n, at=at)
    if not isnan(direction[0]):  # an estimate may lie beyond ±1, the cosine itself may not
        value, low, high = np.clip(direction, -1, 1).tolist()
        usable = _judged(low, high, COSINE)
        yield Finding("training cosine", usable, name, value, low, high, COSINE, n=n, at=at)
    bias, mse = (_over_seeds(run, each)[0] for each in ("bias2", "mse"))
    yield Finding("training bias", "pass", name, max(bias, 0.0) / mse, n=n)
    whole, low_end, _ = _newest(run, "bias2")[..., -1]
    if law and (shown := low_end > 0).any():
        parts = {what: _newest(run, each)[0, shown, -1] for each, what in _PARTS.items()}
        ends, part = max((_middle(each / whole[shown]), what) for what, each in parts.items())
        yield Finding("training bias source", "pass", name, *ends, n=int(shown.sum()), at=part)
    if law:
        yield from _usable(run, name)


def _usable(run: Training, name: str) -> Iterator[Finding]:
    """By the seed that has the median cosine at the row's own horizon."""
    horizons, cosine = run.gradients["horizon"].tolist(), _newest(run, "cosine")
    finite = np.flatnonzero(np.isfinite(cosine[0, :, -1]))
    if not len(finite) or horizons[-1] < 1:
        return
    seed = finite[np.argsort(cosine[0, finite, -1])[len(finite) // 2]]
    error, low, high = _newest(run, "relative_mse")[:, seed]
    if not np.isfinite(error).any():
        return
    surely = (cosine[1, seed] >= COSINE) & (error <= EXCESS * np.nanmin(error))
    perhaps = (cosine[2, seed] >= COSINE) & (low <= EXCESS * np.nanmin(high))
    found = in_ranges(horizons, surely.tolist(), perhaps.tolist())
    decision: Decision = "pass" if found.usable else "undecided" if found.undecided else "fail"
    code = {"pass": "usable", "undecided": "open"}.get(decision, "no")
    over = found.usable or found.undecided or ((found.measured[0], found.measured[-1]),)
    at = ", ".join(f"{first}–{last}" for first, last in over)
    yield Finding(f"training {code} range", decision, name, threshold=COSINE, at=at)


def _model(run: Training, name: str) -> Iterator[Finding]:
    """Of held-out rows, the output that the last fit explains least."""
    for role, loss in run.config["model_losses"].items() if run.model else ():
        explained, n = run.model[f"{role}_explained"][-1], int(run.model["rows"][-1])
        worst = int(np.argmin(np.nan_to_num(np.median(explained, axis=0), nan=np.inf)))
        states = run.config["state_names"] or [f"state {k}" for k in range(1, explained.shape[1])]
        ends, at = _middle(explained[:, worst]), [*states, "reward"][worst]
        code = "training model by likelihood" if loss == "nll" else "training model"
        good: Decision = "pass" if ends[0] >= _EXPLAINED else "fail"
        subject = f"{name}'s model" if role == "prediction" else f"{name}'s gradient model"
        yield Finding(code, good, subject, *ends, _EXPLAINED, n=n, at=at)


def measured(run: Training, name: str) -> Iterator[Finding]:
    """Measured weights beside the rule's, and whether they are better."""
    if not (found := run.weights):
        return
    gain, last = weights.by_gain(run), int(found["iteration"][-1])
    for k, h in list(enumerate(run.horizons))[1:]:  # the first has the rest of the weight
        of, at = _middle(found["in_force"][-1, :, k]), f"h = {h}, iteration {last:,}"
        rule, n = float(found["rule"][-1, k]), len(run.seeds)
        yield Finding("training weight", "pass", name, *of, rule, n=n, at=at)
    over = weights.gains_over_rule(run) if gain else weights.logs_over_rule(run)
    each = np.array([part.mean() for part in over if len(part)])
    if not (n := len(each)):
        yield Finding("training weights unknown", "undecided", name)
        return
    low, high = weights.interval_of_mean(each) if n >= weights.FEWEST else (nan, nan)
    ends = float(each.mean()), low, high
    if gain:
        yield Finding("training weights by gain", _judged(low, high, 0.0), name, *ends, 0.0, n=n)
    else:  # a lower error is better
        better, ends = _judged(-high, -low, 0.0), (exp(ends[0]), exp(low), exp(high))
        yield Finding("training weights by error", better, name, *ends, 1.0, n=n)


def paired_verdict(runs: Mapping[str, Training]) -> list[Finding]:
    """Every run against the first: final return, gradient error and the model's part of it."""
    base, *others = runs
    of = {name: pairs.pairs(runs[base], runs[name]) for name in others}
    return [
        Finding(
            f"training pair of {_PAIRED[pair.quantity]}", "pass" if pair.side else "undecided",
            name, pair.change, pair.low, pair.high, float(pair.ratio), n=pair.seeds, at=base,
        )
        for name, found in of.items() for pair in found if pair.quantity in _PAIRED
    ]  # fmt: skip


_MANY = 100  # seeds that nobody trains
_NAMED = 2  # runs or seeds that are named before they are counted
_READ = "read the events among the findings"
_HOW = {
    "return": "Median over the seeds of the mean over the evaluation starts (return_mean).",
    "change": "From the first evaluation to the last.",
    "goal": "Seeds that reached it in training, and the median of their iterations.",
    "difference": "Leaves a seed out in turn; widened for all other runs.",
}


def screen(runs: Mapping[str, Training]) -> Recommendation:
    """One run: has it learned? Several: which is best?"""
    rest = [*paired_verdict(runs), *(x for name, run in runs.items() for x in verdict(run, name))]
    several = len(runs) > 1
    light, said = _several(runs) if several else _one(*next(iter(runs.items())))
    word = "Undecided" if light == "choose" else ""  # nobody has anything to choose
    fields = tuple(Field(name, text, _HOW.get(name, "")) for name, text in said.items() if text)
    return Recommendation(light, fields, "returns", tuple(rest), word=word)


def _one(name: str, run: Training) -> tuple[Light, dict[str, str]]:
    result = pairs.outcome(run)
    n, k = len(result.seeds), result.improved
    on = f"{name} on {run.task}"
    if not len(result.finite):
        return "none", {"learned": f"no: every seed diverged; {on}", "next": _READ}
    light: Light = "none" if not k else "act" if result.chance < 0.05 else "choose"
    first = float(np.nanmedian(result.first))
    value, changed = two(result.median), change(first, result.median)
    if n > 1:
        middle, ends = with_ends(result.median, result.finite.min(), result.finite.max())
        value = f"{middle}, median of {n} seeds ({ends})"
    elif _given(run):  # a few updates of a policy that was measured
        changed = f"{two(first)} → {with_interval(*_alone(run))}"
    learned = {"none": "no", "act": "yes", "choose": "not shown"}[light]
    learned += f": {k} of {n} seeds end above the start (p = {two(result.chance)})"
    level, count, when = _goal(run) or (nan, 0, "")
    return light, {
        "return": f"{value}; {_summed(run)}, iteration {result.iterations:,}",
        "change": changed,
        "learned": f"{learned}; {on}",
        "goal": f"{count} of {n} seeds reach {level:g}{when}" if level == level else "",
        "next": _next(run, result, light),
    }


def _given(run: Training) -> bool:
    return "policy" in run.config.get("given_networks", {})


def _next(run: Training, result: pairs.RunOutcome, light: Light) -> str:
    """The first things to do."""
    n, k, first = len(result.seeds), result.improved, float(np.nanmedian(result.first))
    failed = listed([f"seed {each}" for each in result.failed], _NAMED)
    done, asked = result.iterations, run.config["settings"].get("iterations") or 0
    few, peak = light == "choose" and k == n and result.missing, two(result.peak)
    todo = {
        _READ: run.events,
        f"stop near iteration {result.peak_at:,}, where it was {peak}":
            result.peak > first > result.median,
        f"look at {failed}, no better than before": k and failed,
        f"run {n + few} seeds in all": few,
    }  # fmt: skip
    where_none_rises = {
        "measure again: evaluations are undiscounted, measurements discounted": _given(run),
        f"train longer: {done:,} of {asked:,} iterations are done": done < asked / 2,
        "measure the gradient of this policy: `gradlab measure --policy`": True,
    }
    return _where(todo, _NAMED) or ("use it" if k else _where(where_none_rises, 1))


def _summed(run: Training) -> str:
    """Which return an evaluation is: that of a measurement is discounted, and of other steps."""
    return f"undiscounted, {run.config['settings']['episode']:,} steps"


def _goal(run: Training) -> tuple[float, int, str] | None:
    """The highest goal that half of the seeds reached by training, else the lowest, of those that
    were not reached before it; how many seeds did, and by when in their median."""
    goals = [goal for goal in GOALS.get(run.task, ()) if (run.returns[0] < goal).any()]
    at = {goal: first_reached(run, goal) for goal in goals}
    at = {goal: each[each > run.iteration[0]] for goal, each in at.items()}
    reached = [goal for goal in goals if len(at[goal]) >= len(run.seeds) / 2]
    for goal in (*reached[-1:], *goals[:1]):
        when = f" by iteration {np.median(at[goal]):,.0f}" if len(at[goal]) else ""
        return goal, len(at[goal]), when
    return None


def _several(runs: Mapping[str, Training]) -> tuple[Light, dict[str, str]]:
    order, others = pairs.ranked(runs), pairs.against_best(runs)
    found = {name: pairs.outcome(run) for name, run in runs.items()}
    best, on = order[0], f"on {runs[order[0]].task}"
    if not len(found[best].finite):
        return "none", {"use": f"none: every run {on} diverged", "next": _READ}
    decided = {name: decide(gap, 0.0) for name, gap in others.items() if gap}
    out = [name for name, each in decided.items() if each.kind == "below"]
    kept = [name for name in others if name not in out]
    wanted = [decided[name].more if name in decided else None for name in kept]
    more = max((each or _MANY for each in wanted), default=0)
    failed = [f"{len(each.failed)} of {name}" for name, each in found.items() if each.failed]
    rises = found[best].improved > 0
    light: Light = "none" if not rises else "choose" if kept else "act"
    none = f"none {on}: no seed of {best}, the highest median, ends above its start"
    medians = "; ".join(f"{name} {two(found[name].median)}" for name in order[:3])
    gaps = [gap for name in order[1:2] if name in out and (gap := others[name])]
    return light, {
        "use": f"{best} {on}, the highest median" if rises else none,
        "lead": _where({
            f"better than {listed(out, _NAMED)}": rises and out,
            f"these seeds do not separate it from {listed(kept, _NAMED)}": rises and kept,
        }),
        "return": f"{medians}; {_summed(runs[best])}",
        "difference": "".join(with_interval(*gap.negative.estimate) for gap in gaps),
        "next": _where({
            "train longer, or measure the gradient of one policy": not rises,
            "seeds differ more than runs": rises and more >= _MANY,
            f"run about {more} more seeds": rises and 0 < more < _MANY,
            "lengths of runs differ": len({each.iterations for each in found.values()}) > 1,
            f"seeds that end no better than before training: {listed(failed, _NAMED)}": failed,
        }),
    }  # fmt: skip


def _where(texts: Mapping[str, object], most: int | None = None) -> str:
    """Those that hold."""
    return "; ".join([text for text, holds in texts.items() if holds][:most])
