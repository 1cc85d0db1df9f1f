"""Derivatives of MuJoCo tasks in torch, against differences of Gymnasium's own steps.

Autograd through a step by its linearization: once, and by `torch.func`. Certified differences:
their order, their limits, and what the certificate catches.
"""

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.errors import InputError
from gradlab.systems.differences import certified_jacobian
from gradlab.systems.differentiable import differentiable
from gradlab.systems.system import System
from tests.systems.mujoco_states import SYSTEMS, Gymnasium, smooth, visited


@pytest.mark.parametrize("env_id", ["Hopper-v5", "HalfCheetah-v5"])
def test_steps_are_the_simulators_and_gradients_differences_of_gymnasiums(env_id):
    state, action = smooth(env_id, 3)
    reference, env = Gymnasium(env_id), differentiable(env_id)
    weight = np.random.default_rng(0).standard_normal((3, state.shape[1] + 1))
    z = [x.clone().requires_grad_() for x in (state, action)]
    after, reward, alive = env.step(*z)
    plain = SYSTEMS[env_id].step(state, action)
    assert torch.equal(after, plain.state) and torch.equal(reward, plain.reward)
    assert not alive.requires_grad
    outputs = torch.cat([after, reward[:, None]], 1)
    got = torch.cat(torch.autograd.grad((torch.from_numpy(weight) * outputs).sum(), z), 1).numpy()
    assert not env.flagged.any()

    def along(i: int, move: np.ndarray) -> float:
        s, a = state[i].numpy(), action[i].numpy()
        ends = [
            reference.step(s + sign * move[: len(s)], a + sign * move[len(s) :]) for sign in (1, -1)
        ]
        return float(weight[i] @ (ends[0] - ends[1]))

    for i in range(3):
        misses = []
        for h in (1e-6, 1e-7):  # the wider stencil may meet a contact that the narrow one does not
            moves = h * np.eye(got.shape[1])
            want = np.array([along(i, move) for move in moves]) / (2 * h)
            misses.append(np.abs(got[i] - want).max() / np.abs(want).max())
        assert min(misses) < 1e-5, misses


def test_several_steps_chain_to_the_derivative_of_gymnasiums_return():
    """Five steps under a policy with parameters, against differences along one direction."""
    env, reference = differentiable("Hopper-v5"), Gymnasium("Hopper-v5")
    state = smooth("Hopper-v5", 4)[0]
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(11, 8), nn.Tanh(), nn.Linear(8, 3), nn.Tanh()).double()
    direction = [torch.randn_like(p) for p in policy.parameters()]

    s, total, flagged = state, torch.zeros(()).double(), torch.zeros(len(state), dtype=torch.bool)
    for _ in range(5):
        s, reward, _ = env.step(s, 0.5 * policy(s))
        total, flagged = total + reward.sum(), flagged | env.flagged
    assert not flagged.any()
    grads = torch.autograd.grad(total, list(policy.parameters()))
    got = sum(float((g * d).sum()) for g, d in zip(grads, direction, strict=True))

    @torch.no_grad()
    def earned(h: float) -> float:
        moved, sum_of_rewards = copy.deepcopy(policy), 0.0
        for p, d in zip(moved.parameters(), direction, strict=True):
            p += h * d
        for row in state:
            s = row
            for _ in range(5):
                out = reference.step(s.numpy(), (0.5 * moved(s)).numpy())
                s, sum_of_rewards = torch.from_numpy(out[:-1]), sum_of_rewards + out[-1]
        return float(sum_of_rewards)

    misses = [abs((earned(h) - earned(-h)) / (2 * h) / got - 1) for h in (1e-6, 1e-7)]
    assert min(misses) < 1e-5, misses


def test_flagged_rows_keep_their_jacobian_and_rows_without_weight_add_nothing():
    state = torch.zeros(2, 11, dtype=torch.float64)
    state[:, 0], state[:, 2], state[:, 3], state[:, 10] = 2.0, -0.5, -0.5, 2.0
    state[:, 4] = torch.tensor([np.deg2rad(45.0), 0.1])
    env, s = differentiable("Hopper-v5", batch=2), state.clone().requires_grad_()
    action = torch.zeros(2, 3, dtype=torch.float64)
    env.step(s, action).state.sum().backward()
    want = SYSTEMS["Hopper-v5"].linearize(state, action)
    assert env.flagged.tolist() == want.certificate.flags.tolist() == [True, False]
    torch.testing.assert_close(s.grad, want.A.sum(1), rtol=1e-12, atol=1e-12)
    wild = state.clone()
    wild[0, 5:] = 1e8
    s = wild.requires_grad_()
    after, reward, alive = env.step(s, action)
    assert not alive[0] and after[0].isnan().any()
    (alive * torch.where(alive, reward, 0.0)).sum().backward()
    assert (s.grad[0] == 0).all() and s.grad[1].abs().max() > 0


