"""What a probe wrote comes back, finished or cut short, and foreign files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.runs.probe.results import ProbeRun, load
from gradlab.runs.probe.schema import tables
from gradlab.runs.probe.tables import (
    chains,
    choices,
    curves,
    jacobian_ratio,
    profiles,
    windows,
)
from gradlab.statistics.intervals import Z
from gradlab.storage import journal, records
from gradlab.storage.journal import journal_of
from tests.probe.planted_probe import (
    NAMES,
    burst,
    everything,
    measurement,
    opened,
    written,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ProbeRun:
    return load(written(tmp_path_factory.mktemp("probe") / "run.h5", everything()))


def test_every_row_comes_back_with_what_is_known_of_the_run(run):
    assert (run.task, run.every, run.parameters, run.horizon) == ("planted", 50, NAMES, 4)
    assert (run.updates, run.step, run.seconds) == (3000, 2999, 3000.0)
    assert run.spent == pytest.approx(0.04)
    rows = everything()
    for name in ("vitals", "successive", "measured"):
        table = getattr(run, name)
        for key, value in rows[name][2].items():
            np.testing.assert_array_equal(table[key][2], value)
    assert [(each.code, each.since) for each in run.reported] == [
        ("dead path", 499), ("saturated actor", 1199), ("moved_own", -1),
    ]  # fmt: skip
    assert run.reported[0].finding.at == "action 0" and run.reported[2].finding.decision == "pass"


def test_every_column_has_a_unit_or_is_text_and_a_short_description():
    for name, table in tables(2, 2, 4).items():
        for key, column in table.columns.items():
            assert bool(column.unit) != column.text, f"{name}/{key}"
            assert 0 < len(column.description.split()) <= 10, f"{name}/{key}"


def test_an_empty_run_has_empty_tables(tmp_path):
    found = load(written(tmp_path / "run.h5", {}))
    assert not found.vitals and not found.measured and found.updates == 0
    assert np.isnan(found.spent) and np.isnan(found.seconds)
    assert curves(found).empty and profiles(found).empty and chains(found).empty
    assert choices(found).empty


def changed(path: Path, **attributes: Any) -> Path:
    record = journal.read(written(path, everything(3)))
    journal_of(path).unlink()
    records.write(path, records.Record({**record.attributes, **attributes}, record.groups))
    return path


@pytest.mark.parametrize(
    "broken",
    [
        {"config": "not JSON"},
        {"config": "[]"},
        {"config": json.dumps({"every": "nan"})},
        {"config": json.dumps({"every": 0})},
        {"parameters": json.dumps(["one"])},
        {"parameters": json.dumps(7)},
        {"environment": json.dumps([1])},
        {"parameters": "[" * 100_000},
    ],
)
def test_a_foreign_file_is_refused_in_one_sentence(tmp_path, broken):
    with pytest.raises(InputError, match=r"run\.h5 is not a complete run of gradlab.Probe"):
        load(changed(tmp_path / "run.h5", **broken))


@pytest.mark.parametrize(
    "broken",
    [{"starts": np.nan}, {"step": np.inf}, {"chosen_estimator": 9}, {"kept_low": np.nan},
     {"kept_high": -1}, {"chosen_horizon": 99}],
)  # fmt: skip
def test_numbers_that_no_probe_writes_are_refused(tmp_path, broken):
    path = written(tmp_path / "run.h5", {"measured": [measurement(400, **broken)]})
    with pytest.raises(InputError, match="is not a complete run of gradlab"):
        load(path)


def test_another_kind_is_refused_by_name(tmp_path):
    path = changed(tmp_path / "run.h5", kind="profile")
    assert journal.kind(path) == "profile"
    with pytest.raises(InputError, match=r"'profile', expected a run of gradlab\.Probe"):
        load(path)
    with pytest.raises(InputError, match="no such"):
        journal.kind(tmp_path / "nothing.h5")


def test_the_kind_of_a_run_is_told_by_file_and_by_journal(tmp_path):
    writer = opened(tmp_path / "a.h5", kind="training")
    assert journal.kind(tmp_path / "a.h5") == "training"
    writer.close()
    assert journal.kind(tmp_path / "a.h5") == "training"
    opened(tmp_path / "c.h5", kind="other")  # a journal that is not of the file beside it
    journal_of(tmp_path / "c.h5").rename(journal_of(tmp_path / "a.h5"))
    assert journal.kind(tmp_path / "a.h5") == "training"
    journal_of(tmp_path / "b.h5").write_bytes(b"GLJ\x01 nonsense")
    with pytest.raises(InputError, match="no such"):
        journal.kind(tmp_path / "b.h5")


def test_windows_are_put_together_by_updates():
    size = np.array([1.0, 3.0, np.nan, 5.0])
    found = windows(
        {"step": np.arange(4), "looked": np.array([10, 30, 20, 40.0]), "grad_norm": size,
         "grad_norm_max": size, "nonfinite_updates": np.array([0, 1, 2, 0.0])},
        most=2,
    )  # fmt: skip
    np.testing.assert_allclose(found["grad_norm"], [2.0, 5.0])
    np.testing.assert_allclose(found["grad_norm_max"], [3.0, 5.0])
    np.testing.assert_allclose(found["nonfinite_updates"], [1, 2])
    np.testing.assert_allclose(found["step"], [1, 3])


def test_intervals_of_curves_are_those_of_the_columns(run):
    table = curves(run)
    growth = table[table["quantity"] == "growth"]
    np.testing.assert_allclose(growth["ci_high"] - growth["value"], Z * 0.01)
    share = table[table["quantity"] == "signal_share"]
    np.testing.assert_allclose(share["value"], 0.4)
    np.testing.assert_allclose(share["ci_low"], 0.4 - Z * 0.02)
    layer = table[(table["quantity"] == "layer_norm") & (table["place"] == NAMES[2])]
    np.testing.assert_allclose(layer["value"], np.arange(1, 31) + 2)


def test_jacobians_are_compared_with_the_first_that_are_known(run):
    value, low, high = jacobian_ratio(run.measured)
    np.testing.assert_allclose(value, [1, 2, 3])
    assert np.isnan(low[0]) and np.isnan(high[0])
    np.testing.assert_allclose(high[1:] / value[1:], np.exp(Z * np.sqrt(2) * 0.01))
    unknown = {**run.measured, "jacobian_error": np.array([np.nan, -np.inf, np.log(0.5)])}
    assert jacobian_ratio(unknown)[0][2] == 1


def test_many_bursts_are_pooled_and_those_that_are_lost_left_out(tmp_path):
    rows = [burst(40 * k, share=0.2 if k % 2 else 0.6) for k in range(1, 242)]
    rows[7] |= {"energy": np.nan, "signal_share": np.nan, "share_se": np.nan}
    table = curves(load(written(tmp_path / "run.h5", {"successive": rows})))
    share = table[table["quantity"] == "signal_share"]
    assert len(share) == 60 and share["value"].between(0.3, 0.5).all()
    np.testing.assert_allclose(share["ci_high"].iloc[-1] - 0.4, Z * 0.02 / 2)


def test_of_choices_the_set_and_the_best_are_kept_apart(run):
    rows = choices(run)
    newest = rows[rows["step"] == 1199]
    assert newest["horizon"].tolist() == [2, 3] and newest["chosen"].tolist() == [True, False]
    assert set(newest["estimator"]) == {"model"}


def test_profiles_leave_out_what_was_not_measured(tmp_path):
    lost = measurement(10, bias2=np.full((4, 5), np.nan), mse=np.full((4, 5), np.nan))
    rows = profiles(load(written(tmp_path / "run.h5", {"measured": [lost]})))
    assert set(rows["quantity"]) == {"variance", "cosine"}
    assert len(rows[(rows["estimator"] == "data") & (rows["quantity"] == "variance")]) == 1
