"""Sound actor losses in the shapes of published code, as arguments of `gradlab.audit`."""

from __future__ import annotations

import copy
from collections.abc import Callable

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
    Arguments,
    Deterministic,
    Dynamics,
    Environment,
    Gaussian,
    Q,
    TwoCritics,
    Value,
    case,
    mlp,
    states,
)


@case(Gaussian, lambda: [Q(), Q()])
def sac_cleanrl(actor, critics, obs):
    pi, log_pi, _ = actor.get_action(obs)
    min_qf_pi = torch.min(*(qf(obs, pi) for qf in critics))
    return ((0.2 * log_pi) - min_qf_pi).mean()


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


@case(lambda: mlp(STATE, 4), lambda: mlp(STATE, 4))
def sac_discrete(actor, qf, obs):
    """The expectation over all actions: nothing is sampled."""
    policy = Categorical(logits=actor(obs))
    policy.sample()
    log_pi = F.log_softmax(policy.logits, dim=1)
    with torch.no_grad():
        values = qf(obs)
    return (policy.probs * (0.2 * log_pi - values)).mean()


@case(Deterministic, Q)
def ddpg(actor, qf, obs):
    return -qf(obs, actor(obs)).mean()


@case(Deterministic, TwoCritics)
def td3(actor, critic, obs):
    return -critic.q1_forward(obs, actor(obs)).mean()


@case(Deterministic, Q, inputs=lambda: (states(), torch.zeros(ROWS, ACTION)))
def td3_bc(actor, critic, obs, action):
    pi = actor(obs)
    value = critic(obs, pi)
    scale = 2.5 / value.abs().mean().detach()
    return -scale * value.mean() + F.mse_loss(pi, action)


@case(Gaussian, Value, Dynamics, lambda: (states(), torch.zeros(ROWS, ACTION), states(1)),
      trained=False)  # fmt: skip
def svg(actor, value, model, s, a, s2):
    """SVG(1): the recorded action's noise is inferred, a critic of states."""
    mean, log_std = actor(s)
    noise = ((a - mean) / log_std.exp()).detach()
    action = mean + log_std.exp() * noise
    predicted, reward = model.predict(s, action)
    residual = (s2 - predicted).detach()
    return -(reward + 0.99 * value(predicted + residual)[:, 0]).mean()


@case(Gaussian, Q, Dynamics, trained=False)
def maac(actor, critic, model, s, length=3):
    """H steps through the model with entropy inside the sum, then the critic."""
    total = torch.zeros(len(s))
    for t in range(length):
        a, log_pi, _ = actor.get_action(s)
        s, r = model.predict(s, a)
        total = total + 0.95**t * (r - 0.1 * log_pi[:, 0])
    a, log_pi, _ = actor.get_action(s)
    return -(total + 0.95**length * critic(s, a)[:, 0]).mean()


@case(Gaussian, Value, Environment, lambda: ())
def shac(actor, target, env, length=5):
    """A window of a simulator that keeps its state, resets rows, and is divided by its length."""
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


@case(Deterministic, Q, Dynamics)
def mpg_first_action(actor, critic, model, s):
    """θ in the first action: a copy that is made in the loss acts afterwards."""
    later = copy.deepcopy(actor).requires_grad_(False)
    a, total = actor(s), torch.zeros(len(s))
    for t in range(3):
        s, r = model.predict(s, a)
        total = total + 0.98**t * r
        a = later(s)
    return -(total + 0.98**3 * critic(s, a)[:, 0]).mean()


def _pushed(s, a):
    return 0.9 * s + 0.2 * a.sum(1, keepdim=True), -(s**2).sum(1)


@case(lambda: Deterministic().double(), model=lambda: from_function(_pushed, STATE, ACTION),
      inputs=lambda: states().double())  # fmt: skip
def system(actor, simulator, s):
    """gradlab's own systems: objects with methods."""
    total = torch.zeros(len(s), dtype=s.dtype)
    for _ in range(3):
        out = simulator.step(s, actor(s), None)
        s, total = out.state, total + out.reward
    return -total.mean()


@case(Gaussian, Q, trained=False)
def reinforce(actor, critic, s):
    """Scores of sampled actions, weighed by a critic: no path through the action is meant."""
    mean, log_std = actor(s)
    normal = Normal(mean, log_std.exp())
    a = normal.sample()
    return -(normal.log_prob(a).sum(1) * critic(s, a)[:, 0]).mean()


@case(lambda: mlp(STATE, 4), lambda: mlp(STATE, 4), trained=False)
def reinforce_categorical(actor, critic, s):
    policy = Categorical(logits=actor(s))
    a = policy.sample()
    chosen = critic(s).gather(1, a[:, None])[:, 0]
    advantage = chosen - critic(s).mean(1)
    return -(policy.log_prob(a) * advantage).mean() - 0.01 * policy.entropy().mean()


@case(Gaussian, model=Dynamics)
def score_through_model(actor, model, s):
    """Scores weighed by returns of a model whose gradients are not cut."""
    scores, returns = torch.zeros(len(s)), torch.zeros(len(s))
    for _ in range(3):
        mean, log_std = actor(s)
        normal = Normal(mean, log_std.exp())
        a = normal.sample()
        scores = scores + normal.log_prob(a).sum(1)
        s, r = model.predict(s, a)
        s, returns = s.detach(), returns + r
    return -(scores * returns).mean()


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


@case(lambda: mlp(STATE, ACTION), Q)
def gumbel(actor, critic, s):
    """Straight-through one-hot actions."""
    return -critic(s, F.gumbel_softmax(actor(s), hard=True)).mean()


SOUND: tuple[Callable[[], Arguments], ...] = (
    sac_cleanrl, sac_sb3, sac_vmapped, sac_discrete, ddpg, td3, td3_bc, svg, maac, shac,
    mpg_first_action, system, reinforce, reinforce_categorical, score_through_model, ppo, gumbel,
    dreamer, reinforcing_dreamer,
)  # fmt: skip
