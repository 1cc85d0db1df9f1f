"""Growth, lost Jacobians, float32 and mixtures in a measurement, against closed forms.

What a probe says of what it will measure, and when: held against what it then does.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.probe import sampler
from gradlab.probe.alarms.catalogue import examine
from gradlab.probe.alarms.evidence import AlarmEvidence
from gradlab.probe.measured import Past, Question, measured
from gradlab.runs.probe import results, schema
from gradlab.runs.probe.columns import column
from gradlab.storage import journal
from gradlab.tasks import Task
from tests.probe.small_loops import EYE, Clock, linear_task, looped, net

STILL = Past(count=4, sound=True)  # the next truth is not checked


def task(A: Tensor, discount: float = 0.8) -> Task:
    ones = torch.ones(2, dtype=torch.float64)
    return replace(linear_task(A=A, start_mean=ones, discount=discount), horizon=6)


def policy() -> nn.Module:
    found = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(found.weight)
    return found


class Square(nn.Module):
    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        return -(s**2).sum(1) - (a**2).sum(1)


@pytest.mark.parametrize("factor", [1.2, 0.9])
def test_a_chain_of_multiples_of_one_matrix_grows_as_its_powers(factor):
    A = torch.diag(torch.tensor([factor, 0.5 * factor], dtype=torch.float64))
    row, _ = measured(Question(task(A), None, 0), policy(), 256, 1, Past())
    steps = np.arange(26)
    np.testing.assert_allclose(row["chain_norm"], steps * np.log10(factor), atol=1e-9)
    assert row["chain_condition"] == pytest.approx(25 * np.log10(2), rel=1e-9)
    grows = factor > 1
    tenfold = 1 / np.log10(factor) if grows else np.inf
    assert row["tenfold"] == pytest.approx(tenfold)
    beyond = np.ceil(np.log10(float(np.finfo(np.float32).max)) * tenfold) if grows else np.inf
    assert row["float32_step"] == beyond


def test_a_loop_that_outgrows_its_discount_is_told_with_its_tenfold_steps():
    for factor, loud in ((1.3, True), (1.2, False)):  # ln 1/γ = ln 1.25
        A = torch.diag(torch.tensor([factor, 0.5], dtype=torch.float64))
        row, _ = measured(Question(task(A), None, 0), policy(), 256, 1, Past())
        look = AlarmEvidence([row | {"step": 1}], 1)
        told = examine("measured", look)
        assert [x.kind for x in told] == ["diverging sensitivities"] * loud
        assert all(f"every {1 / np.log10(1.3):.2g} steps" in x.message for x in told)


@pytest.mark.parametrize(("factor", "grown"), [(0.9, 0.8), (1.05, 0.8 * 1.05**2), (1.2, np.inf)])
def test_what_rewards_allow_grows_with_the_square_of_the_loop(factor, grown):
    A = torch.diag(torch.tensor([factor, 0.5], dtype=torch.float64))
    row, _ = measured(Question(task(A), None, 0), policy(), 256, 1, Past())
    allowed = row["reward_max"] / (1 - grown) if grown < 1 else np.inf
    assert row["return_bound"] == pytest.approx(allowed, rel=1e-6)


def holed(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    inside = (state[:, :1] - 0.5) * (state[:, :1] > 0.5)  # the derivative of √0, times 0, is NaN
    after = 0.5 * state + torch.cat([action + 0.0 * torch.sqrt(inside), 0 * action], 1)
    return after, -(state**2).sum(1)


def test_lost_jacobians_are_counted_and_the_first_is_named_with_a_neighbour():
    world = task(0.5 * EYE)
    prior = gradlab.systems.from_function(holed, state_dim=2, action_dim=1)
    row, _ = measured(Question(replace(world, prior=prior), None, 0), policy(), 256, 1, Past())
    lost, states = row["jacobian_nonfinite"], row["jacobian_states"]
    assert 0 < lost < states == 64 * 25
    assert row["starts_lost"] == 64  # every path ends near 0
    where = row["nonfinite_where"]
    assert "first at step 0 of start" in where and "∂s′0/∂s0" in where
    assert "standard deviations of the states away" in where
    look = AlarmEvidence([row | {"step": 1}], 1)
    told = {x.kind: x.message for x in examine("measured", look)}
    assert "masking them would drop" in told["non-finite Jacobian"]


def test_float32_is_asked_when_the_truth_is_checked():
    question = Question(task(0.9 * EYE), Square(), 0)
    row, past = measured(question, policy(), 256, 1, Past())
    assert row["truth_checked"] == 1 and 0 < row["float32_error"] < 1e-5
    assert row["float32_cosine"] == pytest.approx(1.0)
    row, past = measured(question, policy(), 256, 2, past)
    assert row["truth_checked"] == 1  # numbers 1, 2, 4, …
    row, past = measured(question, policy(), 256, 3, past)
    assert row["truth_checked"] == 0 and "float32_error" not in row
    assert past.checks  # number 4


def test_a_truth_that_does_not_stand_is_checked_again():
    diverging = Question(task(1.5 * EYE), Square(), 0)
    row, past = measured(diverging, policy(), 256, 1, STILL)
    assert row["truth_checked"] == 1 and not past.sound and past.checks


def test_weights_of_a_mixture_sum_to_one_over_the_horizons_that_it_has():
    row, _ = measured(Question(task(0.9 * EYE), Square(), 0), policy(), 256, 3, STILL)
    weight = row["weight"]
    known = np.flatnonzero(np.isfinite(weight))
    assert {0, 1, 2, 4, 6} <= set(known.tolist())
    assert weight[known].sum() == pytest.approx(1.0)
    assert (row["weight_low"][known] <= weight[known]).all()
    assert (row["weight_high"][known] >= weight[known]).all()
    assert row["kept"][row["chosen_estimator"], row["chosen_horizon"]] == 1


# The child of a fork has no probe.


FREE: dict[str, Any] = {"overhead_budget": 1.0, "clock": lambda: 0.0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_leaves_the_file_and_the_policy_alone(tmp_path):
    policy = net()
    optimizer = torch.optim.SGD(policy.parameters(), 1e-2)
    probe = gradlab.Probe(policy, optimizer, log=tmp_path / "run.h5", **FREE)
    looped(policy, optimizer, probe)
    before = sorted(tmp_path.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if child == 0:
        left = 1
        try:
            off = probe.off
            looped(policy, optimizer, probe)
            hooks = policy._forward_hooks, optimizer._optimizer_step_pre_hooks
            free = off and not any(hooks)
            probe.close()
            left = 0 if free else 2
        finally:
            os._exit(left)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(tmp_path.iterdir()) == before
    looped(policy, optimizer, probe)
    assert not probe.off
    probe.close()
    run = journal.read(tmp_path / "run.h5")
    assert run.groups["vitals"]["update"].values.tolist() == [100, 200]


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
        "hour at 11%)\ngradlab probe: task: no measurement, not affordable at 5%: 96% would do\n"
    )


def test_a_measurement_whose_price_was_never_known_is_missed_in_words(monkeypatch, capsys):
    monkeypatch.setattr(sampler, "UNTRIED", 10.0)
    assert run(monkeypatch, 100, 300.0, None) == []
    words = r"task: no measurement, not affordable at 5%: more than \d+% would be needed\n"
    assert re.fullmatch(f"gradlab probe: {words}", capsys.readouterr().err)


def test_what_takes_twice_as_long_as_was_said_is_said_anew(monkeypatch, capsys):
    assert run(monkeypatch, 300, 60.0, None, trial=4.0) == []
    words = re.findall("first measurement in (.*) ", capsys.readouterr().err)
    assert len(words) == 2 and "not known yet" in words[0] and "about 19 minutes" in words[1], words


# A probe that goes on in its log, in another process or after another model was loaded.


def network(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))


def probed(policy: nn.Module, log: Any, updates: int, *, first: int = 0, **more: Any) -> Any:
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    now = [0.0]
    probe = gradlab.Probe(policy, optimizer, log=log, clock=lambda: now[0], **more)
    for step in range(first, first + updates):
        now[0] += 1.0
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 2)).square().sum().backward()
        optimizer.step()
    return probe


@pytest.mark.parametrize("folded", [True, False])
def test_a_probe_goes_on_behind_the_last_row(folded, tmp_path):
    log, policy = tmp_path / "run.h5", network()
    probe = probed(policy, log, 230)
    if folded:
        probe.close()
    else:  # as a killed process leaves it
        probe._updates.file_vitals()
        probe.alarm_log.sink._journal._file.close()
        probe.off = True
    before = results.load(log)
    probed(policy, log, 170, first=230, resume=True, overhead_budget=0.2).close()
    run = results.load(log)
    assert run.vitals["update"].tolist() == [100, 200, 230, 300, 400]
    assert run.vitals["step"].tolist() == [99, 199, 229, 299, 399]
    assert run.budget == 0.2
    assert (run.vitals["elapsed"][:3] == before.vitals["elapsed"]).all()
    assert (np.diff(run.vitals["elapsed"]) > 0).all()
    assert (np.diff(run.vitals["own_seconds"]) >= 0).all()


def test_what_cannot_be_gone_on_in_is_refused_at_once(tmp_path):
    log, foreign = tmp_path / "run.h5", tmp_path / "notes.h5"
    probed(network(), log, 110).close()
    held = log.read_bytes()
    foreign.write_text("no run")
    with pytest.raises(InputError, match="where no run is to go on in: start with resume=False"):
        gradlab.Probe(network(), log=tmp_path / "none.h5", resume=True)
    with pytest.raises(InputError, match="resume=True without a run file"):
        gradlab.Probe(network(), log=print, resume=True)
    with pytest.raises(
        InputError, match=r"of a policy with tensors 0.weight.* not weight and bias"
    ):
        gradlab.Probe(nn.Linear(2, 1), log=log, resume=True)
    with pytest.raises(InputError, match="of a policy of other sizes"):
        gradlab.Probe(network(8), log=log, resume=True)
    with pytest.raises(InputError, match="of no task, not of"):
        gradlab.Probe(network(), task=linear_task(), log=log, resume=True)
    with pytest.raises(InputError):
        gradlab.Probe(network(), log=foreign, resume=True)
    assert log.read_bytes() == held and not journal.journal_of(log).exists()


def test_a_log_with_other_tables_is_left_alone(monkeypatch, tmp_path):
    log = tmp_path / "run.h5"
    probed(network(), log, 110).close()
    held, known = log.read_bytes(), schema.SUCCESSIVE
    monkeypatch.setattr(schema, "SUCCESSIVE", known | {"novel": column("1", "of a later version")})
    with pytest.raises(InputError, match="not a complete run"):
        gradlab.Probe(network(), log=log, resume=True)
    assert log.read_bytes() == held
