"""What is advised from planted gains, steps and rehearsals, under which light."""

import re
from dataclasses import replace

import numpy as np
import pytest

from gradlab.findings import Finding
from gradlab.runs.realised import TRUE_CELL
from gradlab.verdicts.advice import FEWEST, advise
from gradlab.verdicts.choice import chosen
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import KEEP, recommendation
from tests.runs.planted_gains import planted as steps
from tests.runs.planted_gains import planted_jumps
from tests.runs.planted_gains import planted_rehearsal as rehearsed
from tests.verdicts.test_recommendation import PAPER, planted

BEST, SHORT, CRITIC = ("model_all", 5), ("model_all", 1), ("data", 0)
RISES, PASSES, FALLS = (1, 2, 5, 9, 20), (1, 2, 3, -4, -30), (-1, -2, -5, -9, -20)
LESS, NOTHING_MORE = (1, 2, 3, 4, 5), (0, 0, 0, 0, 0)
SHORTLY = (1, 2, 9, 4, 0)
NEAR = tuple(0.97 * each for each in RISES)


def read(gains=PAPER, realised=None, rehearsal=None, jumps=None, **changes):
    profile = planted(gains, **changes)
    return facts(replace(profile, realised=realised, rehearsal=rehearsal, jumps=jumps))


def rows(told):
    """What is said of an advised gradient, by code."""
    return {each.code: each for each in told.rest}


RAISED, LOWERED = steps({BEST: 0.7, CRITIC: -0.9}), steps({BEST: -0.7, CRITIC: -0.9})
NOTHING = steps({BEST: 0.0, CRITIC: -0.9})


def test_without_a_rehearsal_one_step_decides_and_no_light_is_green():
    advice = advise(read())
    assert (advice.cell, advice.light, advice.missing) == (BEST, "choose", "update")
    told = recommendation(read())
    assert told.tested == "by no update" and rows(told)["no_updates"].decision == "skipped"
    found = read(realised=RAISED)
    advice = advise(found)
    assert (advice.cell, advice.light, advice.updates) == (BEST, "choose", None)
    tested = recommendation(found).tested
    assert tested.startswith("+0.28 ") and tested.endswith(" by one plain step, no update")
    found = replace(read(realised=LOWERED), disagreements=())
    assert advise(found).cell is None
    told = recommendation(found)
    assert (told.light, told.use) == ("none", KEEP)
    assert told.tested.startswith("highest −0.28 ") and "by one plain step" in told.tested
    # Shown in one small step, and not shown by a longer one: that of another gradient was.
    found = replace(read(realised=steps({BEST: 0.0, CRITIC: 0.5})), disagreements=())
    assert (advise(found).cell, advise(found).missing) == (CRITIC, "update")


def test_what_gains_more_with_the_simulators_states_is_compared_with_the_recommended_gradient():
    """Not with the largest gain of one step, which is as good and is not recommended."""
    gains = {
        "data": [0.1], "model": [0.1, 0.6, 0.7, 0.8, 0.9, 0.91],
        "model_all": [0.1, 0.78, 0.7, 0.6, 0.5, 0.5], "mixed_all": [0.1, 0.5, 0.6, 0.93, 0.9, 0.9],
    }  # fmt: skip
    for cell, said in ((SHORT, True), (("model", 5), False)):
        told = rehearsed({SHORT: LESS, ("model", 5): LESS, cell: RISES})
        profile = replace(planted(gains, se=0.003), rehearsal=told)
        read, explained = facts(profile), chosen(profile)[1]
        assert advise(read).cell == cell and read.best == ("model", 5)
        beyond = [each for each in explained.rest if each.code == "gain_beyond"]
        assert [each.subject for each in beyond] == ["mixed, BPTT at h = 3"] * said
        assert all(each.value == pytest.approx(0.93) for each in beyond)
        assert "simulator" not in str(explained)


def test_a_gain_with_an_exact_model_is_said_only_where_it_is_larger():
    own = {"data": [0.1], "model": [0.1, 0.6, 0.5, 0.5, 0.5, 0.5]}
    for exact, said in ((0.64, True), (0.58, False)):
        gains = {**own, "mixed": [0.1] + [exact] * 5, "true_dynamics": [0.1] + [exact] * 5}
        text = recommendation(read(gains, se=0.02)).fix_first
        larger = "the critic and the model; an exact model alone gains 64%"
        assert text == (larger if said else "the critic")


