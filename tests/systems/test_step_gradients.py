"""Autograd through a step by its linearization: once, and by `torch.func`."""

import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.differentiable import differentiable
from tests.systems.gymnasium_steps import smooth
from tests.systems.mujoco_states import SYSTEMS


def test_torch_func_and_batched_cotangents_give_the_certified_jacobians():
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
    s = state.clone().requires_grad_()
    basis = torch.eye(11, dtype=s.dtype)[:, None].expand(11, 3, 11)
    (sweeps,) = torch.autograd.grad(env.step(s, action).state, s, basis, is_grads_batched=True)
    assert torch.equal(sweeps.transpose(0, 1), want.A)
    _, pull = torch.func.vjp(lambda a: env.step(state, a).reward, action)
    assert torch.equal(pull(torch.ones(3, dtype=torch.float64))[0], want.r_a)
    with pytest.raises(InputError, match="reverse mode only"):
        torch.func.jvp(lambda a: env.step(state, a).reward, (action,), (action,))


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


def test_a_second_backward_is_refused_but_in_the_cotangents():
    state, action = smooth("Hopper-v5", 2)
    env, a = differentiable("Hopper-v5"), action.clone().requires_grad_()
    (g,) = torch.autograd.grad(env.step(state, a).state.sum(), a, create_graph=True)
    with pytest.raises(InputError, match="second time: it has first derivatives"):
        g.sum().backward()
    scale = torch.ones(2, 11, dtype=torch.float64, requires_grad=True)
    _, pull = torch.func.vjp(lambda a: differentiable("Hopper-v5").step(state, a).state, action)
    pull(scale)[0].sum().backward()
    want = SYSTEMS["Hopper-v5"].linearize(state, action).B.sum(2)
    torch.testing.assert_close(scale.grad, want, rtol=1e-12, atol=1e-12)
