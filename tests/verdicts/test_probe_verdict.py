"""What a probe's run decides: planted numbers, causes before symptoms, no green without a look."""

from math import log, sqrt

import numpy as np
import pytest

from gradlab.findings import CODES, Finding
from gradlab.reporting.probe_page import PANELS
from gradlab.runs.probe.results import load
from gradlab.runs.probe.schema import ESTIMATORS, FEWEST, HALF
from gradlab.statistics.intervals import Z
from gradlab.verdicts.probe.findings import (
    OF_INTERVALS,
    UPSTREAM,
    followed,
    rank,
    verdict,
    void,
)
from gradlab.verdicts.probe.screen import SEEN_IN, screen
from tests.probe.planted_probe import (
    H,
    answer,
    burst,
    everything,
    measurement,
    window,
    written,
)


@pytest.fixture
def said(tmp_path):
    """The finding of a code, of a run of these tables; None where there is none."""
    numbers = iter(range(100))

    def sentence(code, **tables):
        run = load(written(tmp_path / f"{next(numbers)}.h5", tables))
        found = [each for each in verdict(run) if each.code == f"probe.{code}"]
        assert len(found) < 2
        return found[0] if found else None

    return sentence


@pytest.fixture
def measured(said):
    return lambda code, **changes: said(code, measured=[measurement(400, **changes)])


@pytest.fixture
def first(tmp_path):
    """The recommendation of a run of these tables, without a task."""
    return lambda **tables: screen(
        load(written(tmp_path / "first.h5", tables, horizon=None, task=""))
    )


def codes(found):
    return [each.code.removeprefix("probe.") for each in found]


def test_what_stops_everything_comes_first_and_every_number_has_its_interval_and_n(tmp_path):
    found = verdict(load(written(tmp_path / "run.h5", everything())))
    assert codes(found) == [
        "dead path", "saturated actor", "return rose", "return risen", "non-finite gradients",
        "saturation", "batch", "moved_own", "horizon", "cost",
    ]  # fmt: skip
    for each in found:
        if np.isfinite(each.low):
            assert each.low <= each.value <= each.high and each.n > 1, each
        assert not {"nan", "{", "inf"} & {*each.said.split()}


def test_without_rows_or_a_task_nothing_is_said_of_them(tmp_path):
    assert codes(verdict(load(written(tmp_path / "a.h5", {})))) == ["no alarm"]
    rows = {k: v for k, v in everything().items() if k in ("vitals", "successive")}
    told = verdict(load(written(tmp_path / "b.h5", rows, horizon=None, task="")))
    assert codes(told) == ["no alarm", "non-finite gradients", "saturation", "batch", "cost"]
    (row,) = rows["vitals"][:1]
    bare = row | {"update_ratio": np.nan, "saturation": np.full(2, np.nan)}
    told = verdict(load(written(tmp_path / "c.h5", {"vitals": [bare]})))
    assert [each.code for each in told if each.decision == "skipped"] == [
        "probe.no optimiser", "probe.no limit",
    ]  # fmt: skip


def test_a_clean_run_says_how_many_bad_gradients_it_cannot_exclude(said):
    found = said("non-finite gradients", vitals=[window(k) for k in range(1, 31)])
    assert found.decision == "pass" and found.n == 3000
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 3000))
    bad = said("non-finite gradients", vitals=[window(1), window(2, nonfinite_updates=7)])
    assert bad.decision == "fail" and bad.value == 7 / 200


@pytest.mark.parametrize(("share", "windows"), [(0.9, 10), (0.1, 10), (0.55, 2)])
def test_saturation_is_that_of_late(said, share, windows):
    early = [window(k, saturation=np.array([1 - share, 0.0])) for k in range(1, 20)]
    late = [window(19 + k, saturation=np.array([0.0, share])) for k in range(1, windows + 1)]
    found = said("saturation", vitals=late if windows < 10 else early + late)
    margin = sqrt(log(2 / 0.05) / (2 * 25 * windows))
    assert found.at == "1" and found.n == 25 * windows
    decided = "fail" if share > HALF else "pass"
    assert found.decision == (decided if abs(share - HALF) > margin else "undecided")


def test_noise_is_told_from_a_signal_that_is_not_yet_seen(said):
    old, new = [burst(40 * k, 0.9) for k in range(1, 9)], [burst(40 * k) for k in range(9, 19)]
    found = said("batch", successive=old + new)
    ends = (0.4 - Z * 0.02 / sqrt(10), 0.4 + Z * 0.02 / sqrt(10))
    assert (found.low, found.high) == pytest.approx([*map(sqrt, ends)])
    assert (found.at, found.n, found.decision) == ("steps 359–719", 320, "pass")
    noise = said("signal", successive=[burst(40 * k, 1e-3, 5e-3) for k in range(1, 11)])
    assert noise.decision == "fail"
    unknown = said("signal", successive=[burst(40, 0.03, 0.03)])
    assert unknown.decision == "undecided" and unknown.more == 220  # 32 ((1.96 + 0.84)² − 1)
    assert said("batch", successive=[burst(40) | {"fresh": 16}]).n == 16
    lost = burst(80) | {"energy": np.nan, "signal_share": np.nan, "share_se": np.nan}
    assert said("batch", successive=[lost]) is said("signal", successive=[lost]) is None


