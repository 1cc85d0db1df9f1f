"""What is advised from planted gains, steps and rehearsals, under which light."""

import re
from dataclasses import replace

import numpy as np
import pytest

from gradlab.runs.realised import TRUE_CELL
from gradlab.runs.rehearsal import Rule, judged
from gradlab.verdicts.advice import advise
from gradlab.verdicts.choice import chosen
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.key_numbers import of_use
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.screen import NUMBERS, WORDS, counted
from tests.runs.planted_gains import planted as steps
from tests.runs.planted_gains import planted_jumps
from tests.verdicts.test_recommendation import PAPER, planted, screen

BEST, SHORT, CRITIC = ("model_all", 5), ("model_all", 1), ("data", 0)
LENGTHS = (1, 2, 5, 10, 25)
RISES, PASSES, FALLS = (1, 2, 5, 9, 20), (1, 2, 3, -4, -30), (-1, -2, -5, -9, -20)
SHORTLY = (1, 2, 9, 4, 0)
NEAR = tuple(0.97 * each for each in RISES)
RULE = Rule("adam", 1e-3, True, 25, 256, 100, "ignore", 0, 1000)


def rehearsed(changes, noise=0.5, groups=32, again=None, step=1.0):
    """Changes of the return after each length, with noise of one start; the gradient that is chosen
    does the same once more, or what `again` says."""
    found = _once(changes, noise, groups)
    cell = found.choice(BEST if BEST in changes else CRITIC)
    if cell is None:
        return found
    updates = found.peak_of(cell).updates
    draws = noise * np.random.default_rng(2).standard_normal(groups)
    second = np.array(again or changes[cell], dtype=float)
    second[np.array(LENGTHS) > updates] = np.nan
    return replace(
        found, again=second[:, None] + draws, step=step + draws, again_cell=found.cells.index(cell)
    )


def _once(changes, noise, groups):
    draws = noise * np.random.default_rng(1).standard_normal((len(changes), 1, groups))
    change = np.array(list(changes.values()), dtype=float)[:, :, None] + draws
    return judged(list(changes), LENGTHS, change, np.zeros(groups), np.ones(groups), RULE)


def read(gains=PAPER, realised=None, rehearsal=None, jumps=None, **changes):
    profile = planted(gains, **changes)
    return facts(replace(profile, realised=realised, rehearsal=rehearsal, jumps=jumps))


RAISED, LOWERED = steps({BEST: 0.7, CRITIC: -0.9}), steps({BEST: -0.7, CRITIC: -0.9})
NOTHING = steps({BEST: 0.0, CRITIC: -0.9})


def test_a_light_is_green_where_a_step_was_taken_and_raised_the_return():
    advice = advise(read())
    assert (advice.cell, advice.light, advice.missing) == (BEST, "choose", "step")
    advice = advise(read(realised=RAISED))
    assert (advice.cell, advice.light, advice.updates) == (BEST, "act", None)
    found = read(realised=LOWERED)
    found = replace(found, disagreements=())
    assert advise(found).cell is None
    screen = recommendation(found)
    assert screen.light == "none" and screen.headline.startswith("Keep the current policy")


