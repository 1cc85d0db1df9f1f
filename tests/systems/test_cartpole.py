"""The cart-pole's equations against rigid-body mechanics solved another way."""

import numpy as np
import pytest
import torch

from gradlab.systems import CartPoleModel, CartPoleParameters, CartPoleSimulator
from gradlab.systems.cartpole import TABLE4, alive, derivative

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
