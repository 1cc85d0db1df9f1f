"""PPO's weights of log π: a wrong sign, an inverted ratio, and returns are told from advantages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Normal

import gradlab
from gradlab.probe.parts import targets
from tests.probe.actor_critics import answers

CHECK = "actions are weighed by their advantages"
GAMMA, TRACE, STEPS = 0.99, 0.95, 64


def net(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


def ppo(fault: str, discrete: bool) -> dict[str, Any]:
    """CleanRL's PPO in short, and its check's newest row; critics that tell states apart."""
    torch.manual_seed(0)
    name, width = ("CartPole-v1", 2) if discrete else ("Pendulum-v1", 1)
    make = [lambda: gymnasium.make(name)] * 4
    env: Any = SyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP)
    states = env.single_observation_space.shape[0]
    actor, critic = net(states, width), net(states, 1)
    with torch.no_grad():
        critic[2].weight.mul_(60)
    log_std = nn.Parameter(torch.zeros(1))
    both = torch.optim.Adam([*actor.parameters(), log_std, *critic.parameters()], 1e-3)
    rows: list[dict[str, Any]] = []
    probe = gradlab.Probe(actor, both, log=rows.append, overhead_budget=1.0, clock=lambda: 0.0)

    def policy(states: Tensor) -> Distribution:
        mean = actor(states)
        return Categorical(logits=mean) if discrete else Normal(mean[:, 0], log_std.exp())

    env = probe.record(env) if fault != "not recorded" else env
    state = torch.as_tensor(env.reset(seed=0)[0])
    for iteration in range(8):
        kept = []
        for _ in range(STEPS):
            with torch.no_grad():
                pi, value = policy(state), critic(state)[:, 0]
                action = pi.sample()
            sent = action.numpy() if discrete else action[:, None].numpy()
            after, reward, ended, cut, _ = env.step(sent)
            row = state, action, pi.log_prob(action), torch.as_tensor(reward).float(), value
            kept.append((*row, torch.as_tensor(ended | cut).float()))
            state = torch.as_tensor(after)
        s, a, old, r, v, e = map(torch.stack, zip(*kept, strict=True))
        advantage, carried = torch.zeros_like(r), torch.zeros(4)
        with torch.no_grad():
            last = following = critic(state)[:, 0]
        for t in reversed(range(STEPS)):
            delta = r[t] + GAMMA * (1 - e[t]) * following - v[t]
            carried = delta + GAMMA * TRACE * (1 - e[t]) * carried
            advantage[t], following = carried, v[t]
        probe.rollout(
            reward=r, value=v, ended=e, last_value=last, advantage=advantage, discount=GAMMA,
            trace=TRACE,
        )  # fmt: skip
        goal = advantage + v
        w = goal if fault == "returns" else advantage
        flat = [x.flatten(0, 1) for x in (s, a, old, w, goal)]
        for _ in range(4):
            for index in torch.randperm(4 * STEPS).split(64):
                s_, a_, old_, w_, goal_ = (x[index] for x in flat)
                pi = policy(s_)
                ratio = (pi.log_prob(a_) - old_).exp()
                ratio = 1 / ratio if fault == "ratio" else ratio
                w_ = (w_ - w_.mean()) / w_.std() if fault != "not normalised" else w_
                lost = torch.max(-w_ * ratio, -w_ * ratio.clamp(0.8, 1.2)).mean()
                loss = -lost if fault == "sign" else lost
                loss = loss - 0.01 * pi.entropy().mean()
                both.zero_grad()
                with probe(iteration * 4 * STEPS):
                    (loss + 0.5 * ((critic(s_)[:, 0] - goal_) ** 2).mean()).backward()
                both.step()
    probe.close()
    causes = [alarm.message for alarm in probe.alarms if "policy's loss" in alarm.message]
    return answers(rows)[CHECK] | {"causes": causes}


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(
    "fault, words",
    [
        ("", ""),
        ("not normalised", ""),
        ("sign", "is its sign right"),
        ("ratio", "the new probability over the old?"),
        ("returns", "is the value subtracted as a baseline?"),
    ],
)
def test_weights_are_held_against_the_rollouts_advantages(fault, words, discrete):
    found = ppo(fault, discrete)
    assert found["state"] == ("fault" if words else "sound")
    assert bool(found["causes"]) == bool(words) and all(words in each for each in found["causes"])
    assert found["value"] > 0.35 or words


@pytest.mark.parametrize("far", [0.0, 2.0, 4.0])
def test_weights_are_read_where_actions_are_cut_to_their_limits(far):
    """Means that are `far` beyond [−1, 1], and a scale that is nearer to what is left of them."""
    draw = torch.Generator().manual_seed(0)
    mean = (far * torch.randn(256, 3, generator=draw)).requires_grad_()
    log_std = torch.zeros(1, 3, requires_grad=True).expand(256, 3)
    noise, weights = torch.randn(256, 3, generator=draw), torch.randn(256, generator=draw)
    drawn = (mean + noise).detach()
    loss = -(weights * Normal(mean, log_std.exp()).log_prob(drawn).sum(1)).sum()
    arrived = dict(enumerate(torch.autograd.grad(loss, [mean, log_std])))
    made: Any = SimpleNamespace(outputs=[mean, log_std], arrived=arrived)
    cut = drawn.clamp(-1, 1).double().numpy()
    found = targets._weights(made, np.arange(256), cut, targets._limits(cut))
    assert found is not None
    read = found[1]
    assert np.corrcoef(found[0][read], weights[read])[0, 1] > 0.95
    assert (read == (np.abs(cut) < 1).any(1)).all()
