"""Networks with a leading member axis, as values, and derivatives of layered ones in closed form.

    z_l = h_{l−1} W_l + b_l,   h_l = σ(z_l),   S_l = diag σ'(z_l)      W [E, in, out], b [E, 1, out]
    ∂y/∂x = W_1 S_1 W_2 S_2 … S_{L−1} W_L                        (rows: inputs, columns: outputs)

The product is taken from the right (`pull_back`, a row per output): as many matrix products
between hidden layers as a forward pass has, times the number of rows. Directions (`tangents`) pass
beside the values, form no Jacobian and stay differentiable in the parameters.

Products in float32 are faster where this processor keeps them accurate (`fast_products`): torch's
"medium" precision may choose another library, which is faster and as exact, or bfloat16, which is
not, and a product of known result decides. For training alone; what is measured and reported is in
float64, which the setting does not touch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlab.networks.mlp import ACTIVATIONS

# Bytes of a block: its rows and their image stay in a core's cache; a GPU wants large products.
CACHE = 2**20
_GPU_CACHE = 2**28
_ROWS = 1024  # of a block, where the network is a module of any kind


@dataclass(frozen=True)
class Layers:
    """The numbers of E networks.

    Attributes:
        weights: [E, in, out] each.
        biases: [E, 1, out] each, or None.
        activation: name in `networks.mlp.ACTIVATIONS`, between layers.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        """[E, N, in] → [E, N, out]."""
        activate = ACTIVATIONS[self.activation]()
        for k in range(len(self.weights) - 1):
            x = activate(self.affine(k, x))
        return self.affine(-1, x)

    def affine(self, layer: int, x: Tensor) -> Tensor:
        """h W + b of one layer."""
        bias, weight = self.biases[layer], self.weights[layer]
        return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)

    def of(self, members: Sequence[int]) -> Layers:
        """Some of the members."""
        return self._mapped(lambda tensor: pick(tensor, members))

    def like(self, x: Tensor) -> Layers:
        """In the dtype and on the device of `x`."""
        return self._mapped(lambda tensor: tensor.to(x))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Layers:
        biases = tuple(None if bias is None else change(bias) for bias in self.biases)
        return replace(self, weights=tuple(map(change, self.weights)), biases=biases)


@dataclass(frozen=True)
class Modules:
    """The numbers of E equal modules of any kind, beside one module that has their structure.

    Attributes:
        numbers: parameters and buffers by name, [E, …] each.
        module: called with every member's numbers in turn; its own are not used.
    """

    numbers: Mapping[str, Tensor]
    module: nn.Module

    def __call__(self, x: Tensor) -> Tensor:
        """[E, N, in] → [E, N, out]."""
        members = len(next(iter(self.numbers.values())))
        x = x.expand(members, *x.shape[-2:])
        return torch.vmap(self._member, randomness="different")(dict(self.numbers), x)

    def _member(self, numbers: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(self.module, numbers, (x,))
        return y

    def of(self, members: Sequence[int]) -> Modules:
        """Some of the members."""
        return replace(self, numbers={n: pick(x, members) for n, x in self.numbers.items()})

    def like(self, x: Tensor) -> Modules:
        """In the dtype and on the device of `x`."""
        return replace(self, numbers={n: value.to(x) for n, value in self.numbers.items()})


def pick(tensor: Tensor, members: Sequence[int]) -> Tensor:
    """Some members of [E, …]; neighbours in order as a view, since weights are picked often."""
    first, last = members[0], members[-1]
    if list(members) == list(range(first, last + 1)):
        return tensor[first : last + 1]
    return tensor[list(members)]


def trace(layers: Layers, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Outputs [E, N, out] and the slopes σ'(z_l) [E, N, width] of every hidden layer."""
    slopes = []
    for k in range(len(layers.weights) - 1):
        x, slope = SLOPES[layers.activation](layers.affine(k, x))
        slopes.append(slope)
    return layers.affine(-1, x), slopes


def pull_back(layers: Layers, slopes: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Derivatives by the inputs [E, N, K, in] of K functions of the last hidden layer.

    Args:
        rows: their derivatives by that layer, [E, N, K, width], or [E, 1, K, width] for all N.
    """
    for slope, weight in zip(reversed(slopes), reversed(layers.weights[:-1]), strict=True):
        rows = rows * slope[:, :, None]
        rows = _product(rows, weight.mT)
    return rows


def tangents(layers: Layers | Modules, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [E, N, out] and their derivatives [E, N, K, out] along directions [E, N, K, in]."""
    if isinstance(layers, Modules):
        x = x.expand(directions.shape[0], *x.shape[-2:]).contiguous()
        ways = directions.contiguous().unbind(dim=2)  # jvp refuses rows that share memory
        pushed = [torch.func.jvp(layers, (x,), (way,)) for way in ways]
        return pushed[0][0], torch.stack([each[1] for each in pushed], dim=2)
    moved = directions
    for k in range(len(layers.weights) - 1):
        x, slope = SLOPES[layers.activation](layers.affine(k, x))
        moved = _product(moved, layers.weights[k]) * slope[:, :, None]
    return layers.affine(-1, x), _product(moved, layers.weights[-1])


def blocks(layers: Layers | Modules, n: int, columns: int) -> Iterator[slice]:
    """Slices of n samples, each with `columns` rows per member that fit the cache."""
    if isinstance(layers, Modules):  # whose widths are not known
        return (slice(begin, min(begin + _ROWS, n)) for begin in range(0, n, _ROWS))
    weights = layers.weights[0]
    width = max(max(weight.shape[1:]) for weight in layers.weights)
    per_sample = len(weights) * columns * width * weights.element_size()
    size = max(1, (_GPU_CACHE if weights.is_cuda else CACHE) // per_sample)
    return (slice(begin, min(begin + size, n)) for begin in range(0, n, size))


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """[E, N, K, in] times [E, in, out]."""
    members, n, k, _ = rows.shape
    return torch.bmm(rows.flatten(1, 2), weight).view(members, n, k, weight.shape[-1])


def _elu(z: Tensor) -> tuple[Tensor, Tensor]:
    value = functional.elu(z)
    return value, torch.where(z > 0, 1.0, value + 1)


def _gelu(z: Tensor) -> tuple[Tensor, Tensor]:
    below = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    return z * below, below + z * torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)


def _relu(z: Tensor) -> tuple[Tensor, Tensor]:
    return functional.relu(z), (z > 0).to(z)


def _silu(z: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(z)
    value = z * gate
    return value, torch.addcmul(gate, gate, z - value)


def softplus(z: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + eᶻ) and its slope; torch's is the identity above 20."""
    return functional.softplus(z), torch.where(z > 20, 1.0, torch.sigmoid(z))


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(z)
    return value, 1 - value**2


# z ↦ (σ(z), σ'(z)) for every name in `networks.mlp.ACTIVATIONS`.
SLOPES: Mapping[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "elu": _elu,
    "gelu": _gelu,
    "relu": _relu,
    "silu": _silu,
    "softplus": softplus,
    "tanh": _tanh,
}


ACCURATE = 1e-6  # relative error of a product that training accepts


@contextmanager
def fast_products(device: str = "cpu") -> Iterator[None]:
    """Inside, products are the fastest that are accurate; set back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        if product_error(device) > ACCURATE:
            torch.set_float32_matmul_precision(before)
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def product_error(device: str) -> float:
    """Relative error of a float32 product on this machine at "medium" precision."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    product = (a.float().to(device) @ b.float().to(device)).double().cpu()
    return float((product - a @ b).norm() / (a @ b).norm())
