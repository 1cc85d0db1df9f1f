"""What a probe's run decides: planted numbers, causes before symptoms, no green without a look."""

from math import exp, log, sqrt

import numpy as np
import pytest

from gradlab.probe.alarms.catalogue import ALARMS, ENDED, HALF, LOST_CRITIC
from gradlab.probe.alarms.evidence import (
    DESCENT,
    FEWEST,
    FROZEN,
    STORED,
    UNTERMINATED,
    AlarmEvidence,
)
from gradlab.probe.parts import rows
from gradlab.runs.probe.results import load
from gradlab.statistics.intervals import Z
from gradlab.verdicts.probe.findings import OF_INTERVALS, verdict
from gradlab.verdicts.probe.screen import screen
from gradlab.verdicts.probe.returns import void
from gradlab.wording import below, samples, span, states_each, steps, two, updates
from tests.probe.planted_probe import alarm, burst, everything, measurement, window, written

GAE = "advantages are those of GAE"


@pytest.fixture
def said(tmp_path):
    """The finding about something, of a run of these tables; None where there is none."""
    numbers = iter(range(100))

    def sentence(about, **tables):
        run = load(written(tmp_path / f"{next(numbers)}.h5", tables))
        found = [each for each in verdict(run) if each.code == about]
        assert len(found) < 2
        return found[0] if found else None

    return sentence


@pytest.fixture
def measured(said):
    return lambda about, **changes: said(about, measured=[measurement(400, **changes)])


@pytest.fixture
def first(tmp_path):
    """The recommendation of a run of these tables, without a task."""
    return lambda **tables: screen(
        load(written(tmp_path / "first.h5", tables, horizon=None, task=""))
    )


def test_what_stops_everything_comes_first_and_every_number_has_its_interval_and_n(tmp_path):
    found = verdict(load(written(tmp_path / "run.h5", everything())))
    assert [each.code for each in found] == [
        "alarms", "returns", "health", "saturation", "signal", "measurement", "horizon", "rivals",
        "weights", "source", "critic", "jacobians", "variance", "growth", "tails", "cost",
    ]  # fmt: skip
    for each in found:
        if each.code not in ("alarms", "health", "measurement", "tails", "cost"):
            assert "CI" in each.text or "95%" in each.text, each
            assert "N = " in each.text, each


def test_without_rows_or_a_task_nothing_is_said_of_them(tmp_path):
    (only,) = verdict(load(written(tmp_path / "a.h5", {})))
    assert only.code == "alarms"
    rows = {k: v for k, v in everything().items() if k in ("vitals", "successive")}
    told = verdict(load(written(tmp_path / "b.h5", rows, horizon=None, task="")))
    assert [each.code for each in told] == ["alarms", "health", "saturation", "signal", "cost"]


def test_a_clean_run_says_how_many_bad_gradients_it_cannot_exclude(said):
    found = said("health", vitals=[window(k) for k in range(1, 31)])
    assert "3,000" in found.text
    assert f"at most {100 * (1 - 0.05 ** (1 / 3000)):.2g}%" in found.text
    bad = said("health", vitals=[window(1), window(2, nonfinite_updates=7)])
    assert "7 of 200 looks (3.5%)" in bad.text and "step 199" in bad.text


@pytest.mark.parametrize(("share", "windows"), [(0.9, 10), (0.1, 10), (0.55, 2)])
def test_saturation_is_that_of_late(said, share, windows):
    early = [window(k, saturation=np.array([1 - share, 0.0])) for k in range(1, 20)]
    late = [window(19 + k, saturation=np.array([0.0, share])) for k in range(1, windows + 1)]
    found = said("saturation", vitals=late if windows < 10 else early + late)
    n = 25 * windows
    margin = sqrt(log(2 / 0.05) / (2 * n))
    assert "Action 1" in found.text and f"N = {n}" in found.text
    assert (found.decision == "pass") is (abs(share - HALF) > margin)


def test_noise_is_told_from_a_signal_that_is_not_yet_seen(said):
    old, new = [burst(40 * k, 0.9) for k in range(1, 9)], [burst(40 * k) for k in range(9, 19)]
    found = said("signal", successive=old + new)
    ends = (0.4 - Z * 0.02 / sqrt(10), 0.4 + Z * 0.02 / sqrt(10))
    assert (
        f"{two(sqrt(0.4))} (CI {span(*map(sqrt, ends))})" in found.text and found.decision == "pass"
    )
    assert "steps 359–719" in found.text and "N = 320" in found.text
    assert (
        said("signal", successive=[burst(40 * k, 1e-3, 5e-3) for k in range(1, 11)]).decision
        == "pass"
    )
    unknown = said("signal", successive=[burst(40, 0.03, 0.03)])
    assert unknown.decision != "pass"
    assert "about 220 more pairs" in unknown.text  # 32 ((1.96 + 0.84)² − 1)
    assert "N = 16" in said("signal", successive=[burst(40) | {"fresh": 16}]).text
    lost = burst(80) | {"energy": np.nan, "signal_share": np.nan, "share_se": np.nan}
    assert said("signal", successive=[lost]) is None


