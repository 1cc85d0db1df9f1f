"""What does a whole profile cost, in units of one H-step backpropagation through time?

    python -m benchmarks.all_horizons [--case C1|C2] [--rounds 9] [--threads 1] [--device cuda]

Path tracking's prior model (C1: H 25, N 256) or the inverted pendulum's (C2: H 50, N 1024); policy
and critic tanh 2×256, float32. Contestants:
    unit      one backpropagation through time: forward, backward to θ
    norms     first-action gradients of every horizon with per-sample squared norms
    sweep     the same with the mean gradient of every horizon
    repeated  H + 1 backpropagations with θ in the first action, one per horizon, means only
    all norms, all sweep, all repeated: the same three with θ in every action
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import tyro
from torch import Tensor, nn

from benchmarks.side_by_side import seconds
from gradlab import tasks
from gradlab.gradients import rollout
from gradlab.gradients.policy_jacobian import Trace, joined_factors, policy_jacobian
from gradlab.gradients.rollout import action_gradients, discounted_costates, tail_gradient
from gradlab.gradients.setting import as_starts
from gradlab.networks.mlp import Policy, QCritic
from gradlab.systems.system import System

Made = TypeVar("Made")


@dataclass(frozen=True)
class Case:
    task: tasks.Task
    horizon: int
    batch: int


def cases() -> dict[str, Case]:
    return {
        "C1": Case(tasks.path_tracking(), 25, 256),
        "C2": Case(tasks.inverted_pendulum(engine="analytic"), 50, 1024),
    }


def contestants(case: Case, device: str) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    model, gamma, H = case.task.prior, case.task.discount, case.horizon
    assert model is not None
    ds, da = model.state_dim, model.action_dim
    scale = case.task.observation_scale
    policy = Policy(ds, da, activation="tanh", scale=scale).to(device)
    critic = QCritic(ds, da, activation="tanh", scale=scale).to(device)
    s0 = case.task.starts(case.batch, torch.Generator().manual_seed(0)).float().to(device)

    def sweep(means: bool) -> tuple[Tensor, ...]:
        path, K = rollout.rollout_with_jacobians(model, policy, as_starts(s0, ds), H)
        linear = rollout.linearize_path(path, model, K, path.dynamics_noise)
        g = action_gradients(linear, tail_gradient(path, critic, "Q"), gamma)
        jacobian = policy_jacobian(policy, s0, path.policy_noise[0])
        norms = jacobian.squared_norms(g[:, None])
        return (norms, jacobian.T @ g) if means else (norms,)

    def every(means: bool) -> tuple[Tensor, ...]:
        traces: list[Trace] = []
        path, K = rollout.rollout_with_jacobians(model, policy, as_starts(s0, ds), H, traces=traces)
        linear = rollout.linearize_path(path, model, K, path.dynamics_noise)
        horizons = tuple(range(H + 1))
        costates = discounted_costates(linear, tail_gradient(path, critic, "Q"), gamma, horizons)
        jacobian = joined_factors(policy, traces, path)
        norms = jacobian.squared_norms(costates)
        return (norms, jacobian.T @ costates.flatten(1, 2)) if means else (norms,)

    def unit() -> None:
        backpropagate(model, policy, policy, critic, s0, H, gamma)

    def repeated() -> None:
        frozen = copy.deepcopy(policy).requires_grad_(False)
        for n in range(H + 1):
            backpropagate(model, policy, frozen, critic, s0, n, gamma)

    def all_repeated() -> None:
        for n in range(H + 1):
            backpropagate(model, policy, policy, critic, s0, n, gamma)

    chosen: dict[str, Callable[[], object]] = {
        "unit": unit,
        "norms": lambda: sweep(means=False),
        "sweep": lambda: sweep(means=True),
        "repeated": repeated,
        "all norms": lambda: every(means=False),
        "all sweep": lambda: every(means=True),
        "all repeated": all_repeated,
    }
    return {name: finished(run, s0.device) for name, run in chosen.items()}


def finished(run: Callable[[], Made], device: torch.device) -> Callable[[], Made]:
    """`run`, and a wait until the device has done it."""

    def whole() -> Made:
        made = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return made

    return whole


def backpropagate(
    model: System,
    policy: nn.Module,
    later: nn.Module,
    critic: nn.Module,
    s: Tensor,
    horizon: int,
    gamma: float,
) -> None:
    """One gradient of the n-step return by autograd; `later` acts after the first step."""
    generator = torch.Generator().manual_seed(0)
    total = s.new_zeros(len(s))
    for t in range(horizon):
        a = policy(s) if t == 0 else later(s)
        out = model.step(s, a, model.sample_noise(len(s), generator, s.dtype).to(s))
        total, s = total + gamma**t * out.reward, out.state
    a = policy(s) if horizon == 0 else later(s)
    total = total + gamma**horizon * critic(s, a)
    torch.autograd.grad(total.mean(), list(policy.parameters()))


def main(case: str = "C1", rounds: int = 9, threads: int = 1, device: str = "cpu") -> None:
    """Print the ratios.

    Args:
        case: C1 or C2.
        rounds: turns of each contestant.
        threads: torch threads.
        device: "cpu" or "cuda".
    """
    torch.set_num_threads(threads)
    chosen = cases()[case]
    taken = seconds(contestants(chosen, device), rounds)
    where = f"{device}, {threads} thread(s), {rounds} rounds"
    print(f"{case}: H {chosen.horizon}, N {chosen.batch}, {where}")
    print(f"unit: {1e3 * taken['unit']:.1f} ms")
    for name in list(taken)[1:]:
        print(f"{name:13}{taken[name] / taken['unit']:6.2f} units")
    for prefix in ("", "all "):
        share = taken[f"{prefix}sweep"] / taken[f"{prefix}repeated"]
        print(f"{prefix}sweep takes {share:.2f} of H + 1 backpropagations")


if __name__ == "__main__":
    tyro.cli(main)
