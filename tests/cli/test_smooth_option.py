"""`gradlab measure --smooth`: errors against a smoothed return beside those of the run."""

import json
from pathlib import Path

import pytest

from gradlab import cli
from tests.cli.test_cli import LQR, OWN


def test_measure_names_errors_against_a_smoothed_return(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    networks = ["--policy", f"{tmp_path}/own.py:policy", "--critic", f"{tmp_path}/own.py:critic"]
    words = ["measure", *LQR, *networks, "--starts", "32", "--horizon", "2", "--no-report"]
    words += ["--output", str(tmp_path / "run.h5"), "--json", "--smooth"]
    assert cli.main([*words, "0.05", "--also", "cut_observation"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "against the return smoothed by 0.05 in all actions" in document["verdict"][-1]["text"]
    assert "true_dynamics_cut_observation" in document["verdict"][-1]["text"]
    assert {row["reference"] for row in document["smoothed"]} >= {"true"}
    assert cli.main([*words, "-1", "--overwrite"]) == 2
    assert "sigma is -1.0, expected positive" in capsys.readouterr().err
