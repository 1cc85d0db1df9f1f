"""What others read of a profile: the table, whose columns are promised, and the xarray Dataset."""

import sys

import numpy as np
import pandas as pd
import pytest

from gradlab.errors import InputError
from gradlab.runs.profile import Profile
from gradlab.statistics.quantities import QUANTITIES

PROMISED = {
    "estimator": object, "horizon": np.integer, "quantity": object, "value": np.floating,
    "se": np.floating, "ci_low": np.floating, "ci_high": np.floating, "n": np.integer,
    "method": object,
}  # fmt: skip


@pytest.fixture
def profile() -> Profile:
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


def test_the_tables_columns_are_those_that_its_docstring_promises(profile):
    table = profile.table()
    assert list(table.columns) == list(PROMISED)
    for name, kind in PROMISED.items():
        of_text = kind is object and pd.api.types.is_string_dtype(table[name])
        assert of_text or np.issubdtype(table[name].dtype, kind), name
        assert f"`{name}`" in str(Profile.table.__doc__)
    assert set(table["quantity"]) <= set(QUANTITIES)


def test_the_dataset_has_every_number_of_the_table_under_its_labels(profile):
    pytest.importorskip("xarray")
    data, table = profile.to_xarray(), profile.table()
    for row in table.to_dict("records"):
        name = row["quantity"]
        cell = data.sel(estimator=row["estimator"], horizon=row["horizon"])
        same = np.array([cell[name], cell[f"{name}_se"], *cell[f"{name}_ci"], cell[f"{name}_n"]])
        columns = [row[each] for each in ("value", "se", "ci_low", "ci_high", "n")]
        np.testing.assert_array_equal(same, columns)
    for name in profile.quantities:
        here = int((table["quantity"] == name).sum())
        assert int((data[f"{name}_n"] > 0).sum()) == here
        assert data[name].dims == ("estimator", "horizon")
        assert data[name].attrs["long_name"] == QUANTITIES[name].title
        assert data[name].attrs["units"] == (QUANTITIES[name].unit or "1")
    assert data["bias2_ci"].dims == ("estimator", "horizon", "ci_bound")
    assert data["ci_bound"].values.tolist() == ["lower", "upper"]
    assert data["horizon"].attrs["units"] == "steps"
    assert data.attrs["batch"] == profile.batch
    assert all(isinstance(each, str | int | float) for each in data.attrs.values())


def test_without_xarray_the_error_names_the_extra(profile, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match=r"xarray is not installed: .*'\.\[xarray\]'"):
        profile.to_xarray()
