"""What a probe's run decides: planted numbers, causes before symptoms, no green without a look."""

from math import exp, log, sqrt

import numpy as np
import pytest

from gradlab.findings import CODES
from gradlab.probe.alarms.catalogue import ALARMS, ENDED, HALF, LOST_CRITIC
from gradlab.probe.alarms.evidence import (
    DESCENT,
    FEWEST,
    FROZEN,
    STORED,
    AlarmEvidence,
)
from gradlab.runs.probe.results import load
from gradlab.statistics.intervals import Z
from gradlab.verdicts.probe.findings import OF_INTERVALS, verdict, void
from gradlab.verdicts.probe.screen import screen
from gradlab.wording import below, samples, states_each, steps, two, updates
from tests.probe.planted_probe import alarm, burst, everything, measurement, window, written

GAE = "advantages are those of GAE"


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
        "dead inputs", "saturated actor", "return rose", "return risen", "non-finite gradients",
        "saturation", "batch", "horizon", "usable", "against data", "weight", "source", "critic",
        "Jacobians", "Jacobian drift", "doubling", "Lyapunov", "cost",
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


def test_usable_horizons_are_apart_from_those_that_only_may_be(measured):
    found = measured("horizon")
    assert found.at == "model 2–3" and found.value == 2 and found.decision == "pass"
    cosine = np.full((4, 5), 0.9)
    low = cosine - np.array([0, 0.1, 0.1, 0.5, 0.5])
    mse = np.ones((4, 5))
    ends = dict(cosine_low=low, cosine_high=cosine + 0.05, mse_low=0.9 * mse, mse_high=1.1 * mse)
    changes = dict(cosine=cosine, mse=mse, **ends)

    def usable():
        both = (measured(code, **changes) for code in ("usable", "perhaps usable"))
        return [None if each is None else each.at for each in both]

    assert usable() == ["h = 1–2", "h = 3–4"]
    for place, at in ((3, ["h = 1–2", "h = 4"]), (1, ["h = 2", "h = 4"])):
        mse[1, place], ends["mse_low"][1, place] = 2.5, 2.3
        assert usable() == at
    ends["cosine_low"][:] = 0.5
    assert usable() == [None, "h = 2, 4"]
    ends["cosine_high"][:] = 0.6
    assert measured("not usable", **changes).decision == "fail"


@pytest.mark.parametrize(
    ("code", "changes", "decision", "value"),
    [
        ("no truth", dict(chosen_horizon=np.nan, chosen_estimator=np.nan), "undecided", None),
        ("horizon", dict(kept_low=0, kept_high=4, kept=np.ones((4, 5))), "undecided", 2),
        ("against data", dict(over_data=log(0.25), over_data_se=0.1), "pass", 0.25),
        ("against data", dict(over_data=log(4.0), over_data_se=0.1), "fail", 4),
        ("against data", dict(over_data=log(1.2), over_data_se=0.5), "undecided", 1.2),
        ("against data", dict(over_data=5.0, over_data_se=1000.0), "undecided", exp(5)),
        ("weight", dict(weight_zero=0.2, weight_zero_low=0.1, weight_zero_high=0.3), "pass", 0.2),
        ("weight", dict(weight_zero=0.8, weight_zero_low=0.7, weight_zero_high=0.9), "pass", 0.8),
        ("weight", dict(weight_zero=0.5, weight_zero_low=0.2, weight_zero_high=0.9), "undecided",
         0.5),
        ("source", dict(critic_gap=0.5), "pass", 0.5),
        ("source", dict(critic_gap=-0.5), "pass", 0.5),
        ("source", dict(critic_gap=0.1), "undecided", 0.1),
        ("critic", dict(value=-50.0), "pass", -50),
        ("critic", dict(value=150.0), "fail", 150),
        ("critic", dict(value=-150.0), "fail", -150),
        ("critic", dict(value=-100.5), "undecided", -100.5),
        ("doubling", {}, "pass", log(2) / log(1.5)),
        ("doubling", dict(growth_evidence=1.0), "pass", log(2) / log(1.5)),
        ("power law", dict(growth_evidence=-40.0), "pass", log(1.5)),
        ("growth", dict(growth=0.01), "undecided", 0.01),
        ("Lyapunov", dict(lyapunov=0.05), "pass", 0.05),
        ("Lyapunov", dict(lyapunov=-0.05), "pass", -0.05),
        ("Lyapunov", dict(lyapunov=0.005), "undecided", 0.005),
        ("Jacobians", dict(jacobian_error=-np.inf), "pass", 0),
        ("lost Jacobians", dict(jacobian_nonfinite=3, starts_lost=2), "fail", 3),
    ],
)  # fmt: skip
def test_a_measurement_says_what_was_planted_and_whether_it_is_decided(
    measured, code, changes, decision, value
):
    found = measured(code, **changes)
    assert found.decision == decision and "inf" not in found.said
    assert value is None or found.value == pytest.approx(value)
    assert found.subject == {-0.5: "the model", 0.5: "the critic"}.get(
        changes.get("critic_gap"), found.subject
    )


