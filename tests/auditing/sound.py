"""Sound actor losses in the shapes of published code, as arguments of `gradlab.audit`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

from gradlab.systems import from_function
from tests.auditing.dreaming import dreamer, reinforcing_dreamer
from tests.auditing.networks import (
    ACTION,
    ROWS,
    STATE,
    Deterministic,
    Dynamics,
    Environment,
    Gaussian,
    Q,
    TwoCritics,
    Value,
    frozen,
    mlp,
    states,
)

Arguments = dict[str, Any]


def sac_cleanrl() -> Arguments:
    actor, qf1, qf2 = Gaussian(), Q(), Q()

    def loss(obs: Tensor) -> Tensor:
        pi, log_pi, _ = actor.get_action(obs)
        min_qf_pi = torch.min(qf1(obs, pi), qf2(obs, pi))
        return ((0.2 * log_pi) - min_qf_pi).mean()

    return dict(loss=loss, actor=actor, critic=[qf1, qf2], inputs=states())


def sac_sb3() -> Arguments:
    actor, critic = Gaussian(), TwoCritics()
    log_ent_coef = torch.zeros(1, requires_grad=True)

    def loss(obs: Tensor) -> Tensor:
        actions_pi, log_prob, _ = actor.get_action(obs)
        ent_coef = torch.exp(log_ent_coef.detach())
        q_values_pi = torch.cat(critic(obs, actions_pi), dim=1)
        min_qf_pi, _ = torch.min(q_values_pi, dim=1, keepdim=True)
        return (ent_coef * log_prob.reshape(-1, 1) - min_qf_pi).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def sac_vmapped() -> Arguments:
    """Both critics in one call, as LeanRL."""
    actor, critics = Gaussian(), nn.ModuleList([Q(), Q()])
    stacked, _ = torch.func.stack_module_state(list(critics))
    base = copy.deepcopy(critics[0])

    def batched_qf(params: dict[str, Tensor], obs: Tensor, a: Tensor) -> Tensor:
        value: Tensor = torch.func.functional_call(base, params, (obs, a))
        return value

    def loss(obs: Tensor) -> Tensor:
        pi, log_pi, _ = actor.get_action(obs)
        data = {name: p.detach() for name, p in stacked.items()}
        qf_pi = torch.vmap(batched_qf, (0, None, None))(data, obs, pi)
        return ((0.2 * log_pi) - qf_pi.min(0).values).mean()

    return dict(loss=loss, actor=actor, critic=base, inputs=states())


def sac_discrete() -> Arguments:
    """The expectation over all actions: nothing is sampled."""
    actor, qf = mlp(STATE, 4), mlp(STATE, 4)

    def loss(obs: Tensor) -> Tensor:
        policy = Categorical(logits=actor(obs))
        policy.sample()
        log_pi = F.log_softmax(policy.logits, dim=1)
        with torch.no_grad():
            values = qf(obs)
        return (policy.probs * (0.2 * log_pi - values)).mean()

    return dict(loss=loss, actor=actor, critic=qf, inputs=states())


def ddpg() -> Arguments:
    actor, qf = Deterministic(), Q()
    return dict(
        loss=lambda obs: -qf(obs, actor(obs)).mean(), actor=actor, critic=qf, inputs=states()
    )


def td3() -> Arguments:
    actor, critic = Deterministic(), TwoCritics()

    def loss(obs: Tensor) -> Tensor:
        return -critic.q1_forward(obs, actor(obs)).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def td3_bc() -> Arguments:
    actor, critic = Deterministic(), Q()

    def loss(obs: Tensor, action: Tensor) -> Tensor:
        pi = actor(obs)
        value = critic(obs, pi)
        scale = 2.5 / value.abs().mean().detach()
        return -scale * value.mean() + F.mse_loss(pi, action)

    return dict(loss=loss, actor=actor, critic=critic, inputs=(states(), torch.zeros(ROWS, ACTION)))


def svg() -> Arguments:
    """SVG(1): the recorded action's noise is inferred, a critic of states."""
    actor, model, value = Gaussian(), Dynamics(), Value()
    frozen(model, value)

    def loss(s: Tensor, a: Tensor, s2: Tensor) -> Tensor:
        mean, log_std = actor(s)
        noise = ((a - mean) / log_std.exp()).detach()
        action = mean + log_std.exp() * noise
        predicted, reward = model.predict(s, action)
        residual = (s2 - predicted).detach()
        return -(reward + 0.99 * value(predicted + residual)[:, 0]).mean()

    return dict(
        loss=loss, actor=actor, critic=value, model=model,
        inputs=(states(), torch.zeros(ROWS, ACTION), states(1)),
    )  # fmt: skip


def maac(length: int = 3) -> Arguments:
    """H steps through the model with entropy inside the sum, then the critic."""
    actor, model, critic = Gaussian(), Dynamics(), Q()
    frozen(model, critic)

    def loss(s: Tensor, length: int = length) -> Tensor:
        total = torch.zeros(len(s))
        for t in range(length):
            a, log_pi, _ = actor.get_action(s)
            s, r = model.predict(s, a)
            total = total + 0.95**t * (r - 0.1 * log_pi[:, 0])
        a, log_pi, _ = actor.get_action(s)
        return -(total + 0.95**length * critic(s, a)[:, 0]).mean()

    return dict(loss=loss, actor=actor, critic=critic, model=model, inputs=states())


