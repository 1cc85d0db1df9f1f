"""Rows of several seeds: stacked to one row of the run's file, tested for alarms seed by seed.

made_n      share of policy updates that rolled the horizon n out
reached_n   share of the model's paths that do not end before n steps
lasted      Σ_n reached_n over all n = 1 … H: the mean horizon that is really realised

Statistics of every policy update, of all seeds, and the signal in one batch's policy gradient:

    x_j = g_j · g_{j+1},  y_j = |g_j|²        per seed (`gradlab.statistics.successive`)

g_0 … g_PAIRS are gradients of batches drawn from replay for this alone, at one θ: E x = |μ|². (On
batches that are reused, gradients of successive updates gave x̄/ȳ = −0.18 ± 0.06.) On policy, paths
of the newest window are dealt to groups of m among N, y_j = |g_j|² m/N + x̄ (1 − m/N).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.data.replay import Batch
from gradlab.probe.alarms.catalogue import Alarm
from gradlab.probe.budget import Budget
from gradlab.probe.policy_calls import NEAR
from gradlab.probe.row_sinks import AlarmLog, Earlier
from gradlab.probe.update_statistics import StepLengths, columns_dead, columns_of
from gradlab.probe.updates import STRIDE
from gradlab.runs.probe.columns import Window, summed_up
from gradlab.runs.probe.schema import Row
from gradlab.runs.training.probe_results import PREFIX
from gradlab.statistics.successive import signal
from gradlab.storage.journal import Journal, read
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner, UpdateRecord, alone
from gradlab.training.measured import row_gradients
from gradlab.training.measured.row_gradients import in_trained_weights, start_gradients, weights_of
from gradlab.training.models.seed_models import model_step, of_seed
from gradlab.training.parts.policy_losses import NEGLIGIBLE
from gradlab.training.state import Run
from gradlab.training.trained import Trained

_LATE = 0.5  # of the run: a horizon that has not been rolled out by then was not meant
PAIRS = 16
PART = 0.25  # of the budget: what is left is for the measurements, which are dear and rare


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
            seed: {**at, **together, **row} for seed, row in own.items() if not self.run.lost[seed]
        }
        for seed, row in tested.items():
            if self.run.excessive[seed]:  # an event of the run has reported it
                row.pop("value", None)
        self.log.file(table, {**_stacked(own, self.run.learner.seeds), **together, **at}, tested)

    def report(self, alarm: Alarm, seed: int | None = None) -> None:
        """One about a seed, by its place, or about the run."""
        self.log.report(alarm, self.run.iteration, self.run.iteration, seed)


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


@final
class SeedSignals:
    """Measures now and then, as the budget allows.

    Args:
        layers: names of the weights, which come first among the gradients.
    """

    def __init__(self, run: Run, layers: Sequence[str], budget: Budget) -> None:
        self.run, self.layers, self.budget = run, tuple(layers), budget
        self.seconds = self.own = 0.0  # of the last one, of all

    def rows(self, update: float) -> list[dict[str, Any]] | None:
        """The seeds' rows, where there is time for them.

        Args:
            update: what a policy update takes, in seconds: the first price is so many of them.
        """
        first = self.seconds or (PAIRS + 1) * update
        part = PART * self.budget.share * (self.budget.elapsed + first)
        if self.own + first > part or not self.budget.allows(first):
            return None
        measured = self._rows_on_policy if self.run.algorithm.loss.paths else self._rows
        with self.budget.paying() as price:
            rows = measured()
        self.seconds = price[0]
        self.own += self.seconds
        return rows

    def _rows(self) -> list[dict[str, Any]]:
        """Products, squares, and weights that no batch has reached."""
        count, last = len(self.layers), None
        products, squares, dead = [], [], []
        for j in range(PAIRS + 1):
            gradients = self._gradients(j)
            new = torch.cat([g.flatten(1) for g in gradients], dim=1).double()
            squares.append(new.square().sum(dim=1))
            if last is not None:
                products.append((last * new).sum(dim=1))
            dead.append([(g == 0).all(dim=2) for g in gradients[:count]])
            last = new
        x, y = (np.asarray(torch.stack(each).cpu().numpy()) for each in (products, squares))
        never = [torch.stack(each).all(dim=0) for each in zip(*dead, strict=True)]
        return [
            columns_of(signal(x[:, seed], y[:, seed]))
            | columns_dead([each[seed] for each in never], self.layers)
            for seed in range(x.shape[1])
        ]

    def _rows_on_policy(self) -> list[dict[str, Any]]:
        batches = row_gradients.batches(self.run)
        return [self._row_of_paths(seed, batches) for seed in range(len(self.run.learner.seeds))]

    def _row_of_paths(self, seed: int, batches: Batch) -> dict[str, Any]:
        run, learner = self.run, self.run.learner
        single = alone(learner, seed)
        batch, count = row_gradients.rows_of(run, seed, batches, batches.state)
        if count < 2:
            return {}
        model = of_seed(learner.model, seed, len(learner.seeds))
        draws = Draws(single.seeds, learner.dtype, learner.device, "probe paths", block=1)
        term = run.algorithm.terms[0]
        paths = start_gradients(single, batch, term, model, draws, run.iteration).gradients
        G = in_trained_weights(single, learner.settings.reward_scale * paths)
        groups = min(PAIRS + 1, count)
        dealt = torch.stack([G[j::groups].mean(dim=0) for j in range(groups)]).double()
        sizes = torch.tensor([len(G[j::groups]) for j in range(groups)]) / count
        x = (dealt[:-1] * dealt[1:]).sum(dim=1)
        y = dealt.square().sum(dim=1) * sizes + x.mean() * (1 - sizes)
        dead = [(weight == 0).all(dim=0).all(dim=0) for weight in weights_of(single.policy, G)]
        return columns_of(
            signal(np.asarray(x.cpu().numpy()), np.asarray(y.cpu().numpy()))
        ) | columns_dead(dead, self.layers)

    def _gradients(self, j: int) -> tuple[Tensor, ...]:
        """Of a batch of its own, with noise of its own; nothing that training draws from moves."""
        run, learner = self.run, self.run.learner
        draws = Draws(learner.seeds, learner.dtype, learner.device, f"probe {j}", block=1)
        return learner.policy_gradients(run.iteration, run.drawn(draws, run.iteration), draws)


@final
class SeedStatistics:
    """The policy updates since the last row."""

    def __init__(self, learner: Learner) -> None:
        self.trained: Trained = learner.trained_policy
        self.edge = None if learner.limit is None else (1 - NEAR) * learner.limit
        self._lengths = StepLengths(self._theta, _norms)
        self._count = 0
        self._batch = -1
        self._counting = False
        self._empty()

    def before(self, batch: int) -> None:
        """A policy update on the batch of this number is about to be made."""
        self._counting, self._batch = self.edge is not None and batch != self._batch, batch
        if self._count % STRIDE == 0:
            self._lengths.before()

    def see(self, action: Tensor) -> None:
        """The actions [E, N, da] that the update begins with; only the first call counts."""
        if self._counting:
            assert self.edge is not None
            self._saturated.append((action.abs() >= self.edge).sum(dim=1))
            self._rows, self._counting = action.shape[1], False

    def after(self) -> None:
        """It has been made."""
        self._sizes.append(self.trained.norms)
        lengths = self._lengths.after()
        if lengths is not None:
            self._moves.append(torch.stack(lengths))
        self._count += 1

    def rows(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The window's numbers: those that the seeds share, and a row per seed; begins the next
        window."""
        sizes = _gathered(self._sizes, ())
        moves = _gathered(self._moves, (2, *sizes.shape[1:]))
        saturated = _gathered(self._saturated, ())
        together = {"looked": len(sizes), "marked": 1, "watched": len(saturated)}
        trained = np.ones(sizes.shape[1], dtype=bool)
        rows = []
        for seed in range(sizes.shape[-1]):
            row = summed_up(Window(sizes[..., seed], moves[..., seed], trained))
            if len(saturated):
                row["saturation"] = saturated[:, seed].mean(axis=0) / self._rows
            rows.append(row)
        self._empty()
        return together, rows

    @property
    def looked(self) -> int:
        """Updates since the last row."""
        return len(self._sizes)

    def _theta(self) -> list[Tensor]:
        return [p.detach() for p in self.trained.raw.parameters]

    def _empty(self) -> None:
        self._sizes: list[Tensor] = []
        self._moves: list[Tensor] = []
        self._saturated: list[Tensor] = []
        self._rows = 0
        self._lengths.forget()


def _norms(tensors: list[Tensor]) -> Tensor:
    """[tensors, E]"""
    return torch.stack([torch.linalg.vector_norm(x, dim=(1, 2)) for x in tensors])


def _gathered(kept: list[Tensor], shape: tuple[int, ...]) -> Any:
    """One transfer for a whole window, [updates, …]; `shape` where the list is empty."""
    return torch.stack(kept).double().cpu().numpy() if kept else np.zeros((0, *shape))