@pytest.mark.parametrize(
    ("code", "changes", "decision", "value"),
    [
        ("no truth", dict(chosen_horizon=np.nan, chosen_estimator=np.nan), "undecided", None),
        ("horizon", dict(kept_low=0, kept_high=4, kept=np.ones((4, 5))), "undecided", 2),
    ],
)  # fmt: skip
def test_a_measurement_says_what_was_planted_and_whether_it_is_decided(
    measured, code, changes, decision, value
):
    found = measured(code, **changes)
    assert found.decision == decision and "inf" not in found.said
    assert value is None or found.value == pytest.approx(value)


@pytest.mark.parametrize("starts", [FEWEST // 2, FEWEST])
def test_what_rests_on_intervals_decides_from_enough_starts_only(tmp_path, starts):
    found = verdict(
        load(written(tmp_path / "run.h5", {"measured": [measurement(4, starts=starts)]}))
    )
    resting = [each for each in found if each.code in OF_INTERVALS]
    assert len(resting) > 0 and any(each.decision == "pass" for each in resting) is (
        starts == FEWEST
    )


@pytest.mark.parametrize("changes", [{"reward_max": 0.0, "truth_norm": 0.0}, {"truth_norm": 0.0}])
def test_what_leaves_nothing_to_decide_is_said_first_and_alone(changes, tmp_path):
    rows = {k: v for k, v in everything().items() if k != "findings"}
    assert void(load(written(tmp_path / "sound.h5", rows))) == []
    rows["measured"] = [measurement(900, **changes)]
    run = load(written(tmp_path / "run.h5", rows))
    found, told = screen(run), verdict(run)
    assert found.light == "none" and [each.name for each in found.fields] == ["finding"]
    assert told[0].said == found.field("finding")
    assert "horizon" not in codes(told)


def test_what_is_upstream_comes_first_with_its_step_and_what_to_do(first):
    """A frozen target saturates the actor, and not the other way round."""
    rows = [
        answer(0, 500, "saturated actor"), answer(1, 400, "falling return"),
        answer(2, 600, "moved_target_frozen", subject="target critic"),
    ]  # fmt: skip
    found = first(vitals=[window(1)], findings=rows)
    assert found.light == "none" and found.field("since") == "step 599"
    assert [each.code for each in found.rest][:3] == [
        "moved_target_frozen", "falling return", "saturated actor",
    ]  # fmt: skip
    assert found.field("also") == "falling return at step 399; saturated actor at step 499"


def test_what_is_lost_comes_before_everything(first):
    rows = [answer(0, 500, "moved_target_frozen"), answer(1, 700, "nan.negative", subject="log")]
    found = first(vitals=[window(1)], findings=[*rows, answer(2, 900, "dead path")])
    assert found.field("finding").startswith("The log of a negative number is NaN")
    assert found.field("since") == "step 699"
    assert found.field("look at") == CODES["nan.negative"].remedy


def test_a_law_that_breaks_later_comes_after_what_had_failed_before(first):
    """Laws are asked after 20 and 200 updates: an actor that its entropy's sign has ruined."""
    early, late = answer(0, 100, "actor.entropy.negated"), answer(1, 400, "actor.gradient.zero")
    vitals = [window(k) for k in range(1, 6)]
    told = first(vitals=vitals, findings=[late, early]).rest
    assert [each.code for each in told][:2] == ["actor.entropy.negated", "actor.gradient.zero"]
    told = first(vitals=vitals, findings=[early, late | {"since": 99}]).rest
    assert told[0].code == "actor.gradient.zero", "at the same asking what is upstream"


def test_of_equals_what_was_first_seen_comes_first(first):
    rows = [answer(0, 700, "stored_zero"), answer(1, 500, "stored_negated")]
    found = first(vitals=[window(1)], findings=rows)
    assert found.field("since") == "step 499" and found.field("also") == "stored rows at step 699"


def test_every_code_has_a_rank():
    assert UPSTREAM[-1] == "*" and len(set(UPSTREAM)) == len(UPSTREAM)
    known = [code for code in CODES if code.startswith(("nan.", "moved_", "stored_"))]
    assert known and all(rank(Finding(code, "fail")) < len(UPSTREAM) - 1 for code in known)


@pytest.mark.parametrize("share", [0.03, 0.4, 0.97])
def test_no_alarm_is_amber_and_prints_no_number_without_information(first, share):
    found = first(vitals=[window(1)], successive=[burst(40 * k, share) for k in range(1, 9)])
    assert found.light == "choose" and found.field("return") == "unknown"
    assert found.field("step").startswith("One batch has cosine ")
    assert found.field("finding") == "no alarm; the loop's parts were not declared"


def test_every_check_is_a_row_with_its_decision(first):
    states = ["pass", "undecided", "skipped", "pass"]
    rows = [answer(k, 100, f"check {k}", state) for k, state in enumerate(states)]
    rows.append(answer(9, 50, "", "skipped"))  # whose place another answer has taken
    found = first(vitals=[window(1)], findings=rows)
    told = [each for each in found.rest if each.code.startswith("check ")]
    assert [each.decision for each in told] == states and "" not in codes(found.rest)
    assert found.field("finding") == "no alarm; 2 of 4 checks passed"


def test_a_saturated_actor_whose_return_rises_is_watched_and_no_fault(first):
    """The best policy of a pendulum's swing-up switches between its limits."""
    rows = {"vitals": [window(1)], "returns": everything()["returns"]}
    raised = [answer(0, 100, "saturated actor")]
    found = first(**rows, findings=raised)
    watched = "watch the actor, while the return rises: saturated actor at step 99; "
    assert found.light == "choose" and found.field("finding").startswith(watched)
    lower = [{**row, "value": -row["value"]} for row in rows["returns"]]
    assert first(**rows | {"returns": lower}, findings=raised).light == "none"
    more = [*raised, answer(1, 100, "dead path")]
    assert first(**rows, findings=more).light == "none"


def test_the_cost_is_told_with_the_schedule(said):
    found = said("cost", vitals=[window(k) for k in range(1, 31)])
    assert (found.value, found.n, found.decision) == (0.04, 50, "pass")


# What a loop is told that follows the critic alone, as SAC, TD3 and DDPG do.


SE = 0.05
LONGER = {"model": [0.1, 0.3, 0.7, 0.75], "true_dynamics": [0.8, 0.9, 0.95, 0.95]}


def judged(update, critic, longer=LONGER, **more):
    """A measurement with these cosines, the critic's at h = 0."""
    value = np.full((len(ESTIMATORS), H + 1), np.nan)
    value[0, 0] = critic
    for name, over in longer.items():
        value[ESTIMATORS.index(name), 1:] = over
    return measurement(
        update, cosine=value, cosine_low=value - 2 * SE, cosine_high=value + 2 * SE, **more,
    )  # fmt: skip


def followed_run(path, *measured, findings=(), alone=True, returns=()):
    rows = {"vitals": [window(k) for k in range(1, 31)], "measured": measured}
    rows |= {"findings": findings, "returns": returns}
    return load(written(path, rows, critic_alone=alone))


def test_the_step_is_of_the_gradient_that_the_loop_follows(tmp_path):
    raised = [answer(0, 400, "wrong direction")]
    found = screen(followed_run(tmp_path / "run.h5", judged(400, -0.71), findings=raised))
    assert found.field("step") == (
        "At step 399 a step along the actor's gradient lowered the return: cosine -0.71 (CI -0.81 "
        "to -0.61), from 64 starts."
    )
    assert found.field("next") == "Improve the critic if this lasts."
    assert found.light == "none" and found.figure == "cosine"


@pytest.mark.parametrize(
    ("critic", "decision", "light"),
    [(-0.71, "fail", "none"), (0.71, "pass", "act"), (0.05, "undecided", "choose")],
)
def test_the_newest_measurement_decides(tmp_path, critic, decision, light):
    raised = [answer(0, 400, "wrong direction")]
    measured = judged(400, -critic), judged(3000, critic)
    found = followed_run(tmp_path / "run.h5", *measured, findings=raised)
    own = followed(found)
    assert own is not None and own.decision == decision and screen(found).light == light
    assert own.value == critic and own.at == "step 2,999" and own in verdict(found)


def test_another_fault_comes_first_and_the_direction_after_it(tmp_path):
    raised = [answer(0, 500, "dead path"), answer(1, 600, "wrong direction")]
    found = screen(followed_run(tmp_path / "run.h5", judged(400, -0.71), findings=raised))
    assert found.field("finding").startswith("The gradient of action 0 was exactly 0")
    assert "lowered the return" in found.field("also")


def test_a_failure_of_a_gradient_that_the_loop_need_not_follow_is_no_fault_of_it(tmp_path):
    raised = [answer(0, 400, "variance doubling time")]
    found = screen(
        followed_run(tmp_path / "run.h5", measurement(400), findings=raised, alone=False)
    )
    assert found.light == "choose"
    assert found.field("finding").startswith("if the loop follows first-action gradients")


def test_every_figure_of_a_failure_is_a_panel():
    assert {*SEEN_IN.values()} <= {*PANELS}


@pytest.mark.parametrize("low, weighs", [(0.3, True), (-0.2, False), (np.nan, False)])
@pytest.mark.parametrize("share, cell, words", [
    (0.8, (0, 0), "weigh the critic's own gradient above the model's"),
    (0.2, (1, -1), "steps above the critic's own gradient"),
])  # fmt: skip
def test_no_gradient_whose_direction_is_unknown_is_weighed_above_another(
    tmp_path, low, weighs, share, cell, words
):
    ends = dict(weight_zero=share, weight_zero_low=share - 0.1, weight_zero_high=share + 0.1)
    row = measurement(400, **ends)
    row["cosine_low"] = row["cosine_low"].copy()
    row["cosine_low"][cell] = low
    run = load(written(tmp_path / "run.h5", everything() | {"findings": [], "measured": [row]}))
    assert (words in screen(run).field("next")) == weighs