def test_usable_horizons_are_apart_from_those_that_only_may_be(measured):
    assert "model 2–3" in measured("horizon").text and measured("horizon").decision == "pass"
    cosine = np.full((4, 5), 0.9)
    low = cosine - np.array([0, 0.1, 0.1, 0.5, 0.5])
    mse = np.ones((4, 5))
    ends = dict(cosine_low=low, cosine_high=cosine + 0.05, mse_low=0.9 * mse, mse_high=1.1 * mse)
    changes = dict(cosine=cosine, mse=mse, **ends)
    assert "1–2; undecided: 3–4 (of 1–4" in measured("horizon", **changes).text
    for place, words in ((3, "1–2; undecided: 4 ("), (1, "2; undecided: 4 (")):
        mse[1, place], ends["mse_low"][1, place] = 2.5, 2.3
        assert words in measured("horizon", **changes).text
    ends["cosine_low"][:] = 0.5
    assert "2, 4 may be" in measured("horizon", **changes).text


def test_what_moved_or_reversed_says_when(said):
    early = measurement(100, kept_low=0, kept_high=1)
    assert "at step 99 h = 0–1" in said("horizon", measured=[early, measurement(400)]).text
    same = said("horizon", measured=[measurement(100), measurement(400)])
    assert "at step" not in same.text
    early = [measurement(k, over_data=log(3)) for k in (100, 200)]
    assert "at step 199" in said("rivals", measured=[*early, measurement(400)]).text


@pytest.mark.parametrize(
    ("about", "changes", "decided", "words"),
    [
        ("horizon", dict(chosen_horizon=np.nan, chosen_estimator=np.nan), False, "undecided"),
        ("horizon", dict(kept_low=0, kept_high=4, kept=np.ones((4, 5))), False, "0 and 4"),
        ("rivals", dict(over_data=log(0.25), over_data_se=0.1), True,
         f"0.25× (CI {span(exp(log(0.25) - Z * 0.1), exp(log(0.25) + Z * 0.1))})"),
        ("rivals", dict(over_data=log(4.0), over_data_se=0.1), True, "4×"),
        ("rivals", dict(over_data=log(1.2), over_data_se=0.5), False, "1.2×"),
        ("rivals", dict(over_data=0.0, over_data_se=2.0), False, "between 0.02× and 50× (95%)"),
        ("rivals", dict(over_data=5.0, over_data_se=1000.0), False, "unknown (95%)"),
        ("weights", dict(weight_zero=0.2, weight_zero_low=0.1, weight_zero_high=0.3), True,
         "0.2 (CI 0.1–0.3)"),
        ("weights", dict(weight_zero=0.8, weight_zero_low=0.7, weight_zero_high=0.9), True,
         "critic's own"),
        ("weights", dict(weight_zero=0.5, weight_zero_low=0.2, weight_zero_high=0.9), False, ""),
        ("source", dict(critic_gap=0.5), True, "the critic's"),
        ("source", dict(critic_gap=-0.5), True, "the model's"),
        ("source", dict(critic_gap=0.1), False, "undecided"),
        ("critic", dict(value=-50.0), True, "within"),
        ("critic", dict(value=150.0), True, "beyond"),
        ("critic", dict(value=-150.0), True, "beyond"),
        ("critic", dict(value=-100.5), False, "undecided"),
        ("variance", {}, True, f"doubles every {two(log(2) / log(1.5))} steps"),
        ("variance", dict(growth_evidence=-40.0), True, "like a power"),
        ("variance", dict(growth_evidence=1.0), True, "do not extrapolate"),
        ("variance", dict(growth=0.01), False, "no exponential growth"),
        ("growth", dict(lyapunov=0.05), True, "e-fold in 20"),
        ("growth", dict(lyapunov=-0.05), True, "die out"),
        ("growth", dict(lyapunov=0.005), False, "undecided"),
        ("jacobians", dict(jacobian_error=-np.inf), True, "exact"),
        ("lost jacobians", dict(jacobian_nonfinite=3, starts_lost=2, nonfinite_where="at s"), True,
         "3 of 1600 (at s)"),
    ],
)  # fmt: skip
def test_a_measurement_says_what_was_planted_and_whether_it_is_decided(
    measured, about, changes, decided, words
):
    found = measured(about, **changes)
    assert words in found.text and (found.decision == "pass") is decided and "inf" not in found.text


