"""Every row of the table trains on the analytic pendulum, with gradients that are finite."""

import json
from dataclasses import replace

import numpy as np
import pytest

import gradlab
from gradlab.cli import main
from gradlab.storage.journal import read
from gradlab.training import ALGORITHMS
from gradlab.training.loop import describe, train
from gradlab.training.models.branches import Branching
from gradlab.training.settings import Settings
from tests.training.small_runs import SMALL, row, task


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_trains_on_the_pendulum(tmp_path, name):
    options = SMALL | {"iterations": 4, "log_every": 4, "evaluate_every": 4, "gradient_every": 0}
    pendulum = gradlab.tasks.inverted_pendulum(engine="analytic")
    updates = read(train(row(name), pendulum, tmp_path / "run.h5", **options)).groups["updates"]
    assert (updates["policy_norm"].values > 0).all()
    for column in ("policy_norm", "policy_loss", "critic_norm"):
        assert np.isfinite(updates[column].values).all(), column
    assert (updates["nonfinite"].values == 0).all()


def test_every_row_is_described_in_all_its_parts_and_none_as_another():
    described = {name: algorithm.described for name, algorithm in ALGORITHMS.items()}
    for name, parts in described.items():
        assert list(parts) == ["policy", "gradient", "target", "model", "data", "source"]
        assert all(parts.values()), name
    made_of = [tuple(list(parts.values())[:-1]) for parts in described.values()]
    assert len(set(made_of)) == len(made_of)
    assert described["maac-five-batch"]["data"].endswith("batches of 1280")
    assert described["ddppo"]["target"] == "clipped double soft Q, α automatic"
    assert described["rp-dr"]["target"] == "clipped double soft Q, no entropy"
    assert described["ddppo-double-parameters"]["model"] == "learned model: nll, hidden 96, 96"


def test_the_list_fits_into_eighty_columns(capsys):
    assert main(["list", "algorithms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for name, algorithm in ALGORITHMS.items():
        assert f" {name} {algorithm.paper} " in text
    assert main(["list", "algorithms", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["algorithms"]
    assert listed == {name: algorithm.described for name, algorithm in ALGORITHMS.items()}


def test_where_a_row_is_from_changes_nothing_that_it_computes():
    elsewhere = replace(row("td3"), paper="elsewhere")
    assert elsewhere == row("td3")
    assert "paper" not in describe(elsewhere, task(), Settings())["algorithm"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rp-dp", "rp-dp-sn", "rp-dr", "ddppo"])
def test_rows_that_roll_a_learned_model_out_learn(tmp_path, name):
    small = row(name)
    model = replace(small.model, hidden=(32,), first_steps=500, every=100, steps=100, batch=64)
    quick = replace(
        small, hidden=(32, 32), batch=64, policy_rate=(1e-3, 1e-4), value_rate=(3e-3, 3e-4),
        tau=0.02, model=model,
    )  # fmt: skip
    if small.source.branching is not None:
        branching = Branching(every=100, rollouts=500, first=1, last=2, end=600)
        quick = replace(quick, source=replace(small.source, branching=branching))
    options = SMALL | {"iterations": 600, "evaluate_every": 600, "agents": 8}
    path = train(quick, replace(task(), prior=None), tmp_path / "run.h5", **options, seeds=3)
    returns = read(path).groups["evaluations"]["return_mean"].values
    assert (returns[-1] > returns[0] / 2).all(), returns  # from about -110 to -10, DDPPO to -20
