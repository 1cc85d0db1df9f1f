"""Rows of several seeds: stacked to one row of the run's file, tested for alarms seed by seed.

made_n      share of policy updates that rolled the horizon n out
reached_n   share of the model's paths that do not end before n steps
lasted      Σ_n reached_n over all n = 1 … H: the mean horizon that is really realised
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.probe.alarms.catalogue import Alarm
from gradlab.probe.row_sinks import AlarmLog, Earlier
from gradlab.runs.probe.schema import Row
from gradlab.runs.training.probe_results import PREFIX
from gradlab.storage.journal import Journal, read
from gradlab.training.learner import UpdateRecord
from gradlab.training.models.seed_models import model_step
from gradlab.training.parts.policy_losses import NEGLIGIBLE
from gradlab.training.state import Run

_LATE = 0.5  # of the run: a horizon that has not been rolled out by then was not meant


@final
class GradientCounts:
    """Counts, per horizon of the mixture."""

    def __init__(self, horizons: Sequence[int]) -> None:
        self.horizons = np.array(horizons)
        self.total = np.zeros(len(horizons))
        self.updates = 0
        self._window, self._looked = np.zeros(len(horizons)), 0

    def add(self, update: UpdateRecord) -> None:
        """A policy update."""
        made = (update.weights > NEGLIGIBLE) & (self.horizons <= update.horizon)
        self._window += made
        self._looked += 1

    def row(self) -> dict[str, Any]:
        """Shares since the last row; begins the next one."""
        share = self._window / max(self._looked, 1)
        self.total += self._window
        self.updates += self._looked
        self._window, self._looked = np.zeros(len(share)), 0
        return {"made": share, "updates": self.updates}


def never_made(made: GradientCounts, iteration: int, iterations: int) -> Alarm | None:
    """Horizons that no update has rolled out so far; exact, so that it has no rate."""
    never = made.horizons[made.total == 0]
    if not len(never) or not made.updates or iteration < _LATE * iterations:
        return None
    which = ", ".join(map(str, never))
    return Alarm(
        "horizon never rolled out",
        f"horizon {which} is asked for, but none of {made.updates} policy updates has rolled it "
        f"out: its weight was below {NEGLIGIBLE:g} each time; check the ramp of the weights against"
        f" the {iterations} iterations, or leave the horizon out",
    )


def can_end(run: Run) -> bool:
    """Are there model paths, and do they end?"""
    return run.learner.objective.masked and run.algorithm.rolls_out


@torch.no_grad()
def followed(run: Run) -> list[dict[str, Any]]:
    """The paths from the states of the present batch: `reached` and `lasted` of every seed, and the
    longest horizon that is asked for."""
    assert run.batch is not None
    learner, state, longest = run.learner, run.batch.state, max(run.algorithm.horizons)
    model, policy = learner.model, learner.policy.frozen()
    assert model is not None
    noise = _noise(run, longest, model.noise_dim)
    alive = torch.ones_like(state[..., 0])
    shares = [alive.mean(dim=1)]
    for t in range(longest):
        action = learner.acting.act(policy, state)
        state, _, still = model_step(model, state, action, None if noise is None else noise[t])
        alive = alive * still
        shares.append(alive.mean(dim=1))
    chosen = list(run.algorithm.horizons)
    return [
        {"reached": reached[chosen], "lasted": float(reached[1:].sum()), "longest": longest}
        for reached in torch.stack(shares, dim=1).double().cpu().numpy()
    ]


def _noise(run: Run, steps: int, width: int) -> Tensor | None:
    """[steps, E, N, width], of a stream of its own."""
    if width == 0:
        return None
    shape = (steps, run.algorithm.batch, width)
    drawn = [
        torch.randn(
            *shape, generator=stream(seed, "probe paths", run.iteration), dtype=torch.float64
        )
        for seed in run.learner.seeds
    ]
    return torch.stack(drawn, dim=1).to(run.learner.device, run.learner.dtype)


Rows = Mapping[int, Row]  # by the place of a seed


@final
class SeedRows:
    """Files rows of several seeds as one, and reports the alarms of each."""

    def __init__(self, run: Run, journal: Journal, tensors: Sequence[str]) -> None:
        source, alone = f"gradlab probe, {run.algorithm.name}", max(run.algorithm.horizons) == 0
        self.run = run
        self.log = AlarmLog(
            _RunSink(journal), tensors, run.learner.seeds, source, critic_alone=alone
        )

    def file(self, table: str, own: Rows, together: Row) -> None:
        """One row of the file, and the alarms of each seed that is not lost.

        Args:
            own: a row per seed, of all seeds or some; together: what the seeds share.
        """
        at = {"update": self.run.iteration, "step": self.run.iteration}
        tested = {
            seed: self._without_events(seed, {**at, **together, **row})
            for seed, row in own.items()
            if not self.run.lost[seed]
        }
        self.log.file(table, {**_stacked(own, self.run.learner.seeds), **together, **at}, tested)

    def report(self, alarm: Alarm, seed: int | None = None) -> None:
        """One about a seed, by its place, or about the run."""
        self.log.report(alarm, self.run.iteration, self.run.iteration, seed)

    def _without_events(self, seed: int, row: Row) -> Row:
        """The row without what an event of the run has reported."""
        reported = ("value",) if self.run.excessive[seed] else ()
        return {name: value for name, value in row.items() if name not in reported}


def _stacked(rows: Rows, seeds: Sequence[int]) -> dict[str, Any]:
    """Column → the seeds' values [E, …], NaN where a seed has none; texts side by side."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        values = {seed: row[name] for seed, row in rows.items() if name in row}
        if any(isinstance(value, str) for value in values.values()):
            texts = [f"seed {seeds[seed]}: {text}" for seed, text in values.items() if text]
            columns[name] = "; ".join(texts)
            continue
        shape = np.shape(next(iter(values.values())))
        columns[name] = np.full((len(seeds), *shape), np.nan)
        for seed, value in values.items():
            columns[name][seed] = value
    return columns


@final
class _RunSink:
    """Rows go to the journal of the run, which stays open: it is the run's."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    @cached_property
    def earlier(self) -> Earlier:
        """Alarms that an earlier part of the run has reported."""
        numbers = read(self.journal.path).groups[f"{PREFIX}alarms"]["number"].values
        return Earlier(alarms=int(max(numbers, default=-1)) + 1)

    def write(self, table: str, row: Row) -> None:
        """A row, by the columns that the table has."""
        schema = self.journal.tables[f"{PREFIX}{table}"]
        kept = {k: v for k, v in row.items() if k in schema.columns or k == schema.index}
        for name in schema.columns.keys() & kept.keys():
            if not schema.columns[name].text:
                np.broadcast_to(row[name], schema.shape(name))
        self.journal.append(f"{PREFIX}{table}", kept)

    def amend(self, table: str, row: Row) -> None:
        """Rows of a run are not written again."""

    def close(self) -> None:
        """The run closes its journal."""
