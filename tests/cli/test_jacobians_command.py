"""`gradlab jacobians`: a run, its page, and wrong usage."""

import json

import pytest
import torch

from gradlab import cli
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.tools.jacobians.page import verdict
from gradlab.tools.jacobians.result import load
from tests.own_files import LQR, OWN

MODELS = """
from gradlab.systems.closed_form import LinearQuadratic
def wrong():
    eye = torch.eye(1, dtype=torch.float64)
    return LinearQuadratic(0.8 * eye, 0.5 * eye, eye, eye, 0.01 * eye)
def wide():
    eye = torch.eye(2, dtype=torch.float64)
    return LinearQuadratic(0.8 * eye, 0.5 * eye, eye, eye, 0.01 * eye)
def nothing():
    return 3
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN + MODELS)
    return path


@pytest.mark.slow
def test_the_command_compares_a_model_and_rebuilds_its_page(own, tmp_path, capsys):
    run = tmp_path / "run.h5"
    sizes = ["--starts", "16", "--horizon", "6", "--output", str(run)]
    given = ["--model", f"{own}:wrong", "--policy", f"{own}:policy"]
    assert cli.main(["jacobians", *LQR, *given, *sizes, "--json", "--no-report"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = load(run)
    assert found.rows("block", quantity="relative error", block="A")["value"].iloc[
        0
    ] == pytest.approx(1 / 9)
    assert document["verdict"][0]["text"] == verdict(found)[0].text
    assert len(document["table"]) == len(found.table())
    assert not (tmp_path / "run.html").exists()
    assert cli.main(["report", str(run), "--explain"]) == 0
    assert (tmp_path / "run.html").exists()
    assert "∂s'/∂s 11%;" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["jacobians", *LQR, *given, *sizes]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "{own}:wide"], "model has state_dim"),
        (["--model", "{own}:nothing"], "expected a System"),
        (["--model", "absent.safetensors"], "absent.safetensors"),
        (["--data", "absent.h5"], "absent.h5"),
        (["--starts", "2"], "starts is 2"),
        (["--horizon", "0"], "horizon is 0"),
        (["--output", "run.html"], ".h5"),
    ],
)
def test_wrong_usage_is_one_line(own, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    words = [each.format(own=own) for each in words]
    assert cli.main(["jacobians", *LQR, "--policy", f"{own}:policy", *words]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("gradlab: error: ")
    assert message in err


@pytest.mark.slow
def test_a_measurement_of_the_same_policy_is_compared(tmp_path, own, capsys):
    eye = torch.eye(1, dtype=torch.float64)
    lqr = LinearQuadratic(1.5 * eye, eye, eye, eye, 0.01 * eye)
    assert lqr.state_dim == 1
    run = tmp_path / "run.h5"
    critic = tmp_path / "critic.py"
    critic.write_text(
        "import torch\nclass C(torch.nn.Module):\n    def forward(self, s, a):\n"
        "        return -(s[:, 0] ** 2) - a[:, 0] ** 2\ndef critic():\n    return C()\n"
    )
    given = ["--policy", f"{own}:policy"]
    measure = ["--critic", f"{critic}:critic", "--horizon", "6", "--starts", "32", "--no-report"]
    assert cli.main(["measure", *LQR, *given, *measure, "--output", str(run)]) == 0
    compare = ["--profile", str(run), "--starts", "8", "--no-report", "--explain"]
    out = tmp_path / "jacobians.h5"
    assert cli.main(["jacobians", *LQR, *given, *compare, "--output", str(out)]) == 0
    assert not load(out).rows("horizon", quantity="measured doubling of the variance").empty
    assert "; model measured doubles in " in " ".join(capsys.readouterr().out.split())
