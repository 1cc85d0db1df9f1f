"""Tasks: their start laws, their checks, and how the command line finds them.

Draws of a start law. Trimmed starts: a law of their own, of known moments where the task's own is
Gaussian. Terminal sets that learned models take over, against Gymnasium's own answer at their
borders. Networks that come with the MuJoCo tasks. The quadrotor of `examples/`: its physics, its
pillar, and a prior that is wrong.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import gradlab
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.fitting.policies import riccati_gain
from gradlab.networks import checkpoint
from gradlab.networks.interface import act, noise_dim
from gradlab.runs.comparison import compared
from gradlab.systems import CartPoleModel, CartPoleSimulator, MujocoPendulum, from_function
from gradlab.systems.vehicle import PUBLISHED_CODE, TABLE3, VehicleModel, VehicleSimulator
from gradlab.tasks import (
    TASKS,
    Task,
    double_integrator,
    inverted_pendulum,
    linear_quadratic,
    mujoco,
    path_tracking,
    pendulum,
    task_from_name,
    trimmed,
    view,
)
from gradlab.tasks.environments import TRAINED, trained_networks
from gradlab.verdicts.measurement.verdict import advice
from tests.integrations.bits import example
from tests.linear_quadratic import lqr_gradient, second_moment
from tests.measurement.linear import WEIGHT, networks, turning
from tests.systems.mujoco_states import SYSTEMS, visited


def draw(task: Task, n: int, seed: int = 0) -> Tensor:
    return task.starts(n, torch.Generator().manual_seed(seed))


every_task = pytest.mark.parametrize("name", TASKS)


@every_task
def test_starts_are_float64_and_depend_on_their_generator_alone(name):
    task = TASKS[name]()
    starts = draw(task, 5)
    assert starts.shape == (5, task.simulator.state_dim) and starts.dtype == torch.float64
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(draw(task, 5), starts)
    assert not torch.equal(draw(task, 5, seed=1), starts)
    assert torch.equal(torch.get_rng_state(), before)


@every_task
def test_parameters_rebuild_the_task(name):
    task = TASKS[name]()
    again = task_from_name(name, json.loads(json.dumps(task.parameters)))
    assert again.parameters == task.parameters
    state = draw(task, 4)
    action = torch.ones(4, task.simulator.action_dim, dtype=torch.float64)
    assert torch.equal(
        again.simulator.step(state, action).state, task.simulator.step(state, action).state
    )
    assert (again.prior is None) == (task.prior is None)
    if task.prior is not None and again.prior is not None:
        same = again.prior.step(state, action).state
        assert torch.equal(same, task.prior.step(state, action).state)


def test_parameters_hold_the_weights_that_were_given():
    given = {
        "forward_reward_weight": 2.0,
        "ctrl_cost_weight": 0.5,
        "healthy_reward": 0.25,
        "terminate_when_unhealthy": False,
    }
    assert task_from_name("Hopper-v5", given).parameters == given
    partly = task_from_name("Hopper-v5", {"healthy_reward": 0.25}).parameters
    assert partly == given | {
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 1e-3,
        "terminate_when_unhealthy": True,
    }


def test_path_tracking_starts_follow_the_papers_law():
    du, v, r, dy, dphi, x = draw(path_tracking(), 100_000).unbind(1)
    slip = (v / (du + 20)).atan()
    for value, std in ((slip, 0.15), (r, 0.3), (dy, 1.0), (dphi, math.pi / 9)):
        assert float(value.mean()) == pytest.approx(0, abs=0.02 * std)
        assert float(value.std()) == pytest.approx(std, rel=0.02)
    for value, low, high in ((du, -5, 5), (x, 0, 600)):
        assert low <= value.min() and value.max() <= high
        assert float(value.mean()) == pytest.approx((low + high) / 2, abs=0.01 * (high - low))
    correlation = torch.stack([du, slip, r, dy, dphi, x]).corrcoef() - torch.eye(6).double()
    assert correlation.abs().max() < 0.02


def test_pendulum_starts_are_uniform_around_upright():
    starts = draw(inverted_pendulum("analytic"), 100_000)
    assert starts.abs().max() <= 0.05
    torch.testing.assert_close(
        starts.std(0), torch.full((4,), 0.1 / 12**0.5).double(), rtol=0.02, atol=0
    )


def test_choices_reach_the_systems():
    assert path_tracking().simulator == VehicleSimulator(TABLE3)
    assert path_tracking("code").prior == VehicleModel(PUBLISHED_CODE)
    task = inverted_pendulum(slider="wide", reward="post_step")
    assert isinstance(task.simulator, MujocoPendulum)
    assert (task.simulator.slider, task.simulator.reward) == ("wide", "post_step")
    assert task.prior == CartPoleModel("post_step")
    assert isinstance(inverted_pendulum("analytic").simulator, CartPoleSimulator)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Ant-v5"])
def test_mujoco_starts_follow_the_environments_reset(env_id):
    task, environment = mujoco(env_id), gymnasium.make(env_id).unwrapped
    model, n = environment.model, 4000
    root = model.nq + model.nv - task.simulator.state_dim
    environment.reset(seed=0)
    rows = []
    for _ in range(n):
        environment.reset_model()
        rows.append(torch.tensor([*environment.data.qpos[root:], *environment.data.qvel]))
    want, got = torch.stack(rows), draw(task, n)
    spread = want.std(0)
    assert ((got.mean(0) - want.mean(0)).abs() < 5 * spread * (2 / n) ** 0.5).all()
    torch.testing.assert_close(got.std(0), spread, rtol=0.06, atol=0)
    # Uniform or normal: their extremes differ by far.
    top = (
        (got - want.mean(0)).abs().amax(0) / spread,
        (want - want.mean(0)).abs().amax(0) / spread,
    )
    assert ((top[0] > 2) == (top[1] > 2)).all()


def test_mujoco_weights_reach_the_reward():
    stock, heavy = mujoco("Hopper-v5"), mujoco("Hopper-v5", 2.0, 0.5, 3.0, False)
    state, action = draw(stock, 4), torch.full((4, 3), 0.5, dtype=torch.float64)
    state[1, 0] = 0.3  # fallen
    got, want = heavy.simulator.step(state, action), stock.simulator.step(state, action)
    healthy = want.alive.double()
    assert healthy.tolist() == [1, 0, 1, 1] and got.alive.all()
    forward = want.reward - healthy + 1e-3 * 0.75
    torch.testing.assert_close(got.reward, 2 * forward + 3 * healthy - 0.5 * 0.75)
    assert len(stock.state_names) == 11 and stock.action_names[0] == "thigh_joint control"
    assert stock.action_limit == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("name", ["Hopper-v4", "Pendulum-v1", "Reacher", "", None, 5])
def test_an_unknown_environment_is_answered_with_all_there_are(name):
    with pytest.raises(InputError, match=r"InvertedPendulum-v5, Hopper-v5, .*Humanoid-v5; other"):
        mujoco(name)
    with pytest.raises(InputError, match="'Swimmer-v5'"):
        view("Swimmer-v5")


def test_three_lines_make_a_task_of_ones_own():
    simulator = from_function(lambda s, a: (s + a, -(s[:, 0] ** 2)), state_dim=1, action_dim=1)
    starts = lambda n, generator: torch.randn(n, 1, generator=generator).double()  # noqa: E731
    task = Task("mine", simulator, None, starts, discount=0.9, horizon=5)
    assert task.prior is None and draw(task, 3).shape == (3, 1)
    for limit in (torch.ones(1), torch.ones(1).numpy()):  # as env.action_space.high
        assert replace(task, action_limit=limit).action_limit == (1.0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.0}, "discount is 1.0"),
        ({"discount": "much"}, "discount is 'much'"),
        ({"horizon": -1}, "horizon is -1"),
        ({"prior": VehicleModel()}, "prior has state_dim 6, but the simulator has 1"),
        ({"state_names": ("x", "y")}, "state_names has 2 entries, expected 1"),
        ({"action_limit": (1.0, 2.0)}, "action_limit has 2 entries"),
        ({"action_limit": torch.ones(2)}, "action_limit has 2 entries"),
        ({"action_limit": 1.0}, "action_limit is 1.0, expected a tuple of 1, or None"),
    ],
)
def test_a_task_checks_its_parts(change, message):
    simulator = from_function(lambda s, a: (s + a, -(s[:, 0] ** 2)), state_dim=1, action_dim=1)
    parts = {
        "name": "mine",
        "simulator": simulator,
        "prior": None,
        "starts": lambda n, generator: torch.zeros(n, 1),
        "discount": 0.9,
        "horizon": 5,
    }
    with pytest.raises(InputError, match=message):
        Task(**(parts | change))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("path_traking", {}, "no task is called 'path_traking': expected path_tracking"),
        ("nothing", {}, "expected Ant-v5, .* double_integrator, inverted_pendulum, linear"),
        ("path_tracking", {"parameter": "code"}, "'parameter': expected parameters"),
        ("path_tracking", {"parameters": "table4"}, "expected one of table3, code"),
        ("path_tracking", {"parameters": ["code"]}, "parameters is"),
        ("inverted_pendulum", {"engine": "bullet"}, "expected one of mujoco, analytic"),
        ("inverted_pendulum", {"engine": "analytic", "slider": "long"}, "slider is 'long'"),
        ("inverted_pendulum", {"reward": "late"}, "pre_step, post_step"),
        ("pendulum", {"prior_mass": 0.0}, "mass is 0.0, expected a positive number"),
        ("pendulum", {"prior_length": "long"}, "length is 'long', expected a positive number"),
        ("linear_quadratic", {"A": [[1.0]]}, "only one of A and B"),
        ("linear_quadratic", {"A": "one", "B": [[1.0]]}, "A is 'one', expected a matrix of finite"),
        ("linear_quadratic", {"Q": [[1.0, 2.0], [0.0, 1.0]]}, "Q is not symmetric"),
        (
            "linear_quadratic",
            {"start_mean": [1.0]},
            r"start_mean is .* \(1,\), .* expected \[2\] of finite",
        ),
        (
            "linear_quadratic",
            {"prior": [[[1.0]]]},
            r"prior is \[\[\[1.0\]\]\], expected two matrices",
        ),
        ("double_integrator", {"dt": 0.0}, "dt is 0.0, expected a number ≥ 1e-06"),
        ("double_integrator", {"noise": -1.0}, "noise is -1.0"),
        ("double_integrator", {"prior_push": "weak"}, "prior_push is 'weak'"),
        ("hopper-v5", {}, "no task is called 'hopper-v5': expected Hopper-v5"),
        ("Hopper-v5", {"healthy_reward": "big"}, "healthy_reward is 'big'"),
        ("Hopper-v5", {"terminate_when_unhealthy": 0}, "terminate_when_unhealthy is 0, expected"),
        ("missing.py:make", {}, "missing.py: no such file"),
    ],
)
def test_wrong_names_and_settings_are_answered_with_the_right_ones(name, settings, message):
    with pytest.raises(InputError, match=message):
        task_from_name(name, settings)


def test_a_file_of_ones_own_makes_a_task(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "import gradlab.tasks\n"
        "@dataclass(frozen=True)\n"
        "class Setting:\n"
        "    gain: float\n"
        "def make(gain):\n"
        "    return gradlab.tasks.linear_quadratic(A=[[Setting(gain).gain]], B=[[1.0]])\n"
        "def nothing():\n"
        "    return 3\n"
    )
    task = task_from_name(f"{file}:make", {"gain": 0.5})
    state = torch.ones(1, 1, dtype=torch.float64)
    assert task.simulator.step(state, 0 * state).state.item() == 0.5
    with pytest.raises(InputError, match=r"no function 'other': it has Setting, make, nothing$"):
        task_from_name(f"{file}:other", {})
    with pytest.raises(InputError, match="missing a required argument: 'gain'"):
        task_from_name(f"{file}:make", {})
    with pytest.raises(InputError, match=r"nothing returns is 3, expected a gradlab.Task\("):
        task_from_name(f"{file}:nothing", {})


def test_linear_starts_have_the_mean_and_covariance_asked_for():
    covariance = [[2.0, 0.6], [0.6, 0.5]]
    task = linear_quadratic(start_mean=[1.0, -2.0], start_covariance=covariance)
    starts = draw(task, 200_000)
    torch.testing.assert_close(
        starts.mean(0), torch.tensor([1.0, -2.0]).double(), atol=0.02, rtol=0
    )
    torch.testing.assert_close(starts.T.cov(), torch.tensor(covariance).double(), atol=0.03, rtol=0)


def test_explicit_matrices_have_a_perfect_prior_and_the_example_a_wrong_one():
    one = torch.eye(1)
    task = linear_quadratic(A=0.9 * one, B=0.5 * one)
    state = torch.ones(1, 1, dtype=torch.float64)
    assert torch.equal(
        task.prior.linearize(state, state).A, task.simulator.linearize(state, state).A
    )
    own = linear_quadratic(A=[[0.9]], B=[[0.5]], prior=([[0.8]], [[0.4]])).prior
    assert own is not None and own.linearize(state, state).B.item() == 0.4
    example = linear_quadratic()
    state = torch.ones(1, 2, dtype=torch.float64)
    wrong = example.prior.step(state, state[:, :1]).state
    assert not torch.equal(wrong, example.simulator.step(state, state[:, :1]).state)


@pytest.mark.parametrize("settings", [{}, {"dt": 0.02, "action_weight": 1.0, "discount": 0.99}])
def test_the_riccati_gain_of_the_double_integrator_is_stable_and_stationary(settings):
    task = double_integrator(**settings)
    system = task.simulator
    gain = riccati_gain(system, torch.zeros(2, dtype=torch.float64), task.discount)
    assert torch.linalg.eigvals(system.A - system.B @ gain).abs().max() < 1
    moment = torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=torch.float64)
    for actions in ("first", "all"):
        best = lqr_gradient(system, -gain, moment, task.discount, actions)
        off = lqr_gradient(system, -0.9 * gain, moment, task.discount, actions)
        assert best.norm() < 1e-7 * off.norm()


def test_the_double_integrators_documented_gain_is_its_riccati_gain():
    task = double_integrator()
    gain = riccati_gain(task.simulator, torch.zeros(2, dtype=torch.float64), task.discount)
    documented = ", ".join(f"{k:.4f}" for k in gain.flatten().tolist())
    assert f"K = [{documented}]" in (double_integrator.__doc__ or "")


def test_the_double_integrator_is_pushed_exactly_and_its_prior_can_be_wrong():
    """Constant acceleration for 1 s from rest: half a metre, whatever the step."""
    for dt in (0.1, 0.5):
        system = double_integrator(dt=dt).simulator
        state = torch.zeros(1, 2, dtype=torch.float64)
        push = torch.ones(1, 1, dtype=torch.float64)
        for _ in range(round(1 / dt)):
            state = system.step(state, push).state
        torch.testing.assert_close(state, torch.tensor([[0.5, 1.0]], dtype=torch.float64))
    prior = double_integrator(prior_push=0.8, prior_friction=0.05).prior
    moved = prior.step(torch.tensor([[0.0, 1.0]], dtype=torch.float64), push).state
    torch.testing.assert_close(moved, torch.tensor([[0.104, 1.03]], dtype=torch.float64))


AT_ONCE = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")  # that answer for a set state


def near(edge, generator, n):
    """On both sides of an edge, on it, and a digit beside it."""
    away = 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    beside = [np.nextafter(edge, -np.inf), edge, np.nextafter(edge, np.inf)]
    scale = torch.logspace(0, -12, n, dtype=torch.float64)
    return torch.cat([edge + away * scale, torch.tensor(beside, dtype=torch.float64)])


def at_borders(env_id, per_edge=100):
    """Visited states, one coordinate at a time moved to an edge of the healthy ranges."""
    system, generator, parts = SYSTEMS[env_id], torch.Generator().manual_seed(1), []
    for interval in system.environment.healthy:
        columns = {interval.first, system.state_dim + system.chart.root - 1}
        if interval.last is not None and interval.last - interval.first == 1:
            columns = {interval.first}
        for column in columns:
            for edge in (interval.low, interval.high):
                if np.isfinite(edge):
                    values = near(edge, generator, per_edge)
                    state = visited(env_id, len(values))[0]
                    state[:, column - system.chart.root] = values
                    parts.append(state)
    return torch.cat(parts)


@pytest.mark.parametrize("env_id", AT_ONCE)
def test_a_learned_model_ends_where_gymnasium_does(env_id):
    environment, system, task = gymnasium.make(env_id).unwrapped, SYSTEMS[env_id], mujoco(env_id)
    state = at_borders(env_id)
    environment.reset(seed=0)
    healthy, nq = [], system.chart.nq
    for row in system.chart.physical(state.numpy()):
        # Not `set_state`, whose forward pass takes most of the time and moves nothing.
        environment.data.qpos[:], environment.data.qvel[:] = row[:nq], row[nq:]
        healthy.append(bool(environment.is_healthy))
    alive = task.alive(state)
    assert len(state) > 200 and 0.2 < alive.double().mean() < 0.8
    assert alive.tolist() == healthy


def test_it_never_ends_where_the_task_is_told_so():
    task = mujoco("Hopper-v5", terminate_when_unhealthy=False)
    assert task.alive(at_borders("Hopper-v5", 10)).all()
    assert not task.alive(torch.full((1, 11), torch.nan, dtype=torch.float64)).any()
    cheetah = mujoco("HalfCheetah-v5")
    assert cheetah.alive(visited("HalfCheetah-v5", 20)[0]).all()
    assert not cheetah.alive(torch.full((1, 17), torch.nan, dtype=torch.float64)).any()


@pytest.mark.parametrize("env_id", TRAINED)
def test_trained_networks_act_on_their_task(env_id):
    task = mujoco(env_id)
    files = trained_networks(task)
    assert all(file.stat().st_size < 1e6 for file in files.values())
    policy, critic = (checkpoint.load(files[kind]).double() for kind in ("policy", "critic"))
    state = task.starts(16, stream(0, "starts"))
    noise = torch.zeros(16, noise_dim(policy), dtype=torch.float64)
    action = act(policy, state, noise)
    assert (action.abs() <= torch.tensor(task.action_limit)).all()
    # The value of a start is at most what the best rewards would sum to, and above nothing.
    with torch.no_grad():
        assert 0 < float(critic(state, action).mean()) < 1e3
        alive = torch.ones(16, dtype=torch.bool)
        for _ in range(30):
            step = task.simulator.step(state, act(policy, state, noise))
            state, alive = step.state, alive & step.alive
    assert alive.float().mean() > 0.9


def test_other_tasks_have_none():
    assert not trained_networks(pendulum())
    assert not trained_networks(mujoco("Hopper-v5", healthy_reward=2.0))


TASK = turning()
MEAN = torch.tensor([0.6, -0.3], dtype=torch.float64)


def smaller(share):
    """Cov[s | d ≤ q] / C of a Gaussian in two dimensions: F_χ²₄(q²) / F_χ²₂(q²)."""
    q2 = stats.chi2.isf(share, 2)
    return stats.chi2.cdf(q2, 4) / stats.chi2.cdf(q2, 2)


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_moments_of_gaussian_starts_are_those_of_the_truncated_law(share):
    starts = trimmed(TASK, share).starts(40_000, torch.Generator().manual_seed(3))
    radius = ((starts - MEAN).square().sum(dim=1) / 0.5).sqrt().max()
    assert float(radius) == pytest.approx(stats.chi2.isf(share, 2) ** 0.5, rel=0.02)
    torch.testing.assert_close(starts.mean(dim=0), MEAN, rtol=0.0, atol=0.015)
    expected = smaller(share) * 0.5 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(torch.cov(starts.T), expected, rtol=0.02, atol=0.01)


def test_the_law_is_one_for_all_seeds_and_repeats():
    twice = [trimmed(TASK, 0.1).starts for _ in range(2)]
    draws = [law(500, torch.Generator().manual_seed(1)) for law in twice]
    assert torch.equal(*draws) and draws[0].shape == (500, 2)


@pytest.mark.slow
def test_truth_and_returns_are_those_of_the_trimmed_law():
    policy, critic = networks(TASK)
    plain, narrow = (
        gradlab.measure(TASK, policy, critic, horizon=1, starts=512, judges=4, trim_starts=share)
        for share in (0.0, 0.3)
    )
    covariance = 0.5 * torch.eye(2, dtype=torch.float64)
    W = WEIGHT * torch.eye(2, dtype=torch.float64)
    for profile, factor in ((plain, 1.0), (narrow, smaller(0.3))):
        moment = second_moment(MEAN, factor * covariance)
        norm = float(lqr_gradient(TASK.simulator, W, moment, TASK.discount, "all").norm())
        assert abs(profile.truth["norm"] - norm) < 3 * profile.truth["standard_error"]
    gap = plain.truth["norm"] - narrow.truth["norm"]
    assert gap > 4 * plain.truth["standard_error"]
    with pytest.raises(InputError, match=r"the task's trim_starts is None in A and 0\.3 in B"):
        compared(plain, narrow)
    notice = "Starts trimmed to the central 70%: another question"
    assert advice(narrow).notice.startswith(notice) and not advice(plain).notice


@pytest.mark.parametrize(
    ("share", "starts", "words"),
    [
        (0.7, 64, "trim_starts is 0.7, expected a number in [0, 0.5)"),
        (-0.1, 64, "trim_starts is -0.1, expected a number in [0, 0.5)"),
        (float("nan"), 64, "trim_starts is nan, expected a number in"),
        ("1%", 64, "trim_starts is '1%', expected a number in"),
        (0.01, torch.zeros(8, 2), "trim_starts is 0.01, but starts holds the states themselves"),
    ],
)
def test_shares_and_starts_that_cannot_be_trimmed_are_refused(share, starts, words):
    with pytest.raises(InputError) as error:
        gradlab.measure(TASK, *networks(TASK), starts=starts, trim_starts=share)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_starts_that_hardly_differ_have_no_middle():
    coin = replace(TASK, starts=lambda n, g: MEAN * torch.randint(2, (n, 1), generator=g))
    with pytest.raises(InputError, match=r"no such share of the starts of linear_quadratic"):
        trimmed(coin, 0.01)


SYSTEM = gradlab.systems.from_function(lambda s, a: (0.9 * s + a, -(s[:, 0] ** 2)), 2, 1)


def task(starts):
    return gradlab.Task("mine", SYSTEM, None, starts, discount=0.9, horizon=3)


def drawn(starts, n=5):
    return task(starts).starts(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "starts",
    [
        lambda n: torch.randn(n, 2),
        lambda n: torch.randn(n, 2, requires_grad=True),
        lambda n: np.random.normal(size=(n, 2)),
        lambda n: np.random.normal(size=(n, 2)).astype(np.float32),
        lambda n, generator: torch.randn(n, 2, generator=generator),
        lambda n: torch.arange(2 * n).reshape(n, 2),
    ],
)
def test_starts_need_neither_generator_nor_float64_and_repeat(starts):
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(7)
    np.random.seed(7)
    found = drawn(starts)
    assert found.shape == (5, 2) and found.dtype == torch.float64 and not found.requires_grad
    assert torch.equal(drawn(starts), found)
    assert (torch.rand(1), np.random.rand()) == expected, "the user's streams go on"


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        (lambda n: torch.zeros(10, 2), "what starts returns is a Tensor of shape (10, 2)"),
        (lambda n: torch.zeros(n, 3), "shape (5, 3), torch.float32, expected a tensor [5, 2]"),
        (lambda n: [0.0] * n, "what starts returns is a list, expected a tensor [5, 2]"),
        (lambda n: np.array(["a"]), "what starts returns is a ndarray"),
        (lambda n: 1 / 0, "test_tasks.py, line"),
        (lambda: torch.zeros(2, 2), "starts takes (), expected a function (n, generator)"),
        (lambda n, generator, more: None, "starts takes (n, generator, more), expected"),
    ],
)
def test_a_law_that_does_not_fit_is_named(starts, words):
    with pytest.raises(InputError) as error:
        drawn(starts)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_task_made_anew_keeps_its_law():
    from dataclasses import replace

    first = task(lambda n: torch.randn(n, 2))
    again = replace(first, horizon=4)
    assert again.starts is first.starts


quadrotor = example("quadrotor")


def stepped(system, state, action):
    one = [torch.tensor([x], dtype=torch.float64) for x in (state, action)]
    out = system.step(*one)
    return out.state[0], float(out.reward)


def test_it_hovers_falls_and_turns():
    simulator, dt = quadrotor.make_task().simulator, quadrotor.DT
    home = [0.0] * 6
    state, reward = stepped(simulator, home, [0.0, 0.0])
    assert state.abs().max() < 1e-12 and reward == 0
    state, _ = stepped(simulator, home, [-1.0, -1.0])  # rotors off
    assert float(state[4]) == pytest.approx(-9.81 * dt)
    state, _ = stepped(simulator, home, [-0.1, 0.1])  # torque = arm · difference of thrusts
    torque = 0.2 * 0.2 * quadrotor.MASS * 9.81 / 2
    assert float(state[5]) == pytest.approx(torque / quadrotor.INERTIA * dt)
    assert float(state[4]) == pytest.approx(0, abs=1e-12)


def test_near_the_pillar_it_pays_and_no_derivative_sees_it():
    with_pillar = quadrotor.make_task_with_collision().simulator
    without = quadrotor.make_task().simulator
    inside, outside = [-1.0, 0.3, 0, 0, 0, 0], [-1.0, 0.6, 0, 0, 0, 0]
    for state, price in ((inside, 5.0), (outside, 0.0)):
        costs = [stepped(one, state, [0.0, 0.0])[1] for one in (without, with_pillar)]
        assert costs[0] - costs[1] == pytest.approx(price)
        row = torch.tensor([state], dtype=torch.float64)
        slopes = [one.linearize(row, row.new_zeros(1, 2)).r_s for one in (without, with_pillar)]
        torch.testing.assert_close(*slopes)


def test_the_prior_answers_less_to_the_rotors():
    task = quadrotor.make_task()
    rows = torch.zeros(1, 6, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    true, believed = (system.linearize(*rows).B[0] for system in (task.simulator, task.prior))
    torch.testing.assert_close(believed[4] * 1.25, true[4])
    torch.testing.assert_close(believed[5] * 1.3, true[5])
