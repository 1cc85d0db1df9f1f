"""Sound steps that no output shows to be inexact: precision lost inside, and tolerances of solvers.

    in a lower precision    networks and parts in float32, float16, bfloat16 between float64 numbers
    adaptive                Runge–Kutta steps, accepted for a batch as a whole or row by row
    implicit                Newton's and fixed-point iterations that stop at a tolerance
    iterated                contacts by a few sweeps, sums in an order of their own
    looked up               tables, linear and cubic
    recurrent               cells whose memory is a part of the state

Every derivative is autograd's of the step as written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
DS, DA = 3, 2


def cost(s: Tensor, a: Tensor) -> Tensor:
    return -s.square().sum(1) - 0.1 * a.square().sum(1)


def network(seed: int, hidden: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """Three outputs of state and action, with weights that make them of order 1."""
    layers: list[nn.Module] = []
    widths = (DS + DA, *hidden)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for n, m in zip(widths, hidden, strict=False):
            layers += [nn.Linear(n, m), activation()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], DS)).requires_grad_(False)


def lowered(net: nn.Module, dtype: torch.dtype, gain: float, residual: bool = True) -> Step:
    """s + gain · net(s, a), the network in a lower precision."""
    net = net.to(dtype)

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        made = net(torch.cat([s, a], 1).to(dtype)).to(s.dtype)
        return (0.95 * s if residual else 0) + gain * made, cost(s, a)

    return step


ACTIVATIONS = {
    "tanh": nn.Tanh, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU,
    "softplus": nn.Softplus, "mish": nn.Mish, "sigmoid": nn.Sigmoid,
}  # fmt: skip


def force(s: Tensor, a: Tensor) -> Tensor:
    """A pendulum with a spring, and a lag behind it."""
    return torch.stack(
        [s[:, 1], -(1 + s[:, 2].square() / 4) * s[:, 0].sin() - 0.1 * s[:, 1] + a[:, 0],
         a[:, 1] - s[:, 2] + 0.2 * s[:, 0]], 1,
    )  # fmt: skip


def adaptive(tolerance: float, shared: bool, span: float = 0.5) -> Step:
    """Bogacki and Shampine's 3(2) pair, its steps accepted by the largest error of the batch, or
    row by row."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        y, t = s, torch.zeros(len(s)).to(s)
        h = torch.full((len(s),), 0.1).to(s)
        for _ in range(3000):
            left = span - t
            if not bool((left > 1e-12).any()):
                break
            now = torch.minimum(h, left)[:, None]
            k1 = force(y, a)
            k2 = force(y + now / 2 * k1, a)
            k3 = force(y + 3 * now / 4 * k2, a)
            new = y + now * (2 * k1 + 3 * k2 + 4 * k3) / 9
            k4 = force(new, a)
            error = now * (-5 * k1 / 72 + k2 / 12 + k3 / 9 - k4 / 8)
            size = (error.detach().norm(dim=1) / tolerance).clamp_min(1e-10)
            size = size.max().expand(len(s)) if shared else size
            good = (size <= 1) & (left > 1e-12)
            y = torch.where(good[:, None], new, y)
            t = torch.where(good, t + now[:, 0].detach(), t)
            h = h * (0.9 * size ** (-1 / 3)).clamp(0.2, 5)
        return y, cost(s, a)

    return step


def implicit(tolerance: float, newton: bool, span: float = 0.2) -> Step:
    """Implicit Euler until the residual is small: what the last iteration is made of is
    differentiated (one step from a detached solution)."""

    def residual(new: Tensor, s: Tensor, a: Tensor) -> Tensor:
        return new - s - span * force(new, a)

    def solved(s: Tensor, a: Tensor) -> Tensor:
        with torch.no_grad():
            new = s + span * force(s, a)
            for _ in range(100):
                r = residual(new, s, a)
                if float(r.abs().max()) <= tolerance:
                    break
                new = new - (torch.linalg.solve(slope(new, a), r) if newton else r)
        return new

    def slope(new: Tensor, a: Tensor) -> Tensor:
        x = new.detach()
        zero, one = torch.zeros(len(x)).to(x), torch.ones(len(x)).to(x)
        rows = [
            torch.stack([zero, one, zero], 1),
            torch.stack([-(1 + x[:, 2].square() / 4) * x[:, 0].cos(), -0.1 * one,
                         -x[:, 2] / 2 * x[:, 0].sin()], 1),
            torch.stack([0.2 * one, zero, -one], 1),
        ]  # fmt: skip
        return torch.eye(3).to(x) - span * torch.stack(rows, 1)

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        new = solved(s.detach(), a.detach())
        after = new - torch.linalg.solve(slope(new, a), residual(new, s, a))
        return after, cost(s, a)

    return step


