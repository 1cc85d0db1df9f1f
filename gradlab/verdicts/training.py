"""The fields of training runs: what the return came to, whether anything was learned, what next.

return, change, learned    of one run, median of its seeds
use, return, lead          of several, the best one against the others
goal                       seeds that reached what the field calls solved
next                       the first thing to do about it

The verdict is what a run found, in sentences. Everything here is read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, nan

import numpy as np
from numpy.typing import NDArray

from gradlab.findings import Finding
from gradlab.runs.decision_rules import COSINE, EXCESS, in_ranges
from gradlab.runs.training.measured_weights import (
    FEWEST,
    LOST,
    NO_TRUTH,
    SWITCHED,
    by_gain,
    gains_over_rule,
    interval_of_mean,
    logs_over_rule,
)
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
from gradlab.runs.training.results import GOALS, Training, asynchrony, first_reached
from gradlab.verdicts.phrases import capital, usable_text
from gradlab.verdicts.recommendation import Field, Light, Recommendation, worded
from gradlab.wording import change, duration, listed, percent, times, two, with_ends, with_interval


def _stale(run: Training, name: str) -> list[Finding]:
    """One sentence of a run in several processes."""
    found = asynchrony(run)
    if found is None:
        return []
    choice = run.config["settings"]["asynchronous"]
    counts = ", ".join(
        f"{choice[role]} {role if choice[role] > 1 else role[:-1]}"
        for role in ("learners", "actors", "buffers")
    )
    busy = ", ".join(percent(share) for share in found.busy)
    return [
        worded(
            "staleness",
            True,
            f"{name} trained with {counts}: {found.rate:.3g} updates per second; the policy had "
            f"made {found.mean:.3g} steps on average between the computation of its gradient and "
            f"the step along it, at most {found.at_most(0.95)} for 95% of them and "
            f"{found.largest} for all; learners computed {busy} of the time.",
        )
    ]


_EXPLAINED = 0.5  # of an output's held-out variance, below which a model does not predict it


def verdict(run: Training, name: str = "") -> list[Finding]:
    """Final return, goals, the gradient's error and the model's, and what went wrong.

    Args:
        name: what to call the run; default: its algorithm.
    """
    name = name or run.name
    events = (worded("health", True, text) for text in run.events)
    return [
        _final(run, name),
        *_goals(run, name),
        *measured(run, name),
        *_gradient(run, name),
        *_row_gradient(run, name),
        *_model(run, name),
        *_stale(run, name),
        *events,
    ]


def _final(run: Training, name: str) -> Finding:
    settings = run.config["settings"]
    last, errors = run.returns[-1], run.errors[-1]
    seeds = ", ".join(
        f"{value:.3g} ± {error:.2g}" for value, error in zip(last, errors, strict=True)
    )
    middle = f"median {np.median(last):.3g} over {len(last)} seeds" if len(last) > 1 else "one seed"
    return worded(
        "return",
        True,
        f"{name} on {run.task}: return {seeds} after {int(run.iteration[-1]):,} iterations "
        f"({middle}; mean ± standard error over {settings['evaluation_starts']} fixed starts of "
        f"{settings['episode']} steps that {settings['at_end']} at terminal states; termination in "
        f"training: {settings['termination']}, reward scale: {settings['reward_scale']:g}).",
    )


def _goals(run: Training, name: str) -> list[Finding]:
    told = []
    for goal in GOALS.get(run.task, ()):
        reached = first_reached(run, goal)
        count = int(np.isfinite(reached).sum())
        when = ""
        if count:
            when = f", at iteration {np.nanmedian(reached):,.0f} in the median of those"
            if np.nanmax(reached) == run.iteration[0]:
                when = ", before any update"
        told.append(f"{goal:g} by {count} of {len(reached)} seeds{when}")
    return [worded("goals", True, f"{name} reached {'; '.join(told)}.")] if told else []


def _gradient(run: Training, name: str) -> list[Finding]:
    """The error of the longest horizon's gradient when it was last measured."""
    errors = run.gradients
    if not errors:
        return []
    last = {name: errors[name][-1, :, -1] for name in ("relative_mse", "bias2", "mse", "cosine")}
    finite = np.isfinite(last["relative_mse"])
    where = f"h = {int(errors['horizon'][-1])}, iteration {int(errors['iteration'][-1]):,}"
    if not finite.any():
        reasons = errors.get("truth_reason")  # what stood in the way of the newest truth
        why = "" if reasons is None or not str(reasons[-1]) else f": {reasons[-1]}"
        what = "no error that a true gradient could show" if why else "no true gradient"
        return [worded("gradient", False, f"{name}: {what} at {where}{why}.")]
    error, bias, mse = (np.median(last[name][finite]) for name in ("relative_mse", "bias2", "mse"))
    # Without a part that is finite to be above noise a seed's gradient has no direction.
    # An estimate of a cosine may lie beyond ±1, the cosine itself may not.
    directions = np.clip(last["cosine"][np.isfinite(last["cosine"])], -1, 1)
    cosine = f"; cosine {two(np.median(directions))}" if len(directions) else ""
    if len(directions) > 1:
        middle, around = with_ends(np.median(directions), directions.min(), directions.max())
        cosine = f"; cosine {middle} ({around})"
    each = last["relative_mse"][finite]
    if len(each) > 1:
        value, ends = with_ends(error, each.min(), each.max())
        spread = f"median of {len(each)} seeds, {ends}"
    else:
        low, high = (errors[f"relative_mse_{end}"][-1, finite, -1][0] for end in ("low", "high"))
        value, ends = with_ends(error, low, high)
        spread = f"one seed, 95% interval {ends}"
    return [
        worded(
            "gradient",
            bool(error < 1),
            f"{name}: gradient MSE {value} of the true gradient's square at {where} "
            f"({spread}; {_sample_of(run)}, "
            f"batches of {run.samples}), {percent(max(bias, 0.0) / mse)} of "
            f"it squared bias{cosine}.",
        )
    ]