def test_dtypes_empty_batches_copies_and_other_ways_to_name_the_task():
    state, action = smooth("Hopper-v5", 2)
    task = gradlab.tasks.mujoco("Hopper-v5", ctrl_cost_weight=0.0)
    for given in (task, task.simulator, task.simulator.environment):
        a = action.clone().requires_grad_()
        env = gradlab.differentiable(given)
        env.step(state, a).reward.sum().backward()
        want = task.simulator.linearize(state, action).r_a
        assert torch.equal(a.grad, want) and isinstance(env, System)
    low = state.float().requires_grad_()
    after, reward, _ = pickle.loads(pickle.dumps(env)).step(low, action.float())
    after.sum().backward()
    assert low.grad.dtype == after.dtype == reward.dtype == torch.float32
    none = torch.zeros(0, 11, dtype=torch.float64, requires_grad=True)
    env.step(none, torch.zeros(0, 3, dtype=torch.float64)).state.sum().backward()
    assert none.grad.shape == (0, 11) and env.flagged.shape == (0,)


@pytest.mark.parametrize("env_id", ["Ant-v5", "Humanoid-v5"])
def test_what_is_left_out_of_a_reward_is_a_warning(env_id):
    with pytest.warns(UserWarning, match="left out here: the cost of contact forces"):
        env = differentiable(env_id, batch=1)
    state, action = visited(env_id, 1)
    s = state.clone().requires_grad_()
    env.step(s, action).reward.sum().backward()
    assert torch.equal(s.grad, SYSTEMS[env_id].linearize(state, action).r_s)


def test_bad_input_is_one_line():
    env = differentiable("Hopper-v5", batch=2)
    state, action = torch.zeros(2, 11).double(), torch.zeros(2, 3).double()
    far, nan = state.clone(), state.clone()
    far[1, 2], nan[0, 3] = 9.0, torch.nan
    for call, words in (
        (lambda: differentiable("Hopper-v4"), "environment is 'Hopper-v4', expected one of"),
        (lambda: differentiable(3), "environment is 3"),
        (
            lambda: differentiable(gradlab.tasks.pendulum()),
            "differentiates this one's step already",
        ),
        (lambda: differentiable("Hopper-v5", batch=0), "batch is 0, expected an integer ≥ 1"),
        (lambda: env.certificate, "call step first"),
        (lambda: env.step(state[:1], action[:1]), "1 rows, expected batch=2"),
        (lambda: env.step(state[0], action), r"state has shape \(11,\), expected \[N, 11\]"),
        (lambda: env.step(state, action[:, :2]), r"expected \[2, 3\]"),
        (lambda: env.step(state.numpy(), action), "state is .*expected a tensor"),
        (
            lambda: env.step(state.long(), action),
            "state is .* torch.int64, expected a tensor in float64",
        ),
        (lambda: env.step(far, action), "state row 1: thigh_joint is 9, beyond its limits"),
        (lambda: env.step(nan, action), "state row 0: dimension 3 is nan"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def small_policy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(11, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh())


@pytest.mark.parametrize("actions", ["first", "all"])
def test_estimators_with_it_are_those_with_its_simulator(actions):
    starts, policy = smooth("Hopper-v5", 4)[0], small_policy().double()
    tail = gradlab.Tail(3, None, 0.99)
    gradients = [
        gradlab.Estimator(system, system, actions, tail).gradients(policy, starts)
        for system in (SYSTEMS["Hopper-v5"], differentiable("Hopper-v5"))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_its_derivatives_are_certified():
    assert gradlab.certify(differentiable("Hopper-v5"), *smooth("Hopper-v5", 16)).passed


def test_the_examples_of_the_docs_run():
    page = Path(__file__).parents[2] / "docs" / "mujoco.md"
    loss, cut, _ = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S)
    names: dict[str, object] = {}
    exec(compile(loss.replace("64", "4"), page, "exec"), names)
    gradients = [p.grad for p in names["policy"].parameters()]
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)
    names |= {"action": torch.zeros(4, 3, dtype=torch.float64), "state": names["state"].detach()}
    exec(compile(cut, page, "exec"), names)


def test_torch_func_gives_the_certified_jacobians():
    state, action = smooth("Hopper-v5", 3)
    env = differentiable("Hopper-v5")
    want = SYSTEMS["Hopper-v5"].linearize(state, action)
    by_rows = torch.func.jacrev(lambda s: env.step(s, action).state)(state)
    assert torch.equal(torch.einsum("nink->nik", by_rows), want.A)

    def row(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        after = env.step(s[None], a[None])
        return after.state[0], after.reward[0]

    B, r_a = torch.func.vmap(torch.func.jacrev(row, argnums=1))(state, action)
    assert torch.equal(B, want.B) and torch.equal(r_a, want.r_a)
    _, pull = torch.func.vjp(lambda a: env.step(state, a).reward, action)
    assert torch.equal(pull(torch.ones(3, dtype=torch.float64))[0], want.r_a)


def test_jacobians_are_made_when_they_are_needed_and_once(monkeypatch):
    env, calls = differentiable("Hopper-v5"), []
    linearize = type(env.system).linearize
    monkeypatch.setattr(
        type(env.system), "linearize", lambda *args: calls.append(1) or linearize(*args)
    )
    state, action = smooth("Hopper-v5", 2)
    calls.clear()
    env.step(state, action)
    s = state.clone().requires_grad_()
    after, reward, _ = env.step(s, action)
    assert not calls
    for i in range(3):
        after[:, i].sum().backward(retain_graph=True)
    reward.sum().backward()
    assert len(calls) == 1 and env.flagged.shape == (2,) and len(calls) == 1


def test_a_second_backward_is_refused():
    state, action = smooth("Hopper-v5", 2)
    env, a = differentiable("Hopper-v5"), action.clone().requires_grad_()
    (g,) = torch.autograd.grad(env.step(state, a).state.sum(), a, create_graph=True)
    with pytest.raises(InputError, match="second time: it has first derivatives"):
        g.sum().backward()


FREE = np.array([-np.inf]), np.array([np.inf])


def smooth_step(s: np.ndarray, a: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(s[:, 0] + 2 * a[:, 0]), np.exp(0.5 * s[:, 1]) * a[:, 0]], 1)


def points(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)), rng.normal(size=(n, 1))


