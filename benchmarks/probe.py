"""What the probe costs: `python -m benchmarks.probe [--updates 2000 20000] [--pairs 3]`.

A TD3 loop with everything declared, with and without a probe in turn, in processor time; the first
probe of the process also pays for the import. "told" is what the probe says of itself.
"""

from __future__ import annotations

import copy
import time
import warnings
from contextlib import nullcontext

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

import gradlab

STATES, ACTIONS, BATCH, GAMMA = 17, 6, 256, 0.99


def network(ins: int, outs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(ins, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outs)
    )


class Critic(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = network(STATES + ACTIONS, 1, width)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat([state, action], 1))[:, 0]


def train(updates: int, width: int, probed: bool) -> tuple[float, float]:
    """Processor seconds of so many updates of the critics, half as many of the actor, and what the
    probe says of itself."""
    torch.manual_seed(0)
    actor = nn.Sequential(network(STATES, ACTIONS, width), nn.Tanh())
    critics = [Critic(width), Critic(width)]
    slow, targets = copy.deepcopy((actor, critics))
    moves = torch.optim.Adam(actor.parameters(), 3e-4)
    fits = torch.optim.Adam([p for each in critics for p in each.parameters()], 3e-4)
    rows = torch.randn(20_000, 2 * STATES + ACTIONS + 1)

    def critic_loss(batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            state = batch["next_observation"]
            action = (slow(state) + 0.2 * torch.randn_like(batch["action"])).clamp(-1, 1)
            value = torch.min(*(each(state, action) for each in targets))
            goal = batch["reward"] + GAMMA * (1 - batch["terminated"]) * value
        made = [each(batch["observation"], batch["action"]) for each in critics]
        return F.mse_loss(made[0], goal) + F.mse_loss(made[1], goal)

    def actor_loss(batch: dict[str, Tensor]) -> Tensor:
        return -critics[0](batch["observation"], actor(batch["observation"])).mean()

    begun, probe = time.process_time(), None
    if probed:
        probe = gradlab.Probe(actor, moves, critic_alone=True)
        probe.networks(
            critic=critics, target=targets, target_actor=slow, optimizers={"critic": fits}
        )
        probe.losses(critic=critic_loss, actor=actor_loss, discount=GAMMA)
    for step in range(updates):
        drawn = rows[torch.randint(len(rows), (BATCH,))]
        state, action, reward, after = drawn.split([STATES, ACTIONS, 1, STATES], 1)
        batch = {
            "observation": state, "action": action.tanh(), "reward": reward[:, 0],
            "next_observation": after, "terminated": torch.zeros(BATCH),
        }  # fmt: skip
        if probe is not None:
            probe.look(batch)
        fits.zero_grad()
        critic_loss(batch).backward()
        fits.step()
        if step % 2:
            continue
        moves.zero_grad()
        with nullcontext() if probe is None else probe(step):
            actor_loss(batch).backward()
        moves.step()
        with torch.no_grad():
            for old, new in ((slow, actor), *zip(targets, critics, strict=True)):
                for t, p in zip(old.parameters(), new.parameters(), strict=True):
                    t.lerp_(p, 0.005)
    taken = time.process_time() - begun
    if probe is not None:
        probe.close()
    return taken, 0.0 if probe is None else probe.spent


def main(updates: tuple[int, ...] = (2_000, 20_000), pairs: int = 3, width: int = 256) -> None:
    """Print the table.

    Args:
        updates: of the critics; pairs: of runs with and without; width: of the networks.
    """
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    print(f"{'updates':>8} {'without, s':>11} {'more, s':>8} {'share':>7} {'told':>7}")
    for count in updates:
        for _ in range(pairs):
            (bare, _), (taken, told) = (train(count, width, probed) for probed in (False, True))
            more = taken - bare
            print(f"{count:8} {bare:11.1f} {more:8.1f} {more / bare:7.1%} {told:7.1%}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
