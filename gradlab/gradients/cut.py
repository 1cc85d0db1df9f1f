"""Cut edges of a path: derivatives that a gradient takes as zero, values left as they are.

    transition          s → s′    A = ∂f/∂s      the next state depends on the action alone
    rows, columns       s_j → s′_i               entries of A, coordinate by coordinate

A cut is `detach` in the computation: s′ = f(s.detach(), a) is the cut "transition". It is a bias by
choice, for less variance, and measured as any other: the truth is not cut.
Simulators here have no contact normal as a value of its own; the coordinates that a contact changes
are cut by rows or columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from gradlab import validation
from gradlab.errors import InputError
from gradlab.gradients.rollout import LinearizedPath

Edge = Literal["transition"]
EDGES: tuple[Edge, ...] = get_args(Edge)


@dataclass(frozen=True)
class Cut:
    """Which derivatives of a path are zero.

    Attributes:
        edges: some of `EDGES`.
        rows: coordinates i of the next state whose ∂s′_i/∂s is zero.
        columns: coordinates j of the state whose ∂s′/∂s_j is zero.
    """

    edges: tuple[Edge, ...] = ()
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("edges", "rows", "columns"):
            entries = getattr(self, name)
            if isinstance(entries, str) or not isinstance(entries, Sequence):
                shown = validation.shown(entries)
                raise InputError(f"{name} of a cut is {shown}, expected a tuple, ({shown},)")
            object.__setattr__(self, name, tuple(entries))
        for edge in self.edges:
            validation.word("edges of a cut", edge, EDGES)
        for coordinate in (*self.rows, *self.columns):
            validation.whole("a row or column of a cut", coordinate)

    def __bool__(self) -> bool:
        return bool(self.edges or self.rows or self.columns)

    def __str__(self) -> str:
        parts = [*self.edges, *(f"row {i} of A" for i in self.rows)]
        return ", ".join([*parts, *(f"column {j} of A" for j in self.columns)])


UNCUT = Cut()


def coordinates(names: Sequence[str], state_names: Sequence[str]) -> tuple[int, ...]:
    """Coordinates of a state by their names, such as a task's `state_names`, unit or no unit.

    Raises:
        InputError: there is no such name.
    """
    known = {name: k for k, name in enumerate(state_names)}
    known |= {name.partition(" [")[0]: k for k, name in enumerate(state_names)}
    for name in names:
        if name not in known:
            among = ", ".join(state_names) or "no names: use numbers"
            raise InputError(f"{name!r} is no coordinate of the state, which has {among}")
    return tuple(known[name] for name in names)


def check_coordinates(cut: Cut, state_dim: int) -> None:
    """
    Raises:
        InputError: a row or column is beyond the state.
    """
    beyond = [k for k in (*cut.rows, *cut.columns) if k >= state_dim]
    if beyond:
        raise InputError(
            f"cut has row or column {beyond[0]}, expected coordinates 0 … {state_dim - 1}"
        )


def severed(linear: LinearizedPath, cut: Cut) -> LinearizedPath:
    """The same path with the cut derivatives zero."""
    if not cut:
        return linear

    A = torch.zeros_like(linear.A) if "transition" in cut.edges else linear.A.clone()
    A[:, :, list(cut.rows)] = 0.0
    A[..., list(cut.columns)] = 0.0
    return replace(linear, A=A)
