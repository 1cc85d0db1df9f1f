"""The numbers of a view are the rows' own: medians, ranges, intervals, extremes, what is told."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gradlab.runs.training import probe_tables
from gradlab.storage.journal import Journal
from gradlab.watching import state as states
from gradlab.watching.curves import MOST, Curve, carried, kept, spread
from gradlab.watching.events import Event, Progress, last_of_each_kind, paced
from gradlab.watching.latest_values import latest_values, number
from gradlab.watching.sparkline import sparkline
from gradlab.watching.state import Watcher, document
from tests.watching import grown


def latest(state):
    return {each.name: each for each in latest_values(state.view.charts)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with grown.training(tmp_path_factory.mktemp("state") / "run.h5") as writer:
        for k in range(41):
            writer.append("updates", grown.update_row(k))
            if k % 10 == 0:
                writer.append("evaluations", grown.evaluation_row(k))
        writer.append("events", {"number": 2 * (30 * 2 + 1), "message": "seed 1 diverged"})
    return Watcher(writer.path).state()


def test_several_seeds_are_their_median_and_range(trained):
    found = latest(trained)["policy gradient norm"]
    assert (found.value, found.low, found.high, found.at) == (42.0, 41.0, 43.0, 400.0)
    assert latest(trained)["return"].value == -62.0
    assert trained.view.charts[0].about == (
        "median of 2 seeds; band: from the smallest to the largest"
    )


def test_one_seed_has_the_interval_of_its_starts(tmp_path):
    with grown.training(tmp_path / "run.h5", seeds=1) as writer:
        writer.append("updates", grown.update_row(5, seeds=1))
        writer.append("evaluations", grown.evaluation_row(5, seeds=1))
    found = latest(Watcher(writer.path).state())["return"]
    assert found.value == -95.0
    assert (found.low, found.high) == pytest.approx((-95.98, -94.02), abs=1e-4)  # ± 1.96 · 0.5


def test_entries_of_a_dimension_are_curves_of_their_own(trained):
    found = latest(trained)
    assert found["weights of the mixture, h = 0"].value == 0.25
    assert found["weights of the mixture, h = 25"].value == 0.75


def test_pace_and_time_left_are_the_rows(trained):
    progress = trained.view.progress
    assert (progress.done, progress.total, progress.rate) == (400, 1000, 20.0)
    assert progress.left == 30.0 and progress.share == 0.4 and progress.beat == 0.5


def test_an_event_stands_at_its_iteration(trained):
    assert trained.view.events == [Event(30, "run", "seed 1 diverged")]


def test_a_seed_that_is_lost_hides_no_other(tmp_path):
    with grown.training(tmp_path / "run.h5") as writer:
        writer.append("updates", grown.update_row(0) | {"policy_norm": np.array([np.nan, 3.0])})
        writer.append("updates", grown.update_row(1) | {"policy_norm": np.array([np.inf, 4.0])})
    chart = Watcher(writer.path).state().view.charts[0]
    assert chart.curves[0].value.tolist() == [3.0, np.inf]
    assert chart.curves[0].low.tolist() == [3.0, 4.0]


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    with grown.probed(tmp_path_factory.mktemp("probe") / "run.h5") as writer:
        for k in range(1, 6):
            writer.append("vitals", grown.vitals_row(k))
        writer.append("measured", grown.measured_row(4))
        writer.append("successive", {"update": 450, "signal_share": 0.5, "share_se": 0.1,
                                     "noise_scale": np.inf})  # fmt: skip
        writer.append("alarms", grown.alarm_row(0, 300, "dead path", "w has no gradient: look"))
    return Watcher(writer.path).state()


def test_a_probe_shows_its_vitals_its_measurements_and_its_alarms(probe):
    found = latest(probe)
    assert probe.view.kind == "probe" and probe.view.title == "probe on pendulum"
    assert (found["gradient norm, mean"].value, found["gradient norm, largest"].value) == (7, 10)
    assert found["saturated actions, action 2"].value == 0.3
    assert (found["chosen horizon"].value, found["chosen horizon"].ends) == (3, "2 … 4")
    assert found["chosen horizon"].at == 400 and found["chosen horizon"].old
    assert found["signal in one gradient"].low == pytest.approx(0.5 - 1.95996 * 0.1, abs=1e-5)
    assert probe.view.events == [Event(300, "dead path", "w has no gradient: look")]
    assert probe.view.progress.rate == 50.0 and probe.view.progress.total is None


def test_what_is_infinite_is_the_latest_value(probe):
    assert latest(probe)["noise scale"].shown == "∞"


def test_the_share_spent_stands_beside_its_budget(probe):
    chart = next(each for each in probe.view.charts if each.title == "time spent by the probe")
    assert chart.levels == {"budget": 0.05} and chart.curves[0].value.tolist() == [0.04] * 5


def test_the_profile_is_that_of_the_last_measurement(probe):
    chart = next(each for each in probe.view.charts if each.name == "profile-mse")
    assert [curve.label for curve in chart.curves] == ["data", "model", "mixed", "true dynamics"]
    assert chart.curves[1].x.tolist() == [0, 1, 2, 3, 4]
    assert chart.curves[1].value.tolist() == [6, 7, 8, 9, 10]
    assert chart.curves[1].high.tolist() == [12, 14, 16, 18, 20]
    assert "measured at 400, 64 starts" in chart.about
    assert not any("by horizon" in each.name for each in latest_values(probe.view.charts))


def test_tensors_are_listed_with_their_names(probe):
    assert [(each.name, each.norm) for each in probe.view.layers] == [("w", 1.0), ("b", 2.0)]


def test_a_probe_inside_training_is_shown_by_seeds_measured_in_turn(tmp_path):
    tables = grown.training_tables() | probe_tables.tables((0, 1), 2, 3, 4, (0, 25))
    about = grown.training_attributes() | probe_tables.attributes(["w", "b"])
    nothing = np.full((2, 4, 5), np.nan)
    with Journal(tmp_path / "run.h5", tables, about) as writer:
        for k, seed in enumerate((0, 1, 0)):
            chosen, cells = np.full(2, np.nan), nothing.copy()
            chosen[seed], cells[seed] = 2.0 + seed, 7.0 + k
            writer.append("updates", grown.update_row(k))
            writer.append(
                "probe_measured",
                {"update": 10 * k, "step": 10 * k, "starts": 32 * chosen / (2 + seed),
                 "chosen_horizon": chosen, "mse": cells},
            )  # fmt: skip
            row = {"update": 10 * k, "update_ratio": np.array([1e-3, 3e-3]), "spent": 0.04}
            writer.append("probe_vitals", row)
        alarm = grown.alarm_row(0, 20, "saturated actor", "lower the gain") | {"seed": 1}
        writer.append("probe_alarms", alarm)
    state = Watcher(writer.path).state()
    found = latest(state)
    assert found["update ratio"].value == pytest.approx(2e-3)
    assert (found["chosen horizon"].value, found["chosen horizon"].ends) == (2.5, "2 … 3")
    chart = next(each for each in state.view.charts if each.name == "probe_profile-mse")
    assert chart.curves[0].value.tolist() == [9.0] * 5 and "at 20, seed 0, 32 starts" in chart.about
    assert {each.across for each in state.view.charts} == {"iteration", "horizon"}
    assert state.view.events[-1] == Event(20, "saturated actor", "seed 1: lower the gain")


@pytest.mark.parametrize(
    "broken",
    [{"seeds": 0}, {"iterations": 1e400}, {"iterations": "many"}, {"first_seed": None}],
)
def test_a_foreign_configuration_is_told_and_stops_nothing(tmp_path, broken):
    about = grown.training_attributes()
    config = json.loads(about["config"])
    config["settings"] |= broken
    with Journal(
        tmp_path / "run.h5", grown.training_tables(), about | {"config": json.dumps(config)}
    ) as writer:
        writer.append("updates", grown.update_row(1))
        writer.append("events", {"number": 1, "message": "hello"})
    state = Watcher(writer.path).state()
    assert state.phase == "unreadable" and "damaged or foreign" in state.told


def test_a_run_without_a_row_is_empty_and_not_damaged(tmp_path):
    with grown.training(tmp_path / "run.h5") as writer:
        assert Watcher(writer.path).state().phase == "empty"
    with grown.probed(tmp_path / "probe.h5") as writer:
        assert Watcher(writer.path).state().phase == "empty"


def test_the_document_is_json_and_stays_the_same_while_nothing_comes(trained, probe):
    for state in (trained, probe):
        text = json.dumps(document(state), allow_nan=False)
        assert json.loads(text)["title"] == state.view.title
        assert document(state) == document(Watcher(state.run).state())


@pytest.mark.parametrize("seed", range(5))
def test_thinning_keeps_every_extreme_and_both_ends(seed):
    generator = np.random.default_rng(seed)
    value = np.cumsum(generator.standard_normal(10_000 + 37 * seed))
    value[generator.integers(len(value), size=50)] = np.nan
    low, high = value - generator.random(len(value)), value + generator.random(len(value))
    rows = kept(value, low, high)
    assert len(rows) <= MOST and rows[0] == 0 and rows[-1] == len(value) - 1
    assert np.nanmax(value[rows]) == np.nanmax(value)
    assert np.nanmin(low[rows]) == np.nanmin(low) and np.nanmax(high[rows]) == np.nanmax(high)
    spike = value.copy()
    spike[5001] = 1e6
    assert 5001 in kept(spike, low, high)


def test_a_long_curve_of_gaps_keeps_its_last_value():
    value = np.full(5000, np.nan)
    value[4320:4323] = 1.0, 9.0, 3.0  # the last one is no extreme
    assert 4322 in kept(value, value, value)


def test_seeds_measured_in_turn_keep_their_last_value():
    values = np.array([[np.nan, 1.0], [2.0, np.nan], [np.nan, np.nan], [np.nan, 5.0]])
    expected = [[np.nan, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 5.0]]
    np.testing.assert_array_equal(carried(values), expected)


def test_the_spread_of_no_seed_is_not_a_number():
    median, low, high = spread(np.array([[np.nan, np.nan], [1.0, 4.0]]))
    assert np.isnan([median[0], low[0], high[0]]).all()
    assert (median[1], low[1], high[1]) == (2.5, 1.0, 4.0)


def test_a_sparkline_rises_with_its_curve_and_leaves_gaps():
    line = Curve("", np.arange(80.0), np.arange(80.0))
    assert sparkline(line, 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(line, 6, ascii_only=True) == "_.-=*#"
    powers = Curve("", line.x, 10.0**line.x)
    assert sparkline(powers, 8, "log") == "▁▂▃▄▅▆▇█"
    gap = Curve("", line.x, np.where((line.x >= 40) & (line.x < 50), np.nan, line.x))
    assert sparkline(gap, 8)[4] == " "
    assert sparkline(Curve("", line.x, np.full(80, np.nan)), 8) == " " * 8


def test_no_curve_of_a_long_run_is_longer_than_a_screen_can_show(tmp_path):
    with grown.training(tmp_path / "run.h5") as writer:
        for k in range(1000):
            writer.append("updates", grown.update_row(k))
    shown = Watcher(writer.path).state().view
    assert {each.title for each in shown.charts} >= {
        "policy gradient norm",
        "iterations per second",
    }
    assert all(len(curve.x) <= MOST for chart in shown.charts for curve in chart.curves)


def test_looks_rest_for_twenty_times_as_long_as_they_take(tmp_path, monkeypatch):
    clock = iter((7.0, 7.3))
    monkeypatch.setattr(states.time, "thread_time", lambda: next(clock))
    watcher = Watcher(tmp_path / "run.h5")
    watcher.state()
    assert watcher.rest == pytest.approx(6.0)


def test_a_rate_needs_two_rows():
    assert np.isnan(paced("iteration", 10, np.array([5]), np.array([1.0])).rate)
    assert paced("iteration", 10, np.array([5]), np.array([1.0])).left is None
    assert Progress("iteration", 12, 10).share == 1.0


def test_alarms_that_repeat_are_told_once_with_their_number():
    events = [Event(1, "a", "x"), Event(2, "b", "y"), Event(3, "a", "z"), Event(4, "run", "w")]
    assert last_of_each_kind(events) == [(events[1], 1), (events[2], 2), (events[3], 1)]


def test_numbers_are_short_and_say_what_is_missing():
    assert number(float("nan")) == "–" and number(float("inf")) == "∞"
    assert number(-float("inf")) == "−∞" and number(-1.23456e-5) == "−1.235e−05"


def test_a_view_starts_without_what_trains_and_draws():
    code = (
        "import sys, gradlab.watching.server, gradlab.watching.showing\n"
        "print([each for each in ('torch', 'pandas', 'matplotlib') if each in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
