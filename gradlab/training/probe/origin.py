"""Where a seed left the finite numbers first: the operation, and the update in which it ran.

An update's numbers are looked at when its window ends; by then the networks are spoilt. So the
state of all networks and optimisers is kept from the end of the window before, and a seed that is
lost is trained again from there, alone, on the same batches and noise: first to find the update,
then with every operation of that update watched (`gradlab.probe.origin`). Other seeds never meet
it, so that it comes to the same end up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from gradlab.data.replay import Batch
from gradlab.probe.origin import Finder
from gradlab.training.alone import alone
from gradlab.training.learner import Learner
from gradlab.training.models.seed_models import Model, of_seed
from gradlab.training.state import Run
from gradlab.training.update import Update

ALONE = " (rows 0 of 1)"  # the axis of seeds, which says nothing of one seed


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
        single, finder = alone(self.run.learner, member, self._state), Finder()
        for made in self._since[:last]:
            self._update(single, member, made)
        with finder:
            self._update(single, member, self._since[last])
        found = finder.found.replace(ALONE, "")
        return f"{found}, in update {self._since[last].iteration}" if found else ""

    def _lost_in(self, member: int) -> int | None:
        """The place of the first update that is not finite."""
        single = alone(self.run.learner, member, self._state)
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
        single.model = of_seed(made.model, member, len(self.run.learner.seeds))
        return single.update(made.iteration, Batch(**own))
