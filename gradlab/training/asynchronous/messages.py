"""What goes between the processes: arrays by name, never tensors, which are slow to pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.training.asynchronous.choice import Role
from gradlab.training.learner import Learner
from gradlab.training.parts.context import Floats

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class GradientRequest:
    """A gradient to be computed.

    Attributes:
        number: of the update whose random numbers it takes; batch: columns of its transitions.
        targets: of the critics at that batch, [E, N]; None: to be computed.
        weights: of the mixture, [E, terms].
    """

    role: Role
    number: int
    batch: Arrays
    targets: NDArray[Any] | None
    weights: Floats


@dataclass(frozen=True, eq=False)
class ComputedGradient:
    """A gradient.

    Attributes:
        gradients: of every parameter, as `Trained.raw.parameters`.
        loss: [E]; value: mean of the critics, [E], of a critic's gradient.
        horizon: of the longest rollout; targets: as asked, or those computed; seconds: it took.
    """

    gradients: list[NDArray[Any]]
    loss: NDArray[Any]
    value: NDArray[Any] | None = None
    horizon: int = 0
    targets: NDArray[Any] | None = None
    seconds: float = 0.0


def arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """In memory of their own, as they are now."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}


def tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Of the same numbers; what a cluster has in common memory cannot be written, and is copied."""
    return {name: torch.from_numpy(np.require(x, None, "W")) for name, x in arrays.items()}


def networks_of(learner: Learner) -> Arrays:
    """Networks, targets and temperature, without the optimisers' memory."""
    state = learner.state().items()
    return arrays({k: x for k, x in state if "_adam." not in k and k != "cached_targets"})


def policy_of(learner: Learner) -> Arrays:
    """What an actor needs."""
    state = learner.trained_policy.state("policy").items()
    return arrays({name: x for name, x in state if "_adam." not in name})
