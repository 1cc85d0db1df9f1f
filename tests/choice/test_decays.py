"""Error over the temporal decay: bias against variance, and which α may be best."""

from functools import cache

import numpy as np
import pytest
import torch

import gradlab
from gradlab.choice.tables import decay_table, decays_of
from gradlab.errors import InputError
from gradlab.verdicts.measurement.verdict import decays

ALPHAS = [0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1]


def critic(s, u):
    return -(2 * s[:, 0] ** 2 + 1.5 * u[:, 0] ** 2 + 0.8 * s[:, 0] * u[:, 0])


def measured(horizon, starts, *also):
    """Of a scalar system that grows, whose noise makes long gradients noisy."""
    task = gradlab.tasks.linear_quadratic(
        A=[[1.1]], B=[[0.5]], Q=[[1.0]], R=[[0.1]], noise_covariance=[[0.5]], start_mean=[0.0],
        start_covariance=[[1.0]], discount=0.9,
    )  # fmt: skip
    policy = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(policy.weight, -0.3)
    return gradlab.measure(
        task, policy, critic, horizon=horizon, starts=starts, batch=16, also=also, law="start",
        rehearse=False,
    )  # fmt: skip


@cache
def profile():
    return measured(12, 128, "decay")


def test_every_decay_has_its_alpha_and_an_error_of_bias_and_variance():
    found = decays_of(profile())
    assert list(found.values()) == ALPHAS
    assert list(found)[-1] == "true_dynamics_all"
    table = decay_table(profile()).pivot(index="alpha", columns="quantity", values="value")
    assert np.allclose(table["mse"], table["bias2"] + table["variance"])
    # Less of the way through the state: more bias, less variance, in this world at every step.
    assert (np.diff(table["bias2"]) < 0).all() and (np.diff(table["variance"]) > 0).all()


def test_a_small_batch_wants_a_decay_and_a_large_one_none():
    kept = {
        batch: set(table.loc[table["kept"], "alpha"])
        for batch in (1, 4096)
        for table in [decay_table(profile(), batch=batch)]
    }
    assert kept[4096] == {1.0}
    assert 1.0 not in kept[1] and 0.9 in kept[1]
    least = decay_table(profile(), batch=1).query("quantity == 'mse'").sort_values("value")
    assert least["alpha"].iloc[0] in kept[1]


def test_a_profile_without_decays_says_how_to_measure_them():
    with pytest.raises(InputError, match=r"0 temporal decays.*also="):
        decay_table(measured(1, 16))
    with pytest.raises(InputError, match=r"horizon is 99, expected one of"):
        decay_table(profile(), horizon=99)


def test_the_best_decay_and_its_set_are_said():
    (said,) = [each.text for each in decays(profile())]
    table = decay_table(profile())
    errors = table[table["quantity"] == "mse"]
    least = errors.loc[errors["value"].idxmin(), "alpha"]
    assert f"α = {least:g} has the smallest error" in said
    kept = sorted(set(table.loc[table["kept"], "alpha"]))
    assert len(kept) == 1 or f"{kept[0]:g} to {kept[-1]:g} may have it" in said
