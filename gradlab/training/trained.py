"""Networks that are trained: parameters, Adam, clipping, and spectral norms held while they train.

    W ↦ W / (uᵀ W v),    u = Wv/‖Wv‖,  v ← Wᵀu/‖Wᵀu‖ once per step      (RP-PGM, appendix B.1)

Adam is torch's fused kernel on given gradients: `torch.optim.Adam` takes longer to look its state
up than networks of this size take to step (`benchmarks.training`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.networks.spectral import CHOICES, WARM_UP, Which, unit
from gradlab.training.members import Network

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

    def state(self, k: int) -> dict[str, Tensor]:
        """Of one parameter, everything that its next step depends on, for `load`; named as in
        `torch.optim`."""
        # Files refuse tensors that share their memory.
        return self._own(k) | {"step": self._made.clone()}

    def load(self, k: int, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self._own(k).items():
            if state[name].shape != tensor.shape:
                shapes = tuple(state[name].shape), tuple(tensor.shape)
                raise InputError("saved {} has shape {}, expected {}".format(name, *shapes))
            tensor.copy_(state[name])

    def _own(self, k: int) -> dict[str, Tensor]:
        return {"step": self._made, "exp_avg": self._means[k], "exp_avg_sq": self._squares[k]}


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

    def set_rate(self, rate: float) -> None:
        self.adam.rate = rate

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
            for key, value in self.adam.state(k).items():
                tensors[f"{name}_adam.{k}.{key}"] = value
        return tensors | {f"{name}_power.{k}": v for k, v in self._vectors.items()}

    def load(self, name: str, state: Mapping[str, Tensor]) -> None:
        for k, tensor in enumerate(self.raw.parameters):
            with torch.no_grad():
                tensor.copy_(state[f"{name}.{k}"])
            memory = under(state, f"{name}_adam.{k}.")
            if memory:
                try:
                    self.adam.load(k, memory)
                except InputError as error:
                    raise InputError(f"Adam of the {name}: {error}") from None
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


def restored(memory: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """Adam's memory of one parameter, from its saved entries; steps are counted on the CPU."""
    return {
        key: value.clone() if key == "step" else value.clone().to(parameter)
        for key, value in memory.items()
    }


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
