"""A step that another engine computes, here NumPy with derivatives by hand, as a System.

A user's torch function becomes a System, or is told why not. What is special about the linear
system: its noise law and its checks. Environments whose state lives in them, against the functions
that they are.
"""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.systems import (
    LinearQuadratic,
    System,
    from_environment,
    from_function,
    from_jax,
    from_warp,
)
from gradlab.systems.engines import Engine, EngineSystem

SIZES = (0, 1, 7, 8, 21)


def pushed_pendulum(s: Tensor, a: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    after = torch.stack([s[:, 0] + 0.1 * s[:, 1], s[:, 1] + s[:, 0].sin() * a[:, 0] + xi[:, 0]], 1)
    return after, -s[:, 0] * s[:, 1] - a[:, 0] ** 3 + xi[:, 0] * s[:, 1]


TRUTH = from_function(pushed_pendulum, 2, 1, 1, lambda after: after[:, 0] < 0.5)


def values(block: list[Tensor]) -> list[Tensor]:
    assert all(len(x) == 8 and x.is_contiguous() and not x.requires_grad for x in block)
    s, a, xi = (x.numpy() for x in block)
    speed = s[:, 1] + np.sin(s[:, 0]) * a[:, 0] + xi[:, 0]
    reward = -s[:, 0] * s[:, 1] - a[:, 0] ** 3 + xi[:, 0] * s[:, 1]
    return [
        torch.from_numpy(np.stack([s[:, 0] + 0.1 * s[:, 1], speed], 1)),
        torch.from_numpy(reward),
    ]


def jacobian(block: list[Tensor]) -> np.ndarray:
    """∂[s', r]/∂[s, a, ξ], [rows, 3, 4]."""
    (x, v), a, xi = block[0].numpy().T, block[1].numpy()[:, 0], block[2].numpy()[:, 0]
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = [
        [one, 0.1 * one, zero, zero],
        [np.cos(x) * a, one, np.sin(x), one],
        [-v, xi - x, -3 * a**2, v],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def pullback(block: list[Tensor]) -> list[Tensor]:
    *inputs, by_state, by_reward = block
    left = np.concatenate([by_state.numpy(), by_reward.numpy()[:, None]], 1)[:, None]
    g = torch.from_numpy((left @ jacobian(inputs))[:, 0])
    return [g[:, :2], g[:, 2:3], g[:, 3:]]


def forward_mode(block: list[Tensor]) -> list[Tensor]:
    return [torch.from_numpy(jacobian(block)[:, :, :3])]


def bridged(forward: bool = True) -> EngineSystem:
    engine = Engine(values, pullback, forward_mode if forward else None, rows=8)
    return EngineSystem(engine, 2, 1, 1, lambda after: after[:, 0] < 0.5)


def inputs(n: int) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return draws[:, :2], draws[:, 2:3], draws[:, 3:]


@pytest.mark.parametrize("n", SIZES)
def test_any_number_of_rows_is_stepped_in_blocks(n):
    ours, truth = bridged().step(*inputs(n)), TRUTH.step(*inputs(n))
    torch.testing.assert_close(ours.state, truth.state, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(ours.reward, truth.reward, rtol=1e-14, atol=1e-14)
    assert torch.equal(ours.alive, truth.alive)


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("n", SIZES)
def test_jacobians_are_those_of_torch(n, forward):
    ours, truth = bridged(forward).linearize(*inputs(n)), TRUTH.linearize(*inputs(n))
    for block in ("A", "B", "r_s", "r_a"):
        got, want = getattr(ours, block), getattr(truth, block)
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14, msg=block)


def three_steps(system: System, s: Tensor, a: Tensor, xi: Tensor) -> Tensor:
    total = torch.zeros_like(s[:, 0])
    for _ in range(3):
        out = system.step(s, a * s[:, :1], xi)
        s, total = out.state, total + out.reward
    return total.sum() + s.square().sum()


def test_gradients_pass_through_several_steps_to_every_input():
    z = [x.clone().requires_grad_() for x in inputs(21)]
    ours, truth = (torch.autograd.grad(three_steps(s, *z), z) for s in (bridged(), TRUTH))
    for got, want in zip(ours, truth, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_many_cotangents_at_once():
    s, a, xi = inputs(5)
    rows = torch.func.jacrev(lambda x: bridged().step(x, a, xi).state)(s)
    truth = TRUTH.linearize(s, a, xi).A
    torch.testing.assert_close(torch.einsum("nink->nik", rows), truth, rtol=1e-14, atol=1e-14)


def test_second_derivatives_are_refused_not_zero():
    s, a, xi = (x.requires_grad_() for x in inputs(3))
    out = bridged().step(s, a, xi).reward.sum()
    (first,) = torch.autograd.grad(out, a, create_graph=True)
    with pytest.raises(InputError, match="a second time"):
        torch.autograd.grad(first.sum(), a)


def test_a_wrong_width_names_the_argument():
    s, _, xi = inputs(3)
    with pytest.raises(InputError, match=r"^action has shape \(3, 2\), expected \[3, 1\]"):
        bridged().step(s, s, xi)
    with pytest.raises(InputError, match=r"^state_dim is 0, expected an integer ≥ 1"):
        EngineSystem(bridged().engine, 0, 1, 0, None)


def test_an_engine_that_is_not_installed_is_one_line_with_its_command(monkeypatch):
    for name in ("jax", "warp"):
        monkeypatch.setitem(sys.modules, name, None)

    def pay(*given: Tensor) -> Tensor:
        raise AssertionError("nothing is stepped")

    for makes, package, extra in (
        (lambda: from_jax(pay, 2, 1), "jax", "jax"),
        (lambda: from_warp(pay, 2, 1, pay), "warp", "warp"),
    ):
        with pytest.raises(InputError) as caught:
            makes()
        assert str(caught.value) == (
            f"{package} is not installed: pip install -c constraints.txt '.[{extra}]' in a clone "
            f"of gradlab"
        )


STATE = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
ELSEWHERE = torch.ones(1, 1, dtype=torch.float64, device="meta")  # as of a GPU


def scalar(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * s + 0.5 * a, -(s[:, 0] ** 2 + 2 * a[:, 0] ** 2)


def test_jacobians_of_a_scalar_system_by_hand():
    system = from_function(scalar, state_dim=1, action_dim=1)
    with torch.no_grad():
        jacobian = system.linearize(STATE, 3 * STATE)
    assert torch.equal(jacobian.A, torch.full((2, 1, 1), 0.9, dtype=torch.float64))
    assert torch.equal(jacobian.B, torch.full((2, 1, 1), 0.5, dtype=torch.float64))
    assert torch.equal(jacobian.r_s, -2 * STATE)
    assert torch.equal(jacobian.r_a, -12 * STATE)


def test_a_reward_of_one_column_is_taken_as_a_row_and_said():
    def column(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        after, reward = scalar(s, a)
        return after, reward[:, None]

    plain, other = (from_function(each, 1, 1) for each in (scalar, column))
    with pytest.warns(UserWarning, match=r"rewards of shape \[N, 1\] are taken as \[N\]"):
        found = other.step(STATE, 3 * STATE)
    assert torch.equal(found.reward, plain.step(STATE, 3 * STATE).reward)
    here, there = (each.linearize(STATE, 3 * STATE) for each in (plain, other))
    assert torch.equal(here.r_s, there.r_s) and torch.equal(here.r_a, there.r_a)

    class Own(type(plain)):  # a class of one's own is not changed, but refused at the door
        def step(self, state, action, noise=None):
            after = super().step(state, action, noise)
            return replace(after, reward=after.reward[:, None])

    own = gradlab.Task("own", Own(scalar, 1, 1, 0, None), None, lambda n: torch.ones(n, 1), 0.9, 2)
    with pytest.raises(InputError, match=r"step returned the reward \[2, 1\], expected \[2\]"):
        gradlab.measure(own, torch.nn.Linear(1, 1), lambda s, a: s[:, 0])


def test_without_noise_a_noisy_function_is_called_with_zeros():
    system = from_function(lambda s, a, xi: (s + a + xi, s[:, 0]), 1, 1, noise_dim=1)
    assert torch.equal(system.step(STATE, STATE).state, 2 * STATE)
    assert torch.equal(system.step(STATE, STATE, STATE).state, 3 * STATE)


def test_alive_judges_the_next_state():
    system = from_function(scalar, 1, 1, alive=lambda after: after[:, 0] > 0.5)
    assert system.step(STATE, 0 * STATE).alive.tolist() == [True, False]
    wrong = from_function(scalar, 1, 1, alive=lambda after: after)
    with pytest.raises(InputError, match=r"what alive returns is .* \(2, 1\), torch.float64"):
        wrong.step(STATE, STATE)


def test_a_certificate_judges_contacts_and_limits_apart_where_the_function_has_them():
    system = from_function(
        scalar, 1, 1, contacts=lambda s: s[:, 0] > 0, beyond_limits=lambda s: s[:, 0] > 1
    )
    counts = gradlab.certify(system, samples=64).facts["strata"]
    assert min(counts[name] for name in ("free", "contact", "limit")) > 0
    wrong = from_function(scalar, 1, 1, contacts=lambda s: s)
    with pytest.raises(InputError, match=r"what contacts returns is .*torch.float64"):
        gradlab.certify(wrong, samples=64)


def test_wrong_outputs_are_named_with_their_shapes():
    wide = from_function(lambda s, a: (s, torch.cat([s, a], 1)), 1, 1)
    with pytest.raises(InputError, match=r"reward \[2, 2\] in .*, expected \[2, 1\] and \[2\]"):
        wide.step(STATE, STATE)
    for bad in (lambda s, a: s, lambda s, a: (s, 1.0), lambda s, a: None, lambda s, a: (s, a, {})):
        with pytest.raises(InputError, match=r"expected .*next_state and reward"):
            from_function(bad, 1, 1).step(STATE, STATE)
    with pytest.raises(InputError, match="state_dim is 0"):
        from_function(scalar, 0, 1)


def test_a_dead_control_and_a_constant_reward_have_zero_derivatives():
    system = from_function(
        lambda state, action: (0.9 * state, torch.zeros(len(state), dtype=state.dtype)),
        state_dim=2,
        action_dim=1,
    )
    state = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    linear = system.linearize(state, torch.zeros(3, 1, dtype=torch.float64))
    assert torch.equal(linear.A, 0.9 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    for block in (linear.B, linear.r_s, linear.r_a):
        assert (block == 0).all()


def test_a_column_of_rewards_and_of_survivors_is_taken_as_rows():
    plain = from_function(scalar, 1, 1, alive=lambda after: after[:, 0] > 0.5)
    column = from_function(
        lambda s, a: (scalar(s, a)[0], scalar(s, a)[1][:, None]), 1, 1, alive=lambda s: s > 0.5
    )
    for field in ("state", "reward", "alive"):
        ours, theirs = (getattr(x.step(STATE, 0 * STATE), field) for x in (column, plain))
        assert torch.equal(ours, theirs)
    for block in ("A", "B", "r_s", "r_a"):
        ours, theirs = (getattr(x.linearize(STATE, 0 * STATE), block) for x in (column, plain))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda s, a: (torch.from_numpy(0.9 * s.numpy()), s[:, 0]), "without numpy"),
        (lambda s, a: (s.numpy(), s[:, 0].numpy()), "torch operations"),
        (lambda s, a: (torch.nn.Linear(1, 1)(s), s[:, 0]), r"\.to\(state\.dtype\)"),
        (
            lambda s, a: (s.float(), s[:, 0]),
            r"\[2, 1\] in torch.float32 .* in torch.float64 \(a network",
        ),
        (lambda s: (s, s[:, 0]), r"step takes \(state, action\)"),
        (lambda s, a: (s, s[:, 3]), "step failed .IndexError"),
        (lambda s, a: (s.add_(a), s[:, 0]), "without changing a tensor in place"),
        (
            lambda s, a: (torch.where(s > 0, s, ELSEWHERE), s[:, 0]),
            r"its states are on cpu; .*\.to\(",
        ),
    ],
)
def test_a_step_that_cannot_be_differentiated_is_told_in_one_line(step, words):
    with pytest.raises(InputError, match=words) as error:
        from_function(step, 1, 1).linearize(STATE, STATE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("state_dim", "2"), ("noise_dim", -1), ("alive", 3)])
def test_what_is_no_dimension_and_no_function_is_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is "):
        from_function(**{"step": scalar, "state_dim": 1, "action_dim": 1, name: value})


def test_a_step_that_fails_names_the_line_of_the_users_file():
    with pytest.raises(InputError, match=r"ZeroDivisionError: .*test_given_systems\.py, line \d+"):
        from_function(lambda s, a: 1 / 0, 1, 1).step(STATE, STATE)


def test_a_step_may_convert_its_network():
    net = torch.nn.Linear(1, 1)
    system = from_function(lambda s, a: (s + net.double()(a), s[:, 0]), 1, 1)
    for _ in range(2):
        found = system.linearize(STATE, STATE)
        assert torch.equal(found.B[:, 0, 0], net.weight.detach().double()[0].expand(len(STATE)))
    assert net.weight.grad is None and net(STATE).shape == STATE.shape


ONE = torch.eye(2, dtype=torch.float64)
B = torch.ones(2, 1, dtype=torch.float64)
SKEW = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)


def test_noise_has_the_covariance_asked_for():
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    system = LinearQuadratic(ONE, B, ONE, ONE[:1, :1], covariance)
    n = 200_000
    zero = torch.zeros(n, 2, dtype=torch.float64)
    noise = system.sample_noise(n, torch.Generator().manual_seed(0))
    after = system.step(zero, zero[:, :1], noise).state
    torch.testing.assert_close(after.T.cov(), covariance, atol=0.02, rtol=0)


def test_zero_covariance_means_no_noise_and_none_is_inferred():
    system = LinearQuadratic(ONE, B, ONE, ONE[:1, :1], 0 * ONE)
    state, action = torch.ones(3, 2).double(), torch.ones(3, 1).double()
    noise = system.sample_noise(3, torch.Generator().manual_seed(0))
    after = system.step(state, action, noise).state
    assert torch.equal(after, system.step(state, action).state)
    assert torch.equal(system.infer_noise(state, action, after + 1), torch.zeros_like(state))


def test_reward_is_paid_before_the_step():
    system = LinearQuadratic(0 * ONE, 0 * B, SKEW + SKEW.T, 3 * ONE[:1, :1], 0 * ONE)
    state = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    reward = system.step(state, torch.tensor([[2.0]], dtype=torch.float64)).reward
    # -(2·1 + 2·0.5·2 + 2·4) - 3·4
    assert reward.item() == -24.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("A", B, "A has shape"),
        ("A", ONE * torch.nan, "A has entries"),
        ("B", ONE[:1], "B has shape"),
        ("Q", SKEW, "Q is not symmetric"),
        ("R", -ONE[:1, :1], "R has the eigenvalue -1"),
        ("noise_covariance", B, "noise_covariance has shape"),
        ("noise_covariance", ONE * torch.inf, "noise_covariance has entries"),
    ],
)
def test_matrices_are_checked_by_name(field, value, message):
    matrices = {"A": ONE, "B": B, "Q": ONE, "R": ONE[:1, :1], "noise_covariance": ONE}
    with pytest.raises(InputError, match=message):
        LinearQuadratic(**(matrices | {field: value}))


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
        ("noise", "ends elsewhere the second time .*: switch its noise off"),
        ("numpy", "ends elsewhere the second time"),
        ("clock", r"the second time .*left out \(a clock, .*into read and write"),
        ("mean", "env.step mixes the rows"),
        ("mean at rest", "env.step mixes the rows"),
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

    with pytest.raises(InputError, match="ends elsewhere the second time"):
        from_environment(Env(), lambda env: env.s[:, :1], half, 1)


def test_a_state_that_cannot_be_written_is_refused():
    with pytest.raises(InputError, match="write does not set what read gives"):
        from_environment(Env(), read, lambda env, state: write(env, 2 * state), 1)


@pytest.mark.parametrize(
    ("env", "given", "words"),
    [
        (object(), (read, write), "env is .*, expected an object with step"),
        (Env(), (read, None), "write is None, expected a function .*: lambda env, s"),
        (Env(), (3, write), "read is 3, expected a function .*: lambda env: env.state"),
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
