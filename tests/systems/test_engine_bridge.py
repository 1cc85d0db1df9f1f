"""A step that another engine computes, here NumPy with derivatives by hand, as a System."""

import sys

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems import (
    System,
    from_function,
    from_jax,
    from_mjx,
    from_mujoco_torch,
    from_newton,
    from_vmas,
    from_warp,
)
from gradlab.systems.engines.bridge import Engine, EngineSystem

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


@pytest.mark.parametrize("way", ["is_grads_batched", "torch.func"])
def test_many_cotangents_at_once(way):
    s, a, xi = inputs(5)
    truth = TRUTH.linearize(s, a, xi).A
    if way == "torch.func":
        rows = torch.func.jacrev(lambda x: bridged().step(x, a, xi).state)(s)
        got = torch.einsum("nink->nik", rows)
    else:
        z = s.clone().requires_grad_()
        basis = torch.eye(2, dtype=z.dtype)[:, None].expand(2, 5, 2)
        out = bridged().step(z, a, xi).state
        got = torch.autograd.grad(out, z, basis, is_grads_batched=True)[0].transpose(0, 1)
    torch.testing.assert_close(got, truth, rtol=1e-14, atol=1e-14)


def test_second_derivatives_are_refused_not_zero():
    s, a, xi = (x.requires_grad_() for x in inputs(3))
    out = bridged().step(s, a, xi).reward.sum()
    (first,) = torch.autograd.grad(out, a, create_graph=True)
    with pytest.raises(InputError, match="no second derivatives"):
        torch.autograd.grad(first.sum(), a)


def test_a_wrong_width_names_the_argument():
    s, _, xi = inputs(3)
    with pytest.raises(InputError, match=r"^action has shape \(3, 2\), expected \[3, 1\]"):
        bridged().step(s, s, xi)
    with pytest.raises(InputError, match=r"^state_dim is 0, expected an integer ≥ 1"):
        EngineSystem(bridged().engine, 0, 1, 0, None)


def test_an_engine_that_is_not_installed_is_one_line_with_its_command(monkeypatch):
    for name in ("jax", "mujoco.mjx", "warp", "newton", "vmas", "mujoco_torch"):
        monkeypatch.setitem(sys.modules, name, None)
    ball = "<mujoco><worldbody><body><joint/><geom size='1'/></body></worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(ball)

    def pay(*given: Tensor) -> Tensor:
        raise AssertionError("nothing is stepped")

    for makes, package, extra in (
        (lambda: from_jax(pay, 2, 1), "jax", "jax"),
        (lambda: from_mjx(model, pay), "mujoco-mjx", "mjx"),
        (lambda: from_warp(pay, 2, 1, pay), "warp", "warp"),
        (lambda: from_newton(None, pay, 0.1), "newton", "newton"),
        (lambda: from_vmas("simple"), "vmas", "vmas"),
    ):
        with pytest.raises(InputError) as caught:
            makes()
        assert str(caught.value) == f"{package} is not installed: pip install 'gradlab[{extra}]'"
    # gradlab needs a later MuJoCo than mujoco-torch works with: no extra has both.
    with pytest.raises(
        InputError, match=r"^mujoco-torch is not .*: pip install .* mujoco==3\.5\.0"
    ):
        from_mujoco_torch(model, pay)


def test_mujoco_torch_beside_a_mujoco_that_it_does_not_know_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "mujoco_torch.py").write_text("import mujoco\nmujoco.no_more\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mujoco_torch", raising=False)
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    with pytest.raises(
        InputError, match=r"^mujoco-torch does not work with MuJoCo \d.*pip install"
    ):
        from_mujoco_torch(model, lambda *given: given[0][:, 0])
