"""The tables of the model-based runs, where the returns are given."""

from types import SimpleNamespace

import numpy as np

from analyses.model_based import report as model_based_report
from analyses.model_based.runs import Arm


def run_of(last, explained=None):
    returns = np.array([[-10.0] * 5, last])
    shares = np.array([[[0.9, share] for share in explained or ()]])
    return SimpleNamespace(
        returns=returns, model={} if explained is None else {"prediction_explained": shares}
    )


def test_runs_are_listed_best_first_with_the_reward_that_their_models_explain():
    runs = {
        Arm("sac", "cart-pole"): run_of([-5, -4, -3, -2, -1]),
        Arm("mbpo", "cart-pole", model="mse"): run_of([-1.0] * 5, [0.1, 0.2, -0.3, 0.4, 0.5]),
        Arm("maac", "pendulum"): run_of([0.0] * 5, [1.0] * 5),
    }
    lines = model_based_report.listed(runs, "cart-pole").splitlines()[2:]
    assert lines == [
        "| `mbpo`, model by squared error | −1.0 [−1.0, −1.0] | −5.5 [−5.5, −5.5] | 0.20 |",
        "| `sac` | −3.0 [−5.0, −1.0] | −6.5 [−7.5, −5.5] | no model |",
    ]


def test_large_returns_have_three_digits():
    runs = {Arm("mage", "pendulum"): run_of([-1424.0] * 5, [1.0] * 5)}
    assert "−1,420 [−1,420, −1,420] | −717 [−717, −717]" in model_based_report.listed(
        runs, "pendulum"
    )
