"""Laws that every system obeys, whatever it simulates."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.systems import (
    CartPoleModel,
    CartPoleSimulator,
    LearnedSystem,
    LinearQuadratic,
    MujocoEnvironment,
    MujocoPendulum,
    Pendulum,
    System,
    VehicleModel,
    VehicleSimulator,
    from_function,
)
from gradlab.systems.function import on_circle
from gradlab.systems.mujoco import ENVIRONMENTS
from gradlab.systems.mujoco_pendulum import pendulum_parameters
from gradlab.systems.system import BLOCKS, Entropic
from gradlab.systems.vehicle import PUBLISHED_CODE, TABLE3


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def linear(covariance_rank: int = 3) -> LinearQuadratic:
    A, B, root = random(3, 3), random(3, 2, seed=1), random(3, covariance_rank, seed=2)
    eye = torch.eye(3, dtype=torch.float64)
    Q = eye + random(3, 1) @ random(3, 1).T
    return LinearQuadratic(A, B, Q, 0.3 * eye[:2, :2], root @ root.T)


def pushed_oscillator(s: Tensor, a: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    after = torch.stack([s[:, 0] + s[:, 1] * a[:, 0], (s[:, 1] + a[:, 1]).sin() + xi[:, 0]], 1)
    return after, -(s.square().sum(1) + a[:, 0] * s[:, 1] + a[:, 1] ** 4)


def learned(activation: str, reward_head: bool) -> LearnedSystem:
    """Three members, two of them in use, with normalisers of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ensemble = GaussianEnsemble(3, 2, 3, (16, 16), activation, reward=reward_head)
    width, spread = 3 + reward_head, random(5).abs() + 0.5
    ensemble.set_normalisers(
        random(5), spread, 0.1 * random(width), 0.5 * random(3, width).abs() + 0.1
    )
    rated = None if reward_head else lambda s, a, after: -(after**2).sum(1) - s[:, 0] * a[:, 1] ** 3
    return LearnedSystem(ensemble, rated, lambda after: after[:, 0].abs() < 2, elites=(2, 0))


CIRCLE = on_circle(Pendulum(), [0])
DIFFERENTIABLE = {
    "linear": linear(),
    "linear, singular noise": linear(covariance_rank=1),
    "function": from_function(pushed_oscillator, state_dim=2, action_dim=2, noise_dim=1),
    "vehicle simulator, table3": VehicleSimulator(TABLE3),
    "vehicle simulator, code": VehicleSimulator(PUBLISHED_CODE),
    "vehicle model, table3": VehicleModel(TABLE3),
    "vehicle model, code": VehicleModel(PUBLISHED_CODE),
    "cart-pole model": CartPoleModel(),
    "cart-pole model, post step": CartPoleModel("post_step"),
    "cart-pole simulator": CartPoleSimulator(pendulum_parameters()),
    "cart-pole simulator, post step": CartPoleSimulator(pendulum_parameters(), "post_step"),
    "pendulum": Pendulum(),
    "pendulum on the circle": CIRCLE,
    "with entropy": Entropic(linear(), 0.25),
    "learned, reward head": learned("silu", reward_head=True),
    "learned, reward function": learned("tanh", reward_head=False),
}
SYSTEMS = DIFFERENTIABLE | {
    "mujoco": MujocoPendulum(),
    "mujoco environment": MujocoEnvironment(ENVIRONMENTS["InvertedPendulum-v5"]),
    "mujoco, wide, post step": MujocoPendulum("wide", "post_step"),
}
# A learned system's last noise column has no mean member.
NOISY = {
    name: system
    for name, system in SYSTEMS.items()
    if system.noise_dim > 0 and not isinstance(system, LearnedSystem)
}
INVERTIBLE = {name: system for name, system in SYSTEMS.items() if hasattr(system, "infer_noise")}

every_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
every_differentiable = pytest.mark.parametrize(
    "system", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE
)
every_noisy = pytest.mark.parametrize("system", NOISY.values(), ids=NOISY)
every_invertible = pytest.mark.parametrize("system", INVERTIBLE.values(), ids=INVERTIBLE)


