"""What is advised from planted gains, steps and rehearsals, under which light."""

import re
from dataclasses import replace

import numpy as np
import pytest

from gradlab.runs.realised import TRUE_CELL
from gradlab.verdicts.advice import FEWEST, advise
from gradlab.verdicts.choice import chosen
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import recommendation
from tests.runs.planted_gains import planted as steps
from tests.runs.planted_gains import planted_jumps
from tests.runs.planted_gains import planted_rehearsal as rehearsed
from tests.verdicts.test_recommendation import PAPER, planted, recommended

BEST, SHORT, CRITIC = ("model_all", 5), ("model_all", 1), ("data", 0)
RISES, PASSES, FALLS = (1, 2, 5, 9, 20), (1, 2, 3, -4, -30), (-1, -2, -5, -9, -20)
LESS, NOTHING_MORE = (1, 2, 3, 4, 5), (0, 0, 0, 0, 0)
SHORTLY = (1, 2, 9, 4, 0)
NEAR = tuple(0.97 * each for each in RISES)


def read(gains=PAPER, realised=None, rehearsal=None, jumps=None, **changes):
    profile = planted(gains, **changes)
    return facts(replace(profile, realised=realised, rehearsal=rehearsal, jumps=jumps))


RAISED, LOWERED = steps({BEST: 0.7, CRITIC: -0.9}), steps({BEST: -0.7, CRITIC: -0.9})
NOTHING = steps({BEST: 0.0, CRITIC: -0.9})


def test_without_a_rehearsal_one_step_decides_and_no_light_is_green():
    advice = advise(read())
    assert (advice.cell, advice.light, advice.missing) == (BEST, "choose", "update")
    assert recommendation(read()).sure == "untested: no update along it was made"
    found = read(realised=RAISED)
    advice = advise(found)
    assert (advice.cell, advice.light, advice.updates) == (BEST, "choose", None)
    assert recommendation(found).sure.startswith("one plain step raised the return; no update")
    found = replace(read(realised=LOWERED), disagreements=())
    assert advise(found).cell is None
    screen = recommendation(found)
    assert screen.light == "none" and screen.headline.startswith("Keep the current policy")
    assert "one plain step lowers the return" in screen.headline
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
        sentences = [each.text for each in explained.rest if each.about == "beyond"]
        assert len(sentences) == said and all("(mixed, BPTT), 3 steps" in x for x in sentences)
        assert "simulator states" not in explained.headline  # no room
    del gains["data"], gains["model"]
    assert "With simulator states (mixed, BPTT), 3 steps gain 93%." in recommended(gains).headline
    gains["mixed_all"] = [0.1, 0.93, 0.5, 0.5, 0.5, 0.5]
    assert "With simulator states (mixed, BPTT), 1 step gains 93%." in recommended(gains).headline


def test_a_gain_with_an_exact_model_is_said_only_where_it_is_larger():
    own = {"data": [0.1], "model": [0.1, 0.6, 0.5, 0.5, 0.5, 0.5]}
    for exact, said in ((0.64, True), (0.58, False)):
        gains = {**own, "mixed": [0.1] + [exact] * 5, "true_dynamics": [0.1] + [exact] * 5}
        text = recommendation(read(gains, se=0.02)).headline
        assert "Fix the critic" in text and ("fixing only the model" in text) == said


def test_what_the_end_of_a_rollout_costs_is_not_the_critics():
    """With θ in all actions an exact model and critic gain less than all: the critic costs what a
    gradient with θ in the first action loses along the simulator."""
    own = {"data": [0.1], "model_all": [0.1] + [0.6] * 5, "model": [0.1] * 6, "mixed": [0.1] * 6}
    own |= {"mixed_all": [0.1] + [0.6] * 5, "true_dynamics_all": [0.1] + [0.6] * 5}
    for first, blamed in ((0.99, False), (0.7, True)):
        screen = recommendation(read({**own, "true_dynamics": [0.1] + [first] * 5}))
        assert screen.headline.startswith("Backpropagate 1–5 steps (best: ")
        assert ("Fix the critic" in screen.headline) == blamed
        assert not any("fixing the critic" in each.label for each in screen.numbers)


