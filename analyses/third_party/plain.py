"""A loop as people write it by hand: deterministic actor, critic and targets on a Gymnasium task.

Its faults are flags, since the loop is ours; the probe is given what a user would give it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

import gradlab
from analyses.third_party.outcome import Ear, Outcome, heard

STARTS, BATCH, DISCOUNT, TAU = 200, 64, 0.99, 0.005


@dataclass(frozen=True)
class Flaws:
    """
    Attributes:
        actor_rate: learning rate; growth: of the reward per step.
        detached: the action in the actor's loss; lost: update whose row 5 is not a number.
    """

    actor_rate: float = 1e-3
    growth: float = 1.0
    detached: bool = False
    lost: int = -1


class Actor(nn.Sequential):
    def __init__(self, states: int, actions: int, limit: float) -> None:
        super().__init__(*_layers(states, actions), nn.Tanh())
        self.limit = limit

    def forward(self, state: Tensor) -> Tensor:
        return self.limit * super().forward(state)


class Critic(nn.Module):
    def __init__(self, states: int, actions: int) -> None:
        super().__init__()
        self.network = nn.Sequential(*_layers(states + actions, 1))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        found: Tensor = self.network(torch.cat([state, action], dim=1))[:, 0]
        return found


def _layers(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)]


def run(
    task: str, seed: int, updates: int, probed: Mapping[str, Any] | None, flaws: Flaws = Flaws()
) -> Outcome:
    """`updates` of actor and critic, after `STARTS` random steps."""
    torch.manual_seed(seed)
    draw, world = np.random.default_rng(seed), gymnasium.make(task)
    limit = float(world.action_space.high[0])  # type: ignore[attr-defined]
    sizes = world.observation_space.shape[0], world.action_space.shape[0]  # type: ignore[index]
    actor, critic = Actor(*sizes, limit), Critic(*sizes)
    targets = copy.deepcopy(actor), copy.deepcopy(critic)
    moves = torch.optim.Adam(actor.parameters(), flaws.actor_rate)
    values = torch.optim.Adam(critic.parameters(), 1e-3)
    ear, probe = Ear(), None
    if probed is not None:
        probe = gradlab.Probe(
            actor, moves, critic=critic, critic_optimizer=values, log=ear, **probed
        )
    replay: list[tuple[Any, ...]] = []
    state, _ = world.reset(seed=seed)
    for step in range(STARTS + updates):
        with torch.no_grad():
            action = actor(torch.as_tensor(state, dtype=torch.float32)[None])[0].numpy()
        action = draw.uniform(-limit, limit, sizes[1]) if step < STARTS else action
        action = (action + 0.1 * limit * draw.standard_normal(sizes[1])).clip(-limit, limit)
        after, reward, ended, cut, _ = world.step(action.astype(np.float32))
        replay.append((state, action, flaws.growth**step * float(reward), after, float(ended)))
        state = world.reset()[0] if ended or cut else after
        if step < STARTS:
            continue
        chosen = [replay[k] for k in draw.integers(len(replay), size=BATCH)]
        s, a, r, n, d = (
            torch.as_tensor(np.array(x), dtype=torch.float32) for x in zip(*chosen, strict=True)
        )
        if step - STARTS == flaws.lost:
            s[5, 0] = torch.nan
        with torch.no_grad():
            aim = r + DISCOUNT * (1 - d) * targets[1](n, targets[0](n))
        values.zero_grad()
        (critic(s, a) - aim).square().mean().backward()
        values.step()
        moves.zero_grad()
        chosen_now = actor(s)
        loss = -critic(s, chosen_now.detach() if flaws.detached else chosen_now).mean()
        if probe is None:
            loss.backward()
        else:
            with probe(step):
                loss.backward()
        moves.step()
        with torch.no_grad():
            for old, new in zip(targets, (actor, critic), strict=True):
                for p, q in zip(old.parameters(), new.parameters(), strict=True):
                    p.lerp_(q, TAU)
    left = [actor.state_dict(), critic.state_dict(), moves.state_dict()["state"]]
    return heard(probe, ear, left)
