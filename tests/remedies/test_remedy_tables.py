"""Numbers of trials become paired differences and ratios; a file gives them back bit for bit."""

import numpy as np
import pytest
from scipy import stats

from gradlab.errors import InputError
from gradlab.runs.decision_rules import LogRatio
from gradlab.statistics.intervals import Z
from gradlab.tools.remedies.result import (
    BASELINE,
    STEPS,
    Key,
    ModelPair,
    ModelValue,
    Remedies,
    extended,
    load,
    more_trials,
)

PAIR = ModelPair("dd", STEPS, BASELINE, "dd")
CONFIG = {"task": "planted", "horizon": 3, "starts": 4, "batch": 256, "rows": 10, "seed": 0}


def run(trials):
    """trials: one {(model, key): value, or (value, left_out)} each."""
    cells = None
    for k, numbers in enumerate(trials):
        values = [
            ModelValue(model, key, *(found if isinstance(found, tuple) else (found,)))
            for (model, key), found in numbers.items()
        ]
        cells = extended(cells, k, values)
    return Remedies(cells, (PAIR,), CONFIG, {"commit": "abc"}, {"trials": []})


def pair(first, second, key):
    return run([{(BASELINE, key): a, ("dd", key): b} for a, b in zip(first, second, strict=True)])


def only(found):
    assert len(found) == 1
    return found.iloc[0]


def test_a_difference_over_trials_has_the_interval_of_a_paired_t_test():
    first, second = np.array([3.0, 5.0, 7.0, 9.0]), np.array([2.0, 5.0, 5.0, 8.0])
    row = only(pair(first, second, Key("cosine", at=2)).table())
    gap = second - first
    assert row["difference"] == pytest.approx(gap.mean())
    half = stats.t.ppf(0.975, 3) * gap.std(ddof=1) / 2
    assert gap.tolist() == [-1, 0, -2, -1]  # symmetric, so that skewness corrects nothing
    assert [row["ci_low"], row["ci_high"]] == pytest.approx([-1 - half, -1 + half])
    assert row["n"] == 4 and row["method"] == "paired jackknife over trials"
    assert np.isnan(row["ratio"]) and row["at"] == 2.0


def test_a_ratio_over_trials_is_the_geometric_mean_with_the_interval_of_its_logarithms():
    first, second = np.array([1.0, 10.0, 0.1, 2.0]), np.array([2.0, 15.0, 0.4, 1.0])
    row = only(pair(first, second, Key("mse", at=1)).table())
    logs = np.log(second / first)
    test = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    expected = np.exp([logs.mean(), test.low, test.high])
    assert [row["ratio"], row["ratio_low"], row["ratio_high"]] == pytest.approx(expected)


def test_further_trials_decide_with_the_power_that_is_asked_for():
    """n trials of gap 1 and deviation 2: Student's test with the power of 80%."""
    found = LogRatio(1.0, 0.0, 0.0, 2.0 / 4**0.5)
    n = 4 + more_trials(found, 4)
    power = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, 0.5 * n**0.5)
    assert power == pytest.approx(0.8, abs=0.02)
    assert more_trials(LogRatio(0.0, -1.0, 1.0, 0.5), 4) is None
    assert more_trials(LogRatio(1e-6, -1.0, 1.0, 0.5), 4) is None


def test_a_number_below_zero_in_one_trial_leaves_no_ratio():
    row = only(pair([1.0, -0.1, 2.0], [2.0, 1.0, 3.0], Key("bias2", at=1)).table())
    assert np.isnan(row["ratio"]) and np.isfinite([row["ci_low"], row["ci_high"]]).all()


def test_a_single_trial_has_intervals_over_its_starts():
    rng = np.random.default_rng(0)
    x = rng.normal(5.0, 1.0, 40)
    y = x + rng.normal(1.0, 0.1, 40)
    key = Key("variance", at=3)
    left = [(each.sum() - each) / 39 for each in (x, y)]
    numbers = {(BASELINE, key): (x.mean(), left[0]), ("dd", key): (y.mean(), left[1])}
    row = only(run([numbers]).table())
    se = (y - x).std(ddof=1) / 40**0.5
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * Z * se, rel=0.1)
    assert row["n"] == 40 and row["method"] == "paired jackknife over starts of one trial"


def test_a_trial_in_which_one_model_is_lost_is_left_out_of_both():
    row = only(pair([1.0, 2.0, 3.0], [2.0, np.inf, 4.0], Key("mse", at=1)).table())
    assert row["first"] == 2.0 and row["second"] == 3.0 and row["n"] == 2


def test_a_file_gives_everything_back_bit_for_bit(tmp_path):
    key = Key("jacobian_error", "B", region="smooth")
    before = pair([0.1, 0.2], [0.3, 0.1], key)
    path = before.save(tmp_path / "run.h5")
    after = load(path)
    assert after.pairs == before.pairs and after.trials == 2
    for name, values in before.cells.columns.items():
        np.testing.assert_array_equal(after.cells.columns[name], values)
    np.testing.assert_array_equal(after.cells.left_out, before.cells.left_out)
    assert after.config == CONFIG
    assert after.table().equals(before.table())


def test_another_kind_of_file_is_refused(tmp_path):
    from gradlab.storage import records

    records.write(tmp_path / "x.h5", records.Record({"kind": "profile"}, {}))
    with pytest.raises(InputError, match="expected a test of remedies"):
        load(tmp_path / "x.h5")
    records.write(tmp_path / "y.h5", records.Record({"kind": "remedies"}, {}))
    with pytest.raises(InputError, match="not a complete test of remedies"):
        load(tmp_path / "y.h5")
