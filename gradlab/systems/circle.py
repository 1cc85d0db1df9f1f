"""A system whose angles are points on a circle: (cos φ, sin φ) in the place of φ.

    z = E(s),   z' = E(f(D(z), a)),   D: φ = atan2(sin φ, cos φ)

Angles that differ by a turn are one state, and no network sees a jump at ±π. The price is that the
chart has more coordinates than the system: the derivative along the radius is 0 here, but a model
that is learned from points on the circle may have any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.function import AliveFunction, from_function
from gradlab.systems.system import System


def on_circle(system: System, angles: Sequence[int], alive: AliveFunction | None = None) -> System:
    """`system` with each angle replaced by its cosine and sine, where it stood.

    Args:
        angles: coordinates of the state that are angles, in rad.
        alive: next state on the circle [N, ds + angles] → bool [N]; None: every state is alive.

    Raises:
        InputError: an angle that is no coordinate, or a system that is not differentiable.
    """
    turned = sorted(set(angles))
    if not turned or turned[0] < 0 or turned[-1] >= system.state_dim:
        raise InputError(
            f"angles are {tuple(angles)}, expected coordinates from 0 to {system.state_dim - 1}"
        )
    if not system.differentiable:
        raise InputError("system is not differentiable: take one in torch")

    def step(state: Tensor, action: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        after = system.step(off_circle(state, turned), action, noise)
        return to_circle(after.state, turned), after.reward

    return from_function(
        step, system.state_dim + len(turned), system.action_dim, system.noise_dim, alive
    )


def to_circle(state: Tensor, angles: Sequence[int]) -> Tensor:
    """[N, ds] → [N, ds + angles]."""
    columns = []
    for k, column in enumerate(state.unbind(dim=1)):
        columns += [column.cos(), column.sin()] if k in angles else [column]
    return torch.stack(columns, dim=1)


def off_circle(state: Tensor, angles: Sequence[int]) -> Tensor:
    """[N, ds + angles] → [N, ds], angles within ±π; of any radius but 0."""
    columns, at = [], iter(state.unbind(dim=1))
    for k in range(state.shape[1] - len(angles)):
        first = next(at)
        columns.append(torch.atan2(next(at), first) if k in angles else first)
    return torch.stack(columns, dim=1)
