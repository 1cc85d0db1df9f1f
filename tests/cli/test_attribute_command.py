"""`gradlab attribute`, now or later, gives the attribution of the measurement."""

import json
from dataclasses import replace

import pytest

import gradlab
from gradlab import cli
from gradlab.measurement.attribution import attributed_again
from gradlab.truth.lqr import ExactCritic
from tests.runs.planted_attribution import GAMMA, WEIGHT, A, policy, task

OWN = """
import torch
from gradlab.networks.mlp import QCritic
from gradlab.measurement.attribution import attributed_again
def policy():
    network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(network.weight, -0.3)
    return network
def critic():
    torch.manual_seed(0)
    return QCritic(1, 1, (4,))
def model():
    from gradlab.systems import from_function
    return from_function(lambda s, a: (0.7 * s + 0.4 * a, -(s * s + a * a)[:, 0]), 1, 1)
"""
LQR = ["linear_quadratic", "--set", "A=[[0.9]]", "B=[[0.5]]", "prior=[[[0.8]],[[0.6]]]"]


@pytest.mark.slow
@pytest.mark.parametrize("law", ["start", "visited"])
def test_the_command_line_attributes_kept_and_forgotten_runs_alike(law, tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(OWN)
    words = [*LQR, "--policy", f"{own}:policy", "--critic", f"{own}:critic", "--horizon", "3"]
    words += ["--model", f"{own}:model"] if law == "start" else []
    words += ["--starts", "24", "--law", law, "--truth", "matched", "--no-report", "--output"]
    kept, forgotten = (str(tmp_path / name) for name in ("kept.h5", "forgotten.h5"))
    assert cli.main(["measure", *words, kept, "--attribute"]) == 0
    assert cli.main(["measure", *words, forgotten]) == 0
    capsys.readouterr()
    found = []
    for run in (kept, forgotten):
        assert cli.main(["attribute", run, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [each["made_again"] for each in found] == [False, True]
    assert found[0]["ledger"] == found[1]["ledger"] and found[0]["verdict"]
    assert cli.main(["attribute", forgotten, "--keep", "--explain"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(("Fix", "Nothing to fix"))
    assert "computed again" in " ".join(out.split()) and "Shapley" in out and "∂f/∂a" in out
    assert gradlab.load(forgotten).attribution is not None
    own.write_text(OWN.replace("-0.3", "-0.4"))
    gradlab.load(kept)
    replace(gradlab.load(kept), attribution=None).save(kept, overwrite=True)
    assert cli.main(["attribute", kept]) == 2
    assert "measured another policy" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_against_the_gradient_of_the_return_is_attributed_again_alike():
    quadratic, first = task((A, [[0.4, 0.1], [0.2, 0.4]])), {"horizon": 1, "starts": 8}
    critic = ExactCritic(quadratic.simulator, WEIGHT, GAMMA)
    kept = gradlab.measure(quadratic, policy(), critic, attribute=(1,), **first)
    again = attributed_again(
        gradlab.measure(quadratic, policy(), critic, **first), quadratic, policy(), critic
    )
    assert kept.truth["kind"] == "objective"
    pairs = zip(gradlab.attribute(kept).bias, gradlab.attribute(again).bias, strict=True)
    for one, other in pairs:
        assert one.total.value == other.total.value
        assert [part.value for part in one.shapley] == [part.value for part in other.shapley]
