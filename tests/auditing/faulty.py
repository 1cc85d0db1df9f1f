"""Faulty actor losses as arguments of `gradlab.audit`, each with the kind that names its fault."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, OneHotCategorical

from tests.auditing.networks import (
    ACTION,
    ROWS,
    STATE,
    Arguments,
    Deterministic,
    Dynamics,
    Gaussian,
    Q,
    Value,
    case,
    mlp,
    states,
)


@case(Gaussian, Q)
def sampled(actor, critic, obs):
    """SAC on `sample`: the entropy alone has a gradient."""
    pi, log_pi, _ = actor.get_action(obs, draw="sample")
    return (0.2 * log_pi - critic(obs, pi)).mean()


@case(lambda: mlp(STATE, ACTION), Q)
def categorical(actor, critic, obs):
    """The historical one: the critic judges a sampled one-hot action, and nothing is left."""
    return -critic(obs, OneHotCategorical(logits=actor(obs)).sample()).mean()


@case(lambda: mlp(STATE, ACTION), Q)
def argmax(actor, critic, obs):
    return -critic(obs, F.one_hot(actor(obs).argmax(1), ACTION).float()).mean()


@case(lambda: mlp(STATE, ACTION), Q)
def categorical_with_entropy(actor, critic, obs):
    policy = Categorical(logits=actor(obs))
    a = F.one_hot(policy.sample(), ACTION).float()
    return -critic(obs, a).mean() - 0.01 * policy.entropy().mean()


@case(lambda: mlp(STATE, 4), lambda: mlp(STATE, 4))
def chosen_value(actor, critic, obs):
    """Q(s, ·)[a] of a sampled a."""
    policy = Categorical(logits=actor(obs))
    a = policy.sample()
    return -critic(obs).gather(1, a[:, None]).mean() - 0.01 * policy.entropy().mean()


@case(lambda: mlp(STATE, 4), model=lambda: nn.Embedding(4, 1))
def embedded(actor, model, obs):
    """A discrete action, embedded by the model."""
    policy = Categorical(logits=actor(obs))
    return -model(policy.sample()).mean() - 0.01 * policy.entropy().mean()


@case(Gaussian, Q)
def normal(actor, critic, obs):
    """torch.normal, whose derivative is zero."""
    mean, log_std = actor(obs)
    a = torch.normal(mean, log_std.exp())
    return -critic(obs, a).mean() - 0.01 * log_std.mean()


@case(Gaussian, model=Dynamics)
def sampled_in_a_rollout(actor, model, s):
    """The first action has a path, later ones are sampled."""
    total = torch.zeros(len(s))
    for t in range(3):
        a, _, _ = actor.get_action(s, draw="rsample" if t == 0 else "sample")
        s, r = model.predict(s, a)
        total = total + r
    return -total.mean()


@case(Gaussian, Q)
def detached(actor, critic, obs):
    """The historical one: the actor's path is cut by a detach before the critic."""
    pi, log_pi, _ = actor.get_action(obs)
    return (0.2 * log_pi - critic(obs, pi.detach())).mean()


@case(Gaussian, Value, Dynamics)
def detached_data(actor, value, model, s):
    a, log_pi, _ = actor.get_action(s)
    s, r = model.predict(s, a.data)
    return (0.1 * log_pi[:, 0] - r - value(s)[:, 0]).mean()


@case(Gaussian, Q)
def without_gradients(actor, critic, obs):
    with torch.no_grad():
        pi = actor.get_action(obs)[0]
    return (0.2 * actor.get_action(obs)[1] - critic(obs, pi)).mean()


@case(Gaussian, Q, inputs=lambda: (states(), torch.zeros(ROWS, ACTION)))
def replayed_action(actor, critic, obs, action):
    """The critic judges the batch's action, not the actor's."""
    return (0.2 * actor.get_action(obs)[1] - critic(obs, action)).mean()


OTHER = Deterministic()


@case(Deterministic, Q)
def other_actor(actor, critic, obs):
    """The loss calls another actor."""
    return -critic(obs, OTHER(obs)).mean()


@case(Gaussian, Q)
def unused_log_std(actor, critic, obs):
    """The mean acts: the deviation's layer gets nothing."""
    return -critic(obs, actor.get_action(obs)[2]).mean()


def adam_of_all(*modules):
    return torch.optim.Adam([p for module in modules for p in module.parameters()])


@case(Deterministic, Q, optimizer=adam_of_all)
def one_optimizer(actor, critic, obs):
    """One optimiser for actor and critic."""
    return -critic(obs, actor(obs)).mean()


@case(Deterministic, model=Dynamics, optimizer=adam_of_all)
def model_in_the_optimizer(actor, model, s):
    return -model.predict(s, actor(s))[1].mean()


@case(Gaussian, Q, optimizer=lambda actor, critic: adam_of_all(actor.fc, actor.fc_mean))
def forgotten_layer(actor, critic, obs):
    """The optimiser lacks a layer."""
    pi, log_pi, _ = actor.get_action(obs)
    return (0.2 * log_pi - critic(obs, pi)).mean()


@case(Deterministic, Q)
def not_a_number(actor, critic, obs):
    """√0 of the first action's distance from itself."""
    a = actor(obs)
    return -critic(obs, a).mean() + (a - a.detach()).norm(dim=1).pow(2).sqrt().mean()


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


def _of_normal(actor, critic, obs):
    """π, a reparameterised action a, Q(s, a)."""
    mean, log_std = actor(obs)
    pi = Normal(mean, log_std.exp())
    a = pi.rsample()
    return pi, a, critic(obs, a)


@case(Gaussian, Q)
def detached_entropy(actor, critic, obs):
    """SAC whose entropy is of a detached action: E[∇ log π(a)] = 0."""
    pi, a, q = _of_normal(actor, critic, obs)
    return (0.2 * pi.log_prob(a.detach()).sum(1) - q).mean()


@case(Gaussian, Q)
def reparameterised_score(actor, critic, obs):
    """REINFORCE whose action is not stopped: in the mean score and path cancel (rlax #109)."""
    pi, a, q = _of_normal(actor, critic, obs)
    return (-pi.log_prob(a).sum(1) * q.detach()).mean()


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
