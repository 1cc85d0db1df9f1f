"""BIAS-LIN, run small: what is injected is what is meant, and other laws are rejected."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.bounds import bias_lin, wrong_models
from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts

pytestmark = pytest.mark.slow  # what a finished study computes anew


@pytest.fixture(scope="module")
def small():
    return bias_lin.measure(small=True)


@pytest.mark.parametrize("source", wrong_models.SOURCES)
def test_a_direction_has_size_one_and_touches_one_source_alone(source):
    system = bias_lin.pendulum_case().simulator
    unit = wrong_models.direction(system, source, 3)
    sizes = {
        "jacobian": torch.linalg.matrix_norm(unit.A, 2) + torch.linalg.matrix_norm(unit.B, 2),
        "prediction": unit.offset.norm(),
        "reward gradient": unit.r_s.norm() + unit.r_a.norm(),
    }
    for name, size in sizes.items():
        assert float(size) == pytest.approx(1.0 if name == source else 0.0, abs=1e-12)


def test_the_wrong_systems_gradient_is_autograds_of_the_same_wrong_return():
    """An offset changes a differentiable return; autograd through it is another road."""
    case = bias_lin.linear_case()
    model = wrong_models.scaled(wrong_models.direction(case.simulator, "prediction", 1), 0.3)
    weight = next(case.policy.parameters()).detach().clone().requires_grad_()
    state, total = case.starts, torch.zeros(())
    for t in range(6):
        out = case.simulator.step(state, state @ weight.T)
        total = total + case.discount**t * out.reward.mean()
        state = out.state + model.offset
    (expected,) = torch.autograd.grad(total, weight)
    torch.testing.assert_close(case.gradient(model, model, 6), expected.flatten())


def test_each_source_acts_linearly_and_the_bound_holds(small):
    slopes = bias_lin.fitted(small.table[small.table["horizon"] == 10])["slope"]
    assert slopes.between(0.9, 1.1).all()
    assert small.numbers["violations"] == 0
    assert small.numbers["bounded"] == 18
    assert small.numbers["control_slope_low"] == pytest.approx(2.0, abs=0.01)
    assert small.numbers["control_first_action"] < 1e-15


def test_a_tenfold_jacobian_error_counts_fully_where_predictions_are_right(small):
    assert small.numbers["tenfold_min_linear_0"] > 9
    assert small.numbers["tenfold_min_linear_0.001"] < small.numbers["tenfold_min_linear_0"]


def test_another_slope_a_violated_bound_and_a_small_ratio_are_rejected(small):
    tenfold = pd.DataFrame(
        {"case": "linear", "direction": 0, "epsilon_f": [bias_lin.FIXED], "ratio": [9.0]}
    )
    control = small.table[small.table["source"] == "prediction"]
    judge = bias_lin.judge
    assert judge(small.table, tenfold, control, 0.0).holds
    assert not judge(small.table, tenfold.assign(ratio=3.0), control, 0.0).holds
    square = small.table.assign(bias=small.table["bias"] * small.table["epsilon"])
    assert not judge(square, tenfold, control, 0.0).holds
    above = small.table.assign(bias=small.table["bias"] * 1e5)
    assert judge(above, tenfold, control, 0.0).numbers["violations"] == 18


def test_the_verdict_is_saved(small, tmp_path):
    verdicts.save(small, tmp_path, "python -m analyses.bounds.bias_lin")
    made = read_verdicts(tmp_path)["bias-lin"]
    assert np.isfinite(list(made["numbers"].values())).all()