def test_what_the_end_of_a_rollout_costs_is_not_the_critics():
    """With θ in all actions an exact model and critic gain less than all: the critic costs what a
    gradient with θ in the first action loses along the simulator."""
    own = {"data": [0.1], "model_all": [0.1] + [0.6] * 5, "model": [0.1] * 6, "mixed": [0.1] * 6}
    own |= {"mixed_all": [0.1] + [0.6] * 5, "true_dynamics_all": [0.1] + [0.6] * 5}
    for first, blamed in ((0.99, False), (0.7, True)):
        told = recommendation(read({**own, "true_dynamics": [0.1] + [first] * 5}))
        assert told.use.startswith("your model (BPTT), 1–5 steps (best ")
        assert told.fix_first == "the critic" * blamed


@pytest.mark.parametrize(
    ("changes", "updates", "light", "code"),
    [
        (RISES, 25, "act", "updates_hold"),
        ((1, 2, 3, 2, 1), 5, "act", ""),
        (PASSES, 5, "choose", "updates_fall"),
        ((1, 2, 3, np.nan, np.nan), 5, "choose", "updates_fall"),
    ],
    ids=["rises", "passes", "falls", "is lost"],
)
def test_the_length_of_the_highest_return_is_said(changes, updates, light, code):
    found = read(realised=RAISED, rehearsal=rehearsed({BEST: changes, CRITIC: FALLS}))
    advice, told = advise(found), recommendation(found)
    assert (advice.cell, advice.updates, advice.light) == (BEST, updates, light)
    assert (told.horizon, told.updates, told.light) == (5, updates, light)
    assert f" return after {updates} updates of " in told.tested
    assert rows(told).keys() & {"updates_hold", "updates_fall"} == {code} - {""}


def test_updates_that_fall_before_they_rise_are_told_from_those_that_stop_helping():
    for fewer, falls in ((2, -5), (0, -3)):
        changes = {BEST: (1, fewer, falls, 9, 20), CRITIC: FALLS}
        told = recommendation(read(realised=RAISED, rehearsal=rehearsed(changes)))
        assert (told.updates, told.light) == (25, "choose")
        falls = rows(told)["updates_fall"]
        assert (falls.value, falls.threshold) == (5, 25)


def test_one_horizon_is_named_whose_gain_change_and_duration_are_told():
    """Of 4–5 steps, which gain alike in one step, 4 goes where its updates lower the return."""
    assert read().close(BEST) == [4, 5]
    for four, said in ((RISES, "4–5 steps (best 5)"), (PASSES, "5 steps"), (FALLS, "5 steps")):
        changes = rehearsed({BEST: RISES, ("model_all", 4): four, CRITIC: FALLS})
        told = recommendation(read(realised=RAISED, rehearsal=changes))
        assert told.use == f"your model (BPTT), {said}"
        assert told.gain.startswith("77% (CI 74–80") and "after 25 updates" in told.tested
        assert (told.horizon, told.follow.identity.actions) == (5, "all")
    narrow = replace(rehearsed({BEST: PASSES, CRITIC: FALLS}), rate=3e-5)
    told = recommendation(read(realised=RAISED, rehearsal=narrow))
    assert "after 5 updates of Adam at 3e-5" in told.tested
    assert (told.optimizer, told.rate) == ("adam", 3e-5)


def test_updates_that_led_farther_than_the_largest_gain_are_said_to_have():
    """And a choice says it as the report does."""
    profile = planted(PAPER | {"data": [0.3]})
    for told, why in (
        (rehearsed({BEST: PASSES, CRITIC: RISES}), "fail"),
        (rehearsed({CRITIC: RISES}), "skipped"),
        (rehearsed({CRITIC: RISES, BEST: NEAR}, noise=5.0), "undecided"),
        (rehearsed({BEST: RISES, CRITIC: PASSES}), None),
    ):
        found = rows(chosen(replace(profile, rehearsal=told))[1]).get("larger_gain")
        assert (found and found.decision) == why
        assert found is None or found.subject == "model, BPTT at h = 5"