def test_what_gains_more_with_the_simulators_states_is_compared_with_the_recommended_gradient():
    """Not with the largest gain of one step, which is as good and is not recommended."""
    gains = {
        "data": [0.1], "model": [0.1, 0.6, 0.7, 0.8, 0.9, 0.91],
        "model_all": [0.1, 0.78, 0.7, 0.6, 0.5, 0.5], "mixed_all": [0.1, 0.5, 0.6, 0.93, 0.9, 0.9],
    }  # fmt: skip
    for cell, said in ((SHORT, True), (("model", 5), False)):
        told = _once({SHORT: (1, 2, 3, 4, 5), ("model", 5): (1, 2, 3, 4, 5), cell: RISES}, 0.5, 32)
        profile = replace(planted(gains, se=0.003), rehearsal=told)
        read, explained = facts(profile), chosen(profile)[1]
        assert advise(read).cell == cell and read.best == ("model", 5)
        sentences = [each.text for each in explained.rest if each.about == "beyond"]
        assert len(sentences) == said and all("(mixed, BPTT), 3 steps" in x for x in sentences)
        assert "simulator states" not in explained.headline  # no room
    del gains["data"], gains["model"]
    assert "With simulator states (mixed, BPTT), 3 steps gain 93%." in screen(gains).headline
    gains["mixed_all"] = [0.1, 0.93, 0.5, 0.5, 0.5, 0.5]
    assert "With simulator states (mixed, BPTT), 1 step gains 93%." in screen(gains).headline


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
        "rehearsed updates its own led to the highest return, +19.9 (CI 19.8–20.1) after 25 "
        "updates in the first rehearsal; along model, BPTT at h = 5 it was +3 (CI 2.8–3.2) after 5 "
        "updates."
    )
    untold = replace(profile, rehearsal=rehearsed({CRITIC: RISES}))
    said = {each.about: each.text for each in chosen(untold)[1].rest}["farther"]
    assert said.endswith("; model, BPTT at h = 5 was not rehearsed.")
    near = rehearsed({CRITIC: RISES, BEST: NEAR}, noise=5.0)
    sentences = {each.about: each for each in chosen(replace(profile, rehearsal=near))[1].rest}
    assert not sentences["farther"].decided and "led to" not in sentences["farther"].text
    assert sentences["farther"].text.endswith(
        "32 starts do not tell it apart from model, BPTT at h = 5."
    )
    again = replace(profile, rehearsal=rehearsed({BEST: RISES, CRITIC: PASSES}))
    assert "farther" not in {each.about for each in chosen(again)[1].rest}


RISING = {"data": [0.6], "model_all": [0.2, 0.8, 0.8, 0.95, 0.97, 0.99]}


@pytest.mark.parametrize(
    ("critic", "words"),
    [
        (RISES, "The critic alone brings +20."), (NEAR, "The critic alone brings +19."),
        (FALLS, "The critic alone lowers the return."),
        ((0, 0, 0, 0, 0), "The critic alone is not shown to help."),
    ],
    ids=["rises", "near", "falls", "open"],
)  # fmt: skip
def test_what_the_critic_alone_does_is_said_of_as_many_updates_as_are_recommended(critic, words):
    """Its one step gains 2%, or nothing, of the possible gain."""
    told = rehearsed({BEST: RISES, SHORT: FALLS, CRITIC: critic}, noise=0.5)
    told = replace(told, step=told.step + 9)
    gains = {"data": [0.0], "model_all": [0.0, 0.5, 0.5, 0.5, 0.5, 0.9]}
    headline = recommendation(read(gains, rehearsal=told)).headline
    assert words in headline and "Rollouts of 1 step lower the return." in headline
    text = recommendation(read(gains, rehearsal=told)).headline
    assert text.startswith("Backpropagate 5 steps") and "lasts at least 25 updates" in text
    told = rehearsed({BEST: RISES, SHORT: FALLS, CRITIC: critic}, again=(1, 2, 5, 9, 17))
    headline = recommendation(read(gains, rehearsal=replace(told, step=told.step + 9))).headline
    # The +17 is of fresh starts: more is as much, or less where it was less on the same ones.
    words = words.replace("brings +19", "brings less").replace("brings +", "brings as much, +")
    assert words in headline


@pytest.mark.parametrize(("gain", "said"), [(-0.2, False), (-0.4, True)])
def test_a_small_loss_of_one_step_is_none_of_updates(gain, said):
    """Adam goes another way: of −16% in one small step 25 of its updates raised the return."""
    gains = {"data": [0.5], "model_all": [0.0, gain, 0.5, 0.5, 0.5, 0.9]}
    told = rehearsed({BEST: RISES, CRITIC: FALLS}, noise=0.5)
    headline = recommendation(read(gains, rehearsal=replace(told, step=told.step + 9))).headline
    assert ("Rollouts of 1 step lower the return." in headline) == said


