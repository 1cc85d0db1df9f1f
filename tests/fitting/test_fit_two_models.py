"""`gradlab fit --two-model`: DDPPO's pair, made, gone on with, and used."""

import json

import pytest

from gradlab import cli

WORDS = ("--two-model", "--neighbours", "3", "--members", "2", "--epochs", "2", "--json")
NETWORKS = """
import torch
from gradlab.networks.mlp import Policy, QCritic
def policy():
    torch.manual_seed(0)
    return Policy(2, 1, ())
def critic():
    return QCritic(2, 1, (4,))
"""


def fit(model, data, *more):
    words = ("--output", str(model), "--data", str(data), "--hidden", "8")
    return cli.main(["fit", "double_integrator", *words, *WORDS, *more])


@pytest.mark.slow
def test_measure_and_jacobians_take_one_and_both_in_the_place_of_the_prior(tmp_path, data, capsys):
    networks = tmp_path / "networks.py"
    networks.write_text(NETWORKS)
    assert fit(tmp_path / "m.safetensors", data) == 0
    capsys.readouterr()
    first, second = (str(tmp_path / f"m{part}.safetensors") for part in ("", ".gradient"))
    shared = ("double_integrator", "--policy", f"{networks}:policy", "--no-report", "--json")
    shared = (*shared, "--horizon", "2", "--starts", "64")
    tables = {}
    one = ("--model", first)
    for name, models in (("prior", ()), ("one", one), ("two", (*one, "--gradient-model", second))):
        words = ("measure", *shared, "--critic", f"{networks}:critic", "--batch", "8", *models)
        assert cli.main([*words, "--output", str(tmp_path / f"{name}.h5")]) == 0
        tables[name] = json.loads(capsys.readouterr().out)["table"]
    for other in ("prior", "two"):
        pairs = zip(tables["one"], tables[other], strict=True)
        apart = {row["estimator"] for row, of_other in pairs if row != of_other}
        assert apart == {"model", "mixed", "model_all", "mixed_all"}
    assert cli.main(["measure", "path_tracking", *one, "--no-report"]) == 2
    assert "prior has state_dim 2, but the simulator has 6" in capsys.readouterr().err
    # What is compared with the simulator's Jacobians is the gradient model's, at its mean.
    found = []
    for states in (first, second):
        models = ("--model", states, "--gradient-model", second, "--data", str(data))
        place = ("--output", str(tmp_path / f"j{len(found)}.h5"))
        assert cli.main(["jacobians", *shared, *models, *place]) == 0
        table = json.loads(capsys.readouterr().out)["table"]
        found.append([row for row in table if row["section"] == "entry"])
    assert found[0] and found[0] == found[1]