def contacts(sweeps: int, softness: float) -> Step:
    """Two penalty contacts whose forces are relaxed by a few Jacobi sweeps."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        push = nn.functional.softplus(-s[:, :2] / softness) * softness
        pressure = push
        for _ in range(sweeps):
            pressure = push - 0.3 * pressure.flip(1)
        moved = torch.cat([a + pressure, 0.1 * pressure.sum(1, keepdim=True)], 1)
        return 0.9 * s + 0.1 * moved, cost(s, a)

    return step


def table(points: int, cubic: bool, dtype: torch.dtype = torch.float64) -> Step:
    """A motor's map between knots, as its values, by state 0."""
    knots = torch.linspace(-8, 8, points, dtype=dtype)
    values = (1.3 * knots).sin() + 0.1 * knots

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x = s[:, 0].to(dtype).clamp(-7.9, 7.9)
        width = knots[1] - knots[0]
        at = ((x.detach() - knots[0]) / width).floor().long().clamp(1, points - 3)
        u = (x - knots[at]) / width
        p, q, r, v = (values[at + k] for k in (-1, 0, 1, 2))
        if cubic:
            found = q + u / 2 * (
                r - p + u * (2 * p - 5 * q + 4 * r - v + u * (3 * (q - r) + v - p))
            )
        else:
            found = q + u * (r - q)
        after = torch.stack([0.9 * s[:, 0] + 0.1 * s[:, 1], 0.9 * s[:, 1] + 0.1 * found.to(s.dtype)
                             + 0.1 * a[:, 0], 0.8 * s[:, 2] + 0.1 * a[:, 1]], 1)  # fmt: skip
        return after, cost(s, a)

    return step


def recurrent(kind: type[nn.RNNCellBase], dtype: torch.dtype, seed: int) -> Step:
    """A cell whose hidden state is two of the three coordinates."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cell = kind(1 + DA, 2).to(dtype).requires_grad_(False)

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x, hidden = torch.cat([s[:, :1], a], 1).to(dtype), s[:, 1:].to(dtype)
        if kind is nn.LSTMCell:
            made, _ = cell(x, (hidden, hidden))
        else:
            made = cell(x, hidden)
        return torch.cat([0.9 * s[:, :1] + 0.1 * a[:, :1], made.to(s.dtype)], 1), cost(s, a)

    return step


def summed(dtype: torch.dtype, parts: int) -> Step:
    """A wide sum in a lower precision, in chunks."""
    weights = torch.linspace(0.5, 1.5, parts, dtype=dtype)

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x = (s[:, :1] + 0.1 * a[:, :1]).to(dtype)
        total = torch.zeros_like(x)
        for chunk in weights.chunk(7):
            total = total + (x * chunk).sin().sum(1, keepdim=True)
        return 0.9 * s + 0.2 * total.to(s.dtype) / parts, cost(s, a)

    return step


def rewarded(dtype: torch.dtype) -> Step:
    """An exact step, a reward in a lower precision."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        paid = cost(s.to(dtype), a.to(dtype)).to(s.dtype)
        return 0.9 * s + 0.1 * torch.cat([a, a[:, :1]], 1).tanh(), paid

    return step


def kinds() -> Iterator[tuple[str, Step]]:
    single = torch.float32
    for k, (name, activation) in enumerate(ACTIVATIONS.items()):
        for hidden in ((16,), (64, 64), (256, 256)):
            yield f"float32 {name} {hidden}", lowered(network(k, hidden, activation), single, 0.1)
    for name in ("tanh", "elu", "gelu"):
        net = network(3, (32, 32), ACTIVATIONS[name])
        yield f"float32 {name} alone", lowered(net, single, 1.0, residual=False)
        yield f"float32 {name}, small part", lowered(network(4, (32,), ACTIVATIONS[name]),
                                                      single, 1e-3)  # fmt: skip
    for dtype in (torch.float16, torch.bfloat16):
        for gain in (0.1, 0.01):
            yield f"{dtype} tanh × {gain}", lowered(network(5, (32,), nn.Tanh), dtype, gain)
    for tolerance in (1e-5, 1e-6, 1e-7, 1e-8):
        for shared in (True, False):
            yield (
                f"adaptive {tolerance:g} {'shared' if shared else 'by row'}",
                adaptive(tolerance, shared),
            )
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
        for newton in (True, False):
            yield (
                f"implicit {tolerance:g} {'Newton' if newton else 'fixed point'}",
                implicit(tolerance, newton),
            )
    for sweeps in (2, 4, 16):
        yield f"contacts, {sweeps} sweeps", contacts(sweeps, 0.05)
    for points in (65, 257):
        for cubic in (True, False):
            yield f"table of {points}, {'cubic' if cubic else 'linear'}", table(points, cubic)
    yield "cubic table in float32", table(129, True, single)
    for kind in (nn.GRUCell, nn.LSTMCell, nn.RNNCell):
        for dtype in (torch.float64, single):
            yield f"{kind.__name__} {dtype}", recurrent(kind, dtype, 6)
    for parts in (100, 1000):
        yield f"sum of {parts} in float32", summed(single, parts)
    yield "reward in float32", rewarded(single)


INEXACT = dict(kinds())