def test_that_fewer_updates_lower_the_return_is_said_before_the_plain_step():
    falls = (1, 0, -3, -2, 20)
    told = rehearsed({BEST: falls, CRITIC: FALLS}, noise=0.5)
    found = read(rehearsal=replace(told, step=told.step - told.step.mean()))
    assert found.rehearsal is not None and not found.rehearsal.plain_step.low > 0
    sure = recommendation(found).sure
    assert sure == "undecided: 5 updates along it lower the return, 25 raise it"


@pytest.mark.parametrize(
    ("changes", "noise", "why"),
    [
        ({SHORT: RISES, BEST: NEAR}, 5.0, "but over several the two cannot be told apart"),
        ({SHORT: RISES, BEST: PASSES}, 0.5, "but at h = 5 their updates gained less"),
        ({SHORT: RISES, BEST: FALLS}, 0.5, "but updates along them lower the return"),
        ({SHORT: RISES, CRITIC: PASSES}, 0.5, "but no update along them was rehearsed"),
        ({BEST: RISES, SHORT: NEAR}, 5.0, ""),
    ],
    ids=["not told apart", "less", "falls", "not rehearsed", "followed"],
)
def test_why_a_larger_gain_of_one_step_is_not_followed_is_said(changes, noise, why):
    """The figure beside it has a curve above the ring."""
    told = rehearsed(changes, noise=noise)
    headline = recommendation(read(RISING, rehearsal=replace(told, step=told.step + 9))).headline
    gains_more = f"Longer rollouts gain more in one step, {why}."
    assert (gains_more in headline) == bool(why) == ("more in one step" in headline)
    assert headline.startswith("Backpropagate 1 step through") == bool(why), headline
    short = recommendation(read(RISING, rehearsal=told, jumps=planted_jumps())).headline
    assert ("not one step's gain" in short or gains_more in short) >= (noise == 0.5 and bool(why))


@pytest.mark.parametrize(
    ("changes", "noise", "why"),
    [
        ({4: PASSES, 1: PASSES}, 0.1, "at h = 4 its updates gained less (+3)"),
        ({1: PASSES}, 0.1, "at h = 1 its updates gained less (+3)"),
        ({1: PASSES, 2: (1, 2, 4, 0, -9), 5: FALLS}, 0.1,
         "at h = 2 and 5 its updates gained less"),
        ({4: FALLS}, 0.5, "at h = 4 its updates lower the return"),
        ({4: (1, 2, 8.8, 4, 0)}, 5.0, "over several the two cannot be told apart at h = 4"),
        ({0: PASSES}, 0.5, "no update along it was rehearsed"),
        ({4: (np.nan,) * 5}, 0.5, "at h = 4 its updates lower the return"),
    ],
    ids=["close", "one side", "both sides", "falls", "not told apart", "critic alone", "lost"],
)  # fmt: skip
def test_of_an_unrehearsed_gradient_the_nearest_rehearsed_horizons_answer(changes, noise, why):
    gains = {"data": [0.6], "model_all": [0.6, 0.2, 0.3, 0.97, 0.9, 0.4]}
    told = rehearsed(
        {CRITIC: SHORTLY, **{("model_all", h): by for h, by in changes.items()}}, noise
    )
    found = read(gains, rehearsal=replace(told, step=told.step + 9))
    assert found.best == ("model_all", 3) and advise(found).cell == CRITIC
    said = f"Your model (BPTT) gains more in one step, but {why}."
    assert said in recommendation(found).headline


