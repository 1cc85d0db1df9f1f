"""Figures of a choice show its tables."""

import numpy as np
import pytest

from gradlab import choose, figures
from gradlab.choice.tables import weight_table
from gradlab.figures.gains import LEAST_SHARE
from tests.choice.planted_gradients import planted, world


@pytest.fixture(scope="module")
def found():
    profile = planted(*world(3, N=60))
    return profile, choose(profile)


def test_shares_and_their_intervals_are_drawn(found):
    _, choice = found
    table = weight_table(choice.pair)
    ax = figures.choice_weights(table)
    labels = [str(each.get_label()) for each in ax.containers]
    assert labels[:2] == ["measured, mean squared error", "measured, direction"]
    assert len(labels) == 5
    heights = {float(y) for each in ax.containers for y in each[0].get_ydata() if np.isfinite(y)}
    shown = table[table["ci_high"] >= LEAST_SHARE]["value"]
    assert heights == set(shown.astype(float))
    assert [each.get_text() for each in ax.get_xticklabels()] == ["data\nh = 0", "model\nh = 6"]
