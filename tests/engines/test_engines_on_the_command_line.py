"""`gradlab certify`, `jacobians` and `train` of a user's file with an engine's step."""

import json
from pathlib import Path

import pytest

from gradlab.cli import main
from gradlab.storage.journal import read

pytest.importorskip("jax")
FILE = Path(__file__).parent / "own_file.py"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def answered(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_certify_takes_a_system_and_a_task(capsys):
    for name in ("body", "task"):
        certificate = answered(capsys, "certify", f"{FILE}:{name}", "--samples", "64")
        assert certificate["passed"]
        assert {row["source"] for row in certificate["table"]} == {"step", "linearize"}
        assert max(row["p95"] for row in certificate["table"] if row["p95"] is not None) < 1e-6


def test_jacobians_are_those_in_torch(capsys):
    words = ("--model", "prior", "--policy", f"{FILE}:policy", "--starts", "8", "--no-report")
    rows = answered(capsys, "jacobians", f"{FILE}:task", *words)["table"]
    errors = [row["value"] for row in rows if row["quantity"] == "relative error"]
    assert len(errors) and max(errors) < 1e-12


def test_training_is_that_in_torch(capsys):
    words = ("--iterations", "2", "--precision", "float64", "--no-report")
    returns = []
    for name in ("task_in_jax", "task_in_torch"):
        answered(capsys, "train", "mpg-v2", f"{FILE}:{name}", *words, "--output", f"{name}.h5")
        returns.append(read(Path(f"{name}.h5")).groups["evaluations"]["return_mean"].values.ravel())
    ours, theirs = returns
    assert ours[0] != ours[-1]
    assert ours == pytest.approx(theirs, rel=1e-9)