@pytest.mark.parametrize(
    ("changes", "updates", "light", "words"),
    [
        (RISES, 25, "act", "at least 25 updates"),
        ((1, 2, 3, 2, 1), 5, "act", "lasts about 5 updates"),
        (PASSES, 5, "choose", "lasts about 5 updates"),
        ((1, 2, 3, np.nan, np.nan), 5, "choose", "lasts about 5 updates"),
    ],
    ids=["rises", "passes", "falls", "is lost"],
)
def test_the_length_of_the_highest_return_is_said(changes, updates, light, words):
    found = read(realised=RAISED, rehearsal=rehearsed({BEST: changes, CRITIC: FALLS}))
    advice = advise(found)
    assert (advice.cell, advice.updates, advice.light) == (BEST, updates, light)
    screen = recommendation(found)
    assert words in screen.headline
    assert ("more updates along it lower the return" in screen.sure) == (light == "choose")
    said, numbers = counted(f"{screen.headline} {screen.sure}")
    assert said <= WORDS and numbers <= NUMBERS, screen.headline


def test_updates_that_fall_before_they_rise_are_told_from_those_that_stop_helping():
    found = read(realised=RAISED, rehearsal=rehearsed({BEST: (1, 2, -5, 9, 20), CRITIC: FALLS}))
    screen = recommendation(found)
    assert "lasts at least 25 updates" in screen.headline and screen.light == "choose"
    assert screen.sure == "undecided: 5 updates along it lower the return, 25 raise it"


def test_one_horizon_is_named_whose_gain_change_and_duration_are_told():
    """Of 4–5 steps, which gain alike in one step, 4 goes where its updates lower the return."""
    assert read().close(BEST) == [4, 5]
    for four, said in ((RISES, "4–5 steps (best: 5)"), (PASSES, "5 steps"), (FALLS, "5 steps")):
        told = rehearsed({BEST: RISES, ("model_all", 4): four, CRITIC: FALLS})
        headline = recommendation(read(realised=RAISED, rehearsal=told)).headline
        first = f"Backpropagate {said} through your model (BPTT): 77% (CI 74–80"
        assert headline.startswith(first)
        assert "gain; lasts at least 25 updates" in headline and "4" not in headline.split(".")[1:]
    narrow = replace(rehearsed({BEST: PASSES, CRITIC: FALLS}), rate=3e-5)
    headline = recommendation(read(realised=RAISED, rehearsal=narrow)).headline
    assert "; lasts about 5 updates (Adam at 3e-5)" in headline


def test_updates_that_led_farther_than_the_largest_gain_are_said_to_have():
    told = rehearsed({BEST: PASSES, CRITIC: RISES})
    profile = replace(planted(PAPER | {"data": [0.3]}), rehearsal=told)
    sentences = {each.about: each.text for each in chosen(profile)[1].rest}
    assert sentences["farther"] == (
        "Recommended is data (critic only) at h = 0, not the largest gain of one step: of the "
        "rehearsed updates its own led to the highest return, +20 (CI 19.9–20.1) after 25 "
        "updates; along model, BPTT at h = 5 it was +3 (CI 2.9–3.1) after 5 updates."
    )
    untold = replace(profile, rehearsal=rehearsed({CRITIC: RISES}))
    said = {each.about: each.text for each in chosen(untold)[1].rest}["farther"]
    assert said.endswith("; model, BPTT at h = 5 was not rehearsed.")
    near = rehearsed({CRITIC: RISES, BEST: NEAR}, noise=5.0)
    sentences = {each.about: each for each in chosen(replace(profile, rehearsal=near))[1].rest}
    assert not sentences["farther"].decided and "led to" not in sentences["farther"].text
    assert sentences["farther"].text.endswith(
        "64 starts do not tell it apart from model, BPTT at h = 5."
    )
    again = replace(profile, rehearsal=rehearsed({BEST: RISES, CRITIC: PASSES}))
    assert "farther" not in {each.about for each in chosen(again)[1].rest}