def inputs(system: System, n: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """States and actions on both sides of every clip and wrap, and noise."""
    state, action = 0.7 * random(n, system.state_dim), 2.5 * random(n, system.action_dim, seed=1)
    if isinstance(system, VehicleSimulator | VehicleModel):
        uniform = torch.linspace(0, 1, n, dtype=torch.float64)
        state[:, 0] = -19 + 34.5 * uniform
        state[:, 4] = 3.4 * (2 * uniform.roll(n // 3) - 1)
        state[:, 5] = (1200 * uniform).roll(n // 7)
    return state, action, system.sample_noise(n, torch.Generator().manual_seed(3))


def outputs(system: System, x: Tensor, noise: Tensor) -> Tensor:
    """[s', r] of [s, a]."""
    out = system.step(x[:, : system.state_dim], x[:, system.state_dim :], noise)
    return torch.cat([out.state, out.reward[:, None]], 1)


def by_columns(system: System, columns: list[Tensor]) -> dict[str, Tensor]:
    """The four blocks from the derivatives [N, ds + 1] of [s', r] by every input."""
    ds, jacobian = system.state_dim, torch.stack(columns, 2)
    by_s, by_a = jacobian[:, :, :ds], jacobian[:, :, ds:]
    return {"A": by_s[:, :-1], "B": by_a[:, :-1], "r_s": by_s[:, -1], "r_a": by_a[:, -1]}


def autodiff(system: System, state: Tensor, action: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Forward mode; rows of a batch never see each other."""
    x = torch.cat([state, action], 1)
    unit = torch.eye(x.shape[1], dtype=x.dtype)
    columns = [
        torch.func.jvp(lambda x: outputs(system, x, noise), (x,), (one.expand_as(x),))[1]
        for one in unit
    ]
    return by_columns(system, columns)


def differences(
    system: System, state: Tensor, action: Tensor, noise: Tensor, step: float
) -> dict[str, Tensor]:
    """Central ones."""
    x = torch.cat([state, action], 1)
    moves = step * torch.eye(x.shape[1], dtype=x.dtype)
    pairs = [[outputs(system, x + sign * move, noise) for sign in (1, -1)] for move in moves]
    return by_columns(system, [(up - down) / (2 * step) for up, down in pairs])


def smooth_inputs(system: System, n: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """States and actions away from every clip and wrap."""
    state, action = 0.3 * random(n, system.state_dim), 0.05 * random(n, system.action_dim, seed=1)
    if isinstance(system, VehicleSimulator | VehicleModel):
        state[:, 5] = 400 + 50 * state[:, 5]
    if system is CIRCLE:
        state[:, 0] += 1  # away from the centre, where angles turn at once
    return state, action, system.sample_noise(n, torch.Generator().manual_seed(3))


@every_differentiable
def test_linearize_is_the_derivative_of_step(system):
    state, action, noise = inputs(system)
    got, want = system.linearize(state, action, noise), autodiff(system, state, action, noise)
    for block in BLOCKS:
        torch.testing.assert_close(getattr(got, block), want[block], atol=1e-10, rtol=1e-10)
    assert not got.certificate.flags.any()


@every_differentiable
def test_central_differences_converge_to_linearize_with_the_square_of_their_step(system):
    inputs_ = smooth_inputs(system)
    exact = system.linearize(*inputs_)
    steps = [2.0**-k for k in (4, 5, 6, 7)]
    with torch.no_grad():
        found = [differences(system, *inputs_, step) for step in steps]
    for block in BLOCKS:
        want = getattr(exact, block)
        errors = [float((each[block] - want).norm()) for each in found]
        if errors[0] < 1e-11 * (1 + float(want.norm())):
            continue  # linear or quadratic: central differences are exact
        slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
        assert slope == pytest.approx(2, abs=0.1), (block, errors)


@every_system
def test_float32_stays_float32_and_close(system):
    state, action, noise = inputs(system)
    # At a clip or a wrap the two precisions may take different sides.
    state, action = 0.05 * state.float().double(), 0.1 * action.float().double()
    wide = system.step(state, action, noise)
    narrow = system.step(state.float(), action.float(), noise.float())
    assert narrow.state.dtype == narrow.reward.dtype == torch.float32
    torch.testing.assert_close(narrow.state.double(), wide.state, atol=1e-3, rtol=1e-4)
    exact = system.linearize(state, action, noise)
    rounded = system.linearize(state.float(), action.float(), noise.float())
    for block in BLOCKS:
        value = getattr(rounded, block)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), getattr(exact, block), atol=1e-3, rtol=1e-3)


@every_noisy
def test_no_noise_is_the_mean_of_the_noise(system):
    state, action, noise = inputs(system)
    state = 0.1 * state
    pair = [system.step(state, action, sign * noise).state for sign in (1, -1)]
    torch.testing.assert_close((pair[0] + pair[1]) / 2, system.step(state, action).state)
    assert (pair[0] != pair[1]).any()


@every_invertible
def test_inferred_noise_makes_the_same_step(system):
    state, action, noise = inputs(system)
    after = system.step(state, action, noise).state
    inferred = system.infer_noise(state, action, after)  # type: ignore[attr-defined]
    assert inferred.shape == noise.shape
    torch.testing.assert_close(system.step(state, action, inferred).state, after)


def test_inferred_noise_is_the_noise_where_it_is_unique():
    for system in (linear(), VehicleModel(), CartPoleModel()):
        state, action, noise = inputs(system)
        after = system.step(state, action, noise).state
        torch.testing.assert_close(
            system.infer_noise(state, action, after), noise, atol=1e-9, rtol=1e-9
        )


@every_system
def test_rows_do_not_depend_on_their_batch(system):
    state, action, noise = inputs(system)
    whole, part = system.step(state, action, noise), slice(20, 33)
    piece = system.step(state[part], action[part], noise[part])
    torch.testing.assert_close(piece.state, whole.state[part], atol=1e-13, rtol=1e-13)
    jacobian = system.linearize(state, action, noise).A[part]
    torch.testing.assert_close(
        system.linearize(state[part], action[part], noise[part]).A, jacobian, atol=1e-12, rtol=0
    )


@every_system
def test_inputs_are_left_alone(system):
    state, action, noise = inputs(system)
    copies = state.clone(), action.clone(), noise.clone()
    system.step(state, action, noise)
    system.linearize(state, action, noise)
    for value, kept in zip((state, action, noise), copies, strict=True):
        assert torch.equal(value, kept)


@every_system
def test_a_system_follows_the_protocol(system):
    assert isinstance(system, System)
    n = 4
    state, action, noise = (value[:n] for value in inputs(system))
    out, jacobian = system.step(state, action), system.linearize(state, action)
    ds, da = system.state_dim, system.action_dim
    assert out.state.shape == (n, ds) and out.reward.shape == (n,)
    assert out.alive.shape == (n,) and out.alive.dtype == torch.bool
    shapes = [getattr(jacobian, block).shape for block in BLOCKS]
    assert shapes == [(n, ds, ds), (n, ds, da), (n, ds), (n, da)]
    assert noise.shape == (n, system.noise_dim)
    assert set(jacobian.certificate.error) == set(BLOCKS)
    assert all(error.shape == (n,) for error in jacobian.certificate.error.values())


@every_system
def test_wrong_shapes_are_named_at_the_door(system):
    state, action, noise = inputs(system)
    for call in (system.step, system.linearize):
        with pytest.raises(InputError, match="state has shape"):
            call(state[:, 1:], action, noise)
        with pytest.raises(InputError, match="action has shape"):
            call(state, action[1:], noise)
        with pytest.raises(InputError, match="noise has shape"):
            call(state, action, noise.sum(1))
        with pytest.raises(InputError, match="float32"):
            call(state, action.float(), noise)