def test_jacobians_are_judged_against_the_first_measurement(said, measured):
    rows = [measurement(100, error=0.1), measurement(400, error=0.2)]
    found = said("Jacobian drift", measured=rows)
    assert found.decision == "fail" and found.value == pytest.approx(2)
    same = [measurement(100, error=0.2), measurement(400, error=0.2)]
    assert said("Jacobian drift", measured=same).decision == "pass"
    vague = [each | {"jacobian_error_se": 0.1} for each in same]
    assert said("Jacobian drift", measured=vague).decision == "undecided"
    assert measured("Jacobians", jacobian_error=np.nan) is None


@pytest.mark.parametrize("starts", [FEWEST // 2, FEWEST])
def test_what_rests_on_intervals_decides_from_enough_starts_only(tmp_path, starts):
    found = verdict(
        load(written(tmp_path / "run.h5", {"measured": [measurement(4, starts=starts)]}))
    )
    resting = [each for each in found if each.code in OF_INTERVALS]
    assert len(resting) > 4 and any(each.decision == "pass" for each in resting) is (
        starts == FEWEST
    )


@pytest.mark.parametrize("changes", [{"reward_max": 0.0, "truth_norm": 0.0}, {"truth_norm": 0.0}])
def test_what_leaves_nothing_to_decide_is_said_first_and_alone(changes, tmp_path):
    rows = {k: v for k, v in everything().items() if k != "alarms"}
    assert void(load(written(tmp_path / "sound.h5", rows))) == []
    rows["measured"] = [measurement(900, **changes)]
    run = load(written(tmp_path / "run.h5", rows))
    found, told = screen(run), verdict(run)
    assert found.light == "none" and [each.name for each in found.fields] == ["finding"]
    assert told[0].said == found.field("finding")
    assert not {"best", "horizon", "against data", "weight", "source"} & {*codes(told)}


WORDS = "the critic's targets have not moved for 500 updates: are the target networks updated?"


def test_the_cause_comes_before_the_symptom(first):
    cause = alarm(1, 600, FROZEN) | {"message": WORDS}
    found = first(vitals=[window(1)], alarms=[alarm(0, 500, "exploding critic"), cause])
    assert found.field("finding") == f"T{WORDS[1:]}" and found.field("since") == "step 599"
    assert found.light == "none" and found.field("also") == (
        "symptom: exploding critic at step 499"
    )


def test_of_two_causes_the_one_upstream_comes_first_and_what_is_lost_is_the_symptom(first):
    dies = "the loop died at update 900 (ValueError): parameters are NaN (w) since its step"
    told = [(500, "learning rate too large"), (600, DESCENT), (700, STORED), (800, "dead path")]
    rows = [alarm(k, at, kind) | {"message": f"{kind}: look?"} for k, (at, kind) in enumerate(told)]
    rows.append(alarm(4, 900, ENDED) | {"message": dies})
    found = first(vitals=[window(1)], alarms=rows)
    assert found.field("finding") == f"{STORED.capitalize()}: look?"
    assert found.field("since") == "step 699"
    also = found.field("also").lower()
    told = (
        "learning rate too large (step 499)",
        DESCENT.lower(),
        dies.lower(),
        "1 other kind",
    )
    places = [also.index(each) for each in told]
    assert places == sorted(places)


def test_a_symptom_without_a_cause_says_what_to_look_at(first):
    symptom = alarm(0, 500, "exploding critic") | {"message": "it grows"}
    found = first(vitals=[window(1)], alarms=[symptom])
    assert found.field("finding") == "exploding critic at step 499"
    assert found.field("look at") == CODES["exploding critic"].remedy


@pytest.mark.parametrize("share", [0.03, 0.4, 0.97])
def test_no_alarm_is_amber_and_prints_no_number_without_information(first, share):
    found = first(vitals=[window(1)], successive=[burst(40 * k, share) for k in range(1, 9)])
    assert found.light == "choose" and found.field("return") == "unknown"
    assert found.field("step").startswith("One batch has cosine ")


def test_every_check_is_a_row_with_its_decision_and_its_words(first):
    about = {"update": 100, "step": 99, "threshold": 0.5, "value": 0.005, "looks": 9,
             "seconds": 0.1}  # fmt: skip
    states = {"sound": "pass", "fault": "fail", "waiting": "undecided", "open": "undecided",
              "off": "skipped"}  # fmt: skip
    checks = [
        about | {"number": k, "check": f"check {k}", "state": state, "proof": f"proof of {state}"}
        for k, state in enumerate(states)
    ]
    found = first(vitals=[window(1)], checks=checks)
    rows = [each for each in found.rest if each.code.startswith("check ")]
    assert [each.decision for each in rows] == [*states.values()]
    assert [each.text for each in rows] == [f"proof of {state}" for state in states]
    assert all((each.value, each.threshold) == (0.005, 0.5) for each in rows)
    assert found.field("finding") == "no alarm; 1 of 5 checks passed, 1 open"


def test_what_a_check_leaves_open_is_a_field(first):
    """Advantages that are off by a share that no named mistake explains."""
    row = {"update": 100, "step": 99, "threshold": 1e-3, "number": 0, "looks": 4, "seconds": 0.1,
           "check": "advantages are those of GAE", "state": "open", "value": 0.036,
           "proof": "0.036 of the advantages is left: of another formula?"}  # fmt: skip
    found = first(vitals=[window(1)], checks=[row])
    assert found.light == "choose"
    assert found.field("look at") == f"whether {row['check']}: {row['proof']}"
    assert found.field("finding") == "no alarm; 0 of 1 checks passed, 1 open"


def test_a_loop_with_an_open_check_is_not_told_to_train_on(first):
    """By its rising return it would be green."""
    proof = "485 of 7,880 rows differ (fault: more than half); 5 left out, of pixels"
    rows = {"vitals": [window(1)], "returns": everything()["returns"]}
    assert first(**rows).light == "act" and "rose" in first(**rows).field("return")
    about = {"update": 100, "step": 99, "threshold": 0.0, "value": 0.0, "looks": 4, "seconds": 0.1}
    row = about | {"number": 0, "check": "rewards are stored", "proof": proof, "state": "open"}
    found = first(**rows, checks=[row])
    assert found.light == "choose" and proof in found.field("look at")


def test_a_saturated_actor_whose_return_rises_is_watched_and_no_fault(first):
    """The best policy of a pendulum's swing-up switches between its limits."""
    rows = {"vitals": [window(1)], "returns": everything()["returns"]}
    raised = [alarm(0, 100, "saturated actor", "action 0 is at its limit: lower the gain")]
    found = first(**rows, alarms=raised)
    watched = "watch the actor, while the return rises: saturated actor at step 99; "
    assert found.light == "choose" and found.field("finding").startswith(watched)
    lower = [{**row, "value": -row["value"]} for row in rows["returns"]]
    assert first(**rows | {"returns": lower}, alarms=raised).light == "none"
    more = [*raised, alarm(1, 100, "exploding critic", "the critic explodes")]
    assert first(**rows, alarms=more).light == "none"


@pytest.mark.parametrize("times", [1, 3])
def test_one_alarm_that_is_raised_again_is_one(first, times):
    raised = [alarm(k, 100, "exploding critic", "the critic explodes") for k in range(times)]
    found = first(vitals=[window(1)], alarms=raised)
    assert found.field("finding") == "exploding critic at step 99" and not found.field("also")
    assert [each.text for each in found.rest if each.code == "exploding critic"] == [
        "the critic explodes"
    ]


def test_a_finding_leaves_names_of_parameters_as_they_are(first):
    row = {"still": np.array([100.0, 0.0]), "zero": np.zeros(2), "looked": 100, "stepped": 100}
    row |= {"layer_norm": np.ones(2), "grad_norm": 1.4}
    (moved,) = [each for each in ALARMS if each.kind == "actor moves in part"]
    told = moved(AlarmEvidence([row], 1, ["actor_mean.0.weight", "b"]))
    assert told is not None
    found = first(vitals=[window(1)], alarms=[alarm(0, 100, told.kind, told.message)])
    assert found.field("finding").startswith("The policy's actor_mean.0.weight had a gradient")
    lost = alarm(0, 100, LOST_CRITIC, "actor_mean.0: rows 3 of 64: look there")
    told = first(vitals=[window(1)], alarms=[lost])
    assert told.field("look at").startswith("actor_mean.0: rows")


def test_it_is_said_where_few_updates_were_looked_at(said):
    """Of an actor that stood still for half of a run, between two looks, there was no alarm."""
    rows = [window(k) for k in range(1, 31)]
    assert said("few looks", vitals=rows) is None
    few = said("few looks", vitals=[row | {"looked": 10} for row in rows])
    assert (few.value, few.n, few.decision) == (300, 3000, "undecided")


def test_the_price_is_held_against_the_budget(said):
    rows = [window(k) for k in range(1, 31)]
    found = said("cost", vitals=rows)
    assert (found.value, found.threshold, found.decision) == (0.04, 0.05, "pass")
    rows[-1] |= {"spent": 0.07}
    assert said("cost", vitals=rows).decision == "fail"


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
    run = load(written(tmp_path / "run.h5", everything() | {"alarms": [], "measured": [row]}))
    assert (words in screen(run).field("next")) == weighs


def test_a_number_has_two_digits_thousands_apart_and_a_short_exponent():
    said = {
        0.021: "0.021",
        16000: "16,000",
        99_999: "100,000",
        2.19e-7: "2.2e-7",
        -1.44e6: "-1.4e6",
    }
    assert {value: two(value) for value in said} == said
    assert below(2.11e-7) == "2.2e-7" and below(0.0301) == "0.031"  # no bound below its number
    assert below(float("nan")) == "nan"
    counts = (steps(25_000), updates(12_000), states_each(16_384, 16_384))
    assert counts == ("25,000 steps", "12,000 updates", "16,384 states (N′)")
    assert samples({"starts": 102_400}) == "N = 102,400" and steps(250) == "250 steps"
