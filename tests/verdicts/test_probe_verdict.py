"""What a probe's run is said to mean: planted numbers, and the twin where they do not decide."""

from math import exp, log, sqrt

import numpy as np
import pytest

from gradlab.probe.alarms.catalogue import HALF
from gradlab.runs.probe.results import load
from gradlab.statistics.intervals import Z
from gradlab.verdicts.probe.sentences import verdict
from gradlab.wording import span, two
from tests.probe.planted_probe import STARTS, alarm, burst, everything, measurement, window, written

WHERE = f"N = {STARTS} starts, step 399"


def said(path, about, **tables):
    (found,) = [each for each in verdict(load(written(path, tables))) if each.about == about]
    return found


def measured(path, about, **changes):
    return said(path, about, measured=[measurement(400, **changes)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


def test_what_stops_everything_comes_first_and_the_price_last(path):
    told = [each.about for each in verdict(load(written(path, everything())))]
    assert told == [
        "alarms", "returns", "health", "saturation", "signal", "horizon", "rivals", "weights",
        "source", "critic", "jacobians", "variance", "growth", "tails", "cost",
    ]  # fmt: skip


def test_every_number_on_the_task_has_its_interval_and_n(path):
    for each in verdict(load(written(path, everything()))):
        if each.about not in ("alarms", "health", "tails", "cost"):
            assert "CI" in each.text or "95%" in each.text, each
            assert "N = " in each.text, each


def test_without_rows_nothing_is_said(path):
    (only,) = verdict(load(written(path, {})))
    assert only.text.startswith("No alarm was raised in 0 updates")


def test_without_a_task_nothing_is_said_of_it(path):
    rows = {k: v for k, v in everything().items() if k in ("vitals", "successive")}
    told = [each.about for each in verdict(load(written(path, rows, horizon=None, task="")))]
    assert told == ["alarms", "health", "saturation", "signal", "cost"]


def test_alarms_are_counted_by_kind_with_their_first_step(path):
    rows = [alarm(0, 100, "noise"), alarm(1, 150), alarm(2, 200, "noise")]
    found = said(path, "alarms", alarms=rows)
    assert found.text == (
        "2 kinds of alarm raised, first: noise (step 99, 2 times), saturated actor (step 149)."
    )


def test_a_clean_run_says_how_many_bad_gradients_it_cannot_exclude(path):
    found = said(path, "health", vitals=[window(k) for k in range(1, 31)])
    assert "All 3,000 gradients" in found.text
    assert f"at most {100 * (1 - 0.05 ** (1 / 3000)):.2g}%" in found.text
    bad = said(path.with_name("b.h5"), "health", vitals=[window(1, nonfinite_updates=7)])
    assert bad.text == "7 of 100 gradients were not finite (7%)."


@pytest.mark.parametrize(
    ("share", "windows", "start", "decided"),
    [(0.9, 10, "The actor is saturated", True), (0.1, 10, "The actor is not saturated", True),
     (0.55, 2, "Undecided whether the actor is saturated", False)],
)  # fmt: skip
def test_saturation_is_that_of_late(path, share, windows, start, decided):
    early = [window(k, saturation=np.array([1 - share, 0.0])) for k in range(1, 20)]
    late = [window(19 + k, saturation=np.array([0.0, share])) for k in range(1, windows + 1)]
    found = said(path, "saturation", vitals=late if windows < 10 else early + late)
    n = 25 * windows
    margin = sqrt(log(2 / 0.05) / (2 * n))
    assert found.text.startswith(start) and found.decided is decided
    assert "action 1" in found.text and f"N = {n} passes" in found.text
    assert (share - margin > HALF or share + margin < HALF) is decided


def test_signal_says_the_cosine_of_a_batch_and_gives_no_advice_on_batches(path):
    old, new = [burst(40 * k, 0.9) for k in range(1, 9)], [burst(40 * k) for k in range(9, 19)]
    found = said(path, "signal", successive=old + new)
    se = 0.02 / sqrt(10)
    low, high = 0.4 - Z * se, 0.4 + Z * se
    assert f"cosine {two(sqrt(0.4))} (CI {span(sqrt(low), sqrt(high))}, N = 320" in found.text
    assert "steps 359–719" in found.text and found.decided and "needs" not in found.text


def test_noise_is_told_from_a_signal_that_is_not_yet_seen(path):
    noise = said(path, "signal", successive=[burst(40 * k, 1e-3, 5e-3) for k in range(1, 11)])
    assert noise.decided and noise.text.startswith("The gradient is no better than noise")
    unknown = said(path.with_name("b.h5"), "signal", successive=[burst(40, 0.03, 0.03)])
    assert not unknown.decided
    assert "about 220 more pairs would decide" in unknown.text  # 32 ((1.96 + 0.84)² − 1)


def test_bursts_of_long_ago_say_so(path):
    lost = burst(80) | {"energy": np.nan, "signal_share": np.nan, "share_se": np.nan}
    found = said(path, "signal", successive=[burst(40), lost])
    assert "step 39; none since was finite" in found.text
    none = verdict(load(written(path.with_name("b.h5"), {"successive": [lost]})))
    assert "signal" not in {each.about for each in none}


def test_the_horizon_comes_with_its_set_and_how_far_one_may_unroll(path):
    found = measured(path, "horizon")
    assert found.decided
    assert "smallest for the model gradient at h = 2 (95% set: model 2–3; " + WHERE in found.text
    # cosine 1 − bias/10 ≥ .7 everywhere, but at h = 4 the error is beyond twice the least.
    assert "Usable horizons of the model gradient: 1–3 (of 1–4 measured" in found.text
    assert "not known to the probe" in found.text


def test_usable_horizons_are_apart_from_those_that_only_may_be(path):
    cosine = np.full((4, 5), 0.9)
    low = cosine - np.array([0, 0.1, 0.1, 0.5, 0.5])
    mse = np.ones((4, 5))
    ends = dict(cosine_low=low, cosine_high=cosine + 0.05, mse_low=0.9 * mse, mse_high=1.1 * mse)
    changes = dict(cosine=cosine, mse=mse, **ends)
    model = "the model gradient"
    found = measured(path, "horizon", **changes)
    assert f"Usable horizons of {model}: 1–2; undecided: 3–4 (of 1–4" in found.text
    mse[1, 3], ends["mse_low"][1, 3] = 2.5, 2.3
    found = measured(path.with_name("b.h5"), "horizon", **changes)
    assert f"Usable horizons of {model}: 1–2; undecided: 4 (" in found.text
    mse[1, 1], ends["mse_low"][1, 1] = 2.5, 2.3
    late = measured(path.with_name("late.h5"), "horizon", **changes)
    assert f"Usable horizons of {model}: 2; undecided: 4 (" in late.text
    ends["cosine_low"][:] = 0.5
    none = measured(path.with_name("c.h5"), "horizon", **changes)
    assert f"Undecided whether {model} has a usable horizon: 2, 4 may be" in none.text
    ends["cosine_high"][:] = 0.6
    assert "No horizon" in measured(path.with_name("d.h5"), "horizon", **changes).text


def test_a_choice_that_moved_says_from_where(path):
    first = measurement(100, kept_low=0, kept_high=1)
    found = said(path, "horizon", measured=[first, measurement(400)])
    assert "at step 99 it was at h = 0–1" in found.text
    still = said(path.with_name("b.h5"), "horizon", measured=[measurement(100), measurement(400)])
    assert "it was" not in still.text


def test_no_truth_and_no_separation_leave_the_horizon_undecided(path):
    none = measured(path, "horizon", chosen_horizon=np.nan, chosen_estimator=np.nan)
    assert not none.decided and "no admissible truth" in none.text
    kept = np.ones((4, 5))
    every = measured(path.with_name("b.h5"), "horizon", kept_low=0, kept_high=4, kept=kept)
    assert not every.decided and "0 and 4 may both be" in every.text


@pytest.mark.parametrize(
    ("ratio", "se", "decided"), [(0.25, 0.1, True), (4.0, 0.1, True), (1.2, 0.5, False)]
)
def test_the_model_is_compared_with_the_data(path, ratio, se, decided):
    found = measured(path, "rivals", over_data=log(ratio), over_data_se=se)
    ends = span(exp(log(ratio) - Z * se), exp(log(ratio) + Z * se))
    assert f"{two(ratio)}× (CI {ends}, {WHERE})" in found.text
    assert found.decided is decided is not found.text.startswith("Undecided")


def test_an_interval_beyond_all_numbers_is_infinite(path):
    found = measured(path, "rivals", over_data=5.0, over_data_se=1000.0)
    assert not found.decided and "an unknown multiple" in found.text
    assert "inf" not in found.text


def test_pairs_that_share_samples_do_not_count(path):
    found = said(path, "signal", successive=[burst(40) | {"fresh": 16}])
    assert "N = 16 pairs" in found.text


def test_an_order_that_reversed_says_when(path):
    early = [measurement(k, over_data=log(3)) for k in (100, 200)]
    found = said(path, "rivals", measured=[*early, measurement(400)])
    assert "at step 199 it was the other way round" in found.text


@pytest.mark.parametrize(
    ("ends", "words", "decided"),
    [((0.1, 0.3), "the longer one", True), ((0.7, 0.9), "critic's own gradient", True),
     ((0.2, 0.9), "Undecided", False)],
)  # fmt: skip
def test_weights_are_on_one_side_of_half_or_undecided(path, ends, words, decided):
    low, high = ends
    weight = dict(weight_zero=(low + high) / 2, weight_zero_low=low, weight_zero_high=high)
    found = measured(path, "weights", **weight)
    assert words in found.text and found.decided is decided
    assert f"(CI {span(low, high)}, {WHERE})" in found.text


@pytest.mark.parametrize(
    ("gap", "words"),
    [(0.5, "The critic makes most"), (-0.5, "The model makes most"), (0.1, "Undecided")],
)
def test_the_bias_is_the_critics_or_the_models(path, gap, words):
    assert measured(path, "source", critic_gap=gap).text.startswith(words)


@pytest.mark.parametrize(
    ("value", "words"),
    [(-50.0, "within"), (150.0, "beyond"), (-150.0, "beyond"), (-100.5, "Undecided")],
)
def test_the_critic_is_held_against_its_bound_on_both_sides(path, value, words):
    assert words in measured(path, "critic", value=value).text


def test_jacobians_are_judged_against_the_first_measurement(path):
    rows = [measurement(100, error=0.1), measurement(400, error=0.2)]
    found = said(path, "jacobians", measured=rows)
    assert found.decided and "2× the first measurement's error" in found.text
    assert "refit the model there" in found.text
    alone = measured(path.with_name("b.h5"), "jacobians", error=0.2)
    assert alone.decided and "first" not in alone.text
    same = [measurement(100, error=0.2), measurement(400, error=0.2)]
    assert "(CI 0.97–1), the same." in said(path.with_name("c.h5"), "jacobians", measured=same).text
    vague = [each | {"jacobian_error_se": 0.1} for each in same]
    assert not said(path.with_name("f.h5"), "jacobians", measured=vague).decided
    exact = measured(path.with_name("d.h5"), "jacobians", jacobian_error=-np.inf)
    assert "are exact" in exact.text
    none = load(written(path.with_name("e.h5"), {"measured": [measurement(
        400, jacobian_error=np.nan)]}))  # fmt: skip
    assert "jacobians" not in {each.about for each in verdict(none)}


def test_variance_doubles_grows_like_a_power_or_does_not_grow(path):
    found = measured(path, "variance")
    assert f"doubles every {two(log(2) / log(1.5))} steps" in found.text
    power = measured(path.with_name("b.h5"), "variance", growth_evidence=-40.0)
    assert "like a power" in power.text
    either = measured(path.with_name("c.h5"), "variance", growth_evidence=1.0)
    assert "do not extrapolate" in either.text
    flat = measured(path.with_name("d.h5"), "variance", growth=0.01)
    assert not flat.decided and "No exponential growth" in flat.text


@pytest.mark.parametrize(
    ("rate", "words"), [(0.05, "grow, e-fold in 20"), (-0.05, "die out"), (0.005, "Undecided")]
)
def test_the_exponent_is_above_below_or_near_zero(path, rate, words):
    assert words in measured(path, "growth", lyapunov=rate).text


def test_lost_jacobians_are_counted_and_placed(path):
    lost = dict(jacobian_nonfinite=3, starts_lost=2, nonfinite_where="first at step 4 of start 9")
    found = measured(path, "lost jacobians", **lost)
    assert found.text == (
        "3 of 1600 states have Jacobians that are not finite (first at step 4 of start 9): leaving "
        "them out drops 2 of 64 starts (step 399)."
    )


def test_the_price_is_held_against_the_budget(path):
    rows = [window(k) for k in range(1, 31)]
    within = said(path, "cost", vitals=rows)
    assert within.text == (
        "The probe took 4% of 50 min, within its budget of 5%, for 3,000 updates."
    )
    rows[-1] |= {"spent": 0.07}
    assert "above its budget" in said(path.with_name("b.h5"), "cost", vitals=rows).text
