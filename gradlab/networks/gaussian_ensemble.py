"""An ensemble of dynamics models, members as the leading axis.

    x̂ = ([s, a] − c) / d,   (m, raw) = MLP_k(x̂)
    log v = low + softplus(up − low),   up = high − softplus(high − raw)
    μ_k = [s, 0] + e + f m,   σ_k = f exp(log v / 2)           for [s'] or [s', r]

PETS (arXiv 1805.12114, A.1) and MBPO (arXiv 1906.08253): the bounds high and low of the log
variance are trained with the rest, the inputs standardised by their mean c and deviation d, here
the targets by e and f too. The s in μ is there for residual prediction only.

Types of models differ in the network behind x̂ (`NETWORKS`, or one's own): one with 2 × out outputs
is probabilistic, one with out outputs deterministic: σ = 0, and its likelihood is that of v = 1.

Equal networks side by side: every tensor has a leading member axis, one batched product a layer.

    h ← σ(h W + b),      W [E, in, out], b [E, 1, out], h [E, N, in]

Members are independent, so a model's ensemble, twin critics and several seeds trained at once are
the same thing: E networks apart, in one program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.layers import Layers, Modules, pick, softplus
from gradlab.networks.mlp import Scale, mlp
from gradlab.user_code import is_user_function, load_object, running


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
        validation.whole("members", members, 1)
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
        weights, biases = zip(*((layer.weight, layer.bias) for layer in each), strict=True)
        return Layers(weights, biases, self.activation)

    @torch.no_grad()
    def draw_member(self, index: int) -> None:
        """Fresh numbers for one member."""
        network = mlp(self.architecture["sizes"], self.architecture["activation"])
        drawn = [layer for layer in network if isinstance(layer, nn.Linear)]
        layers: list[Any] = list(self.linear)
        for layer, source in zip(layers, drawn, strict=True):
            layer.weight[index] = source.weight.T
            if layer.bias is not None:
                layer.bias[index, 0] = source.bias


@dataclass(frozen=True)
class OwnNetwork:
    """A network of one's own as a type of model.

    Attributes:
        source: where it comes from, as in "file.py:Net".
        make: (inputs, outputs) → a torch.nn.Module from x̂ [N, inputs] to [N, outputs], the mean of
            a deterministic model, or [N, 2 · outputs], mean and raw log variance. Rows are
            independent of each other, and nothing is drawn inside in eval mode.
    """

    source: str
    make: Callable[[int, int], nn.Module]


@final
class MemberModules(nn.Module):
    """E modules of one's own side by side, every parameter with a leading member axis.

    Attributes:
        width: of their outputs.

    Raises:
        InputError: `make` fails, or its module has another width or numbers that are no floats.
    """

    def __init__(self, members: int, own: OwnNetwork, inputs: int, outputs: int) -> None:
        super().__init__()
        self.members, self.own, self.shape = members, own, (inputs, outputs)
        drawn = [self._drawn() for _ in range(members)]
        trained = {name for name, _ in drawn[0].named_parameters()}
        for name in drawn[0].state_dict():
            number = torch.stack([module.state_dict()[name] for module in drawn])
            if name in trained:
                self.register_parameter(_key(name), nn.Parameter(number))
            else:
                self.register_buffer(_key(name), number)
        # In a list, since its own numbers are none of the ensemble's.
        self._module = [drawn[0]]
        with torch.no_grad(), running(own.source):
            shape = list(drawn[0].eval()(torch.zeros(3, inputs)).shape)
        if shape not in ([3, outputs], [3, 2 * outputs]):
            raise InputError(
                f"{own.source} maps [3, {inputs}] to {shape}, expected [3, {outputs}], the mean of "
                f"a deterministic model, or [3, {2 * outputs}], mean and log variance"
            )
        self.width = shape[1]

    def layers(self) -> Modules:
        """The parameters as a value; gradients flow through it."""
        module = self._module[0].train(self.training)
        return Modules({name: getattr(self, _key(name)) for name in module.state_dict()}, module)

    @torch.no_grad()
    def draw_member(self, index: int) -> None:
        """Fresh numbers for one member."""
        for name, number in self._drawn().state_dict().items():
            getattr(self, _key(name))[index] = number

    def _drawn(self) -> nn.Module:
        source = self.own.source
        with running(source):
            module = self.own.make(*self.shape)
        if not isinstance(module, nn.Module):
            raise InputError(f"{source} returned a {type(module).__name__}, expected a Module")
        for name, number in module.state_dict().items():
            if not number.is_floating_point():
                raise InputError(f"{source} has {name} of {number.dtype}, expected floats alone")
        return module.float()


def _key(name: str) -> str:
    return "own/" + name.replace(".", "/")  # a dot is not allowed in names of parameters


# Types of models by name, with the outputs of a member for each target; an OwnNetwork is one, too.
NETWORKS: Mapping[str, int] = {"gaussian": 2, "deterministic": 1}


_LOG_VARIANCE = (-10.0, 0.5)  # PETS and MBPO, of standardised targets
_NORMALISERS = ("input_mean", "input_std", "target_mean", "target_std")


@dataclass(frozen=True)
class Prediction:
    """mean and std [E, N, out], out = ds, or ds + 1 with the reward last."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Numbers:
    """The numbers of a prediction, in one dtype and for some of the members.

    input_* are [E, 1, ds + da], target_* and bounds [E, 1, out]; bounds are [E, 1, 0] of a
    deterministic model. `residual` is the derivative of
    [s, 0] by [s, a], [out, ds + da].
    """

    layers: Layers | Modules
    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    low: Tensor
    high: Tensor
    residual: Tensor

    @property
    def deterministic(self) -> bool:
        return self.low.shape[-1] == 0


