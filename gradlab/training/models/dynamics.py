"""The models that a run learns beside its policies, as rollouts and as measurements need them.

Nearest neighbours of every row within its own seed, kept while replay grows.

Points enter in the order of their arrival, so that a run that is resumed finds what one that was
never stopped has: the search is exact, and its metric is that of the first fit. Once replay
forgets, the search begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from gradlab.data.replay import Replay
from gradlab.fitting.derivative_losses import DirectionalDerivative, Neighbours
from gradlab.fitting.losses import Bound, Loss, OneStepError
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.systems.system import System
from gradlab.tasks import Task
from gradlab.training.draws import Draws
from gradlab.training.models.ensembles import Ensembles, FitReport
from gradlab.training.models.experience import Experience, experience
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.models.seed_models import Model, SeedModels, SeedTwoModels
from gradlab.training.trained import under


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


@dataclass(frozen=True, eq=False)
class Fitted:
    """One fit of every role.

    Attributes:
        reports: by role.
        rows: per seed, held out ones too; steps: of Adam so far; seconds: that the fit took.
    """

    reports: Mapping[str, FitReport]
    rows: int
    steps: int
    seconds: float


@final
class Dynamics:
    """State: every role's ensembles, and the neighbours of their rows where a loss needs them.

    Args:
        agents: environments per seed, which fill replay in turn.
    """

    def __init__(self, choice: LearnedModel, task: Task, draws: Draws, agents: int) -> None:
        self.choice, self.task, self.draws, self.agents = choice, task, draws, agents
        self.roles = {role: Ensembles(role, choice, task, draws) for role in choice.roles}
        directional = isinstance(choice.loss, DirectionalDerivative)
        self.nearest = NearestRows(choice.loss) if directional else None  # type: ignore[arg-type]

    @property
    def fitted(self) -> bool:
        return all(ensembles.steps for ensembles in self.roles.values())

    def fit(self, replay: Replay) -> Fitted:
        """Fit every role to what is in replay."""
        begun = time.perf_counter()
        data = experience(replay, self.agents, self.choice.rows)
        reports = {
            role: self.roles[role].fit(self._bounds(loss, data), data, loss.prediction)
            for role, loss in self.choice.roles.items()
        }
        steps = sum(ensembles.steps for ensembles in self.roles.values())
        return Fitted(reports, len(data.numbers), steps, time.perf_counter() - begun)

    def rollout(self) -> Model:
        """All seeds' models in one, for states [E · N, ds]."""
        parts = []
        for ensembles in self.roles.values():
            like = torch.zeros((), dtype=self.draws.dtype, device=self.draws.device)
            members = [number for numbers in ensembles.in_use for number in numbers]
            numbers = ensembles.used.numbers(like, members)
            parts.append(SeedModels(numbers, len(self.draws.seeds), self.task.alive))
        return parts[0] if len(parts) == 1 else SeedTwoModels(*parts)

    def ensembles_of(self, seed: int) -> dict[str, GaussianEnsemble]:
        """By role, the members of one seed, by its position, that rollouts use."""
        return {role: ensembles.of(seed) for role, ensembles in self.roles.items()}

    def system_of(self, seed: int) -> System:
        """One seed's model on its own, for every instrument."""
        parts = [
            LearnedSystem(ensemble, alive=self.task.alive)
            for ensemble in self.ensembles_of(seed).values()
        ]
        return parts[0] if len(parts) == 1 else TwoModels(*parts)

    def state(self) -> dict[str, Tensor]:
        tensors = {
            f"{role}.{name}": value
            for role, ensembles in self.roles.items()
            for name, value in ensembles.state().items()
        }
        if self.nearest is not None and self.nearest.scale is not None:
            tensors["nearest.scale"] = self.nearest.scale
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        """
        Raises:
            KeyError, RuntimeError: the numbers are of other models.
        """
        for role, ensembles in self.roles.items():
            ensembles.load(under(state, f"{role}."))
        if self.nearest is not None:
            self.nearest.scale = state.get("nearest.scale")

    def _bounds(self, loss: Loss, data: Experience) -> tuple[Bound, Bound]:
        """The loss on training rows, and what is reported of held-out ones: its prediction part."""
        training, held_out = data.part(False), data.part(True)
        if not isinstance(loss, DirectionalDerivative):
            return loss.bind(data.rows, training, held_out)
        assert self.nearest is not None
        near = self.nearest.near(data)
        _, reported = OneStepError(loss.prediction).bind(data.rows, training, held_out)
        return loss.bound(data.rows, training, near), reported
