"""What a probe says of what it will measure, and when: held against what it then does."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.probe import sampler
from gradlab.probe.arguments import Past
from gradlab.runs.probe import results, schema
from gradlab.runs.probe.columns import ProbeColumn
from gradlab.storage import journal
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


def net(width: int = 4) -> nn.Module:
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
    log, policy = tmp_path / "run.h5", net()
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
    probed(net(), log, 110).close()
    held = log.read_bytes()
    foreign.write_text("no run")
    with pytest.raises(InputError, match="where no run is to go on in: start with resume=False"):
        gradlab.Probe(net(), log=tmp_path / "none.h5", resume=True)
    with pytest.raises(InputError, match="resume=True without a run file"):
        gradlab.Probe(net(), log=print, resume=True)
    with pytest.raises(
        InputError, match=r"of a policy with tensors 0.weight.* not weight and bias"
    ):
        gradlab.Probe(nn.Linear(2, 1), log=log, resume=True)
    with pytest.raises(InputError, match="of a policy of other sizes"):
        gradlab.Probe(net(8), log=log, resume=True)
    with pytest.raises(InputError, match="of no task, not of"):
        gradlab.Probe(net(), task=linear_task(), log=log, resume=True)
    with pytest.raises(InputError):
        gradlab.Probe(net(), log=foreign, resume=True)
    assert log.read_bytes() == held and not journal.journal_of(log).exists()


def test_a_log_with_the_tables_of_another_version_is_left_alone(monkeypatch, tmp_path):
    log = tmp_path / "run.h5"
    probed(net(), log, 110).close()
    held, known = log.read_bytes(), schema.SUCCESSIVE
    monkeypatch.setattr(schema, "SUCCESSIVE", known | {"novel": ProbeColumn()})
    with pytest.raises(InputError, match="whose tables are another version's"):
        gradlab.Probe(net(), log=log, resume=True)
    assert log.read_bytes() == held