def test_of_its_own_horizons_those_beyond_the_recommended_one_answer():
    """Of 1, 3 and 5 steps, 3 gaining most in one, 1 is followed and 5 was rehearsed, too."""
    gains = {"model_all": [0.6, 0.2, 0.3, 0.97, 0.9, 0.4]}
    told = rehearsed({SHORT: SHORTLY, BEST: PASSES, CRITIC: FALLS}, noise=0.1)
    said = "Longer rollouts gain more in one step, but at h = 5 their updates gained less (+3)."
    told = replace(told, step=told.step + 9)
    assert said in recommendation(read(gains, rehearsal=told)).headline


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
    told = rehearsed({CRITIC: RISES, BEST: PASSES})
    headline = recommendation(read(RISING, rehearsal=told)).headline
    assert "Your model (BPTT) gains more in one step, but less over several." in headline
    tried = read(RISING, realised=steps({BEST: -0.3, CRITIC: 0.5}))
    assert advise(tried).cell == CRITIC
    said = "Your model (BPTT) gains more in one step, but updates along it lower the return."
    assert said in recommendation(tried).headline
    alike = read(RISING | {"data": [0.97]}, rehearsal=told)  # no curve is visibly above it
    assert "more in one step" not in recommendation(alike).headline


@pytest.mark.parametrize("jumps", [None, "harmful", "open"])
@pytest.mark.parametrize("changes", [RISES, PASSES])
def test_horizons_that_lower_the_return_are_always_said_and_never_others(changes, jumps):
    told = rehearsed({BEST: changes, CRITIC: FALLS})
    found = None if jumps is None else planted_jumps(jumps)
    for gains, words in ((PAPER, True), (RISING, False)):
        headline = recommendation(read(gains, rehearsal=told, jumps=found)).headline
        assert headline.startswith("Backpropagate")
        assert ("ollouts lower the return" in headline or "steps lower" in headline) == words


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
        told = replace(rehearsed({BEST: RISES, CRITIC: FALLS}), before=np.full(32, before))
        numbers = recommendation(read(realised=RAISED, rehearsal=told)).numbers
        label = f"change of the return over 100 steps ({said} before) after 25"
        assert any(label in each.label for each in numbers)


@pytest.mark.parametrize("step", [0.05, 0.0])
def test_what_is_open_says_how_many_starts_would_tell(step):
    """A plain step of 0.05 with noise 0.5: about (2.8 · 0.5 / 0.05)² = 784 starts."""
    told = rehearsed({BEST: RISES, CRITIC: FALLS}, step=step)
    told = replace(told, step=told.step - told.step.mean() + step)
    sure = recommendation(read(realised=RAISED, rehearsal=told)).sure
    assert "return, one plain step is not shown to" in sure
    # A plain step that raises the return over fewer steps stands beside it.
    longer = replace(told, again_horizon=RAISED.horizon + 300)
    apart = recommendation(read(realised=RAISED, rehearsal=longer)).sure
    assert "return, over the same steps one plain step is not shown to" in apart
    asked = re.search(r"--judges (\d+) needed", sure)
    assert (asked is not None) == (step > 0)
    assert asked is None or 500 < int(asked[1]) < 1200
    open_steps = steps({BEST: 0.05, CRITIC: -0.9}, noise=0.5)
    screen = recommendation(read(realised=open_steps))
    assert "one update is not shown to raise the return" in screen.headline
    assert screen.sure.startswith("undecided: it may (--judges ")


def test_where_returns_alone_decide_nothing_is_called_wrong_without_evidence():
    """No gain was measured: what is wrong with the critic is not known."""
    blind = dict(admissible=False, status="none")
    screen = recommendation(read(realised=steps({BEST: 0.3, CRITIC: -0.9}, noise=3), **blind))
    assert "One plain step along the critic alone lowers it." in screen.headline
    assert screen.headline.count("critic") == 1 and "--judges" in screen.sure
    screen = recommendation(read(realised=LOWERED, **blind))
    assert "critic" not in screen.headline and "2 of 2 tested gradients" in screen.headline
    assert screen.sure == "tested: updates lowered the return on fresh starts"


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
    told = rehearsed({BEST: (0, 0, 0, 0, 0), CRITIC: FALLS}, noise=9.0)
    screen = recommendation(read(realised=RAISED, rehearsal=told, status="imprecise"))
    assert screen.light == "none" and "no gradient's updates are shown" in screen.headline
    assert "One plain step along your model (BPTT), 5 steps, changes it by" in screen.headline


