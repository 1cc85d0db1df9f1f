"""What a probe says of what it will measure, and when: held against what it then does."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.probe import sampler
from gradlab.probe.task_question import Past
from tests.probe.small_loops import EYE, Clock, linear_task


def run(
    monkeypatch: pytest.MonkeyPatch, updates: int, price: float, log: Any, trial: float = 0.0,
    share: float = 0.05, loan: float = 0.0,
) -> list[float]:  # fmt: skip
    """A loop of a second per update whose measurements take `price`; when they were made."""
    clock, made = Clock(), []

    def spends(seconds: float, answer: Any) -> Any:
        def work(*given: Any) -> Any:
            clock.now += seconds
            return answer

        return work

    def measured(*given: Any) -> Any:
        made.append(clock.now)
        clock.now += price
        return {"starts": 64, "variance": np.ones((4, 3))}, Past()

    monkeypatch.setattr(sampler, "trial_price", spends(0.0, trial))
    monkeypatch.setattr(sampler, "first_price", spends(trial, price))
    monkeypatch.setattr(sampler, "measured", measured)
    policy = nn.Linear(2, 2)
    probe = gradlab.Probe(
        policy,
        task=linear_task(B=0.5 * EYE, discount=0.9),
        log=log,
        overhead_budget=share,
        clock=clock,
    )
    for step in range(updates):
        clock.now += 1.0
        with probe(step):
            policy(torch.randn(4, 2)).sum().backward()
        assert probe.budget.own <= share * probe.budget.elapsed + loan + 1e-12
    probe.close()
    return made


def announced(rows: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(row["update"], row["vitals/due"]) for row in rows if "vitals/due" in row]


def test_the_first_measurement_comes_when_it_was_announced(monkeypatch):
    rows: list[dict[str, Any]] = []
    made = run(monkeypatch, 1000, 30.0, rows.append)
    at, words = announced(rows)[0]
    minutes = re.fullmatch(
        r"task: first measurement in about (\d+) minutes \(it takes 30 seconds\)", words
    )
    assert minutes is not None
    assert at + 60 * int(minutes[1]) == pytest.approx(made[0], abs=35)
    assert announced(rows)[-1][1].startswith("task: next measurement in about")


def test_a_first_measurement_that_is_cheap_is_made_at_once_and_its_price_is_paid_back(monkeypatch):
    rows: list[dict[str, Any]] = []
    clock_of_first = run(monkeypatch, 300, 2.5, rows.append, loan=2.5)
    assert clock_of_first[0] == 2.0 and clock_of_first[1] >= 2 * 2.5 / 0.05 - 5
    start = [words for _, words in announced(rows) if words.startswith("start: ")]
    assert start == [] and sum("vitals/due" in row for row in rows) == 3


def test_what_will_not_be_paid_for_long_is_said_at_once_with_the_share_that_would_do(
    monkeypatch, capsys
):
    assert run(monkeypatch, 20, 300.0, None) == []
    words = capsys.readouterr().err
    assert words == (
        "gradlab probe: task: first measurement in about 2 hours (it takes 5 minutes; within an "
        "hour at 8%)\n"
    )
