"""Policies at the stages of a training, through the simulator or by SAC."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

import gradlab
from gradlab.data.trajectories import child, stream
from gradlab.networks import checkpoint
from gradlab.networks.interface import double_copy
from gradlab.networks.mlp import Policy
from gradlab.tasks import Task
from gradlab.training import checkpoints

_STARTS, _STEPS, _NORM = 64, 40, 10.0  # of one update


def train_stages(
    task: Task,
    updates: Mapping[str, int],
    seed: int,
    rate: float,
    hidden: tuple[int, ...],
    name: str,
) -> dict[str, Policy]:
    """Copies of a policy after some updates of Adam along the simulator's own gradient.

    Args:
        updates: of each stage, rising.
        hidden: units of the tanh policy; (): a linear one without bias.
        name: of the noise that it begins and trains with.

    Returns:
        The policy of each stage, float64.
    """
    simulator = task.simulator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child(seed, f"{name} policy") >> 1)
        policy = Policy(
            simulator.state_dim, simulator.action_dim, hidden, "tanh",
            task.observation_scale, limit=task.action_limit, bias=bool(hidden),
        ).double()  # fmt: skip
    with torch.no_grad():  # begins with small actions
        last = [m for m in policy.modules() if isinstance(m, nn.Linear)][-1]
        last.weight.mul_(0.1)
    along = gradlab.Estimator(
        simulator, simulator, "all", gradlab.Tail(_STEPS, None, task.discount)
    )
    optimizer = torch.optim.Adam(policy.parameters(), rate)
    stages = {at: stage for stage, at in updates.items()}
    kept = {}
    for update in range(max(stages)):
        starts = task.starts(_STARTS, stream(seed, f"{name} training", update))
        gradient = along.mean_gradient(policy, starts, seed=update)
        gradient = gradient * min(1.0, _NORM / float(gradient.norm().clamp_min(1e-12)))
        sizes = [p.numel() for p in policy.parameters()]
        for p, part in zip(
            policy.parameters(), torch.split_with_sizes(gradient, sizes), strict=True
        ):
            p.grad = -part.reshape(p.shape)
        optimizer.step()
        if update + 1 in stages:
            kept[stages[update + 1]] = copy.deepcopy(policy)
    return kept


def sac_stage(
    env_id: str, updates: Mapping[str, int], stage: str, seed: int, folder: Path
) -> tuple[Task, nn.Module, nn.Module]:
    """A MuJoCo task with SAC's policy and critic after the updates of a stage, float64.

    Args:
        updates: of each stage, as checkpoints of a training of the last one's length keep them.
        folder: where the run that makes them lies, so that it trains once.
    """
    task = gradlab.tasks.mujoco(env_id)
    run = folder / f"{env_id}-{seed}.h5"
    kept = checkpoints.folder(run, updates[stage])
    files = [kept / f"seed{seed}-{kind}.safetensors" for kind in ("policy", "critic")]
    if not all(file.exists() for file in files):
        run.parent.mkdir(parents=True, exist_ok=True)
        last = max(updates.values())
        gradlab.train("sac", task, run, overwrite=True, first_seed=seed, iterations=last)
    policy, critic = (double_copy("policy", checkpoint.load(file)) for file in files)
    return task, policy, critic
