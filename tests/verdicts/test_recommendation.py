"""The fields of a measurement: planted gains, and what must be recommended from them."""

from dataclasses import replace

import numpy as np
import pytest

from gradlab import choose, load
from gradlab.choice.best import with_selected_gain
from gradlab.reporting.profile_page import shown
from gradlab.runs.profile import COLUMNS, Profile
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import QUANTITIES, Estimate
from gradlab.verdicts.choice import advice_of
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.recommendation import KEEP, recommendation
from gradlab.verdicts.measurement.verdict import Basis, advice, verdict
from tests.first_screens import WORDS, check_first_screen
from tests.runs import planted_gains

GROUPS, H = 64, 5
PAPER = {  # path tracking with a critic that points backwards
    "data": [-0.95],
    "model": [-0.95, -0.7, -0.1, 0.05, 0.05, 0.03],
    "mixed": [-0.95, -0.4, 0.65, 0.8, 0.97, 0.98],
    "true_dynamics": [-0.95, 0.3, 0.7, 0.97, 0.98, 0.99],
    "model_all": [-0.2, -0.4, -0.6, 0.6, 0.74, 0.77],
    "mixed_all": [-0.2, -0.5, -0.7, 0.9, 0.95, 0.98],
    "true_dynamics_all": [-0.2, -0.6, -0.7, 0.95, 0.98, 0.99],
}

CANCELLING = {  # errors of critic and model cancel at h = 3
    "data": [0.22],
    "model": [0.22, -0.3, -0.2, 0.87, 0.3, -0.3],
    "mixed": [0.22, -0.3, 0.5, 0.6, 0.97, 0.9],
    "true_dynamics": [0.22, 0.3, 0.5, 0.73, 0.97, 0.99],
}


def planted(gains, se=0.015, *, admissible=True, status="converged", law="visited", seed=0):
    """A profile with these gains; every cell has noise of its own over the groups."""
    rng = np.random.default_rng(seed)
    names = tuple(gains)
    shape = len(names), len(QUANTITIES), H + 1
    columns = {name: np.full(shape, np.nan) for name in COLUMNS}
    count, method = np.zeros(shape, dtype=np.int64), np.full(shape, "", dtype=object)
    left_out = np.full((*shape, GROUPS), np.nan)
    for e, name in enumerate(names):
        for h, value in enumerate(gains[name]):
            psi = rng.normal(size=GROUPS)
            psi = (psi - psi.mean()) / psi.std() * se * np.sqrt(GROUPS)
            for quantity in ("gain", "cosine_batch", "mse"):
                at = e, QUANTITIES.index(quantity), h
                level = value if quantity != "mse" else 2 - value
                estimate = Estimate(level, level - psi / (GROUPS - 1))
                found = interval("mse", estimate)
                half = 1.96 * se
                numbers = (level, found.se, level - half, level + half)
                for column, number in zip(COLUMNS, numbers, strict=True):
                    columns[column][at] = number
                count[at], method[at], left_out[at] = 512, "planted", estimate.left_out
    truth = {"kind": "objective", "admissible": admissible, "status": status, "reason": "planted"}
    config = {"starts": 512, "batch": 256, "law": law, "truth": "objective", "discount": 0.98}
    environment = {"measured_seconds": "20"}
    profile = Profile(
        names, QUANTITIES, tuple(range(H + 1)), columns, count, method, left_out, config,
        environment, truth,
    )  # fmt: skip
    return with_selected_gain(profile)


def recommended(gains, **changes):
    return recommendation(facts(planted(gains, **changes)))


