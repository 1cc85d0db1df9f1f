"""Environments whose state lives in them, against the functions that they are."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.systems import from_environment, from_function


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


@pytest.mark.parametrize(
    ("env", "given", "words"),
    [
        (object(), (read, write), "env is .*, expected an object with step"),
        (Env(), (read, None), "write is None, expected a function .* that sets it: lambda env, s"),
        (Env(), (3, write), "read is 3, expected a function .*, such as lambda env: env.state"),
    ],
)
def test_what_is_missing_is_said(env, given, words):
    with pytest.raises(InputError, match=words):
        from_environment(env, *given, action_dim=1)


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
