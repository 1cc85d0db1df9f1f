"""Nearest neighbours of every row within its own seed, kept while replay grows.

Points enter in the order of their arrival, so that a run that is resumed finds what one that was
never stopped has: the search is exact, and its metric is that of the first fit. Once replay
forgets, the search begins anew.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.neighbours import Neighbours
from gradlab.training.models.experience import Experience


@final
class NearestRows:
    """State: one search per seed, and the numbers of the rows that it knows.

    Attributes:
        scale: [E, ds + da] float64, the metric; None before the first fit.
    """

    def __init__(self, loss: DirectionalDerivative) -> None:
        self.loss = loss
        self.scale: Tensor | None = None
        self._search: list[Neighbours] = []
        self._numbers = np.empty(0, dtype=np.int64)

    def near(self, experience: Experience) -> tuple[Tensor, Tensor, int]:
        """Of every training row: its neighbours [R, n], their squared distances, how many repeat.

        Rows that are held out have none: zeros and ones.
        """
        rows, per_seed = experience.rows, len(experience.numbers)
        if self.scale is None:
            std = rows.input_std.double().cpu()
            self.scale = std if self.loss.metric == "standardised" else torch.ones_like(std)
        training = (~experience.held).nonzero()[:, 0]
        training = training[experience.numbers[training].argsort()]
        self._grow(experience, training)
        place, count = training.numpy(), self.loss.neighbours
        index = torch.zeros(len(rows.inputs), count, dtype=torch.long)
        square = torch.ones(len(rows.inputs), count, dtype=torch.float64)
        for seed, search in enumerate(self._search):
            at = seed * per_seed + training
            index[at] = torch.from_numpy(seed * per_seed + place[search.index])
            square[at] = torch.from_numpy(search.distance**2)
        repeated = sum(search.repeated for search in self._search)
        return index.to(rows.inputs.device), square.to(rows.inputs), repeated

    def _grow(self, experience: Experience, training: Tensor) -> None:
        """Add what is new; `training`: positions within a seed, in the order of arrival."""
        numbers = experience.numbers[training].numpy()
        count = len(self._numbers)
        if not count or not np.array_equal(numbers[:count], self._numbers):
            assert self.scale is not None
            self._search = [
                Neighbours(self.loss.neighbours, scale.numpy(), torch.get_num_threads())
                for scale in self.scale
            ]
            count = 0
        record, per_seed = experience.rows.record, len(experience.numbers)
        points = torch.cat([record.state, record.action], dim=1).double().cpu().numpy()
        fresh = training[count:].numpy()
        for seed, search in enumerate(self._search if len(fresh) else ()):
            search.add(points[seed * per_seed + fresh])
        self._numbers = numbers