_MODEL = {"data": [0.1], "model_all": [0.1, 0.6, 0.6, 0.6, 0.6, 0.6]}
_BAD, _UP = [-0.5] * 6, [0.97, 0.5, 0.4, 0.3, 0.2, 0.1]
ADVISED = {  # what is planted: the words are in golden/recommendation.txt
    "a critic that points backwards": (PAPER, {}),
    "measured with the states replaced only": (
        {**_MODEL, "mixed_all": [0.1] + [0.5] * 5, "true_dynamics_all": [0.1] + [0.9] * 5}, {},
    ),
    "derivatives that cost much beside exact states alone": (
        {**_MODEL, "model_all": [0.1] + [0.88] * 5, "mixed_all": [0.1] + [0.75] * 5,
         "true_dynamics_all": [0.1] + [0.91] * 5}, {},
    ),
    "a critic that spoils the simulator's gradient, too": (
        {**_MODEL, "mixed_all": [0.62] * 6, "true_dynamics_all": [0.65] * 6,
         "true_dynamics": [0.1] + [0.65] * 5}, {},
    ),
    "errors that cancel": (CANCELLING, {}),
    "errors that cancel, no mixed gradient": (
        {name: CANCELLING[name] for name in ("data", "model", "true_dynamics")}, {},
    ),
    "a mixed gradient that is hardly better": (
        CANCELLING | {"mixed": [0.22, -0.3, 0.5, 0.6, 0.89, 0.8]}, {},
    ),
    "errors that cancel and a mixed gradient below the model's": (
        CANCELLING | {"mixed": [0.22, -0.3, 0.5, 0.6, 0.8, 0.8], "model": [0.22] * 3 + [0.87]}, {},
    ),
    "a critic that points right": (PAPER | {"data": [0.97], "model": _UP}, {}),
    "nothing that helps": (
        {"data": [-0.5], "model_all": [-0.5, 0.01, 0, 0.01, 0, 0]}, {"se": 0.05},
    ),
    "everything harms": ({"data": [-0.5], "model_all": _BAD}, {}),
    "the simulator alone": (
        {"data": [0.2], "true_dynamics": [0.2] * 6, "true_dynamics_all": PAPER["model_all"]}, {},
    ),
    "a gradient of one's own": ({"data": [0.1], "mine": [0.1, 0.2, 0.9, 0.9, 0.9, 0.2]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("se", [0.005, 0.03, 0.1, 0.4, 2.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_first_field_is_what_to_use_and_none_is_long(se, sign):
    gains = {name: [sign * each for each in values] for name, values in PAPER.items()}
    found = recommended(gains, se=se)
    names = [each.name for each in found.fields]
    order = ["use", "gain", "tested", "avoid", "fix first"]
    if found.light == "none":
        order = ["use", "why", "tested", "decide", "avoid", "fix first"]
    assert names == [each for each in order if each in names] and names[0] == "use"
    assert (found.use == KEEP) == (found.light == "none") == (found.follow is None)
    assert all(len(each.text.split()) <= WORDS for each in found.fields), str(found)


def test_report_and_choose_recommend_the_same_gradient_from_one_profile():
    """With the same interval, and both name what is better with the simulator's states."""
    for gains in (PAPER, CANCELLING):
        profile = planted(gains)
        read, chosen = facts(profile), choose(profile)
        assert chosen.estimators == read.own
        assert chosen.gain.cell == read.best
        assert (chosen.gain.number.low, chosen.gain.number.high) == pytest.approx(
            (read.chosen.low, read.chosen.high)
        )
        assert [*chosen.beyond] == [*read.beyond(read.best)]
        assert next(iter(chosen.beyond))[0].startswith("mixed")
        shown = advice_of(chosen)
        (said,) = (each for each in shown.rest if each.code == "gain_beyond")
        assert said.subject.startswith("mixed")
    asked = choose(planted(CANCELLING), estimators=["data", "model", "mixed"])
    assert asked.gain.cell == ("mixed", 4) and not asked.beyond


def test_the_winners_gain_has_one_interval_wherever_it_stands(tmp_path):
    """Wider than that of one gain alone, since it was chosen among many that are nearly as large;
    in the table, in what is printed, in the recommendation, in a choice and in a file."""
    gains = {"data": [0.1], "model_all": [0.1, 0.74, 0.75, 0.74, 0.75, 0.76]}
    profile = planted(gains)
    winner = ("model_all", 5)
    ends = profile.interval(winner[0], "gain", winner[1])
    assert ends.low < 0.76 - 1.96 * 0.015 < 0.76 + 1.96 * 0.015 < ends.high
    assert "chosen" in ends.method
    every = profile.table().query("quantity == 'gain'").set_index(["estimator", "horizon"])
    row = every.loc[winner]
    assert (row.ci_low, row.ci_high) == (ends.low, ends.high)
    others = every.drop(index=winner)  # whose intervals nothing was chosen by
    assert np.allclose(others.ci_high - others.ci_low, 2 * 1.96 * 0.015)
    read, chosen = facts(profile), choose(profile)
    assert (read.best, chosen.gain.cell) == (winner, winner)
    assert (read.chosen.low, read.chosen.high) == (ends.low, ends.high)
    assert (chosen.gain.number.low, chosen.gain.number.high) == (ends.low, ends.high)
    said = f"(CI {100 * ends.low:.0f}–{100 * ends.high:.0f}%)"
    assert recommendation(read).gain == f"76% {said} of the best step"
    assert said in repr(profile)
    # Once and for all: a file that is loaded again is not widened again, nor one of old intervals.
    again = load(profile.save(tmp_path / "run.h5"))
    assert again.interval(winner[0], "gain", winner[1]) == ends
    assert with_selected_gain(again).interval(winner[0], "gain", winner[1]) == ends


def test_a_truth_that_few_starts_carry_is_named_before_any_price():
    gains = {"data": [0.1], "model_all": [0.1, 0.2, 0.2, 0.2, 0.2, 0.2]}
    profile = planted(gains, se=0.5, status="imprecise")
    profile = replace(profile, truth=profile.truth | {"missing": 768})
    assert "about 770 more starts" in recommendation(facts(profile)).field("decide")
    few = profile.truth | {"carried_by_few": True, "concentration": 0.68}
    found = recommendation(facts(replace(profile, truth=few)))
    assert found.fix_first.startswith("trim the start-state distribution")
    assert "1% of the starts carry 68%" in found.fix_first and found.light == "none"
    assert "more starts" not in str(found)


def test_missing_starts_are_counted_in_starts_however_many_states_each_of_them_visits():
    profile = planted({"data": [0.1], "model_all": [0.3] * 6}, se=0.4)
    visited = replace(profile, count=8 * profile.count)
    assert str(recommendation(facts(visited))) == str(recommendation(facts(profile)))
    assert all(gain.n == 512 for gain in facts(visited).gains.values())


@pytest.mark.parametrize("gains", [PAPER, {"data": [-0.5], "model_all": _BAD}])
def test_beside_an_imprecise_truth_no_gain_is_said_and_returns_alone_decide(gains):
    """Its intervals may be narrow: it is the standard error behind them that is not believed."""
    profile = planted(gains, status="imprecise")
    found = recommendation(facts(profile))
    assert (found.light, found.use) == ("none", KEEP) and "%" not in str(found)
    assert found.tested.startswith("best guess ")
    assert found.field("decide").startswith("the true gradient is not precise")
    taken = stepped({("data", 0): -0.9, ("model_all", 3): 0.9})
    found = recommendation(facts(replace(profile, realised=taken)))
    assert (found.use, found.light) == ("your model (BPTT), 3 steps", "choose")
    assert "by one plain step" in found.tested and "%" not in str(found)
    assert found.figure == "realised_gains"
    # Where every tested step lowered the return nothing is guessed, and no gain is drawn first.
    fallen = stepped({("data", 0): -0.9, ("model_all", 3): -0.9})
    found = recommendation(facts(replace(profile, realised=fallen)))
    assert "best guess" not in str(found) and found.tested.endswith("2 of 2 steps lower it")
    assert found.figure == "realised_gains" and not found.gain


def test_start_states_and_missing_truths_promise_no_gain():
    for changes in ({"admissible": False, "status": "none"}, {"law": "start"}):
        profile = planted(PAPER, **changes)
        if changes.get("law") == "start":
            profile.count[:, QUANTITIES.index("gain")] = 0
        found = recommendation(facts(profile))
        assert (found.light, found.use) == ("none", KEEP) and "%" not in str(found)


def test_a_gain_that_is_shown_goes_before_a_larger_one_that_is_not():
    profile = planted({"data": [0.3], "model_all": [0.3, 0.3, 0.3, 0.3, 0.3, 0.8]})
    at = 1, QUANTITIES.index("gain"), 5
    profile.columns["ci_low"][at] = -0.4
    found = facts(profile)
    assert found.best != ("model_all", 5) and found.gains[found.best].low > 0


def stepped(changes):
    """Realised changes of the return per length of step; no truth."""
    return planted_gains.planted(changes, noise=0.1, truth=False)


def without_truth(changes):
    profile = planted(PAPER, admissible=False, status="none")
    return recommendation(facts(replace(profile, realised=stepped(changes))))


def test_without_a_truth_realised_gains_recommend_in_units_of_return():
    found = without_truth(
        {("data", 0): -0.2, ("true_dynamics_all", 5): 0.6, ("true_dynamics_all", 1): 0.1}
    )
    assert (found.use, found.light) == ("the simulator (BPTT), 5 steps", "choose")
    assert found.tested.startswith("+0.2") and not found.gain
    assert found.avoid == "the critic alone: lower return after one step"


def test_without_a_truth_and_without_a_gain_the_policy_is_kept():
    found = without_truth({("data", 0): -0.2, ("true_dynamics_all", 5): -0.6})
    assert found.use == KEEP and found.field("why").startswith("no gradient is shown")
    assert found.tested.endswith("; 2 of 2 steps lower it")


def test_steps_that_help_are_recommended_where_gains_are_lost_in_an_imprecise_truth():
    profile = planted({"data": [0.1], "model_all": [0.2] * 6}, se=0.5, status="imprecise")
    taken = stepped({("data", 0): 0.5, ("model_all", 3): 0.9})
    found = recommendation(facts(replace(profile, realised=taken)))
    assert (found.use, found.light) == ("your model (BPTT), 3 steps", "choose")
    assert "return by one plain step" in found.tested


def test_the_page_begins_with_the_fields_and_one_figure_above_the_fold(tab, tmp_path):
    profile = planted(PAPER)
    known = Basis(None, None, facts(profile))
    page = shown(profile, recommendation(known.facts), "path_tracking", known)
    check_first_screen(tab, page, tmp_path)


def test_beside_the_critic_alone_the_models_horizons_that_harm_are_named():
    up = [0.97, 0.5, 0.4, -0.3, -0.4, -0.5]
    both = {"data": [0.97], "model": up, "model_all": [-0.5, -0.5, 0.5, -0.5, 0.5, -0.5]}
    alone = {name: both[name] for name in ("data", "model")}
    first = "your model (first action only) 3–5 steps"
    lower = "lower return after one step"
    assert recommended(alone, se=0.001).avoid == f"{first}: {lower}"
    assert recommended(both).avoid == f"{first}; your model (BPTT) 1, 3, 5 steps: {lower}"
    # h = 0 is the critic alone, and no rollout.
    start = {"data": [0.97], "model": [0.97, *_UP[1:]], "model_all": [-0.5, *_UP[1:]]}
    assert recommended(start).avoid == recommended({"data": [0.97], "model": _UP}).avoid == ""


def test_the_critic_alone_at_the_start_states_is_told_from_that_at_visited_states():
    gains = {"data": [0.3], "model_all": [0.9, 0.6, 0.6, 0.6, 0.6, 0.6]}
    found = recommended(gains)
    assert found.use == "the critic at start states, h = 0" and found.gain.startswith("90%")
    (said,) = (each for each in found.rest if each.code == "critic_gain")
    assert (said.subject, said.value) == ("the critic at visited states", pytest.approx(0.3))


def test_what_lowers_the_return_wherever_it_is_cut_is_said_beside_what_raises_it():
    """A model with a wrong gain of its actions: θ in the first action helps, BPTT only harms."""
    first = [-0.5, 0.6, 0.9, 0.95, 0.9, 0.8]
    apart = {"data": [-0.5], "model": first, "model_all": [-0.6, -0.5, -0.4, -0.4, -0.4, -0.3]}
    assert "your model (BPTT) 1–5 steps" in recommended(apart).avoid
    apart["model_all"][-1] = 0.2
    assert "your model (BPTT) 1–4 steps" in recommended(apart).avoid


def test_another_gradient_that_lowers_the_return_at_some_horizons_is_named():
    first = [0.6, 0.3, 0.2, -0.3, -0.4, -0.5]
    gains = {"data": [0.6], "model": first, "model_all": [0.2, 0.88, 0.9, 0.95, 0.97, 0.99]}
    assert recommended(gains).avoid.startswith("your model (first action only) 3–5 steps: lower")
    assert not recommended(gains | {"model": [0.6, 0.3, 0.2, 0.2, 0.2, 0.2]}).avoid


def test_findings_are_of_the_gradient_that_is_advised():
    followed, kept = planted(PAPER), planted({name: [-0.5] * 6 for name in PAPER})
    assert advice(followed).use.startswith("your model (BPTT)") and advice(kept).horizon is None
    for profile, who in ((followed, "BPTT"), (kept, "first action")):
        found = [each.subject for each in verdict(profile) if each.code == "best_horizon"]
        assert found == [f"the model gradient ({who})"]
