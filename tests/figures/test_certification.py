"""The figure of a certificate draws the numbers of its table."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from gradlab import figures


def table(**changed):
    row = {
        "source": "step", "block": "A", "stratum": "free", "states": 9, "judged": 1.0,
        "median": 1e-9, "p95": 1e-8, "largest": 1e-2, "flagged": 0.1,
    }  # fmt: skip
    worse = row | {"source": "linearize", "largest": 0.5}
    other = row | {"block": "r_a", "stratum": "contact", "median": 0.0, "p95": 0.0, "largest": 0.0}
    return pd.DataFrame([row, worse, other]).assign(**changed)


def test_the_worse_of_two_sources_is_drawn_from_its_median_to_its_largest_error():
    ax = figures.certified_errors(table(), fail_above=1e-3)
    lines = [np.asarray(line.get_xdata()) for line in ax.lines]
    assert any(np.array_equal(x, [1e-9, 0.5]) for x in lines)
    assert any(np.array_equal(x, [1e-3, 1e-3]) for x in lines)
    assert min(x.min() for x in lines) == 1e-16  # an exact derivative
    assert [text.get_text() for text in ax.get_yticklabels()] == ["free", "contact"]
    plt.close("all")


@pytest.mark.parametrize("shown", [table(median=np.nan, p95=np.nan, largest=np.nan), table()[:0]])
def test_a_table_without_judged_states_says_so(shown):
    ax = figures.certified_errors(shown)
    assert "no state could be judged" in [text.get_text() for text in ax.texts]
    plt.close("all")
