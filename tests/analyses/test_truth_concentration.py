"""The statistics of a truth's starts, on few samples of light and heavy worlds."""

import numpy as np

from analyses.truths import truth_cut
from analyses.truths.truth_concentration import judged, measure, student


def test_few_samples_give_every_world_a_row_and_gaussian_ones_no_flag():
    table = measure(small=True)
    gaussian = table[table["world"].str.contains("Gaussian|unstable")]
    assert len(gaussian) == 8 and (gaussian["kind"] == "light").all()
    assert gaussian["share_flags"].max() <= 0.1  # 40 samples
    heavy = table[table["world"] == "LQ t3 around 1"]
    assert (heavy["pool"] > 0.5).all()
    assert "share: " in judged(table)


def test_starts_of_any_tail_have_unit_variance():
    for freedom in (np.inf, 9.0):
        drawn = student(20_000, 2, freedom, "here")
        assert np.allclose(np.cov(drawn.T), np.eye(2), atol=0.05)


def test_few_samples_of_cut_truths_are_not_carried_by_few_under_the_rule():
    table = truth_cut.measure(small=True).set_index(["world", "rule"])
    assert table.loc[("random growth", "one sample"), "carried_by_few"] > 0.9
    assert table.loc[("random growth", "halves"), "carried_by_few"] == 0.0
