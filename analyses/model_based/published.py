"""MBPO of mbrl-lib and MAGE of its authors on the two swing-ups, at the settings of `runs`; MBPO
of mbrl-lib and SAC of Stable-Baselines3 on a MuJoCo task, at those of its long runs.

    git clone https://github.com/facebookresearch/mbrl-lib     (3f93ccc)
    git clone https://github.com/nnaisense/MAGE                (c5aba23)
    pip install hydra-core omegaconf termcolor tqdm imageio sacred dotmap
    pip install --no-deps gym==0.26.2 gym-notices cloudpickle
    python -m analyses.model_based.published --mbrl-lib mbrl-lib --mage MAGE
    python -m analyses.model_based.published --mbrl-lib mbrl-lib --mage MAGE --long hopper-long

Their code is read from these folders and runs as it is, but for the patches below; gradlab gives
the worlds, and judges the policies from its evaluation starts. Observations are the task's states
times its `observation_scale`, actions are in units of the limit, rewards as in `runs`. What is
there is not made again; seeds are the outer loop. A run takes a few minutes of one core.

Patches, mbrl-lib: its configuration is read without Hydra's command line; its action space has no
`_target_` (`gym.env.Box` does not exist), its model has `_recursive_: false` (today's Hydra);
`evaluate` is ours; "explores" samples the collected actions. MAGE: `neptune` is an empty module;
`np.float` is float (numpy 2 has none); `gym.make` gives our world; `evaluate_on_tasks` is ours.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
import types
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor

from analyses.harness.running import grown
from analyses.model_based import runs as study
from analyses.model_based.runs import (
    LONG,
    LONG_SEEDS,
    REFIT,
    SEEDS,
    TRANSITIONS,
    UPDATES,
    Arm,
    Swing,
    World,
)
from gradlab.data.noise import child, stream
from gradlab.training.collection import evaluate

ARMS: tuple[tuple[str, Swing], ...] = (
    ("mbrl-lib likelihood", "cart-pole"),
    ("mbrl-lib squared error", "cart-pole"),
    ("MAGE", "cart-pole"),
    ("MAGE", "pendulum"),
    ("mbrl-lib likelihood", "pendulum"),
    ("mbrl-lib likelihood explores", "cart-pole"),
    ("mbrl-lib squared error explores", "cart-pole"),
    ("MAGE learned reward", "cart-pole"),
)
BESIDE = ("Stable-Baselines3 SAC", "mbrl-lib MBPO")  # of the long runs
# Of mbrl-lib's `termination_fns`.
TERMINATIONS: dict[World, str] = {
    "hopper-long": "hopper", "half-cheetah-long": "no_termination", "walker2d-long": "walker2d",
}  # fmt: skip
WARMUP, STARTS, WIDTH, BATCH, RATE = 500, 20, 64, 128, study.RATES[0]
EVERY = 500  # transitions between evaluations of MAGE
LEARNED: dict[World, float] = {"pendulum": -267.1, "cart-pole": -19.81}


class Swung:
    """One environment of a swing-up, which learners see scaled, with actions in [-1, 1]."""

    def __init__(self, world: Swing, seed: int, spaces: Any) -> None:
        self.task, self.episode = Arm("sac", world).task(), study.EPISODES[world]
        self.scale = torch.tensor(self.task.observation_scale).double()
        self.limit = torch.tensor(self.task.action_limit).double()
        self.factor = study.SCALES[world]
        self.observation_space = spaces.Box(-np.inf, np.inf, (len(self.scale),), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (len(self.limit),), np.float32)
        self.action_space.seed(seed)
        self.draws = stream(child(seed, "published"), "starts")

    def begin(self) -> Any:
        self.state, self.age = self.task.starts(1, self.draws), 0
        return (self.state * self.scale)[0].numpy().astype(np.float32)

    def advance(self, action: Any) -> tuple[Any, float, bool]:
        taken = torch.as_tensor(action).double().reshape(1, -1).clamp(-1, 1) * self.limit
        after = self.task.simulator.step(self.state, taken)
        self.state, self.age = after.state, self.age + 1
        seen = (self.state * self.scale)[0].numpy().astype(np.float32)
        return seen, self.factor * float(after.reward), self.age >= self.episode

    def judged(self, act: Callable[[Tensor], Any]) -> float:
        """Mean return of act: observations [N, ds] → actions [N, da] in [-1, 1]."""

        def acting(state: Tensor) -> Tensor:
            action = torch.as_tensor(act((state[0].double() * self.scale).float()))
            return action.double()[None] * self.limit

        got = evaluate(self.task, acting, 1, STARTS, self.episode, "stop", lambda state: state)
        return float(got.returns.mean())


def rewarded(world: Swing, states: Tensor, actions: Tensor) -> Tensor:
    """The simulator's reward [N], without its step: actions in [-1, 1]."""
    if world == "pendulum":
        theta, torque = torch.atan2(states[:, 1], states[:, 0]), 2 * actions[:, 0]
        return -(theta**2) - 0.1 * states[:, 2] ** 2 - 0.001 * torque**2
    across, short = states[:, 0] + 0.6 * states[:, 2], 0.6 * (1 - states[:, 1])
    return torch.exp(-(across**2) - short**2) - 1 - 0.001 * actions[:, 0] ** 2


