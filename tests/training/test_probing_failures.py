"""A probe that fails, a kill and Ctrl-C leave the training and its rows whole."""

import shutil
import warnings

import pytest

from gradlab.probe.row_sinks import AlarmLog
from gradlab.storage.journal import read
from gradlab.training.loop import train
from gradlab.training.probe import probe, seed_rows
from gradlab.training.probe.update_statistics import SeedSignals, SeedStatistics
from tests.training.probed_runs import SMALL, row, same_runs, task, wild

BROKEN = [
    (probe._Instruments, "__init__"), (probe._Instruments, "over"), (SeedStatistics, "see"),
    (SeedSignals, "rows"), (seed_rows.SeedRows, "file"), (AlarmLog, "report"),
    (probe.SeedMeasurements, "row"),
]  # fmt: skip


@pytest.fixture
def untouched(small_run):
    return small_run(row("td3"), task, **SMALL)


@pytest.mark.parametrize(("place", "name"), BROKEN)
def test_a_probe_that_fails_says_so_once_and_training_goes_on(
    tmp_path, monkeypatch, untouched, place, name
):
    def fails(*given, **more):
        raise ZeroDivisionError("planted")

    if name == "report":  # an alarm is needed to see it fail
        saturated = lambda policy: policy.network[-3].bias.fill_(50.0)  # noqa: E731
        wild(monkeypatch, 0, saturated)
        untouched = train(row("td3"), task(), tmp_path / "plain.h5", **SMALL)
    if place is not probe.SeedMeasurements:
        monkeypatch.setattr(probe.SeedMeasurements, "row", lambda self: None)
    monkeypatch.setattr(place, name, fails)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    ours = [str(each.message) for each in told if "planted" in str(each.message)]
    assert len(ours) == 1 and "training goes on" in ours[0]
    same_runs(untouched, path)
    if place is probe.SeedMeasurements:  # all else goes on
        assert read(path).groups["probe_vitals"]["looked"].values.sum() == 30


@pytest.mark.usefixtures("unhurried")
def test_a_killed_run_goes_on_and_loses_nothing_that_was_logged(tmp_path, monkeypatch):
    wild(monkeypatch, 1, lambda policy: policy.network[-3].bias.fill_(50.0))
    options = SMALL | {"iterations": 120, "probe_budget": 1.0}

    def copy(stage, done, total):  # what a kill after iteration 115 would leave
        if done == 115:
            for end in (".h5.journal", ".resume.safetensors"):
                shutil.copy(tmp_path / f"whole{end}", tmp_path / f"dead{end}")

    whole = train(row("td3"), task(), tmp_path / "whole.h5", **options, progress=copy)
    dead = tmp_path / "dead.h5"
    before = read(dead).groups
    assert before["probe_vitals"]["update"].values.tolist() == [40, 50, 80, 100]
    train(row("td3"), task(), dead, **options, resume=True)
    same_runs(whole, dead)
    after = read(dead).groups
    for table in ("vitals", "successive", "horizons"):
        numbers, kept = (
            groups[f"probe_{table}"]["update"].values.tolist() for groups in (after, before)
        )
        assert set(kept) <= set(numbers)
    looked = dict(
        zip(
            after["probe_vitals"]["update"].values.tolist(),
            after["probe_vitals"]["looked"].values.tolist(),
            strict=True,
        )
    )
    assert looked == {40: 20, 50: 5, 80: 15, 100: 10, 120: 10}
    first, second = (groups["probe_alarms"] for groups in (before, after))
    count = len(first["number"].values)
    assert count and second["number"].values.tolist()[:count] == list(range(count))
    assert second["message"].values.tolist()[:count] == first["message"].values.tolist()
