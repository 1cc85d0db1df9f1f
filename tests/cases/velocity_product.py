"""A rod whose backward pass by hand leaves out the term v·v of its constraint.

Right: `rod(whole=False)` is named in ∂s′/∂s, at the columns of the velocities alone, and in no
∂s′/∂a; `rod(whole=True)` passes.
"""

import torch

import gradlab

DT, GRAVITY = 0.02, torch.tensor([0.0, -9.81]).double()


def acceleration(p, v, f, w):
    """That keeps the bob on the rod, λ from J a + w·w = −20 ċ − 100 c."""
    c, rate = 0.5 * ((p * p).sum(1) - 1), (p * v).sum(1)
    lam = -((p * f).sum(1) + (w * w).sum(1) + 20 * rate + 100 * c) / (p * p).sum(1)
    return f + lam[:, None] * p


class Rod(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p, v, f, whole):
        ctx.whole = whole
        ctx.save_for_backward(p, v, f)
        return acceleration(p, v, f, v)

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            p, v, f = (x.detach().requires_grad_() for x in ctx.saved_tensors)
            a = acceleration(p, v, f, v if ctx.whole else v.detach())
            return *torch.autograd.grad(a, (p, v, f), gradient), None


def rod(whole):
    def step(state, action):
        p, v = state[:, :2], state[:, 2:]
        tangent = torch.stack([-p[:, 1], p[:, 0]], 1)
        force = GRAVITY + 5 * torch.tanh(action) * tangent - 0.1 * v
        v = v + DT * Rod.apply(p, v, force, whole)
        p = p + DT * v
        reward = p[:, 1] - 0.05 * (v * v).sum(1) - 0.01 * action[:, 0] ** 2
        return torch.cat([p, v], 1), reward

    def starts(n, generator):
        angle = 6.28 * torch.rand(n, generator=generator, dtype=torch.float64)
        speed = torch.randn(n, generator=generator, dtype=torch.float64)
        c, s = angle.cos(), angle.sin()
        return torch.stack([c, s, -speed * s, speed * c], 1)

    system = gradlab.systems.from_function(step, 4, 1)
    return gradlab.Task("rod", system, None, starts, discount=0.98, horizon=20)
