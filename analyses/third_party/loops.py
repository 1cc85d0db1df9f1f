"""Loops of Stable-Baselines3 on their defaults, through `ProbeCallback`.

Learning begins after 300 steps and the replay holds 20,000; all else is the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from analyses.third_party.outcome import Ear, Outcome, heard

ALGORITHMS = ("td3", "ddpg", "sac", "ppo", "a2c")
WARM = {"learning_starts": 300, "buffer_size": 20_000}
LENGTH = {"td3": 1300, "ddpg": 800, "sac": 800, "ppo": 4096, "a2c": 3000}  # 500 to 640 updates
Wrapper = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]


def run(
    name: str, task: str, seed: int, steps: int, probed: Mapping[str, Any] | None,
    wrapped: Wrapper | None = None, planted: Callable[[Any], None] | None = None,
    **settings: Any,
) -> Outcome:  # fmt: skip
    """One run.

    Args:
        probed: arguments of the callback; None: without it.
        wrapped: around the environment; planted: into the model, before it learns.
        settings: of the algorithm.
    """
    import stable_baselines3  # takes half a second

    from gradlab.integrations.stable_baselines3 import ProbeCallback

    world = gymnasium.make(task)
    given = settings | (WARM if name in ("td3", "ddpg", "sac") else {})
    model = getattr(stable_baselines3, name.upper())(
        "MlpPolicy", world if wrapped is None else wrapped(world), seed=seed, device="cpu", **given
    )
    if planted is not None:
        planted(model)
    ear, error = Ear(), ""
    callback = None if probed is None else ProbeCallback(ear, **probed)
    try:
        model.learn(steps, callback=callback)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    parameters = model.get_parameters()
    return heard(None if callback is None else callback.probe, ear, [parameters], error)