def _model(run: Training, name: str) -> list[Finding]:
    """What the last fit explains of rows that were held out, and which output it does not."""
    if not run.model:
        return []
    parts, poor = [], []
    for role, loss in run.config["model_losses"].items():
        kind = "model" if role == "prediction" else "gradient model"
        explained = run.model[f"{role}_explained"][-1]
        shares = np.median(explained, axis=0)
        worst = int(np.argmin(np.nan_to_num(shares, nan=np.inf)))
        states = run.config["state_names"] or [f"state {k + 1}" for k in range(len(shares) - 1)]
        least, share = [*states, "reward"][worst], float(shares[worst])
        parts.append(
            f"{kind} ({loss}) {np.median(explained):.4f} in the median of outputs and seeds, least "
            f"for {least}: {share:.4f}"
        )
        if share < _EXPLAINED:
            instead = "; --loss mse fits squared errors" if loss == "nll" else ""
            text = (
                f"{name}: the {kind} does not predict {least}, less than half of whose held-out "
                f"variance it explains: gradients and values made from it have this error{instead}."
            )
            poor.append(worded("model", False, text))
    rows = int(run.model["rows"][-1])
    stated = f"{name}: held-out variance explained after {rows} rows: {'; '.join(parts)}."
    return [*poor, worded("model", True, stated)]


_LAW = "gradient_law"  # in the configuration of such a run
_PARTS = {
    "bias2_states": "the model's states",
    "bias2_jacobians": "its Jacobians",
    "bias2_tail": "its critic",
}


def _row_gradient(run: Training, name: str) -> list[Finding]:
    """Nothing for runs whose gradients are measured at the task's starts."""
    if _LAW not in run.config or not run.gradients:
        return []
    took = float(np.nansum(run.gradients["seconds"]))
    share = percent(took / max(took + float(run.updates["seconds"][-1]), 1e-9))
    text = (
        f"{name}: {len(run.gradients['seconds'])} measurements of its gradient took "
        f"{duration(took)}, {share} of the time."
    )
    cost = worded("gradient cost", True, text)
    return [*_sources(run, name), *_usable(run, name), cost]


def _sample_of(run: Training) -> str:
    """How many starts of which law."""
    law = run.config.get(_LAW, "starts of the task")
    starts = run.gradients.get("starts")
    count = run.config["settings"]["gradient_starts"]
    if starts is not None and np.isfinite(starts[-1]).any():
        count = int(np.nanmax(starts[-1]))
    return f"N = {count} {law}"


def _newest(run: Training, column: str) -> NDArray[np.float64]:
    """Of every seed and horizon, [E, horizon]."""
    return np.asarray(run.gradients[column][-1], dtype=np.float64)


def _sources(run: Training, name: str) -> list[Finding]:
    """Parts of the squared bias at the row's own horizon, in the median of the seeds in which a
    squared bias is shown."""
    shown = _newest(run, "bias2_low")[:, -1] > 0
    if not shown.any():
        return []
    whole = _newest(run, "bias2")[shown, -1]
    parts = dict(_PARTS)
    if run.config["algorithm"].get("target_rule") == "NoCritic":
        parts["bias2_tail"] = "the return that it cuts off"
    shares = {
        text: float(np.median(_newest(run, column)[shown, -1] / whole))
        for column, text in parts.items()
    }
    listed = ", ".join(
        f"{text} {f'−{percent(-share)}' if share < 0 else percent(share)}"
        for text, share in shares.items()
    )
    seeds = len(shown)
    among = f" (median of the {shown.sum()} of {seeds} seeds that show one)" if seeds > 1 else ""
    text = f"{name}: squared bias of its own gradient{among}: {listed}."
    return [worded("gradient sources", True, text)]


