"""The frozen measurements can be made again."""

import json

from analyses import first_measurements
from gradlab.fitting import critics, policies


def test_a_small_run_leaves_report_numbers_and_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(policies, "UPDATES", 50)
    monkeypatch.setattr(critics, "UPDATES", 20)
    first_measurements.main(small=True, output=tmp_path)
    for folder in first_measurements.TASKS:
        made = json.loads((tmp_path / folder / "made.json").read_text())
        assert made["command"].startswith("gradlab measure")
        assert made["law"] == "visited" and made["truth"]["kind"] == "objective"
        assert made["verdict"]
        assert "</html>" in (tmp_path / folder / "report.html").read_text()
        assert (tmp_path / folder / "numbers.csv").read_text().startswith("estimator,horizon")
