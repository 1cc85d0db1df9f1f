"""Rehearsals: a candidate's own updates, made ahead on what is frozen until the critic's next fit.

    θ_{k+1} = θ_k + step of the user's optimiser along the candidate's mean gradient at θ_k

Every update draws a batch with noise that all candidates share: fresh starts for θ in every action,
frozen visited states for θ in the first one, of as many steps as the returns sum (those of a truth
that is cut earlier give another gradient than a loop's). The policies after 1, 2, 5, 10, 25, …
updates, up to `refit`, are judged on fresh starts (`runs.rehearsal`). At most 30% of the
measurement per rate:

    price = updates · batch · (10 + h · price of a Jacobian) per candidate + T · starts/4 per return

in steps of the simulator; a backward pass through a step takes 4 of them (measured: path tracking,
the pendulum and the double integrator, 2×256 policies).

A rate that nobody gave is divided by 10, up to twice, while no candidate is shown to raise the
return and all lower it in the end, or the best does so after one update and lowers it in the end.
The gradient of choice is rehearsed once more, from fresh states and starts, for up to 9 T, a plain
step of the update's length beside it. With `refit` = 1 the second rehearsal is made twice, with the
frozen critic and with one that makes one step of temporal differences at every update.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.fitting.critics import ROWS, refit_critic
from gradlab.gradients.bptt import mean_gradient
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.starts import Starts, as_starts, by_group, grouping
from gradlab.gradients.tail import Setting
from gradlab.measurement.moments.visited import steps_beside, visited
from gradlab.measurement.prices import rolled_steps
from gradlab.measurement.realised_gains import (
    CLOSED_FORM,
    LEAST_LEFT,
    Stepping,
    jacobian_steps,
    measured_steps,
)
from gradlab.measurement.update import REFIT, Update, reach
from gradlab.networks.interface import flat_parameters
from gradlab.progress import Progress, silent
from gradlab.runs.competing import CLOSE, is_data_again, run_around
from gradlab.runs.identity import Identity, competing
from gradlab.runs.realised import Cell
from gradlab.runs.rehearsal import LOST, Rehearsal, Rule, differ, judged
from gradlab.systems.system import by_differences
from gradlab.tasks import Task
from gradlab.truth.common_random import Rolled, Rolling
from gradlab.truth.oracles import effective_horizon, perturbed

LENGTHS = (1, 2, 5, 10, 25, 50, 100)  # updates
JUDGES = (256, 128, 64, 32, 16)  # starts that returns are of
_BATCHES = (1, 2, 4, 8)  # by which the batch is divided where it is too dear
_FEWEST = 32  # states of a divided batch
_FEWEST_CELLS = 2  # candidates, so that there is something to choose
_ALIKE = 0.02  # of the largest gain, by which a horizon may gain less and be as good
_WANTED = 5  # candidates, the first ones, that are worth a smaller batch or fewer judges
_SMALLER = (1.0, 0.1, 0.01)  # of a rate that nobody gave
_SHARE = 0.3  # of the measurement
_LONGER = (1, 3, 9)  # times T, the returns of the second rehearsal
_REST = 0.05  # of the change of a return, the most that may be left of it after its last step
PASSED, OVERHEAD = 4, 10  # steps that a backward pass takes as long as, per step and in all
ROLLED = 0.25  # of a step, what one takes that is rolled out at once with those of many policies
_STREAM = "rehearsal"

_Gradient = Callable[[nn.Module, int], Tensor]  # policy, update → mean ascent gradient [P]


def rehearse(
    setting: Setting,
    candidates: Mapping[Cell, _Gradient],
    update: Update,
    rate: float,
    judging: Starts,
    batch: int,
    lengths: Sequence[int] | None = None,
    left_out: int = 0,
    progress: Progress = silent,
) -> Rehearsal:
    """Follow every candidate for as many updates as `lengths` say, and judge where it leads.

    Args:
        setting: the present policy on the simulator; its horizon T ≥ 1 is that of the returns.
        candidates: gradients by estimator and horizon (`frozen_gradient`, or any function).
        rate: of the optimiser, the same for all.
        judging: starts of the returns, in at least two groups, none of which made the gradients.
        batch: states behind each gradient; left_out: candidates that were too dear; recorded.
        lengths: rising numbers of updates; None: `LENGTHS` up to one refit of the critic.
    """
    policy, lengths = setting.policy, lengths_within(update) if lengths is None else lengths
    asked, steps = len(candidates) * lengths[-1], []
    for done, gradient in enumerate(candidates.values()):

        def counted(k: int, before: int = done * lengths[-1]) -> None:
            progress(_STREAM, before + k, asked)

        steps += followed(policy, gradient, update, rate, lengths, counted)
    rolling = Rolling(replace(setting, seed=child(setting.seed, f"{_STREAM} returns")), progress)
    rolled = rolling.returns(judging, steps, _STREAM)
    label, size = grouping(judging)
    before = rolled.returns[0]
    change = by_group(rolled.returns[1:] - before, label)
    rule = Rule(
        update.optimizer, rate, update.rate is None, update.refit, batch, setting.horizon,
        setting.termination, left_out, rolled.steps,
    )  # fmt: skip
    change = change.reshape(len(candidates), len(lengths), len(size))
    return judged(list(candidates), lengths, change, by_group(before[None], label)[0], size, rule)


def lengths_within(update: Update) -> tuple[int, ...]:
    """The rehearsed numbers of updates, none beyond one refit of the critic; that one, too. `REFIT`
    at most for a critic that is fitted at every update."""
    last = min(update.refit if update.refit > 1 else REFIT, LENGTHS[-1])
    return (*(k for k in LENGTHS if k < last), last)


def followed(
    policy: nn.Module,
    gradient: _Gradient,
    update: Update,
    rate: float,
    lengths: Sequence[int],
    counted: Callable[[int], None] = lambda k: None,
) -> list[Tensor]:
    """θ_k − θ_0 [P] after each of the lengths; NaN from a gradient on that is not finite."""
    begin = flat_parameters(policy)
    theta = begin.clone()
    optimizer = update.stepping(theta, rate)
    moved = []
    for k in range(lengths[-1]):
        mean = gradient(perturbed(policy, theta - begin), k)
        if not torch.isfinite(mean).all():
            theta.fill_(torch.nan)
            break
        theta.grad = -mean
        optimizer.step()
        counted(k + 1)
        if k + 1 in lengths:
            moved.append(theta.detach() - begin)
    return moved + [torch.full_like(begin, torch.nan)] * (len(lengths) - len(moved))


def frozen_gradient(
    estimator: Estimator, states: Starts | Task, batch: int, seed: int, termination: str = "ignore"
) -> _Gradient:
    """Mean gradients of an estimator at its horizon, each from a batch of its own.

    Args:
        states: visited ones, of which a batch takes some, weights count, but not their scale
            1/(1 − γ): a loop's loss is a mean, on which Adam's ε and a plain step depend; or a
            task, whose starts are drawn anew.
    """
    if isinstance(states, Starts):
        states = replace(states, weight=states.weight / states.weight[states.weight > 0].mean())

    def gradient(policy: nn.Module, k: int) -> Tensor:
        if isinstance(states, Task):
            drawn = _drawn(states, batch, child(seed, f"{_STREAM} states"), str(k))
        else:
            rows = torch.randint(len(states.states), (batch,), generator=stream(seed, _STREAM, k))
            drawn = Starts(states.states[rows], states.weight[rows], torch.arange(batch))
        return mean_gradient(estimator, policy, drawn, child(seed, f"{_STREAM} {k}"), termination)

    return gradient


def following_gradient(
    stepping: Stepping,
    estimator: Estimator,
    states: Starts | Task,
    visits: Tensor,
    batch: int,
    seed: int,
) -> _Gradient:
    """`frozen_gradient` with a critic that makes one step of temporal differences before every
    update but the first, on transitions from visited states [M, ds] under the policy then."""
    task, termination, own = stepping.task, stepping.setting.termination, estimator

    def gradient(policy: nn.Module, k: int) -> Tensor:
        nonlocal own
        if k:
            assert own.tail.critic is not None
            rows = torch.randint(len(visits), (ROWS,), generator=stream(seed, "critic rows", k))
            critic = refit_critic(
                task, policy, own.tail.critic, updates=1, steps=1, states=visits[rows],
                termination=termination, seed=child(seed, f"critic {k}"),
            )  # fmt: skip
            own = replace(own, tail=replace(own.tail, critic=critic))
        return frozen_gradient(own, states, batch, seed, termination)(policy, k)

    return gradient


def _follows(stepping: Stepping, estimator: Estimator) -> bool | None:
    """Does its critic move when it is fitted on? None where it does, but cannot be followed: one of
    states alone, or of entropy."""
    tail = estimator.tail
    if tail.critic is None or not any(True for _ in tail.critic.parameters()):
        return False
    plain = tail.value == "Q" and stepping.setting.simulator is stepping.task.simulator
    return True if plain else None


def at_horizon(estimator: Estimator, horizon: int) -> Estimator:
    """The same with another horizon."""
    return replace(estimator, tail=replace(estimator.tail, horizon=horizon))


def rehearsal(
    stepping: Stepping,
    update: Update,
    batch: int,
    progress: Progress = silent,
    judges: int | None = None,
) -> Rehearsal:
    """The rehearsal of a measurement: of the gradients that compete, as many as 30% of it buys.

    Args:
        batch: N′ of the measurement.
        judges: starts that returns are of, where these are more than it buys, whatever they cost.
    """
    setting, measured = stepping.setting, stepping.measured
    cells = candidate_cells(list(measured.means), stepping.table, stepping.identities)
    plan = _judged_by(planned(stepping, cells, update, batch), judges, stepping, update)
    rate = update.rate_for(setting, measured.means[cells[0]])
    candidates, at = {}, measured.at
    if plan.visits:
        at = _visited(stepping, setting, plan)
    for name, horizon in plan.cells:
        estimator = at_horizon(stepping.chosen[name], horizon)
        states = stepping.task if estimator.way.every else at
        candidates[name, horizon] = frozen_gradient(
            estimator, states, plan.batch, setting.seed, setting.termination
        )
    judging = _drawn(stepping.task, plan.judges, setting.seed, f"{_STREAM} starts")
    tried: list[Rehearsal] = []
    for times in _SMALLER if update.rate is None else _SMALLER[:1]:
        found = rehearse(
            replace(setting, horizon=plan.horizon), candidates, update, times * rate, judging,
            plan.batch, left_out=len(cells) - len(plan.cells), progress=progress,
        )  # fmt: skip
        tried.append(found)
        if not found.too_long:
            break
    gain = [-np.inf if each.best is None else each.best.gain.value for each in tried]
    best = tried[max(range(len(tried)), key=lambda k: (not tried[k].hold, gain[k]))]
    found = replace(best if not best.hold else found, steps=len(tried) * plan.steps)
    chosen = found.choice(cells[0])
    if chosen is None:
        return found
    found = replace(found, steps=found.steps + plan.again)
    return _again(stepping, found, chosen, update, plan, progress)


def _visited(stepping: Stepping, setting: Setting, plan: _Plan) -> Starts:
    """Visited states, for as many steps as the returns sum; as the measurement's where states
    leave the finite numbers on the way, or all of them end: no return is known there, either."""
    samples = stepping.measured.visits
    if plan.visits:
        with suppress(InputError):
            return visited(setting, plan.visits, samples)
    return visited(setting, steps_beside(setting, stepping.truth), samples, stepping.truth)


def _drawn(task: Task, n: int, seed: int, name: str) -> Starts:
    """Fresh starts of a stream of their own."""
    return as_starts(task.starts(n, stream(seed, name)).double(), task.simulator.state_dim)


def _again(
    stepping: Stepping,
    found: Rehearsal,
    cell: Cell,
    update: Update,
    plan: _Plan,
    progress: Progress,
) -> Rehearsal:
    """The gradient of choice from other states and starts, up to its highest return, and its plain
    step."""
    place = found.cells.index(cell)
    task, setting = stepping.task, stepping.setting
    estimator = at_horizon(stepping.chosen[cell[0]], cell[1])
    seed, n = child(setting.seed, f"{_STREAM} again"), min(len(setting.starts.states), JUDGES[0])

    other = replace(setting, starts=_drawn(task, n, seed, "states"), seed=seed)
    states: Starts | Task = task
    follows = update.refit == 1 and _follows(stepping, estimator)
    if follows or not estimator.way.every:
        there = _visited(stepping, other, plan)
        states = task if estimator.way.every else there
    gradient = frozen_gradient(estimator, states, plan.batch, seed, setting.termination)
    lengths = [k for k in found.lengths if k <= found.peak[place]]
    if follows is None:  # it moves, and nobody knows whereto
        lengths = lengths[:1]
    moved = followed(setting.policy, gradient, update, found.rate, lengths)
    if follows:
        gradient = following_gradient(stepping, estimator, states, there.states, plan.batch, seed)
        moved += followed(setting.policy, gradient, update, found.rate, lengths)
    mean = stepping.measured.means[cell]
    unit = mean / mean.norm()
    plain = stepping.move * reach(setting.policy, other, unit) * unit
    judging = _drawn(task, plan.judges, seed, "judges")
    taken = found.steps
    for times in _LONGER:
        rolling = Rolling(replace(other, horizon=times * plan.horizon), progress)
        rolled = rolling.returns(judging, [*moved, plain], _STREAM)
        if times > 1:  # the price has the first
            taken += rolled.steps
        if not _goes_on(rolled):
            break
    label, _ = grouping(judging)
    change = by_group(rolled.returns[1:] - rolled.returns[0], label)
    change = np.where(np.abs(change) < LOST, change, np.nan)
    again = np.full((len(found.lengths), change.shape[1]), np.nan)
    again[: len(lengths)] = change[: len(lengths)]
    parted = 0
    if follows:
        again[: len(lengths)] = with_it = change[len(lengths) : -1]
        apart = differ(with_it - change[: len(lengths)], found.size)
        if apart.any():
            parted = lengths[int(apart.argmax())]
            again[int(apart.argmax()) + 1 :] = np.nan
    return replace(
        found, again=again, step=change[-1], again_cell=place, steps=taken, parted=parted,
        again_horizon=rolling.setting.horizon,
    )  # fmt: skip


def _goes_on(rolled: Rolled) -> bool:
    """Is more than 5% of a policy's change of the return still to come after T?

    Its halves e and l of T go on as l q + l q² + …, q = |l / e|, where l is no chance (2 standard
    errors).
    """
    change, late = (each[1:] - each[0] for each in (rolled.returns, rolled.late))
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


@dataclass(frozen=True)
class _Plan:
    """What is rehearsed: candidates, batch, starts of the returns, their steps, and the price: of
    one rehearsal of all candidates, and of the dearest `again`. States are visited anew for as many
    steps where the measurement's are of fewer, else for none."""

    cells: tuple[Cell, ...]
    batch: int
    judges: int
    horizon: int
    steps: int
    again: int
    visits: int


