"""The analysis of logs goes on where it stopped, and tells right models from wrong ones."""

from pathlib import Path

import pandas as pd
import pytest

from analyses.measurements import logs_against_truth as analysis


def test_records_are_judged_once_and_summed_up(tmp_path: Path) -> None:
    kept = tmp_path / "records.csv"
    first = analysis.recorded(1, kept)
    found = analysis.recorded(2, kept)
    pd.testing.assert_frame_equal(found.iloc[: len(first)], first, check_dtype=False, rtol=1e-6)
    assert len(found) == 2 * len(first)
    assert analysis.recorded(2, kept).equals(pd.read_csv(kept))
    table = analysis.coverage(found, 400).set_index(["model", "horizon"])
    assert (table.loc["exact"]["disagree"] == 0).all()
    assert table.loc["push 0.4", 7]["disagree"] == 1.0
    # A weaker push turns up in the second step, where the first push has moved anything at all.
    assert table.loc["push 0.4", 1]["true_gap"] == pytest.approx(0, abs=1e-12)
    assert table.loc["push 0.4", 6]["true_gap"] > table.loc["push 0.8", 6]["true_gap"] > 0.1
    assert "Double integrator" in analysis.page(table.reset_index(), pd.DataFrame({"case": []}))


@pytest.mark.slow
def test_a_small_run_writes_its_page(tmp_path: Path) -> None:
    analysis.main(small=True, output=tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {
        "records.csv", "coverage.csv", "simulators.csv", "README.md",
    }  # fmt: skip
