"""A profile is a table that lasts.

What others read of a profile: the table, whose columns are promised, and the xarray Dataset.
"""

import re
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.measurement.visited import SAMPLES
from gradlab.runs.profile import Profile
from gradlab.statistics.quantities import QUANTITIES
from gradlab.storage import journal


@pytest.fixture(scope="module")
def profile():
    task = gradlab.tasks.linear_quadratic()
    policy = nn.Linear(2, 1).double()
    policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()

    class Critic(nn.Module):
        def forward(self, s, a):
            return -(s**2).sum(1) - (a**2).sum(1)

    return gradlab.measure(task, policy, Critic(), horizon=3, starts=32, command="gradlab measure")


def test_a_saved_profile_comes_back_bit_for_bit(profile, tmp_path):
    path = profile.save(tmp_path / "run.h5")
    again = gradlab.load(path)
    assert again.table().equals(profile.table())
    np.testing.assert_array_equal(again.left_out, profile.left_out)
    assert again.config == profile.config
    assert dict(again.truth) == pytest.approx(dict(profile.truth), nan_ok=True)


def test_the_table_has_a_row_per_measured_cell(profile):
    table = profile.table()
    assert list(table.columns) == [
        "estimator", "horizon", "quantity", "value", "se", "ci_low", "ci_high", "n", "method"
    ]  # fmt: skip
    each = len(QUANTITIES) - 1  # the variance across critics needs several
    assert len(table.query("estimator == 'data'")) == each
    for name in ("model", "mixed", "true_dynamics"):
        assert len(table.query("estimator == @name")) == each * 4
        assert len(table.query(f"estimator == '{name}_all'")) == each * 4
    everywhere = table.estimator.str.endswith("_all")
    assert (table.n[everywhere] == 32).all()
    assert (table.n[~everywhere] == 32 * SAMPLES).all()  # visited states of each start
    assert table.method.str.len().min() > 0


def test_the_file_explains_itself(profile, tmp_path):
    path = profile.save(tmp_path / "run.h5")
    with h5py.File(path) as file:
        run = dict(file["run"].attrs)
        assert run["command"] == "gradlab measure"
        assert run["schema_version"] == 3
        assert {"config", "environment", "seed", "commit"} <= set(run)
        value = file["profile/value"]
        assert [dim.label for dim in value.dims] == ["estimator", "quantity", "horizon"]
        assert file["profile/horizon"].attrs["units"] == "steps"
        assert list(value.dims[2][0][()]) == [0, 1, 2, 3]


def test_a_file_of_an_earlier_layout_is_refused_with_the_commit_that_reads_it(
    profile, tmp_path, monkeypatch
):
    path = tmp_path / "run.h5"
    with monkeypatch.context() as earlier:
        earlier.setattr("gradlab.storage.hdf5._SCHEMA_VERSION", 1)
        profile.save(path)
    own, said = path.read_bytes(), f"{path} was written by an earlier layout: gradlab at 7f6a4f4a"
    for door in (
        gradlab.load,
        gradlab.report,
        journal.read,
        lambda to: journal.Journal(to, {}, {}),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(said)} reads it$"):
            door(path)
    with h5py.File(path, "r+") as file:  # without its seal it is read by a child process
        file["run"].attrs["seed"] = 7
    with pytest.raises(InputError, match=f"^{re.escape(said)} reads it$"):
        gradlab.load(path)
    assert path.read_bytes() != own


def test_an_existing_file_is_refused_and_left_alone(profile, tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("precious")
    with pytest.raises(InputError, match="overwrite=True"):
        profile.save(path)
    assert path.read_text() == "precious"
    profile.save(path, overwrite=True)
    assert gradlab.load(path).batch == 256


PROMISED = {
    "estimator": object, "horizon": np.integer, "quantity": object, "value": np.floating,
    "se": np.floating, "ci_low": np.floating, "ci_high": np.floating, "n": np.integer,
    "method": object,
}  # fmt: skip


@pytest.fixture
def grid() -> Profile:
    """Four quantities of two estimators; data was measured at horizon 0 alone."""
    quantities, shape = ("gain", "bias2", "variance", "snr"), (2, 4, 3)
    count = np.full(shape, 64)
    count[0, :, 1:] = 0
    numbers = np.random.default_rng(0).normal(size=(4, *shape))
    names = ("value", "se", "ci_low", "ci_high")
    columns = {
        name: np.where(count > 0, each, np.nan) for name, each in zip(names, numbers, strict=True)
    }
    config = {"task": "mine", "batch": 32, "seed": 7, "command": "gradlab measure mine.py:task"}
    environment = {"gradlab": "0.1.0", "created": "2026-01-01T00:00:00+00:00"}
    method = np.where(count > 0, "jackknife", "").astype(object)
    left_out = np.zeros((*shape, 1))
    return Profile(
        ("data", "model"), quantities, (0, 1, 2), columns, count, method, left_out, config,
        environment, {"kind": "objective"},
    )  # fmt: skip


def test_the_tables_columns_are_those_that_its_docstring_promises(grid):
    table = grid.table()
    assert list(table.columns) == list(PROMISED)
    for name, kind in PROMISED.items():
        of_text = kind is object and pd.api.types.is_string_dtype(table[name])
        assert of_text or np.issubdtype(table[name].dtype, kind), name
        assert f"`{name}`" in str(Profile.table.__doc__)
    assert set(table["quantity"]) <= set(QUANTITIES)


def test_the_tree_has_every_number_of_the_table_under_its_labels(grid):
    tree, table = grid.tree["profile"], grid.table()
    labels = ["estimator", "quantity", "horizon"]
    data = tree.to_dataset().set_coords(labels)
    for row in table.to_dict("records"):
        e, q, h = (list(data[name].values).index(row[name]) for name in labels)
        for column in ("value", "se", "ci_low", "ci_high", "n"):
            np.testing.assert_array_equal(data[column].values[e, q, h], row[column])
    assert data["value"].dims == ("estimator", "quantity", "horizon")
    assert data["horizon"].attrs["units"] == "steps"


def test_without_xarray_the_error_is_one_line(grid, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match=r"xarray is not installed: .*xarray'"):
        _ = grid.tree
