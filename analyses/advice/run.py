"""One cell: measure, read the recommendation, follow it, write what happened.

What is read of a measurement is what a user reads: `facts` and the first screen. A recommendation
is a gradient (estimator and horizon) for so many updates, or to keep the policy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import gradlab
from analyses.advice.follow import (
    HORIZONS,
    RATE,
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
from gradlab.data.trajectories import child
from gradlab.runs.profile import Profile
from gradlab.verdicts.advice import advise
from gradlab.verdicts.facts import facts
from gradlab.verdicts.measurement.verdict import advice
from gradlab.verdicts.recommendation import Light


@dataclass(frozen=True)
class Advice:
    """What a measurement recommends.

    Attributes:
        candidate: the gradient to use; None: keep the policy.
        updates: for how many updates it is said to hold.
        light: of the recommendation; headline: its fields, as text.
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
    """The recommendation, as the report has it; one update where no length is said."""
    found, told = facts(profile), advice(profile)
    advised = advise(found)
    cell, rehearsal = advised.cell, profile.rehearsal
    gain = found.chosen if cell == found.best else found.gains.get(cell or ("", 0))
    promised = (np.nan,) * 3 if gain is None else (gain.value, gain.low, gain.high)
    return Advice(
        candidate=cell,
        updates=0 if cell is None else advised.updates or 1,
        light=told.light,
        headline=str(told),
        promised=promised,
        rate=None if rehearsal is None else rehearsal.rate,
        own=found.own,
    )


def measured(cell: Cell, judges: int | None = None) -> Profile:
    """A measurement with defaults, but for its number of starts."""
    world = cell.world
    return gradlab.measure(
        cell.task, cell.policy, cell.critic, starts=world.starts, batch=world.batch,
        termination=world.termination, seed=child(cell.seed, "advice measure"), judges=judges,
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
    }  # fmt: skip
    row |= what_happened(cell, advice)
    ended = time.monotonic()
    return row | {
        "seconds": {"make": made - begun, "measure": asked - made, "follow": ended - asked}
    }


def what_happened(cell: Cell, advice: Advice) -> dict[str, Any]:
    """One update along every candidate, and the recommended one for as long as it holds."""
    seed, world = child(cell.seed, "advice follow"), cell.world
    gradients: dict[Candidate, torch.Tensor] = {}
    for name in dict.fromkeys((*advice.own, "true_dynamics_all")):
        over = candidates(advice, name, HORIZONS)
        gradients |= directions(cell, cell.policy, cell.critic, name, over, world.samples, seed)
    first = gradients[advice.candidate or ("data", 0)]
    eta, rate = length_of(cell, first / first.norm()), min(RATE, length_of(cell, first.sign()))
    policies = {c: stepped(cell, g, eta) for c, g in gradients.items()}
    gained = compared(cell, policies, child(seed, "hindsight"))
    own = {c: gained[c] for c in gained if c[0] in advice.own}
    together = 1 - 0.05 / len(own)
    row: dict[str, Any] = {
        "length": eta,
        "rate": advice.rate or rate,
        "one_update": as_row(gained),
        "helps": [f"{name} {h}" for (name, h), x in own.items() if change(x, together).low > 0],
    }
    if advice.candidate is None:
        return row
    row |= {"share": share_of_best(own, advice.candidate)}
    row |= {"share_1": row["share"], "happened": share_of_best(gained, advice.candidate)}
    policies = {advice.candidate: followed(cell, advice.candidate, advice.updates, row["rate"])}
    named = followed(cell, advice.candidate, 1, row["rate"])
    tried = {"after_1": stepped(cell, first, eta), "after_update": named}
    for key, after in (*tried.items(), ("after_k", *policies.values())):
        pair = [cell.policy, after]
        row[key] = change(differences(cell, pair, child(seed, key), world.most)[0]).row()
    if advice.updates > 1:
        for name in advice.own:
            for h in candidates(advice, name, world.rivals):
                if (name, h) not in policies:
                    policies[name, h] = followed(cell, (name, h), advice.updates, row["rate"])
        gained = compared(cell, policies, child(seed, "rivals"))
        row |= {"k_updates": as_row(gained), "share": share_of_best(gained, advice.candidate)}
    return row


def candidates(advice: Advice, name: str, horizons: Sequence[int]) -> list[int]:
    """Some horizons of an estimator, and the recommended one."""
    over = {0} if name == "data" else set(horizons)
    if name in ("model", "mixed", "true_dynamics"):
        over.discard(0)  # the data gradient once more
    if advice.candidate is not None and advice.candidate[0] == name:
        over.add(advice.candidate[1])
    return sorted(over)


def compared(
    cell: Cell, policies: Mapping[Candidate, nn.Module], seed: int
) -> dict[Candidate, torch.Tensor]:
    """J of each policy less that of the cell's, [n] each, on the same starts and noise."""
    pairs = differences(cell, [cell.policy, *policies.values()], seed, 2 * cell.world.judges)
    return dict(zip(policies, pairs, strict=True))


def share_of_best(gained: Mapping[Candidate, torch.Tensor], of: Candidate) -> list[float]:
    """ΔJ of a candidate over that of the best, which one half of the starts chooses and the other
    judges, both ways; with a jackknife interval over 32 groups. [value, low, high]."""
    every, place = torch.stack(list(gained.values())), list(gained).index(of)

    def share(x: torch.Tensor) -> float:
        halves = x[:, ::2], x[:, 1::2]
        top = sum(float(b[int(a.mean(1).argmax())].mean()) for a, b in (halves, halves[::-1]))
        return 2 * float(x[place].mean()) / top if top > 0 else float("nan")

    value, groups = share(every), 32
    group = torch.arange(every.shape[1]) * groups // every.shape[1]
    left = np.array([share(every[:, group != k]) for k in range(groups)])
    half = 2.04 * ((groups - 1) / groups * ((left - left.mean()) ** 2).sum()) ** 0.5
    return [value, value - half, value + half]