def configured(seed: int, folder: Path, algorithm: Any, model: Any, overrides: Any) -> Any:
    """mbrl-lib's configuration of MBPO, and what is ours in it."""
    conf_of: Any = importlib.import_module("omegaconf").OmegaConf
    conf = folder / "mbrl/examples/conf"
    names = ("algorithm/mbpo", "dynamics_model/gaussian_mlp_ensemble", "overrides/mbpo_cartpole")
    cfg = conf_of.create({x.split("/")[0]: conf_of.load(conf / f"{x}.yaml") for x in names})
    del cfg.algorithm.agent.action_space["_target_"]
    ours = {
        "seed": seed, "device": "cpu", "log_frequency_agent": 10**9,
        "algorithm": {"initial_exploration_steps": WARMUP, "real_data_ratio": 0.05} | algorithm,
        "dynamics_model": {"num_layers": 2, "hid_size": WIDTH, "_recursive_": False} | model,
        "overrides": {
            "rollout_schedule": [1, 15, 1, 1], "validation_ratio": 0.1, "model_wd": 0.0,
            "sac_target_update_interval": 1,
        } | overrides,
    }  # fmt: skip
    return conf_of.merge(cfg, ours)


def mbpo(world: Swing, seed: int, folder: Path, *, squared: bool, explores: bool) -> dict[str, Any]:
    """mbrl-lib's MBPO: returns along the run, and what its last model explains of the reward."""
    sys.path.insert(0, str(folder))
    gymnasium: Any = importlib.import_module("gymnasium")
    module: Any = importlib.import_module("mbrl.algorithms.mbpo")
    no_termination = importlib.import_module("mbrl.env.termination_fns").no_termination
    common, trainer = module.mbrl.util.common, module.mbrl.models.ModelTrainer
    cfg = configured(
        seed, folder, {"dataset_size": WARMUP + TRANSITIONS}, {"deterministic": squared},
        {
            "num_steps": TRANSITIONS, "epoch_length": 4 * REFIT, "freq_train_model": REFIT,
            "effective_model_rollouts_per_step": 5000 // REFIT,
            "num_sac_updates_per_step": UPDATES,
            "sac_gamma": 0.95, "sac_alpha": 0.03, "sac_automatic_entropy_tuning": False,
            "sac_hidden_size": WIDTH, "sac_lr": RATE, "sac_batch_size": BATCH,
        },
    )  # fmt: skip

    class Env(Swung, gymnasium.Env):  # type: ignore[misc]
        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return self.begin(), {}

        def step(self, action: Any) -> Any:
            seen, reward, over = self.advance(action)
            return seen, reward, False, over, {}

    env, returns, explained, fit = Env(world, seed, gymnasium.spaces), [], [], trainer.train
    stepped = common.step_env_and_add_to_buffer

    def judge(env: Any, agent: Any, number: int, video: Any) -> float:
        video.init(enabled=False)
        returns.append(env.judged(lambda seen: agent.act(seen.numpy(), batched=True)))
        return returns[-1]

    def fitted(self: Any, train: Any, dataset_val: Any = None, **rest: Any) -> Any:
        got = fit(self, train, dataset_val=dataset_val, **rest)
        x, y = self.model._process_batch(dataset_val.transitions)
        with torch.no_grad():
            mean = self.model.model.forward(x, use_propagation=False)[0]
        left = mean[list(self.model.model.elite_models)].mean(0) - y
        explained.append(1 - left.square().mean(0) / y.var(0, unbiased=False))
        return got

    def step(env: Any, obs: Any, agent: Any, options: Any, *rest: Any, **named: Any) -> Any:
        return stepped(env, obs, agent, {"sample": True} if explores else options, *rest, **named)

    module.evaluate, trainer.train, common.step_env_and_add_to_buffer = judge, fitted, step
    try:
        with tempfile.TemporaryDirectory() as work:
            module.train(env, env, no_termination, cfg, silent=True, work_dir=work)
    finally:
        trainer.train, common.step_env_and_add_to_buffer = fit, stepped
    return {"returns": returns, "reward explained": round(float(explained[-1][-1]), 3),
            "worst state explained": round(float(explained[-1][:-1].min()), 3)}  # fmt: skip


