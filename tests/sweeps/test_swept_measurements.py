"""A sweep of real measurements: the numbers of the plain command, one page, one comparison."""

import json
from pathlib import Path

import numpy as np
import pytest

from gradlab import cli
from gradlab.storage import records
from gradlab.tools.sweep import table as index

OWN = """
import torch
class Linear(torch.nn.Linear):
    def __init__(self, k):
        super().__init__(1, 1, bias=False, dtype=torch.float64)
        torch.nn.init.constant_(self.weight, k)
class Critic(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
    def forward(self, s, a):
        return -self.scale * (2 * s[:, 0] ** 2 + 1.5 * a[:, 0] ** 2 + 0.8 * s[:, 0] * a[:, 0])
policy, other = lambda: Linear(-0.3), lambda: Linear(-0.4)
good, bad = lambda: Critic(1.0), lambda: Critic(3.0)
"""
TABLE = """
command = "measure"
[settings]
task = "linear_quadratic"
policy = "own.py:policy"
horizon = 2
starts = 64
truth = "matched"
no-report = true
[settings.set]
A = [[0.9]]
B = [[0.5]]
Q = [[1]]
R = [[1]]
noise_covariance = [[0.01]]
start_mean = [0]
start_covariance = [[1]]
discount = 0.9
[[run]]
name = "good"
critic = "own.py:good"
[[run]]
name = "bad"
critic = "own.py:bad"
[[run]]
name = "other"
policy = "own.py:other"
critic = "own.py:good"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    (folder / "own.py").write_text(OWN)
    (folder / "table.toml").write_text(TABLE)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert cli.main(["sweep", "table.toml", "--workers", "1", "--output", "out"]) == 0
    return folder


@pytest.mark.slow
def test_a_run_of_a_sweep_has_the_numbers_of_the_plain_command(folder, monkeypatch):
    monkeypatch.chdir(folder)
    row = index.load(Path("out")).rows[1]
    assert cli.main([*row.words, "--output", "plain.h5"]) == 0
    plain, swept = (records.read(path) for path in ("plain.h5", "out/bad.h5"))
    assert plain.groups.keys() == swept.groups.keys()
    for group, arrays in plain.groups.items():
        for name, array in arrays.items():
            if array.values.dtype.kind == "f":
                other = swept.groups[group][name].values
                assert np.array_equal(array.values, other, equal_nan=True), (group, name)


@pytest.mark.slow
def test_a_log_and_a_sentence_stand_for_each_run(folder):
    for row in index.load(folder / "out").rows:
        assert row.state == "done" and row.sentence.endswith(".")
        log = (folder / f"out/{row.name}.log").read_text()
        assert "estimators: ended" in log


def test_measurements_of_a_folder_are_each_compared_with_the_first(folder, capsys):
    page = folder / "compared.html"
    assert cli.main(["compare", str(folder / "out"), "--output", str(page), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["run"] for row in document["table"]} == {"bad"}
    assert document["recommendation"].startswith("Prefer good: bad raises")
    text = page.read_text()
    assert "Not compared" in text and "other: " in text
