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
        return all(each.steps for each in self.roles.values())

    def fit(self, replay: Replay) -> Fitted:
        """Fit every role to what is in replay."""
        begun = time.perf_counter()
        found = experience(replay, self.agents, self.choice.rows)
        reports = {
            role: self.roles[role].fit(self._bounds(loss, found), found, loss.prediction)
            for role, loss in self.choice.roles.items()
        }
        steps = sum(each.steps for each in self.roles.values())
        return Fitted(reports, len(found.numbers), steps, time.perf_counter() - begun)

    def rollout(self) -> Model:
        """All seeds' models in one, for states [E · N, ds]."""
        parts = []
        for each in self.roles.values():
            like = torch.zeros((), dtype=self.draws.dtype, device=self.draws.device)
            numbers = each.used.numbers(like)
            parts.append(SeedModels(numbers, len(self.draws.seeds), self.task.alive))
        return parts[0] if len(parts) == 1 else SeedTwoModels(*parts)

    def ensembles_of(self, seed: int) -> dict[str, GaussianEnsemble]:
        """By role, the members of one seed, by its position."""
        return {role: each.of(seed) for role, each in self.roles.items()}

    def system_of(self, seed: int) -> System:
        """One seed's model on its own, for every instrument."""
        parts = [
            LearnedSystem(ensemble, alive=self.task.alive)
            for ensemble in self.ensembles_of(seed).values()
        ]
        return parts[0] if len(parts) == 1 else TwoModels(*parts)

    def state(self) -> dict[str, Tensor]:
        found = {
            f"{role}.{name}": value
            for role, each in self.roles.items()
            for name, value in each.state().items()
        }
        if self.nearest is not None and self.nearest.scale is not None:
            found["nearest.scale"] = self.nearest.scale
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """
        Raises:
            KeyError, RuntimeError: the numbers are of other models.
        """
        for role, each in self.roles.items():
            each.load(under(state, f"{role}."))
        if self.nearest is not None:
            self.nearest.scale = state.get("nearest.scale")

    def _bounds(self, loss: Loss, found: Experience) -> tuple[Bound, Bound]:
        """The loss on training rows, and what is reported of held-out ones: its prediction part."""
        training, held_out = found.part(False), found.part(True)
        if not isinstance(loss, DirectionalDerivative):
            return loss.bind(found.rows, training, held_out)
        assert self.nearest is not None
        near = self.nearest.near(found)
        _, told = OneStep(loss.prediction).bind(found.rows, training, held_out)
        return loss.bound(found.rows, training, near), told
