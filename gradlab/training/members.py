"""Equal networks side by side: every tensor has a leading member axis, one batched product a layer.

Seeds, twin critics and both at once are members [M] of one program. A member never meets another,
so five seeds together are five seeds apart. `Layers` is a value: its tensors are what an optimiser
changes, `frozen()` the same numbers without a gradient.

    h ← σ(h W + b),      W [M, in, out], b [M, 1, out], h [M, N, in]
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlab.networks.mlp import Scale

ACTIVATIONS = {
    nn.ELU: functional.elu,
    nn.GELU: functional.gelu,
    nn.ReLU: functional.relu,
    nn.SiLU: functional.silu,
    nn.Softplus: functional.softplus,
    nn.Tanh: torch.tanh,
}


@dataclass(frozen=True)
class Layers:
    """M multilayer perceptrons.

    Attributes:
        weights: [M, in, out] each; biases: [M, 1, out] each.
        scale: [in], multiplies the input, or None.
        activation: between layers.
        outer: [out], where the output is outer · tanh, else None.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    scale: Tensor | None
    activation: Any
    outer: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[M, N, in] → [M, N, out]."""
        h = x if self.scale is None else x * self.scale
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h if k == 0 else self.activation(h), weight)
        return h if self.outer is None else self.outer * torch.tanh(h)

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.weights, *self.biases]

    def frozen(self) -> Layers:
        weights, biases = (tuple(p.detach() for p in each) for each in (self.weights, self.biases))
        return replace(self, weights=weights, biases=biases)

    def copied(self) -> Layers:
        """The same numbers in memory of their own, without gradients."""
        weights = tuple(p.detach().clone() for p in self.weights)
        return replace(self, weights=weights, biases=tuple(p.detach().clone() for p in self.biases))


def stacked(networks: Sequence[nn.Sequential], dtype: torch.dtype, device: Any) -> Layers:
    """The members as one value whose tensors ask for gradients.

    Args:
        networks: equal in shape; [Scale,] Linear, activation, …, Linear [, Tanh, Scale].
    """
    first = list(networks[0])
    scales = [layer for layer in first if isinstance(layer, Scale)]
    leading = isinstance(first[0], Scale)
    linear = [[each for each in net if isinstance(each, nn.Linear)] for net in networks]
    kind = next((type(each) for each in first if type(each) in ACTIVATIONS), nn.Tanh)
    bounded = isinstance(first[-1], Scale)

    def leaf(tensors: Sequence[Tensor]) -> Tensor:
        value = torch.stack([each.detach() for each in tensors]).to(device, dtype).contiguous()
        return value.requires_grad_()

    def fixed(layer: Scale) -> Tensor:
        return layer.scale.detach().to(device, dtype)

    depth = range(len(linear[0]))
    return Layers(
        weights=tuple(leaf([net[k].weight.T for net in linear]) for k in depth),
        biases=tuple(leaf([net[k].bias[None] for net in linear]) for k in depth),
        scale=fixed(scales[0]) if leading else None,
        activation=ACTIVATIONS[kind],
        outer=fixed(scales[-1]) if bounded else None,
    )


def unstacked(layers: Layers, member: int, like: nn.Module) -> nn.Module:
    """One member as a module of its own; `like` has its architecture in `like.network`."""
    module = copy.deepcopy(like)
    linear = [layer for layer in module.network if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]
    with torch.no_grad():
        for layer, weight, bias in zip(linear, layers.weights, layers.biases, strict=True):
            layer.weight.copy_(weight[member].T)
            layer.bias.copy_(bias[member, 0])
    return module
