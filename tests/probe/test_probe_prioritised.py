"""Prioritised replay: draws by |δ| and weighed losses accuse no sound loop, and hide no fault."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.probe.alarms.evidence import CAUSES, IMPLIED
from tests.probe.actor_critics import answers

GAMMA, TAU, FIRST = 0.97, 0.01, 400
NAMES = ("observation", "action", "reward", "next_observation", "terminated")


def net(inputs: int, last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 1), last)


class Replay:
    """Rows drawn in proportion to |δ| ^ α, and weights (N p) ^ −β over the largest of them."""

    def __init__(self, alpha: float, size: int) -> None:
        self.alpha, self.size = alpha, size
        self.rows: list[tuple[Any, ...]] = []
        self.priorities = np.zeros(10_000)

    def add(self, *row: Any) -> None:
        self.priorities[len(self.rows)] = self.priorities.max() or 1.0
        self.rows.append(row)

    def draw(self, beta: float) -> tuple[Any, list[Tensor], Tensor]:
        p = self.priorities[: len(self.rows)] ** self.alpha
        p /= p.sum()
        at = np.random.choice(len(p), self.size, p=p)
        weights = (len(p) * p[at]) ** -beta
        columns = zip(*(self.rows[k] for k in at), strict=True)
        tensors = [torch.as_tensor(np.stack(each), dtype=torch.float32) for each in columns]
        weights = torch.as_tensor(weights / weights.max(), dtype=torch.float32)
        return at, [x if x.ndim > 1 else x[:, None] for x in tensors], weights[:, None]


def run(
    fault: str, updates: int, alpha: float = 0.6, size: int = 64, rate: float = 2e-3
) -> tuple[gradlab.Probe, dict[str, dict[str, Any]]]:
    """DDPG on the pendulum, and the newest answer of every check."""
    torch.manual_seed(0), np.random.seed(0)
    actor, critic = net(3, nn.Tanh()), net(4, nn.Identity())
    target_actor, target_critic = copy.deepcopy((actor, critic))
    actor_optimizer = torch.optim.Adam(actor.parameters(), 1e-3)
    critic_optimizer = torch.optim.Adam(critic.parameters(), rate)
    log: list[dict[str, Any]] = []
    probe = gradlab.Probe(
        actor, actor_optimizer, critic_optimizer=critic_optimizer, critic_alone=True,
        log=log.append, overhead_budget=1.0, clock=lambda: 0.0,
    )  # fmt: skip
    env, replay = probe.record(gymnasium.make("Pendulum-v1")), Replay(alpha, size)
    state, before = env.reset(seed=0)[0], 0.0
    for step in range(FIRST + updates):
        with torch.no_grad():
            mean = actor(torch.as_tensor(state)).numpy()
        action = np.clip(mean + 0.3 * np.random.randn(1), -1, 1).astype(np.float32)
        after, reward, ended, cut, _ = env.step(2 * action)
        paid, before = (before if fault == "rewards of the step before" else reward), reward
        replay.add(state, action, np.float32(paid), after, np.float32(ended))
        state = env.reset()[0] if ended or cut else after
        if step < FIRST:
            continue
        at, rows, weights = replay.draw(0.4 + 0.6 * (step - FIRST) / updates)
        s, a, r, following, d = rows
        with torch.no_grad():
            v = target_critic(torch.cat([following, target_actor(following)], 1))
            y = r + GAMMA * (1 - d) * v
        given = dict(zip(NAMES, rows, strict=True))
        probe.batch(**given, next_value=v, target=y, discount=GAMMA)
        error = critic(torch.cat([s, a], 1)) - y
        loss = (weights * error**2).mean()
        critic_optimizer.zero_grad()
        (-loss if fault == "sign of the weights" else loss).backward()
        critic_optimizer.step()
        replay.priorities[at] = error.detach().abs().numpy()[:, 0] + 1e-3
        actor_loss = -critic(torch.cat([s, actor(s)], 1)).mean()
        actor_optimizer.zero_grad()
        with probe(step):
            actor_loss.backward()
        actor_optimizer.step()
        with torch.no_grad():
            for one, other in ((target_actor, actor), (target_critic, critic)):
                for t, p in zip(one.parameters(), other.parameters(), strict=True):
                    t.lerp_(p, TAU)
    probe.close()
    return probe, answers(log)


@pytest.mark.slow
def test_weights_of_the_wrong_sign_are_named():
    probe, _ = run("sign of the weights", 420)
    assert {alarm.kind for alarm in probe.alarms} & set(CAUSES) == {IMPLIED}


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"alpha": 1.0, "size": 16, "rate": 3e-4}])
def test_a_sound_loop_is_not_accused_however_slow_its_critic(given):
    probe, found = run("", 420, **given)
    assert not probe.alarms and not any(each["state"] == "fault" for each in found.values())
    assert found["the critic's implied reward is the paid one"]["state"] == (
        "waiting" if given else "sound"
    )
