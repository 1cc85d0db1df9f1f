"""The frozen measurements can be made again."""

import json

import pytest

from analyses.measurements import first_measurements
from gradlab.fitting import critics, policies

ONE = {"double-integrator": "double_integrator"}  # quick beside the two that are frozen


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [ONE, first_measurements.TASKS], ids=len)
def test_a_small_run_leaves_report_numbers_and_provenance(tmp_path, monkeypatch, tasks):
    monkeypatch.setattr(first_measurements, "TASKS", tasks)
    monkeypatch.setattr(policies, "UPDATES", 50)
    monkeypatch.setattr(critics, "UPDATES", 20)
    monkeypatch.setattr(critics, "TRAJECTORIES", 64)
    first_measurements.main(small=True, output=tmp_path, tasks=tuple(tasks))
    for folder in tasks:
        made = json.loads((tmp_path / folder / "made.json").read_text())
        assert made["command"].startswith("gradlab measure")
        assert made["law"] == "visited" and made["truth"]["kind"] == "objective"
        assert made["verdict"]
        assert "</html>" in (tmp_path / folder / "report.html").read_text()
        assert (tmp_path / folder / "numbers.csv").read_text().startswith("estimator,horizon")
        assert made["networks"] is None
    again(tmp_path, tasks)


def again(output, tasks):
    """The same networks measured again, which keeps what fitted them."""
    files = {file: file.read_bytes() for file in output.glob("*/*.safetensors")}
    first_measurements.main(small=True, kept=True, output=output, tasks=tuple(tasks))
    assert files == {file: file.read_bytes() for file in output.glob("*/*.safetensors")}
    for folder in tasks:
        made = json.loads((output / folder / "made.json").read_text())
        assert "--policy" in made["command"] and "--policy" not in made["networks"]["command"]
