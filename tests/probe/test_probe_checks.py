"""A check fails by its planted cause alone, and sound rows fail none."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import gradlab
from gradlab.findings import CODES, Finding
from gradlab.probe.checks import CHECKS, Evidence, examine
from gradlab.probe.log import Log
from gradlab.runs.probe.schema import tables
from tests.probe.planted_rows import NAN, bound, burst, measured, vitals
from tests.probe.small_loops import net, probed


def raised(table: str, *rows: Mapping[str, Any]) -> set[str]:
    evidence = Evidence(list(rows), len(rows), ("0.weight", "b"))
    return {alarm.title for alarm in examine(table, evidence)}


EXPONENTIAL = {"growth": 0.3, "growth_se": 0.03, "growth_evidence": 20.0}
SHORT = {"kept_high": 9.0, "over_data": -1.0}  # the longest horizon is not among the best
AWAY = np.where(np.arange(11) >= 6, -0.8, 0.5) * np.ones((4, 1))  # cosines from horizon 6 on
QUIET: list[tuple[str, list[dict[str, Any]]]] = [
    ("vitals", [vitals()]),
    ("vitals", [vitals(saturation=np.array([0.55, NAN]))]),
    ("vitals", [vitals(zero=np.array([99.0, NAN]))]),
    ("vitals", [vitals(looked=1, zero=np.array([1.0, 0.0]))]),
    ("vitals", [vitals(saturation=np.array([0.1, 0.9]))] * 15),
    ("vitals", [bound(0.86, 0.05), *[bound(1.0, 0.0)] * 14]),  # a young critic
    ("vitals", [bound(0.86, 0.05), *[bound(1.0, 0.0)] * 14, bound(0.4, 0.2)]),
    ("vitals", [bound(0.9, 0.2)] * 16),  # enough gradient is left
    ("vitals", [bound(0.99, 0.001), *[bound(0.1, 0.5)] * 4]),
    ("successive", [burst(4.0, k) for k in range(64)]),
    ("successive", [burst(0.0, 0)]),
    ("measured", [measured()]),
    ("measured", [measured(growth=0.08, growth_se=0.03)]),
    ("measured", [measured(kept_high=10, **EXPONENTIAL)]),
    ("measured", [measured(**SHORT | EXPONENTIAL | {"growth_evidence": 3.0})]),
    ("measured", [measured(lyapunov=0.2, lyapunov_se=0.05)]),
    ("measured", [measured(lyapunov=-float(np.log(0.9)) + 1e-9, lyapunov_se=0.0)]),
    ("measured", [measured(cosine=AWAY, cosine_high=AWAY + 0.7)]),
    ("measured", [measured(**SHORT | {"over_data": 0.2})]),
    ("measured", [measured(cosine=AWAY, starts=63)]),  # intervals cover from 64 on
    ("measured", [measured(critic_gap=0.5, critic_gap_se=0.3)]),
    ("measured", [measured(value=10.1)]),
    ("measured", [measured(), measured(jacobian_error=-0.9)]),
    ("measured", [{"starts": 64, "step": 1, "variance": np.ones((4, 11))}]),
]
LOUD: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("non-finite gradient", "vitals",
     [vitals(nonfinite_updates=2, nonfinite=np.array([0.0, 2.0]))]),
    ("dead path", "vitals", [vitals(zero=np.array([100.0, 0.0]))]),
    ("saturated actor", "vitals", [vitals(saturation=np.array([0.1, 0.9]))] * 16),
    ("saturated actor", "vitals", [bound(0.99, 0.001)]),
    ("saturated actor", "vitals", [bound(0.1, 0.5), *[bound(0.99, 0.001)] * 16]),
    ("gradient no better than noise", "successive", [burst(0.0, k) for k in range(64)]),
    ("variance doubling time", "measured", [measured(**SHORT, **EXPONENTIAL)]),
    ("variance doubling time", "measured", [measured(kept_high=NAN, **EXPONENTIAL)]),
    ("diverging sensitivities", "measured",
     [measured(lyapunov=0.4, float32_step=230.0)]),
    ("wrong direction", "measured", [measured(cosine=AWAY)]),
    ("worse than without a model", "measured", [measured(**SHORT | {"over_data": 1.0})]),
    ("non-finite Jacobian", "measured",
     [measured(jacobian_nonfinite=2, starts_lost=1, nonfinite_where="first at step 3 of start 5")]),
    ("critic-dominated bias", "measured", [measured(critic_gap=2.0, critic_gap_se=0.3)]),
    ("critic beyond its bound", "measured", [measured(value=-12.0)]),
    ("drifting model Jacobian", "measured", [measured(), measured(jacobian_error=0.0)]),
]  # fmt: skip


@pytest.mark.parametrize("table, rows", QUIET)
def test_sound_rows_are_silent(table, rows):
    assert raised(table, *rows) == set()


@pytest.mark.parametrize("kind, table, rows", LOUD)
def test_a_planted_cause_fails_its_check_alone(kind, table, rows):
    assert raised(table, *rows) == {kind}
    (alarm,) = examine(table, Evidence(rows, len(rows), ("0.weight", "b")))
    titled = [each for each in CODES.values() if each.title == kind]
    assert any(each.remedy and alarm.said.endswith(each.remedy) for each in titled)
    assert "nan" not in alarm.said and "{" not in alarm.said


@pytest.mark.parametrize(
    ("cosines", "words"),
    [
        ([-0.8, 0.05, 0.7], "at h = 1 (its sign is shown to be right at 3): "),
        ([0.7, 0.7, -0.8], "at h = 3 (its sign is shown to be right at 1–2): "),
        ([-0.8, -1.08, -0.8], "at h = 1–3: cosine -0.80"),
    ],
)
def test_a_direction_is_of_a_named_gradient_and_says_where_it_is_right(cosines, words):
    """Not at horizons whose sign is open."""
    row = measured(cosine=np.array([0.5, *cosines]) * np.ones((4, 1)), kept_high=3.0)
    found = examine("measured", Evidence([row], 1, ("0.weight",)))
    (alarm,) = [each for each in found if each.title == "wrong direction"]
    assert alarm.said.startswith("The model gradient (first action) at visited states points")
    assert words in alarm.said and "-1.08" not in alarm.said


def test_a_critic_that_errs_against_the_model_makes_no_more_than_all_of_the_bias():
    bias2 = np.ones((4, 11))
    bias2[3] = 3.57
    row = measured(critic_gap=2.0, critic_gap_se=0.3, bias2=bias2)
    (alarm,) = examine("measured", Evidence([row], 1, ("0.weight",)))
    assert alarm.said.startswith("The critic makes 100% of the squared bias of the model")


def test_a_loop_that_follows_the_critic_alone_is_judged_by_its_gradient():
    cosine = np.full((4, 11), -0.8)
    cosine[0, 0] = 0.5
    names = ("0.weight", "b")
    assert not examine("measured", Evidence([measured(cosine=cosine)], 1, names, True))
    cosine[0, 0] = -0.71
    (alarm,) = examine("measured", Evidence([measured(cosine=cosine)], 1, names, True))
    assert alarm.title == "wrong direction" and "cosine -0.71" in alarm.said
    assert "Improve the critic" in alarm.said and "horizon" not in alarm.said
    cosine[0, 0] = -0.05  # half of its interval's width below 0
    assert not examine("measured", Evidence([measured(cosine=cosine)], 1, names, True))
    # A truth near 0 has cosines beyond 1, above the end of their intervals.
    for value in (2.08, -7.1):
        lost = measured(cosine=np.full((4, 11), value), cosine_high=np.ones((4, 11)))
        assert not examine("measured", Evidence([lost], 1, names, True))


def test_no_alarm_speaks_of_horizons_to_a_loop_that_follows_the_critic_alone():
    for _, table, rows in LOUD:
        for alarm in examine(table, Evidence(rows, len(rows), ("0.weight", "b"), True)):
            assert "horizon" not in alarm.said and "model" not in alarm.title.split(" ")[0]


def test_every_alarm_has_a_planted_cause():
    assert {kind for kind, _, _ in LOUD} == {check.code for check in CHECKS}


@pytest.mark.parametrize("test", CHECKS, ids=lambda test: test.code)
def test_an_alarm_reads_columns_of_its_table_and_is_silent_without_one(test):
    assert set(test.needs) <= tables(2, 2, 10)[test.table].columns.keys()
    *earlier, last = next(rows for kind, _, rows in LOUD if kind == test.code)
    for column in test.needs:
        without = {name: value for name, value in last.items() if name != column}
        assert test.code not in raised(test.table, *earlier, without)


def log(stream: io.StringIO, *functions: Any) -> Log:
    found = Log(list(functions), {}, (), (0, None, lambda: 0))
    found.stream = stream
    return found


FOUND = Finding("dead path", "fail", at="0.weight", n=10)


def test_a_failure_is_printed_once_and_stays():
    stream, heard = io.StringIO(), []
    kept = log(stream, heard.append)
    kept.report(replace(FOUND, decision="undecided"), 1, 2)
    for update in range(2, 1001):
        kept.report(replace(FOUND, n=update), update, 2 * update)
    kept.report(replace(FOUND, decision="pass"), 1001, 2002)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("gradlab probe, step 4: dead path: The gradient of 0.weight was exactly")
    (answer,) = kept.failed
    assert (answer.since, answer.update, answer.looks, answer.finding.n) == (4, 1000, 1000, 1000)
    (told,) = heard
    assert told["findings/message"] == FOUND.said.replace("10", "2") and told["step"] == 4


def test_a_failure_before_the_first_marked_update_names_no_step_of_the_loop():
    stream = io.StringIO()
    log(stream).report(FOUND, 0, 0)
    assert stream.getvalue().startswith("gradlab probe, at the beginning: dead path: ")


def test_the_first_origin_of_a_nan_stays():
    """What it has spoilt is an origin, too, from then on."""
    kept = log(io.StringIO())
    kept.report(Finding("nan.operation", "fail", "NaN", at="log"), 7, 7)
    kept.report(Finding("nan.parameter", "fail", "the policy", at="0.weight"), 8, 8)
    assert [each.code for each in kept.failed] == ["nan.operation"]


def test_newer_answers_take_the_place_of_those_before_but_of_failures():
    kept = log(io.StringIO())
    one, two = Finding("a", "undecided", "x"), Finding("b", "fail", "x")
    kept.answer("parts", [one, two], 1, 1)
    kept.answer("parts", [Finding("a", "pass")], 2, 2)
    kept.answer("others", [Finding("c", "pass")], 2, 2)
    assert {key: each.finding.decision for key, each in kept._held.items()} == {
        ("b", "x"): "fail", ("a", ""): "pass", ("c", ""): "pass",
    }  # fmt: skip


# The number of a step: any whole one counts, others are reported and the loop goes on.


@pytest.mark.parametrize("step", [7, 7.0, True, np.int64(7), np.float32(7), torch.tensor(7)])
def test_every_whole_number_is_a_step(step):
    policy, rows = net(), []
    probe = probed(policy, None, rows)
    with probe(step):
        policy(torch.zeros(1, 2)).sum().backward()
    assert type(probe._loop.step) is int and not probe.off


@pytest.mark.parametrize("step", [7.5, float("nan"), float("inf"), "7", None, torch.zeros(2)])
def test_what_is_no_step_is_told_and_the_loop_goes_on(step):
    policy = net()
    probe = gradlab.Probe(policy)
    with pytest.warns(RuntimeWarning, match="expected an integer") as caught:
        for _ in range(3):
            with probe(step):
                policy(torch.zeros(1, 2)).sum().backward()
    assert len(caught) == 1 and probe.off


@pytest.mark.parametrize("prior", [True, False])
def test_a_gradient_is_the_simulators_where_there_is_no_model(prior):
    variance = np.ones((4, 11))
    variance[1] = 1.0 if prior else NAN
    row = measured(variance=variance, kept_high=3, **EXPONENTIAL)
    found = examine("measured", Evidence([row], 1, ("0.weight",)))
    told = {alarm.code: alarm.said for alarm in found}
    whose = f"he {'model' if prior else 'simulator'} gradient (first action)"
    for kind in ("variance doubling time", "worse than without a model"):
        assert whose in told[kind] and ("model gradient" in told[kind]) is prior