def test_no_steps_through_a_model_are_the_critic_alone():
    first = ("model_all", 0)
    found = read(rehearsal=rehearsed({first: RISES, CRITIC: FALLS}))
    assert advise(found).cell == first
    assert recommendation(found).headline.startswith("Use the critic alone at the start states")


def test_a_rate_below_the_usual_one_that_nobody_gave_is_said():
    smaller = replace(rehearsed({BEST: PASSES, CRITIC: FALLS}), rate=3e-5)
    for told, words in ((smaller, "5 updates (Adam at 3e-5)"), (rehearsed({BEST: PASSES}), "")):
        headline = recommendation(read(realised=RAISED, rehearsal=told)).headline
        assert words in headline and ("Adam" in headline) == bool(words)
    given = replace(smaller, assumed=False)
    assert "adam" not in recommendation(read(realised=RAISED, rehearsal=given)).headline


@pytest.mark.parametrize("assumed", [None, False, True])
def test_smaller_steps_are_advised_with_a_rate_where_the_step_is_that_of_the_rate(assumed):
    """A quarter of 3e-4 was said of a quarter of a step that moves actions by 4%, 400 times as long
    as an update at 3e-4, which lowered the return, and "+0.08" of both."""
    bent = steps({BEST: 0.7, CRITIC: -0.9}, bend=3.0)
    still = rehearsed({BEST: (0,) * 5, CRITIC: FALLS})
    told = None if assumed is None else replace(still, assumed=assumed)
    said = recommendation(read(realised=bent, rehearsal=told)).headline
    assert said.startswith("Take smaller steps" if not assumed else "Keep the current policy")
    assert ("Adam at 2.5e-4" in said) == (assumed is False)


def test_a_light_is_green_where_both_rehearsals_and_the_plain_step_raised_the_return():
    changes = {BEST: RISES, CRITIC: FALLS}
    shown = recommendation(read(realised=RAISED, rehearsal=rehearsed(changes)))
    assert shown.light == "act"
    assert shown.sure.startswith(
        "tested: 25 updates (two rehearsals) and one plain step raised the return"
    )
    found = read(realised=RAISED, rehearsal=rehearsed(changes, step=0.0))
    screen = recommendation(found)
    assert (advise(found).cell, advise(found).updates, screen.light) == (BEST, 25, "choose")
    assert "one plain step is not shown to" in screen.sure
    found = read(realised=RAISED, rehearsal=rehearsed(changes, step=-1.0))
    assert advise(found).cell is None  # rehearsed updates raise what a plain step lowers
    screen = recommendation(found)
    assert screen.light == "none" and screen.headline.startswith("Keep the current policy")
    assert "one update lowers the return" in screen.headline
    once = replace(rehearsed(changes), again_cell=-1)
    assert advise(read(realised=RAISED, rehearsal=once)).missing == "again"


def test_a_promise_holds_what_both_rehearsals_brought_and_names_the_steps_of_its_returns():
    """Batches and visited states are drawn once for all starts: two draws may lie apart."""
    twice = replace(
        rehearsed({BEST: RISES, CRITIC: FALLS}, again=(1, 2, 5, 9, 30)), again_horizon=300
    )
    gain = twice.peak_of(BEST).gain
    assert gain.value == pytest.approx(30, abs=0.5) and gain.low < 20 < 30 < gain.high
    found = read(realised=RAISED, rehearsal=twice)
    promised = next(fact for fact in of_use(found, BEST) if "change of the return" in fact.label)
    assert "300 steps" in promised.how and "that of the first, too" in promised.how
    apart = replace(twice, parted=5)  # of a critic that makes steps: another process
    assert apart.peak_of(BEST).gain.low > 20


