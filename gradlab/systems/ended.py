"""A diverging simulation ends its own sample: rows that left the finite numbers are not stepped.

Systems refuse states that are not finite, and rightly: they are somebody's mistake, or a sample
that has ended before. Loops over many samples know which: they step and linearize the others, and
carry the ended ones along as NaN, not alive and flagged.

What comes back are numbers: a model's own parameters may require gradients, as those of a torch
module do, but nothing here is differentiated in them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.systems.system import Certificate, Linearization, System, Transition


def step_running(
    system: System, state: Tensor, action: Tensor, noise: Tensor | None = None
) -> Transition:
    """`system.step` of the rows that are finite; NaN and not alive for the others."""
    running = torch.isfinite(state).all(dim=1)
    if bool(running.all()):
        found = system.step(state, action, noise)
        return Transition(found.state.detach(), found.reward.detach(), found.alive)
    kept = system.step(state[running], action[running], None if noise is None else noise[running])
    return Transition(
        _spread(kept.state.detach(), running, torch.nan),
        _spread(kept.reward.detach(), running, torch.nan),
        _spread(kept.alive, running, False),
    )


def linearize_running(
    system: System, state: Tensor, action: Tensor, noise: Tensor | None = None
) -> Linearization:
    """`system.linearize` of the rows that are finite; NaN and flagged for the others."""
    running = torch.isfinite(state).all(dim=1) & torch.isfinite(action).all(dim=1)
    if bool(running.all()):
        found = system.linearize(state, action, noise)
        return Linearization(*_numbers(found), found.certificate)
    given = None if noise is None else noise[running]
    kept = system.linearize(state[running], action[running], given)
    A, B, r_s, r_a = (_spread(each, running, torch.nan) for each in _numbers(kept))
    old = kept.certificate
    certificate = Certificate(
        _spread(old.flags, running, True),
        {name: _spread(error, running, torch.nan) for name, error in old.error.items()},
        None if old.step is None else _spread(old.step, running, torch.nan),
    )
    return Linearization(A, B, r_s, r_a, certificate)


def _numbers(linear: Linearization) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    A, B, r_s, r_a = (x.detach() for x in (linear.A, linear.B, linear.r_s, linear.r_a))
    return A, B, r_s, r_a


def _spread(values: Tensor, rows: Tensor, fill: float) -> Tensor:
    """Values of the chosen rows among rows of `fill`."""
    whole = values.new_full((len(rows), *values.shape[1:]), fill)
    whole[rows] = values
    return whole
