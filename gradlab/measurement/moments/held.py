"""Costates and Jacobians of explicit gradients, made once for moments and Gram matrices.

Starts are taken in blocks, and each block's paths, Jacobians and costates are kept where all of
them fit into memory together; where they do not, they are made again for every reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from gradlab.gradients.courses import Carried, Course, Shared
from gradlab.gradients.estimator import Estimator, first_horizon
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import LinearizedPath
from gradlab.gradients.tail import Setting
from gradlab.gradients.weighted_terms import carried
from gradlab.systems.system import System
from gradlab.truth.oracles import of_starts

BYTES = 2e9  # kept of all estimators together


@dataclass(frozen=True)
class Held:
    """λ and J of some estimators, block by block of their starts.

    Attributes:
        estimators: how many will be read, each of about the same size.
        known: a system, and its path from the starts with its own Jacobians, as a truth has it.
    """

    setting: Setting
    estimators: int
    known: tuple[System, LinearizedPath] | None = None
    shared: dict[tuple[int, int], Shared] = field(default_factory=dict, repr=False)
    found: dict[tuple[int, int, int], Carried] = field(default_factory=dict, repr=False)

    def rows(self, estimator: Estimator, rows: slice, horizons: tuple[int, ...]) -> Carried:
        """Of some of the starts, for some of the estimator's horizons."""
        place = rows.start, rows.stop
        every = tuple(range(first_horizon(estimator), estimator.tail.horizon + 1))
        key = id(estimator), *place
        if key not in self.found:
            here, shared = self.setting, self.shared.setdefault(place, Shared())
            self._begin_with(shared, estimator, rows)
            part = here.starts.block(rows)
            made = carried(estimator, here.policy, part, every, here.seed, here.termination, shared)
            share = len(here.starts.states) / max(rows.stop - rows.start, 1)
            if made.bytes * share * self.estimators > BYTES:
                self.shared.clear()
                return _chosen(made, every, horizons)
            self.found[key] = made
        return _chosen(self.found[key], every, horizons)

    def _begin_with(self, shared: Shared, estimator: Estimator, rows: slice) -> None:
        """The known path, where it is the estimator's."""
        if self.known is None or estimator.states is not self.known[0]:
            return
        system, whole = self.known
        key = id(system), estimator.tail.horizon
        if (
            not (estimator.way.every and estimator.way.pathwise)
            or whole.path.horizon != key[1]
            or key in shared.courses
        ):
            return
        linear = of_starts(whole, rows)
        states, noise = linear.path.states.flatten(0, 1), linear.path.policy_noise.flatten(0, 1)
        jacobian = partial(policy_jacobian, self.setting.policy, states, noise)
        shared.courses[key] = Course(linear.path, linear.K, jacobian)
        shared.linear[*key, id(system)] = linear


def _chosen(made: Carried, every: tuple[int, ...], horizons: tuple[int, ...]) -> Carried:
    if horizons == every:
        return made
    return made.some([every.index(n) for n in horizons])


def group_blocks(group: Tensor, size: int) -> Iterator[slice]:
    """Blocks of at least `size` rows that cut no group in two; one block where labels are not in
    order."""
    change = torch.ones(len(group), dtype=torch.bool)
    change[1:] = group[1:] != group[:-1]
    starts = change.nonzero().flatten().tolist()
    if bool((group[1:] < group[:-1]).any()):
        yield slice(0, len(group))
        return
    begin = 0
    for edge in [*starts[1:], len(group)]:
        if edge - begin >= size or edge == len(group):
            yield slice(begin, edge)
            begin = edge
