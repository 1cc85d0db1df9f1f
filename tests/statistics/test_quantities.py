"""One row per quantity, and everything that is named in it exists."""

import numpy as np

from analyses.coverage.synthetic import moments, planted
from gradlab.statistics.intervals import METHODS
from gradlab.statistics.moments import WITHOUT_TRUTH, estimates
from gradlab.statistics.quantities import QUANTITIES, TABLE


def test_every_name_stands_once_and_has_an_interval():
    assert len(QUANTITIES) == len(TABLE)
    assert {each.interval for each in TABLE} == set(METHODS)


def test_what_is_estimated_is_in_the_table_and_needs_what_its_row_says():
    data = planted(np.random.default_rng(0), 12)
    with_truth = set(estimates(moments(data.G, data.T), batch=12))
    without = set(estimates(moments(data.G), batch=12))
    assert with_truth <= set(QUANTITIES)
    assert without <= set(WITHOUT_TRUTH)
    assert {QUANTITIES[name].needs for name in with_truth - without} == {"truth", "return"}


def test_values_stated_for_a_batch_change_with_it_and_no_others():
    data = planted(np.random.default_rng(1), 40, ratio=30.0, size=0.5)
    small, large = (estimates(moments(data.G, data.T), batch=n) for n in (4, 400))
    changed = {name for name in small if small[name].value != large[name].value}
    assert changed == {each.name for each in TABLE if each.per_batch}
