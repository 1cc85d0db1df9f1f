"""Automatic differentiation through a step that only its `linearize` can differentiate.

    forward   (s, a) → s', r, alive                                the system's own step
    backward  g_s = Aᵀ λ + r_s ρ,   g_a = Bᵀ λ + r_a ρ             λ, ρ: cotangents of s', r
    again     ∂(uᵀ g)/∂λ = A u_s + B u_a,   ∂(uᵀ g)/∂ρ = r_s u_s + r_a u_a,
              ∂(uᵀ g)/∂z = (g(z + h u) − g(z − h u)) / 2h          z = (s, a)

The last line differences g along u, since second derivatives are symmetric. Jacobians are made at
the first backward pass that reaches a step, and kept with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import Linearization, System

# Of |u|: first derivatives of MuJoCo steps are known to about 1e-8, so second ones to about 1e-4.
STEP = 1e-4


class StepRecord:
    """One step of a batch: where it was, and its Jacobians once they were needed.

    Attributes:
        at: state and action, copies.
        curved: its Jacobians are differenced for second derivatives; None: none are wanted.
    """

    def __init__(self, system: System, curved: System | None) -> None:
        self.system, self.curved = system, curved
        self.at: tuple[Tensor, Tensor] | None = None
        self._of: tuple[Tensor, Tensor] | None = None
        self._linear: Linearization | None = None

    def linearized(self, state: Tensor, action: Tensor) -> Linearization:
        """Jacobians at these rows; those of the last call where it was of the same."""
        if self._linear is None or self._of is None or not _equal(self._of, (state, action)):
            self._of = state.detach().clone(), action.detach().clone()
            self._linear = self.system.linearize(*self._of)
        return self._linear


def differentiated(record: StepRecord, state: Tensor, action: Tensor) -> Any:
    """s', r, alive with the derivatives above."""
    return _Step.apply(record, state, action)  # type: ignore[no-untyped-call]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(record: StepRecord, state: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        after = record.system.step(state, action)
        record.at = state.detach().clone(), action.detach().clone()
        return after.state, after.reward, after.alive

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.record, state, action = inputs
        ctx.save_for_backward(state, action)
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (state, action), (by_state, by_reward, _) = ctx.saved_tensors, cotangents
        if torch._C._functorch.is_legacy_batchedtensor(by_state):
            # `torch.autograd.grad(…, is_grads_batched=True)` knows no rule of `vmap` below.
            linear = ctx.record.linearized(state, action)
            return None, *_pulled_back(linear, by_state, by_reward)
        given = (ctx.record, state, action, by_state, by_reward)
        return None, *_Pullback.apply(*given)  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, *along: Tensor | None) -> Any:
        raise InputError(
            "a step has reverse mode only: use torch.func.vjp or jacrev in the place of jvp and "
            "jacfwd, or linearize"
        )

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], record: StepRecord, *inputs: Tensor) -> Any:
        out = _Step.apply(record, *_more_rows(info, dims[1:], inputs))  # type: ignore[no-untyped-call]
        axes = (-2, -1, -1)
        return tuple(_apart(info, x, axis) for x, axis in zip(out, axes, strict=True)), (0, 0, 0)


class _Pullback(torch.autograd.Function):
    """g_s, g_a of cotangents [..., N, ds] and [..., N] at states and actions of N rows."""

    @staticmethod
    def forward(record: StepRecord, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        state, action, by_state, by_reward = inputs
        return _pulled_back(record.linearized(state, action), by_state, by_reward)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.record = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor | None, ...]:
        _, *needs = ctx.needs_input_grad
        curved = any(needs[:2])
        if curved and ctx.record.curved is None:
            raise InputError(
                "a step is differentiated a second time: gradlab.differentiable(…, "
                "second_order=True) takes second derivatives, by differences of Jacobians"
            )
        inputs = (*ctx.saved_tensors, *along)
        *bent, onward, gained = _Second.apply(ctx.record, curved, *inputs)  # type: ignore[no-untyped-call]
        by_s, by_a = (g.sum_to_size(x.shape) for g, x in zip(bent, ctx.saved_tensors, strict=False))
        return None, by_s, by_a, onward, gained

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], record: StepRecord, *inputs: Tensor) -> Any:
        """Cotangents of the same states share their Jacobians; other states are further rows."""
        state, action, *cotangents = inputs
        if dims[1] is None and dims[2] is None:
            given = (state, action, *_in_front(info, dims[3:], cotangents))
            return _Pullback.apply(record, *given), (0, 0)  # type: ignore[no-untyped-call]
        rows = _more_rows(info, dims[1:], inputs)
        out = _Pullback.apply(record, *rows)  # type: ignore[no-untyped-call]
        return tuple(_apart(info, x, -2) for x in out), (0, 0)