def test_jacobians_are_judged_against_the_first_measurement(said, measured):
    found = said("jacobians", measured=[measurement(100, error=0.1), measurement(400, error=0.2)])
    assert (
        found.decision == "pass" and "2× that of the first" in found.text and "refit" in found.text
    )
    same = [measurement(100, error=0.2), measurement(400, error=0.2)]
    assert said("jacobians", measured=same).decision == "pass"
    vague = [each | {"jacobian_error_se": 0.1} for each in same]
    assert said("jacobians", measured=vague).decision != "pass"
    assert measured("jacobians", jacobian_error=np.nan) is None


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
    assert void(load(written(tmp_path / "sound.h5", rows))) == ()
    rows["measured"] = [measurement(900, **changes)]
    run = load(written(tmp_path / "run.h5", rows))
    found, told = screen(run), verdict(run)
    assert found.light == "none" and [each.name for each in found.fields] == ["finding"]
    assert told[0].text == found.field("finding")
    assert not {"gain", "horizon", "rivals", "weights", "source"} & {each.code for each in told}


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


def test_a_symptom_without_a_cause_says_what_to_look_at_and_what_has_not_looked(first):
    symptom = alarm(0, 500, "exploding critic") | {"message": "it grows: look at the rewards"}
    off = {"update": 100, "step": 99, "number": 0, "check": "targets follow", "state": "off",
           "proof": "none", "value": 0.0, "threshold": 0.0, "looks": 0, "seconds": 0.0}  # fmt: skip
    found = first(vitals=[window(1)], alarms=[symptom], checks=[off])
    assert found.field("finding") == "exploding critic at step 499"
    open_ = "1 check of the loop's parts has not looked"
    assert found.field("look at") == f"look at the rewards; {open_}"


@pytest.mark.parametrize("looks, count", [("targets are r + γ (1 − d) v", 1), (GAE, 0), ("", 3)])
def test_checks_of_what_such_a_loop_has_not_are_not_counted(first, looks, count):
    """Of replays with targets and of rollouts a loop has one."""
    names = ["targets are r + γ (1 − d) v", GAE, "other network's gradients", "targets follow"]
    about = {"update": 100, "step": 99, "proof": "", "value": 0.0, "threshold": 0.0, "looks": 0,
             "seconds": 0.0}  # fmt: skip
    checks = [
        about | {"number": k, "check": name, "state": "sound" if name == looks else "off"}
        for k, name in enumerate(names)
    ]
    symptom = alarm(0, 500, "exploding critic") | {"message": "it grows: look at the rewards"}
    found = first(vitals=[window(1)], alarms=[symptom], checks=checks).field("look at")
    assert (f"{count} check" in found) == (count > 0) and ("not looked" in found) == (count > 0)


@pytest.mark.parametrize("share", [0.03, 0.4, 0.97])
def test_no_alarm_is_amber_and_prints_no_number_without_information(first, share):
    found = first(vitals=[window(1)], successive=[burst(40 * k, share) for k in range(1, 9)])
    assert found.light == "choose" and "unknown" in found.field("return")
    assert found.field("step").startswith("one batch has cosine ")


def test_every_check_has_a_line_with_its_proof_and_its_cost(first):
    about = {"update": 100, "step": 99, "threshold": 0.5}
    checks = [
        about | {"number": 0, "check": "targets follow", "state": "sound", "value": 0.005,
                 "proof": "a move closes 0.005 of the gap", "looks": 20, "seconds": 0.1},
        about | {"number": 1, "check": "advantages", "state": "off", "value": 0.0,
                 "proof": rows.UNRECORDED, "looks": 0,
                 "seconds": 0.0},
    ]  # fmt: skip
    found = first(vitals=[window(1)], checks=checks)
    sound, off = [each for each in found.rest if each.code == "part"]
    assert sound.decision == "pass" and "20 looks, 0.1% of the time" in sound.text
    assert off.decision != "pass" and "not recorded" in off.text
    parts = "no alarm; 1 check passed, 1 without an answer"
    wanted = f"{parts} (1 for want of probe.record(env) and probe.batch(…))"
    assert found.field("finding") == wanted
    # Of what such a loop does not have nothing passed.
    unlike = {"number": 2, "check": "other network's gradients are cleared", "proof": "none seen"}
    found = first(vitals=[window(1)], checks=[*checks, checks[1] | unlike])
    assert found.field("finding").startswith(parts)
    unended = {"number": 2, "check": "terminations are stored", "proof": UNTERMINATED}
    found = first(vitals=[window(1)], checks=[*checks, checks[1] | unended | {"state": "waiting"}])
    assert found.field("finding").startswith(parts)


