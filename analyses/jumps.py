"""How often the trial of a truth is wrong: kinds found in worlds whose returns are known.

    python -m analyses.jumps [--seeds 10] [--starts 128]

A mass that is drawn past a disc (`cost` of a step inside; its edge jumps, has a kink, or is soft),
a ball that bounces, a pole whose fall ends the episode, and smooth counterparts. A jump is found
where at least one start is certified; a false one where none is there.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradlab import systems
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import as_starts
from gradlab.measurement.jumps import find_jumps
from gradlab.networks.policies import Gaussian
from gradlab.systems.system import System
from gradlab.truth.oracles import unroll_all_actions

GAMMA, T, MOVE = 0.98, 60, 0.04


def mass(cost: float, edge: str) -> System:
    """In the plane, with a disc of radius .5 beside its way to the origin."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        speed = 0.9 * s[:, 2:] + 0.1 * a
        place = s[:, :2] + 0.1 * speed
        inside = 0.5 - (place - place.new_tensor([-1.2, 0.2])).norm(dim=1)
        paid = {"jump": (inside > 0).to(s), "kink": 4 * inside.clamp(min=0),
                "soft": torch.sigmoid(10 * inside)}[edge]  # fmt: skip
        reward = -0.1 * place.square().sum(dim=1) - 0.01 * a.square().sum(dim=1) - cost * paid
        return torch.cat([place, speed], dim=1), reward

    return systems.from_function(step, 4, 2)


def ball(soft: bool) -> System:
    """Height, speed, place and drive of a ball that a force pushes sideways and up; at the floor
    its speed turns, or a spring pushes it back."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        force = 400 * (-s[:, :1]).clamp(min=0) if soft else 0.0
        fall = s[:, 1:2] + 0.02 * (force - 9.81 + 2 * a)
        height = s[:, :1] + 0.02 * fall
        if not soft:
            fall = torch.where(height < 0, -0.8 * fall, fall)
            height = torch.where(height < 0, -height, height)
        drive = 0.9 * s[:, 3:] + 0.1 * a
        place = s[:, 2:3] + 0.1 * drive * (1 + height)
        reward = -((place[:, 0] - 1) ** 2) - height[:, 0] - 0.01 * a.square().sum(dim=1)
        return torch.cat([height, fall, place, drive], dim=1), reward

    return systems.from_function(step, 4, 1)


def pole() -> System:
    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        speed = s[:, 1:] + 0.05 * (9.0 * torch.sin(s[:, :1]) + a)
        return torch.cat([s[:, :1] + 0.05 * speed, speed], dim=1), 1 - 0.01 * a.square().sum(dim=1)

    return systems.from_function(step, 2, 1, alive=lambda s: s[:, 0].abs() < 0.4)


def linear(*rows: tuple[float, ...]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows)).double()
    layer.weight.data = torch.tensor(rows, dtype=torch.float64)
    layer.bias.data.zero_()
    return layer


def plane(cost: float, edge: str, std: float, n: int, seed: int) -> Setting:
    policy: nn.Module = linear((-2.0, 0.0, -1.5, 0.0), (0.0, -0.6, 0.0, -0.8))
    place = drawn(n, 2, seed) * torch.tensor([0.3, 0.2]) + torch.tensor([-2.5, 1.0])
    starts = as_starts(torch.cat([place, torch.zeros(n, 2).double()], dim=1), 4)
    policy = Gaussian(policy, std) if std else policy
    return Setting(mass(cost, edge), policy, starts, GAMMA, T, seed=seed)


def bouncing(soft: bool, n: int, seed: int) -> Setting:
    height = 0.5 + 0.1 * drawn(n, 1, seed)
    starts = as_starts(torch.cat([height, torch.zeros(n, 3).double()], dim=1), 4)
    return Setting(ball(soft), linear((1.0, 0.2, -1.0, -0.5)), starts, GAMMA, T, seed=seed)


def falling(termination: str, n: int, seed: int) -> Setting:
    starts = as_starts(0.15 * drawn(n, 2, seed).clamp(-1, 1), 2)
    return Setting(pole(), linear((-7.5, -1.5)), starts, GAMMA, T, termination, seed)


def drawn(n: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64)


WORLDS: dict[str, tuple[bool, Callable[[int, int], Setting]]] = {
    **{
        f"disc, cost {cost:g}, {'Gaussian' if std else 'deterministic'}": (
            True, lambda n, seed, cost=cost, std=std: plane(cost, "jump", std, n, seed),
        )
        for cost in (5.0, 1.0, 0.2, 0.05)
        for std in (0.3, 0.0)
    },
    "pole that ends its episode": (True, lambda n, seed: falling("mask", n, seed)),
    "disc with a kink": (False, lambda n, seed: plane(5.0, "kink", 0.3, n, seed)),
    "disc with a soft edge": (False, lambda n, seed: plane(5.0, "soft", 0.3, n, seed)),
    "no disc, Gaussian": (False, lambda n, seed: plane(0.0, "jump", 0.3, n, seed)),
    "no disc, deterministic": (False, lambda n, seed: plane(0.0, "jump", 0.0, n, seed)),
    "pole that goes on": (False, lambda n, seed: falling("ignore", n, seed)),
    "ball on a spring": (False, lambda n, seed: bouncing(True, n, seed)),
    "ball on a floor": (True, lambda n, seed: bouncing(False, n, seed)),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--starts", type=int, default=128)
    given = parser.parse_args()
    totals = {True: [0, 0], False: [0, 0]}
    for name, (jumps, world) in WORLDS.items():
        kinds: Counter[str] = Counter()
        fewest, gaps = 24, []
        for seed in range(given.seeds):
            setting = world(given.starts, seed)
            found = find_jumps(setting, unroll_all_actions(setting), MOVE)
            assert found is not None
            kinds[found.kind] += 1
            fewest = min(fewest, found.count)
            gaps.append(float(found.gap[1]))
            totals[jumps][0] += found.count > 0
            totals[jumps][1] += 1
        mean, certified = sum(gaps) / len(gaps), f"{fewest:2d} or more certified"
        print(f"{name:32s} gap {mean:+7.2f}, {certified}: {dict(kinds)}", flush=True)
    for jumps, (count, of) in totals.items():
        print(f"{'jumps found' if jumps else 'false jumps'}: {count} of {of}")


if __name__ == "__main__":
    main()
