"""The first screen of training runs: what to do, then what has learned or is best, how surely.

    events    read them        a seed that ends below its start    look at it
    a peak    stop there       too few seeds                       run more

The state of the runs stands second, and what has no room is left out.

The verdict is what a run found, in sentences. Everything here is read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, nan

import numpy as np
from numpy.typing import NDArray

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
from gradlab.verdicts.screen import NUMBERS, WORDS, Fact, Light, Screen, Sentence, counted
from gradlab.wording import change, duration, listed, percent, times, two, with_ends, with_interval


def _stale(run: Training, name: str) -> list[Sentence]:
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
        Sentence(
            "staleness",
            True,
            f"{name} trained with {counts}: {found.rate:.3g} updates per second; the policy had "
            f"made {found.mean:.3g} steps on average between the computation of its gradient and "
            f"the step along it, at most {found.at_most(0.95)} for 95% of them and "
            f"{found.largest} for all; learners computed {busy} of the time.",
        )
    ]


_EXPLAINED = 0.5  # of an output's held-out variance, below which a model does not predict it


def verdict(run: Training, name: str = "") -> list[Sentence]:
    """Final return, goals, the gradient's error and the model's, and what went wrong.

    Args:
        name: what to call the run; default: its algorithm.
    """
    name = name or run.name
    events = (Sentence("health", True, text) for text in run.events)
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


def _final(run: Training, name: str) -> Sentence:
    settings = run.config["settings"]
    last, errors = run.returns[-1], run.errors[-1]
    seeds = ", ".join(
        f"{value:.3g} ± {error:.2g}" for value, error in zip(last, errors, strict=True)
    )
    middle = f"median {np.median(last):.3g} over {len(last)} seeds" if len(last) > 1 else "one seed"
    return Sentence(
        "return",
        True,
        f"{name} on {run.task}: return {seeds} after {int(run.iteration[-1]):,} iterations "
        f"({middle}; mean ± standard error over {settings['evaluation_starts']} fixed starts of "
        f"{settings['episode']} steps that {settings['at_end']} at terminal states; termination in "
        f"training: {settings['termination']}, reward scale: {settings['reward_scale']:g}).",
    )


def _goals(run: Training, name: str) -> list[Sentence]:
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
    return [Sentence("goals", True, f"{name} reached {'; '.join(told)}.")] if told else []


def _gradient(run: Training, name: str) -> list[Sentence]:
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
        return [Sentence("gradient", False, f"{name}: {what} at {where}{why}.")]
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
        Sentence(
            "gradient",
            bool(error < 1),
            f"{name}: gradient MSE {value} of the true gradient's square at {where} "
            f"({spread}; {_sample_of(run)}, "
            f"batches of {run.samples}), {percent(max(bias, 0.0) / mse)} of "
            f"it squared bias{cosine}.",
        )
    ]


def _model(run: Training, name: str) -> list[Sentence]:
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
            poor.append(Sentence("model", False, text))
    rows = int(run.model["rows"][-1])
    stated = f"{name}: held-out variance explained after {rows} rows: {'; '.join(parts)}."
    return [*poor, Sentence("model", True, stated)]


_LAW = "gradient_law"  # in the configuration of such a run
_PARTS = {
    "bias2_states": "the model's states",
    "bias2_jacobians": "its Jacobians",
    "bias2_tail": "its critic",
}


def _row_gradient(run: Training, name: str) -> list[Sentence]:
    """Nothing for runs whose gradients are measured at the task's starts."""
    if _LAW not in run.config or not run.gradients:
        return []
    took = float(np.nansum(run.gradients["seconds"]))
    share = percent(took / max(took + float(run.updates["seconds"][-1]), 1e-9))
    text = (
        f"{name}: {len(run.gradients['seconds'])} measurements of its gradient took "
        f"{duration(took)}, {share} of the time."
    )
    cost = Sentence("gradient cost", True, text)
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


def _sources(run: Training, name: str) -> list[Sentence]:
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
    return [Sentence("gradient sources", True, text)]


def _usable(run: Training, name: str) -> list[Sentence]:
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
    return [Sentence("gradient range", usable.decided, f"{capital(text)}.")]


def measured(run: Training, name: str) -> list[Sentence]:
    """What was followed in the place of the rule, its errors, and when the data took over."""
    if not run.weights:
        return []
    return [_weights(run, name)]


def _weights(run: Training, name: str) -> Sentence:
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
    return Sentence("weights", decided, f"{'; '.join(parts)}.")


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
