"""Policies and critics of all seeds side by side as members [M], and how policies act.

deterministic   a = π(s);                        explores by a + σ · noise · limit
gaussian        a = limit · tanh(μ + σ · noise), or μ + σ · noise without limits; explores so
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.networks.layers import Layers
from gradlab.networks.mlp import Scale
from gradlab.networks.policies import log_normal, log_tanh_slope, split_normal
from gradlab.training.parts.context import Act


@dataclass(frozen=True)
class Network:
    """M multilayer perceptrons.

    Attributes:
        scale: [in], multiplies the input, or None.
        outer: [out], where the output is outer · tanh, else None.
    """

    layers: Layers
    scale: Tensor | None
    outer: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[M, N, in] → [M, N, out]."""
        y = self.layers(x if self.scale is None else x * self.scale)
        return y if self.outer is None else self.outer * torch.tanh(y)

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.layers.weights, *(bias for bias in self.layers.biases if bias is not None)]

    def frozen(self) -> Network:
        return self._detached

    @cached_property  # views of memory that an optimiser changes in place
    def _detached(self) -> Network:
        return self._mapped(Tensor.detach)

    def every(self, step: int) -> Network:
        """Members 0, step, 2 step, … as views."""
        return self._mapped(lambda tensor: tensor[::step])

    def copied(self) -> Network:
        """The same numbers in memory of their own, without gradients."""
        return self._mapped(lambda tensor: tensor.detach().clone())

    def repeated(self, count: int) -> Network:
        """As many copies of one member, whose tensors require gradients of their own."""

        def repeat(tensor: Tensor) -> Tensor:
            return tensor.detach().expand(count, -1, -1).clone().requires_grad_()

        return self._mapped(repeat)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Network:
        biases = tuple(None if bias is None else change(bias) for bias in self.layers.biases)
        weights = tuple(map(change, self.layers.weights))
        return replace(self, layers=replace(self.layers, weights=weights, biases=biases))


def stacked(
    networks: Sequence[nn.Sequential], activation: str, dtype: torch.dtype, device: Any
) -> Network:
    """The members as one value whose tensors require gradients.

    Args:
        networks: equal in shape; [Scale,] Linear, activation, …, Linear [, Tanh, Scale].
    """
    first, linear = networks[0], [_linear(network) for network in networks]

    def leaf(tensors: Sequence[Tensor]) -> Tensor:
        value = torch.stack([tensor.detach() for tensor in tensors]).to(device, dtype).contiguous()
        return value.requires_grad_()

    def fixed(layer: nn.Module) -> Tensor | None:
        return layer.scale.to(device, dtype) if isinstance(layer, Scale) else None

    depth = range(len(linear[0]))
    layers = Layers(
        weights=tuple(leaf([network[k].weight.T for network in linear]) for k in depth),
        biases=tuple(leaf([network[k].bias[None] for network in linear]) for k in depth),
        activation=activation,
    )
    return Network(layers, scale=fixed(first[0]), outer=fixed(first[-1]))


@torch.no_grad()
def unstacked(network: Network, member: int, like: nn.Module) -> nn.Module:
    """One member as a module of its own; `like` has its architecture in `like.network`."""
    module = copy.deepcopy(like)
    assert isinstance(module.network, nn.Sequential)
    layers = network.layers.of([member])
    for layer, weight, bias in zip(
        _linear(module.network), layers.weights, layers.biases, strict=True
    ):
        layer.weight.copy_(weight[0].T)
        if bias is not None:
            layer.bias.copy_(bias[0, 0])
    return module


def _linear(network: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]


@dataclass(frozen=True, eq=False)
class Acting:
    """
    Attributes:
        gaussian: else deterministic.
        exploration: σ of a deterministic policy's noise, in units of the limit.
        limit: largest size of an action, [da], or None.
        log_std: bounds of log σ of a Gaussian policy.
    """

    gaussian: bool
    exploration: float
    limit: Tensor | None
    log_std: tuple[float, float]

    def act(self, network: Network, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Action [E, N, da]; of a Gaussian policy at `noise`, or at its median without."""
        if not self.gaussian:
            return network(state)
        if noise is None:
            return self._squashed(split_normal(network(state), self.log_std)[0])
        return self.draw(network, state, noise)[0]

    def explore(
        self, network: Network, state: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Action [E, N, da] that is collected; a Gaussian policy explores by itself, at a log
        density [E, N]."""
        if self.gaussian:
            return self.draw(network, state, noise)
        size = 1.0 if self.limit is None else self.limit
        return network(state) + self.exploration * noise * size, None

    def draw(self, network: Network, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action [E, N, da] of a Gaussian, squashed where actions have limits; its log density."""
        mean, log_std = split_normal(network(state), self.log_std)
        latent = mean + log_std.exp() * noise
        density = log_normal(noise, log_std)
        if self.limit is not None:
            density = density - log_tanh_slope(latent, self.limit)
        return self._squashed(latent), density.sum(dim=2)

    def noise_of(self, network: Network, state: Tensor, action: Tensor) -> Tensor:
        """The noise [E, N, da] at which a Gaussian policy gives an action; one at its limit is
        taken for the nearest within."""
        mean, log_std = split_normal(network(state), self.log_std)
        if self.limit is not None:
            edge = 1 - torch.finfo(action.dtype).eps
            action = torch.atanh((action / self.limit).clamp(-edge, edge))
        return (action - mean) * (-log_std).exp()

    def bound(self, network: Network) -> Act:
        """Actions and log densities of one network: the mean's without noise."""

        def act(state: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
            if noise is None:
                return network(state), None
            return self.draw(network, state, noise)

        return act

    def _squashed(self, latent: Tensor) -> Tensor:
        return latent if self.limit is None else self.limit * torch.tanh(latent)