def test_checks_that_lack_the_same_have_one_line(first):
    about = {"update": 100, "step": 99, "threshold": 0.0, "value": 0.0, "looks": 0, "seconds": 0.0,
             "state": "off"}  # fmt: skip
    said = [("rewards are stored", "no replay"), ("log π", "none was read"), ("ends", "no replay")]
    checks = [about | {"number": k, "check": a, "proof": b} for k, (a, b) in enumerate(said)]
    found = [each.text for each in first(vitals=[window(1)], checks=checks).rest]
    assert "Rewards are stored; ends: not looked at, no replay." in found
    assert sum("not looked at" in each for each in found) == 2


def test_checks_of_parts_that_a_loop_has_not_have_one_line(first):
    """Five sentences about advantages stood on the page of a loop of replayed batches."""
    about = {"update": 100, "step": 99, "threshold": 0.0, "value": 0.0, "looks": 0, "seconds": 0.0}
    said = [("targets are r + γ (1 − d) v", "sound", "at most 0"), (GAE, "off", "no advantages"),
            ("values at ends are of their observations", "off", "no rollout")]  # fmt: skip
    checks = [
        about | {"number": k, "check": a, "state": b, "proof": c}
        for k, (a, b, c) in enumerate(said)
    ]
    found = [each.text for each in first(vitals=[window(1)], checks=checks).rest]
    (line,) = [each for each in found if "not looked at" in each]
    assert line.lower() == (
        f"{GAE.lower()}; values at ends are of their observations: not looked at, a loop of "
        "replayed batches has no such part."
    )


def test_what_a_check_leaves_open_is_a_field(first):
    """Advantages that are off by a share that no named mistake explains."""
    row = {"update": 100, "step": 99, "threshold": 1e-3, "number": 0, "looks": 4, "seconds": 0.1,
           "check": "advantages are those of GAE", "state": "open", "value": 0.036,
           "proof": "0.036 of the advantages is left: of another formula?"}  # fmt: skip
    found = first(vitals=[window(1)], checks=[row])
    assert found.light == "choose"
    todo = "whether advantages are those of GAE (0.036 of the advantages is left): of another"
    assert found.field("look at") == f"{todo} formula?"
    assert found.field("finding") == "no alarm; 0 checks passed, 1 open"
    row["proof"] = "y = 10 r + 0.98 (1 − d) v in 44 of 44 looks (0.1): is the reward scaled?"
    (said, *_) = first(vitals=[window(1)], checks=[row]).field("look at").split("?")
    assert said.endswith("(y = 10 r + 0.98 (1 − d) v in 44 of 44 looks): is the reward scaled")


def test_a_loop_with_an_open_check_is_not_told_to_train_on(first):
    """By its rising return it would be green."""
    proofs = {
        "actions are weighed by their advantages": (
            "correlation 0.04 (fault: under −0.5), share of the value not read: none; the loss "
            "weighs actions by something else: are they in order? Move such a scale away",
            " (correlation 0.04): are they in order? Move such a scale away.",
        ),
        "rewards are stored as paid": (
            "485 of 7,880 rows differ (fault: more than half); 5 left out, of pixels",
            ": 485 of 7,880 rows differ; 5 left out, of pixels.",
        ),
    }
    rows = {"vitals": [window(1)], "returns": everything()["returns"]}
    assert first(**rows).light == "act" and "rose" in first(**rows).field("return")
    about = {"update": 100, "step": 99, "threshold": 0.0, "value": 0.0, "looks": 4, "seconds": 0.1}
    for check, (proof, said) in proofs.items():
        row = about | {"number": 0, "check": check, "proof": proof, "state": "open"}
        found = first(**rows, checks=[row])
        assert found.light == "choose" and found.field("look at") == f"whether {check}{said}"


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
    (said,) = (each.text for each in found.rest if each.code == "alarms")
    assert ("3 times" in said) == (times > 1)


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


def test_the_line_about_alarms_says_how_many_updates_were_looked_at(said):
    """Of an actor that stood still for half of a run, between two looks, there was no alarm."""
    rows = [window(k) for k in range(1, 31)]
    assert "looked at" not in said("alarms", vitals=rows).text
    few = [row | {"looked": 10} for row in rows]
    assert (
        "none in 3,000 updates, of which 300 were looked at; what"
        in said("alarms", vitals=few).text
    )


def test_the_price_is_held_against_the_budget(said):
    rows = [window(k) for k in range(1, 31)]
    assert "4% of 50 min; within" in said("cost", vitals=rows).text
    rows[-1] |= {"spent": 0.07}
    assert "above its budget" in said("cost", vitals=rows).text


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