def _usable(run: Training, name: str) -> list[Finding]:
    """By the seed that has the median cosine at the row's own horizon."""
    cosine, horizons = _newest(run, "cosine")[:, -1], run.gradients["horizon"]
    finite = np.flatnonzero(np.isfinite(cosine))
    if not len(finite) or int(horizons[-1]) < 1:
        return []
    seed = finite[np.argsort(cosine[finite])[len(finite) // 2]]
    error, low, high = (_newest(run, f"relative_mse{end}")[seed] for end in ("", "_low", "_high"))
    if not np.isfinite(error).any():
        return []
    surely = (_newest(run, "cosine_low")[seed] >= COSINE) & (error <= EXCESS * np.nanmin(error))
    perhaps = (_newest(run, "cosine_high")[seed] >= COSINE) & (low <= EXCESS * np.nanmin(high))
    usable = in_ranges(horizons.tolist(), surely.tolist(), perhaps.tolist())
    rule = f"cosine ≥ {COSINE:g}, at most {times(EXCESS)} the least relative error"
    text = usable_text(f"the gradient of {name}", usable, rule)
    return [worded("gradient range", usable.decided, f"{capital(text)}.")]


def measured(run: Training, name: str) -> list[Finding]:
    """What was followed in the place of the rule, its errors, and when the data took over."""
    if not run.weights:
        return []
    return [_weights(run, name)]


def _weights(run: Training, name: str) -> Finding:
    found, last = run.weights, int(run.weights["iteration"][-1])
    force, rule = (np.median(found["in_force"][-1], axis=0), found["rule"][-1])
    named = ", ".join(
        f"w_{h} = {two(w)} (rule: {two(r)})"
        for h, w, r in zip(run.horizons, force, rule, strict=True)
    )
    over, decided = _beside_rule(run)
    outcome = found["outcome"]
    lost = ", ".join(
        f"{(outcome == code).sum()} {words}"
        for code, words in ((NO_TRUTH, "had no true gradient"), (LOST, "were of lost seeds"))
        if (outcome == code).any()
    )
    parts = [
        f"{name}: measured {run.config['algorithm']['weights']['follow']} at iteration {last:,}: "
        f"{named}{', medians of the seeds' if len(run.seeds) > 1 else ''}",
        over,
        f"{(outcome == SWITCHED).sum()} of {outcome.size} measurements put others in force"
        f"{f' ({lost})' if lost else ''}",
        f"measuring took {percent(float(found['share'][-1]))} of the time",
    ]
    return worded("weights", decided, f"{'; '.join(parts)}.")


def _beside_rule(run: Training) -> tuple[str, bool]:
    """Gain, or MSE, of what was in force beside the rule's, where the two differ; is it shown to be
    another?"""
    gain = by_gain(run)
    found = gains_over_rule(run) if gain else logs_over_rule(run)
    each = np.array([float(part.mean()) for part in found if len(part)])
    if not len(each):
        return f"its {'gain' if gain else 'MSE'} beside the rule's is not known yet", False
    mean, few = float(each.mean()), len(each) < FEWEST
    low, high = (nan, nan) if few else interval_of_mean(each)
    value, ends = with_ends(exp(mean), exp(low), exp(high))
    text, replay = f"its MSE was {value}× that of the rule's weights", " of replay"
    if gain:
        text = f"a step along it gained {mean:+.0%} of the best possible more than along the "
        text, replay = f"{text}rule's weights", ""
        ends = f"{low:+.0%} to {high:+.0%}"
    count, seeds = f"{sum(map(len, found))} measurements", f"{len(each)} seeds"
    known = f"95% interval {ends} over {seeds}, {count}"
    known = f"{count}, {seeds}: no interval," if few else known
    starts = f"on N = {int(run.weights['starts'][-1]):,} starts{replay} that did not choose it"
    return f"{text} ({known} {starts})", low > 0 or high < 0


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


def _one(name: str, run: Training, rest: tuple[Finding, ...]) -> Recommendation:
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


def _several(runs: Mapping[str, Training], rest: tuple[Finding, ...]) -> Recommendation:
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


def paired_verdict(runs: Mapping[str, Training]) -> list[Finding]:
    """Every run against the first: return and gradient error, and what both say together."""
    base, *others = runs
    sentences = (_sentence(name, runs[name], base, runs[base]) for name in others)
    return [each for each in sentences if each is not None]


def _sentence(name: str, run: Training, base: str, first: Training) -> Finding | None:
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
    return worded("remedy", any(judged.values()), text)


def _change(pair: Pair) -> str:
    value, ends = with_ends(pair.change, pair.low, pair.high)
    if pair.ratio:
        return f"{value}× [{ends}] ({pair.measurements:.0f} measurements a seed)"
    return f"{'+' if pair.change > 0 else ''}{value} [{ends}]"
