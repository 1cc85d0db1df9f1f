"""What explicit gradients are made of, made once for all who read it: moments and kernels.

Starts are taken in blocks, and each block's paths, Jacobians and costates are kept where all of
them fit into memory together; where they do not, they are made again for every reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradlab.gradients.carried import Carried, Shared, carried
from gradlab.gradients.estimator import Estimator, first_horizon
from gradlab.gradients.starts import Starts

BYTES = 2e9  # kept of all estimators together


@dataclass(frozen=True)
class Held:
    """λ and J of some estimators, block by block of their starts.

    Attributes:
        estimators: how many will be read, each of about the same size.
    """

    policy: nn.Module
    begin: Starts
    seed: int
    termination: str
    estimators: int
    shared: dict[tuple[int, int], Shared] = field(default_factory=dict, repr=False)
    found: dict[tuple[int, int, int], Carried] = field(default_factory=dict, repr=False)

    def rows(self, estimator: Estimator, rows: slice, horizons: tuple[int, ...]) -> Carried:
        """Of some of the starts, for some of the estimator's horizons."""
        place = rows.start, rows.stop
        every = tuple(range(first_horizon(estimator), estimator.tail.horizon + 1))
        key = id(estimator), *place
        if key not in self.found:
            shared, part = self.shared.setdefault(place, Shared()), self.begin.block(rows)
            made = carried(estimator, self.policy, part, every, self.seed, self.termination, shared)
            share = len(self.begin.states) / max(rows.stop - rows.start, 1)
            if made.bytes * share * self.estimators > BYTES:
                self.shared.clear()
                return _chosen(made, every, horizons)
            self.found[key] = made
        return _chosen(self.found[key], every, horizons)


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
