"""Transitions in replay as the rows that models are fitted to: all seeds in one table.

Rows of one environment follow one another in time: a trajectory goes on where the next row begins
at the state that this one led to. Every seed has its own standardisation and its own block of rows,
and a member is only ever given rows of its seed. One piece in ten of every environment's time is
held out, the same pieces for as long as they are in replay: a model that goes on from its last fit
has never seen them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.data.replay import Replay
from gradlab.data.trajectories import Trajectories, from_rows, joined
from gradlab.errors import InputError
from gradlab.fitting.losses import StandardisedRows, standardised

PIECE = 10  # steps of one environment that are held out together
_ONE_IN = 10


@dataclass(frozen=True, eq=False)
class Experience:
    """E seeds of m rows each, seed after seed.

    Attributes:
        rows: standardised seed by seed; its means and deviations are [E, width].
        numbers: [m], of a seed's rows in the order of their arrival since the run began.
        held: [m] bool, which of them are held out.
    """

    rows: StandardisedRows
    numbers: Tensor
    held: Tensor

    @property
    def seeds(self) -> int:
        return len(self.rows.inputs) // len(self.numbers)

    def part(self, held: bool) -> Tensor:
        """Training or held-out rows of every seed, in order."""
        part = (self.held == held).nonzero()[:, 0]
        begin = torch.arange(self.seeds)[:, None] * len(self.numbers)
        return (begin + part).flatten().to(self.rows.inputs.device)


def experience(replay: Replay, agents: int, latest: int | None = None) -> Experience:
    """All of replay, or the latest rows.

    Args:
        agents: environments per seed, which fill replay in turn.
        latest: rows per seed.

    Raises:
        InputError: too few rows to hold some out.
    """
    kept = len(replay) if latest is None else min(latest, len(replay))
    numbers = torch.arange(replay.added - kept, replay.added)
    agent, step = numbers % agents, numbers // agents
    order = (agent * (int(step[-1]) + 1) + step).argsort()
    numbers, agent, step = numbers[order], agent[order], step[order]
    held = (step // PIECE + agent) % _ONE_IN == 0
    if held.all() or not held.any():
        raise InputError(f"replay has {kept} rows, too few to hold some out: raise warmup")
    next_to = (agent[1:] == agent[:-1]) & (step[1:] == step[:-1] + 1)
    at = (numbers % replay.rows.shape[1]).to(replay.rows.device)
    records = [_record(rows, replay.widths, next_to) for rows in replay.rows[:, at]]
    return Experience(_standardised(records, (~held).nonzero()[:, 0], replay), numbers, held)


def _record(rows: Tensor, widths: tuple[int, ...], next_to: Tensor) -> Trajectories:
    """One seed's rows; `next_to` [m − 1]: whether two are successive steps of one environment."""
    state, action, reward, after, terminated = torch.split(rows.cpu(), list(widths), dim=1)[:5]
    ended = terminated[:, 0] > 0.5
    goes_on = next_to & (after[:-1] == state[1:]).all(dim=1) & ~ended[:-1]
    episode = torch.zeros(len(rows), dtype=torch.long)
    episode[1:] = (~goes_on).cumsum(0)
    return from_rows(state, action, reward[:, 0], after, ended, episode)


def _standardised(
    records: list[Trajectories], training: Tensor, replay: Replay
) -> StandardisedRows:
    device = str(replay.rows.device)
    by_seed = [
        standardised(
            record, training, residual=True, reward=True, dtype=replay.rows.dtype, device=device
        )[0]
        for record in records
    ]
    return StandardisedRows(
        record=joined([rows.record for rows in by_seed]),
        inputs=torch.cat([rows.inputs for rows in by_seed]),
        targets=torch.cat([rows.targets for rows in by_seed]),
        input_mean=torch.stack([rows.input_mean for rows in by_seed]),
        input_std=torch.stack([rows.input_std for rows in by_seed]),
        target_mean=torch.stack([rows.target_mean for rows in by_seed]),
        target_std=torch.stack([rows.target_std for rows in by_seed]),
        residual=True,
    )
