"""Sources of the batch of an update: values with one method, `source(stores, iteration)`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch

from gradlab import validation
from gradlab.data.replay import Batch, Replay
from gradlab.training.collection import Branching
from gradlab.training.parts.context import Draws

_MBPO = Branching()


@dataclass(frozen=True, eq=False)
class Stores:
    """What a batch is taken from.

    Attributes:
        replay: of the environments; branches: of the model's rollouts, or None.
        size: transitions of a batch.
    """

    replay: Replay
    branches: Replay | None
    draws: Draws
    size: int


class Source(Protocol):
    """What a row's `source` is.

    Attributes:
        name: what `gradlab list algorithms` adds, or "".
        branching: how the model fills a second replay; None: there is none.
        steps: of every environment that are collected for each batch, and are it; 0: batches are
            drawn from what is stored.
    """

    @property
    def name(self) -> str: ...
    @property
    def branching(self) -> Branching | None: ...
    @property
    def steps(self) -> int: ...

    def __call__(self, stores: Stores, iteration: int) -> Batch: ...


@dataclass(frozen=True)
class Replayed:
    """Rows of replay, with replacement."""

    name: ClassVar[str] = ""
    branching: ClassVar[Branching | None] = None
    steps: ClassVar[int] = 0

    def __call__(self, stores: Stores, iteration: int) -> Batch:
        return stores.replay.sample(stores.draws.uniform("batch", iteration, (stores.size,)))


@dataclass(frozen=True)
class Branched:
    """Rows of the model's rollouts, and a share of replay's.

    Attributes:
        real: share of the batch that comes from replay.
    """

    branching: Branching = _MBPO
    real: float = 0.05
    steps: ClassVar[int] = 0

    def __post_init__(self) -> None:
        validation.number("real", self.real, least=0, most=1)

    @property
    def name(self) -> str:
        return f"{1 - self.real:.0%} of the batch from {self.branching.name}"

    def __call__(self, stores: Stores, iteration: int) -> Batch:
        return _joint(stores, iteration, self.branching, self.real)


@dataclass(frozen=True)
class TwoStores(Branched):
    """Critics on rows of both stores, D_env ∪ D_model; policies from states of D_env alone (DDPPO
    algorithm 1, lines 12–18).

    Attributes:
        real: share of the critics' batch that comes from replay.
    """

    @property
    def name(self) -> str:
        return f"{1 - self.real:.0%} of the critic's batch from {self.branching.name}"

    def __call__(self, stores: Stores, iteration: int) -> Batch:
        both = super().__call__(stores, iteration)
        uniform = stores.draws.uniform("policy batch", iteration, (stores.size,))
        return replace(both, starts=stores.replay.sample(uniform).state)


def _joint(stores: Stores, iteration: int, branching: Branching, real: float) -> Batch:
    """Rows of replay, as many as their share, then the model's."""
    assert stores.branches is not None
    uniform = stores.draws.uniform("batch", iteration, (stores.size,))
    count = round(real * stores.size)
    newest = branching.recent(iteration)
    parts = [
        stores.replay.sample(uniform[:, :count]).tensors,
        stores.branches.sample(uniform[:, count:], newest).tensors,
    ]
    return Batch(**{name: torch.cat([part[name] for part in parts], 1) for name in parts[0]})


@dataclass(frozen=True)
class Newest:
    """The last `steps` steps of every environment, step after step: the policy's own paths."""

    steps: int = 32
    branching: ClassVar[Branching | None] = None

    def __post_init__(self) -> None:
        validation.whole("steps", self.steps, 1)

    @property
    def name(self) -> str:
        return f"on policy, windows of {self.steps} steps"

    def __call__(self, stores: Stores, iteration: int) -> Batch:
        return stores.replay.newest(stores.size)
