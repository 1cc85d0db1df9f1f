"""A few of the starts, and the estimators' paths and Jacobians from them, shared by all checks.

Every path and every linearization is made once and shared between the checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gradlab.data.trajectories import Path
from gradlab.gradients.courses import Cut, linearized
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import LinearizedPath
from gradlab.gradients.setting import Setting
from gradlab.systems.system import Entropic, Recorded, System

FEW = 32


@dataclass(frozen=True)
class Inspection:
    """Estimators (without entropy: see `softened`), as they were measured, on a few starts.

    Attributes:
        setting: with a few of the measurement's starts.
        names: what each system is called, by id.
        action_names: one per action of the task; empty where it has none.
        action_limit: largest |action| of each, None where the task does not clip.
    """

    estimators: Mapping[str, Estimator]
    setting: Setting
    names: Mapping[int, str]
    action_names: tuple[str, ...] = ()
    action_limit: tuple[float, ...] | None = None
    made: dict[tuple[int, int, int, Cut], LinearizedPath] = field(default_factory=dict, repr=False)

    def along(self, estimator: Estimator) -> LinearizedPath:
        """The estimator's path with Jacobians, at its own horizon."""
        key = id(estimator.states), id(estimator.jacobians), estimator.tail.horizon, estimator.cut
        if key not in self.made:
            here = self.setting
            self.made[key] = linearized(
                estimator, here.policy, here.starts, here.seed, here.termination
            )
        return self.made[key]

    def pathwise(self) -> dict[str, Estimator]:
        """The estimators that differentiate a system."""
        return {
            name: estimator
            for name, estimator in self.estimators.items()
            if estimator.jacobians is not None
        }

    def differentiated(self) -> dict[str, tuple[System, Path]]:
        """Each system that some estimator differentiates, with a path to look at it on."""
        paths: dict[int, tuple[System, Path]] = {}
        for estimator in self.pathwise().values():
            system = estimator.jacobians
            assert system is not None
            on_own_states = estimator.states is system
            if on_own_states or id(system) not in paths:
                place, path = id(system), self.along(estimator).path
                if isinstance(system, Entropic):  # without the action log π that entropy adds
                    system, path = system.system, replace(path, actions=path.actions[..., :-1])
                paths[place] = system, path
        return {self.name(system): (system, path) for system, path in paths.values()}

    def systems(self) -> list[System]:
        """Every system that can be stepped, without its entropy."""
        pairs = [(each.states, each.jacobians) for each in self.estimators.values()]
        several = [system for pair in pairs for system in pair if system is not None]
        plain = [each.system if isinstance(each, Entropic) else each for each in several]
        return [system for system in plain if not isinstance(system, Recorded)]

    def name(self, system: System) -> str:
        """What a system is called, with or without its entropy."""
        plain = system.system if isinstance(system, Entropic) else system
        return self.names.get(id(plain), type(plain).__name__)

    def action(self, j: int) -> str:
        """What action j is called."""
        if j < len(self.action_names):
            return f"{self.action_names[j]} (action {j})"
        return f"action {j}"
