"""`gradlab certify` of a user's file with an engine's step: a system and a task."""

import json
from pathlib import Path

import pytest

from gradlab.cli import main

pytest.importorskip("jax")

FILE = Path(__file__).parent / "own_file.py"


@pytest.mark.parametrize("name", ["body", "task"])
def test_certify_takes_a_system_and_a_task(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["certify", f"{FILE}:{name}", "--samples", "64", "--json"]) == 0
    certificate = json.loads(capsys.readouterr().out)
    assert certificate["passed"]
    assert {row["source"] for row in certificate["table"]} == {"step", "linearize"}
    assert max(row["p95"] for row in certificate["table"] if row["p95"] is not None) < 1e-6