def exact(s: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slope, growth = np.cos(s[:, 0] + 2 * a[:, 0]), np.exp(0.5 * s[:, 1])
    zero = 0 * slope
    A = np.stack([slope, zero, zero, 0.5 * growth * a[:, 0]], 1).reshape(-1, 2, 2)
    return A, np.stack([2 * slope, growth], 1)[:, :, None]


def test_differences_converge_with_order_two():
    s, a = points()
    A, B = exact(s, a)
    errors = []
    for epsilon in (4e-2, 2e-2, 1e-2):
        got = certified_jacobian(smooth_step, s, a, *FREE, epsilon)
        errors.append([np.abs(got.A - A).max(), np.abs(got.B - B).max()])
    assert np.diff(np.log2(errors), axis=0) == pytest.approx(np.full((2, 2), -2), abs=0.02)


def test_estimated_error_bounds_the_true_one_of_most_states():
    s, a = points(400)
    A, _ = exact(s, a)
    got = certified_jacobian(smooth_step, s, a, *FREE, 1e-3)
    true = np.abs(got.A - A).max((1, 2)) / np.abs(A).max((1, 2))
    assert np.median(got.error_A / true) > 0.5


def test_a_jump_inside_the_stencil_is_flagged_and_outside_it_is_not():
    def jump(s: np.ndarray, a: np.ndarray) -> np.ndarray:
        return s + a + 1e-4 * (s[:, :1] > 0)

    s = np.array([[0.0], [2e-9], [2e-8], [0.5e-6], [2e-6], [-1.0]])
    got = certified_jacobian(jump, s, 0 * s, *FREE, 1e-6)
    # The next three are clean at a step that does not reach the jump.
    assert got.flags.tolist() == [True, False, False, False, False, False]
    assert got.step == pytest.approx([1e-6, 1e-9, 1e-8, 1e-7, 1e-6, 1e-6])
    assert got.A[1:, 0, 0] == pytest.approx(1, abs=1e-6)
    # The first keeps the step at which the jump weighs least: 1e-4 over 2e-6.
    assert got.A[0, 0, 0] == pytest.approx(51, rel=1e-3)


def test_a_step_that_returns_nan_is_flagged():
    s = np.ones((2, 1))
    got = certified_jacobian(lambda s, a: np.where(a > 0, np.nan, s), s, 0 * s, *FREE, 1e-6)
    assert got.flags.all()


def test_limits_give_the_inside_derivative_on_them_and_zero_beyond():
    def clipped(s: np.ndarray, a: np.ndarray) -> np.ndarray:
        return s + np.clip(a, -1, 2) ** 2

    a = np.array([[-1.0], [2.0], [2.0 - 1e-7], [-1.5], [2 + 1e-12], [0.5]])
    limits = np.array([-1.0]), np.array([2.0])
    got = certified_jacobian(clipped, 0 * a, a, *limits, 1e-6)
    assert got.B[:, 0, 0] == pytest.approx([-2, 4, 4, 0, 0, 1], abs=3e-6)
    assert got.B[3:5].any() == np.False_
    assert not got.flags.any()