RISING = {"data": [0.6], "model_all": [0.2, 0.8, 0.8, 0.95, 0.97, 0.99]}


@pytest.mark.parametrize(
    ("critic", "words", "beside_less"),
    [
        (RISES, "The critic alone brings as much.", "The critic alone brings as much."),
        (NEAR, "The critic alone brings +19.", "The critic alone brings less."),
        (FALLS, "The critic alone lowers the return.", "The critic alone lowers the return."),
        (NOTHING_MORE, "", ""),
    ],
    ids=["rises", "near", "falls", "open"],
)
def test_what_the_critic_alone_does_is_said_of_as_many_updates_as_are_recommended(
    critic, words, beside_less
):
    """Its one step gains 2%, or nothing, of the possible gain."""
    changes = {BEST: RISES, SHORT: FALLS, CRITIC: critic}
    gains = {"data": [0.0], "model_all": [0.0, 0.5, 0.5, 0.5, 0.5, 0.9]}
    told = rehearsed(changes)
    headline = recommendation(read(gains, rehearsal=told)).headline
    assert words in headline and "Rollouts of 1 step lower the return." in headline
    assert ("critic alone" in headline) == bool(words)
    assert headline.startswith("Backpropagate 5 steps") and "lasts at least 25 updates" in headline
    # The +17 of fresh draws is no larger than the critic's: as much, or less on the same starts.
    apart = rehearsed(changes, again={BEST: (1, 2, 5, 9, 17)})
    headline = recommendation(read(gains, rehearsal=apart)).headline
    assert beside_less in headline and ("critic alone" in headline) == bool(words)
    # Fresh draws that sum more steps are compared with nothing.
    headline = recommendation(read(gains, rehearsal=replace(told, again_horizon=300))).headline
    assert "critic alone" not in headline and "lower the return" not in headline


@pytest.mark.parametrize(("gain", "said"), [(-0.2, False), (-0.4, True)])
def test_a_small_loss_of_one_step_is_none_of_updates(gain, said):
    """Adam goes another way: of −16% in one small step 25 of its updates raised the return."""
    gains = {"data": [0.5], "model_all": [0.0, gain, 0.5, 0.5, 0.5, 0.9]}
    words = "Rollouts of 1 step lower the return."
    assert (words in recommendation(read(gains)).headline) == said
    # Beside updates that were rehearsed one step says nothing of any horizon.
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    assert words not in recommendation(read(gains, rehearsal=told)).headline
    told = rehearsed({BEST: RISES, SHORT: FALLS})
    assert words in recommendation(read(gains, rehearsal=told)).headline


def test_that_fewer_updates_lower_the_return_is_said():
    falls = (1, 0, -3, -2, 20)
    told = rehearsed({BEST: falls, CRITIC: FALLS})
    sure = recommendation(read(realised=RAISED, rehearsal=told)).sure
    assert sure == "undecided: 5 updates along it lower the return, 25 raise it"


@pytest.mark.parametrize(
    ("changes", "noise", "why"),
    [
        ({SHORT: RISES, BEST: NEAR}, 5.0, "but over several the two cannot be told apart"),
        ({SHORT: RISES, BEST: LESS}, 0.5, "but at h = 5 their updates gained less"),
        ({SHORT: RISES, BEST: PASSES}, 0.5, "but updates along them lower the return"),
        ({SHORT: RISES, BEST: FALLS}, 0.5, "but updates along them lower the return"),
        ({SHORT: RISES, CRITIC: LESS}, 0.5, "but no update along them was rehearsed"),
        ({BEST: RISES, SHORT: NEAR}, 5.0, ""),
    ],
    ids=["not told apart", "less", "passes", "falls", "not rehearsed", "followed"],
)
def test_why_a_larger_gain_of_one_step_is_not_followed_is_said(changes, noise, why):
    """The figure beside it has a curve above the ring."""
    told = rehearsed(changes, noise=noise)
    headline = recommendation(read(RISING, rehearsal=told)).headline
    gains_more = f"Longer rollouts gain more in one step, {why}."
    assert (gains_more in headline) == bool(why) == ("more in one step" in headline)
    assert headline.startswith("Backpropagate 1 step through") == bool(why), headline
    short = recommendation(read(RISING, rehearsal=told, jumps=planted_jumps())).headline
    assert ("not one step's gain" in short or gains_more in short) == bool(why)


