"""FRONTIER: does variance limit pathwise gradients of contact tasks more than the bias of jumps?

    claim       careful variance control matters more than the detection of discontinuities
    paper       Onoda, Parmas, Yaguchi and Matsuo 2026 (arXiv 2604.18161), Part II
    criterion   stated before any run. In every contact task, at h = 4, 8 and 16 and N′ = 64, by
                whole 95% intervals:
                (a) the pathwise gradient's squared bias against the smoothed return is less than
                    its variance / N′;
                (b) DDCG's MSE is not below 0.9 times that of IVW-H: detection does not pay;
                (c) IVW-H's MSE is below the pathwise gradient's: variance control does.
    premise     on a wall whose jump no pathwise gradient sees, (a) and (b) fail: the test can tell

    python -m analyses.first_order.frontier_estimators [--small] [--output reports/first-order]

Estimators have θ in every action and no critic, so that the h-step return is all that they
estimate and no tail biases them: all (BPTT), score, ivw, ddcg, total. The reference is that return
smoothed by 0.3 of the policy's own standard deviation in all actions, by scores, which sees jumps.
States are those that the policy visits. Policies are Gaussian, with a tenth of the actions' limit,
around the feedback that holds the task's posture (half of it, so that there is a gradient), on the
simulator's certified Jacobians.

Budget: at 128 starts and h = 16 of one task 4,000 Jacobians for all estimators, 12,300 for the
pilots of three, 8,200 for DDCG's test (2 to 5 ms each), and 131,000 steps of the reference: 3 to 5
processor minutes, about half of that for h = 4 and 8 together; three tasks in 20 minutes. The wall
takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

import gradlab
from analyses.first_order.runs import OUTPUT
from analyses.harness.contrast_parts import WALL, frontier_parts, has_power
from analyses.harness.verdicts import Verdict, study
from gradlab import systems
from gradlab.fitting.policies import stabilising_policy
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.start_laws import visitation
from gradlab.gradients.tail import Tail
from gradlab.gradients.ways import WAYS
from gradlab.measurement.moments.inner_products import estimator_moments
from gradlab.measurement.problem import Given, problem
from gradlab.networks.policies import Gaussian
from gradlab.statistics.comparison import difference, ratio_interval
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, combine, estimates
from gradlab.tasks import Task
from gradlab.truth.smoothed import Smoothing, smoothed_truth

TASKS = ("Hopper-v5", "Walker2d-v5", "HalfCheetah-v5")
ESTIMATORS = ("all", "score", "ivw", "ddcg", "total")
HORIZONS = (4, 8, 16)
STARTS, PAIRS, BATCH, SEED = 128, 32, 64, 0
SPREAD, SMOOTHED = 0.1, 0.3  # of the actions' limit, and of the policy's standard deviation


@dataclass(frozen=True)
class World:
    """A task, a Gaussian policy on it and the standard deviation of its actions."""

    name: str
    task: Task
    policy: nn.Module
    std: float


def worlds(small: bool) -> Iterator[World]:
    yield wall()
    for name in () if small else TASKS:
        task = gradlab.tasks.mujoco(name)
        std = SPREAD * (1.0 if task.action_limit is None else min(task.action_limit))
        yield World(name, task, Gaussian(stabilising_policy(task, share=0.5), std), std)


def wall() -> World:
    """A point that is paid 1 beyond a wall, more for being near it, and less for its effort."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        after = 0.9 * s + 0.5 * a
        beyond = (after[:, 0] > 0.5).to(s)
        return after, beyond - 0.02 * a[:, 0] ** 2

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return 0.3 * torch.randn(n, 1, generator=generator, dtype=torch.float64)

    policy = nn.Linear(1, 1).double()
    nn.init.constant_(policy.weight, -0.2)
    nn.init.constant_(policy.bias, 0.2)
    system = systems.from_function(step, state_dim=1, action_dim=1)
    task = Task(WALL, system, None, starts, 0.95, max(HORIZONS))
    return World(WALL, task, Gaussian(policy, 0.5), 0.5)