def shac(length: int = 5) -> Arguments:
    """A window of a simulator that keeps its state, resets rows, and is divided by its length."""
    actor, target, env = Gaussian(), Value(), Environment()

    def loss(length: int = length) -> Tensor:
        env.steps = 0
        env.obs = torch.linspace(-1, 1, ROWS * STATE).reshape(ROWS, STATE)
        obs = env.initialize_trajectory()
        rewards = torch.zeros(length + 1, ROWS)
        gamma, total = torch.ones(ROWS), torch.tensor(0.0)
        for i in range(length):
            actions, _, _ = actor.get_action(obs)
            obs, rew, done, info = env.step(torch.tanh(actions))
            ends = done.nonzero(as_tuple=False).squeeze(-1)
            values = target(obs).squeeze(-1)
            for row in ends:
                values[row] = target(info["obs_before_reset"][row]).squeeze(-1)
            rewards[i + 1, :] = rewards[i, :] + gamma * rew
            which = ends if i < length - 1 else slice(None)
            total = total - (rewards[i + 1, which] + 0.99 * gamma[which] * values[which]).sum()
            gamma = gamma * 0.99
            gamma[ends] = 1.0
            rewards[i + 1, ends] = 0.0
        return total / (length * ROWS)

    return dict(loss=loss, actor=actor, critic=target, model=env)


def mpg_first_action() -> Arguments:
    """θ in the first action: a copy that is made in the loss acts afterwards."""
    actor, model, critic = Deterministic(), Dynamics(), Q()

    def loss(s: Tensor) -> Tensor:
        later = copy.deepcopy(actor).requires_grad_(False)
        a, total = actor(s), torch.zeros(len(s))
        for t in range(3):
            s, r = model.predict(s, a)
            total = total + 0.98**t * r
            a = later(s)
        return -(total + 0.98**3 * critic(s, a)[:, 0]).mean()

    return dict(loss=loss, actor=actor, critic=critic, model=model, inputs=states())


def system() -> Arguments:
    """gradlab's own systems: objects with methods."""
    actor = Deterministic().double()

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return 0.9 * s + 0.2 * a.sum(1, keepdim=True), -(s**2).sum(1)

    simulator = from_function(step, state_dim=STATE, action_dim=ACTION)

    def loss(s: Tensor) -> Tensor:
        total = torch.zeros(len(s), dtype=s.dtype)
        for _ in range(3):
            out = simulator.step(s, actor(s), None)
            s, total = out.state, total + out.reward
        return -total.mean()

    return dict(loss=loss, actor=actor, model=simulator, inputs=states().double())


def reinforce() -> Arguments:
    """Scores of sampled actions, weighed by a critic: no path through the action is meant."""
    actor, critic = Gaussian(), Q()
    frozen(critic)

    def loss(s: Tensor) -> Tensor:
        mean, log_std = actor(s)
        normal = Normal(mean, log_std.exp())
        a = normal.sample()
        return -(normal.log_prob(a).sum(1) * critic(s, a)[:, 0]).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def reinforce_categorical() -> Arguments:
    actor, critic = mlp(STATE, 4), mlp(STATE, 4)
    frozen(critic)

    def loss(s: Tensor) -> Tensor:
        policy = Categorical(logits=actor(s))
        a = policy.sample()
        chosen = critic(s).gather(1, a[:, None])[:, 0]
        advantage = chosen - critic(s).mean(1)
        return -(policy.log_prob(a) * advantage).mean() - 0.01 * policy.entropy().mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


def score_through_model() -> Arguments:
    """Scores weighed by returns of a model whose gradients are not cut."""
    actor, model = Gaussian(), Dynamics()

    def loss(s: Tensor) -> Tensor:
        scores, returns = torch.zeros(len(s)), torch.zeros(len(s))
        for _ in range(3):
            mean, log_std = actor(s)
            normal = Normal(mean, log_std.exp())
            a = normal.sample()
            scores = scores + normal.log_prob(a).sum(1)
            s, r = model.predict(s, a)
            s, returns = s.detach(), returns + r
        return -(scores * returns).mean()

    return dict(loss=loss, actor=actor, model=model, inputs=states())


def ppo(clip: float = 0.2, moved: float = 0.0) -> Arguments:
    actor, value = Gaussian(), Value()
    old = copy.deepcopy(actor)
    for p in actor.parameters():
        p.data += moved * p.data.square().mean().sqrt() * torch.randn_like(p)

    def loss(s: Tensor) -> Tensor:
        with torch.no_grad():
            a, before, _ = old.get_action(s)
            advantage = a.sum(1) - value(s)[:, 0]
        mean, log_std = actor(s)
        normal = Normal(mean, log_std.exp())
        ratio = (normal.log_prob(a).sum(1) - before[:, 0]).exp()
        clipped = torch.clamp(ratio, 1 - clip, 1 + clip)
        surrogate = torch.min(ratio * advantage, clipped * advantage).mean()
        return -surrogate - 0.01 * normal.entropy().sum(1).mean()

    return dict(loss=loss, actor=actor, critic=value, inputs=states())


def gumbel() -> Arguments:
    """Straight-through one-hot actions."""
    actor, critic = mlp(STATE, ACTION), Q()

    def loss(s: Tensor) -> Tensor:
        return -critic(s, F.gumbel_softmax(actor(s), hard=True)).mean()

    return dict(loss=loss, actor=actor, critic=critic, inputs=states())


SOUND: tuple[Callable[[], Arguments], ...] = (
    sac_cleanrl, sac_sb3, sac_vmapped, sac_discrete, ddpg, td3, td3_bc, svg, maac, shac,
    mpg_first_action, system, reinforce, reinforce_categorical, score_through_model, ppo, gumbel,
    dreamer, reinforcing_dreamer,
)  # fmt: skip
