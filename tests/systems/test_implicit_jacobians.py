"""Jacobians by inverse dynamics, against differences of whole steps and of Gymnasium's steps."""

from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

import gradlab
from gradlab.errors import InputError
from gradlab.systems import implicit_jacobians
from gradlab.systems.implicit_jacobians import price, unsupported
from gradlab.systems.system import BLOCKS
from tests.systems.mujoco_states import SYSTEMS, visited

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


def test_second_derivatives_are_differences_of_exact_jacobians():
    state, action = visited("Hopper-v5", 20, scale=0.9)
    products = []
    for jacobians in ("exact", "fast"):
        env = gradlab.differentiable("Hopper-v5", second_order=True, jacobians=jacobians)
        a = action[12:14].clone().requires_grad_()
        total = env.step(state[12:14], a).state.sum()
        (g,) = torch.autograd.grad(total, a, create_graph=True)
        products.append(torch.autograd.grad(g.sum(), a)[0])
    assert torch.equal(*products) and products[0].abs().max() > 0
