"""Dreamer's actor loss in torch: latent dicts, heads that return distributions, λ-returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, OneHotCategorical

from tests.auditing.networks import ROWS, mlp

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
