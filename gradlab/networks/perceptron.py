"""Networks side by side in few passes over memory: forward and backward written by hand.

    z_l = h_{l−1} W_l + b_l,   h_l = σ(z_l)                        x = h_0, y = z_L
    g_L = ∂/∂y,   g_{l−1} = (g_l W_lᵀ) ⊙ σ'(z_{l−1}),   ∂/∂W_l = h_{l−1}ᵀ g_l,   ∂/∂b_l = Σ g_l

Autograd keeps what comes before and after every activation, and writes each anew: here activations
replace their arguments and gradients those of the layer above, which σ' allows where it follows
from σ. A layer with one output is a matrix–vector product and an outer product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradlab.networks.layers import SLOPES, Layers
from gradlab.networks.products import separate

_aten = torch.ops.aten


def _elu(x: Tensor) -> Tensor:
    """max(x, exp(min(x, 0)) − 1): to the last bit of 1, in 0.6 of the time that expm1 takes."""
    if x.is_cuda:
        return torch.nn.functional.elu_(x)
    below = x.clamp(max=0).exp_().sub_(1)
    return torch.maximum(x, below, out=x)


def _elu_slope(gradient: Tensor, value: Tensor) -> Tensor:
    out: Tensor = _aten.elu_backward.grad_input(
        gradient, 1.0, 1.0, 1.0, True, value, grad_input=gradient
    )
    return out


def _relu_slope(gradient: Tensor, value: Tensor) -> Tensor:
    out: Tensor = _aten.threshold_backward.grad_input(gradient, value, 0, grad_input=gradient)
    return out


def _tanh_slope(gradient: Tensor, value: Tensor) -> Tensor:
    out: Tensor = _aten.tanh_backward.grad_input(gradient, value, grad_input=gradient)
    return out


_InPlace = Callable[[Tensor], Tensor]
_Slope = Callable[[Tensor, Tensor], Tensor]
# σ in place, and g ↦ g ⊙ σ'(z) in place from σ(z): of the activations whose slope is one of it.
IN_PLACE: Mapping[str, tuple[_InPlace, _Slope]] = {
    "elu": (_elu, _elu_slope),
    "relu": (torch.relu_, _relu_slope),
    "tanh": (torch.tanh_, _tanh_slope),
}


def perceptron(layers: Layers, x: Tensor) -> Tensor:
    """[E, N, in] → [E, N, out], as `layers(x)`."""
    biases = [bias for bias in layers.biases if bias is not None]
    if layers.activation not in IN_PLACE or len(biases) < len(layers.weights):
        return layers(x)
    y: Tensor = _Perceptron.apply(layers.activation, x, *layers.weights, *biases)  # type: ignore[no-untyped-call]
    return y


class _Perceptron(torch.autograd.Function):
    """(activation, x, W_1 … W_L, b_1 … b_L) ↦ y."""

    @staticmethod
    def forward(ctx: Any, activation: str, x: Tensor, *numbers: Tensor) -> Tensor:
        weights, biases = _halves(numbers)
        activate, hidden = IN_PLACE[activation][0], [x]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            hidden.append(activate(_affine(hidden[-1], weight, bias)))
        ctx.activation = activation
        ctx.save_for_backward(*hidden, *numbers)
        return _affine(hidden[-1], weights[-1], biases[-1])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        depth = len(ctx.saved_tensors) // 3
        hidden, numbers = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # this gradient is itself to be differentiated
            return None, *_differentiable(ctx.activation, outer[0], hidden[0], numbers, wanted)
        slope = IN_PLACE[ctx.activation][1]

        def below(k: int, gradient: Tensor) -> Tensor:
            return slope(gradient, hidden[k])

        weights, _ = _halves(numbers)
        return None, *_gradients(outer[0], hidden, weights, wanted, _product, below)


def _gradients(
    gradient: Tensor,
    hidden: Sequence[Tensor],
    weights: Sequence[Tensor],
    wanted: Sequence[bool],
    product: Callable[[Tensor, Tensor], Tensor],
    below: Callable[[int, Tensor], Tensor],
) -> Iterator[Tensor | None]:
    """Of x, W_1 … W_L, b_1 … b_L, None where it is not `wanted`.

    Args:
        below: (l, ∂/∂h_l) ↦ ∂/∂z_l.
    """
    of_x, *of_numbers = wanted
    of_weights, of_biases = of_numbers[: len(weights)], of_numbers[len(weights) :]
    found: list[Tensor | None] = [None] * len(wanted)
    for k in reversed(range(len(weights))):
        if of_weights[k]:
            found[1 + k] = product(hidden[k].mT, gradient)
        if of_biases[k]:
            found[1 + len(weights) + k] = gradient.sum(dim=1, keepdim=True)
        if k > 0:
            gradient = below(k, product(gradient, weights[k].mT))
        elif of_x:
            found[0] = product(gradient, weights[0].mT)
    return iter(found)


def _differentiable(
    activation: str,
    gradient: Tensor,
    x: Tensor,
    numbers: Sequence[Tensor],
    wanted: Sequence[bool],
) -> Iterator[Tensor | None]:
    """The same in steps that autograd differentiates, with the forward pass once more."""
    weights, biases = _halves(numbers)
    hidden, slopes = [x], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        value, slope = SLOPES[activation](torch.baddbmm(bias, hidden[-1], weight))
        hidden.append(value)
        slopes.append(slope)

    def below(k: int, gradient: Tensor) -> Tensor:
        return gradient * slopes[k - 1]

    return _gradients(gradient, hidden, weights, wanted, torch.bmm, below)


def _halves(numbers: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weights and biases."""
    depth = len(numbers) // 2
    return tuple(numbers[:depth]), tuple(numbers[depth:])


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W + b, [E, N, out]."""
    if weight.shape[2] == 1 and not x.is_cuda:

        def multiply(one: Tensor, w: Tensor, b: Tensor, y: Tensor) -> None:
            torch.addmv(b.view(1).expand(len(one)), one, w[:, 0], out=y[:, 0])

        return _apart(multiply, x, weight, bias)
    if not separate(x, weight):
        return torch.baddbmm(bias, x, weight)
    return _apart(lambda one, w, b, y: torch.addmm(b, one, w, out=y), x, weight, bias)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """[E, n, k] times [E, k, m]."""
    if a.shape[2] == 1:
        return a * b
    if b.shape[2] == 1 and not a.is_cuda:
        return _apart(lambda one, v, y: torch.mv(one, v[:, 0], out=y[:, 0]), a, b)
    if not separate(a, b):
        return torch.bmm(a, b)
    return _apart(lambda one, other, y: torch.mm(one, other, out=y), a, b)


def _apart(multiply: Callable[..., object], a: Tensor, b: Tensor, *more: Tensor) -> Tensor:
    """[E, n, m], one member after another: multiply(a_e, b_e, …, out_e)."""
    out = a.new_empty(*a.shape[:2], b.shape[2])
    for member in zip(a, b, *more, out, strict=True):
        multiply(*member)
    return out
