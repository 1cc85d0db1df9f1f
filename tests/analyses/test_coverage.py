"""The coverage analysis runs, and tells a wrong interval from a right one."""

import pandas as pd

from analyses import coverage


def test_a_small_run_leaves_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "CELLS", [(1.0, 1.0)])
    coverage.main(small=True, output=tmp_path)
    table = pd.read_csv(tmp_path / "coverage.csv")
    assert set(table["tails"]) == set(coverage.TAILS)
    assert "Criterion" in (tmp_path / "README.md").read_text()


def test_the_criterion_can_fail():
    rows = [
        {"quantity": q, "tails": t, "coverage": c}
        for q in coverage.JUDGED
        for t, c in (("gaussian", 0.95), ("t4.5", 0.9), ("lognormal", 0.9))
    ]
    table = pd.DataFrame(rows)
    assert coverage.verdict(table)["holds"]
    table.loc[0, "coverage"] = 0.85
    assert not coverage.verdict(table)["holds"]