def judged(world: World, act: Callable[[Any], Any]) -> float:
    """Mean return of act, observation → action, over 20 episodes of a long run's task."""
    gymnasium: Any = importlib.import_module("gymnasium")
    env, total = gymnasium.make(LONG[world]), 0.0
    for k in range(STARTS):
        seen, over = env.reset(seed=10_000 + k)[0], False
        while not over:
            seen, reward, terminated, truncated, _ = env.step(act(seen))
            total, over = total + float(reward), terminated or truncated
    return total / STARTS


def sac(world: World, seed: int) -> dict[str, Any]:
    """Stable-Baselines3's SAC at the settings of the long runs: returns along the run."""
    sb3: Any = importlib.import_module("stable_baselines3")
    model = sb3.SAC(
        "MlpPolicy", LONG[world], seed=seed, learning_rate=study.LONG_RATES[0], batch_size=256,
        buffer_size=WARMUP + study.LONG_TRANSITIONS, learning_starts=WARMUP, gamma=0.99,
        policy_kwargs={"net_arch": [256, 256]}, device="cpu",
    )  # fmt: skip

    def judge() -> float:
        return judged(world, lambda seen: model.predict(seen, deterministic=True)[0])

    returns, every = [judge()], study.LONG_TRANSITIONS // Arm("sac", world).evaluations
    for _ in range(0, study.LONG_TRANSITIONS, every):
        first = WARMUP if len(returns) == 1 else 0
        model.learn(every + first, reset_num_timesteps=False)
        returns.append(judge())
    return {"returns": returns}


def mbpo_at_length(world: World, seed: int, folder: Path) -> dict[str, Any]:
    """mbrl-lib's MBPO at the settings of the long runs: returns along the run."""
    sys.path.insert(0, str(folder))
    gymnasium: Any = importlib.import_module("gymnasium")
    module: Any = importlib.import_module("mbrl.algorithms.mbpo")
    terminal = getattr(importlib.import_module("mbrl.env.termination_fns"), TERMINATIONS[world])
    env = gymnasium.make(LONG[world])
    steps, every = study.LONG_TRANSITIONS, study.LONG_REFIT
    cfg = configured(
        seed, folder, {"dataset_size": WARMUP + steps}, {"deterministic": False},
        {
            "num_steps": steps, "epoch_length": steps // Arm("sac", world).evaluations,
            "freq_train_model": every, "effective_model_rollouts_per_step": 5000 // every,
            "num_sac_updates_per_step": 1, "sac_gamma": 0.99, "sac_alpha": 1.0,
            "sac_automatic_entropy_tuning": True, "sac_target_entropy": -env.action_space.shape[0],
            "sac_hidden_size": 256, "sac_lr": study.LONG_RATES[0], "sac_batch_size": 256,
            "num_elites": 5,
        },
    )  # fmt: skip
    returns = []

    def judge(env: Any, agent: Any, number: int, video: Any) -> float:
        video.init(enabled=False)
        returns.append(judged(world, agent.act))
        return returns[-1]

    module.evaluate = judge
    env.reset(seed=seed)
    with tempfile.TemporaryDirectory() as work:
        module.train(env, env, terminal, cfg, silent=True, work_dir=work)
    return {"returns": returns}