RISING = {"data": [0.6], "model_all": [0.2, 0.8, 0.8, 0.95, 0.97, 0.99]}


@pytest.mark.parametrize("critic", [RISES, NEAR, FALLS, NOTHING_MORE],
                         ids=["rises", "near", "falls", "open"])  # fmt: skip
def test_what_the_critic_alone_does_is_said_of_as_many_updates_as_are_recommended(critic):
    """Its one step gains 2%, or nothing, of the possible gain."""
    changes = {BEST: RISES, SHORT: FALLS, CRITIC: critic}
    gains = {"data": [0.0], "model_all": [0.0, 0.5, 0.5, 0.5, 0.5, 0.9]}
    lower = ": lower return after as many updates"
    told = recommendation(read(gains, rehearsal=rehearsed(changes)))
    assert (told.horizon, told.updates) == (5, 25)
    assert told.avoid == f"1 step{'; the critic alone' * (critic == FALLS)}{lower}"
    said = rows(told)["updates_of"]
    assert (said.subject, said.at) == ("the critic alone", "25 updates")
    assert said.value == pytest.approx(critic[-1]) and said.low < said.value < said.high
    # Fresh draws that sum more steps are compared with nothing.
    told = recommendation(read(gains, rehearsal=replace(rehearsed(changes), again_horizon=300)))
    assert not told.avoid and "updates_of" not in rows(told)


@pytest.mark.parametrize(("gain", "said"), [(-0.2, False), (-0.4, True)])
def test_a_small_loss_of_one_step_is_none_of_updates(gain, said):
    """Adam goes another way: of −16% in one small step 25 of its updates raised the return."""
    gains = {"data": [0.5], "model_all": [0.0, gain, 0.5, 0.5, 0.5, 0.9]}
    assert recommendation(read(gains)).avoid == "1 step: lower return after one step" * said
    # Beside updates that were rehearsed one step says nothing of any horizon.
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    assert "step" not in recommendation(read(gains, rehearsal=told)).avoid
    told = rehearsed({BEST: RISES, SHORT: FALLS})
    assert recommendation(read(gains, rehearsal=told)).avoid.startswith("1 step: lower return")


@pytest.mark.parametrize(
    ("changes", "noise", "why"),
    [
        ({SHORT: RISES, BEST: NEAR}, 5.0, "undecided"),
        ({SHORT: RISES, BEST: LESS}, 0.5, "pass"),
        ({SHORT: RISES, BEST: PASSES}, 0.5, "fail"),
        ({SHORT: RISES, BEST: FALLS}, 0.5, "fail"),
        ({SHORT: RISES, CRITIC: LESS}, 0.5, "skipped"),
        ({BEST: RISES, SHORT: NEAR}, 5.0, None),
    ],
    ids=["not told apart", "less", "passes", "falls", "not rehearsed", "followed"],
)
def test_why_a_larger_gain_of_one_step_is_not_followed_is_said(changes, noise, why):
    """The figure beside it has a curve above the ring."""
    for jumps in (None, planted_jumps()):
        told = rehearsed(changes, noise=noise)
        told = recommendation(read(RISING, rehearsal=told, jumps=jumps))
        found = rows(told).get("larger_gain")
        assert (found and found.decision) == why
        assert found is None or found.value == pytest.approx(0.99)
        assert told.horizon == (1 if why else 5)


def test_what_fresh_draws_did_not_confirm_is_said_not_to_be_shown():
    """It led, and the next of those that were rehearsed is followed."""
    told = rehearsed({BEST: RISES, SHORT: NEAR}, again={BEST: NOTHING_MORE})
    found = read(RISING, rehearsal=told)
    assert found.best == BEST and advise(found).cell == SHORT
    assert larger(found).decision == "undecided"


def larger(found):
    return rows(recommendation(found))["larger_gain"]


def test_of_a_gradient_that_nobody_rehearsed_nothing_else_is_said():
    gains = {"data": [0.6], "model_all": [0.6, 0.2, 0.3, 0.97, 0.9, 0.4]}
    found = read(gains, rehearsal=rehearsed({CRITIC: SHORTLY, ("model_all", 4): LESS}))
    assert found.best == ("model_all", 3) and advise(found).cell == CRITIC
    assert larger(found).subject == "model, BPTT at h = 3" and larger(found).decision == "skipped"


