"""A probed training run read back: one seed at a time, in sentences and on its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.reporting import render, training_page
from gradlab.runs.training import probe_results
from gradlab.runs.training.probe_results import PREFIX, probes
from gradlab.runs.training.results import from_record, load
from gradlab.storage import journal
from gradlab.storage.journal import Journal
from gradlab.storage.journal_tables import Table
from gradlab.storage.records import Array, Record
from gradlab.verdicts.training.sentences import verdict

CONFIG = (
    '{"algorithm": {"name": "mpg-v2", "batch": 256}, "task": "push", "settings": {"first_seed": 4,'
    ' "probe_budget": 0.1, "episode": 20, "at_end": "stop", "termination": "mask", "seeds": 2,'
    ' "reward_scale": 1.0, "evaluation_starts": 4, "precision": "float32", "device": "cpu"}}'
)
SEEDS = (4, 5)


def successive(signals):
    """Rows of 16 pairs, one per burst: share and its standard error of either seed."""
    for k, (share, se) in enumerate(signals):
        row = {"pairs": 16.0, "energy": 2.0, "root_squares": 1.0, "dead_columns": 0.0}
        own = {name: np.full(2, value) for name, value in row.items()}
        own |= {"signal": 2.0 * np.array(share), "signal_share": np.array(share)}
        own |= {"share_se": np.array(se), "columns": np.full(2, 10.0)}
        yield {"update": 100 * (k + 1), "step": 100.0 * (k + 1), "seconds": 0.5, **own}


def vitals():
    for k in range(3):
        base = np.array([1.0, 2.0]) * (k + 1)
        yield {
            "update": 100 * (k + 1), "step": 100.0 * (k + 1), "looked": 50.0, "watched": 10.0,
            "marked": 1.0, "grad_norm": base, "grad_norm_max": 2 * base, "update_ratio": base / 1e3,
            "layer_norm": base[:, None] * np.arange(1, 5), "nonfinite_updates": np.zeros(2),
            "layer_ratio": np.ones((2, 4)), "nonfinite": np.zeros((2, 4)), "zero": np.zeros((2, 4)),
            "saturation": np.full((2, 1), 0.25), "own_seconds": 0.6 * (k + 1),
            "elapsed": 10.0 * (k + 1), "spent": 0.06,
        }  # fmt: skip


def measured(seed, update, value):
    own = np.full(2, np.nan)
    own[seed] = value
    return {"update": update, "step": float(update), "starts": own, "batch": own, "value": own,
            "seconds": 1.0}  # fmt: skip


def alarm(number, seed, step, kind):
    words = {"alarm": kind, "message": f"{kind} <b>: mend it"}
    return {"number": number, "seed": seed, "update": step, "step": step, **words}


SIGNALS = [((0.81, 0.25), (0.05, 0.01)), ((0.81, 0.25), (0.05, 0.01))]
ALARMS = [
    alarm(0, 5.0, 100.0, "saturated actor"), alarm(1, np.nan, 200.0, "horizon never rolled out"),
    alarm(2, 5.0, 200.0, "saturated actor"),
]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A file that holds a training of two seeds, 4 and 5, and what its probe saw."""
    return written(tmp_path / "run.h5", SIGNALS, ALARMS)


def written(path, signals, alarms):
    tables = {
        name: Table(table.index, table.columns, table.scales)
        for name, table in probe_results.tables(SEEDS, 4, 1, 3, (0, 25)).items()
    }
    about = {"kind": "training", "config": CONFIG, "environment": '{"torch": "2"}', "seed": 4}
    about |= probe_results.attributes(["network.0.weight", "network.2.weight", "b0", "b2"])
    with Journal(path, tables, about) as book:
        for name, rows in {
            "vitals": vitals(), "successive": successive(signals), "alarms": alarms,
            "measured": [measured(0, 100, 7.0), measured(1, 200, 8.0), measured(0, 300, 9.0)],
            "horizons": [{"update": 300, "step": 300.0, "lasted": np.array([7.0, 25.0])}],
        }.items():  # fmt: skip
            for row in rows:
                book.append(f"{PREFIX}{name}", row)
    return path