def mage(world: Swing, seed: int, folder: Path, *, learned: bool) -> dict[str, Any]:
    """MAGE by its authors: returns along the run."""
    sys.path.insert(0, str(folder))
    sys.modules["neptune"] = types.ModuleType("neptune")
    np.float = float  # type: ignore[attr-defined]
    gym: Any = importlib.import_module("gym")
    main: Any = importlib.import_module("main")

    class Env(Swung, gym.Env):  # type: ignore[misc]
        def reset(self) -> Any:
            return self.begin()

        def step(self, action: Any) -> Any:
            return *self.advance(action), {}

        def seed(self, seed: int) -> None:
            self.draws = stream(child(int(seed), "published"), "starts")

        def is_done(self, states: Tensor) -> Tensor:
            return torch.zeros(len(states), dtype=torch.bool)

        def reward(self, states: Tensor, actions: Tensor, after: Tensor) -> Tensor:
            return self.factor * rewarded(world, states / self.scale.float(), actions)

        def tasks(self) -> Any:
            return {"standard": self.reward}

    env, returns = Env(world, seed, gym.spaces), []
    states = env.task.starts(99, stream(child(seed, "published"), "checked"))
    actions = torch.linspace(-1, 1, 99).double()[:, None]
    true = env.task.simulator.step(states, actions * env.limit).reward
    torch.testing.assert_close(rewarded(world, states, actions), true)

    def judge(agent: Any, **_: Any) -> float:
        returns.append(env.judged(lambda seen: agent.get_action(seen, deterministic=True)))
        return returns[-1]

    gym.make, main.evaluate_on_tasks = (lambda name: Env(world, seed, gym.spaces)), judge
    main.ex.run(config_updates={
        "seed": seed, "use_cuda": False, "print_config": False, "dump_dir": None,
        "n_total_steps": WARMUP + TRANSITIONS, "n_warm_up_steps": WARMUP, "eval_freq": EVERY,
        "model_ensemble_size": 5, "model_n_units": WIDTH, "model_n_layers": 2,
        "train_reward": learned, "reward_n_units": WIDTH, "reward_n_layers": 2,
        "model_training_freq": REFIT, "model_training_n_batches": 1000, "model_lr": 1e-3,
        "model_weight_decay": 0.0, "discount": 0.95, "policy_training_n_iters": UPDATES,
        "policy_actors": BATCH, "policy_n_units": WIDTH, "value_n_units": WIDTH,
        "policy_lr": RATE, "value_lr": RATE,
    })  # fmt: skip
    return {"returns": returns[1:]}


def made(arm: str, world: World, seed: int, mbrl_lib: Path, mage_folder: Path) -> dict[str, Any]:
    np.random.seed(seed)
    torch.manual_seed(seed)
    begun = time.monotonic()
    if arm in BESIDE:
        run = sac(world, seed) if arm == BESIDE[0] else mbpo_at_length(world, seed, mbrl_lib)
    elif arm.startswith("MAGE"):
        run = mage(world, seed, mage_folder, learned="learned" in arm)
    else:
        run = mbpo(
            world, seed, mbrl_lib, squared="squared" in arm, explores=arm.endswith("explores")
        )
    final, minutes = run["returns"][-1], (time.monotonic() - begun) / 60
    named: dict[str, Any] = {
        "implementation": arm,
        "world": world,
        "seed": seed,
        "final": round(final, 2),
    }
    run["returns"] = " ".join(f"{x:.2f}" for x in run["returns"])
    if world in LEARNED:
        named["learned"] = final >= LEARNED[world]
    return named | {"minutes": round(minutes, 1)} | run


def main(
    mbrl_lib: Path, mage: Path, runs: Path = Path("runs/published.jsonl"),
    output: Path = Path("reports/model-based/published.csv"), seeds: int = SEEDS,
    pairs: int = len(ARMS), only: str = "", long: World | None = None,
) -> None:  # fmt: skip
    """Make what is missing of the first seeds and pairs of arm and world, of those of which the
    implementation's name begins by `only`, and write the table; `long`: what stands beside the
    long runs of this world, instead."""
    torch.set_num_threads(1)
    chosen = [(arm, long) for arm in BESIDE] if long else list(ARMS[:pairs])
    cells = [
        (arm, world, seed, mbrl_lib.resolve(), mage.resolve())
        for seed, (arm, world) in product(range(LONG_SEEDS if long else seeds), chosen)
        if arm.startswith(only)
    ]
    fields = ("implementation", "world", "seed")
    rows = grown(runs, cells, fields, made, lambda row: f"{row['final']}")
    table = pd.DataFrame(rows).drop(columns="commit").sort_values([*fields])
    table.to_csv(output, index=False)


if __name__ == "__main__":
    tyro.cli(main)
