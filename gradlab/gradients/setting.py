"""What a gradient is taken of: a policy on a simulator, from which starts, for how long.

Starts of a measurement: states, weights and groups, and the noise that follows them.

Noise belongs to the batch, not to its blocks: a block of a larger batch cuts its rows out of the
whole batch's draws, so that what is drawn never depends on how the work is divided.

Sums over groups of samples, in the order of their labels everywhere.

The tail of an estimator: where the sum of rewards stops, and what values the rest.

The setting of a gradient: a policy on a simulator, from which starts, for how long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.trajectories import Path, child, stream
from gradlab.errors import InputError
from gradlab.networks.interface import noise_dim
from gradlab.networks.mlp import as_critic
from gradlab.systems.system import System, standard_normal

_REDRAWN = "redrawn"  # the child of a seed from which noise is drawn again


@dataclass(frozen=True)
class Starts:
    """Start states [N, ds] with importance weights [N] and group labels [N].

    A block of a larger batch (`begin` rows into `of`) sees the noise that the whole batch sees, so
    that a measurement in blocks draws what the measurement in one piece draws. `path` is what was
    recorded from these starts on, if anything.

    A block also has the `whole` batch, and `fits` what was fitted to a batch once for its blocks.

    Noise that is named in `redrawn` ("policy", "dynamics", "member": the ensemble members that a
    learned model's noise chooses) comes from streams of its own, everything else from the same.
    """

    states: Tensor
    weight: Tensor
    group: Tensor
    begin: int = 0
    of: int | None = None
    path: Path | None = None
    draws: dict[tuple[str, int, int, int], Tensor] = field(default_factory=dict, repr=False)
    redrawn: frozenset[str] = frozenset()
    whole: Starts | None = field(default=None, repr=False)
    fits: dict[tuple[int, str], tuple[Any, ...]] = field(default_factory=dict, repr=False)

    def blocks(self, size: int) -> Iterator[Starts]:
        """All rows, at most `size` at a time."""
        n = len(self.states)
        return (self.block(slice(k, min(k + size, n))) for k in range(0, n, size))

    def block(self, rows: slice) -> Starts:
        """Some of the rows."""
        of, whole = (len(self.states), self) if self.of is None else (self.of, self.whole)
        parts = (self.states[rows], self.weight[rows], self.group[rows])
        path = None if self.path is None else self.path.rows(rows)
        begin = self.begin + rows.start
        return Starts(*parts, begin, of, path, self.draws, self.redrawn, whole)

    def policy_noise(self, policy: nn.Module, seed: int, step: int) -> Tensor:
        """The policy's draws of one step, [N, noise_dim]."""
        seed = child(seed, _REDRAWN) if "policy" in self.redrawn else seed
        draw = partial(policy_noise_at, policy, seed=seed, step=step, like=self.states)
        return self._rows(("policy", seed, step, noise_dim(policy)), draw)

    def dynamics_noise(self, system: System, seed: int, step: int) -> Tensor:
        """The system's draws of one step, [N, noise_dim]."""
        fresh = child(seed, _REDRAWN)
        if "dynamics" in self.redrawn:
            return self._dynamics_noise(system, fresh, step)
        noise = self._dynamics_noise(system, seed, step)
        column: int | None = getattr(system, "member_column", None)
        if "member" in self.redrawn and column is not None:
            noise = noise.clone()
            noise[:, column] = self._dynamics_noise(system, fresh, step)[:, column]
        return noise

    def _dynamics_noise(self, system: System, seed: int, step: int) -> Tensor:
        def draw(n: int) -> Tensor:
            generator = stream(seed, "dynamics", step)
            return system.sample_noise(n, generator, self.states.dtype).to(self.states.device)

        return self._rows((f"dynamics {id(system)}", seed, step, system.noise_dim), draw)

    def _rows(self, key: tuple[str, int, int, int], draw: Callable[[int], Tensor]) -> Tensor:
        """This block's rows of the whole batch's draw, which blocks make once between them."""
        n = len(self.states)
        if self.of is None:
            return draw(n)
        if key not in self.draws:
            self.draws[key] = draw(self.of)
        return self.draws[key][self.begin : self.begin + n]


def as_starts(starts: Tensor | Path | Starts, state_dim: int) -> Starts:
    """Start states of a tensor [N, ds] or of a path (its first states, weights and groups).

    Raises:
        InputError: for a wrong shape, no rows, an integer dtype, a non-finite state, or a weight
            that is negative or not finite.
    """
    validation.instance(
        "starts", starts, (Tensor, Path, Starts), f"a tensor [N, {state_dim}] or a Path"
    )
    if isinstance(starts, Starts):
        result = starts
    elif isinstance(starts, Path):
        starts = replace(starts, **{f.name: plain(getattr(starts, f.name)) for f in fields(Path)})
        path = starts if starts.horizon else None
        result = Starts(starts.states[0], starts.weight, starts.group, path=path)
    else:
        n = starts.shape[0] if starts.ndim else 0
        weight = torch.ones(n, dtype=starts.dtype, device=starts.device)
        result = Starts(plain(starts), weight, torch.arange(n, device=starts.device))
    states = result.states
    if states.ndim != 2 or states.shape[1] != state_dim:
        raise InputError(f"starts has shape {tuple(states.shape)}, expected [N, {state_dim}]")
    if states.shape[0] == 0:
        raise InputError("starts is empty: give at least 2 start states")
    if states.layout is not torch.strided or states.is_meta:
        raise InputError("starts holds no dense numbers: give a dense tensor, .to_dense()")
    if not states.is_floating_point():
        raise InputError(f"starts is {states.dtype}, expected float32 or float64: call .double()")
    finite = torch.isfinite(states).all(dim=1)
    if not finite.all():
        raise InputError(
            f"starts has {int((~finite).sum())} of {len(finite)} rows that are not finite "
            f"(first: row {int((~finite).nonzero()[0])}): remove them"
        )
    if not (torch.isfinite(result.weight) & (result.weight >= 0)).all():
        raise InputError("starts has weights that are negative or not finite: fix or drop them")
    return result


def distinct(starts: Starts) -> Starts:
    """Equal rows as one start of their own group that weighs as much as all of them, in the order
    in which they come first: a copy is no further sample."""
    states, label = torch.unique(starts.states, dim=0, return_inverse=True)
    n, k = len(starts.states), len(states)
    if k == n:
        return starts
    first = torch.full((k,), n, device=label.device)
    first = first.scatter_reduce(0, label, torch.arange(n, device=label.device), "amin")
    weight = torch.zeros_like(states[:, 0]).index_add_(0, label, starts.weight) * (k / n)
    order = first.argsort()
    return Starts(states[order], weight[order], torch.arange(k, device=label.device))


def plain(values: Tensor) -> Tensor:
    """Numbers that autograd may work on: out of the caller's graph, and of its inference mode."""
    return values.clone() if values.is_inference() else values.detach()


def policy_noise_at(policy: nn.Module, n: int, seed: int, step: int, like: Tensor) -> Tensor:
    """The policy's standard normal draws of one step, [n, noise_dim], in the dtype of `like`."""
    generator = stream(seed, "policy", step)
    return standard_normal(n, noise_dim(policy), generator).to(like)


Floats = NDArray[np.float64]


def grouping(begin: Starts) -> tuple[Tensor, Floats]:
    """Group labels 0 … G − 1 of the samples, and the size of each group."""
    _, label, size = np.unique(begin.group.cpu().numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy(label).to(begin.group.device), size.astype(np.float64)


def group_sums(x: Tensor, label: Tensor) -> Tensor:
    """[N, P] → [G, P], in the order of the labels."""
    if torch.equal(label, torch.arange(len(x), device=label.device)):
        return x
    return x.new_zeros(int(label.max()) + 1, x.shape[1]).index_add_(0, label, x)


def by_group(values: Tensor, label: Tensor) -> Floats:
    """[K, N] → [K, G], in the order of the labels."""
    groups = int(label.max()) + 1
    result = values.new_zeros(values.shape[0], groups).index_add_(1, label, values)
    return np.asarray(result.detach().cpu().numpy(), dtype=np.float64)


def group_count(group: Tensor) -> int:
    """How many independent groups there are among labels [N]."""
    return int(torch.unique(group).numel())


@final
@dataclass(frozen=True, eq=False)
class Setting:
    """A policy on a simulator; where there is entropy, both augmented.

    Attributes:
        starts: the states at which gradients are taken, or from which returns are summed.
        discount: γ in (0, 1].
        horizon: the longest number of steps that is asked about; 0 where none is.
        termination: "ignore" simulates on; "mask" counts nothing past an end.
        seed: of every noise stream.
    """

    simulator: System
    policy: nn.Module
    starts: Starts
    discount: float
    horizon: int = 0
    termination: str = "ignore"
    seed: int = 0


@dataclass(frozen=True)
class Tail:
    """Where the sum stops.

    Attributes:
        horizon: n ≥ 0 model steps before the critic.
        critic: module or function valuing (s_n, a_n), or s_n alone for a V critic; None: no tail.
        discount: γ in (0, 1].
        value: "Q" or "V".
        terminal_action: "attached", or "detached": θ of the tail action is frozen, its state path
            kept.
    """

    horizon: int
    critic: nn.Module | None
    discount: float
    value: Literal["Q", "V"] = "Q"
    terminal_action: Literal["attached", "detached"] = "attached"

    def __post_init__(self) -> None:
        validation.whole("horizon", self.horizon)
        if not 0.0 < validation.number("discount", self.discount, "a number in (0, 1]") <= 1.0:
            raise InputError(f"discount is {self.discount!r}, expected a number in (0, 1]")
        validation.word("value", self.value, ("Q", "V"))
        if self.critic is not None:
            object.__setattr__(self, "critic", as_critic(self.critic))
        validation.word("terminal_action", self.terminal_action, ("attached", "detached"))
