"""Losses of public threads and published code, each with its source: ten sound, ten not.

Written anew after what the thread or the file says, with the networks of `networks.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.distributions import Normal

from tests.auditing import faulty, sound
from tests.auditing.networks import (
    ACTION,
    ROWS,
    Arguments,
    Deterministic,
    Dynamics,
    Gaussian,
    Q,
    case,
    states,
)
from tests.auditing.test_loss_differences import Decay


@case(Gaussian, Q, Dynamics)
def value_without_gradient(actor, critic, model, s):
    """Imagined values under no_grad: only the entropy is left."""
    entropy = torch.zeros(())
    for _ in range(3):
        a, log_pi, _ = actor.get_action(s)
        entropy = entropy - log_pi.mean()
        s, _ = model.predict(s, a)
    with torch.no_grad():
        value = critic(s, actor.get_action(s)[0])
    return -value.mean() - 1e-3 * entropy


@case(Gaussian, Q)
def detached_value(actor, critic, obs):
    """SAC's α log π − Q with Q detached, since the line raised an error otherwise."""
    a, log_pi, _ = actor.get_action(obs)
    return (0.2 * log_pi - critic(obs, a).detach()).mean()


@case(Gaussian, lambda: nn.Linear(3, 1),
      inputs=lambda: (states(), torch.randn(ROWS, ACTION), torch.randn(ROWS)),
      optimizer=faulty.adam_of_all)  # fmt: skip
def baseline_with_gradient(actor, value, obs, action, returns):
    """log π (R − V(s)) with V in the graph, and one optimiser of actor and critic."""
    mean, log_std = actor(obs)
    log_pi = Normal(mean, log_std.exp()).log_prob(action).sum(1)
    return -(log_pi * (returns - value(obs)[:, 0])).mean()


@case(Deterministic, model=Dynamics)
def decayed(actor, model, s):
    """The gradient of the state times α at every step."""
    total = torch.zeros(())
    for _ in range(4):
        s, r = model.predict(Decay.apply(s, 0.4), Decay.apply(actor(s), 0.4))
        total = total - r.mean()
    return total


@case(lambda: nn.Linear(3, 4), lambda: nn.Linear(3, 4))
def discrete_with_frozen_critic(actor, critic, obs):
    """Discrete SAC, whose critic is under no_grad: probabilities carry the gradient."""
    log_pi = torch.log_softmax(actor(obs), 1)
    with torch.no_grad():
        q = critic(obs)
    return (log_pi.exp() * (0.2 * log_pi - q)).sum(1).mean()


@case(Gaussian, Q, inputs=lambda: (states(), torch.randn(ROWS, ACTION)))
def weighted_regression(actor, critic, obs, action):
    """−exp(A) log π of the batch's actions."""
    mean, log_std = actor(obs)
    with torch.no_grad():
        advantage = critic(obs, action) - critic(obs, torch.tanh(actor(obs)[0]))
    log_pi = Normal(mean, log_std.exp()).log_prob(action).sum(1, keepdim=True)
    return -(advantage.exp().clamp(max=20) * log_pi).mean()


_GITHUB = "https://github.com/"
FAULTY: tuple[tuple[str, Callable[[], Arguments], str], ...] = (
    ("jurgisp/pydreamer/issues/12", value_without_gradient, "detached"),
    ("google-deepmind/rlax/issues/109", faulty.reparameterised_score, "idle score"),
    ("TianhongDai/reinforcement-learning-algorithms/issues/8", detached_value, "detached"),
    (
        "MorvanZhou/Reinforcement-learning-with-tensorflow/pull/125",
        faulty.replayed_action,
        "dead path",
    ),
    ("jankrepl/deepdow/pull/106", faulty.sampled, "not reparameterised"),
    ("UT-Austin-RPL/amago/pull/27", faulty.one_optimizer, "leak"),
    ("keras-team/keras-io/issues/194", baseline_with_gradient, "leak"),
    ("HenryHuYu/DiffPhysDrone", decayed, "surrogate"),
    ("shariqiqbal2810/maddpg-pytorch/issues/11", faulty.argmax, "dead actor"),
    ("kashif/firedup/issues/9", faulty.sampled_in_a_rollout, "not reparameterised"),
)
SOUND: tuple[tuple[str, Callable[[], Arguments]], ...] = (
    ("vwxyzjn/cleanrl/blob/master/cleanrl/sac_continuous_action.py", sound.sac_cleanrl),
    ("DLR-RM/stable-baselines3/blob/master/stable_baselines3/sac/sac.py", sound.sac_sb3),
    ("toshikwa/sac-discrete.pytorch/issues/24", discrete_with_frozen_critic),
    ("sfujim/TD3/blob/master/TD3.py", sound.td3),
    ("sfujim/TD3_BC/blob/main/TD3_BC.py", sound.td3_bc),
    ("vwxyzjn/cleanrl/blob/master/cleanrl/ppo_continuous_action.py", sound.ppo),
    ("NVlabs/DiffRL/blob/main/algorithms/shac.py", sound.shac),
    ("iclavera/meta-mb", sound.maac),
    ("thu-ml/tianshou/issues/29", sound.ddpg),
    ("ikostrikov/implicit_q_learning/blob/master/actor.py", weighted_regression),
)