class _Second(torch.autograd.Function):
    """Gradients of uᵀ g in s, a, λ and ρ; 0 for s and a unless `curved`."""

    @staticmethod
    def forward(record: StepRecord, curved: bool, *inputs: Tensor) -> tuple[Tensor, ...]:
        state, action, by_state, by_reward, u_s, u_a = inputs
        linear = record.linearized(state, action)
        onward = torch.einsum("nij,...nj->...ni", linear.A, u_s)
        onward = onward + torch.einsum("nij,...nj->...ni", linear.B, u_a)
        gained = (linear.r_s * u_s).sum(-1) + (linear.r_a * u_a).sum(-1)
        if not curved or record.curved is None:
            return torch.zeros_like(u_s), torch.zeros_like(u_a), onward, gained
        rows = (state.expand_as(u_s), action.expand_as(u_a), by_state, by_reward[..., None])
        bent = _bent(record.curved, *(x.flatten(0, -2) for x in (*rows, u_s, u_a)))
        return bent[0].view_as(u_s), bent[1].view_as(u_a), onward, gained

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise InputError("a step is differentiated a third time: at most second derivatives exist")

    @staticmethod
    def vmap(info: Any, dims: Any, record: StepRecord, curved: bool, *inputs: Tensor) -> Any:
        rows = _more_rows(info, dims[2:], inputs)
        out = _Second.apply(record, curved, *rows)  # type: ignore[no-untyped-call]
        axes = (-2, -2, -2, -1)
        return tuple(_apart(info, x, axis) for x, axis in zip(out, axes, strict=True)), (0,) * 4


def _pulled_back(
    linear: Linearization, by_state: Tensor, by_reward: Tensor
) -> tuple[Tensor, Tensor]:
    row, weight = by_state.unsqueeze(-2), by_reward.unsqueeze(-1)
    by_s = (row @ linear.A).squeeze(-2) + weight * linear.r_s
    by_a = (row @ linear.B).squeeze(-2) + weight * linear.r_a
    # A diverged row has no Jacobian, and without weight it must not make NaN of the gradient.
    unused = ((by_state == 0).all(-1) & (by_reward == 0)).unsqueeze(-1)
    by_s, by_a = (torch.where(unused, torch.zeros_like(g), g) for g in (by_s, by_a))
    return by_s, by_a


def _bent(
    system: System, state: Tensor, action: Tensor, by_state: Tensor, by_reward: Tensor,
    u_s: Tensor, u_a: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """∂(uᵀ g)/∂s and ∂(uᵀ g)/∂a of rows, by a central difference along u."""
    length = torch.cat([u_s, u_a], 1).norm(dim=1, keepdim=True)
    h = STEP / torch.where(length > 0, length, torch.ones_like(length))
    ends = []
    for sign in (h, -h):
        linear = system.linearize(state + sign * u_s, action + sign * u_a)
        ends.append(_pulled_back(linear, by_state, by_reward[:, 0]))
    by_s, by_a = ((ahead - behind) / (2 * h) for ahead, behind in zip(*ends, strict=True))
    return by_s, by_a


def _in_front(info: Any, dims: Any, inputs: Any) -> list[Tensor]:
    """vmap's axis as the first one of every input."""
    b = info.batch_size
    return [
        x.expand(b, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(inputs, dims, strict=True)
    ]


def _more_rows(info: Any, dims: Any, inputs: Any) -> list[Tensor]:
    """vmap's axis as further rows of s, a, λ, ρ and, if they are there, u_s and u_a."""
    rows = []
    for x, axis in zip(_in_front(info, dims, inputs), (-2, -2, -2, -1, -2, -2), strict=False):
        rows.append(x.movedim(0, axis - 1).flatten(axis - 1, axis))
    return rows


def _apart(info: Any, x: Tensor, axis: int) -> Tensor:
    """Further rows as vmap's axis, in front."""
    shape = list(x.shape)
    shape[axis : axis + 1 or None] = [info.batch_size, x.shape[axis] // info.batch_size]
    return x.reshape(shape).movedim(axis - 1, 0)


def _equal(some: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(some, others, strict=True))