@final
class GaussianEnsemble(nn.Module):
    """See above.

    Args:
        members: E.
        hidden: widths; 4 × 200 in MBPO.
        residual: predict s' − s.
        reward: a further output for the reward.
        network: a name in `NETWORKS`, or one of your own, without `hidden` and `activation`.
    """

    architecture: dict[str, Any]
    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        members: int = 7,
        hidden: Sequence[int] = (200, 200, 200, 200),
        activation: str = "silu",
        residual: bool = True,
        reward: bool = True,
        network: str | OwnNetwork = "gaussian",
    ) -> None:
        super().__init__()
        check_network(network)
        for name, value in (("state_dim", state_dim), ("action_dim", action_dim)):
            validation.whole(name, value, 1)
        self.state_dim, self.action_dim = state_dim, action_dim
        self.residual, self.reward = bool(residual), bool(reward)
        inputs, outputs = state_dim + action_dim, state_dim + int(self.reward)
        self.network: MemberMLP | MemberModules
        if isinstance(network, OwnNetwork):
            self.network = MemberModules(members, network, inputs, outputs)
            width = self.network.width
        else:
            width = NETWORKS[network] * outputs
            self.network = MemberMLP(members, [inputs, *hidden, width], activation)
        low, high = _LOG_VARIANCE
        bounds = (members, 1, width - outputs)
        self.low = nn.Parameter(torch.full(bounds, low))
        self.high = nn.Parameter(torch.full(bounds, high))
        for name, width in zip(_NORMALISERS, (inputs, inputs, outputs, outputs), strict=True):
            fill = 1.0 if name.endswith("std") else 0.0
            self.register_buffer(name, torch.full((members, 1, width), fill))
        self.architecture = {
            "kind": "gaussian_ensemble",
            "state_dim": state_dim,
            "action_dim": action_dim,
            "members": members,
            "hidden": list(hidden),
            "activation": activation,
            "residual": self.residual,
            "reward": self.reward,
            "network": network_name(network),
        }

    @property
    def members(self) -> int:
        return self.network.members

    @property
    def deterministic(self) -> bool:
        """Without a variance."""
        return self.low.shape[-1] == 0

    @property
    def outputs(self) -> int:
        """ds, or ds + 1 with the reward."""
        return self.state_dim + int(self.reward)

    def forward(self, state: Tensor, action: Tensor) -> Prediction:
        """state [N, ds], action [N, da], or both with a leading member axis."""
        return predict(self.numbers(state), torch.cat([state, action], dim=-1))

    @torch.no_grad()
    def set_normalisers(
        self, input_mean: Tensor, input_std: Tensor, target_mean: Tensor, target_std: Tensor
    ) -> None:
        """c, d, e, f: [width] for all members, or [E, width].

        Raises:
            InputError: a wrong width, a number that is not finite, a deviation that is not
                positive (a constant dimension: give it 1).
        """
        given = (input_mean, input_std, target_mean, target_std)
        pairs = list(zip(_NORMALISERS, given, strict=True))
        for name, value in pairs:
            width = getattr(self, name).shape[-1]
            if value.shape not in ((width,), (self.members, width)):
                want = f"[{width}] or [{self.members}, {width}]"
                raise InputError(f"{name} has shape {list(value.shape)}, expected {want}")
            _check_normaliser(name, value)
        for name, value in pairs:
            buffer: Tensor = getattr(self, name)
            buffer.copy_(value.reshape(-1, 1, buffer.shape[-1]).expand_as(buffer))

    def numbers(self, like: Tensor, members: Sequence[int] | None = None) -> Numbers:
        """All numbers of a prediction, in the dtype and on the device of `like`."""
        chosen = range(self.members) if members is None else members

        def some(tensor: Tensor) -> Tensor:
            return pick(tensor, chosen).to(like)

        residual = torch.zeros(self.outputs, self.state_dim + self.action_dim)
        if self.residual:
            residual[: self.state_dim, : self.state_dim] = torch.eye(self.state_dim)
        return Numbers(
            layers=self.network.layers().of(chosen).like(like),
            input_mean=some(self.input_mean),
            input_std=some(self.input_std),
            target_mean=some(self.target_mean),
            target_std=some(self.target_std),
            low=some(self.low),
            high=some(self.high),
            residual=residual.to(like),
        )


