"""Does a simulator make the transitions of a record? Some rows of it are stepped again.

    d = recorded − simulated    of next states, rewards and terminations, from the recorded (s, a)

A row agrees where |d| is at most 1e-5 of the column's largest value, or three times what rounding s
and a changes, in the record's precision. Which |s_i| or |a_i| goes with |d| is said where their
rank correlation over the rows exceeds five of its deviations under independence, 1/√(n − 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.data.trajectories import ROUNDING, Trajectories
from gradlab.systems.system import machine_epsilon, step_running
from gradlab.tasks import Task

ROWS = 300
_ROUNDINGS, _DEVIATIONS = 3.0, 5.0
_LEAST = 1e-12  # to which numbers around 1 cancel
_QUANTITIES = ("next states", "rewards", "terminations")


@dataclass(frozen=True)
class Difference:
    """Of one quantity between record and simulator.

    Attributes:
        largest: |d|; rows: in which it exceeds rounding.
        column: name of the s_i or a_i whose size goes with |d|, "" without any; correlation: their
            rank correlation, negative where small sizes go with large differences.
    """

    quantity: str
    largest: float
    rows: int
    column: str
    correlation: float

    def __str__(self) -> str:
        number = "" if self.quantity == _QUANTITIES[-1] else f"{self.largest:.2g}"
        if not self.rows:
            return f"{self.quantity} agree" + (f" ({number})" if number else "")
        size = "large" if self.correlation > 0 else "small"
        where = f", those with {size} |{self.column.partition(' [')[0]}|" if self.column else ""
        by = f" by up to {number}" if number else ""
        return f"{self.quantity} differ{by} in {self.rows} rows{where}"


@dataclass(frozen=True)
class Agreement:
    """Of a record with a simulator.

    Attributes:
        rows: stepped, of `total`.
        noise: largest |ξ| that was inferred from the transitions, 0 where the simulator has none,
            NaN where it cannot be inferred, and mean transitions are compared.
    """

    differences: tuple[Difference, ...]
    rows: int
    total: int
    noise: float

    def __str__(self) -> str:
        noise = f" with the noise that explains them, up to {self.noise:.2g} deviations"
        if isnan(self.noise):
            noise = " without its noise, which cannot be inferred"
        stepped = f"{self.rows} of {self.total:,} recorded rows, stepped by the simulator"
        stepped += noise if self.noise != 0 else ""
        return f"{stepped}: {'; '.join(map(str, self.differences))}."


def compare(task: Task, record: Trajectories) -> Agreement:
    """The record beside the task's simulator at up to 300 rows, the same ones every time.

    Raises:
        InputError: the simulator refuses the rows.
    """
    system, random = task.simulator, stream(0, "agreement")
    rows = torch.randperm(len(record), generator=random)[:ROWS]
    s, a = record.state[rows].double(), record.action[rows].double()
    after, reward = record.next_state[rows].double(), record.reward[rows, None].double()
    infer = getattr(system, "infer_noise", None) if system.noise_dim else None
    with torch.no_grad():
        noise = None if infer is None else infer(s, a, after)
        simulated = _stepped(task, s, a, noise)
        rounded = _stepped(task, _rounded(s, random), _rounded(a, random), noise)
    sizes = torch.cat([s, a], dim=1).abs().numpy()
    names = (*record.state_names, *record.action_names)
    recorded = after, reward, record.terminated[rows, None].double()
    found = [
        _difference(quantity, old, new, moved, sizes, names)
        for quantity, old, new, moved in zip(_QUANTITIES, recorded, simulated, rounded, strict=True)
    ]
    unknown = nan if system.noise_dim else 0.0
    largest = unknown if noise is None else float(noise.abs().max())
    return Agreement(tuple(found), len(rows), len(record), largest)


def _stepped(task: Task, s: Tensor, a: Tensor, noise: Tensor | None) -> tuple[Tensor, ...]:
    """Next states [n, ds], rewards and terminations [n, 1]."""
    out = step_running(task.simulator, s, a, noise)
    return out.state, out.reward[:, None], (~out.alive)[:, None].double()


def _rounded(values: Tensor, random: torch.Generator) -> Tensor:
    """Each number one rounding up or down."""
    signs = torch.randint(0, 2, values.shape, generator=random, dtype=values.dtype) * 2 - 1
    return values * (1 + machine_epsilon(values) * signs)


def _difference(
    quantity: str,
    recorded: Tensor,
    simulated: Tensor,
    rounded: Tensor,
    sizes: NDArray[np.float64],
    names: Sequence[str],
) -> Difference:
    d = (recorded - simulated).abs().nan_to_num(inf)
    rounding = (rounded - simulated).abs().nan_to_num(0.0).amax(dim=0)
    allowed = torch.maximum(ROUNDING * recorded.abs().amax(dim=0), _ROUNDINGS * rounding)
    excess = d / allowed.clamp_min(_LEAST)
    size = torch.where(excess > 1, excess, 0.0).amax(dim=1).numpy()
    ranks = scipy.stats.rankdata(np.column_stack([size, sizes]), axis=0) - (len(size) + 1) / 2
    lengths = np.linalg.norm(ranks, axis=0).clip(1e-12)  # 0 of a column that does not vary
    rho = ranks[:, 0] @ ranks[:, 1:] / (lengths[0] * lengths[1:])
    best = int(np.abs(rho).argmax())
    clear = abs(rho[best]) * (len(size) - 1) ** 0.5 > _DEVIATIONS
    rows = int((size > 0).sum())
    return Difference(
        quantity, float(d.max()), rows, names[best] if clear else "", float(rho[best])
    )
