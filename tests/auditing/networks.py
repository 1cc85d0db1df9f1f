"""Networks and an environment in the shapes of published code (CleanRL, SB3, Dreamer, SHAC)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

STATE, ACTION, ROWS = 3, 2, 8
Arguments = dict[str, Any]
Make = Callable[[], Any] | None


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


class Gaussian(nn.Module):
    """CleanRL's SAC actor: `get_action` beside `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(STATE, 8)
        self.fc_mean = nn.Linear(8, ACTION)
        self.fc_logstd = nn.Linear(8, ACTION)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.fc(x))
        return self.fc_mean(h), torch.tanh(self.fc_logstd(h))

    def get_action(self, x: Tensor, draw: str = "rsample") -> tuple[Tensor, Tensor, Tensor]:
        mean, log_std = self(x)
        normal = Normal(mean, log_std.exp())
        latent = getattr(normal, draw)()
        action = torch.tanh(latent)
        log_prob = normal.log_prob(latent) - torch.log(1 - action.pow(2) + 1e-6)
        return action, log_prob.sum(1, keepdim=True), torch.tanh(mean)


class Deterministic(nn.Module):
    """TD3's actor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(STATE, ACTION)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.net(x))


class Q(nn.Module):
    """CleanRL's critic."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(STATE + ACTION, 1)

    def forward(self, x: Tensor, a: Tensor) -> Tensor:
        value: Tensor = self.net(torch.cat([x, a], 1))
        return value


class TwoCritics(nn.Module):
    """SB3's `ContinuousCritic`: a tuple, and `q1_forward` beside `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.q_networks = nn.ModuleList([mlp(STATE + ACTION, 1) for _ in range(2)])

    def forward(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        qvalue_input = torch.cat([obs, actions], dim=1)
        return tuple(q_net(qvalue_input) for q_net in self.q_networks)

    def q1_forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        value: Tensor = self.q_networks[0](torch.cat([obs, actions], dim=1))
        return value


class Value(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(STATE, 1)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.net(x)
        return value


class Dynamics(nn.Module):
    """A learned model: next state and reward from a method `predict`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(STATE + ACTION, STATE + 1)

    def predict(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        out = self.net(torch.cat([s, a], -1))
        return s + 0.1 * out[..., :STATE], out[..., STATE]


class Environment:
    """A differentiable simulator with a state of its own, as DiffRL's: no module, no parameters."""

    def __init__(self) -> None:
        self.A = torch.eye(STATE) * 0.9
        self.B = 0.3 * torch.ones(ACTION, STATE)
        self.obs = torch.linspace(-1, 1, ROWS * STATE).reshape(ROWS, STATE)
        self.steps = 0

    def initialize_trajectory(self) -> Tensor:
        self.obs = self.obs.detach()
        return self.obs.clone()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        self.obs = self.obs @ self.A + action @ self.B
        reward = -(self.obs**2).sum(1) - 0.1 * (action**2).sum(1)
        self.steps += 1
        done = torch.zeros(ROWS, dtype=torch.bool)
        done[0] = self.steps % 3 == 0
        before = self.obs.clone()
        if bool(done.any()):
            fresh = torch.ones_like(self.obs)
            self.obs = torch.where(done[:, None], fresh, self.obs)
        return self.obs, reward, done, {"obs_before_reset": before}


def states(seed: int = 0) -> Tensor:
    return torch.randn(ROWS, STATE, generator=torch.Generator().manual_seed(seed))


def frozen(*modules: nn.Module) -> None:
    for module in modules:
        module.requires_grad_(False)


def case(
    actor: Make, critic: Make = None, model: Make = None, inputs: Make = states,
    optimizer: Callable[..., Any] | None = None, trained: bool = True, **more: Any,
) -> Callable[[Callable[..., Any]], Callable[[], Arguments]]:  # fmt: skip
    """Of loss(actor, critic, model, *inputs), without what is None, the arguments of an audit.

    Args:
        trained: do critic and model require gradients?
    """

    def of(loss: Callable[..., Any]) -> Callable[[], Arguments]:
        @functools.wraps(loss)
        def made() -> Arguments:
            every = zip(("actor", "critic", "model"), (actor, critic, model), strict=True)
            networks = {name: make() for name, make in every if make is not None}
            parts = list(networks.values())
            if not trained:
                frozen(*parts[1:])
            beside = {} if optimizer is None else {"optimizer": optimizer(*parts)}
            whole = functools.partial(loss, *parts)
            return dict(loss=whole, inputs=inputs(), **networks, **beside, **more)

        return made

    return of
