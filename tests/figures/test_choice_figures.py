"""Figures of a choice show its tables: rings, shares, settings."""

import numpy as np
import pytest

from gradlab import choose, figures
from gradlab.choice.tables import contender_table, error_table, trial_table, weight_table
from tests.choice.planted_gradients import planted, world


@pytest.fixture(scope="module")
def found():
    profile = planted(*world(3, N=60))
    return profile, choose(profile)


def drawn(ax, **traits):
    """Points of the lines whose traits are these."""
    lines = [
        each
        for each in ax.lines
        if all(getattr(each, f"get_{name}")() == value for name, value in traits.items())
    ]
    return {(float(x), float(y)) for each in lines for x, y in each.get_xydata()}


@pytest.mark.parametrize("criterion", ["mse", "direction"])
def test_rings_are_the_95_percent_set(found, criterion):
    profile, choice = found
    table = error_table(choice, profile)
    best = getattr(choice, criterion)
    ax = figures.choice_horizon(table.sample(frac=1, random_state=0), criterion=criterion)
    quantity = {"mse": "mse", "direction": "cosine_batch"}[criterion]
    most = np.inf if criterion == "mse" else 1.0
    want = {
        (float(h), min(profile.estimate(name, quantity, h).value, most)) for name, h in best.kept
    }
    assert drawn(ax, markerfacecolor="none") == want
    assert int(table[f"kept_{criterion}"].sum()) == len(best.kept)
    assert "true_dynamics" not in set(table["estimator"])


def test_shares_and_their_intervals_are_drawn(found):
    _, choice = found
    table = weight_table(choice.pair)
    ax = figures.choice_weights(table)
    labels = [str(each.get_label()) for each in ax.containers]
    assert labels[:2] == ["measured, mean squared error", "measured, direction"]
    assert len(labels) == 5
    heights = {float(y) for each in ax.containers for y in each[0].get_ydata() if np.isfinite(y)}
    shown = table[table["ci_high"] >= figures.choice.LEAST_SHARE]["value"]
    assert heights == set(shown.astype(float))
    assert [each.get_text() for each in ax.get_xticklabels()] == ["data\nh = 0", "model\nh = 6"]


def test_every_setting_is_a_row_with_its_best(found):
    _, choice = found
    table = trial_table(choice)
    ax = figures.what_if_grid(table)
    assert [each.get_text() for each in ax.get_yticklabels()] == list(table["change"])
    want = np.where(table["mse"] > 0, table["mse"], table["mse_high"])
    assert list(ax.containers[0][0].get_xdata()) == pytest.approx(list(want))
    assert f"h = {table['horizon'][0]}" in ax.texts[1].get_text()
    assert len(contender_table(choice.pair)) == len(choice.pair.contenders)


def test_a_choice_without_a_truth_has_empty_figures():
    profile = planted(*world(4, N=20), admissible=False)
    choice = choose(profile)
    ax = figures.choice_horizon(error_table(choice, profile))
    assert "nothing to choose by" in ax.texts[0].get_text()
    assert "nothing to vary" in figures.what_if_grid(trial_table(choice)).texts[0].get_text()