def test_a_range_ends_at_rehearsed_horizons_that_are_as_good_over_several_updates():
    level = {"data": [0.2], "model_all": [0.2, 0.97, 0.972, 0.974, 0.976, 0.98]}

    def use(**changes):
        own = {("model_all", int(h[1:])): by for h, by in changes.items()}
        told = rehearsed({SHORT: RISES, **own}, noise=0.1)
        return recommendation(read(level, rehearsal=told)).use.removeprefix("your model (BPTT), ")

    nearly, fewer = (tuple(share * change for change in RISES) for share in (0.8, 0.7))
    told = rehearsed({SHORT: RISES, BEST: nearly}, noise=0.1)
    assert told.as_good(BEST, SHORT, 25, 0.75) and not told.as_good(BEST, SHORT, 25, 0.85)
    assert use(h5=nearly) == "1–5 steps (best 1)"
    assert use(h5=fewer) == use(h5=PASSES) == "1 step"
    assert use(h5=fewer, h3=nearly) == "1–3 steps (best 1)"
    # Whatever lies beyond a horizon that is not as good, and whatever was not rehearsed, is not
    # named.
    assert use(h5=nearly, h3=fewer) == use() == "1 step"
    assert use(h4=nearly) == "1–4 steps (best 1)"
    assert recommendation(read(level)).use.endswith(", 1–5 steps (best 5)")


def test_another_gradient_that_gains_more_in_one_step_is_named():
    told = rehearsed({CRITIC: RISES, BEST: LESS})
    assert larger(read(RISING, rehearsal=told)).decision == "pass"
    tried = read(RISING, realised=steps({BEST: -0.3, CRITIC: 0.5}))
    assert advise(tried).cell == CRITIC
    assert larger(tried).decision == "fail"
    alike = read(RISING | {"data": [0.97]}, rehearsal=told)  # no curve is visibly above it
    assert "larger_gain" not in rows(recommendation(alike))


@pytest.mark.parametrize("jumps", [None, "harmful", "open"])
@pytest.mark.parametrize("changes", [RISES, PASSES])
def test_horizons_that_lower_the_return_are_always_said_and_never_others(changes, jumps):
    """By as much evidence as one that raises it: their updates, where these were rehearsed."""
    found = None if jumps is None else planted_jumps(jumps)
    for short, words in ((FALLS, "1 step; "), (NOTHING_MORE, "")):
        told = rehearsed({BEST: changes, SHORT: short, CRITIC: FALLS})
        told = recommendation(read(rehearsal=told, jumps=found))
        lower = f"{words}the critic alone: lower return after as many updates"
        assert told.horizon == 5 and told.avoid.startswith(lower)
        assert ("the simulator's gradient: " in told.avoid) == (jumps == "harmful")
    assert recommendation(read(jumps=found)).avoid.startswith("1–2 steps; your model (first acti")


@pytest.mark.parametrize("change", [0.3, 0.05])
def test_what_is_open_says_how_many_judges_would_tell(change):
    """Student's t with 3 degrees of freedom: an interval of ± 3.18 · 2 / √64 / √4 = 0.4 leaves 0,
    or what is above 0.5% of the return, with (0.4 / 0.3)² of 64 starts, half as many again."""
    told = rehearsed({BEST: (change,) * 5, CRITIC: FALLS}, noise=2.0)
    told = replace(told, before=np.full(64, 40.0))  # of which 0.5% is 0.2
    found = read(realised=RAISED, rehearsal=told)
    assert advise(found).cell is None
    shown = recommendation(found)
    assert shown.field("why") == "none of 2 gradients' updates is shown to raise the return"
    judges = told.missing(0.2)
    asked = re.fullmatch(r"--judges (\d+) \(.+\)", shown.field("decide"))
    assert asked and judges <= int(asked[1]) <= 1.1 * judges
    apart = max(change, abs(0.2 - change))
    assert (0.398 / apart) ** 2 * 64 <= judges <= 2 * (0.398 / apart) ** 2 * 64 + 130


