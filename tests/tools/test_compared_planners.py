"""Plans in a model, against closed forms, differences, loops written out, and planted faults."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.systems import from_function
from gradlab.tools.planning.compute import SEARCHES, Imagination, compare_planners, slopes
from tests.tasks.test_world_models import World, made

GAMMA, A, B = 0.9, 0.95, 0.4
STEPS = 6


def line(state, action):
    """s' = A s + B a, paid −s² − .1 a² a step."""
    after = A * state + B * action
    return after, -(state[:, 0] ** 2) - 0.1 * action[:, 0] ** 2


def turned(state, action):
    """A model that has the sign of the action wrong."""
    after, reward = line(state, -action)
    return after, reward


def task(model=line, **changes):
    made = gradlab.Task(
        "line", from_function(line, 1, 1), from_function(model, 1, 1),
        lambda n, generator: 2 + torch.rand(n, 1, generator=generator, dtype=torch.float64),
        GAMMA, STEPS, exploration=(0.2,),
    )  # fmt: skip
    return replace(made, **changes)


def optimal(start, horizon):
    """The best return of `horizon` actions: the least squares of their quadratic."""
    powers = A ** np.arange(horizon)
    reach = np.array([[B * A ** (t - 1 - k) if k < t else 0.0 for k in range(horizon)]
                      for t in range(horizon)])  # fmt: skip
    weight = np.diag(GAMMA ** np.arange(horizon))
    free = powers * start
    H = reach.T @ weight @ reach + 0.1 * weight
    actions = -np.linalg.solve(H, reach.T @ weight @ free)
    states = free + reach @ actions
    return float(-(states @ weight @ states) - 0.1 * actions @ weight @ actions)


def row(found, planner, horizon=STEPS):
    table = found.table()
    return table[(table.planner == planner) & (table.horizon == horizon)].iloc[0]


@pytest.mark.parametrize("name", ["gradient", "cem", "mppi"])
def test_plans_in_the_true_model_gain_what_the_best_actions_gain(name):
    """Closed form; what the model promises is what the simulator pays, to the last digits."""
    own = task()
    found = compare_planners(own, horizons=(STEPS,), planners=(name,), rollouts=4096)
    got = row(found, name)
    np.testing.assert_allclose(got.promised, got.gain, rtol=1e-9)
    best = np.mean([optimal(s, STEPS) for s in starts_of(own, 32)])
    plain = row(found, "none", 0)["return"]
    assert got["return"] <= best + 1e-9
    assert got.gain > {"gradient": 0.99, "cem": 0.95, "mppi": 0.9}[name] * (best - plain)
    assert got.share_above == 1.0 and found.screen().light == "act"


def starts_of(own, n, seed=0):
    return own.starts(n, stream(seed, "plan"))[:, 0].tolist()


def test_a_model_of_the_wrong_sign_is_advised_against():
    found = compare_planners(task(turned), horizons=(2, STEPS))
    assert found.best is None
    assert found.recommendation.startswith("Do not plan with this model: every planner lowers")
    assert (found.planned.promised > 0).all() and (found.planned.ci_high < 0).all()
    along = found.frame[found.frame.planner == "gradient step"]
    assert (along.promised > 0).all() and (along.ci_high < 0).all()
    assert any("lowers it at 2, 6" in each.text for each in found.screen().rest)