def measure(small: bool = False) -> Verdict:
    horizons, starts, pairs = ((2, 4), 64, 8) if small else (HORIZONS, STARTS, PAIRS)
    rows = [
        row
        for world in worlds(small)
        for h in horizons
        for row in compared(world, h, starts, pairs)
    ]
    return judge(pd.DataFrame(rows))


def compared(world: World, h: int, starts: int, pairs: int) -> Iterator[dict[str, object]]:
    """Every estimator's errors at one horizon, and the three quantities of the criterion."""
    found = errors(world, h, starts, pairs)
    for name, numbers in found.items():
        for quantity in ("bias2", "variance", "mse"):
            span = interval(quantity, numbers[quantity])
            yield _row(world, h, name, quantity, numbers[quantity], span.low, span.high)
    share = combine(lambda v: v / BATCH, found["all"]["variance"])
    excess = difference(found["all"]["bias2"], share)
    gap = combine(lambda b, v: b - v, found["all"]["bias2"], share)
    yield _row(world, h, "all", "bias2 less variance / N′", gap, excess.low, excess.high)
    for name, other in (("ddcg", "ivw"), ("ivw", "all")):
        first, second = found[name]["mse"], found[other]["mse"]
        span = ratio_interval(first, second)
        ratio = combine(lambda a, b: a / b, first, second)
        yield _row(world, h, name, f"MSE over that of {other}", ratio, span.low, span.high)


def _row(
    world: World, h: int, name: str, quantity: str, value: Estimate, low: float, high: float
) -> dict[str, object]:
    return {
        "world": world.name, "horizon": h, "estimator": name, "quantity": quantity,
        "value": value.value, "low": low, "high": high,
    }  # fmt: skip


def errors(world: World, h: int, starts: int, pairs: int) -> dict[str, dict[str, Estimate]]:
    """Of every estimator at its horizon h against the smoothed h-step return."""
    simulator, discount = world.task.simulator, world.task.discount
    tail = Tail(h, None, discount)
    chosen = {
        name: Estimator(simulator, simulator if WAYS[name].differentiates else None, name, tail)
        for name in ESTIMATORS
    }
    begin = visitation(world.task, world.policy, starts, SEED).states[0]
    posed = problem(
        Given(
            world.task, world.policy, None, chosen, h, begin, BATCH, "matched", "ignore", "start",
            SEED,
        )
    )  # fmt: skip
    smoothing = Smoothing(SMOOTHED * world.std, "all", pairs)
    truth = smoothed_truth(replace(posed.setting, horizon=h), smoothing)
    cells = estimator_moments(posed.chosen, posed.setting, truth).cells
    return {name: dict(estimates(cells[name, h], BATCH)) for name in ESTIMATORS}


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from one row per world, horizon, estimator and quantity."""
    parts = frontier_parts(table)
    premise = has_power(parts)
    contact = [part.state for world, _, part in parts if world != WALL]
    holds = premise and bool(contact) and all(state == "met" for state in contact)
    counts = {state: contact.count(state) for state in ("met", "missed", "undecided")}
    missed = "; ".join(
        f"{part.label}: {part.value:.3g} [{part.low:.3g}, {part.high:.3g}]"
        for world, _, part in parts
        if world != WALL and part.state == "missed"
    )
    power = "shows the jump's bias" if premise else "does not show the jump's bias: no power"
    sentence = (
        f"The wall {power}. Of the parts in contact tasks {counts['met']} are met, "
        f"{counts['missed']} missed and {counts['undecided']} undecided."
        + (f" Missed: {missed}." if missed else "")
    )
    numbers = {
        f"{part.label} {end}": float(getattr(part, end))
        for _, _, part in parts
        for end in ("value", "low", "high")
    }
    return Verdict(
        "FRONTIER",
        "arXiv 2604.18161, Part II",
        "contact tasks: bias² of BPTT below variance / N′, MSE of DDCG not below 0.9 of IVW-H's, "
        "MSE of IVW-H below BPTT's, at every horizon; on a wall the first two fail",
        holds,
        sentence,
        numbers,
        table,
    )


if __name__ == "__main__":
    study(measure, OUTPUT)
