"""An alarm is raised by its planted cause alone, and sound rows raise none.

Thresholds that the catalogue of alarms and the guide name are the constants of the code.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gradlab
from gradlab.findings import CODES
from gradlab.probe import critics
from gradlab.probe.alarms import catalogue, evidence, task
from gradlab.probe.alarms import catalogue as of_steps
from gradlab.probe.alarms.catalogue import ALARMS, examine
from gradlab.probe.alarms.evidence import Alarm, AlarmEvidence
from gradlab.probe.parts import (
    formula,
    implied,
    loss_weights,
    matched,
    moves,
    objectives,
    parts,
    recorder,
)
from gradlab.probe.parts import rows as stored
from gradlab.probe.row_sinks import AlarmLog, NoSink
from gradlab.probe.update_statistics import PAIRS, Burst
from gradlab.runs.probe.returns import LEAST, TRAINED, WINDOW
from gradlab.runs.probe.schema import tables
from tests.probe.planted_rows import NAN, bound, burst, measured, steps, vitals
from tests.probe.small_loops import net, probed


def raised(table: str, *rows: Mapping[str, Any]) -> set[str]:
    evidence = AlarmEvidence(list(rows), len(rows), ("0.weight", "b"))
    return {alarm.kind for alarm in examine(table, evidence)}


EXPONENTIAL = {"growth": 0.3, "growth_se": 0.03, "growth_evidence": 20.0}
SHORT = {"kept_high": 9.0, "over_data": -1.0}  # the longest horizon is not among the best
AWAY = np.where(np.arange(11) >= 6, -0.8, 0.5) * np.ones((4, 1))  # cosines from horizon 6 on
QUIET: list[tuple[str, list[dict[str, Any]]]] = [
    ("vitals", [vitals()]),
    ("vitals", [vitals(saturation=np.array([0.55, NAN]))]),
    ("vitals", [vitals(zero=np.array([99.0, NAN]))]),
    ("vitals", [vitals(looked=1, zero=np.array([1.0, 0.0]))]),
    ("vitals", [vitals(model_gradients=0, model_shared=0)]),
    ("vitals", [vitals(saturation=np.array([0.1, 0.9]))] * 15),
    ("vitals", [bound(0.86, 0.05), *[bound(1.0, 0.0)] * 14]),  # a young critic
    ("vitals", [bound(0.86, 0.05), *[bound(1.0, 0.0)] * 14, bound(0.4, 0.2)]),
    ("vitals", [bound(0.9, 0.2)] * 16),  # enough gradient is left
    ("vitals", [bound(0.99, 0.001), *[bound(0.1, 0.5)] * 4]),
    ("vitals", [steps()]),
    ("vitals", [steps(still=np.array([24.0, NAN]))]),
    ("vitals", [steps(still=np.array([25.0, 0.0]), zero=np.array([80.0, 0.0]))]),
    ("vitals", [steps(stepped=1, still=np.array([1.0, 1.0]))]),
    # A log σ at its bound: steps along what is left of its gradient round to 0.
    ("vitals", [steps(still=np.array([25.0, 0.0]), layer_norm=np.array([5e-4, 1.0]))]),
    ("vitals", [steps(still=np.array([0.0, NAN]))]),
    ("vitals", [steps(critic_stepped=1, critic_still=1)]),
    ("vitals", [steps(update_ratio=0.01, critic_ratio=0.01)]),
    ("vitals", [steps(update_ratio=0.1, critic_ratio=0.1)]),  # θ begins near 0
    ("vitals", [steps(update_ratio=NAN, critic_ratio=NAN)]),
    ("successive", [burst(4.0, k) for k in range(64)]),
    ("successive", [burst(0.0, 0)]),
    ("successive", [burst(4.0, k, dead_inputs=3) for k in range(2)]),
    ("vitals", [vitals(outputs=2, dead_outputs=2)]),
    ("vitals", [vitals(outputs=2, dead_outputs=1, looked=99)]),
    ("measured", [measured()]),
    ("measured", [measured(growth=0.08, growth_se=0.03)]),
    ("measured", [measured(kept_high=10, **EXPONENTIAL)]),
    ("measured", [measured(**SHORT | EXPONENTIAL | {"growth_evidence": 3.0})]),
    ("measured", [measured(lyapunov=0.2, lyapunov_se=0.05)]),
    ("measured", [measured(lyapunov=-float(np.log(0.9)) + 1e-9, lyapunov_se=0.0)]),
    ("measured", [measured(cosine=AWAY, cosine_high=AWAY + 0.7)]),
    ("measured", [measured(**SHORT | {"over_data": 0.2})]),
    ("measured", [measured(cosine=AWAY, starts=63)]),  # intervals cover from 64 on
    ("measured", [measured(float32_error=0.2)]),
    ("measured", [measured(float32_error=0.005, sampling_error=0.001)]),
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
    ("actor does not move", "vitals", [steps(still=np.array([25.0, 25.0]))]),
    ("actor does not move", "vitals", [steps(still=np.array([25.0, NAN]))]),
    ("actor moves in part", "vitals",
     [steps(still=np.array([25.0, 0.0]), layer_norm=np.array([2e-3, 1.0]))]),
    # the gradient that nobody clears outgrows that of what moves
    ("actor moves in part", "vitals",
     [steps(still=np.array([25.0, 0.0]), layer_norm=np.array([1.0, 1e-6]))]),
    ("actor moves in part", "vitals", [steps(still=np.array([NAN, 0.0, NAN]), zero=np.zeros(3))]),
    ("critic does not move", "vitals", [steps(critic_still=50)]),
    ("critic does not move", "vitals",
     [steps(critic_steps=0, critic_looked=0, critic_stepped=0, critic_ratio=NAN)]),
    ("learning rate too large", "vitals", [steps(update_ratio=0.03, learning_rate=0.03)]),
    ("critic's learning rate too large", "vitals", [steps(critic_ratio=0.03, critic_rate=0.03)]),
    ("θ leaks into the model", "vitals", [vitals(model_gradients=3)]),
    ("θ leaks into the model", "vitals", [vitals(model_shared=1)]),
    ("gradient no better than noise", "successive", [burst(0.0, k) for k in range(64)]),
    ("dead inputs", "successive", [burst(4.0, k, dead_inputs=3) for k in range(3)]),
    ("dead outputs", "vitals", [vitals(outputs=2, dead_outputs=1)]),
    ("variance doubling time", "measured", [measured(**SHORT, **EXPONENTIAL)]),
    ("variance doubling time", "measured", [measured(kept_high=NAN, **EXPONENTIAL)]),
    ("diverging sensitivities", "measured",
     [measured(lyapunov=0.4, float32_step=230.0)]),
    ("wrong direction", "measured", [measured(cosine=AWAY)]),
    ("worse than without a model", "measured", [measured(**SHORT | {"over_data": 1.0})]),
    ("non-finite Jacobian", "measured",
     [measured(jacobian_nonfinite=2, starts_lost=1, nonfinite_where="first at step 3 of start 5")]),
    ("precision-limited", "measured", [measured(float32_error=0.5)]),
    ("critic-dominated bias", "measured", [measured(critic_gap=2.0, critic_gap_se=0.3)]),
    ("critic beyond its bound", "measured", [measured(value=-12.0)]),
    ("drifting model Jacobian", "measured", [measured(), measured(jacobian_error=0.0)]),
    ("dead action", "measured", [measured(dead_action=np.array([0.0, 1.0]))]),
]  # fmt: skip


@pytest.mark.parametrize("norm, code", [(1e-9, "gradient of rounding"),
                                        (1.0, "actor moves in part")])  # fmt: skip
def test_a_gradient_of_rounding_is_no_tensor_that_the_optimiser_lacks(norm, code):
    row = steps(still=np.array([25.0, 0.0]), layer_norm=np.array([norm, norm]), grad_norm=norm)
    (alarm,) = examine("vitals", AlarmEvidence([row], 1, ("0.weight", "b")))
    assert alarm.kind == "actor moves in part" and alarm.message.endswith(CODES[code].remedy)


@pytest.mark.parametrize("table, rows", QUIET)
def test_sound_rows_are_silent(table, rows):
    assert raised(table, *rows) == set()


@pytest.mark.parametrize("kind, table, rows", LOUD)
def test_a_planted_cause_raises_its_alarm_alone(kind, table, rows):
    assert raised(table, *rows) == {kind}
    (alarm,) = examine(table, AlarmEvidence(rows, len(rows), ("0.weight", "b")))
    titled = [each for each in CODES.values() if each.title == kind]
    assert any(each.remedy and alarm.message.endswith(each.remedy) for each in titled)
    assert "nan" not in alarm.message and "{" not in alarm.message


@pytest.mark.parametrize(
    ("cosines", "words"),
    [
        ([-0.8, 0.05, 0.7], "at h = 1 (its sign is shown to be right at 3): "),
        ([0.7, 0.7, -0.8], "at h = 3 (its sign is shown to be right at 1–2): "),
        ([-0.8, -1.08, -0.8], "at h = 1–3: cosine −0.80"),
    ],
)
def test_a_direction_is_of_a_named_gradient_and_says_where_it_is_right(cosines, words):
    """Not at horizons whose sign is open."""
    row = measured(cosine=np.array([0.5, *cosines]) * np.ones((4, 1)), kept_high=3.0)
    found = examine("measured", AlarmEvidence([row], 1, ("0.weight",)))
    (alarm,) = [each for each in found if each.kind == "wrong direction"]
    assert alarm.message.startswith("The model gradient (first action) at visited states points")
    assert words in alarm.message and "−1.08" not in alarm.message


def test_a_critic_that_errs_against_the_model_makes_no_more_than_all_of_the_bias():
    bias2 = np.ones((4, 11))
    bias2[3] = 3.57
    row = measured(critic_gap=2.0, critic_gap_se=0.3, bias2=bias2)
    (alarm,) = examine("measured", AlarmEvidence([row], 1, ("0.weight",)))
    assert alarm.message.startswith("The critic makes 100% of the squared bias of the model")


def test_a_loop_that_follows_the_critic_alone_is_judged_by_its_gradient():
    cosine = np.full((4, 11), -0.8)
    cosine[0, 0] = 0.5
    names = ("0.weight", "b")
    assert not examine("measured", AlarmEvidence([measured(cosine=cosine)], 1, names, True))
    cosine[0, 0] = -0.71
    (alarm,) = examine("measured", AlarmEvidence([measured(cosine=cosine)], 1, names, True))
    assert alarm.kind == "wrong direction" and "cosine −0.71" in alarm.message
    assert "Improve the critic" in alarm.message and "horizon" not in alarm.message
    cosine[0, 0] = -0.05  # half of its interval's width below 0
    assert not examine("measured", AlarmEvidence([measured(cosine=cosine)], 1, names, True))
    # A truth near 0 has cosines beyond 1, above the end of their intervals.
    for value in (2.08, -7.1):
        lost = measured(cosine=np.full((4, 11), value), cosine_high=np.ones((4, 11)))
        assert not examine("measured", AlarmEvidence([lost], 1, names, True))


def test_no_alarm_speaks_of_horizons_to_a_loop_that_follows_the_critic_alone():
    for _, table, rows in LOUD:
        for alarm in examine(table, AlarmEvidence(rows, len(rows), ("0.weight", "b"), True)):
            assert "horizon" not in alarm.message and "model" not in alarm.kind.split(" ")[0]


def test_every_alarm_has_a_planted_cause():
    assert {kind for kind, _, _ in LOUD} == {test.kind for test in ALARMS}


@pytest.mark.parametrize("test", ALARMS, ids=lambda test: test.kind)
def test_an_alarm_reads_columns_of_its_table_and_is_silent_without_one(test):
    assert set(test.columns) <= tables(2, 2, 10)[test.table].columns.keys()
    *earlier, last = next(rows for kind, _, rows in LOUD if kind == test.kind)
    for column in test.columns:
        without = {name: value for name, value in last.items() if name != column}
        assert test.kind not in raised(test.table, *earlier, without)


def test_an_alarm_is_reported_again_only_after_twice_the_updates():
    stream, log = io.StringIO(), AlarmLog(NoSink(), ())
    log.stream = stream
    for update in range(1, 1001):
        log.report(Alarm("kind", f"for {update} updates"), update, update)
    assert [alarm.message for alarm in log.alarms] == [f"for {2**k} updates" for k in range(10)]
    assert [alarm.step for alarm in log.alarms] == [2**k for k in range(10)]
    log.report(Alarm("another", "message"), 1001, 1001)
    assert len(log.alarms) == 11


def test_an_alarm_is_printed_once_and_its_count_at_the_end():
    stream, log = io.StringIO(), AlarmLog(NoSink(), ())
    log.stream = stream
    for update in range(1, 1001):
        log.report(Alarm("kind", f"{0.5 / update:.1e} of 0"), update, 2 * update)
    log.report(Alarm("kind", "another cause"), 1024, 2048)
    log.report(Alarm("another", "message"), 1001, 2002)
    first = "gradlab probe, step"
    lines = [f"{first} 2: kind: 5.0e-01 of 0", f"{first} 2048: kind: another cause",
             f"{first} 2002: another: message"]  # fmt: skip
    assert stream.getvalue().splitlines() == lines
    log.close()
    count = "reported 10 times, from step 2 to 1,024"
    assert stream.getvalue().splitlines() == [*lines, f"gradlab probe: kind: {count}"]
    log.close()
    assert len(stream.getvalue().splitlines()) == 4


def test_an_alarm_before_the_first_marked_update_names_no_step_of_the_loop():
    """Its loop's first update may well be step 300."""
    stream, log = io.StringIO(), AlarmLog(NoSink(), ())
    log.stream = stream
    for update, step in ((0, 0), (2, 300)):
        log.report(Alarm("kind", "message"), update, step)
    log.close()
    assert stream.getvalue().splitlines() == [
        "gradlab probe, at the beginning: kind: message",
        "gradlab probe: kind: reported 2 times, from the beginning to 300",
    ]