def standardised_inputs(numbers: Numbers, x: Tensor) -> Tensor:
    """x̂ [E, N, in]."""
    return (x - numbers.input_mean) / numbers.input_std


def predict(numbers: Numbers, x: Tensor) -> Prediction:
    """Of x = [s, a], [N, in] or [E, N, in]."""
    return scaled(numbers, x, numbers.layers(standardised_inputs(numbers, x)))


def scaled(numbers: Numbers, x: Tensor, outputs: Tensor) -> Prediction:
    """μ and σ from the network's outputs [E, N, 2 out], or out of a deterministic model."""
    mean, log_variance = moments(numbers, outputs)
    if numbers.deterministic:
        std = torch.zeros_like(mean)
    else:
        std = numbers.target_std * (0.5 * log_variance).exp()
    shift = x @ numbers.residual.T + numbers.target_mean
    return Prediction(shift + numbers.target_std * mean, std)


def moments(numbers: Numbers, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """m and log v [E, N, out] from the network's outputs; log v is 0 of a deterministic model."""
    if numbers.deterministic:
        return outputs, torch.zeros_like(outputs)
    mean, raw = outputs.chunk(2, dim=-1)
    return mean, bounded(numbers, raw)[0]


def network_name(network: str | OwnNetwork) -> str:
    return network if isinstance(network, str) else network.source


def named_network(name: str) -> str | OwnNetwork:
    """A type of model by its name, or a network of one's own as "file.py:Net".

    Raises:
        InputError: there is no such type.
    """
    if is_user_function(name):
        return OwnNetwork(name, load_object(name))
    check_network(name)
    return name


def check_network(network: object) -> None:
    """Raises InputError: it is no type of model."""
    if not isinstance(network, OwnNetwork) and network not in NETWORKS:
        names = ", ".join(NETWORKS)
        raise InputError(f"network is {network!r}, expected one of {names}, or file.py:Net")


def bounded(numbers: Numbers, raw: Tensor) -> tuple[Tensor, Tensor]:
    """log v and its derivative by `raw`."""
    down, slope_high = softplus(numbers.high - raw)
    up, slope_low = softplus(numbers.high - down - numbers.low)
    return numbers.low + up, slope_low * slope_high


def check_numbers(ensemble: GaussianEnsemble, members: Sequence[int]) -> None:
    """Raises InputError: a parameter of these members is not finite, or a normaliser's deviation is
    not positive.
    """
    for name, parameter in ensemble.named_parameters():
        broken = [k for k in members if not torch.isfinite(parameter[k]).all()]
        if broken:
            raise InputError(f"parameter {name} is not finite in members {broken}: leave them out")
    for name in _NORMALISERS:
        _check_normaliser(name, getattr(ensemble, name))


def _check_normaliser(name: str, value: Tensor) -> None:
    positive = name.endswith("std")
    wrong = (~torch.isfinite(value) | (positive & (value <= 0))).nonzero().tolist()
    if wrong:
        got, want = float(value[tuple(wrong[0])]), "a positive number" if positive else "a number"
        raise InputError(f"{name} of dimension {wrong[0][-1]} is {got:g}, expected {want}")
