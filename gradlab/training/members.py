"""Policies and critics of all seeds side by side as members [M], and how policies act.

deterministic   a = π(s);                        explores by a + σ · noise · limit
gaussian        a = limit · tanh(μ + σ · noise), or μ + σ · noise without limits; explores so

Those that are trained have parameters, Adam, clipping, and spectral norms held while they train.

    W ↦ W / (uᵀ W v),    u = Wv/‖Wv‖,  v ← Wᵀu/‖Wᵀu‖ once per step      (RP-PGM, appendix B.1)

Adam is torch's fused kernel on given gradients: `torch.optim.Adam` takes longer to look its state
up than networks of this size take to step (`benchmarks.training`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.networks.layers import Layers
from gradlab.networks.mlp import Scale
from gradlab.networks.policies import log_normal, log_tanh_slope, split_normal
from gradlab.networks.spectral import CHOICES, WARM_UP, Which, unit
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


BETAS, EPS = (0.9, 0.999), 1e-8


@final
class Adam:
    """State: means of gradients and of their squares of every parameter, and steps made.

    Attributes:
        rate: of the next step.

    Args:
        parameters: of one dtype and device; changed in place.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: float) -> None:
        self.rate = rate
        self._parameters = [parameter.detach() for parameter in parameters]
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._made = torch.zeros((), dtype=torch.float32, device=self._parameters[0].device)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Along gradients in the order of the parameters, whatever their strides.

        The fused kernel reads tensors in memory order: a gradient that is a transposed or expanded
        view, as `torch.autograd.grad` may return one, would be applied to the wrong entries.
        """
        self._made += 1
        steps = [self._made] * len(self._parameters)
        ordered = [
            g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
            for p, g in zip(self._parameters, gradients, strict=True)
        ]
        torch._fused_adam_(
            self._parameters, ordered, self._means, self._squares, [], steps,
            lr=self.rate, beta1=BETAS[0], beta2=BETAS[1], weight_decay=0.0, eps=EPS,
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, for `load`: "k.exp_avg" and so on, as
        `torch.optim` names it of parameter k."""
        parts = {"exp_avg": self._means, "exp_avg_sq": self._squares}
        own = {f"{k}.{name}": x for name, part in parts.items() for k, x in enumerate(part)}
        return own | {"step": self._made}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.state().items():
            if state[name].shape != tensor.shape:
                shapes = tuple(state[name].shape), tuple(tensor.shape)
                raise InputError("Adam's saved {} has shape {}, expected {}".format(name, *shapes))
            tensor.copy_(state[name])

    def forget(self, lost: Tensor) -> None:
        """Begin anew for some members, bool [M]."""
        for mean in (*self._means, *self._squares):
            mean[lost] = 0


@final
class Trained:
    """State: the parameters, their optimiser, and the vectors of the power iteration.

    Args:
        network: its tensors are the parameters; they require gradients.
        rate: Adam's first learning rate.
        clip: largest norm of one member's gradient, or None.
        spectral: layers that are held at norm 1, or None.
    """

    def __init__(
        self, network: Network, rate: float, clip: float | None, spectral: Which | None = None
    ) -> None:
        self.raw, self.clip = network, clip
        self.adam = Adam(network.parameters, rate)
        weights = network.layers.weights
        chosen = () if spectral is None else range(len(weights))[CHOICES[spectral]]
        if spectral is not None and not chosen:
            raise InputError(f"spectral is {spectral!r}, but the network has no such layer")
        self._vectors = {k: _begun(weights[k]) for k in chosen}
        self.network = self._normalised()

    def step(self, loss: Tensor, count: int = 1) -> Tensor:
        """One step down `loss`, as `follow`."""
        return self.follow(self.gradients_of(loss), count)

    def gradients_of(self, loss: Tensor) -> tuple[Tensor, ...]:
        """Of every parameter, as `raw.parameters`."""
        return torch.autograd.grad(loss, self.raw.parameters)

    def follow(self, gradients: tuple[Tensor, ...], count: int = 1) -> Tensor:
        """One step along gradients of a loss; their norm of every seed before clipping, [E].

        Every network is clipped by itself, twin critics too, as in MPG's published code; the norm
        of a seed is that of its `count` networks together.
        """
        norms = torch.stack([torch.linalg.vector_norm(g, dim=(1, 2)) for g in gradients])
        norm = torch.linalg.vector_norm(norms, dim=0)
        if self.clip is not None:
            factor = (self.clip / norm.clamp_min(1e-12)).clamp(max=1.0)
            # Few are clipped; on a GPU the question would wait for all that is under way.
            if factor.is_cuda or not bool((factor >= 1).all()):
                gradients = tuple(g * factor[:, None, None] for g in gradients)
        self.adam.step(gradients)
        for k, v in self._vectors.items():
            self._vectors[k] = _iterated(self.raw.layers.weights[k].detach(), v)
        self.network = self._normalised()
        total: Tensor = norm.view(-1, count).square().sum(dim=1).sqrt()
        return total

    def state(self, name: str) -> dict[str, Tensor]:
        """Everything that the next step depends on, for `load`."""
        tensors = {}
        for k, tensor in enumerate(self.raw.parameters):
            tensors[f"{name}.{k}"] = tensor.detach()
        tensors |= {f"{name}_adam.{key}": value for key, value in self.adam.state().items()}
        return tensors | {f"{name}_power.{k}": v for k, v in self._vectors.items()}

    def load(self, name: str, state: Mapping[str, Tensor]) -> None:
        for k, tensor in enumerate(self.raw.parameters):
            with torch.no_grad():
                tensor.copy_(state[f"{name}.{k}"])
        if memory := under(state, f"{name}_adam."):
            self.adam.load(memory)
        for k, v in self._vectors.items():
            self._vectors[k] = state[f"{name}_power.{k}"].to(v).view(v.shape).clone()
        self.network = self._normalised()

    def _normalised(self) -> Network:
        """The networks as they are used; gradients reach the parameters through it."""
        if not self._vectors:
            return self.raw
        weights = list(self.raw.layers.weights)
        for k, v in self._vectors.items():
            u = unit(torch.einsum("eio,eo->ei", weights[k].detach(), v))
            norm = torch.einsum("ei,eio,eo->e", u, weights[k], v)
            weights[k] = weights[k] / norm[:, None, None]
        return replace(self.raw, layers=replace(self.raw.layers, weights=tuple(weights)))


def under(state: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """The entries whose names begin with `start`, without it."""
    return {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}


def _begun(weight: Tensor) -> Tensor:
    """v [E, out] after some iterations from one start."""
    weight = weight.detach()
    start = torch.randn(weight.shape[2], generator=stream(0, "power iteration")).to(weight)
    v = unit(start).repeat(len(weight), 1)
    for _ in range(WARM_UP):
        v = _iterated(weight, v)
    return v


def _iterated(weight: Tensor, v: Tensor) -> Tensor:
    u = unit(torch.einsum("eio,eo->ei", weight, v))
    return unit(torch.einsum("eio,ei->eo", weight, u))
