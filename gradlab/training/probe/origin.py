"""Where a seed left the finite numbers first: the operation, and the update in which it ran.

An update's numbers are looked at when its window ends; by then the networks are spoilt. So the
state of all networks and optimisers is kept from the end of the window before, and a seed that is
lost is trained again from there, alone, on the same batches and noise: first to find the update,
then with every operation of that update watched (`gradlab.probe.origin`). Other seeds never meet
it, so that it comes to the same end up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import final

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.probe.origin import Finder
from gradlab.training.learner import Learner, Update
from gradlab.training.models.seed_models import Model, SeedModels, SeedTwoModels
from gradlab.training.state import Run

ALONE = " (rows 0 of 1)"  # the axis of seeds, which says nothing of one seed
MEMBERS = ("input_mean", "input_std", "target_mean", "target_std", "low", "high")


@dataclass(frozen=True)
class _Made:
    """The inputs of an update."""

    iteration: int
    batch: Batch
    model: Model | None


@final
class Origins:
    """The state at the end of the last window, and the updates since then."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.remember()

    def remember(self) -> None:
        """A window has ended with every seed as sound as before."""
        self._state = {name: value.clone() for name, value in self.run.learner.state().items()}
        self._since: list[_Made] = []

    def add(self, iteration: int) -> None:
        """An update was made."""
        assert self.run.batch is not None
        self._since.append(_Made(iteration, self.run.batch, self.run.learner.model))

    def of(self, member: int) -> str:
        """In words, where the seed was lost since then; empty where nothing of that is found, such
        as for networks that were not finite before."""
        last = self._lost_in(member)
        if last is None:
            return ""
        single, finder = self._alone(member), Finder()
        for made in self._since[:last]:
            self._update(single, member, made)
        with finder:
            self._update(single, member, self._since[last])
        found = finder.found.replace(ALONE, "")
        return f"{found}, in update {self._since[last].iteration}" if found else ""

    def _lost_in(self, member: int) -> int | None:
        """The place of the first update that is not finite."""
        single = self._alone(member)
        for k, made in enumerate(self._since):
            update = self._update(single, member, made)
            numbers = (
                update.critic_loss, update.critic_norm, update.policy_loss, update.policy_norm,
            )  # fmt: skip
            if not all(bool(number.isfinite().all()) for number in numbers if number is not None):
                return k
        return None

    def _update(self, single: Learner, member: int, made: _Made) -> Update:
        own = {name: v[member : member + 1] for name, v in made.batch.tensors.items()}
        single.model = _of_seed(made.model, member, len(self.run.learner.seeds))
        return single.update(made.iteration, Batch(**own))

    def _alone(self, member: int) -> Learner:
        """A learner of this seed as it was."""
        learner = self.run.learner
        settings = replace(learner.settings, seeds=1, first_seed=learner.seeds[member])
        single = Learner(learner.algorithm, learner.task, settings)
        single.load(_sliced(self._state, member, learner.algorithm.critics))
        single.in_force = learner.in_force[[member]]
        return single


def _sliced(state: Mapping[str, Tensor], member: int, critics: int) -> dict[str, Tensor]:
    """Of one seed, whose critics are side by side."""
    found = {}
    for name, value in state.items():
        each = critics if name.startswith(("critic", "target_critic")) else 1
        found[name] = value[member * each : (member + 1) * each] if value.ndim else value
    return found


def _of_seed(model: Model | None, member: int, seeds: int) -> Model | None:
    """The ensembles that one seed has learned; a prior is everybody's."""
    if isinstance(model, SeedTwoModels):
        parts = [_of_seed(getattr(model, each.name), member, seeds) for each in fields(model)]
        return SeedTwoModels(*parts)  # type: ignore[arg-type]
    if not isinstance(model, SeedModels):
        return model
    numbers, count = model.numbers, model.numbers.low.shape[0] // seeds
    kept = torch.arange(member * count, (member + 1) * count).tolist()
    changed = {name: getattr(numbers, name)[kept] for name in MEMBERS}
    own = replace(numbers, layers=numbers.layers.of(kept), **changed)
    return replace(model, numbers=own, seeds=1)