def test_what_fresh_draws_did_not_confirm_is_said_not_to_be_shown():
    """It led, and the next of those that were rehearsed is followed."""
    told = rehearsed({BEST: RISES, SHORT: NEAR}, again={BEST: NOTHING_MORE})
    found = read(RISING, rehearsal=told)
    assert found.best == BEST and advise(found).cell == SHORT
    said = "Longer rollouts gain more in one step, but updates along them are not shown to raise"
    assert said in recommendation(found).headline


def test_of_a_gradient_that_nobody_rehearsed_nothing_else_is_said():
    gains = {"data": [0.6], "model_all": [0.6, 0.2, 0.3, 0.97, 0.9, 0.4]}
    found = read(gains, rehearsal=rehearsed({CRITIC: SHORTLY, ("model_all", 4): LESS}))
    assert found.best == ("model_all", 3) and advise(found).cell == CRITIC
    said = "Your model (BPTT) gains more in one step, but no update along it was rehearsed."
    assert said in recommendation(found).headline


def test_a_range_ends_at_rehearsed_horizons_that_are_as_good_over_several_updates():
    level = {"data": [0.2], "model_all": [0.2, 0.97, 0.972, 0.974, 0.976, 0.98]}

    def headline(**changes):
        own = {("model_all", int(h[1:])): by for h, by in changes.items()}
        told = rehearsed({SHORT: RISES, **own}, noise=0.1)
        return recommendation(read(level, rehearsal=told)).headline

    nearly, fewer = (tuple(share * change for change in RISES) for share in (0.8, 0.7))
    told = rehearsed({SHORT: RISES, BEST: nearly}, noise=0.1)
    assert told.as_good(BEST, SHORT, 25, 0.75) and not told.as_good(BEST, SHORT, 25, 0.85)
    assert "1–5 steps (best over several updates: 1) through" in headline(h5=nearly)
    assert "Backpropagate 1 step through" in headline(h5=fewer)
    assert "Backpropagate 1 step through" in headline(h5=PASSES)
    said = headline(h5=fewer, h3=nearly)
    assert said.startswith("Backpropagate 1–3 steps (best over several updates: 1) through"), said
    # Whatever lies beyond a horizon that is not as good, and whatever was not rehearsed, is not
    # named; that of the largest gain is, as not rehearsed.
    assert "Backpropagate 1 step through" in headline(h5=nearly, h3=fewer)
    assert "1–4 steps (best over several updates: 1; longer: not rehearsed)" in headline(h4=nearly)
    assert "Backpropagate 1 step (longer: not rehearsed) through" in headline()
    assert "1–5 steps (best: 5)" in recommendation(read(level)).headline


def test_another_gradient_that_gains_more_in_one_step_is_named():
    told = rehearsed({CRITIC: RISES, BEST: LESS})
    headline = recommendation(read(RISING, rehearsal=told)).headline
    assert "Your model (BPTT) gains more in one step, but less over several." in headline
    tried = read(RISING, realised=steps({BEST: -0.3, CRITIC: 0.5}))
    assert advise(tried).cell == CRITIC
    said = (
        "Your model (BPTT) gains more in one step, but one plain step along it lowers the return."
    )
    assert said in recommendation(tried).headline
    alike = read(RISING | {"data": [0.97]}, rehearsal=told)  # no curve is visibly above it
    assert "more in one step" not in recommendation(alike).headline