def test_every_alarm_has_its_row_in_the_examples():
    page = Path(__file__).parents[2] / "examples" / "alarms.md"
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| ")]
    named = {name.strip() for row in rows for name in row.split(",")}
    assert {alarm.kind for alarm in ALARMS} | {*evidence.CAUSES} <= named


# The number of a step: any whole one counts, others are reported and the loop goes on.


@pytest.mark.parametrize("step", [7, 7.0, True, np.int64(7), np.float32(7), torch.tensor(7)])
def test_every_whole_number_is_a_step(step):
    policy, rows = net(), []
    probe = probed(policy, None, rows)
    with probe(step):
        policy(torch.zeros(1, 2)).sum().backward()
    assert type(probe._updates.step) is int and not probe.off


@pytest.mark.parametrize("step", [7.5, float("nan"), float("inf"), "7", None, torch.zeros(2)])
def test_what_is_no_step_is_told_and_the_loop_goes_on(step):
    policy = net()
    probe = gradlab.Probe(policy)
    with pytest.warns(RuntimeWarning, match="expected an integer") as caught:
        for _ in range(3):
            with probe(step):
                policy(torch.zeros(1, 2)).sum().backward()
    assert len(caught) == 1 and probe.off


@pytest.mark.parametrize("lost", [(), (0,), (32,), (0, 32), (0, 8, 16, 24), (0, 8, 16, 24, 32)])
def test_a_gradient_that_is_not_finite_hides_no_dead_input(lost):
    """The second input is 0 in every batch, the third in all but the one of update 16."""
    layer = torch.nn.Linear(3, 1)
    burst = Burst(list(layer.parameters()), ["weight", "bias"], PAIRS)
    for k in range(PAIRS + 1):
        layer.weight.grad = torch.tensor([[1.0, 0.0, float(k == 16)]])
        layer.bias.grad = torch.ones(1) * (NAN if k in lost else 1.0)
        if k in lost:
            layer.weight.grad.fill_(NAN)
        burst.see(None)
        burst.commit()
    seen = {0, 8, 16, 24, 32} - {*lost}
    dead = [1, *([] if 16 in seen else [2])] if len(seen) > 1 else []
    row = burst.row()
    assert row["dead_inputs"] == len(dead)
    assert row["dead_where"] == (f"weight: {', '.join(map(str, dead))}" if dead else "")


