"""Prices are the counts that a measurement then takes, times seconds that the machine takes now."""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import inf, isnan, nan
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlab import measure, tasks
from gradlab.fitting import critics, policies
from gradlab.measurement.machine_rates import network_steps, prices, rates, work
from gradlab.measurement.prices import (
    MeasurementWork,
    Price,
    Rates,
    left_after,
    measurement,
)
from gradlab.systems.system import Linearization, System, Transition
from gradlab.tasks import Task

NOTHING = Rates(0, 0, 0, 0, 0, 0, 0)
SMALL = MeasurementWork(
    starts=10, horizon=5, truth=20, visits=8, through_simulator=1, through_prior=2
)


def linear_quadratic() -> Task:
    return tasks.linear_quadratic(
        A=[[0.9]], B=[[0.5]], Q=[[1.0]], R=[[1.0]], noise_covariance=[[0.01]], start_mean=[0.0],
        start_covariance=[[1.0]], discount=0.9,
    )  # fmt: skip


def seconds(work: MeasurementWork, rates: Rates) -> dict[str, float]:
    return {each.stage: each.seconds for each in measurement(work, rates)}


@pytest.mark.parametrize(
    ("rate", "truth", "differences", "estimators"),
    [
        ("step", 0, 10 * 32 * 20, 0),
        ("jacobian", 200, 0, 8 * 50),  # the path from the starts is the truth's
        ("prior", 0, 0, 2 * 9 * 50),
        ("summed", 2.5 * 200, 0, 0),
        ("gradient", 0, 0, 2.5 * 3 * 60),
        ("moved", 0, 0, 0),
    ],
)
def test_a_stage_costs_its_counts(
    rate: str, truth: float, differences: float, estimators: float
) -> None:
    found = seconds(SMALL, replace(NOTHING, **{rate: 1.0}))
    assert found["truth"] == truth
    assert found["finite differences"] == differences
    assert found["estimators"] == estimators
    steps = 20 if rate == "step" else 0
    assert found["jumps"] == 6 * 10 * steps + 888 * 20 * (rate == "moved")
    assert found["realised gains"] == 15 * 10 * steps
    whole = truth + differences + estimators + 6 * 10 * steps + found["realised gains"]
    assert found["checks"] == pytest.approx(0.15 * whole)


def test_dear_jacobians_are_counted_up_to_what_is_spent_on_them() -> None:
    dear = replace(SMALL, most_truth=40, most_visited=30)
    found = seconds(dear, replace(NOTHING, jacobian=1.0))
    assert found["truth"] == 40 and found["estimators"] == 30
    assert seconds(dear, replace(NOTHING, step=1.0))["finite differences"] == 10 * 32 * 4


def test_at_the_starts_there_are_no_explicit_gradients_and_no_steps() -> None:
    found = seconds(replace(SMALL, visits=0), Rates(1, 1, 1, 1, 1, 1, 1))
    assert found["truth"] == 200 and found["estimators"] == 3 * 50
    assert "realised gains" not in found


def test_an_unknown_price_says_so_and_leaves_the_rest_unknown() -> None:
    assert str(Price("attribution")) == "price unknown"
    assert isnan(left_after((Price("truth", "", 1.0), Price("attribution")), "truth"))
    assert isnan(left_after((Price("truth", "", nan),), "elsewhere"))


@dataclass(frozen=True, eq=False)
class Counting:
    """A system that counts the rows it is asked for, by stage."""

    inner: System
    stage: list[str]
    rows: Counter[str] = field(default_factory=Counter)

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        self.rows[self.stage[0]] += len(state)
        return self.inner.linearize(state, action, noise)

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        self.rows[f"{self.stage[0]} steps"] += len(state)
        return self.inner.step(state, action, noise)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Quadratic(nn.Module):
    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return -(state**2 + action**2).sum(dim=1)


def test_the_counts_are_those_that_the_measurement_takes() -> None:
    task, stage = linear_quadratic(), [""]
    simulator, prior = Counting(task.simulator, stage), Counting(task.prior, stage)
    counting = replace(task, simulator=simulator, prior=prior)

    def progress(now: str, done: int, total: int) -> None:
        stage[0] = now

    policy = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(policy.weight, -0.3)
    found = measure(counting, policy, Quadratic(), horizon=4, starts=32, progress=progress)
    counts = replace(work(task, 32, 4, visited=True, parameters=1), truth=found.truth["horizon"])
    one = seconds(counts, replace(NOTHING, jacobian=1.0))
    assert simulator.rows["estimators"] == one["estimators"]
    assert prior.rows["estimators"] == seconds(counts, replace(NOTHING, prior=1.0))["estimators"]
    assert one["truth"] <= simulator.rows["truth"] <= one["truth"] + 32 * 50
    stepped = seconds(counts, replace(NOTHING, step=1.0))
    taken = simulator.rows["finite differences steps"]
    assert taken == pytest.approx(stepped["finite differences"], rel=0.02)
    # The starts of the sample themselves are scored beside the pilot's thirty times as many.
    assert simulator.rows["pilot steps"] == pytest.approx(stepped["pilot"], rel=0.05)


@pytest.mark.parametrize("kind", ["policy", "critic"])
def test_the_steps_of_a_network_are_those_that_it_takes(kind: str) -> None:
    task, stage = linear_quadratic(), [""]
    simulator = Counting(task.simulator, stage)
    counting = replace(task, simulator=simulator)
    policy = nn.Linear(1, 1).double()
    if kind == "policy":
        policies.visited_states(counting, torch.zeros(1, 1).double(), torch.zeros(1).double(), 0)
    else:
        critics.evaluation_data(counting, policy, critics.STEPS, "ignore", 0)
    assert simulator.rows[" steps"] == network_steps(task, kind)


def test_the_probe_times_every_rate_and_disturbs_no_stream() -> None:
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    found = rates(linear_quadratic(), None)
    assert torch.equal(torch.rand(3), first)
    assert all(0 < each < 1 for each in vars(found).values())


def test_moving_the_parameters_of_every_row_is_dearer_than_a_step() -> None:
    found = rates(tasks.pendulum(), None)
    assert found.moved > 5 * found.step


def test_the_plan_has_every_stage_in_order() -> None:
    task = linear_quadratic()
    plan = prices(task, nn.Linear(1, 1).double(), ("critic",), 32, 4, True)
    assert [each.stage for each in plan] == [
        "critic", "pilot", "truth", "finite differences", "jumps", "estimators", "realised gains",
        "rehearsal", "checks",
    ]  # fmt: skip
    assert work(task, 32, 4, True, 2).most_truth == inf
    assert f"{critics.UPDATES:,} updates" in plan[0].work  # as its progress counts them