def test_the_slope_of_a_score_is_that_of_differences():
    torch.manual_seed(0)
    policy, critic = nn.Linear(1, 1).double(), nn.Bilinear(1, 1, 1).double()
    noise = torch.randn(3, 4, 2, 1).double()

    def noisy(state, action, noise):
        return torch.sin(state) + action + 0.1 * noise, torch.cos(state + action)[:, 0]

    unit = torch.ones(1).double()
    imagined = Imagination(from_function(noisy, 1, 1, 1), policy, critic, GAMMA, unit, None, noise)
    states, plans = torch.randn(4, 1).double(), torch.randn(4, 2, 3, 1).double()
    _, slope = slopes(imagined, states, plans)
    for k in range(3):
        by = torch.zeros_like(plans)
        by[:, :, k] = 1e-5
        with torch.no_grad():
            above, below = (imagined.scores(states, plans + sign * by) for sign in (1, -1))
        torch.testing.assert_close(slope[:, :, k, 0], (above - below) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", list(SEARCHES))
def test_no_planner_takes_more_roll_outs_than_the_others(name):
    """Rows that the model steps, and three for each that is differentiated."""
    rows = 0.0

    def counted(state, action):
        nonlocal rows
        rows += len(state) * (3.0 if action.requires_grad else 1.0)
        return line(state, action)

    model = from_function(counted, 1, 1)
    like, begin = torch.ones(1).double(), torch.ones(5, 1).double()
    imagined = Imagination(model, None, None, GAMMA, like, None, torch.zeros(4, 5, 1, 0))
    first = torch.zeros(5, 4, 1).double()
    rows = 0.0
    SEARCHES[name](imagined, begin, first, 480, torch.Generator().manual_seed(0))
    assert 0.95 * 480 <= rows / (5 * 4) <= 1.01 * 480


def test_a_plan_is_made_again_where_its_first_actions_led():
    """One step of two is executed: the loop written out, with the best actions of each plan."""
    own = task()
    found = compare_planners(
        own, horizons=(2,), planners=("gradient",), rollouts=8192, steps=4, replan=1, length=4
    )
    totals = []
    for state in starts_of(own, 32):
        total = 0.0
        for t in range(4):  # the second of two actions pays nothing back: it is 0
            action = -GAMMA * A * B * state / (0.1 + GAMMA * B**2)
            total += GAMMA**t * (-(state**2) - 0.1 * action**2)
            state = A * state + B * action
        totals.append(total)
    np.testing.assert_allclose(row(found, "gradient", 2)["return"], np.mean(totals), rtol=2e-3)


def test_actions_stay_within_their_limits():
    reached: list[float] = []

    def seen(state, action):
        if not action.requires_grad:
            reached.append(float(action.abs().max()))
        return line(state, action)

    limited = task(action_limit=(0.3,), simulator=from_function(seen, 1, 1))
    found = compare_planners(limited, horizons=(3,), starts=4)
    assert max(reached) <= 0.3 and set(found.planned.planner) == set(SEARCHES)


def test_what_comes_after_an_end_is_not_paid():
    """A step ends the episode where s > 2.5; a plan that survives has all rewards."""

    def paid(state, action):
        return state + action, torch.ones_like(state[:, 0])

    ending = from_function(paid, 1, 1, alive=lambda state: state[:, 0] < 2.5)
    own = task(simulator=ending, prior=ending)
    found = compare_planners(own, horizons=(4,), planners=("cem",), rollouts=2048)
    begin = np.array(starts_of(own, 32))
    whole, one = sum(GAMMA**t for t in range(4)), 1.0
    plain = np.where(begin < 2.5, whole, one)
    np.testing.assert_allclose(row(found, "none", 0)["return"], plain.mean())
    np.testing.assert_allclose(row(found, "cem", 4)["return"], whole, rtol=1e-9)


def test_a_world_model_is_planned_in_its_latents():
    _, wide, policy, critic, _ = made(World)
    found = compare_planners(wide, policy, critic, horizons=(2,), rollouts=48, starts=4, length=4)
    assert found.planned.gain.notna().all() and len(found.planned) == len(SEARCHES) - 1


def test_a_model_that_is_not_differentiable_is_planned_in_by_samples():
    model = from_function(line, 1, 1)

    class Rough:
        state_dim, action_dim, noise_dim, differentiable = 1, 1, 0, False

        def __getattr__(self, name):
            return getattr(model, name)

        def step(self, state, action, noise=None):
            with torch.no_grad():
                return model.step(state, action, noise)

    found = compare_planners(task(), model=Rough(), horizons=(2,), starts=8)
    assert set(found.planned.planner) == {"cem", "mppi"} and "gradients" in found.notes
    with pytest.raises(InputError, match=r"^planners is .* none can be run"):
        compare_planners(task(), model=Rough(), planners=("gradient",))


class _Memory(nn.Module):
    def forward(self, seen, memory):
        return seen + memory, memory


@pytest.mark.parametrize(("given", "words"), [
    ({"horizons": ()}, r"horizons is \(\)"),
    ({"horizons": (0,)}, "horizons is 0"),
    ({"planners": ("icem",)}, "planners is 'icem'"),
    ({"planners": "cem"}, "planners is 'cem', expected a tuple"),
    ({"rollouts": 3}, "rollouts is 3"),
    ({"starts": 1}, "starts is 1"),
    ({"steps": 0}, "steps is 0"),
    ({"replan": 9}, "replan is 9, expected at most the shortest plan, 1"),
    ({"length": 2}, "length is 2"),
    ({"model": "m"}, "model"),
])  # fmt: skip
def test_what_cannot_be_planned_is_said(given, words):
    with pytest.raises(InputError, match=f"^{words}"):
        compare_planners(task(), **given)


def test_a_policy_with_memory_or_no_model_is_refused():
    remembering = gradlab.tasks.with_memory(task(), _Memory().double(), 1)
    with pytest.raises(InputError, match=r"^policy has a memory"):
        compare_planners(remembering.task, remembering.policy)
    with pytest.raises(InputError, match=r"^model is None, and line has no prior"):
        compare_planners(task(prior=None))


def test_the_command_prints_what_the_function_finds(tmp_path, capsys):
    from gradlab.cli.program import main

    given = ["plan", "path_tracking", "--no-policy", "--horizons", "2", "--starts", "8"]
    assert main([*given, "--rollouts", "48", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    own = gradlab.tasks.path_tracking()
    found = compare_planners(own, horizons=(2,), starts=8, rollouts=48)
    assert document["recommendation"] == found.recommendation
    assert [each["gain"] for each in document["table"]] == found.frame.gain.tolist()
    assert main(["plan", "pendulum", "--no-policy"]) == 2
    assert "no prior" in capsys.readouterr().err
