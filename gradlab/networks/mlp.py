"""Multilayer perceptrons for policies and critics: linear layers and elementwise maps only.

    π(s), V(s) = W_L σ(… σ(W_1 (c ⊙ s) + b_1) …) + b_L    Q(s, a): the same of [c ⊙ s, a]

The observation scale c is a fixed first layer, not part of the state and not a parameter.
Defaults: two hidden layers of 256 ELU units (MPG, Table VI). Each network carries its
`architecture`, a JSON-able dictionary from which `checkpoint.build` makes an equal one.

Critics of users: a module or a function that returns [N] or [N, 1].

A function is called as it is, on the user's own networks. One that takes a single precision is
called in it; a module, which is copied, is measured in float64.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError

CriticLike = nn.Module | Callable[..., Tensor]
_OTHER = {torch.float64: torch.float32, torch.float32: torch.float64}


@final
class FunctionCritic(nn.Module):
    """A function (state, action) → value, or (state) → value, as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self._works: dict[torch.dtype, torch.dtype] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionCritic:
        return self  # it holds nothing of its own

    def forward(self, *inputs: Tensor) -> Any:
        given = inputs[0].dtype
        if given in self._works:
            return self._in(self._works[given], inputs)
        try:
            value = self.function(*inputs)
        except RuntimeError as error:
            if "dtype" not in str(error) or given not in _OTHER:
                raise
            value = self._in(_OTHER[given], inputs)
            self._works[given] = _OTHER[given]
            if given == torch.float64:
                warnings.warn(
                    "critic is a function of a float32 network, and is evaluated in float32: give "
                    "the module itself to have it in float64",
                    stacklevel=2,
                )
        return value

    def _in(self, dtype: torch.dtype, inputs: tuple[Tensor, ...]) -> Any:
        value = self.function(*(x.to(dtype) for x in inputs))
        return value.to(inputs[0].dtype) if isinstance(value, Tensor) else value


def as_critic(critic: Any) -> nn.Module:
    """The critic as a module: itself, or the function in one.

    Raises:
        InputError: it is neither.
    """
    if isinstance(critic, nn.Module):
        return critic
    if callable(critic) and not isinstance(critic, type):
        return FunctionCritic(critic)
    kind = f"the class {critic.__name__}" if isinstance(critic, type) else type(critic).__name__
    raise InputError(
        f"critic is {kind}, expected a torch.nn.Module or a function (state, action) -> [N]"
    )


def same_critic(one: nn.Module | None, other: nn.Module | None) -> bool:
    """Whether both are one network, or one function."""
    if isinstance(one, FunctionCritic) and isinstance(other, FunctionCritic):
        return one.function is other.function
    return one is other


def judge(critic: nn.Module, value: str, state: Tensor, action: Tensor) -> Tensor:
    """Values [N] of a Q critic at states [N, ds] and actions [N, da], or of a V critic."""
    values: Tensor = critic(state) if value == "V" else critic(state, action)
    values = values.to(state.device)  # of a function whose network is on a GPU
    return values[:, 0] if values.shape == (len(state), 1) else values


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


@final
class Scale(nn.Module):
    """x ⊙ c with a fixed c [width]."""

    scale: Tensor

    def __init__(self, scale: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(list(scale), dtype=torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def mlp(
    sizes: Sequence[int],
    activation: str = "elu",
    scale: Sequence[float] | None = None,
    bias: bool = True,
) -> nn.Sequential:
    """[N, sizes[0]] → [N, sizes[-1]]; `scale` [sizes[0]] multiplies the input first.

    Raises:
        InputError: fewer than two sizes, a size below one, an unknown activation, a wrong scale.
    """
    if len(sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise InputError(f"sizes are {list(sizes)}, expected two or more positive integers")
    validation.word("activation", activation, ACTIVATIONS)
    if scale is not None and len(scale) != sizes[0]:
        raise InputError(f"scale has {len(scale)} entries, expected {sizes[0]}")
    layers: list[nn.Module] = [] if scale is None else [Scale(scale)]
    for width, following in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(width, following, bias=bias), ACTIVATIONS[activation]()]
    layers.append(nn.Linear(sizes[-2], sizes[-1], bias=bias))
    return nn.Sequential(*layers)


def architecture(
    kind: str, hidden: Sequence[int], activation: str, scale: Sequence[float] | None, **rest: Any
) -> dict[str, Any]:
    """The JSON-able arguments from which `checkpoint.build` makes an equal network."""
    factors = None if scale is None else [float(c) for c in scale]
    own = {"hidden": list(hidden), "activation": activation, "scale": factors}
    return {"kind": kind, **rest, **own}


@final
class Policy(nn.Module):
    """A deterministic policy: state [N, ds] → action [N, da]. `hidden=()` is linear feedback.

    `limit` [da] bounds the action: limit · tanh of the network.
    """

    architecture: dict[str, Any]
    fitted = False  # by `fitting.policies.stabilising_policy`, to hold a state of the task

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        scale: Sequence[float] | None = None,
        bias: bool = True,
        limit: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.network = mlp([state_dim, *hidden, action_dim], activation, scale, bias)
        if limit is not None:
            if len(limit) != action_dim or not all(0 < bound < float("inf") for bound in limit):
                raise InputError(f"limit is {list(limit)}, expected {action_dim} positive numbers")
            self.network.extend([nn.Tanh(), Scale(limit)])
        self.architecture = architecture(
            "policy", hidden, activation, scale, state_dim=state_dim, action_dim=action_dim,
            bias=bias, limit=None if limit is None else [float(bound) for bound in limit],
        )  # fmt: skip

    def forward(self, state: Tensor) -> Tensor:
        action: Tensor = self.network(state)
        return action


@final
class QCritic(nn.Module):
    """An action value: state [N, ds], action [N, da] → value [N]. `scale` [ds] is the state's."""

    architecture: dict[str, Any]

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        scale: Sequence[float] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        both = None if scale is None else [*scale, *[1.0] * action_dim]
        self.network = mlp([state_dim + action_dim, *hidden, 1], activation, both, bias)
        self.architecture = architecture(
            "q_critic", hidden, activation, scale, state_dim=state_dim, action_dim=action_dim,
            bias=bias,
        )  # fmt: skip

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        value: Tensor = self.network(torch.cat([state, action], dim=-1))
        return value.squeeze(-1)


@final
class VCritic(nn.Module):
    """A state value: state [N, ds] → value [N]."""

    architecture: dict[str, Any]

    def __init__(
        self,
        state_dim: int,
        hidden: Sequence[int] = (256, 256),
        activation: str = "elu",
        scale: Sequence[float] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.network = mlp([state_dim, *hidden, 1], activation, scale, bias)
        self.architecture = architecture(
            "v_critic", hidden, activation, scale, state_dim=state_dim, bias=bias
        )

    def forward(self, state: Tensor) -> Tensor:
        value: Tensor = self.network(state)
        return value.squeeze(-1)