@pytest.mark.parametrize("jumps", [None, "harmful", "open"])
@pytest.mark.parametrize("changes", [RISES, PASSES])
def test_horizons_that_lower_the_return_are_always_said_and_never_others(changes, jumps):
    """By as much evidence as one that raises it: their updates, where these were rehearsed."""
    found = None if jumps is None else planted_jumps(jumps)
    for short, words in ((FALLS, True), (NOTHING_MORE, False)):
        told = rehearsed({BEST: changes, SHORT: short, CRITIC: FALLS})
        headline = recommendation(read(rehearsal=told, jumps=found)).headline
        assert headline.startswith("Backpropagate")
        assert ("ollouts lower the return" in headline or "step lower" in headline) == words
    one = recommendation(read(jumps=found)).headline
    assert "ollouts lower the return" in one or "steps lower" in one


def test_horizons_whose_step_lowered_the_return_are_said_where_no_gain_is_known():
    taken = steps({BEST: 0.7, SHORT: -0.4, CRITIC: -0.5}, truth=False)
    headline = recommendation(read(admissible=False, status="none", realised=taken)).headline
    assert headline.startswith("Backpropagate 5 steps through your model (BPTT): one plain step")
    assert "Rollouts of 1 step lower the return. The critic alone lowers the return." in headline
    taken = steps({BEST: 0.7, SHORT: 0.0, CRITIC: 0.0}, truth=False)
    headline = recommendation(read(admissible=False, status="none", realised=taken)).headline
    assert "lower" not in headline


def test_a_rehearsed_change_stands_beside_the_return_that_it_is_of():
    """To digits that show a change of that size."""
    for before, said in ((-29.9, "−29.9"), (-1234.4, "−1234.4"), (0.01, "0.01")):
        told = replace(rehearsed({BEST: RISES, CRITIC: FALLS}), before=np.full(64, before))
        numbers = recommendation(read(realised=RAISED, rehearsal=told)).numbers
        label = f"change of the return over 100 steps ({said} before) after 25"
        assert any(label in each.label for each in numbers)


@pytest.mark.parametrize("change", [0.3, 0.05])
def test_what_is_open_says_how_many_judges_would_tell(change):
    """Student's t with 3 degrees of freedom: an interval of ± 3.18 · 2 / √64 / √4 = 0.4 leaves 0,
    or what is above 0.5% of the return, with (0.4 / 0.3)² of 64 starts, half as many again."""
    told = rehearsed({BEST: (change,) * 5, CRITIC: FALLS}, noise=2.0)
    told = replace(told, before=np.full(64, 40.0))  # of which 0.5% is 0.2
    found = read(realised=RAISED, rehearsal=told)
    assert advise(found).cell is None
    screen = recommendation(found)
    assert "none of 2 gradients' updates is shown to raise the return" in screen.headline
    judges = told.missing(0.2)
    asked = re.fullmatch(r"undecided \(--judges (\d+) needed, .+\)", screen.sure)
    assert asked and judges <= int(asked[1]) <= 1.1 * judges
    apart = max(change, abs(0.2 - change))
    assert (0.398 / apart) ** 2 * 64 <= judges <= 2 * (0.398 / apart) ** 2 * 64 + 130


def test_that_no_gradient_brings_anything_is_a_result():
    """0 ± 0.04 is below 0.5% of the return."""
    told = rehearsed({BEST: (0.01,) * 5, CRITIC: FALLS}, noise=0.2)
    told = replace(told, before=np.full(64, 100.0))
    screen = recommendation(read(realised=RAISED, rehearsal=told))
    assert screen.light == "none" and screen.headline.startswith("Keep the current policy")
    assert screen.sure == "tested: no gradient is shown to raise the return by 0.5% of the return"
    dear = rehearsed({BEST: (0.001,) * 5, CRITIC: FALLS}, noise=50.0)
    sure = recommendation(read(realised=RAISED, rehearsal=dear)).sure
    assert sure == "undecided: no affordable number of judging starts shows 0.5% of the return"


def test_where_returns_alone_decide_nothing_is_called_wrong_without_evidence():
    """No gain was measured: what is wrong with the critic is not known."""
    blind = dict(admissible=False, status="none")
    screen = recommendation(read(realised=steps({BEST: 0.3, CRITIC: -0.9}, noise=3), **blind))
    assert "One plain step along the critic alone lowers it." in screen.headline
    assert screen.headline.count("critic") == 1 and screen.sure == "undecided with 64 starts"
    screen = recommendation(read(realised=LOWERED, **blind))
    assert "critic" not in screen.headline and "2 of 2 tested gradients" in screen.headline
    assert screen.sure == "tested: plain steps lowered the return on fresh starts"


