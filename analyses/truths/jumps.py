"""How often the trial of a truth is wrong, and what it says of the MuJoCo tasks.

    python -m analyses.truths.jumps [--seeds 10] [--starts 128]    worlds whose returns are known
    python -m analyses.truths.jumps --tasks runs/jumps             to reports/truths

A mass that is drawn past a disc (`cost` of a step inside; its edge jumps, has a kink, or is soft),
a ball that bounces, a pole whose fall ends the episode, and smooth counterparts. A jump is found
where at least one start is certified; a false one where none is there.

The six MuJoCo tasks are measured by `gradlab measure TASK --starts N --horizon 15` with the
networks that come with them; what is in the folder is not measured again.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import Tensor, nn

import gradlab
from analyses.harness.verdicts import put
from gradlab import systems
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.measurement.jumps import find_jumps
from gradlab.networks.policies import Gaussian
from gradlab.runs.jumps import UPDATE
from gradlab.systems.system import System
from gradlab.truth.oracles import unroll_all_actions
from gradlab.verdicts.facts import facts

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


MUJOCO = {"InvertedPendulum": 64, "Hopper": 64, "HalfCheetah": 64, "Walker2d": 64, "Ant": 64,
          "Humanoid": 32}  # fmt: skip
PAGE = Path("reports/truths")
HEADS = {
    "task": "task", "kind": "kind", "starts": "starts of the trial", "steps": "steps of the return",
    "jumping": "starts that jump", "promised": "promised", "brought": "brought at 1, 4, 12%",
    "gap": "gap at 4%, of what was promised", "lost": "starts lost at 1, 4, 12%",
    "missing": "more starts that would tell", "truth": "truth", "minutes": "minutes",
}  # fmt: skip


def measured(name: str, starts: int, folder: Path) -> Path:
    """The run file of one task, measured where it is missing."""
    path = folder / f"{name}.h5"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        asked = [f"{name}-v5", "--starts", str(starts), "--horizon", "15", "--output", str(path)]
        subprocess.run([sys.executable, "-P", "-m", "gradlab", "measure", *asked], check=True)
    return path


def said_of(name: str, path: Path) -> dict[str, object]:
    """What one measurement says of its return, a row."""
    profile = gradlab.load(path)
    found, truth = profile.jumps, profile.truth
    row: dict[str, object] = {
        "task": f"{name}-v5", "kind": "constant" if facts(profile).void else "not tried",
        "steps": truth["horizon"], "truth": truth["status"],
        "commit": str(profile.environment["commit"])[:8], "reason": truth["reason"],
        "minutes": round(float(profile.environment["wall_seconds"]) / 60, 1),
    }  # fmt: skip
    if found is None:
        return row
    ends = (found.gap[UPDATE], found.gap_low[UPDATE], found.gap_high[UPDATE])
    return row | {
        "kind": found.kind, "starts": found.samples, "steps": found.horizon,
        "jumping": f"{found.count} of {found.tried}", "promised": f"{found.promised:.3g}",
        "brought": ", ".join(f"{each:.3g}" for each in found.brought),
        "gap": "{:.3g} [{:.3g}, {:.3g}]".format(*ends), "lost": ", ".join(map(str, found.lost)),
        "missing": {0: "–", -1: "not known"}.get(found.missing, str(found.missing)),
    }  # fmt: skip


def table_of(rows: pd.DataFrame) -> str:
    lines = [" | ".join(HEADS.values()), " | ".join(["---"] * len(HEADS))]
    for _, row in rows.iterrows():
        cells = (row.get(name) for name in HEADS)
        lines.append(" | ".join("–" if pd.isna(each) else str(each) for each in cells))
    reasons = [f"- {row['task']}: {row['reason']}." for _, row in rows.iterrows()]
    return "\n".join([*lines, "", *reasons]) + "\n"


def main(seeds: int = 10, starts: int = 128, tasks: Path | None = None) -> None:
    """
    Args:
        tasks: folder of the MuJoCo tasks' run files, of which the table is made.
    """
    if tasks is not None:
        rows = [said_of(name, measured(name, n, tasks)) for name, n in MUJOCO.items()]
        table = pd.DataFrame(rows).astype({"starts": "Int64"})
        table.to_csv(PAGE / "jumps.csv", index=False)
        put(PAGE / "README.md", "jumps", table_of(table))
        return
    totals = {True: [0, 0], False: [0, 0]}
    for name, (jumps, world) in WORLDS.items():
        kinds: Counter[str] = Counter()
        fewest, gaps = 24, []
        for seed in range(seeds):
            setting = world(starts, seed)
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
    tyro.cli(main)
