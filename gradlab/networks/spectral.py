"""Spectral normalisation of the linear layers of a policy, a critic or a model's members.

    W ↦ bound · W / σ_max(W)              (Miyato et al. 2018; RP-PGM, appendix B.1)

In train mode σ_max comes from one power iteration per use, u ← Wv/‖Wv‖, v ← Wᵀu/‖Wᵀu‖, so that a
network changes a little at every call; in eval mode it is exact. `baked` makes a network of
plain weights, which checkpoints take, and `norms` measures the result. A policy's gradient is by
W while it is normalised, by the plain weights once it is baked: two sets of coordinates.

A network of 1-Lipschitz layers is no 1-Lipschitz model: one that predicts s + f·m((x − c)/d) has
slope up to 1 + max f / min d, and SiLU and GELU have slopes up to 1.10 and 1.13.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.gaussian_ensemble import MemberLinear

Which = Literal["all", "all_but_last", "hidden"]
_Network = TypeVar("_Network", bound=nn.Module)
# Layers of one network in order: RP-PGM's policy, its model, and its published code's actor.
CHOICES: dict[Which, slice] = {
    "all": slice(None),
    "all_but_last": slice(None, -1),
    "hidden": slice(1, -1),
}
WARM_UP = 20  # power iterations before the first use


@dataclass(frozen=True)
class LayerNorm:
    """The largest singular value of one linear layer.

    Attributes:
        name: of the layer in its network.
        values: one per member; one in all for a network without members.
        normalised: whether it is held at a bound.
    """

    name: str
    values: tuple[float, ...]
    normalised: bool


@final
class SpectralNorm(nn.Module):
    """The parametrisation of a weight [m, n], or of one per member [E, m, n]."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, bound: float) -> None:
        super().__init__()
        self.bound = bound
        matrices = _matrices(weight.detach())
        start = torch.randn(matrices.shape[2], generator=torch.Generator().manual_seed(0))
        self.register_buffer("u", matrices.new_zeros(matrices.shape[:2]))
        self.register_buffer("v", unit(start.to(matrices)).repeat(len(matrices), 1))
        for _ in range(WARM_UP):
            self._iterate(matrices)

    def forward(self, weight: Tensor) -> Tensor:
        matrices = _matrices(weight)
        if self.training:
            self._iterate(matrices)
            # Cloned: the next use writes into what this use's backward pass still reads.
            norm = torch.einsum("ei,eij,ej->e", self.u.clone(), matrices, self.v.clone())
        else:
            norm = torch.linalg.matrix_norm(matrices, ord=2)
        return (self.bound * matrices / norm[:, None, None]).view_as(weight)

    @torch.no_grad()
    def _iterate(self, matrices: Tensor) -> None:
        self.u.copy_(unit(torch.einsum("eij,ej->ei", matrices, self.v)))
        self.v.copy_(unit(torch.einsum("eij,ei->ej", matrices, self.u)))


def normalise(network: nn.Module, which: Which = "all_but_last", bound: float = 1.0) -> None:
    """Hold layers of `network` at `bound`, in place. Layers count in the order of `modules()`.

    Raises:
        InputError: an unknown choice, a choice without layers, one that is normalised already.
    """
    validation.word("spectral", which, CHOICES)
    if not 0 < bound < float("inf"):
        raise InputError(f"bound is {bound!r}, expected a positive number")
    chosen = [layer for _, layer in _linear_layers(network)][CHOICES[which]]
    if not chosen:
        raise InputError(f"spectral is {which!r}, but the network has no such layer")
    if any(parametrize.is_parametrized(layer, "weight") for layer in chosen):
        raise InputError("network is normalised already: normalise a plain one")
    for layer in chosen:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        constraint = SpectralNorm(weight, bound).train(layer.training)
        parametrize.register_parametrization(layer, "weight", constraint)


def baked(network: _Network) -> _Network:
    """A copy with plain weights, those that `network` has in eval mode.

    It is what `checkpoint.save` and every instrument take; training it further lets the norms go.
    """
    plain = copy.deepcopy(network)
    for _, layer in _linear_layers(plain):
        if parametrize.is_parametrized(layer, "weight"):
            _bake(layer)
    return plain


@torch.no_grad()
def _bake(layer: nn.Module) -> None:
    # A copy shares its class with the original, from which remove_parametrizations would take
    # the attribute away.
    original: Tensor = layer.parametrizations.weight.original  # type: ignore[union-attr, assignment]
    weight = _weight(layer).clone().view_as(original)
    del layer.parametrizations
    layer.__class__ = type(layer).__bases__[0]
    layer.register_parameter("weight", nn.Parameter(weight))


@torch.no_grad()
def norms(network: nn.Module) -> tuple[LayerNorm, ...]:
    """Measured norms of every linear layer by singular value decomposition in float64."""
    return tuple(
        LayerNorm(
            name,
            tuple(torch.linalg.matrix_norm(_weight(layer).double(), ord=2).tolist()),
            parametrize.is_parametrized(layer, "weight"),
        )
        for name, layer in _linear_layers(network)
    )


def _weight(layer: nn.Module) -> Tensor:
    """[E, m, n], in eval mode."""
    training = layer.training
    weight = layer.eval().weight
    layer.train(training)
    assert isinstance(weight, Tensor)
    return _matrices(weight)


def _linear_layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (nn.Linear, MemberLinear)
    return [(name, module) for name, module in network.named_modules() if isinstance(module, kinds)]


def _matrices(weight: Tensor) -> Tensor:
    return weight[None] if weight.ndim == 2 else weight


def unit(vectors: Tensor) -> Tensor:
    """Of length 1 along the last dimension."""
    return torch.nn.functional.normalize(vectors, dim=-1)
