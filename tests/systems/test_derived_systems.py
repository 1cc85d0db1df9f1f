"""Systems made of others: with entropy, of two models, on the circle. Laws: test_system_laws.py.

The cart-pole's equations against rigid-body mechanics solved another way. Diverging simulations end
their own samples only, and the report says which, when and where.
"""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail, tasks
from gradlab.errors import InputError
from gradlab.gradients.rollout import linearize_path, rollout_with_jacobians
from gradlab.gradients.setting import as_starts
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems import (
    CartPoleModel,
    CartPoleParameters,
    CartPoleSimulator,
    LearnedSystem,
    MujocoPendulum,
    Pendulum,
    TwoModels,
    from_function,
)
from gradlab.systems.closed_form import TABLE4, LinearQuadratic, alive, derivative
from gradlab.systems.function import off_circle, on_circle, to_circle
from gradlab.systems.system import BLOCKS, Entropic, linearize_running, step_running
from tests.gradients.worlds import reference_gradients
from tests.systems.ensembles import random

# With entropy

ALPHA, EYE = 0.25, torch.eye(2, dtype=torch.float64)
PLAIN = LinearQuadratic(0.9 * EYE, EYE[:, :1], EYE, EYE[:1, :1], 0.1 * EYE)
SOFT = Entropic(PLAIN, ALPHA)


def test_the_reward_is_less_alpha_log_pi_and_nothing_else_changes():
    state, action, log_prob, noise = random(5, 2), *(random(5, k, seed=k) for k in (1, 1, 2))
    hard = PLAIN.step(state, action, noise)
    got = SOFT.step(state, torch.cat([action, log_prob], 1), noise)
    assert torch.equal(got.state, hard.state) and torch.equal(got.alive, hard.alive)
    torch.testing.assert_close(got.reward, hard.reward - ALPHA * log_prob[:, 0])
    first, second = (torch.Generator().manual_seed(1) for _ in range(2))
    assert torch.equal(SOFT.sample_noise(3, first), PLAIN.sample_noise(3, second))


def test_noise_that_cannot_be_inferred_stays_so():
    noisy = from_function(lambda s, a, xi: (s + a + xi, s[:, 0]), 1, 1, 1)
    assert getattr(Entropic(noisy, ALPHA), "infer_noise", None) is None


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf"), "0.1"])
def test_a_wrong_temperature_is_named(alpha):
    with pytest.raises(InputError, match="alpha"):
        Entropic(PLAIN, alpha)


# States of one model with Jacobians of another


def model(seed: int) -> LearnedSystem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LearnedSystem(GaussianEnsemble(2, 1, 3, (8, 8)).double())


PREDICTION, GRADIENT = model(1), model(2)
BOTH = TwoModels(PREDICTION, GRADIENT)
STATE, ACTION = random(20, 2), random(20, 1, seed=1)
NOISE = BOTH.sample_noise(20, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("noise", [None, NOISE])
def test_states_are_of_the_one_and_jacobians_of_the_other(noise):
    stepped, alone = BOTH.step(STATE, ACTION, noise), PREDICTION.step(STATE, ACTION, noise)
    torch.testing.assert_close(stepped.state, alone.state, rtol=0, atol=1e-15)
    torch.testing.assert_close(stepped.reward, alone.reward, rtol=0, atol=1e-15)
    found, wanted = BOTH.linearize(STATE, ACTION, noise), GRADIENT.linearize(STATE, ACTION)
    for block in ("A", "B", "r_s", "r_a"):
        assert torch.equal(getattr(found, block), getattr(wanted, block))


def test_states_end_where_the_prediction_model_says():
    ends = LearnedSystem(PREDICTION.ensemble, alive=lambda state: state[:, 0] > 0)
    never = LearnedSystem(GRADIENT.ensemble, alive=lambda state: state[:, 0] < torch.inf)
    found = TwoModels(ends, never).step(STATE, ACTION, NOISE)
    assert torch.equal(found.alive, found.state[:, 0] > 0) and not found.alive.all()


def test_autodiff_through_a_step_gives_the_gradient_models_jacobians():
    leaves = [STATE.clone().requires_grad_(), ACTION.clone().requires_grad_()]
    out, wanted = BOTH.step(*leaves, NOISE), BOTH.linearize(STATE, ACTION, NOISE)
    for value, by_state, by_action in (
        (out.state[:, 0], wanted.A[:, 0], wanted.B[:, 0]),
        (out.state[:, 1], wanted.A[:, 1], wanted.B[:, 1]),
        (out.reward, wanted.r_s, wanted.r_a),
    ):
        found = torch.autograd.grad(value.sum(), leaves, retain_graph=True)
        torch.testing.assert_close(found, (by_state, by_action))


def test_one_system_is_the_estimator_with_its_two_parts():
    torch.manual_seed(0)
    policy, critic = Policy(2, 1, (6,)).double(), QCritic(2, 1, (6,)).double()
    whole = Estimator(BOTH, BOTH, "all", Tail(3, critic, 0.95))
    found = whole.gradients(policy, STATE)
    wanted = reference_gradients(whole, policy, as_starts(STATE, 2))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)
    # By hand, without BOTH's own splice: the gradient model has no noise to infer.
    mean = replace(whole, states=PREDICTION, jacobians=TwoModels(GRADIENT, GRADIENT))
    torch.testing.assert_close(found, mean.gradients(policy, STATE))
    plain = replace(whole, states=PREDICTION, jacobians=PREDICTION).gradients(policy, STATE)
    assert not torch.allclose(found, plain)


