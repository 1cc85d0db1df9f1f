"""Steps and linearizations of batches in which some simulations have diverged.

A system refuses states that are not finite. Loops over many samples therefore step and linearize
the finite rows only. The other rows are carried along as NaN, not alive and flagged.

The results carry no graph: a model's parameters may require gradients, but nothing here is
differentiated in them.
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
        after = system.step(state, action, noise)
        return Transition(after.state.detach(), after.reward.detach(), after.alive)
    finite = system.step(state[running], action[running], None if noise is None else noise[running])
    return Transition(
        _spread(finite.state.detach(), running, torch.nan),
        _spread(finite.reward.detach(), running, torch.nan),
        _spread(finite.alive, running, False),
    )


def linearize_running(
    system: System, state: Tensor, action: Tensor, noise: Tensor | None = None
) -> Linearization:
    """`system.linearize` of the rows that are finite; NaN and flagged for the others."""
    running = torch.isfinite(state).all(dim=1) & torch.isfinite(action).all(dim=1)
    if bool(running.all()):
        linear = system.linearize(state, action, noise)
        return Linearization(*_numbers(linear), linear.certificate)
    given = None if noise is None else noise[running]
    finite = system.linearize(state[running], action[running], given)
    A, B, r_s, r_a = (_spread(number, running, torch.nan) for number in _numbers(finite))
    certified = finite.certificate
    certificate = Certificate(
        _spread(certified.flags, running, True),
        {name: _spread(error, running, torch.nan) for name, error in certified.error.items()},
        None if certified.step is None else _spread(certified.step, running, torch.nan),
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