def test_that_no_gradient_brings_anything_is_a_result():
    """0 ± 0.04 is below 0.5% of the return."""
    told = rehearsed({BEST: (0.01,) * 5, CRITIC: FALLS}, noise=0.2)
    told = replace(told, before=np.full(64, 100.0))
    shown = recommendation(read(realised=RAISED, rehearsal=told))
    assert (shown.light, shown.use) == ("none", KEEP)
    assert shown.field("decide").startswith("a gain of 0.5% of the return is excluded")
    dear = rehearsed({BEST: (0.001,) * 5, CRITIC: FALLS}, noise=50.0)
    decide = recommendation(read(realised=RAISED, rehearsal=dear)).field("decide")
    assert decide == "no affordable number of judging starts shows 0.5% of the return"


def test_where_returns_alone_decide_nothing_is_called_wrong_without_evidence():
    """No gain was measured: what is wrong with the critic is not known."""
    blind = dict(admissible=False, status="none")
    shown = recommendation(read(realised=steps({BEST: 0.3, CRITIC: -0.9}, noise=3), **blind))
    assert shown.use == KEEP and shown.tested.endswith("; 1 of 2 steps lower it")
    assert shown.avoid == "the critic alone: lower return after one step" and not shown.fix_first
    shown = recommendation(read(realised=LOWERED, **blind))
    assert shown.tested.endswith("; 2 of 2 steps lower it") and not shown.fix_first


def test_updates_that_are_rehearsed_need_no_precise_truth():
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    found = read(realised=RAISED, rehearsal=told, status="imprecise")
    assert (advise(found).cell, advise(found).updates, advise(found).light) == (BEST, 25, "act")
    assert not recommendation(found).gain
    told = rehearsed({BEST: NOTHING_MORE, CRITIC: FALLS}, noise=9.0)
    shown = recommendation(read(realised=RAISED, rehearsal=told, status="imprecise"))
    assert (shown.light, shown.use) == ("none", KEEP)
    assert shown.field("why").startswith("none of 2 gradients' updates is shown")


def test_no_steps_through_a_model_are_the_critic_alone():
    first = ("model_all", 0)
    found = read(rehearsal=rehearsed({first: RISES, CRITIC: FALLS}))
    assert advise(found).cell == first
    assert recommendation(found).use == "the critic at start states, h = 0"


@pytest.mark.parametrize("assumed", [None, False, True])
def test_a_smaller_rate_is_advised_only_where_all_rehearsed_updates_fall(assumed):
    bent = steps({BEST: 0.7, CRITIC: -0.9}, bend=3.0)
    told = rehearsed({BEST: NOTHING_MORE, CRITIC: FALLS})
    told = None if assumed is None else replace(told, assumed=assumed)
    said = recommendation(read(realised=bent, rehearsal=told))
    assert said.use == KEEP and "--lr" not in str(said) and "Adam" not in str(said)
    assert ("by one plain step" in said.tested) == (not told)
    if told is not None:
        falls = replace(rehearsed({BEST: FALLS, CRITIC: FALLS}), assumed=assumed)
        said = recommendation(read(realised=bent, rehearsal=falls))
        assert said.field("why") == "updates by Adam at 1e-3 lower the return along every gradient"
        assert said.fix_first == "measure again with --lr 0.0001" * (not assumed)


def test_a_light_is_green_where_updates_raised_the_return_in_every_draw_and_in_fresh_ones():
    changes = {BEST: RISES, CRITIC: FALLS}
    shown = recommendation(read(realised=RAISED, rehearsal=rehearsed(changes)))
    assert shown.light == "act" and shown.tested.startswith("+20 (CI 19.9–20.1) return after 25")
    assert ", 4 fresh draws, 64 starts each" in shown.tested
    assert recommendation(read(rehearsal=rehearsed(changes))).light == "act"  # no step was taken


def test_from_few_judges_no_light_is_green():
    for judges, light in ((FEWEST - 2, "choose"), (FEWEST, "act")):
        found = read(realised=RAISED, rehearsal=rehearsed({BEST: RISES}, groups=judges))
        assert (advise(found).cell, advise(found).updates) == (BEST, 25)
        told = recommendation(found)
        assert told.light == advise(found).light == light and f"{judges} starts each" in told.tested
        assert ("few_judges" in rows(told)) == (light == "choose")


