"""Scripts of `examples/` that are tried on systems with a closed form."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import gradlab
from gradlab.systems import from_function

A, B, GAMMA = 0.95, 0.4, 0.9


@pytest.fixture(scope="module")
def planning():
    place = Path(__file__).parents[2] / "examples" / "planning_in_a_model.py"
    spec = importlib.util.spec_from_file_location("planning_in_a_model", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def optimal(start, horizon):
    """The best return of `horizon` actions of s' = A s + B a, paid −s² − .1 a² a step: the least
    squares of their quadratic."""
    powers = A ** np.arange(horizon)
    reach = np.array([[B * A ** (t - 1 - k) if k < t else 0.0 for k in range(horizon)]
                      for t in range(horizon)])  # fmt: skip
    weight = np.diag(GAMMA ** np.arange(horizon))
    H = reach.T @ weight @ reach + 0.1 * weight
    actions = -np.linalg.solve(H, reach.T @ weight @ (powers * start))
    states = powers * start + reach @ actions
    return float(-(states @ weight @ states) - 0.1 * actions @ weight @ actions)


@pytest.mark.parametrize(
    ("name", "rollouts", "close"), [("gradient", 900, 0.01), ("cem", 4000, 0.05)]
)
def test_planners_of_the_example_find_the_best_plan_and_a_wrong_model_gains_nothing(
    planning, name, rollouts, close
):
    def line(state, action):
        return A * state + B * action, -(state[:, 0] ** 2) - 0.1 * action[:, 0] ** 2

    def task(model):
        return gradlab.Task(
            "line", from_function(line, 1, 1), from_function(model, 1, 1),
            lambda n, generator: 2 + torch.rand(n, 1, generator=generator, dtype=torch.float64),
            GAMMA, 6, exploration=(0.2,),
        )  # fmt: skip

    policy, critic = torch.zeros_like, lambda state, action: torch.zeros(len(state))
    right, start = task(line), torch.full((4, 1), 2.5, dtype=torch.float64)
    score = planning.partial(planning.scores, right, policy, critic, start)
    within = planning.partial(planning.within, right)
    first = torch.zeros(4, 6, 1, dtype=torch.float64)
    spread = torch.ones(1, dtype=torch.float64)
    plan = planning.PLANNERS[name](score, within, first, spread, rollouts)
    np.testing.assert_allclose(score(plan[:, None])[:, 0].numpy(), optimal(2.5, 6), rtol=close)
    turned = task(lambda state, action: line(state, -action))
    for own, low, high in ((right, 0.1, np.inf), (turned, -np.inf, -0.1)):
        found = list(planning.compared(own, policy, critic, (3,), starts=8, rollouts=400))
        (gain,) = (row[2] for row in found if row[0] == name)
        (promised,) = (row[4] for row in found if row[0] == name)
        assert low < gain < high and promised > 0.1
