"""What a measurement will cost, on a planted clock, and the share that is kept on the true one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.probe import measured as prices
from gradlab.probe import sampler
from gradlab.probe.budget import GRACE, GUARDED
from gradlab.probe.measured import (
    CHECKED,
    FIXED,
    MARGIN,
    STARTS,
    TRIED,
    Past,
    Question,
    first_price,
    trial_price,
)
from gradlab.probe.parts import parts as parts_of_a_loop
from gradlab.truth.oracles import AT_MOST


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Critic(nn.Module):
    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return -(state**2).sum(1) - (action**2).sum(1)


def task(decay: float) -> gradlab.Task:
    eye = torch.eye(2, dtype=torch.float64)
    return gradlab.tasks.linear_quadratic(
        A=decay * eye, B=0.1 * eye, Q=eye, R=eye, noise_covariance=0.01 * eye,
        start_mean=torch.zeros(2, dtype=torch.float64), start_covariance=eye, discount=0.9,
    )  # fmt: skip


def policy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2).double()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A millisecond for every 64 rows that are stepped, three for their Jacobians."""
    clock = Clock()
    step, linearize = prices.step_running, prices.linearize_running
    unroll = prices.unroll_first_action

    def stepped(simulator: Any, states: Any, *rest: Any) -> Any:
        clock.now += 1e-3 * len(states) / STARTS
        return step(simulator, states, *rest)

    def linearized(*given: Any) -> Any:
        clock.now += 3e-3
        return linearize(*given)

    def unrolled(*given: Any, **named: Any) -> Any:
        found = unroll(*given, **named)
        clock.now += 4e-3 * found.horizon
        return found

    monkeypatch.setattr(prices, "step_running", stepped)
    monkeypatch.setattr(prices, "linearize_running", linearized)
    monkeypatch.setattr(prices, "unroll_first_action", unrolled)
    return clock


def test_chains_that_converge_soon_are_priced_by_their_length(clock):
    question = Question(task(0.5), Critic(), 0)
    price = trial_price(question, policy(), clock)
    assert price == pytest.approx(MARGIN * TRIED * 4e-3 + FIXED)
    found = first_price(question, policy(), clock)
    steps = (found - FIXED) / MARGIN / (4e-3 + CHECKED * 1e-3)
    assert steps == pytest.approx(round(steps)) and question.horizon <= steps <= TRIED


def test_chains_that_do_not_are_priced_by_the_longest_there_may_be(clock):
    question = Question(task(1.105), Critic(), 0)
    found = first_price(question, policy(), clock)
    assert found == pytest.approx(MARGIN * AT_MOST * (4e-3 + CHECKED * 1e-3) + FIXED)


def test_chains_that_are_given_up_are_priced_by_what_was_made_of_them(clock):
    found = first_price(Question(task(1.3), Critic(), 0), policy(), clock)
    assert (found - FIXED) / MARGIN / (4e-3 + CHECKED * 1e-3) < TRIED


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_the_share_is_kept_on_the_true_clock(share, monkeypatch):
    made: list[float] = []

    def measured(*given: Any) -> Any:
        made.append(time.process_time())
        while time.process_time() < made[-1] + 0.002:
            pass
        return {"starts": 64, "variance": np.ones((4, 3))}, Past()

    monkeypatch.setattr(sampler, "UNTRIED", 0.0)
    monkeypatch.setattr(sampler, "trial_price", lambda question, policy: 0.0)
    monkeypatch.setattr(sampler, "first_price", lambda question, policy: 0.002)
    monkeypatch.setattr(sampler, "measured", measured)
    watched = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2)).double()
    optimizer, clock = torch.optim.SGD(watched.parameters(), 1e-4), time.process_time
    probe = gradlab.Probe(watched, optimizer, task=task(0.5), overhead_budget=share, clock=clock)
    begun, step = clock(), 0
    while clock() < begun + 2.0 or (not made and share > 0.02 and clock() < begun + 20.0):
        optimizer.zero_grad()
        with probe(step):
            watched(torch.randn(256, 2, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        step += 1
    parts = probe._parts  # whose first looks are made whatever they cost, too
    grace = GRACE * probe.budget._always / probe.budget._looks / 2.0
    grace += min(GRACE / max(parts._looks, 1), 1.0) * parts._own / 2.0
    grace += parts_of_a_loop.LOAN * share * (parts._looks <= parts_of_a_loop.FIRST)  # a loan, open
    # What is tested at every update takes a tenth of this tiny loop; looks do not yield to it.
    assert probe.budget.governed <= ((1 + GUARDED) * share + grace) * probe.budget.elapsed
    spent = probe.budget
    assert probe._updates.count == step
    assert made or share < 0.02, (spent.own, spent._always, spent._bursts, spent.elapsed)
