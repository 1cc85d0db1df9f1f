"""Faulty actor losses as arguments of `gradlab.audit`, each with the kind that names its fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, OneHotCategorical

from tests.auditing.networks import (
    ACTION,
    ROWS,
    STATE,
    Deterministic,
    Dynamics,
    Gaussian,
    Q,
    Value,
    mlp,
    states,
)

Arguments = dict[str, Any]


def sampled() -> Arguments:
    """SAC on `sample`: the entropy alone has a gradient."""
    actor, critic = Gaussian(), Q()

    def loss(obs: Tensor) -> Tensor:
        pi, log_pi, _ = actor.get_action(obs, draw="sample")
        return (0.2 * log_pi - critic(obs, pi)).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def categorical() -> Arguments:
    """The historical one: the critic judges a sampled one-hot action, and nothing is left."""
    actor, critic = mlp(STATE, ACTION), Q()

    def loss(obs: Tensor) -> Tensor:
        a = OneHotCategorical(logits=actor(obs)).sample()
        return -critic(obs, a).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def argmax() -> Arguments:
    actor, critic = mlp(STATE, ACTION), Q()

    def loss(obs: Tensor) -> Tensor:
        a = F.one_hot(actor(obs).argmax(1), ACTION).float()
        return -critic(obs, a).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def categorical_with_entropy() -> Arguments:
    actor, critic = mlp(STATE, ACTION), Q()

    def loss(obs: Tensor) -> Tensor:
        policy = Categorical(logits=actor(obs))
        a = F.one_hot(policy.sample(), ACTION).float()
        return -critic(obs, a).mean() - 0.01 * policy.entropy().mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def chosen_value() -> Arguments:
    """Q(s, ·)[a] of a sampled a."""
    actor, critic = mlp(STATE, 4), mlp(STATE, 4)

    def loss(obs: Tensor) -> Tensor:
        policy = Categorical(logits=actor(obs))
        a = policy.sample()
        return -critic(obs).gather(1, a[:, None]).mean() - 0.01 * policy.entropy().mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def embedded() -> Arguments:
    """A discrete action, embedded by the model."""
    actor, model = mlp(STATE, 4), nn.Embedding(4, 1)

    def loss(obs: Tensor) -> Tensor:
        policy = Categorical(logits=actor(obs))
        return -model(policy.sample()).mean() - 0.01 * policy.entropy().mean()

    return dict(loss=loss, actor=actor, model=model, inputs=states())


def normal() -> Arguments:
    """torch.normal, whose derivative is zero."""
    actor, critic = Gaussian(), Q()

    def loss(obs: Tensor) -> Tensor:
        mean, log_std = actor(obs)
        a = torch.normal(mean, log_std.exp())
        return -critic(obs, a).mean() - 0.01 * log_std.mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def sampled_in_a_rollout() -> Arguments:
    """The first action has a path, later ones are sampled."""
    actor, model = Gaussian(), Dynamics()

    def loss(s: Tensor) -> Tensor:
        total = torch.zeros(len(s))
        for t in range(3):
            a, _, _ = actor.get_action(s, draw="rsample" if t == 0 else "sample")
            s, r = model.predict(s, a)
            total = total + r
        return -total.mean()

    return dict(loss=loss, actor=actor, model=model, inputs=states())


def detached() -> Arguments:
    """The historical one: the actor's path is cut by a detach before the critic."""
    actor, critic = Gaussian(), Q()

    def loss(obs: Tensor) -> Tensor:
        pi, log_pi, _ = actor.get_action(obs)
        return (0.2 * log_pi - critic(obs, pi.detach())).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def detached_data() -> Arguments:
    actor, model, value = Gaussian(), Dynamics(), Value()

    def loss(s: Tensor) -> Tensor:
        a, log_pi, _ = actor.get_action(s)
        s, r = model.predict(s, a.data)
        return (0.1 * log_pi[:, 0] - r - value(s)[:, 0]).mean()

    return dict(loss=loss, actor=actor, critic=value, model=model, inputs=states())


def without_gradients() -> Arguments:
    actor, critic = Gaussian(), Q()

    def loss(obs: Tensor) -> Tensor:
        with torch.no_grad():
            pi = actor.get_action(obs)[0]
        return (0.2 * actor.get_action(obs)[1] - critic(obs, pi)).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def replayed_action() -> Arguments:
    """The critic judges the batch's action, not the actor's."""
    actor, critic = Gaussian(), Q()

    def loss(obs: Tensor, action: Tensor) -> Tensor:
        return (0.2 * actor.get_action(obs)[1] - critic(obs, action)).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=(states(), torch.zeros(ROWS, ACTION)))


def other_actor() -> Arguments:
    """The loss calls another actor."""
    actor, other, critic = Deterministic(), Deterministic(), Q()
    return dict(
        loss=lambda obs: -critic(obs, other(obs)).mean(), actor=actor, critic=critic,
        inputs=states(),
    )  # fmt: skip


