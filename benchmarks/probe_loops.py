"""Training loops whose probe can be taken off and put back, for `benchmarks.probe`.

A probe's clock here stands still while the loop runs without it. `share` None: the always-on tier
alone, with as much time as it likes, so that no update is passed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.logger import configure
from torch import nn

import gradlab

STATES, ACTIONS, BATCH = 17, 6, 256  # HalfCheetah's


@dataclass
class Stopwatch:
    """Processor seconds of this process but for those left out."""

    left_out: float = 0.0

    def __call__(self) -> float:
        return time.process_time() - self.left_out


@dataclass(frozen=True)
class Loop:
    """A training loop.

    Attributes:
        train: makes so many updates.
        plug: puts the probe on (True) or off.
        own: seconds that the probe says to have taken so far.
        clock: what it says that by.
    """

    name: str
    train: Callable[[int], object]
    plug: Callable[[bool], None]
    own: Callable[[], float] = lambda: float("nan")
    clock: Stopwatch = field(default_factory=Stopwatch)


def hooks_of(modules: Sequence[nn.Module], optimizer: Any) -> Callable[[bool], None]:
    """Takes all hooks of these off, and puts them back."""
    places = [
        *(module._forward_hooks for module in modules),
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
    ]
    kept = [dict(place) for place in places]

    def plug(on: bool) -> None:
        for place, hooks in zip(places, kept, strict=True):
            place.clear()
            if on:
                place.update(hooks)

    return plug


def alone(probe: gradlab.Probe, share: float | None) -> gradlab.Probe:
    if share is None:
        probe._updates._bursts.commit = lambda: None  # type: ignore[method-assign]
    return probe


class Nowhere(gymnasium.Env):  # type: ignore[type-arg]
    """Spaces without a world."""

    observation_space = spaces.Box(-np.inf, np.inf, (STATES,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)


def td3() -> Any:
    """Stable-Baselines3's as it comes, 400 and 300 wide, on a full buffer of noise."""
    model = TD3("MlpPolicy", Nowhere(), seed=0, buffer_size=20_000, device="cpu")
    model.set_logger(configure(None, []))
    draw, buffer = np.random.default_rng(0), model.replay_buffer
    assert buffer is not None
    for values in (buffer.observations, buffer.next_observations, buffer.rewards):
        values[:] = draw.normal(size=values.shape)
    buffer.actions[:] = draw.uniform(-1, 1, size=buffer.actions.shape)
    buffer.full = True
    return model


def stable_baselines(share: float | None = None) -> Loop:
    """Two lines: the actor and its optimiser."""
    model, clock = td3(), Stopwatch()
    actor = model.actor
    probe = gradlab.Probe(actor, actor.optimizer, overhead_budget=share or 1.0, clock=clock)
    own = alone(probe, share).budget
    name = "Stable-Baselines3 TD3" if share is None else f"the same, both tiers, {share:.0%}"
    plug = hooks_of([actor], actor.optimizer)
    return Loop(name, lambda n: model.train(n, BATCH), plug, lambda: own.own, clock)


def callback() -> Loop:
    """As a callback of Stable-Baselines3, which marks every backward pass."""
    from gradlab.integrations.stable_baselines3 import ProbeCallback

    model, clock = td3(), Stopwatch()
    found = ProbeCallback(overhead_budget=1.0, clock=clock)
    found.init_callback(model)
    found.on_training_start({}, {})
    assert found.probe is not None
    own = alone(found.probe, None).budget
    plug = hooks_of([model.actor], model.actor.optimizer)
    return Loop("the same by ProbeCallback", lambda n: model.train(n, BATCH), plug,
                lambda: own.own, clock)  # fmt: skip


class Plain:
    """A policy of 2×256 climbs a fixed critic, and nothing else: the dearest case of all."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.policy = network(STATES, ACTIONS, nn.Tanh())
        self.critic = network(STATES + ACTIONS, 1, nn.Identity()).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), 3e-4)
        self.states = torch.randn(20_000, STATES)
        self.on, self.step = True, 0

    def train(self, updates: int, mark: Callable[..., Any]) -> None:
        """`mark(step, info)` surrounds the backward pass where the probe is on."""
        for _ in range(updates):
            s = self.states[torch.randint(len(self.states), (BATCH,))]
            value = self.critic(torch.cat([s, self.policy(s)], 1))[:, 0]
            loss = -value.mean()
            info = {"batch_size": BATCH, "individual_losses": -value, "loss": loss,
                    "optimizer": self.optimizer}  # fmt: skip
            self.optimizer.zero_grad()
            with mark(self.step, info) if self.on else nullcontext():
                loss.backward()
            self.optimizer.step()
            self.step += self.on


def bare() -> Loop:
    plain, clock = Plain(), Stopwatch()
    probe = gradlab.Probe(plain.policy, plain.optimizer, overhead_budget=1.0, clock=clock)
    own, hooks = alone(probe, None).budget, hooks_of([plain.policy], plain.optimizer)

    def plug(on: bool) -> None:
        plain.on = on
        hooks(on)

    return Loop("a policy alone, 2×256, marked",
                lambda n: plain.train(n, lambda step, info: probe(step)), plug,
                lambda: own.own, clock)  # fmt: skip


def cockpit(economy: bool) -> Loop | None:
    """Cockpit on the same network, every update tracked; None where it is not installed."""
    try:
        from backpack import extend
        from cockpit import Cockpit, quantities
        from cockpit.utils.configuration import configuration
        from cockpit.utils.schedules import linear
    except ImportError as error:
        print(f"Cockpit: not installed ({error})")
        return None
    plain, every = Plain(), linear(1)
    if economy:  # these need gradients by sample
        extend(plain.policy)
    few = [quantities.GradNorm(every), quantities.UpdateSize(every)]
    chosen = configuration("economy", every) if economy else few
    found = Cockpit(plain.policy.parameters(), quantities=chosen)

    def plug(on: bool) -> None:
        plain.on = on

    name = "economy" if economy else "GradNorm, UpdateSize"
    mark = lambda step, info: found(step, info=info)  # noqa: E731
    return Loop(f"the same by Cockpit: {name}", lambda n: plain.train(n, mark), plug)


def network(ins: int, outs: int, last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(ins, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outs), last
    )
