"""Where a measurement begins: states, weights and groups, and the noise that follows them.

Noise belongs to the batch, not to its blocks: a block of a larger batch cuts its rows out of the
whole batch's draws, so that what is drawn never depends on how the work is divided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.networks.interface import noise_dim
from gradlab.systems.system import System, standard_normal


@dataclass(frozen=True)
class Starts:
    """Start states [N, ds] with importance weights [N] and group labels [N].

    A block of a larger batch (`begin` rows into `of`) sees the noise that the whole batch sees, so
    that a measurement in blocks draws what the measurement in one piece draws. `path` is what was
    recorded from these starts on, if anything.
    """

    states: Tensor
    weight: Tensor
    group: Tensor
    begin: int = 0
    of: int | None = None
    path: Path | None = None

    def block(self, rows: slice) -> Starts:
        """Some of the rows."""
        whole = len(self.states) if self.of is None else self.of
        parts = (self.states[rows], self.weight[rows], self.group[rows])
        path = None if self.path is None else self.path.rows(rows)
        return Starts(*parts, self.begin + rows.start, whole, path)

    def policy_noise(self, policy: nn.Module, seed: int, step: int) -> Tensor:
        """The policy's draws of one step, [N, noise_dim]."""
        return self._rows(partial(policy_noise_at, policy, seed=seed, step=step, like=self.states))

    def dynamics_noise(self, system: System, seed: int, step: int) -> Tensor:
        """The system's draws of one step, [N, noise_dim]."""
        generator = stream(seed, "dynamics", step)
        noise = self._rows(lambda n: system.sample_noise(n, generator, self.states.dtype))
        return noise.to(self.states.device)

    def _rows(self, draw: Callable[[int], Tensor]) -> Tensor:
        n = len(self.states)
        return draw(n if self.of is None else self.of)[self.begin : self.begin + n]


def as_starts(starts: Tensor | Path, state_dim: int) -> Starts:
    """Start states of a tensor [N, ds] or of a path (its first states, weights and groups).

    Raises:
        InputError: for a wrong shape, no rows, an integer dtype or a non-finite state.
    """
    if isinstance(starts, Path):
        path = starts if starts.horizon else None
        result = Starts(starts.states[0], starts.weight, starts.group, path=path)
    else:
        n = starts.shape[0] if starts.ndim else 0
        weight = torch.ones(n, dtype=starts.dtype, device=starts.device)
        result = Starts(starts, weight, torch.arange(n, device=starts.device))
    states = result.states
    if states.ndim != 2 or states.shape[1] != state_dim:
        raise InputError(f"starts has shape {tuple(states.shape)}, expected [N, {state_dim}]")
    if states.shape[0] == 0:
        raise InputError("starts is empty: give at least 2 start states")
    if not states.is_floating_point():
        raise InputError(f"starts is {states.dtype}, expected float32 or float64: call .double()")
    finite = torch.isfinite(states).all(dim=1)
    if not finite.all():
        raise InputError(
            f"starts has {int((~finite).sum())} of {len(finite)} rows that are not finite "
            f"(first: row {int((~finite).nonzero()[0])}): remove them"
        )
    return result


def policy_noise_at(policy: nn.Module, n: int, seed: int, step: int, like: Tensor) -> Tensor:
    """The policy's standard normal draws of one step, [n, noise_dim], in the dtype of `like`."""
    generator = stream(seed, "policy", step)
    return standard_normal(n, noise_dim(policy), generator).to(like)
