"""Context of an update: its draws, batch and fits, weights of mixtures, and what targets and losses
are computed from.

Policies and critics are functions, so that a part knows neither optimisers nor how networks are
stacked. Everything has a leading axis [E] of seeds.

Its random numbers (`Draws`) are reproducible from (seed, name, iteration) alone.

Each block of iterations has a stream of its own, for every member by its own seed: a resumed run
needs no stored generator, and seeds do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab import validation
from gradlab.data.replay import Batch, Replay
from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.options import COUNT, check
from gradlab.statistics.mixing import MpgWeights
from gradlab.systems.system import System
from gradlab.training.measured.switching import By
from gradlab.training.seed_models import Model

_BLOCK = 64  # iterations


@final
class Draws:
    """Draws [E, *shape] for E seeds; remembers one block per name.

    Args:
        use: what they are for: those of different uses are independent.
        block: iterations that are drawn at once.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        dtype: torch.dtype,
        device: Any,
        use: str = "training",
        block: int = _BLOCK,
    ) -> None:
        self.seeds, self.use, self.block = tuple(seeds), use, block
        self.dtype, self.device = dtype, device
        self._blocks: dict[tuple[str, tuple[int, ...]], tuple[int, Tensor]] = {}

    def normal(self, name: str, iteration: int, shape: tuple[int, ...]) -> Tensor:
        return self._draw(torch.randn, name, iteration, shape)

    def uniform(self, name: str, iteration: int, shape: tuple[int, ...]) -> Tensor:
        """In [0, 1), in float64 on the CPU: an index of replay needs all its digits."""
        return self._draw(torch.rand, name, iteration, shape, exact=True)

    def generators(self, name: str, iteration: int) -> list[torch.Generator]:
        """A fresh one of every seed, for laws that draw by themselves."""
        return [stream(seed, f"{self.use} {name}", iteration) for seed in self.seeds]

    def _draw(
        self,
        law: Callable[..., Tensor],
        name: str,
        iteration: int,
        shape: tuple[int, ...],
        exact: bool = False,
    ) -> Tensor:
        number, at = divmod(iteration, self.block)
        kept = self._blocks.get((name, shape))
        if kept is None or kept[0] != number:
            members = [
                law(
                    self.block,
                    *shape,
                    generator=stream(seed, f"{self.use} {name}", number),
                    dtype=torch.float64,
                )
                for seed in self.seeds
            ]
            block = torch.stack(members, dim=1)
            kept = number, block if exact else block.to(self.device, self.dtype)
            self._blocks[name, shape] = kept
        return kept[1][at]


