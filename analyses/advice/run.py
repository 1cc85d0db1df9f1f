"""One cell: measure, read the recommendation, follow it, write what happened.

What is read of a measurement is what a user reads: `facts` and the first screen. A recommendation
is a gradient (estimator and horizon) for so many updates, or to keep the policy.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gradlab
from analyses.advice.follow import (
    HORIZONS,
    Candidate,
    as_row,
    change,
    differences,
    directions,
    followed,
    length_of,
    stepped,
)
from analyses.advice.worlds import Cell, make_cell
from gradlab.data.noise import child
from gradlab.provenance import environment
from gradlab.runs.profile import Profile
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.verdict import first_screen
from gradlab.verdicts.screen import Light


@dataclass(frozen=True)
class Advice:
    """What a measurement recommends.

    Attributes:
        candidate: the gradient to use; None: keep the policy.
        updates: for how many updates it is said to hold.
        light, headline: of the first screen.
        promised: gain of one step, value and ends of its interval; NaN where none is named.
        rate: of Adam, where the measurement names one.
        own: estimators that compete.
    """

    candidate: Candidate | None
    updates: int
    light: Light
    headline: str
    promised: tuple[float, float, float]
    rate: float | None
    own: tuple[str, ...]


def advice_of(profile: Profile) -> Advice:
    """The recommendation, as the first screen has it."""
    found, screen = facts(profile), first_screen(profile)
    candidate, updates, rate = rehearsed(profile)
    if rate is None:
        candidate, updates = found.recommended, 1
        if candidate is None and found.realised is not None and not found.void:
            taken = found.own_steps  # without a truth: the step that was shown to help most
            helping = [cell for cell in taken.stepped if taken.helps(cell)]
            candidate = taken.best() if taken.best() in helping else None
    gain = None if candidate is None else found.gains.get(candidate)
    promised = (np.nan,) * 3 if gain is None else (gain.value, gain.low, gain.high)
    if candidate == found.best and found.chosen is not None:
        promised = (found.chosen.value, found.chosen.low, found.chosen.high)
    return Advice(
        candidate, updates if candidate else 0, screen.light, screen.headline, promised, rate,
        found.own,
    )  # fmt: skip


def rehearsed(profile: Profile) -> tuple[Candidate | None, int, float | None]:
    """The gradient that a rehearsal recommends, for how many updates, and their rate; None as the
    rate where nothing was rehearsed."""
    rehearsal: Any = getattr(profile, "rehearsal", None)
    if rehearsal is None:
        return None, 0, None
    best = rehearsal.best
    if best is None or rehearsal.hold:
        return None, 0, rehearsal.rate
    return best.cell, best.updates, rehearsal.rate


def measured(cell: Cell) -> Profile:
    """A measurement with defaults, but for its number of starts."""
    world = cell.world
    return gradlab.measure(
        cell.task, cell.policy, cell.critic, starts=world.starts, batch=world.batch,
        termination=world.termination, seed=child(cell.seed, "advice measure"),
    )  # fmt: skip


def run_cell(name: str, stage: str, seed: int, folder: Path) -> dict[str, Any]:
    """The row of one cell."""
    begun = time.monotonic()
    cell = make_cell(name, stage, seed, folder)
    made = time.monotonic()
    profile = measured(cell)
    advice = advice_of(profile)
    profile.save(folder / f"{name}-{stage}-{seed}.h5", overwrite=True)
    asked = time.monotonic()
    row: dict[str, Any] = {
        "world": name, "kind": cell.world.kind, "stage": stage, "seed": seed,
        "recommended": advice.candidate, "updates": advice.updates, "light": advice.light,
        "headline": advice.headline, "promised": advice.promised, "own": advice.own,
        "commit": environment()["commit"],
    }  # fmt: skip
    row |= what_happened(cell, advice)
    ended = time.monotonic()
    return row | {
        "seconds": {"make": made - begun, "measure": asked - made, "follow": ended - asked}
    }


def what_happened(cell: Cell, advice: Advice) -> dict[str, Any]:
    """One update along every candidate, and the recommended one for as long as it holds."""
    seed, most = child(cell.seed, "advice follow"), cell.world.most
    gradients: dict[Candidate, torch.Tensor] = {}
    names = dict.fromkeys((*advice.own, "true_dynamics_all"))
    for name in names:
        horizons = {0} if name == "data" else set(HORIZONS)
        if name in ("model", "mixed", "true_dynamics"):
            horizons.discard(0)  # the data gradient once more
        if advice.candidate is not None and advice.candidate[0] == name:
            horizons.add(advice.candidate[1])
        gradients |= directions(
            cell, cell.policy, cell.critic, name, sorted(horizons), cell.world.samples, seed
        )
    first = gradients[advice.candidate or ("data", 0)]
    eta, rate = length_of(cell, first / first.norm()), length_of(cell, first.sign())
    policies = [cell.policy, *(stepped(cell, g, eta) for g in gradients.values())]
    gained = differences(cell, policies, child(seed, "hindsight"), 2 * cell.world.judges)
    places = {candidate: k for k, candidate in enumerate(gradients)}
    competing = [c for c in gradients if c[0] in advice.own]
    row: dict[str, Any] = {
        "length": eta,
        "rate": advice.rate or rate,
        "one_update": as_row({c: change(gained[places[c]]) for c in gradients}),
        "best": share_of_best(gained, places, competing, competing[0]),
    }
    together = 1 - 0.05 / len(competing)
    row["helps"] = [
        f"{name} {h}" for name, h in competing if change(gained[places[name, h]], together).low > 0
    ]
    if advice.candidate is None:
        return row
    row["share"] = share_of_best(gained, places, competing, advice.candidate)
    row["happened"] = share_of_best(gained, places, list(gradients), advice.candidate)
    for key, after in (
        ("after_1", stepped(cell, first, eta)),
        ("after_k", followed(cell, advice.candidate, advice.updates, row["rate"])),
    ):
        row[key] = change(differences(cell, [cell.policy, after], child(seed, key), most)[0]).row()
    return row


def share_of_best(
    gained: torch.Tensor, places: dict[Candidate, int], among: list[Candidate], of: Candidate
) -> list[float]:
    """ΔJ of a candidate over that of the best, which one half of the starts chooses and the other
    judges, both ways; with a jackknife interval over 32 groups. [value, low, high]."""
    rows = [places[c] for c in among]

    def share(x: torch.Tensor) -> float:
        halves = x[:, ::2], x[:, 1::2]
        top = sum(
            float(b[rows[int(a[rows].mean(1).argmax())]].mean()) for a, b in (halves, halves[::-1])
        )
        return 2 * float(x[places[of]].mean()) / top if top > 0 else float("nan")

    value, groups = share(gained), 32
    group = torch.arange(gained.shape[1]) * groups // gained.shape[1]
    left = np.array([share(gained[:, group != k]) for k in range(groups)])
    half = 2.04 * ((groups - 1) / groups * ((left - left.mean()) ** 2).sum()) ** 0.5
    return [value, value - half, value + half]


def append(path: Path, row: dict[str, Any]) -> None:
    """One line, all or nothing."""
    line = json.dumps(row, default=str) + "\n"
    with open(path, "a") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
