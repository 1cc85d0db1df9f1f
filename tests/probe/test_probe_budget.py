"""The share of the time that a probe takes, on a planted clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.probe import sampler, update_statistics
from gradlab.probe.budget import ALWAYS, UNSEEN, Budget
from gradlab.probe.measured import Past
from gradlab.probe.update_statistics import FIRST, PAIRS
from gradlab.reporting import probe_page
from gradlab.runs.probe.results import ProbeRun, load
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.verdicts.probe.findings import verdict
from gradlab.verdicts.probe.returns import facts_of
from tests.probe.planted_probe import H, measurement, written
from tests.probe.small_loops import EYE, Clock, linear_task


def looped(probe: gradlab.Probe, clock: Clock, updates: int, host: float = 1.0) -> list[float]:
    """Updates of `host` seconds each; the share spent after every one."""
    shares = []
    for step in range(updates):
        clock.now += host
        with probe(step):
            probe.policy(torch.randn(4, 2)).sum().backward()
        shares.append(probe.spent)
    return shares


def planted(
    monkeypatch: pytest.MonkeyPatch, updates: int, seconds: float, price: float, share: float = 0.05
) -> tuple[list[float], list[float]]:
    """When measurements of `seconds`, priced at `price` at first, were made, and the shares."""
    made: list[float] = []
    clock = Clock(100.0)

    def measured(question: Any, policy: Any, batch: int, update: int, past: Past) -> Any:
        made.append(clock.now)
        clock.now += seconds
        return {"starts": 64, "variance": np.ones((4, 3))}, past

    monkeypatch.setattr(sampler, "measured", measured)
    monkeypatch.setattr(sampler, "trial_price", lambda question, policy: 0.0)
    monkeypatch.setattr(sampler, "first_price", lambda question, policy: price)
    task = linear_task(B=0.5 * EYE, discount=0.9)
    probe = gradlab.Probe(nn.Linear(2, 2), task=task, overhead_budget=share, clock=clock)
    return made, looped(probe, clock, updates)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_measurements_are_spaced_out_to_keep_the_share(monkeypatch, share):
    made, shares = planted(monkeypatch, 4000, seconds=3.0, price=3.0, share=share)
    # The first one is a loan of three seconds, which the next ones wait for.
    assert made[0] == 102.0 and made[1] >= 100 + 2 * 3.0 / share - 3.0
    assert max(shares[int(60 / share) :]) <= share + 1e-12
    assert len(made) == pytest.approx(share * 4000 / 3.0 / (1 - share), abs=2)


def test_a_price_that_was_too_low_is_paid_once_and_made_up_for(monkeypatch):
    made, shares = planted(monkeypatch, 3000, seconds=20.0, price=0.5)
    assert made[1] - made[0] > 20.0 / 0.05 - 50
    assert max(shares[int(made[1] - 100.0) - 20 :]) <= 0.05 + 1e-12


def test_savings_from_a_price_that_was_too_high_are_not_spent_at_once(monkeypatch):
    made, shares = planted(monkeypatch, 3000, seconds=1.0, price=40.0)
    assert made[0] > 700
    assert min(np.diff(made)) >= 0.5 * 1.0 / 0.05
    assert max(shares) <= 0.05 + 1e-12 and shares[-1] > 0.045


def test_looks_that_cost_too_much_pass_updates_over(monkeypatch):
    clock = Clock(100.0)
    original = update_statistics.UpdateStatistics.gradient

    def slow(self: update_statistics.UpdateStatistics, scale: Any = None) -> torch.Tensor:
        clock.now += 0.5
        return original(self, scale)

    monkeypatch.setattr(update_statistics.UpdateStatistics, "gradient", slow)
    rows: list[dict[str, Any]] = []
    probe = gradlab.Probe(nn.Linear(2, 2), log=rows.append, overhead_budget=0.1, clock=clock)
    looped(probe, clock, 2000)
    assert probe.spent <= ALWAYS * 0.1 + 0.01
    seen = sum(row["vitals/looked"] for row in rows if "vitals/looked" in row)
    assert seen == pytest.approx(ALWAYS * 0.1 * 2000 / (UNSEEN * 0.5), rel=0.1)


def test_the_first_burst_is_short_and_prices_the_others(monkeypatch):
    clock = Clock(100.0)
    lengths: list[int] = []
    original = sampler.Burst

    class Slow(original):  # type: ignore[misc, valid-type]
        def __init__(self, parameters: Any, names: Any, pairs: int) -> None:
            lengths.append(pairs)
            super().__init__(parameters, names, pairs)

        def commit(self) -> None:
            clock.now += 0.2
            super().commit()

    monkeypatch.setattr(sampler, "Burst", Slow)
    probe = gradlab.Probe(nn.Linear(2, 2), overhead_budget=0.05, clock=clock)
    shares = looped(probe, clock, 3000)
    assert lengths[0] == FIRST and set(lengths[1:]) == {PAIRS}
    assert max(shares[100:]) <= 0.05 + 0.2 / 100
    assert len(lengths) - 1 == pytest.approx(0.05 * 3000 / (0.2 * PAIRS), rel=0.2)


def test_a_budget_allows_exactly_its_share():
    clock = Clock(100.0)
    budget = Budget(0.1, clock)
    budget.begin()
    clock.now += 90.0
    assert budget.allows(10.0) and not budget.allows(10.01)
    with budget.paying() as price:
        clock.now += 10.0
    assert price == [10.0] and budget.spent == pytest.approx(0.1)
    assert not budget.allows(0.01)


def test_episodes_wait_until_the_start_is_paid_back():
    clock = Clock(100.0)
    budget = Budget(0.1, clock, episodes=0.6)
    budget.begin()
    assert budget.episode_wait(1.0) == pytest.approx(1 / 0.06 - 1)
    with budget.paying():  # a start, or a loan
        clock.now += 5.0
    assert budget.episode_wait(1.0) == pytest.approx((5 + 1) / 0.1 - 1 - 5)
    clock.now += 54.0
    assert not budget.episode_wait(1.0) > 1e-9


# The step that a probe recommends, from cosines at visited states.


SE = 0.02


def run(path: Path, cosines: dict[str, list[float]], law: str = "visited") -> ProbeRun:
    value = np.full((len(ESTIMATORS), H + 1), np.nan)
    for name, over in cosines.items():
        value[ESTIMATORS.index(name), : len(over)] = over
    row = measurement(
        400, cosine=value, cosine_low=value - 2 * SE, cosine_high=value + 2 * SE,
        cosine_se=np.full_like(value, SE),
    )  # fmt: skip
    found = load(written(path, {"measured": [row]}))
    return replace(found, config={**found.config, "law": law})


BACKWARDS = {
    "data": [-0.8],
    "model": [-0.8, -0.5, 0.2, 0.7, 0.75],
    "mixed": [-0.8, 0.9, 0.9, 0.9, 0.9],
}


def test_the_newest_measurement_recommends_a_step(tmp_path):
    found = run(tmp_path / "run.h5", BACKWARDS)
    facts = facts_of(found)
    assert facts is not None
    assert facts.best == ("model", 4) and facts.close(facts.best) == [3, 4]
    assert facts.gains["data", 0].high < 0 and ("model", 0) not in facts.gains
    (told,) = [each for each in verdict(found) if each.about == "gain"]
    assert not told.decided and "3–4 steps" in told.text


@pytest.mark.parametrize("law", ["start", None])
def test_cosines_at_the_starts_are_no_gains(tmp_path, law):
    found = run(tmp_path / "run.h5", BACKWARDS, law=law)  # type: ignore[arg-type]
    assert facts_of(found) is None
    assert not [each for each in verdict(found) if each.about == "gain"]


def test_the_recommended_step_heads_the_page_of_a_sound_loop(tmp_path):
    screen = probe_page.page(run(tmp_path / "run.h5", BACKWARDS)).screen
    assert "3–4 steps" in screen.headline and screen.sure.endswith("no alarm")
    assert screen.light == "choose"  # no step along it was taken
