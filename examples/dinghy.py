"""Advice, followed: a dinghy sails upwind, and its model does not know that a sail can be empty.

    state (y, θ, v, ω): metres made to windward, angle to the wind, speed, turn; action: the rudder

    python examples/dinghy.py promised.png      about five minutes

Within 40° of the wind the sail is empty, at once: the return jumps, and the model points into the
wind. Twice the policy is measured and the recommended gradient followed, as many updates as were
promised; beside it the same updates by backpropagation through the whole model. Fresh starts judge.
"""

import copy
import sys
from dataclasses import replace

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import gradlab
from gradlab.figures import style
from gradlab.fitting import fit_critic
from gradlab.networks.mlp import Policy

DT, EMPTY, HORIZON, DISCOUNT = 0.2, 0.7, 16, 0.97  # s, rad, steps of the model, γ
ROUNDS, BATCH, FRESH, STEPS = 2, 64, 1024, 200


def boat(empty: float):
    """Sailing, with a sail that is empty within that angle of the wind."""

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        y, angle, speed, turn = state.unbind(1)
        turn = turn + DT * (2 * torch.tanh(action[:, 0]) - 1.5 * turn)
        angle = angle + DT * turn
        thrust = (1.5 * torch.sin(angle.abs().clamp(0, 2.5)) + 0.3) * (angle.abs() >= empty)
        speed = speed + DT * (thrust - 0.6 * speed - 0.2 * speed * speed.abs())
        made = speed * torch.cos(angle)  # m/s to windward
        after = torch.stack([y + DT * made, angle, speed, turn], 1)
        return after, made - 0.05 * turn**2 - 0.02 * action[:, 0] ** 2

    return gradlab.systems.from_function(step, state_dim=4, action_dim=1)


def starts(n: int, generator: torch.Generator) -> Tensor:
    draw = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return draw * draw.new_tensor((0.5, 0.4, 0.2, 0.2)) + draw.new_tensor((0.0, 0.8, 0.5, 0.0))


def make_task() -> gradlab.Task:
    return gradlab.Task("dinghy", boat(EMPTY), boat(0.0), starts, DISCOUNT, HORIZON)


def total(task: gradlab.Task, policy: nn.Module, state: Tensor, steps: int) -> Tensor:
    """Discounted return [N] of the simulator."""
    found = state.new_zeros(len(state))
    for t in range(steps):
        state, reward, _ = task.simulator.step(state, policy(state))
        found = found + task.discount**t * reward
    return found


def beginner(task: gradlab.Task, updates: int = 15) -> Policy:
    """A policy that has begun to sail."""
    torch.manual_seed(0)
    policy = Policy(4, 1, (32, 32), "tanh").double()
    optimizer, draw = torch.optim.Adam(policy.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(updates):
        optimizer.zero_grad()
        total(task, policy, task.starts(64, draw), 40).mean().neg().backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
    return policy


def followed(task, policy, critic, advice) -> list[float]:
    """Makes the updates; the mean return of fresh starts before, and after each."""
    optimizer, measured = torch.optim.Adam(policy.parameters(), advice.rate), copy.deepcopy(policy)
    fresh = task.starts(FRESH, torch.Generator().manual_seed(99))
    found = [total(task, policy, fresh, STEPS).mean().item()]
    for _ in range(advice.updates):
        optimizer.zero_grad()
        advice.loss(policy, critic, advice.states(BATCH, task, measured), task).backward()
        optimizer.step()
        found.append(total(task, policy, fresh, STEPS).mean().item())
    return found


def draw(ax, begun, right, wrong, promise, use) -> None:
    """One round: what came, what the whole model brought, and what was promised."""
    at, hidden = range(begun, begun + len(right)), "_" * begun
    ax.plot(at, right, color=style.CYAN, lw=style.STRONG, label=f"{hidden}as recommended")
    ax.plot(at, wrong, color=style.VERMILION, lw=2.0, ls="--",
            label=f"{hidden}backpropagation through all {HORIZON} steps of the model")  # fmt: skip
    ends = [[promise.value - promise.low], [promise.high - promise.value]]
    ax.errorbar(at[-1], right[0] + promise.value, ends, fmt="_", color=style.INK, capsize=5)
    said = f"{use}\npromised {promise.value:+.1f} ({promise.low:.1f} to {promise.high:.1f})"
    ax.annotate(f"{said}\ncame {right[-1] - right[0]:+.1f}", (at[-1], right[-1]), (-12, 7),
                "data", "offset points", ha="right", fontsize=8.5, color=style.INK)  # fmt: skip


def main(picture: str) -> None:
    task, ax, updates = make_task(), Figure((7.6, 4.4), layout="constrained").subplots(), 0
    policy = beginner(task)
    other = copy.deepcopy(policy)
    for _ in range(ROUNDS):
        critic = fit_critic(task, policy)
        run = gradlab.measure(task, policy, critic, starts=128, batch=BATCH, judges=256)
        print(advice := run.recommendation)
        name = next(n for n, each in run.identities.items() if each == advice.follow.identity)
        promise = run.rehearsal.promised((name, advice.horizon), advice.updates)
        whole = replace(advice.follow, identity=run.identities["model_all"], horizon=HORIZON)
        right = followed(task, policy, critic, advice)
        wrong = followed(task, other, fit_critic(task, other), replace(advice, follow=whole))
        draw(ax, updates, right, wrong, promise, advice.use)
        updates += advice.updates
    style.dress(ax, "Return of a dinghy that sails upwind", f"return of {FRESH:,} fresh starts",
                ["black: promised before the updates, 95%"])  # fmt: skip
    ax.set_xlabel("updates; the critic is fitted again where a promise ends", color=style.INK)
    ax.set_xticks(range(0, updates + 1, 5))
    ax.figure.savefig(picture, dpi=130)


if __name__ == "__main__":
    main(sys.argv[1])
