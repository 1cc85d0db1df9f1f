"""Environments whose state lives in them, against the functions that they are.

Jacobians by inverse dynamics, against differences of whole steps and of Gymnasium's steps.
"""

from dataclasses import replace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.systems import from_environment, from_function, implicit_jacobians
from gradlab.systems.implicit_jacobians import price, unsupported
from gradlab.systems.system import BLOCKS
from tests.systems.mujoco_states import SYSTEMS, visited


def pushed(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """A point mass: place and speed."""
    speed = 0.95 * state[:, 1:] + 0.1 * torch.tanh(action)
    after = torch.cat([state[:, :1] + 0.1 * speed, speed], 1)
    return after, -(state[:, 0] ** 2) - 0.01 * action[:, 0] ** 2


class Env:
    """The same as people write it; `fault` plants one."""

    def __init__(self, n: int = 4, dtype: torch.dtype = torch.float64, fault: str = "") -> None:
        self.s, self.t, self.fault = torch.linspace(-1, 1, 2 * n, dtype=dtype).view(n, 2), 0, fault
        self.s = self.s * (fault != "mean at rest")  # all rows begin alike

    def step(self, action: Tensor) -> Any:
        self.t += 1
        if self.fault == "detached":
            action = action.detach()
        after, reward = pushed(self.s, action)
        if self.fault == "noise":
            after = after + 0.01 * torch.randn_like(after)
        if self.fault == "numpy":
            after = after + 0.01 * float(np.random.standard_normal())
        if self.fault == "clock":
            after = after + 0.01 * self.t
        if self.fault == "reset" and self.t % 10 == 0:
            after = torch.zeros_like(after)
        if self.fault == "mixed":
            after = after - 0.1 * torch.linspace(0, 1, len(after)).to(after)[:, None]
        if self.fault in ("mean", "mean at rest"):
            reward = reward - reward.mean()
        self.s = after
        ended = after[:, 0] > 0.95
        cut = torch.full_like(ended, self.fault == "limit" and self.t > 5)
        return after, reward[:, None], ended, cut, {}


def read(env: Env) -> Tensor:
    return env.s


def write(env: Env, state: Tensor) -> None:
    env.s = state


def batch(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    state, action = torch.randn(2, rows, 2, generator=generator, dtype=torch.float64)
    return state, action[:, :1]


@pytest.mark.parametrize("rows", [1, 4, 6, 11])
def test_batches_of_any_size_are_those_of_the_function(rows):
    system, truth = from_environment(Env(), read, write, 1), from_function(pushed, 2, 1)
    state, action = batch(rows)
    ours, theirs = system.step(state, action), truth.step(state, action)
    torch.testing.assert_close(ours.state, theirs.state)
    torch.testing.assert_close(ours.reward, theirs.reward)
    assert ours.alive.tolist() == (theirs.state[:, 0] <= 0.95).tolist()
    ours, theirs = system.linearize(state, action), truth.linearize(state, action)
    for name in ("A", "B", "r_s", "r_a"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


def test_an_environment_in_float32_takes_states_in_float64():
    system = from_environment(Env(dtype=torch.float32), read, write, 1)
    state, action = batch(5)
    found, truth = system.linearize(state, action), from_function(pushed, 2, 1)
    torch.testing.assert_close(found.A, truth.linearize(state, action).A, rtol=1e-5, atol=1e-6)
    assert found.A.dtype == torch.float64


def test_what_is_alive_may_be_given():
    system = from_environment(Env(), read, write, 1, alive=lambda s: s[:, 1] < 0)
    state, action = batch(6)
    after = system.step(state, action)
    assert after.alive.tolist() == (after.state[:, 1] < 0).tolist()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("noise", "draws from torch's random stream"),
        ("numpy", "draws from numpy's random stream"),
        ("clock", "each time from one state and action: write leaves env.t as"),
        ("reset", "after 8 steps from one state and action: write leaves env.t as"),
        ("mixed", "mixes rows: turned by one"),
        ("mean", "mixes rows: beside other rows"),
        ("mean at rest", "mixes rows: beside other rows"),
        ("detached", "no gradient passes through env.step from the action"),
        ("limit", "let write set the environment's clock to 0"),
    ],
)
def test_environments_that_are_no_system_are_refused(fault, words):
    def tried() -> None:
        system = from_environment(Env(fault=fault), read, write, 1)
        for _ in range(5):
            system.step(*batch(4))

    with pytest.raises(InputError, match=words):
        tried()


def test_a_state_that_is_not_all_of_it_is_refused():
    def half(env: Env, state: Tensor) -> None:
        env.s = torch.cat([state, env.s[:, 1:]], 1)

    with pytest.raises(InputError, match=r"write leaves env\.s, env\.t as"):
        from_environment(Env(), lambda env: env.s[:, :1], half, 1)


def test_a_state_that_cannot_be_written_is_refused():
    with pytest.raises(InputError, match="write does not set what read gives"):
        from_environment(Env(), read, lambda env, state: write(env, 2 * state), 1)


class Parts:
    """The point mass in two tensors, beside others that are no state: drawn, fixed, for display."""

    def __init__(self, n: int = 4) -> None:
        start = torch.linspace(-1, 1, 2 * n, dtype=torch.float64).view(n, 2)
        self.place, self.speed = start[:, 0], start[:, 1:]
        self.reward, self.mass, self.seen = torch.zeros(n), torch.ones(n, 1), torch.zeros(n, 2)

    def step(self, action: Tensor) -> Any:
        state = torch.cat([self.place[:, None], self.speed * self.mass], 1)
        self.seen, self.reward = pushed(state, action)
        self.place, self.speed = self.seen[:, 0], self.seen[:, 1:]
        return self.seen, self.reward, torch.zeros(len(action)), {}


def test_the_state_is_found_in_the_object():
    system, truth = from_environment(Parts(), action_dim=1), from_function(pushed, 2, 1)
    assert system.state_dim == 2
    state, action = batch(6)
    ours, theirs = system.linearize(state, action), truth.linearize(state, action)
    for name in ("A", "B", "r_s", "r_a"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize(
    ("env", "given", "words"),
    [
        (object(), {}, "env is .*, expected an object with step"),
        (Env(), {"read": read}, "write is None, expected a function"),
        (type("Still", (), {"step": lambda self, a: (a, a[:, 0])})(), {}, "give both"),
    ],
)
def test_what_is_missing_is_said(env, given, words):
    with pytest.raises(InputError, match=words):
        from_environment(env, action_dim=1, **given)


def test_the_width_of_actions_is_the_environments():
    env = Env()
    with pytest.raises(InputError, match="give action_dim"):
        from_environment(env, read, write)
    env.action_space = type("Space", (), {"shape": (4, 1)})()
    assert from_environment(env, read, write).action_dim == 1


def test_the_random_stream_of_the_user_stays_as_it_is():
    before = torch.get_rng_state()
    from_environment(Env(), read, write, 1)
    assert torch.equal(before, torch.get_rng_state())


def test_what_a_policy_sees_comes_with_the_environment():
    env = Env()
    system = from_environment(env, read, write, action_dim=1, observe=lambda state: state[:, :1])
    task = gradlab.Task("pushed", system, None, lambda n: torch.randn(n, 2), 0.95, 4)
    network = nn.Linear(1, 1)
    _, policy, _ = gradlab.tasks.with_memory(task, network)
    state, _ = batch(4)
    assert torch.equal(policy.double()(state), network(state[:, :1]))
    with pytest.raises(InputError, match="observe"):
        from_environment(env, read, write, action_dim=1, observe=3)


SUPPORTED = ("InvertedPendulum-v5", "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5")
every = pytest.mark.parametrize("env_id", SUPPORTED)


def misses(env_id: str, state: Tensor, action: Tensor) -> dict[str, Tensor]:
    """Distance of the blocks, relative to their largest entries, where nothing is flagged."""
    exact = SYSTEMS[env_id]
    got, want = (s.linearize(state, action) for s in (replace(exact, implicit=True), exact))
    free = ~want.certificate.flags
    assert not got.certificate.flags[free].any() and free.double().mean() > 0.9
    return {
        name: (x - y).flatten(1).abs().amax(1)[free] / y.flatten(1).abs().amax(1)[free].clamp(1e-9)
        for name in BLOCKS
        for x, y in [(getattr(got, name), getattr(want, name))]
    }


@every
def test_they_are_the_central_differences_of_whole_steps(env_id):
    for miss in misses(env_id, *visited(env_id, 100, scale=1.5)).values():
        assert miss.median() < 3e-6 and miss.max() < 2e-4


def test_control_limits_and_onsets_are_those_of_the_exact_route():
    """What fails its test is the exact Jacobian with its flag, bit for bit."""
    exact = SYSTEMS["Hopper-v5"]
    state = torch.zeros(3, 11, dtype=torch.float64)
    state[:, 0], state[:, 2], state[:, 3], state[:, 10] = 2.0, -0.5, -0.5, 2.0
    state[:, 4] = np.deg2rad(45.0) - torch.tensor([0.0, 1e-9, 0.3], dtype=torch.float64)
    action = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.4, 1.0, 0.0]]).double()
    got, want = (s.linearize(state, action) for s in (replace(exact, implicit=True), exact))
    assert got.certificate.flags.tolist() == want.certificate.flags.tolist() == [True, False, False]
    assert torch.equal(got.A[0], want.A[0]) and torch.equal(got.B[0], want.B[0])
    assert not got.B[2, :, 0].any() and got.B[2, :, 1].any()
    torch.testing.assert_close(got.B[2], want.B[2], atol=1e-5, rtol=1e-5)