def test_a_plain_step_warns_and_never_vetoes_what_updates_raised():
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    found = replace(read(realised=LOWERED, rehearsal=told), disagreements=())
    advice = advise(found)
    assert (advice.cell, advice.updates) == (BEST, 25)
    assert (advice.light, advice.missing) == ("choose", "longer")
    assert rows(recommendation(found))["step_lowers"].decision == "fail"
    # One that raises nothing does not even warn, and a gain below 0 does.
    still = replace(read(realised=NOTHING, rehearsal=told), disagreements=())
    assert (advise(still).cell, advise(still).light) == (BEST, "act")
    worse = read({"data": [0.1], "model_all": [0.1] * 5 + [-0.3]}, rehearsal=told)
    assert (advise(worse).cell, advise(worse).missing) == (BEST, "longer")
    assert "step_lowers" in rows(recommendation(worse))


def test_beside_a_contradiction_a_confirmed_gradient_stands_under_no_light():
    """Steps along it bring the opposite of its gain: gain and return are of different problems."""
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    found = read(realised=LOWERED, rehearsal=told)
    assert any(each.cell == BEST for each in found.disagreements)
    advice = advise(found)
    assert (advice.cell, advice.updates) == (BEST, 25)
    assert (advice.light, advice.missing) == ("none", "premise")
    told = recommendation(found)
    assert (told.light, told.horizon, told.updates) == ("none", 5, 25)
    assert told.fix_first.startswith("do not trust these gains: ")
    assert not told.gain  # it is not believed
    unconfirmed = rehearsed({BEST: RISES, CRITIC: FALLS}, again={BEST: NOTHING_MORE})
    assert advise(read(realised=LOWERED, rehearsal=unconfirmed)).cell is None


def test_if_the_leading_gradient_is_not_confirmed_the_next_rehearsed_one_is():
    """And never the largest gain of one step, which no update was made along."""
    changes = {SHORT: RISES, CRITIC: NEAR, ("model_all", 4): LESS, ("model_all", 3): SHORTLY}
    for unconfirmed, cell in (
        ((), SHORT), ((SHORT,), CRITIC), ((SHORT, CRITIC), ("model_all", 3)),
        ((SHORT, CRITIC, ("model_all", 3)), None),
    ):  # fmt: skip
        told = rehearsed(changes, again=dict.fromkeys(unconfirmed, NOTHING_MORE))
        found = read(RISING, rehearsal=told)
        assert found.best == BEST and found.chosen.low > 0.9
        assert advise(found).cell == told.chosen == cell
        assert (recommendation(found).use == KEEP) == (cell is None)


def test_a_promise_is_that_of_fresh_draws_and_names_the_steps_of_its_returns():
    """Nothing was chosen by them; their interval covers draws and starts."""
    told = rehearsed({BEST: RISES, CRITIC: FALLS}, again={BEST: (1, 2, 5, 9, 17)})
    gain = told.peak_of(BEST).gain
    half = 3.1824 * (0.5 / 64**0.5) / 4**0.5  # Student's, 3 degrees of freedom
    assert gain.value == pytest.approx(17) and gain.n == 4 * 64
    assert (gain.low, gain.high) == pytest.approx((17 - half, 17 + half), rel=1e-5)
    found = read(realised=RAISED, rehearsal=replace(told, again_horizon=300))
    (promised,) = (each for each in recommendation(found).fields if each.name == "tested")
    assert "over 300 steps" in promised.how
    assert promised.text.startswith("+17 ") and "4 fresh draws, 64 starts each" in promised.text


