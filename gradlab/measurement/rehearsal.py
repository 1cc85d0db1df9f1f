"""Rehearsals: a candidate's own updates, made ahead on what is frozen until the critic's next fit.

    θ_{k+1} = θ_k + step of the user's optimiser along the candidate's mean gradient at θ_k

Every update draws a batch with noise that all candidates share: fresh starts for θ in every action,
frozen visited states for θ in the first one, of as many steps as the returns sum (those of a truth
that is cut earlier give another gradient than a loop's). The policies after 1, 2, 5, 10, 25, …
updates, up to `refit`, are judged on fresh starts (`runs.rehearsal`):

    twice        all candidates, by two draws of states and batches, each on half of the judges
    confirmed    those that lead highest, one after the other until one is, by 4 fresh draws and
                 more, each on fresh starts of its own

The latter sum up to 9 T steps, until little of a change is still to come.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import child, stream
from gradlab.errors import InputError
from gradlab.gradients.bptt import mean_gradient, mean_gradient_again
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting, Starts, as_starts, by_group, grouping
from gradlab.measurement.inner_products import Measured
from gradlab.measurement.realised_gains import LEAST_LEFT
from gradlab.measurement.resolve import Resolved
from gradlab.measurement.update import Gradient, Update, UpdateTest, place
from gradlab.measurement.visited import steps_beside, visited
from gradlab.networks.interface import flat_parameters
from gradlab.progress import Progress, silent
from gradlab.runs.identity import Cell, Identity, competing
from gradlab.runs.profile import CLOSE, is_data_again, run_around
from gradlab.runs.rehearsal import LOST, Rehearsal, Rule, judged
from gradlab.systems.system import by_differences
from gradlab.tasks import Task
from gradlab.truth.oracles import effective_horizon
from gradlab.truth.returns import WIDE, PairedReturns
from gradlab.truth.truth import Truth

LENGTHS = (1, 2, 5, 10, 25, 50, 100)  # updates
JUDGES = 256  # starts that returns are of
DEAR_JUDGES = 128  # where a simulator takes one step of one start at a time
_ALIKE = 0.02  # of the largest gain, by which a horizon may gain less and be as good
_LONGER = (1, 3, 9)  # times T, steps that returns sum
_REST = 0.05  # of the change of a return, the most that may be left of it after its last step
_DRAWS = 2  # of states and batches, by which all candidates are followed
_REDRAWS = (4, 16)  # fresh ones that confirm: fewest and most
_PER_DRAW = 64  # judges for each of these, from which on there are more than the fewest
_TRIALS = 3  # candidates, at most, that they are to confirm
# Of a batch's gradient, by which float32 may change it: its own error is a hundred times larger.
_ROUGH = 1e-4
_STREAM = "rehearsal"


def rehearse(
    setting: Setting,
    candidates: Sequence[Mapping[Cell, Gradient]],
    update: Update,
    rate: float,
    judging: Sequence[Starts],
    batch: int,
    lengths: Sequence[int] | None = None,
    progress: Progress = silent,
) -> Rehearsal:
    """Follow every candidate for as many updates as `lengths` say, by every draw, and judge where
    it leads.

    Args:
        setting: the present policy on the simulator; its horizon T ≥ 1 is that of the returns.
        candidates: for each draw gradients by the same estimators and horizons (`frozen_gradient`,
            or any function).
        rate: of the optimiser, the same for all.
        judging: for each draw starts of the returns, in at least two groups, none of which made the
            gradients.
        batch: states behind each gradient; recorded.
        lengths: rising numbers of updates; None: `LENGTHS` up to one refit of the critic.
    """
    lengths = lengths_within(update) if lengths is None else lengths
    cells, asked = list(candidates[0]), len(candidates) * len(candidates[0]) * lengths[-1]
    draws = []
    for d, (starts, drawn) in enumerate(zip(judging, candidates, strict=True)):

        def counted(made: int, before: int = d * asked // len(candidates)) -> None:
            progress(_STREAM, before + made, asked)

        test = UpdateTest(drawn, (rate,), lengths, update)
        draws.append((starts, test.steps(setting.policy, counted).flatten(0, 2)))
    paired = PairedReturns(_returning(setting), draws, _STREAM, progress, len(lengths))
    rolled = paired.until(setting.horizon)
    labels, sizes = zip(*map(grouping, judging), strict=True)
    returns = [by_group(each, label) for each, label in zip(rolled, labels, strict=True)]
    before = np.concatenate([each[0] for each in returns])
    change = np.concatenate([each[1:] - each[0] for each in returns], axis=1)
    rule = Rule(
        update.name, rate, update.assumed, update.refit, batch, setting.horizon,
        setting.termination, paired.steps,
    )  # fmt: skip
    change = change.reshape(len(cells), len(lengths), len(before))
    draw = np.repeat(np.arange(len(sizes)), list(map(len, sizes)))
    return judged(cells, lengths, change, before, np.concatenate(sizes), rule, draw)


def _returning(setting: Setting) -> Setting:
    """With the noise of the returns."""
    return replace(setting, seed=child(setting.seed, f"{_STREAM} returns"))


def lengths_within(update: Update) -> tuple[int, ...]:
    """The rehearsed numbers of updates, none beyond one refit of the critic; that one, too."""
    last = min(update.refit, LENGTHS[-1])
    return (*(k for k in LENGTHS if k < last), last)


def frozen_gradient(
    estimator: Estimator, states: Starts | Task, batch: int, seed: int, termination: str = "ignore"
) -> Gradient:
    """Mean gradients of an estimator at its horizon, each from a batch of its own.

    Args:
        states: visited ones, of which a batch takes some, weights count, but not their scale
            1/(1 − γ): a loop's loss is a mean, on which Adam's ε and a plain step depend; or a
            task, whose starts are drawn anew.
    """
    if isinstance(states, Starts):
        states = replace(states, weight=states.weight / states.weight[states.weight > 0].mean())

    single = _in_single(estimator)
    checked: list[bool] = []  # by the first update, which also decides on float32
    narrow: list[nn.Module] = []  # the policy in float32, where that does

    def gradient(policy: nn.Module, k: int) -> Tensor:
        if isinstance(states, Task):
            drawn = _drawn(states, batch, child(seed, f"{_STREAM} states"), str(k))
        else:
            rows = torch.randint(len(states.states), (batch,), generator=stream(seed, _STREAM, k))
            drawn = Starts(states.states[rows], states.weight[rows], torch.arange(batch))
        noise = child(seed, f"{_STREAM} {k}")

        def rough(own: nn.Module) -> Tensor:
            place(own, flat_parameters(policy))
            begin = replace(drawn, states=drawn.states.float(), weight=drawn.weight.float())
            return mean_gradient_again(single, own, begin, noise, termination).to(drawn.states)

        if narrow:
            return rough(narrow[0])
        if checked:
            return mean_gradient_again(estimator, policy, drawn, noise, termination)
        found = mean_gradient(estimator, policy, drawn, noise, termination)
        checked.append(True)
        if found.numel() >= WIDE:
            with suppress(RuntimeError, TypeError, ValueError):  # of one precision alone
                own = copy.deepcopy(policy).float()
                if (rough(own) - found).norm() <= _ROUGH * found.norm():
                    narrow.append(own)
        return found

    return gradient


def _in_single(estimator: Estimator) -> Estimator:
    """The estimator with a float32 critic."""
    critic = estimator.tail.critic
    single = None if critic is None else copy.deepcopy(critic).float()
    return replace(estimator, tail=replace(estimator.tail, critic=single))


def at_horizon(estimator: Estimator, horizon: int) -> Estimator:
    """The same with another horizon."""
    return replace(estimator, tail=replace(estimator.tail, horizon=horizon))


def rehearsal(
    asked: Resolved,
    measured: Measured,
    truth: Truth,
    table: pd.DataFrame,
    update: Update,
    progress: Progress = silent,
) -> Rehearsal:
    """The rehearsal of a measurement: of the gradients that compete.

    Args:
        measured: mean gradients; truth: theirs; table: of the profile.
    """
    setting, task, batch = asked.setting, asked.task, asked.config.batch
    dear = by_differences(setting.simulator)
    judges = asked.config.judges or (DEAR_JUDGES if dear else JUDGES)
    horizon = truth.horizon
    if truth.status != "converged":  # a truth is cut for its precision, a return need not be
        horizon = effective_horizon(task.discount, LEAST_LEFT if dear else 0.01)
    cells = candidate_cells(list(measured.means), table, asked.identities)
    rate = update.rate_for(setting, measured.means[cells[0]])
    setting = replace(setting, horizon=horizon)

    def drawn(of: Sequence[Cell], name: str) -> dict[Cell, Gradient]:
        """Gradients whose states and batches are of one draw."""
        seed, there = child(setting.seed, f"{_STREAM} {name}"), None
        estimators = {cell: at_horizon(asked.chosen[cell[0]], cell[1]) for cell in of}
        if not all(each.way.all_actions for each in estimators.values()):
            begin = _drawn(task, len(setting.starts.states), seed, "states")
            here = replace(setting, starts=begin, seed=seed)
            there = _visited(here, truth, measured.visits)
        return {
            cell: frozen_gradient(
                each, task if each.way.all_actions or there is None else there, batch, seed,
                setting.termination,
            )
            for cell, each in estimators.items()
        }  # fmt: skip

    names = [f"draw {d}" for d in range(_DRAWS)]
    found = rehearse(
        setting, [drawn(cells, name) for name in names], update, rate,
        [_drawn(task, max(judges // _DRAWS, 2), setting.seed, name) for name in names], batch,
        progress=progress,
    )  # fmt: skip
    redraws = min(max(judges // _PER_DRAW, _REDRAWS[0]), _REDRAWS[1])
    each = _REDRAWS[0] * judges // redraws
    for c, updates in list(found.leading.items())[:_TRIALS]:
        lengths = [k for k in found.lengths if k <= updates]
        pairs = []
        for d in range(redraws):
            name = f"again {c} {d}"
            (gradient,) = drawn([cells[c]], name).values()
            test = UpdateTest({cells[c]: gradient}, (rate,), lengths, update)
            moved = test.steps(setting.policy)[0, 0]
            pairs.append((_drawn(task, each, setting.seed, name), moved))
        paired = PairedReturns(_returning(setting), pairs, _STREAM, progress, len(lengths))
        for times in _LONGER:
            rolled = paired.until(times * horizon)
            if not any(map(_goes_on, rolled, paired.late)):
                break
        again, se = np.full((2, len(found.lengths), redraws), np.nan)
        for d, own in enumerate(rolled):
            change = own[1:] - own[0]
            mean = change.mean(dim=1).numpy()
            again[: len(lengths), d] = np.where(np.abs(mean) < LOST, mean, np.nan)
            se[: len(lengths), d] = change.std(dim=1).numpy() / change.shape[1] ** 0.5
        steps = found.steps + paired.steps
        found = replace(found.retried(c, again, each, times * horizon, se), steps=steps)
        if found.chosen is not None:
            break
    return found


def _visited(setting: Setting, truth: Truth, samples: int) -> Starts:
    """Visited states, for as many steps as the returns sum; as the measurement's where states
    leave the finite numbers on the way, or all of them end: no return is known there, either."""
    with suppress(InputError):
        return visited(setting, setting.horizon, samples)
    return visited(setting, steps_beside(setting, truth), samples, truth)


def _drawn(task: Task, n: int, seed: int, name: str) -> Starts:
    """Fresh starts of a stream of their own."""
    states = task.starts(n, stream(seed, f"{_STREAM} {name} starts")).double()
    return as_starts(states, task.simulator.state_dim)


def _goes_on(returns: Tensor, late: Tensor) -> bool:
    """Is more than 5% of a policy's change of the return still to come after T, of what was paid
    and of what of it the second half of T did?

    Its halves e and l of T go on as l q + l q² + …, q = |l / e|, where l is no chance (2 standard
    errors).
    """
    change, late = (each[1:] - each[0] for each in (returns, late))
    known = late.mean(dim=1).abs() > 2 * late.std(dim=1) / late.shape[1] ** 0.5
    whole, last = change.mean(dim=1), late.mean(dim=1).abs()
    q = last / (whole - late.mean(dim=1)).abs()
    return bool((known & ((q >= 1) | (last * q / (1 - q) > _REST * whole.abs()))).any())


def candidate_cells(
    measured: Sequence[Cell], table: pd.DataFrame, identities: Mapping[str, Identity]
) -> list[Cell]:
    """The gradients worth a rehearsal, the first one the one of largest gain.

    The best horizon of every estimator that competes, the best first: the shortest that gains
    nearly as much, since it is cheaper to follow (0 is one with θ in every action, where it is not
    the critic's own gradient once more), and of the best one that of the largest gain, which may
    lead further; the critic's own gradient, at visited states and at the starts (near an optimum
    they part within a few updates); the ends of the horizons around the largest gain that gain
    practically as much, which a recommendation may name; the shortest and the longest horizon of
    the best. Without gains, in the place of the best horizon, one of 5 steps.
    """
    names = competing(identities)
    over = {name: sorted(h for each, h in measured if each == name) for name in names}
    rows = table[(table["quantity"] == "gain") & np.isfinite(table["value"])]
    columns = (rows[key] for key in ("estimator", "horizon", "value"))
    gains = {(str(name), int(h)): float(g) for name, h, g in zip(*columns, strict=True)}

    def horizons_of(name: str) -> list[int]:
        return [h for h in over[name] if not is_data_again(identities, (name, h))] or over[name]

    def known(name: str) -> dict[int, float]:
        return {h: gains[name, h] for h in horizons_of(name) if (name, h) in gains}

    def at_best(name: str) -> Cell:
        if own := known(name):
            most = max(own.values())
            return name, min(h for h, gain in own.items() if gain >= most - _ALIKE * abs(most))
        return name, min(horizons_of(name), key=lambda h: abs(h - LENGTHS[2]))

    several = sorted((at_best(name) for name in names), key=lambda c: -gains.get(c, -np.inf))
    best, own = several[0], known(several[0][0])
    largest = (best[0], max(own, key=own.__getitem__, default=best[1]))
    enough = CLOSE * max(own.values(), default=inf)
    near = run_around(largest[1], {h for h, gain in own.items() if h and 0 < enough <= gain})
    named = [(best[0], near[0]), (best[0], near[-1])]
    alone = [cell for cell in several if over[cell[0]] == [0]]  # the critic's own gradient
    there = [(name, 0) for name in names if 0 in over[name] and identities[name].actions == "all"]
    there = [cell for cell in there if not is_data_again(identities, cell)][:1]
    top = next((cell for cell in several if cell not in alone), several[0])
    horizons = [h for h in over[top[0]] if h] or over[top[0]]
    ends = [(top[0], horizons[0]), (top[0], horizons[-1])]
    return list(dict.fromkeys([best, largest, *alone, *there, *several, *named, *ends]))
