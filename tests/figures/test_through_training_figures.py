"""Figures through training draw what the table says, crossings included."""

import numpy as np
import pandas as pd
import pytest

from gradlab.figures.through_training import (
    crossings,
    errors_through_training,
    weights_through_training,
)
from tests.figures.drawn import line, texts

STEPS = (0, 1000, 2000, 5000)


def rows(estimator, quantity, values, steps=STEPS):
    return pd.DataFrame(
        {"iteration": steps, "estimator": estimator, "horizon": 0, "quantity": quantity,
         "value": values, "ci_low": np.multiply(values, 0.5), "ci_high": np.multiply(values, 2.0)}
    )  # fmt: skip


@pytest.fixture
def table():
    rule = rows("model", "weight_rule", np.linspace(1, 0, 51), range(0, 5001, 100))
    return pd.concat(
        [
            rows("data", "bias2", [8.0, 4.0, 2.0, 1.0]),
            rows("model", "bias2", [2.0, 2.0, 2.0 * np.e, 4.0]),
            rows("model", "weight_mse", [0.9, 0.8, 0.4, 0.1]),
            rule,
        ]
    )


def test_both_errors_are_drawn_as_they_are_in_order_of_iteration(table):
    ax = errors_through_training(table.sample(frac=1, random_state=0))
    np.testing.assert_array_equal(line(ax, "data").get_xdata(), STEPS)
    np.testing.assert_array_equal(line(ax, "data").get_ydata(), [8.0, 4.0, 2.0, 1.0])
    np.testing.assert_array_equal(line(ax, "model").get_ydata(), [2.0, 2.0, 2.0 * np.e, 4.0])
    assert ax.get_yscale() == "log"


def test_the_crossing_is_where_the_logarithms_meet_or_said_to_be_none(table):
    # From log(2/4) at 1000 to log(e) at 2000.
    at = 1000 + 1000 * np.log(2) / (np.log(2) + 1)
    assert f"iteration {at:.0f}" in texts(errors_through_training(table))
    above = table.assign(value=table["value"].where(table["estimator"] == "data", 100.0))
    assert "none of the checkpoints" in texts(errors_through_training(above))


def test_crossings_count_only_rises_through_zero():
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(crossings(x, np.array([-1.0, 1.0, -1.0, np.nan, 3.0])), [0.5, 2.5])
    assert len(crossings(x, np.array([3.0, 2.0, 1.0, -1.0, -2.0]))) == 0


def test_a_bias_below_zero_is_an_upper_bound_and_nothing_measured_is_said(table):
    hidden = (table["estimator"] == "data") & (table["iteration"] == 5000)
    table = table.assign(value=table["value"].mask(hidden, -1.0), ci_low=0.0)
    ax = errors_through_training(table)
    assert np.isnan(line(ax, "data").get_ydata()[-1])
    assert "not measured" in texts(errors_through_training(table, quantity="mse"))
    assert "no weights" in texts(weights_through_training(table[table["estimator"] == "data"]))
