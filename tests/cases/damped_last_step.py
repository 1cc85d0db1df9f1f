"""A planner layer whose last step, the one that is attached, is one of its solver.

Right: a damped Newton step is a half of the derivative (`newton(0.5)` is named, `newton(1.0)`
passes); a whole Gauss-Newton step is another derivative where residuals stay (`gauss_newton` is
named); by the implicit function theorem with the whole Hessian it is right (`implicit` passes). No
warning of torch's own reaches the user.
"""

import torch

START = torch.Generator().manual_seed(0)
INPUTS = torch.randn(64, 2, generator=START, dtype=torch.float64)


def _two(y, x):
    """Two residuals in two unknowns, which a solution makes 0."""
    (a, b), (p, q) = y.unbind(-1), x.unbind(-1)
    return torch.stack([a + 0.3 * torch.sin(b) - p, b + 0.2 * a * a - q], -1)


def _three(y, x):
    """One more, so that some stay."""
    (a, b), (p, q) = y.unbind(-1), x.unbind(-1)
    return torch.cat([_two(y, x), (0.5 * (a - b) - 0.1 * p * q)[..., None]], -1)


def _jacobian(residual, y, x):
    with torch.enable_grad():
        z = y.detach().requires_grad_()
        rows = residual(z, x.detach()).unbind(-1)
        J = [torch.autograd.grad(r.sum(), z, retain_graph=True)[0] for r in rows]
    return torch.stack(J, 1)


def _step(residual, y, x, size):
    """A step of least squares from y, attached to x by its residuals alone."""
    J, r = _jacobian(residual, y, x), residual(y.detach(), x)
    return y.detach() - size * torch.linalg.solve(J.mT @ J, J.mT @ r[..., None])[..., 0]


def _solved(residual, x):
    y = torch.zeros_like(x).detach()
    for _ in range(25):
        y = _step(residual, y, x.detach(), 1.0)
    return y


def newton(last):
    return lambda x: _step(_two, _solved(_two, x), x, last)


def gauss_newton(x):
    return _step(_three, _solved(_three, x), x, 1.0)


def implicit(x):
    with torch.enable_grad():
        z = _solved(_three, x).requires_grad_()
        (g,) = torch.autograd.grad(_three(z, x).square().sum(), z, create_graph=True)
        rows = [torch.autograd.grad(row.sum(), z, retain_graph=True)[0] for row in g.unbind(-1)]
    H, g = torch.stack(rows, 1).detach(), g - g.detach()  # 0, with the slope of x alone
    return z.detach() - torch.linalg.solve(H, g[..., None])[..., 0]