def test_a_gradient_lasts_for_as_long_as_fresh_draws_show():
    changes = {BEST: RISES, CRITIC: FALLS}
    told = rehearsed(changes, again={BEST: (1, 2, 5, 0, -9)})
    found = read(realised=RAISED, rehearsal=told)
    assert (advise(found).updates, advise(found).light) == (5, "act")
    assert "after 5 updates" in recommendation(found).tested
    for again in (NOTHING_MORE, (np.nan,) * 5):
        told = rehearsed(changes, again={BEST: again})
        found = read(realised=RAISED, rehearsal=told)
        assert advise(found).cell is None  # whatever a step raised, or gains
        shown = recommendation(found)
        assert (shown.use, shown.light) == (KEEP, "none") and "nan" not in str(shown)
        assert shown.field("why").startswith("none of 2 gradients' updates")


def test_of_rehearsals_the_higher_return_is_followed_and_not_the_larger_gain_of_one_step():
    found = read(realised=RAISED, rehearsal=rehearsed({BEST: PASSES, SHORT: RISES}))
    assert (advise(found).cell, advise(found).updates) == (SHORT, 25)
    found = read(realised=RAISED, rehearsal=rehearsed({SHORT: RISES, BEST: NEAR}, noise=5.0))
    assert found.rehearsal.best.cell == SHORT and BEST in found.rehearsal.not_excluded()
    assert (advise(found).cell, advise(found).updates) == (SHORT, 25)


def test_where_rehearsals_fall_or_tell_nothing_the_policy_is_kept():
    found = read(realised=RAISED, rehearsal=rehearsed({BEST: FALLS, CRITIC: FALLS}))
    assert advise(found).cell is None
    assert recommendation(found).light == "none"
    found = read(realised=RAISED, rehearsal=rehearsed({BEST: RISES, CRITIC: FALLS}, noise=300.0))
    shown = recommendation(found)
    assert advise(found).cell is None and (shown.use, shown.light) == (KEEP, "none")
    led = "highest +20 (CI −40 to 80) after 25 updates: your model (BPTT), 5 steps"
    assert shown.tested == led and shown.field("decide").startswith("no affordable number")


def test_what_was_tried_is_advised_first_and_then_that_the_return_jumps():
    found = read(
        admissible=False, status="jumps", realised=steps({CRITIC: 0.4, BEST: -0.4}, truth=False),
        rehearsal=rehearsed({CRITIC: RISES, BEST: FALLS}), jumps=planted_jumps(),
    )  # fmt: skip
    told = recommendation(found)
    assert told.use == "the critic alone, h = 0" and "after 25 updates" in told.tested
    assert told.avoid == (
        "your model (BPTT) 5 steps: lower return after as many updates; the simulator's gradient: "
        "it promises +104, steps bring +13"
    )
    assert advise(found).cell == CRITIC and told.light == "act"


@pytest.mark.parametrize("change", [(0, 0, -0.5, -2, -9), NOTHING_MORE])
def test_beside_rehearsed_updates_nothing_is_guessed_from_one_step(change):
    found = read(status="imprecise", rehearsal=rehearsed({BEST: change, CRITIC: change}))
    said = recommendation(found)
    assert found.best == BEST and said.use == KEEP
    assert "best guess" not in str(said) and not said.gain


def test_open_jumps_are_no_green_light():
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    found = read(realised=RAISED, rehearsal=told, jumps=planted_jumps("open"))
    assert advise(found).light == "choose" and advise(found).missing == "jumps"


def test_gradients_of_another_problem_are_believed_by_nobody():
    found = read(realised=steps({BEST: 0.1, CRITIC: 0.1}, norm=5.0))
    assert any(each.cell == TRUE_CELL and each.reason == "law" for each in found.disagreements)
    told = recommendation(found)
    assert told.use == KEEP and told.fix_first.startswith("do not trust these gains: ")


def test_where_a_premise_of_gains_fails_returns_alone_decide_and_never_in_green():
    premise = Finding("critic_size", "fail", "", 0.02, n=96)
    found = replace(read(realised=RAISED), void=(premise,))
    advice = advise(found)
    assert (advice.cell, advice.light, advice.missing) == (BEST, "none", "premise")
    told = recommendation(found)
    assert (told.light, told.horizon, told.gain) == ("none", 5, "")
    assert told.fix_first == premise.remedy.removesuffix(".")
    nothing = recommendation(replace(read(realised=LOWERED), void=found.void))
    assert (nothing.use, nothing.follow) == (KEEP, None)
    assert nothing.field("why") == premise.said.removesuffix(".")
