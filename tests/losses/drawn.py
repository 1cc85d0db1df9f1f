"""Actor losses drawn from parts, sound or with one planted fault, for counts of both mistakes.

actor      what it returns: an action, mean and log σ, a distribution; log σ a layer or free
model      a module, a residual one, an environment with a state of its own, or none
critic     of (s, a) or of s, one or two, frozen or not, or none
loss       steps, discount, log π or entropy or none, its reductions; rewards written in it;
           pathwise, or scores weighed by returns
fault      at one step: how the action loses its path
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from tests.losses.networks import ACTION, ROWS, STATE, mlp

Fault = Literal["sample", "normal", "detach", "no_grad", "round", "data", "none"]
CODES = {
    "sample": "sampled", "normal": "sampled", "round": "discrete", "detach": "detached",
    "data": "detached", "no_grad": "no_grad",
}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    actor: Literal["action", "pair", "distribution", "squashed", "free"]
    model: Literal["module", "residual", "environment", "none"]
    critic: Literal["q", "two", "v", "none"]
    frozen: bool
    steps: int
    discount: float
    entropy: Literal["log π", "entropy", "none"]
    mean: bool
    score: bool
    fault: Fault
    at: int


def draw(seed: int, fault: Fault) -> Parts:
    """Parts that fit each other; the fault is at a step that the loss moves with."""
    random = Random(seed)
    model = random.choice(["module", "residual", "environment", "none"])
    steps = random.randint(1, 4) if model != "none" else 0
    critics = ["q", "two", "v", "none"] if model != "none" else ["q", "two"]
    critic = random.choice(critics)
    stochastic = ["pair", "distribution", "squashed", "free"]
    actor = random.choice(stochastic if fault in ("sample", "normal") else ["action", *stochastic])
    acts = steps + (critic in ("q", "two"))
    return Parts(
        actor=actor, model=model, critic=critic, frozen=random.random() < 0.5, steps=steps,
        discount=random.choice([1.0, 0.9]),
        entropy="none" if actor == "action" else random.choice(["log π", "entropy", "none"]),
        mean=random.random() < 0.5,
        score=fault == "none" and actor != "action" and random.random() < 0.5,
        fault=fault, at=random.randrange(acts),
    )  # type: ignore[arg-type]  # fmt: skip


class Actor(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body = mlp(STATE, ACTION if kind in ("action", "free") else 2 * ACTION)
        if kind == "free":
            self.log_std = nn.Parameter(torch.zeros(ACTION))

    def forward(self, s: Tensor) -> Any:
        out = self.body(s)
        if self.kind == "action":
            return torch.tanh(out)
        if self.kind == "free":
            return Independent(Normal(out, self.log_std.exp()), 1)
        mean, log_std = out[:, :ACTION], torch.tanh(out[:, ACTION:])
        if self.kind == "pair":
            return mean, log_std
        normal = Normal(mean, log_std.exp())
        if self.kind == "distribution":
            return Independent(normal, 1)
        return Independent(TransformedDistribution(normal, [TanhTransform(cache_size=1)]), 1)


class Model(nn.Module):
    """A residual one takes state and action as one tensor."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual, self.net = residual, mlp(STATE + ACTION, STATE)

    def step(self, s: Tensor, a: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([s, a], -1))
        return out

    def residual_step(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return x[:, :STATE] + 0.1 * out


class World:
    """It keeps its state, and knows its parameters as plain tensors."""

    def __init__(self) -> None:
        self.A, self.B = 0.9 * torch.eye(STATE), 0.3 * torch.ones(ACTION, STATE)
        self.state = torch.zeros(())

    def reset(self, s: Tensor) -> None:
        self.state = s

    def step(self, s: Tensor, a: Tensor) -> Tensor:
        self.state = self.state @ self.A + torch.tanh(a) @ self.B
        return self.state


class Critic(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, width = kind, STATE + (0 if kind == "v" else ACTION)
        self.nets = nn.ModuleList([mlp(width, 1) for _ in range(2 if kind == "two" else 1)])

    def value(self, s: Tensor, a: Tensor | None) -> Tensor:
        return self.of(s if a is None else torch.cat([s, a], -1))

    def of(self, x: Tensor) -> Tensor:
        values = [net(x)[:, 0] for net in self.nets]
        return torch.stack(values).min(0).values


def made(parts: Parts) -> dict[str, Any]:
    """Arguments of `gradlab.audit`."""
    actor = Actor(parts.actor)
    model = World() if parts.model == "environment" else Model(parts.model == "residual")
    critic = Critic(parts.critic)
    if parts.frozen:
        for module in (model, critic):
            if isinstance(module, nn.Module):
                module.requires_grad_(False)

    def loss(s: Tensor) -> Tensor:
        total, rewards, entropies = torch.zeros(ROWS), [], []
        scores = torch.zeros(ROWS)
        if isinstance(model, World):
            model.reset(s)
        for t in range(parts.steps):
            a, bonus, log_prob = _acted(actor, s, parts, t)
            scores = scores + log_prob
            rewards.append(parts.discount**t * -((s - 1).square().sum(1) + 0.1 * a.square().sum(1)))
            entropies.append(parts.discount**t * bonus)
            joint = torch.cat([s, a], -1)
            s = model.residual_step(joint) if parts.model == "residual" else model.step(s, a)
        if parts.critic == "none":
            rewards.append(-s.square().sum(1))
        elif parts.critic == "v":
            rewards.append(critic.value(s, None))
        else:
            a, bonus, log_prob = _acted(actor, s, parts, parts.steps)
            joint = torch.cat([s, a], 1)
            rewards.append(critic.value(s, a) if parts.critic == "two" else critic.of(joint))
            scores, entropies = scores + log_prob, [*entropies, bonus]
        for terms, weight in ((rewards, scores if parts.score else 1.0), (entropies, 0.1)):
            stacked = torch.stack([*terms, torch.zeros(ROWS)])
            total = total + weight * (stacked.mean(0) if parts.mean else stacked.sum(0))
        return -total.mean()

    given = dict(loss=loss, actor=actor, inputs=torch.linspace(-1, 1, 24).reshape(ROWS, STATE))
    given |= {} if parts.model == "none" else {"model": model}
    return given | ({} if parts.critic == "none" else {"critic": critic})


def _acted(actor: Actor, s: Tensor, parts: Parts, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """The action, with the fault if this is its step, the bonus and log π."""
    fault = parts.fault if t == parts.at else "none"
    with torch.set_grad_enabled(fault != "no_grad"):
        out = actor(s)
    if isinstance(out, Tensor):
        return _cut(out, fault), torch.zeros(len(s)), torch.zeros(len(s))
    policy = Independent(Normal(out[0], out[1].exp()), 1) if isinstance(out, tuple) else out
    if fault == "normal":
        a = torch.tanh(torch.normal(_location(policy), 0.3))
    else:
        a = policy.sample() if fault == "sample" or parts.score else policy.rsample()
    if fault == "no_grad":
        policy = Independent(Normal(_location(actor(s)), 1.0), 1)
    log_prob = policy.log_prob(a)
    closed_form = not isinstance(policy.base_dist, TransformedDistribution)
    bonus = policy.entropy() if parts.entropy == "entropy" and closed_form else -log_prob
    return _cut(a, fault), torch.zeros(len(s)) if parts.entropy == "none" else bonus, log_prob


def _location(out: Any) -> Tensor:
    """The mean of what an actor returns, before any squashing."""
    while hasattr(out, "base_dist"):
        out = out.base_dist
    location: Tensor = out[0] if isinstance(out, tuple) else out.loc
    return location


def _cut(a: Tensor, fault: Fault) -> Tensor:
    if fault == "detach":
        return a.detach()
    if fault == "data":
        return a.data
    return a.round() if fault == "round" else a
