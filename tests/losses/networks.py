"""Networks and an environment in the shapes of published code (CleanRL, SB3, Dreamer, SHAC).

Dreamer's actor loss in torch: latent dicts, heads that return distributions, λ-returns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, OneHotCategorical

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


class Decay(torch.autograd.Function):
    """x, whose gradient is multiplied by α: DiffPhysDrone's g_decay."""

    @staticmethod
    def forward(ctx, x, alpha):
        ctx.alpha = alpha
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0] * ctx.alpha, None


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


STOCH, DETER, ACTIONS = 4, 5, 3
FEATURES = STOCH + DETER


class Latents(nn.Module):
    """The world model's dynamics, whose `img_step` is no `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(STOCH + ACTIONS, DETER)
        self.prior = mlp(DETER, 2 * STOCH)

    def get_feat(self, state: dict[str, Tensor]) -> Tensor:
        return torch.cat([state["stoch"], state["deter"]], -1)

    def img_step(self, state: dict[str, Tensor], action: Tensor) -> dict[str, Tensor]:
        deter = self.cell(torch.cat([state["stoch"], action], -1), state["deter"])
        mean, raw = self.prior(deter).chunk(2, -1)
        return {"stoch": Normal(mean, torch.sigmoid(raw) + 0.1).rsample(), "deter": deter}


class World(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dynamics = Latents()
        self.heads = nn.ModuleDict({"reward": Head()})


class Mode:
    """A distribution of Dreamer's own: no torch class."""

    def __init__(self, mean: Tensor) -> None:
        self._mean = mean
        self._dist = Normal(mean, 1.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dist, name)

    def mode(self) -> Tensor:
        return self._mean


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp(FEATURES, 1)

    def forward(self, feat: Tensor) -> Mode:
        return Mode(self.layers(feat))


class StraightThrough(OneHotCategorical):
    """Dreamer's one-hot distribution: `sample` has a gradient, that of the probabilities."""

    def sample(self, sample_shape: Any = ()) -> Tensor:
        sample = super().sample(sample_shape)
        sample += self.probs - self.probs.detach()
        return sample


class Policy(nn.Module):
    def __init__(self, discrete: bool) -> None:
        super().__init__()
        self.discrete, self.layers = discrete, mlp(FEATURES, 2 * ACTIONS)

    def forward(self, feat: Tensor) -> Any:
        mean, raw = self.layers(feat).chunk(2, -1)
        if self.discrete:
            return StraightThrough(logits=mean)
        return Independent(Normal(torch.tanh(mean), torch.sigmoid(raw) + 0.1), 1)


def lambda_return(reward: Tensor, value: Tensor, discount: Tensor, last: Tensor) -> Tensor:
    following = torch.cat([value[1:], last[None]], 0)
    inputs = reward + discount * following * (1 - 0.95)
    returns, agg = [], last
    for t in reversed(range(len(reward))):
        agg = inputs[t] + discount[t] * 0.95 * agg
        returns.append(agg)
    return torch.stack(list(reversed(returns)))


def dreamer(discrete: bool = True, scored: bool = False, length: int = 6) -> dict[str, Any]:
    """The pathwise loss; `scored`: REINFORCE on imagined rollouts."""
    world, actor, value = World(), Policy(discrete), Head()

    def loss(deter: Tensor, length: int = length) -> Tensor:
        state = {"stoch": torch.zeros(ROWS, STOCH), "deter": deter}
        feats, actions = [], []
        for _ in range(length):
            feat = world.dynamics.get_feat(state)
            policy = actor(feat.detach())
            action = policy.rsample() if not discrete and not scored else policy.sample()
            feats.append(feat)
            actions.append(action)
            state = world.dynamics.img_step(state, action)
        imagined = torch.stack(feats)
        reward = world.heads["reward"](imagined).mode()
        discount = 0.99 * torch.ones_like(reward)
        base = value(imagined).mode()
        target = lambda_return(reward[:-1], base[:-1], discount[:-1], base[-1])
        weights = torch.cumprod(torch.cat([torch.ones_like(discount[:1]), discount[:-1]]), 0)
        policy = actor(imagined.detach())
        if scored:
            advantage = (target - base[:-1]).detach()
            log_prob = policy.log_prob(torch.stack(actions).detach())
            objective = log_prob[:-1][..., None] * advantage
        else:
            scale = (torch.quantile(target.detach(), 0.95) + 1).detach()
            objective = target / scale
        objective = objective + 0.01 * policy.entropy()[:-1][..., None]
        return -torch.mean(weights[:-1].detach() * objective)

    return dict(
        loss=loss, actor=actor, critic=value, model=world,
        inputs=torch.linspace(-1, 1, ROWS * DETER).reshape(ROWS, DETER),
    )  # fmt: skip


def reinforcing_dreamer() -> dict[str, Any]:
    return dreamer(discrete=False, scored=True)