def planned(stepping: Stepping, cells: Sequence[Cell], update: Update, batch: int) -> _Plan:
    """What costs at most 30% of the measurement: `_WANTED` candidates, then the whole batch, then
    the longest return, then the most starts, then all candidates. Where the one of largest gain is
    so dear that it would be alone, the cheapest go first: the critic's own gradient costs no
    Jacobians. One candidate at the least, whatever it costs."""
    truth, discount = stepping.truth, stepping.task.discount
    horizons: tuple[int, ...] = (truth.horizon,)
    if truth.status != "converged":  # a truth is cut for its precision, a return need not be
        horizons = tuple(effective_horizon(discount, left) for left in (0.01, LEAST_LEFT))
    budget, updates = _SHARE * _measurement_steps(stepping), lengths_within(update)
    rolled = 1.0 if by_differences(stepping.setting.simulator) else ROLLED
    batches = [n for n in (batch // each for each in _BATCHES) if n >= min(_FEWEST, batch)]
    kinds = [(name, h == 0) for name, h in cells]
    wanted = min(_WANTED, len(set(kinds)) + (kinds[:1] == kinds[1:2]))
    visiting = not all(stepping.chosen[name].way.every for name, _ in cells)
    seen, starts = steps_beside(stepping.setting, truth), len(stepping.setting.starts.states)

    def bought(n: int, judges: int, horizon: int, cheapest_first: bool = False) -> _Plan:
        prices = {c: n * _gradient_steps(stepping.chosen[c[0]], c[1]) for c in cells}
        taken: list[Cell] = []
        once, anew = int(rolled * horizon * judges), horizon if visiting and horizon > seen else 0
        walked = int(rolled * anew * starts)
        steps, again = once + walked, 0
        for cell in sorted(cells, key=prices.__getitem__) if cheapest_first else cells:
            own = updates[-1] * prices[cell] + len(updates) * once
            once_more = max(again, own + 2 * once + walked)  # the dearest may be the choice
            if update.refit == 1:
                once_more = max(again, 2 * (own + once) + walked + updates[-1] * ROWS)
            if not taken or steps + own + once_more <= budget:
                taken, steps, again = [*taken, cell], steps + own, once_more
        return _Plan(tuple(taken), n, judges, horizon, steps, again, anew)

    def worth(plan: _Plan) -> tuple[int, ...]:
        few = len({*plan.cells} & {*cells[:wanted]})
        return few, plan.batch, plan.horizon, plan.judges, len(plan.cells)

    asked, found = list(itertools.product(batches, JUDGES, horizons)), []
    for cheapest_first in (False, True):
        plans = [bought(n, judges, T, cheapest_first) for n, judges, T in asked]
        paid = [plan for plan in plans if plan.steps + plan.again <= budget]
        cheapest = min(plans, key=lambda plan: plan.steps + plan.again)
        found.append(max(paid, key=worth, default=cheapest))
        if paid and len(found[-1].cells) >= min(_FEWEST_CELLS, len(cells)):
            return found[-1]
    return found[0]


def _judged_by(plan: _Plan, judges: int | None, stepping: Stepping, update: Update) -> _Plan:
    """With the judges that were asked for, where these are more, and what they take."""
    more = max(0, (judges or 0) - plan.judges)
    rolled = 1.0 if by_differences(stepping.setting.simulator) else ROLLED
    once, each = int(rolled * plan.horizon * more), len(lengths_within(update))
    again = plan.again + once * (each + 2) * (2 if update.refit == 1 else 1)
    steps = plan.steps + once * (each * len(plan.cells) + 1)
    return replace(plan, judges=plan.judges + more, steps=steps, again=again)


def _measurement_steps(stepping: Stepping) -> int:
    """What the measurement takes, in steps of the simulator, Jacobians of models included. Where
    the simulator is differenced, what is only rolled out costs as much a step, and a truth that was
    cut was tried for as long as a return is: both count, too."""
    setting, measured, truth = stepping.setting, stepping.measured, stepping.truth
    system = setting.simulator
    models = {
        (each.actions, id(each.jacobians)) for each in stepping.chosen.values()
        if each.jacobians is not None and each.jacobians is not system
    }  # fmt: skip
    states = sum(measured.visits if actions == "first" else 1 for actions, _ in models)
    steps = measured_steps(stepping) + CLOSED_FORM * measured.starts * setting.horizon * states
    if not by_differences(system):
        return steps
    n, T = len(setting.starts.states), truth.horizon
    if truth.status != "converged":
        T = max(T, effective_horizon(stepping.task.discount, LEAST_LEFT))
    return steps + rolled_steps(n, T) + jacobian_steps(system) * n * (T - truth.horizon)


def _gradient_steps(estimator: Estimator, horizon: int) -> int:
    """What one state of a mean gradient takes, in steps of the simulator."""
    system = estimator.jacobians
    if system is None or (system.differentiable and not by_differences(system)):
        return OVERHEAD + PASSED * horizon
    return OVERHEAD + jacobian_steps(system) * horizon
