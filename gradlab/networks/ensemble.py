"""Equal networks side by side: every tensor has a leading member axis, one batched product a layer.

    h ← σ(h W + b),      W [E, in, out], b [E, 1, out], h [E, N, in]

Members are independent, so a model's ensemble, twin critics and several seeds trained at once are
the same thing: E networks apart, in one program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.networks.layers import Layers
from gradlab.networks.mlp import Scale, mlp


@final
class MemberLinear(nn.Module):
    """weight [E, in, out] and bias [E, 1, out] of E linear layers, which may be parametrised."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        bias = [layer.bias.detach()[None] for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(bias)) if bias else None


@final
class MemberMLP(nn.Module):
    """E multilayer perceptrons: [E, N, in], or [N, in] for all members alike, → [E, N, out].

    Freshly made it holds what E calls of `networks.mlp.mlp`, one after another, would give.
    """

    architecture: dict[str, Any]

    def __init__(
        self,
        members: int,
        sizes: Sequence[int],
        activation: str = "elu",
        scale: Sequence[float] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(members, int) or members < 1:
            raise InputError(f"members is {members!r}, expected a positive integer")
        networks = [mlp(sizes, activation, scale, bias) for _ in range(members)]
        linear = [[module for module in net if isinstance(module, nn.Linear)] for net in networks]
        self.members, self.activation = members, activation
        self.scale = None if scale is None else Scale(scale)
        self.linear = nn.ModuleList(
            MemberLinear(of_members) for of_members in zip(*linear, strict=True)
        )
        self.architecture = {
            "kind": "member_mlp",
            "members": members,
            "sizes": list(sizes),
            "activation": activation,
            "scale": None if scale is None else [float(c) for c in scale],
            "bias": bias,
        }

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(self.members, *x.shape[-2:])
        return self.layers()(x if self.scale is None else self.scale(x))

    def layers(self) -> Layers:
        """The parameters as a value, after their parametrisations; gradients flow through it."""
        each: list[Any] = list(self.linear)
        return Layers(
            tuple(layer.weight for layer in each),
            tuple(layer.bias for layer in each),
            self.activation,
        )

    @torch.no_grad()
    def member(self, index: int) -> nn.Sequential:
        """A copy of one member, as `networks.mlp.mlp` makes it."""
        shape = {key: value for key, value in self.architecture.items() if key in MLP_ARGUMENTS}
        network, chosen = mlp(**shape), self.layers().of([index])
        network.to(chosen.weights[0])
        for layer, weight, bias in zip(
            _linear(network), chosen.weights, chosen.biases, strict=True
        ):
            layer.weight.copy_(weight[0].T)
            if bias is not None:
                layer.bias.copy_(bias[0, 0])
        return network

    @torch.no_grad()
    def set_member(self, index: int, network: nn.Sequential) -> None:
        """One member gets the numbers of `network`, which `networks.mlp.mlp` made."""
        layers: list[Any] = list(self.linear)
        for layer, source in zip(layers, _linear(network), strict=True):
            layer.weight[index] = source.weight.T
            if layer.bias is not None:
                layer.bias[index, 0] = source.bias


MLP_ARGUMENTS = ("sizes", "activation", "scale", "bias")


def _linear(network: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Linear)]
