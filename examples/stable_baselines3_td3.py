"""TD3 of Stable-Baselines3 with a probe: one callback.

    pip install -c constraints.txt '.[sb3]'
    python examples/stable_baselines3_td3.py --steps 5000 --log sb3.h5

The environment is also given as a task, so that gradients are measured by horizon with the model's
own critic.
"""

from dataclasses import dataclass

import tyro
from stable_baselines3 import TD3

import gradlab
from gradlab.integrations.stable_baselines3 import ProbeCallback


@dataclass
class Args:
    steps: int = 5_000
    log: str | None = None
    every: int = 50
    learning_starts: int = 500
    verbose: int = 1


def main(args: Args) -> ProbeCallback:
    env_id = "InvertedPendulum-v5"
    model = TD3(
        "MlpPolicy",
        env_id,
        gamma=0.9,
        learning_starts=args.learning_starts,
        policy_kwargs={"net_arch": [64, 64]},
        seed=1,
        verbose=args.verbose,
    )
    callback = ProbeCallback(
        log=args.log,
        task=gradlab.tasks.mujoco(env_id),
        every=args.every,
        verbose=1,
    )
    model.learn(args.steps, callback=callback)
    return callback


if __name__ == "__main__":
    main(tyro.cli(Args))