def test_a_rehearsals_batches_are_named_beside_those_of_an_update():
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    for batch, words in ((256, "batches of 256 states (N′)"), (64, "of 64 states (N′ / 4)")):
        found = read(realised=RAISED, rehearsal=replace(told, batch=batch))
        assert any(words in fact.how for fact in recommendation(found).numbers)


def test_updates_that_are_rehearsed_need_no_precise_truth():
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    found = read(realised=RAISED, rehearsal=told, status="imprecise")
    assert (advise(found).cell, advise(found).updates, advise(found).light) == (BEST, 25, "act")
    assert "possible gain" not in recommendation(found).headline
    told = rehearsed({BEST: NOTHING_MORE, CRITIC: FALLS}, noise=9.0)
    screen = recommendation(read(realised=RAISED, rehearsal=told, status="imprecise"))
    assert screen.light == "none" and "none of 2 gradients' updates is shown" in screen.headline


def test_no_steps_through_a_model_are_the_critic_alone():
    first = ("model_all", 0)
    found = read(rehearsal=rehearsed({first: RISES, CRITIC: FALLS}))
    assert advise(found).cell == first
    assert recommendation(found).headline.startswith("Use the critic at start states (h = 0)")


def test_a_rate_below_the_usual_one_that_nobody_gave_is_said():
    smaller = replace(rehearsed({BEST: PASSES, CRITIC: FALLS}), rate=3e-5)
    for told, words in ((smaller, "5 updates (Adam at 3e-5)"), (rehearsed({BEST: PASSES}), "")):
        headline = recommendation(read(realised=RAISED, rehearsal=told)).headline
        assert words in headline and ("Adam" in headline) == bool(words)
    given = replace(smaller, assumed=False)
    assert "adam" not in recommendation(read(realised=RAISED, rehearsal=given)).headline


@pytest.mark.parametrize("assumed", [None, False, True])
def test_smaller_steps_are_advised_where_no_update_was_rehearsed(assumed):
    """A quarter of 3e-4 was said of a quarter of a step that moves actions by 4%, 400 times as long
    as an update at 3e-4: beside rehearsed updates a rate is theirs, and only where all fall."""
    bent = steps({BEST: 0.7, CRITIC: -0.9}, bend=3.0)
    told = rehearsed({BEST: NOTHING_MORE, CRITIC: FALLS})
    told = None if assumed is None else replace(told, assumed=assumed)
    said = recommendation(read(realised=bent, rehearsal=told)).headline
    assert said.startswith("Keep the current policy" if told else "Take smaller steps")
    assert "--lr" not in said and "Adam" not in said
    if told is not None:
        falls = replace(rehearsed({BEST: FALLS, CRITIC: FALLS}), assumed=assumed)
        said = recommendation(read(realised=bent, rehearsal=falls)).headline
        assert "updates by Adam at 1e-3 lower the return along every gradient" in said
        assert ("--lr 0.0001" in said) == (not assumed)


def test_a_light_is_green_where_updates_raised_the_return_in_every_draw_and_in_fresh_ones():
    changes = {BEST: RISES, CRITIC: FALLS}
    shown = recommendation(read(realised=RAISED, rehearsal=rehearsed(changes)))
    assert shown.light == "act" and shown.sure == (
        "tested: 25 updates raise the return in fresh draws of batches"
    )
    assert recommendation(read(rehearsal=rehearsed(changes))).light == "act"  # no step was taken


def test_from_few_judges_no_light_is_green():
    for judges, light in ((FEWEST - 2, "choose"), (FEWEST, "act")):
        found = read(realised=RAISED, rehearsal=rehearsed({BEST: RISES}, groups=judges))
        assert (advise(found).cell, advise(found).updates) == (BEST, 25)
        screen = recommendation(found)
        assert screen.light == advise(found).light == light
        few = f"from {judges} judging starts (--judges {FEWEST} or more)"
        assert (few in screen.sure) == (light == "choose")