def test_a_wrong_slope_is_caught_and_mended(monkeypatch):
    state, action = visited("Hopper-v5", 20, scale=0.9)
    right = implicit_jacobians.ImplicitJacobians._slopes
    monkeypatch.setattr(
        implicit_jacobians.ImplicitJacobians, "_slopes", lambda *args: 1.01 * right(*args)
    )
    assert max(miss.max() for miss in misses("Hopper-v5", state, action).values()) < 1e-6


def test_threads_and_batches_change_nothing(monkeypatch):
    state, action = visited("HalfCheetah-v5", 7, scale=0.9)
    system = replace(SYSTEMS["HalfCheetah-v5"], implicit=True)
    whole = system.linearize(state, action)
    monkeypatch.setattr(implicit_jacobians, "thread_count", lambda: 3)
    again = system.linearize(state.flip(0), action.flip(0))
    assert torch.equal(whole.A, again.A.flip(0)) and torch.equal(whole.B, again.B.flip(0))
    assert system.linearize(state[:0], action[:0]).A.shape == (0, 17, 17)


def test_models_that_it_does_not_know_are_named():
    model = gymnasium.make("Hopper-v5").unwrapped.model
    assert unsupported(model) is None
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    assert "mjINT_IMPLICITFAST" in unsupported(model)
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    model.actuator_biastype[0] = mujoco.mjtBias.mjBIAS_AFFINE
    assert "actuator" in unsupported(model)
    assert "quaternions" in unsupported(SYSTEMS["Ant-v5"].physics.model)


def test_the_fast_route_is_taken_where_fewer_operations_do(monkeypatch):
    chosen = {
        env_id: gradlab.differentiable(env_id, jacobians="fast").system.implicit
        for env_id in SUPPORTED
    }
    assert chosen == {env_id: env_id != "InvertedPendulum-v5" for env_id in SUPPORTED}
    assert not gradlab.differentiable("Hopper-v5").system.implicit
    with pytest.warns(UserWarning, match=r"exact Jacobians alone.*quaternions"):
        ant = gradlab.differentiable("Ant-v5", jacobians="fast")
    assert not ant.system.implicit
    hopper = SYSTEMS["Hopper-v5"]
    assert price(hopper.physics) < hopper.linearization_price / 1.8
    monkeypatch.setattr("gradlab.systems.differentiable.thread_count", lambda: 64)
    assert not gradlab.differentiable("Hopper-v5", jacobians="fast").system.implicit
    with pytest.raises(InputError, match="jacobians is 'quick', expected one of exact, fast"):
        gradlab.differentiable("Hopper-v5", jacobians="quick")
