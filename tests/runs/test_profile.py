"""A profile is a table that lasts."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.measurement.visited import SAMPLES
from gradlab.statistics.quantities import QUANTITIES


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
        assert run["schema_version"] == 1
        assert {"config", "environment", "seed", "commit"} <= set(run)
        value = file["profile/value"]
        assert [dim.label for dim in value.dims] == ["estimator", "quantity", "horizon"]
        assert file["profile/horizon"].attrs["unit"] == "steps"
        assert list(value.dims[2][0][()]) == [0, 1, 2, 3]


def test_an_existing_file_is_refused_and_left_alone(profile, tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("precious")
    with pytest.raises(InputError, match="overwrite=True"):
        profile.save(path)
    assert path.read_text() == "precious"
    profile.save(path, overwrite=True)
    assert gradlab.load(path).batch == 256
