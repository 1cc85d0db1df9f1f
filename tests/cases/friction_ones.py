"""Friction whose backward pass by hand has ones for the identity, or lacks a term.

Right: `slide("ones")` and `slide("chain")` are named in ∂s′/∂s; `slide("whole")` passes.
"""

import torch

import gradlab

DT, MOST, SLIP = 0.02, 0.6, 0.3
NORMAL = torch.tensor([0.0, 0.6, 0.8]).double()
ALONG = torch.outer(NORMAL, NORMAL)


class Friction(torch.autograd.Function):
    """−m(|v_t|) v_t / |v_t|, m = MOST tanh(· / SLIP), of the tangential velocity."""

    @staticmethod
    def forward(ctx, v, kind):
        tangential = v - v @ ALONG
        speed = tangential.norm(dim=1, keepdim=True) + 1e-9
        ctx.kind = kind
        ctx.save_for_backward(tangential, speed)
        return -MOST * torch.tanh(speed / SLIP) * tangential / speed

    @staticmethod
    def backward(ctx, gradient):
        tangential, speed = ctx.saved_tensors
        one = torch.ones(3, 3) if ctx.kind == "ones" else torch.eye(3)
        d = tangential / speed
        along = (gradient * d).sum(1, keepdim=True) * d
        out = -MOST * torch.tanh(speed / SLIP) / speed * (gradient - along)
        if ctx.kind != "chain":
            out = out - MOST / SLIP * (1 - torch.tanh(speed / SLIP) ** 2) * along
        return out @ (one.to(out) - ALONG), None


def slide(kind):
    pull = torch.tensor([0.0, 0.4, -0.3]).double()

    def step(state, action):
        p, v = state[:, :3], state[:, 3:]
        push = torch.nn.functional.pad(2 * torch.tanh(action), (0, 1))
        v = v + DT * (pull.to(v) + push + 3 * Friction.apply(v, kind))
        p = p + DT * v
        return torch.cat([p, v], 1), -(p[:, :2] ** 2).sum(1) - 0.01 * (action**2).sum(1)

    def starts(n, generator):
        scale = torch.tensor([1.0, 1, 1, 0.5, 0.5, 0.5]).double()
        return scale * torch.randn(n, 6, generator=generator, dtype=torch.float64)

    system = gradlab.systems.from_function(step, 6, 2)
    return gradlab.Task("slide", system, None, starts, discount=0.98, horizon=20)