@pytest.mark.parametrize("prior", [True, False])
def test_a_gradient_is_the_simulators_where_there_is_no_model(prior):
    variance = np.ones((4, 11))
    variance[1] = 1.0 if prior else NAN
    row = measured(variance=variance, kept_high=3, **EXPONENTIAL)
    found = examine("measured", AlarmEvidence([row], 1, ("0.weight",)))
    told = {alarm.kind: alarm.message for alarm in found}
    whose = f"he {'model' if prior else 'simulator'} gradient (first action)"
    for kind in ("variance doubling time", "worse than without a model"):
        assert whose in told[kind] and ("model gradient" in told[kind]) is prior


WORDS = {3: "three", 4: "four", 5: "five", 8: "eight", 10: "ten", 16: "sixteen", 60: "sixty"}


def test_thresholds_on_the_pages_are_those_of_the_code():
    said = {
        "dead outputs": [f"≥ {catalogue._MANY} updates"],
        "dead path": [f"≥ {catalogue._FEWEST_BURSTS} updates"],
        "actor does not move": [f"≥ {of_steps._FEWEST} steps"],
        "learning rate too large": [
            f"more than {of_steps._LONG:.0%} of", f"a rate of {of_steps._HIGH} or more",
        ],
        "dead inputs": [f"in {WORDS[catalogue._PERSISTENT]} bursts"],
        "exploding gradient": [
            f"{WORDS[catalogue.STRETCHES]} stretches of {catalogue.STRETCH} updates in a row",
            f"{WORDS[int(catalogue.FOURFOLD)]} times", f"{WORDS[catalogue.LAG]} stretches before",
        ],
        "exploding critic": [f"its first {critics._YOUNG * catalogue.STRETCH} updates"],
        "saturated actor": [
            f"under {catalogue._BORN:.0%} through", f"last {catalogue._RECENT} rows",
            f"under {catalogue._COST:.0%} gets through",
        ],
        "gradient no better than noise": [f"less than {catalogue.NOISE:.0%} in common"],
        "falling return": [
            f"in {WORDS[of_steps.IN_A_ROW]} windows", f"{WINDOW} whole episodes",
            f"or {TRAINED} of training", f"{LEAST} updates or more", f"at {of_steps._LEVEL:.1%}",
        ],
        "another policy is trained": [f"{moves._RESTED} steps"],
        "environment is not reset": [f"{recorder._BEYOND} steps in a row"],
        "stored rows differ": [
            f"half of the newest {stored.NEWEST * stored.ENOUGH} rows, {stored.ENOUGH} at least "
            f"({stored.NEWEST * stored.ENDS} and {stored.ENDS} of those that end)",
            f"in {stored.ENDS} looks", {0.1: "a tenth"}[stored._MIXED],
            f"more than {stored._ALL:.0%} of the rows", f"{WORDS[stored._REPEATED]} looks in a row",
            f"among {stored._BESIDE} recorded rows",
            f"under {matched._PAID}, and under {matched._AGAIN} with",
            f"{WORDS[int(matched._WIDTH)]} dev",
        ],
        "targets are crossed": [
            f"above {moves._ALONG}", f"under {moves._ASIDE}", f"in {moves._LOOKS} looks",
        ],
        "optimiser's step is another formula's": [f"≥ {formula._FEWEST} looks at one tensor"],
        "network moves without a step": [f"≥ {moves._FEWEST} looks"],
        "gradients are not cleared": [f"≥ {moves._FEWEST} looks"],
        "targets follow too fast": [f"{moves._LOOKS} looks in a row"],
        "critic does not move": [f"{moves._LOOKS} looks and {moves._UNDECLARED} updates"],
        "twin critics are one": [f"{moves._LOOKS} looks in a row"],
        "targets do not move": [f"{moves._LOOKS} looks and {moves._UNDECLARED} updates"],
        "actor's steps move another network": [f"≥ {moves._FEWEST} looks"],
        "actor does not follow its critic": [f"≥ {objectives._LOOKED} looks"],
        "actor's steps lower their objective": [
            f"({objectives.WRONG:.0%} rise)", f"({objectives.SOUND:.0%})",
            f"under {objectives.LEAST:.0%} of {objectives.LOOKS} rise",
            f"e{'⁰¹²³⁴'[int(objectives._FITTED)]} each, one look in {WORDS[objectives.REFIT]}",
        ],
        "wrong weights of actions": [
            f"correlation under −{-loss_weights.WRONG}", f"value above {loss_weights.VALUED}",
            f"{loss_weights.BESIDE:g} times as much", f"in {loss_weights.LOOKS} minibatches",
            f"in {loss_weights.LOOKS} of them",
        ],
        "wrong density": [f"≥ {objectives.FITS} looks"],
        "wrong advantages": [
            f"{implied._MOST:.0%} of the newest ends, {implied.ENDS} at least",
            f"{implied._MOST:.0%} of the newest {implied._BATCHES} minibatches",
        ],
        "critic learns another reward": [
            f"under {implied._NOTHING} of it in {implied.TIMES} looks {implied.APART} updates "
            f"apart from update {implied.FIRST} on", f"{implied._NOTHING} to {implied.LOW},",
            f"at update {implied._SLOW:,} or under −{implied.LOW}",
        ],
        "wrong direction": [f"from {evidence.FEWEST} starts on"],
        "precision-limited": [f"more than {task._PRECISE:.0%} off"],
    }  # fmt: skip
    root = Path(__file__).parents[2]
    lines = (root / "examples" / "alarms.md").read_text().splitlines()
    for kind, each in said.items():
        (row,) = [line for line in lines if line.startswith(f"| {kind} |")]
        assert [part for part in each if part not in row] == [], kind
    page = " ".join((root / "docs" / "watch.md").read_text().split())
    for part in (
        f"that rest ({moves._UNDECLARED} updates,",
        f"up to {WORDS[matched._SUM]} rewards", f"at {recorder._BEYOND} steps in a row",
        f"from update {implied.FIRST + (implied.TIMES - 1) * implied.APART} on",
        f"from update {implied._SLOW:,} on",
        f"windows have under {LEAST} updates",
        f"A window is {WORDS[WINDOW]} episodes", f"in windows of {WORDS[TRAINED]}",
        f"At every {WORDS[parts._EVERY]}th update", f"first {WORDS[parts.FIRST]} looks",
    ):  # fmt: skip
        assert part in page