def training(path, probed=True, record=None):
    """As `load` has it, with the few numbers of a training that its page cannot do without."""
    record = journal.read(path) if record is None else record
    at, two = np.array([0, 300]), np.array([[-9.0, -8.0], [-1.0, -2.0]])
    seed, horizon = Array(np.array(SEEDS), ("seed",)), Array(np.array([0, 25]), ("horizon",))

    def array(values, *dims):
        return Array(np.asarray(values), ("iteration", *dims))

    evaluations = {
        "iteration": array(at), "seed": seed, "seconds": array([0.0, 30.0]),
        "return_mean": array(two, "seed"), "return_se": array(0 * two, "seed"),
        "ends": array(0 * two, "seed"), "rms": array(np.ones((2, 2, 3)), "seed", "coordinate"),
    }  # fmt: skip
    updates = {name: array(np.ones((2, 2)), "seed") for name in (
        "critic_loss", "value", "critic_norm", "policy_norm")}  # fmt: skip
    updates |= {name: array(np.ones(2)) for name in ("critic_seconds", "policy_seconds")}
    updates |= {"iteration": array([150, 300]), "seconds": array([15.0, 30.0]), "horizon": horizon}
    updates |= {"weight": array(np.full((2, 2), 0.5), "horizon")}
    updates |= {"realised_horizon": array([25.0, 25.0])}
    groups = {k: v for k, v in record.groups.items() if probed}
    groups |= {"evaluations": evaluations, "updates": updates}
    groups |= {"events": {"message": Array(np.array([], dtype=object), ("number",))}}
    return from_record(Record(record.attributes, groups), path)


def test_a_seed_is_read_as_a_probe_of_its_own(run):
    found = probes(journal.read(run))
    assert list(found) == ["4", "5"]
    first, second = found.values()
    np.testing.assert_array_equal(first.vitals["grad_norm"], [1, 2, 3])
    np.testing.assert_array_equal(second.vitals["grad_norm"], [2, 4, 6])
    np.testing.assert_array_equal(second.vitals["layer_norm"][1], [4, 8, 12, 16])
    assert (second.config["seed"], second.budget, second.spent) == (5, 0.1, 0.06)
    assert first.parameters[1] == "network.2.weight" and first.horizon == 3


def test_a_seed_has_its_own_measurements_and_the_seconds_of_all(run):
    first, second = probes(journal.read(run)).values()
    np.testing.assert_array_equal(first.measured["value"], [7, 9])
    np.testing.assert_array_equal(first.measured["update"], [100, 300])
    np.testing.assert_array_equal(first.measured["seconds"], [1, 2])
    np.testing.assert_array_equal(second.measured["value"], [8])
    np.testing.assert_array_equal(second.measured["seconds"], [2])
    assert len(first.measured["horizon"]) == 4 and first.measured["bias2"].shape == (2, 4, 4)


def test_an_alarm_is_its_seeds_or_everybodys(run):
    first, second = probes(journal.read(run)).values()
    assert first.alarms["alarm"].tolist() == ["horizon never rolled out"]
    kinds = ["saturated actor", "horizon never rolled out", "saturated actor"]
    assert second.alarms["alarm"].tolist() == kinds


def test_a_run_without_a_probe_has_none(run):
    plain = training(run, probed=False)
    assert plain.probes == {} and plain.paths.empty
    about = {sentence.about for sentence in verdict(plain)}
    assert not about & {"alarms", "signal", "cost"}
    names = [each.name for each in training_page.panels({"plain": plain})]
    assert names and not any(name.startswith("probe") for name in names)
    assert training_page.alarms({"plain": plain}).body == ""


def sentences(found):
    return {s.about: s for s in verdict(found) if s.about in ("alarms", "signal", "cost")}


def test_the_verdict_has_the_seeds_signals_with_their_intervals(run):
    told = sentences(training(run))
    # Shares .81 ± .035 and .25 ± .00707 of two bursts pooled: cosines .9 and .5.
    text = told["signal"].text
    assert "0.90 (seed 4, CI 0.86–0.94), 0.50 (seed 5, CI 0.49–0.51)" in text
    assert "N = 32 pairs" in text and told["signal"].decided
    assert "6% of 30 s, within its budget of 10%" in told["cost"].text
    assert "measurement" not in told["cost"].text
    text = told["alarms"].text
    assert "saturated actor (seed 5, first at iteration 100)" in text
    assert "horizon never rolled out (every seed, first at iteration 200)" in text