def unused_log_std() -> Arguments:
    """The mean acts: the deviation's layer gets nothing."""
    actor, critic = Gaussian(), Q()
    return dict(
        loss=lambda obs: -critic(obs, actor.get_action(obs)[2]).mean(), actor=actor, critic=critic,
        inputs=states(),
    )  # fmt: skip


def one_optimizer() -> Arguments:
    """One optimiser for actor and critic."""
    actor, critic = Deterministic(), Q()
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()])
    return dict(
        loss=lambda obs: -critic(obs, actor(obs)).mean(), actor=actor, critic=critic,
        inputs=states(), optimizer=optimizer,
    )  # fmt: skip


def model_in_the_optimizer() -> Arguments:
    actor, model = Deterministic(), Dynamics()
    optimizer = torch.optim.Adam([*actor.parameters(), *model.parameters()])
    return dict(
        loss=lambda s: -model.predict(s, actor(s))[1].mean(), actor=actor, model=model,
        inputs=states(), optimizer=optimizer,
    )  # fmt: skip


def forgotten_layer() -> Arguments:
    """The optimiser lacks a layer."""
    actor, critic = Gaussian(), Q()
    optimizer = torch.optim.Adam([*actor.fc.parameters(), *actor.fc_mean.parameters()])

    def loss(obs: Tensor) -> Tensor:
        pi, log_pi, _ = actor.get_action(obs)
        return (0.2 * log_pi - critic(obs, pi)).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states(), optimizer=optimizer)


def not_a_number() -> Arguments:
    """√0 of the first action's distance from itself."""
    actor, critic = Deterministic(), Q()

    def loss(obs: Tensor) -> Tensor:
        a = actor(obs)
        return -critic(obs, a).mean() + (a - a.detach()).norm(dim=1).pow(2).sqrt().mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def averaged_entropy(entropy: str = "log π") -> Arguments:
    """The historical one: returns are summed over the segment, the entropy is averaged."""
    actor, model = Gaussian(), Dynamics()
    log_std = nn.Parameter(torch.zeros(ACTION))

    def loss(s: Tensor, length: int) -> Tensor:
        total, log_probs = torch.zeros(len(s)), []
        for _ in range(length):
            if entropy == "log π":
                a, log_pi, _ = actor.get_action(s)
                log_probs.append(log_pi)
            else:
                distribution = Normal(actor(s)[0], log_std.exp())
                a = distribution.rsample()
                log_probs.append(-distribution.entropy().sum(1))
            s, r = model.predict(s, a)
            total = total + r
        return -total.mean() + 0.1 * torch.stack(log_probs).mean()

    trained: nn.Module = actor
    if entropy != "log π":
        actor.fc_logstd.requires_grad_(False)
        trained = nn.Module()
        trained.actor, trained.log_std = actor, log_std
    return dict(loss=loss, actor=trained, model=model, inputs=states(), lengths=(4, 8))


def _of_normal(value: Callable[[Normal, Tensor, Tensor], Tensor]) -> Arguments:
    """The mean of value(π, a, Q(s, a)) of a reparameterised action a."""
    actor, critic = Gaussian(), Q()

    def loss(obs: Tensor) -> Tensor:
        mean, log_std = actor(obs)
        pi = Normal(mean, log_std.exp())
        a = pi.rsample()
        return value(pi, a, critic(obs, a)).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def detached_entropy() -> Arguments:
    """SAC whose entropy is of a detached action: E[∇ log π(a)] = 0."""
    return _of_normal(lambda pi, a, q: 0.2 * pi.log_prob(a.detach()).sum(1) - q)


def reparameterised_score() -> Arguments:
    """REINFORCE whose action is not stopped: in the mean score and path cancel (rlax #109)."""
    return _of_normal(lambda pi, a, q: -pi.log_prob(a).sum(1) * q.detach())


FAULTS = (
    (detached_entropy, "idle score", "does not depend on the action"),
    (reparameterised_score, "idle score", "cancels the score in fc_mean.weight and fc_mean.bias"),
    (sampled, "not reparameterised", "Normal.sample"),
    (categorical, "dead actor", "OneHotCategorical.sample"),
    (argmax, "dead actor", "argmax"),
    (categorical_with_entropy, "not reparameterised", "Categorical.sample"),
    (chosen_value, "not reparameterised", "Categorical.sample"),
    (embedded, "not reparameterised", "Categorical.sample"),
    (normal, "not reparameterised", "torch.normal"),
    (sampled_in_a_rollout, "not reparameterised", "Normal.sample"),
    (detached, "detached", "detach"),
    (detached_data, "detached", "data"),
    (without_gradients, "detached", "torch.no_grad"),
    (replayed_action, "dead path", "critic"),
    (other_actor, "dead actor", "does not depend on the actor"),
    (unused_log_std, "dead parameter", "fc_logstd.weight"),
    (one_optimizer, "leak", "4 tensors of the critic"),
    (model_in_the_optimizer, "leak", "4 tensors of the model"),
    (forgotten_layer, "not stepped", "fc_logstd.weight"),
    (not_a_number, "not finite", "net.0.weight"),
    (averaged_entropy, "scale", "averaged"),
)
