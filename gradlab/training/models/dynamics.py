"""The models that a run learns beside its policies, as rollouts and as measurements need them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gradlab.data.replay import Replay
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.losses import Bound, OneStep
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.systems.learned import LearnedSystem
from gradlab.systems.system import System
from gradlab.systems.two_models import TwoModels
from gradlab.tasks import Task
from gradlab.training.draws import Draws
from gradlab.training.models.ensembles import Ensembles, FitReport
from gradlab.training.models.experience import Experience, experience
from gradlab.training.models.model_choice import LearnedModel, Loss
from gradlab.training.models.nearest_rows import NearestRows
from gradlab.training.models.seed_models import Model, SeedModels, SeedTwoModels
from gradlab.training.trained import under


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
        _, reported = OneStep(loss.prediction).bind(data.rows, training, held_out)
        return loss.bound(data.rows, training, near), reported
