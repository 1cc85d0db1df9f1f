"""What a probe says of what it will measure, and when: held against what it then does."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.probe import sampler
from gradlab.probe.budget import Budget, overdrawn, span
from gradlab.probe.task_question import Past
from gradlab.runs.probe import results
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


def test_before_the_price_is_known_the_least_there_may_be_is_said(monkeypatch):
    rows: list[dict[str, Any]] = []
    made = run(monkeypatch, 1200, 30.0, rows.append, trial=12.0)
    at, words = announced(rows)[0]
    start = "task: first measurement in 6 minutes or more, its price is not known yet (it takes "
    assert words == f"{start}24 seconds or more)"
    assert made[0] > at + 6 * 60


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


@pytest.mark.slow
def test_what_was_not_affordable_is_said_with_the_share_that_would_do(monkeypatch, tmp_path):
    assert run(monkeypatch, 500, 50.0, tmp_path / "run.h5") == []
    found = results.load(tmp_path / "run.h5")
    assert found.due == "task: no measurement, not affordable at 5%: 10% would do"
    assert run(monkeypatch, 500, 50.0, None, share=0.1)
    page = subprocess.run(
        [sys.executable, "-m", "gradlab", "watch", str(tmp_path / "run.h5"), "--once"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "not affordable at 5%: 10% would do" in " ".join(page.stdout.split())


def test_setting_up_is_the_probes_own_time(monkeypatch):
    clock = Clock()
    from gradlab.probe import probe as module

    def slow(*given: Any) -> Any:
        clock.now += 2.0
        return original(*given)

    original = module._question
    monkeypatch.setattr(module, "_question", slow)
    probe = gradlab.Probe(nn.Linear(2, 2), task=linear_task(B=0.5 * EYE, discount=0.9), clock=clock)
    assert probe.budget.own == 2.0


def test_bursts_leave_what_a_measurement_needs(monkeypatch):
    """Bursts that could take all of the share do not starve a measurement."""
    original = sampler.Burst
    rows: list[dict[str, Any]] = []
    clocks: list[Clock] = []

    class Slow(original):  # type: ignore[misc, valid-type]
        def commit(self) -> None:
            clocks[0].now += 0.05
            super().commit()

    class Kept(Clock):
        def __init__(self) -> None:
            super().__init__()
            clocks.append(self)

    monkeypatch.setattr(sampler, "Burst", Slow)
    monkeypatch.setitem(globals(), "Clock", Kept)
    made = run(monkeypatch, 1500, 20.0, rows.append)
    assert len(made) >= 2 and sum("successive/pairs" in row for row in rows) >= 5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 second"), (40, "40 seconds"), (240, "4 minutes"), (7200, "2 hours"),
     (2e5, "2 days")],
)  # fmt: skip
def test_times_to_wait_in_words(seconds, words):
    assert span(seconds) == words


@pytest.mark.slow
def test_a_probe_without_a_task_loads_nothing_that_measures():
    code = (
        "import sys, torch, gradlab; gradlab.Probe(torch.nn.Linear(1, 1)); "
        "print([m for m in ('scipy.stats', 'pandas', 'gradlab.tasks') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_start_beyond_the_share_is_announced_with_its_price():
    budget = Budget(0.05, clock := Clock())
    budget.begin()
    budget.own, clock.now = 0.3, 2.0
    assert overdrawn(budget) == "start: 0.3 s, within 5% after 6 seconds of training"
    clock.now = 6.1
    assert overdrawn(budget) == ""