@dataclass(frozen=True)
class Passes:
    """See above.

    Attributes:
        epochs: passes over a batch; parts: steps of a pass, each on its share of the rows.
    """

    epochs: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "parts"):
            validation.whole(name, getattr(self, name), 1)

    @property
    def once(self) -> bool:
        """Whether it is one step on all rows."""
        return self.epochs * self.parts == 1

    @property
    def name(self) -> str:
        """What `gradlab list algorithms` adds to the target, or ""."""
        return "" if self.once else f"{self.epochs} passes in {self.parts} parts"

    def __call__(
        self, draws: Draws, iteration: int, batch: Batch, target: Tensor
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Rows and targets of each step; batch: [E, N, ·], target: [E, N]."""
        if self.once:
            yield batch, target
            return
        generators, count = draws.generators("critic order", iteration), target.shape[1]
        for _ in range(self.epochs):
            orders = torch.stack([torch.randperm(count, generator=one) for one in generators])
            for rows in orders.to(target.device).chunk(self.parts, dim=1):
                seeds = torch.arange(len(rows), device=rows.device)[:, None]
                part = {name: values[seeds, rows] for name, values in batch.tensors.items()}
                yield Batch(**part), target.gather(1, rows)


@dataclass(frozen=True)
class Branching:
    """A schedule of rollouts.

    Attributes:
        every: iterations between two fillings.
        rollouts: of every seed in each one.
        lengths: k in model steps, or first, last, and the iterations `begin` and `end`.
        kept: fillings of the present length that batches are drawn from.
    """

    every: COUNT = 250
    rollouts: COUNT = 5000
    lengths: tuple[int, ...] = (1,)
    kept: COUNT = 4

    def __post_init__(self) -> None:
        check(self, "branching's {}".format)
        first, last, begin, end = self._grown
        if len(self.lengths) not in (1, 4) or min(first, last) < 1 or not 0 <= begin < end:
            wanted = "k from 1, or first and last k, and the iterations between which it grows"
            raise validation.expected("rollout_length", self.lengths, wanted)

    @property
    def _grown(self) -> tuple[int, ...]:
        """First and last length, begin and end."""
        return self.lengths if len(self.lengths) == 4 else (*self.lengths[:1] * 2, 0, 1)

    def length(self, iteration: int) -> int:
        """k at an iteration."""
        first, last, begin, end = self._grown
        share = (iteration - begin) / (end - begin)
        return int(first + (last - first) * min(max(share, 0.0), 1.0))

    def recent(self, iteration: int) -> int:
        """Rows of one seed that batches are drawn from."""
        return self.kept * self.rollouts * self.length(iteration - iteration % self.every)

    @property
    def longest(self) -> int:
        return max(self._grown[:2])

    @property
    def name(self) -> str:
        first, last, *_ = self._grown
        steps = f"{first}" if first == last else f"{first} to {last}"
        return f"model rollouts of length {steps}"


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


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FixedWeights:
    """The same weights at every iteration, one per horizon."""

    values: tuple[float, ...] = (1.0,)

    def __call__(self, iteration: int, horizons: Sequence[int]) -> Floats:
        if len(self.values) != len(horizons):
            raise InputError(f"weights are {self.values}, expected one for each of {horizons}")
        return np.array(self.values)


Rule = FixedWeights | MpgWeights


@dataclass(frozen=True)
class MeasuredWeights:
    """What measurements have shown to be better than the rule (`training.measured.weights`).

    Attributes:
        follow: "weights", the best mixture, or "horizon", the best single one.
        rule: what is followed until then.
        by: whose error against the true gradient at replayed states is least ("mse"), or whose step
            at visited states gains most of the return ("gain").
    """

    follow: Literal["weights", "horizon"]
    rule: Rule
    by: By = "mse"

    def __call__(self, iteration: int, horizons: Sequence[int]) -> Floats:
        return self.rule(iteration, horizons)


Weights = Rule | MeasuredWeights


# state [E, N, ds], noise [E, N, noise_dim] → action [E, N, da], log π [E, N];
# None stands for the noise and the density of a deterministic policy.
Act = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


class Value(Protocol):
    """What it is worth to be in a state and act there; a critic of states needs no action."""

    def __call__(
        self, state: Tensor, action: Tensor | None = None, log_prob: Tensor | None = None
    ) -> Tensor:
        """State [E, N, ds], action [E, N, da], its log π [E, N] → [E, N], entropy included."""
        ...


class Values(Protocol):
    """As `Value`, of each critic of a seed by itself."""

    def __call__(
        self, state: Tensor, action: Tensor | None = None, log_prob: Tensor | None = None
    ) -> Tensor:
        """[E, C, N], entropy included."""
        ...


def no_values(
    state: Tensor, action: Tensor | None = None, log_prob: Tensor | None = None
) -> Tensor:
    """Of no critics, [E, 0, N]."""
    return state.new_zeros(state.shape[0], 0, state.shape[1])


@dataclass(frozen=True)
class Objective:
    """What a return means: Σ_t γᵗ (scale · r_t − α log π_t).

    Attributes:
        masked: it ends with the episode.
        temperature: α, in scaled rewards per nat; of every seed, [E, 1], where it is automatic.
    """

    discount: float
    reward_scale: float = 1.0
    masked: bool = False
    temperature: float | Tensor = 0.0

    def soft(self, value: Tensor, log_prob: Tensor | None) -> Tensor:
        """value − α log π."""
        return value if log_prob is None else value - self.temperature * log_prob


@dataclass(frozen=True, eq=False)
class Context:
    """One update.

    Attributes:
        act, frozen, target_act: the policy with its parameters θ, the same without a gradient in θ,
            and the target policy.
        value: of the critic that the policy ascends; target_value: the smallest of the target
            critics; target_values: each of them.
        noise_of: the noise at which a Gaussian policy gives an action in a state, without θ.
        start_law: draws states [n, ds] in which episodes begin.
        model: the prior, or what was learned last; None where there is none.
        noise_dim: width of the policy's noise, 0 for a deterministic policy.
        limit: largest |action|, [da], or None.
        agents: environments of a seed, whose rows stand side by side in an on-policy batch.
        cut: steps [E] after which on-policy paths are cut, where a row adapts them; else None.
    """

    objective: Objective
    act: Act
    frozen: Act
    target_act: Act
    noise_of: Callable[[Tensor, Tensor], Tensor]
    value: Value
    target_value: Value
    start_law: Callable[[int, torch.Generator], Tensor]
    simulator: System
    model: Model | None
    draws: Draws
    iteration: int
    noise_dim: int = 0
    limit: Tensor | None = None
    target_values: Values = no_values
    agents: int = 1
    cut: Tensor | None = None

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal [E, *shape] of this update."""
        return self.draws.normal(name, self.iteration, shape)

    def starts(self, name: str, count: int) -> Tensor:
        """States [E, count, ds] in which episodes begin, of this update."""
        drawn = [
            self.start_law(count, generator)
            for generator in self.draws.generators(name, self.iteration)
        ]
        return torch.stack(drawn).to(self.draws.device, self.draws.dtype)

    def importance(self, batch: Batch, most: float) -> Tensor:
        """π(a|s) / μ(a|s) [E, N] of the policy now and the one that collected, at most `most`."""
        assert batch.log_prob is not None
        noise = self.noise_of(batch.state, batch.action)
        _, now = self.frozen(batch.state, noise)
        assert now is not None
        return (now - batch.log_prob).exp().clamp(max=most)

    def along(self, name: str, steps: int, rows: int, width: int) -> Tensor | None:
        """Standard normal [steps, E, rows, width]; None where it would be empty."""
        if width == 0 or steps == 0:
            return None
        return self.normal(name, (steps, rows, width)).transpose(0, 1)
