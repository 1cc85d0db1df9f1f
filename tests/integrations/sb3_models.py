"""Small models of Stable-Baselines3 on the integrator, and callbacks that disturb them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gymnasium
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from gradlab.integrations.stable_baselines3 import ProbeCallback, check_measurable, parts_of
from tests.integrations.bits import Integrator, seeded

__all__ = [
    "OnPolicyAlgorithm", "ProbeCallback", "check_measurable", "configure", "parts_of",
]  # fmt: skip
SMALL = {"policy_kwargs": {"net_arch": [8]}, "gamma": 0.5}
REPLAYED = SMALL | {"learning_starts": 10, "batch_size": 16, "buffer_size": 500}
ON = SMALL | {"n_steps": 40}
CLASSES: dict[str, Any] = {"TD3": TD3, "DDPG": DDPG, "SAC": SAC, "A2C": A2C, "PPO": PPO, "DQN": DQN}
SETTINGS: dict[str, dict[str, Any]] = {
    "TD3": REPLAYED, "DDPG": REPLAYED, "SAC": REPLAYED, "A2C": ON, "PPO": ON | {"batch_size": 20},
}  # fmt: skip


def made(kind: str, normalised: bool = False, **more: Any) -> Any:
    return model_of(kind, SETTINGS[kind] | more, normalised=normalised)


def model_of(
    kind: str,
    settings: dict[str, Any],
    world: Callable[[], Any] = Integrator,
    normalised: bool = False,
) -> Any:
    environment: Any = DummyVecEnv([world])
    if normalised:
        environment = VecNormalize(environment)
    seeded()
    # models write into their settings
    return CLASSES[kind]("MlpPolicy", environment, **copy.deepcopy({"seed": 0} | settings))


def discrete(kind: str, **settings: Any) -> Any:
    """A model with discrete actions."""
    environment = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])
    return CLASSES[kind]("MlpPolicy", environment, **settings)


class At(BaseCallback):
    """Calls a function at one step."""

    def __init__(self, call: int, act: Callable[[], None]) -> None:
        super().__init__()
        self.call, self.act = call, act

    def _on_step(self) -> bool:
        if self.n_calls == self.call:
            self.act()
        return True