def test_a_signal_that_may_be_nothing_is_undecided(tmp_path):
    path = written(tmp_path / "run.h5", [((0.81, 0.02), (0.05, 0.05))], [])
    told = sentences(training(path))
    assert not told["signal"].decided
    assert "undecided for seed 5 (at most 0.34)" in told["signal"].text
    assert "no alarm was raised" in told["alarms"].text


def test_a_budget_that_allowed_no_measurement_is_told(run):
    found = training(run)
    bare = {seed: replace(probe, measured={}) for seed, probe in found.probes.items()}
    told = sentences(replace(found, probes=bare))
    assert "allowed no measurement on the task in this time" in told["cost"].text


@pytest.mark.slow
def test_the_page_shows_the_probe_in_sections_of_its_own(run):
    found = training(run)
    drawn = training_page.panels({"mpg-v2": found})
    ours = {each.name: each for each in drawn if each.name.startswith("probe")}
    assert {"probe-signal_share", "probe-grad_norm", "probe-saturation", "probe-share"} <= set(ours)
    assert "probe-paths" in ours and len({each.name for each in drawn}) == len(drawn)
    assert all(each.section.startswith("Gradients while it trained: ") for each in ours.values())
    page = render(training_page.several({"mpg-v2": found}, "title"))
    often = "(reported 2 times, last at iteration 200)"
    told = f"saturated actor</strong> (seed 5) {often}: saturated actor &lt;b&gt;"
    assert page.count(told) == 1
    assert page.count("horizon never rolled out</strong>: ") == 1
    assert "<b>: mend" not in page


def test_runs_side_by_side_tell_whose_alarm_it_is(run):
    found = training(run)
    runs = {"a": found, "b": replace(found, probes={})}
    assert not any(each.name.startswith("probe") for each in training_page.panels(runs))
    assert "</strong> (a, seed 5) (reported 2 times" in training_page.alarms(runs).body


def test_a_run_is_read_while_its_probe_has_no_row_yet(tmp_path):
    tables = probe_results.tables(SEEDS, 4, 1, 3, (0, 25))
    about = {"kind": "training", "config": CONFIG, "environment": "{}"}
    about |= probe_results.attributes(["a", "b", "c", "d"])
    with Journal(tmp_path / "run.h5", tables, about):
        found = training(Path(tmp_path / "run.h5"))
    assert all(not each.vitals and not each.alarms for each in found.probes.values())
    assert not sentences(found) and training_page.panels_of_probe(found) == []
    with pytest.raises(Exception, match="not a complete training run"):
        load(tmp_path / "run.h5")


BROKEN = {
    "probe_vitals/grad_norm": lambda values: values[:, :1],
    "probe_vitals/layer_norm": lambda values: values[..., :2],
    "probe_vitals/looked": lambda values: values[:2],
    "probe_vitals/nonfinite_updates": lambda values: np.full_like(values, np.inf),
    "probe_successive/step": lambda values: values.astype(str).astype(object),
    "probe_measured/bias2": lambda values: values[..., 0],
    "probe_measured/horizon": lambda values: values[:1],
    "probe_horizons/reached": lambda values: values.T,
    "probe_alarms/message": lambda values: np.zeros(len(values)),
    "probe_alarms/seed": lambda values: values[:1],
}


@pytest.mark.parametrize("place", BROKEN)
def test_a_column_of_another_shape_or_type_is_one_clear_error(run, place):
    record = journal.read(run)
    table, column = place.split("/")
    array = record.groups[table][column]
    broken = replace(array, values=BROKEN[place](array.values))
    groups = record.groups | {table: record.groups[table] | {column: broken}}
    with pytest.raises(InputError, match="is not a complete training run") as error:
        training(run, record=replace(record, groups=groups))
    assert "\n" not in str(error.value)