def test_a_plain_step_warns_and_never_vetoes_what_updates_raised():
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    found = replace(read(realised=LOWERED, rehearsal=told), disagreements=())
    advice = advise(found)
    assert (advice.cell, advice.updates) == (BEST, 25)
    assert (advice.light, advice.missing) == ("choose", "longer")
    assert recommendation(found).sure == (
        "25 updates raise the return; a plain step that moves the actions farther lowers it"
    )
    # One that raises nothing does not even warn, and a gain below 0 does.
    still = replace(read(realised=NOTHING, rehearsal=told), disagreements=())
    assert (advise(still).cell, advise(still).light) == (BEST, "act")
    worse = read({"data": [0.1], "model_all": [0.1] * 5 + [-0.3]}, rehearsal=told)
    assert (advise(worse).cell, advise(worse).missing) == (BEST, "longer")
    assert recommendation(worse).sure.endswith("; one small step lowers it")


def test_beside_a_contradiction_a_confirmed_gradient_stands_under_no_light():
    """Steps along it bring the opposite of its gain: gain and return are of different problems."""
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    found = read(realised=LOWERED, rehearsal=told)
    assert any(each.cell == BEST for each in found.disagreements)
    advice = advise(found)
    assert (advice.cell, advice.updates) == (BEST, 25)
    assert (advice.light, advice.missing) == ("none", "premise")
    screen = recommendation(found)
    assert screen.light == "none" and "Backpropagate 5 steps" in screen.headline
    assert screen.sure == "a check failed, so only measured returns count"
    assert "77% (CI" not in screen.headline  # its gain is not believed
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
        assert recommendation(found).headline.startswith("Keep") == (cell is None)


def test_a_promise_is_that_of_fresh_draws_and_names_the_steps_of_its_returns():
    """Nothing was chosen by them; their interval covers draws and starts."""
    told = rehearsed({BEST: RISES, CRITIC: FALLS}, again={BEST: (1, 2, 5, 9, 17)})
    gain = told.peak_of(BEST).gain
    half = 3.1824 * (0.5 / 64**0.5) / 4**0.5  # Student's, 3 degrees of freedom
    assert gain.value == pytest.approx(17) and gain.n == 4 * 64
    assert (gain.low, gain.high) == pytest.approx((17 - half, 17 + half), rel=1e-5)
    found = read(realised=RAISED, rehearsal=replace(told, again_horizon=300))
    promised = next(fact for fact in of_use(found, BEST) if "change of the return" in fact.label)
    assert "over 300 steps" in promised.label and "256 starts, 300 steps" in promised.how
    assert "4 fresh draws of states and batches" in promised.how
    assert promised.text.startswith("+17 ")


def test_a_gradient_lasts_for_as_long_as_fresh_draws_show():
    changes = {BEST: RISES, CRITIC: FALLS}
    told = rehearsed(changes, again={BEST: (1, 2, 5, 0, -9)})
    found = read(realised=RAISED, rehearsal=told)
    assert (advise(found).updates, advise(found).light) == (5, "act")
    assert "lasts about 5 updates" in recommendation(found).headline
    for again in (NOTHING_MORE, (np.nan,) * 5):
        told = rehearsed(changes, again={BEST: again})
        found = read(realised=RAISED, rehearsal=told)
        assert advise(found).cell is None  # whatever a step raised, or gains
        screen = recommendation(found)
        assert screen.headline.startswith("Keep the current policy: none of 2 gradients' updates")
        assert screen.light == "none" and "nan" not in str(screen)