def test_models_that_do_not_fit_are_refused():
    other = tasks.linear_quadratic([[0.9]], [[1.0]], [[1.0]], [[1.0]]).simulator
    with pytest.raises(InputError, match="gradient has state_dim 1, prediction has 2"):
        TwoModels(PREDICTION, other)
    with pytest.raises(InputError, match="not differentiable"):
        TwoModels(MujocoPendulum("stock"), MujocoPendulum("stock"))


# On the circle


def test_points_on_the_circle_are_angles_within_a_turn():
    state = random(50, 3)
    there = to_circle(state, [1])
    torch.testing.assert_close(there[:, 1] ** 2 + there[:, 2] ** 2, torch.ones(50).double())
    turns = (off_circle(there, [1]) - state) / (2 * torch.pi)
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-12)


def test_an_episode_of_the_pendulum_on_the_circle_is_gymnasiums_step_by_step():
    environment, task = gymnasium.make("Pendulum-v1"), tasks.pendulum(coordinates="circle")
    observation, _ = environment.reset(seed=3)
    state = torch.tensor(observation, dtype=torch.float64)[None]
    np.testing.assert_array_equal(environment.action_space.high, task.action_limit)
    torques = 2.5 * np.random.default_rng(0).uniform(-1, 1, 200)  # some beyond the limit
    for t, torque in enumerate(torques):
        observation, reward, terminated, truncated, _ = environment.step(np.array([torque]))
        after = task.simulator.step(state, torch.tensor([[torque]], dtype=torch.float64))
        np.testing.assert_allclose(after.state[0].numpy(), observation, atol=1e-4)
        assert float(after.reward) == pytest.approx(float(reward), abs=1e-3)
        assert not terminated and bool(after.alive) and truncated == (t == 199)
        state = after.state


def test_jacobians_are_zero_along_the_radius():
    state = to_circle(random(8, 2), [0])
    found = on_circle(Pendulum(), [0]).linearize(state, 0.5 * random(8, 1))
    radial = torch.einsum("nij,nj->ni", found.A[:, :, :2], state[:, :2])
    torch.testing.assert_close(radial, torch.zeros_like(radial), rtol=0, atol=1e-12)


def test_the_cart_pole_keeps_its_energy_but_for_friction_and_earns_most_upright():
    task = tasks.cart_pole_swing_up()
    state = task.starts(4, torch.Generator().manual_seed(1))
    assert (state[:, 1] < -0.9).all()
    rest = torch.zeros(4, 1, dtype=torch.float64)
    before, moved = energy(state), state
    for _ in range(10):
        moved = task.simulator.step(moved, rest).state
        after = energy(moved)
        assert (after < before).all() and (after > before - 0.02).all()
        before = after
    hung = task.simulator.step(state[:1], rest[:1]).reward
    assert -0.85 < float(hung) < -0.65  # e^{-1.44} - 1 where it hangs at rest
    upright = to_circle(torch.zeros(1, 4, dtype=torch.float64), [1])
    assert float(task.simulator.step(upright, rest[:1]).reward) == 0