def test_a_gradient_lasts_for_as_long_as_both_rehearsals_show():
    changes = {BEST: RISES, CRITIC: FALLS}
    found = read(realised=RAISED, rehearsal=rehearsed(changes, again=(1, 2, 5, 0, -9)))
    assert (advise(found).updates, advise(found).light) == (5, "act")
    assert "lasts about 5 updates" in recommendation(found).headline
    found = read(realised=RAISED, rehearsal=rehearsed(changes, again=(0, 0, 0, 0, 0)))
    assert advise(found).cell is None  # a plain step raised the return, its updates did not, twice
    screen = recommendation(found)
    assert (
        screen.headline.startswith("Keep the current policy")
        and "over several updates" in screen.headline
    )
    assert screen.light == "none" and screen.sure.startswith(
        "undecided: its updates are not shown to raise"
    )
    found = read(realised=NOTHING, rehearsal=rehearsed(changes, again=(0, 0, 0, 0, 0), step=0.0))
    assert advise(found).cell is None  # whatever it gains in one infinitesimal step
    assert recommendation(found).headline.startswith("Keep the current policy")
    found = read(realised=RAISED, rehearsal=rehearsed(changes, again=(np.nan,) * 5))
    screen = recommendation(found)
    assert advise(found).cell is None and "nan" not in str(screen)
    lost = rehearsed({SHORT: RISES, BEST: FALLS, CRITIC: FALLS}, again=FALLS)
    assert advise(read(realised=RAISED, rehearsal=lost)).cell is None


def test_a_step_of_four_percent_is_no_update_of_an_assumed_rate():
    found = read(realised=RAISED, rehearsal=rehearsed({BEST: RISES, CRITIC: FALLS}))
    labels = [fact.label for fact in recommendation(found).numbers]
    assert any("by one step that moves the first actions by" in label for label in labels)
    own = replace(found, rehearsal=replace(found.rehearsal, assumed=False))
    for optimizer, name in (("adam", "one plain step"), ("sgd", "one update")):
        own = replace(own, rehearsal=replace(own.rehearsal, optimizer=optimizer))
        labels = [fact.label for fact in recommendation(own).numbers]
        assert any(f"by {name}" in label for label in labels)


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
    assert (
        "gains" in screen.headline
        and "its updates are not shown to raise the return" in screen.sure
    )
    said, numbers = counted(f"{screen.headline} {screen.sure}")
    assert said <= WORDS and numbers <= NUMBERS, screen.headline


def test_what_was_tried_is_advised_first_and_then_that_the_return_jumps():
    found = read(
        admissible=False, status="jumps", realised=steps({CRITIC: 0.4, BEST: -0.4}, truth=False),
        rehearsal=rehearsed({CRITIC: RISES, BEST: FALLS}), jumps=planted_jumps(),
    )  # fmt: skip
    screen = recommendation(found)
    assert screen.headline.startswith("Use the critic alone (h = 0)")
    assert screen.headline.endswith(
        "The return is discontinuous: the simulator's gradient predicts +104, steps along it "
        "bring +13."
    )
    assert advise(found).cell == CRITIC and screen.light == "act"


@pytest.mark.parametrize("change", [(0, 0, -0.5, -2, -9), (0, 0, 0, 0, 0)])
def test_no_gradient_is_the_best_guess_whose_rehearsed_updates_lower_the_return(change):
    found = read(status="imprecise", rehearsal=rehearsed({BEST: change, CRITIC: change}))
    said = recommendation(found).headline
    assert found.best == BEST and said.startswith("Keep the current policy")
    assert ("Best guess" in said) == (not any(change)), said
    assert (f" lowers it after {LENGTHS[4]} updates" in said) == any(change), said


def test_open_jumps_are_no_green_light():
    found = read(realised=RAISED, jumps=planted_jumps("open"))
    assert advise(found).light == "choose" and advise(found).missing == "jumps"
    lost = read(realised=RAISED, jumps=planted_jumps("open", lost=(0, 3, 9)))
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