def test_a_plain_step_is_never_called_an_update():
    """Adam's, as long, goes another way: beside rehearsed updates it says how far it moves."""
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    for rehearsal, words in ((None, "one plain step"), (told, "one step that moves the first act")):
        for change in (RAISED, LOWERED, NOTHING):
            found = replace(read(realised=change, rehearsal=rehearsal), disagreements=())
            screen = recommendation(found)
            numbers = [fact.label for fact in screen.numbers if "step" in fact.label]
            assert "one update" not in f"{screen.headline} {screen.sure} {numbers}"
            assert advise(found).cell is None or any(words in label for label in numbers)


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
    screen = recommendation(found)
    assert advise(found).cell is None and screen.light == "none"
    assert "Highest: your model (BPTT), 5 steps, +20 (CI −40 to 80) after 25" in screen.headline
    assert screen.sure.startswith("undecided")
    said, numbers = counted(f"{screen.headline} {screen.sure}")
    assert said <= WORDS and numbers <= NUMBERS, screen.headline


def test_what_was_tried_is_advised_first_and_then_that_the_return_jumps():
    found = read(
        admissible=False, status="jumps", realised=steps({CRITIC: 0.4, BEST: -0.4}, truth=False),
        rehearsal=rehearsed({CRITIC: RISES, BEST: FALLS}), jumps=planted_jumps(),
    )  # fmt: skip
    screen = recommendation(found)
    assert screen.headline.startswith("Use the critic alone (h = 0): 25 updates change the return")
    jump = "The simulator's gradient predicts +104, steps along it bring +13."
    assert jump[1:] in screen.headline and ". The return is discontinuous: t" in screen.headline
    assert advise(found).cell == CRITIC and screen.light == "act"


@pytest.mark.parametrize("change", [(0, 0, -0.5, -2, -9), NOTHING_MORE])
def test_beside_rehearsed_updates_nothing_is_guessed_from_one_step(change):
    found = read(status="imprecise", rehearsal=rehearsed({BEST: change, CRITIC: change}))
    said = recommendation(found).headline
    assert found.best == BEST and said.startswith("Keep the current policy")
    assert "Best guess" not in said and "gain" not in said


def test_open_jumps_are_no_green_light():
    told = rehearsed({BEST: RISES, CRITIC: FALLS})
    found = read(realised=RAISED, rehearsal=told, jumps=planted_jumps("open"))
    assert advise(found).light == "choose" and advise(found).missing == "jumps"
    lost = read(rehearsal=told, jumps=planted_jumps("open", lost=(0, 3, 9)))
    assert "overflow within one update" in recommendation(lost).sure


def test_gradients_of_another_problem_are_believed_by_nobody():
    found = read(realised=steps({BEST: 0.1, CRITIC: 0.1}, norm=5.0))
    assert any(each.cell == TRUE_CELL and each.reason == "law" for each in found.disagreements)
    assert recommendation(found).headline.startswith("Do not trust these gains yet")


def test_where_a_premise_of_gains_fails_returns_alone_decide_and_never_in_green():
    premise = "The critic does not follow the return: refit the critic."
    found = replace(read(realised=RAISED), void=("The critic does not.",), premise=premise)
    advice = advise(found)
    assert (advice.cell, advice.light, advice.missing) == (BEST, "none", "premise")
    headline = recommendation(found).headline
    assert headline.startswith(f"{premise} Until then: ") and "possible gain" not in headline
    long = f"The critic {'is far ' * 20}off: refit the critic."
    assert recommendation(replace(found, premise=long)).headline.startswith(
        "Refit the critic. Until then: "
    )
    nothing = replace(read(realised=LOWERED), void=found.void)
    assert recommendation(nothing).headline == "The critic does not."


def test_a_guess_without_gains_is_named_where_it_has_room_beside_a_jump():
    undecided = rehearsed({BEST: (0, 0, 0, 0, 0), CRITIC: FALLS}, noise=9.0)
    found = read(realised=RAISED, rehearsal=undecided, jumps=planted_jumps("harmful"))
    found = replace(found, best=None, chosen=None, gains={}, batch_gains={}, disagreements=())
    screen = recommendation(found)
    assert screen.light == "none" and "Keep the current policy" in screen.headline
    said, numbers = counted(f"{screen.headline} {screen.sure}")
    assert said <= WORDS and numbers <= NUMBERS, screen.headline