def energy(state):
    """Of cart and rod, 0.5 kg each, 0.6 m, in J."""
    _, cos, sin, v, w = state.unbind(dim=1)
    across, up = v + 0.3 * w * cos, -0.3 * w * sin
    kinetic = 0.25 * v**2 + 0.25 * (across**2 + up**2) + 0.5 * (0.5 * 0.36 / 12) * w**2
    return kinetic + 0.5 * 9.82 * 0.3 * cos


def test_angles_are_coordinates_of_a_differentiable_system():
    with pytest.raises(InputError, match=r"angles are \(2,\), expected coordinates from 0 to 1"):
        on_circle(Pendulum(), [2])
    with pytest.raises(InputError, match="system is not differentiable"):
        on_circle(MujocoPendulum("wide", "pre_step"), [1])


TILTED = CartPoleParameters(
    cart_mass=3.0, pole_mass=2.0, half_length=0.4, inertia=0.2, gravity=9.0, gear=10.0,
    damping=0.0, offset=0.1, timestep=0.02, substeps=2,
)  # fmt: skip


def inputs(n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    state = rng.normal(size=(n, 4)) * [1.0, 0.7, 2.0, 3.0]
    return torch.tensor(state), torch.tensor(rng.normal(size=(n, 1)) * 3)


def test_mean_next_state_of_the_prior_solves_the_mass_matrix():
    state, action = inputs()
    M, m, length, g, T = 9.42, 4.89, 0.6, 9.81, 0.04
    want = []
    for (x, theta, speed, spin), (a,) in zip(state.numpy(), action.numpy(), strict=True):
        half = 0.5 * m * length
        D = np.array([[M + m, half * np.cos(theta)], [half * np.cos(theta), m * length**2 / 3]])
        z = [half * spin**2 * np.sin(theta) + 100 * a, half * g * np.sin(theta)]
        cart, pole = np.linalg.solve(D, z)
        want.append([x + T * speed + 0.1, theta + T * spin, speed + T * cart, spin + T * pole])
    got = CartPoleModel().step(state, action).state
    torch.testing.assert_close(got, torch.tensor(np.array(want)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("parameters", [TABLE4, TILTED])
def test_power_is_force_times_speed(parameters):
    p = parameters
    state, action = inputs()

    def energy(s: torch.Tensor) -> torch.Tensor:
        _, theta, speed, spin = s.unbind(-1)
        angle = theta + p.offset
        across = speed + p.half_length * spin * angle.cos()
        down = p.half_length * spin * angle.sin()
        kinetic = p.cart_mass * speed**2 + p.pole_mass * (across**2 + down**2)
        height = p.half_length * angle.cos()
        return (kinetic + p.inertia * spin**2) / 2 + p.pole_mass * p.gravity * height

    _, power = torch.func.jvp(energy, (state,), (derivative(p, state, action),))
    torch.testing.assert_close(power, p.gear * action[:, 0] * state[:, 2], atol=1e-10, rtol=1e-10)


def test_runge_kutta_converges_with_order_four():
    state, action = (value[:8] for value in inputs())

    def after(substeps: int) -> torch.Tensor:
        split = dict(vars(TILTED), timestep=0.2 / substeps, substeps=substeps)
        return CartPoleSimulator(CartPoleParameters(**split)).step(state, action).state

    truth = after(512)
    errors = [float((after(n) - truth).abs().max()) for n in (8, 16, 32)]
    slopes = np.diff(np.log2(errors))
    assert slopes == pytest.approx([-4, -4], abs=0.3)


def test_noise_moves_x_with_standard_deviation_one_half():
    state, action = inputs(3)
    noise = torch.tensor([[0.0], [1.0], [-2.0]], dtype=torch.float64)
    moved = (
        CartPoleModel().step(state, action, noise).state - CartPoleModel().step(state, action).state
    )
    want = torch.zeros(3, 4, dtype=torch.float64)
    want[:, 0] = torch.tensor([0.0, 0.5, -1.0])
    torch.testing.assert_close(moved, want, atol=1e-14, rtol=0)


def test_rewards_are_equation_18_before_or_after_the_step():
    state, action = inputs(5)
    weights = {CartPoleModel: [0.01, 1.0, 0.001, 0.001], CartPoleSimulator: [0.01, 1.0, 0.1, 0.1]}
    for timing in ("pre_step", "post_step"):
        for system in (CartPoleModel(timing), CartPoleSimulator(TILTED, timing)):
            out = system.step(state, action)
            rated = state if timing == "pre_step" else out.state
            w = torch.tensor(weights[type(system)], dtype=torch.float64)
            torch.testing.assert_close(out.reward, -(w * rated**2).sum(1))


def test_only_the_simulator_clips_the_action():
    state, action = inputs(5)
    at_limit, beyond = torch.full_like(action, 3.0), torch.full_like(action, 5.0)
    simulator, model = CartPoleSimulator(TILTED), CartPoleModel()
    assert torch.equal(simulator.step(state, beyond).state, simulator.step(state, at_limit).state)
    assert not simulator.linearize(state, beyond).B.any()
    assert simulator.linearize(state, at_limit).B.any()
    assert not torch.equal(model.step(state, beyond).state, model.step(state, at_limit).state)


def test_the_terminal_set_is_a_short_rail_and_a_small_angle():
    state = torch.tensor([[1.99, 0.2], [2.0, 0.0], [-2.1, 0.0], [0.0, -0.21], [0.0, torch.nan]])
    assert alive(torch.cat([state, 0 * state], 1)).tolist() == [True, False, False, False, False]


TASK = gradlab.tasks.mujoco("HalfCheetah-v5")
LOST = 3


def linear_policy() -> nn.Module:
    policy = nn.Linear(17, 6, dtype=torch.float64)
    torch.manual_seed(0)
    nn.init.normal_(policy.weight, std=0.05)
    nn.init.zeros_(policy.bias)
    return policy


def starts(n: int = 8) -> torch.Tensor:
    """One of them explodes in its first step."""
    state = TASK.starts(n, torch.Generator().manual_seed(0))
    state[LOST, -3:] = 1e9
    return state


def others(x: torch.Tensor, dim: int = 0) -> torch.Tensor:
    kept = [i for i in range(x.shape[dim]) if i != LOST]
    return x.index_select(dim, torch.tensor(kept))


def test_a_rollout_goes_on_with_the_others_bit_for_bit():
    policy = linear_policy()
    path, K = rollout_with_jacobians(TASK.simulator, policy, as_starts(starts(), 17), 4)
    alone, K_alone = rollout_with_jacobians(
        TASK.simulator, policy, as_starts(others(starts()), 17), 4
    )
    assert not torch.isfinite(path.states[1:, LOST]).all(dim=1).any()
    assert not path.alive[1:, LOST].any()
    torch.testing.assert_close(others(path.states, 1), alone.states, atol=1e-12, rtol=1e-12)
    got = linearize_path(path, TASK.simulator, K, None)
    want = linearize_path(alone, TASK.simulator, K_alone, None)
    assert got.flags[:, LOST].all()
    torch.testing.assert_close(others(got.A, 1), want.A, atol=1e-6, rtol=1e-6)


def test_ended_rows_are_nan_flagged_and_not_alive():
    system, state = TASK.simulator, starts(4)
    action = torch.zeros(4, 6, dtype=torch.float64)
    state[LOST, 0] = torch.nan
    out, jacobian = step_running(system, state, action), linearize_running(system, state, action)
    assert out.state[LOST].isnan().all() and out.reward[LOST].isnan()
    assert out.alive.tolist() == [True, True, True, False]
    assert jacobian.certificate.flags.tolist()[LOST]
    want = system.linearize(state[:LOST], action[:LOST])
    for block in BLOCKS:
        assert torch.equal(getattr(jacobian, block)[:LOST], getattr(want, block))
        assert getattr(jacobian, block)[LOST].isnan().all()


def test_a_measurement_says_which_start_left_when_and_where():
    simulator = TASK.simulator
    critic = gradlab.networks.mlp.QCritic(17, 6, hidden=(8,)).double()
    estimator = Estimator(simulator, simulator, "first", Tail(3, critic, TASK.discount))
    with pytest.raises(InputError, match=r"fails in step 0 from start 3: .* state \(.*1e\+09"):
        gradlab.measure(
            TASK, linear_policy(), None, {"true": estimator}, horizon=1, starts=starts(), seed=0,
            rehearse=False, judges=4,
        )  # fmt: skip
