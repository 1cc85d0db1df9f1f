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


@pytest.fixture
def said(tmp_path):
    """The sentence about something, of a run of these tables; None where there is none."""
    numbers = iter(range(100))

    def sentence(about, **tables):
        run = load(written(tmp_path / f"{next(numbers)}.h5", tables))
        found = [each for each in verdict(run) if each.about == about]
        assert len(found) < 2
        return found[0] if found else None

    return sentence


@pytest.fixture
def measured(said):
    return lambda about, **changes: said(about, measured=[measurement(400, **changes)])


def test_what_stops_everything_comes_first_and_every_number_has_its_interval_and_n(tmp_path):
    found = verdict(load(written(tmp_path / "run.h5", everything())))
    assert [each.about for each in found] == [
        "alarms", "returns", "health", "saturation", "signal", "horizon", "rivals", "weights",
        "source", "critic", "jacobians", "variance", "growth", "tails", "cost",
    ]  # fmt: skip
    for each in found:
        if each.about not in ("alarms", "health", "tails", "cost"):
            assert "CI" in each.text or "95%" in each.text, each
            assert "N = " in each.text, each


def test_without_rows_or_a_task_nothing_is_said_of_them(tmp_path):
    (only,) = verdict(load(written(tmp_path / "a.h5", {})))
    assert only.text.startswith("No alarm was raised in 0 updates")
    rows = {k: v for k, v in everything().items() if k in ("vitals", "successive")}
    told = verdict(load(written(tmp_path / "b.h5", rows, horizon=None, task="")))
    assert [each.about for each in told] == ["alarms", "health", "saturation", "signal", "cost"]


def test_alarms_are_counted_by_kind_with_their_first_step(said):
    rows = [alarm(0, 100, "noise"), alarm(1, 150), alarm(2, 200, "noise")]
    assert said("alarms", alarms=rows).text == (
        "2 kinds of alarm raised, first: noise (step 99, 2 times), saturated actor (step 149)."
    )


def test_a_clean_run_says_how_many_bad_gradients_it_cannot_exclude(said):
    found = said("health", vitals=[window(k) for k in range(1, 31)])
    assert "All 3,000 gradients" in found.text
    assert f"at most {100 * (1 - 0.05 ** (1 / 3000)):.2g}%" in found.text
    bad = said("health", vitals=[window(1, nonfinite_updates=7)])
    assert bad.text == "7 of 100 gradients were not finite (7%)."


@pytest.mark.parametrize(
    ("share", "windows", "start", "decided"),
    [(0.9, 10, "The actor is saturated", True), (0.1, 10, "The actor is not saturated", True),
     (0.55, 2, "Undecided whether the actor is saturated", False)],
)  # fmt: skip
def test_saturation_is_that_of_late(said, share, windows, start, decided):
    early = [window(k, saturation=np.array([1 - share, 0.0])) for k in range(1, 20)]
    late = [window(19 + k, saturation=np.array([0.0, share])) for k in range(1, windows + 1)]
    found = said("saturation", vitals=late if windows < 10 else early + late)
    n = 25 * windows
    margin = sqrt(log(2 / 0.05) / (2 * n))
    assert found.text.startswith(start) and found.decided is decided
    assert "action 1" in found.text and f"N = {n} passes" in found.text
    assert (share - margin > HALF or share + margin < HALF) is decided


def test_signal_says_the_cosine_of_a_batch_and_gives_no_advice_on_batches(said):
    old, new = [burst(40 * k, 0.9) for k in range(1, 9)], [burst(40 * k) for k in range(9, 19)]
    found = said("signal", successive=old + new)
    se = 0.02 / sqrt(10)
    low, high = 0.4 - Z * se, 0.4 + Z * se
    assert f"cosine {two(sqrt(0.4))} (CI {span(sqrt(low), sqrt(high))}, N = 320" in found.text
    assert "steps 359–719" in found.text and found.decided and "needs" not in found.text


def test_noise_is_told_from_a_signal_that_is_not_yet_seen(said):
    noise = said("signal", successive=[burst(40 * k, 1e-3, 5e-3) for k in range(1, 11)])
    assert noise.decided and noise.text.startswith("The gradient is no better than noise")
    unknown = said("signal", successive=[burst(40, 0.03, 0.03)])
    assert not unknown.decided
    assert "about 220 more pairs would decide" in unknown.text  # 32 ((1.96 + 0.84)² − 1)
    assert "N = 16 pairs" in said("signal", successive=[burst(40) | {"fresh": 16}]).text


def test_bursts_of_long_ago_say_so(said):
    lost = burst(80) | {"energy": np.nan, "signal_share": np.nan, "share_se": np.nan}
    assert "step 39; none since was finite" in said("signal", successive=[burst(40), lost]).text
    assert said("signal", successive=[lost]) is None


@pytest.mark.parametrize(
    ("ratio", "se", "decided"), [(0.25, 0.1, True), (4.0, 0.1, True), (1.2, 0.5, False)]
)
def test_the_model_is_compared_with_the_data(measured, ratio, se, decided):
    found = measured("rivals", over_data=log(ratio), over_data_se=se)
    ends = span(exp(log(ratio) - Z * se), exp(log(ratio) + Z * se))
    assert f"{two(ratio)}× (CI {ends}, {WHERE})" in found.text
    assert found.decided is decided is not found.text.startswith("Undecided")


def test_the_price_is_held_against_the_budget(said):
    rows = [window(k) for k in range(1, 31)]
    assert said("cost", vitals=rows).text == (
        "The probe took 4% of 50 min, within its budget of 5%, for 3,000 updates."
    )
    rows[-1] |= {"spent": 0.07}
    assert "above its budget" in said("cost", vitals=rows).text
