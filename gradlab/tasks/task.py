"""A task: simulator, prior model, start law, discount and horizon.

Checks of the settings of task factories, which may come from a command line as any type.

A task's start law from a user's function: with or without a generator, in torch or numpy.

A draw is a float64 tensor [n, ds], the same for the same generator. A function without a generator
draws from the global streams of torch and numpy, which are seeded before and restored after it.

A task whose starts are those near the middle of its law: another law, and another question.

    d(s)² = (s − m)ᵀ C⁺ (s − m)      m, C: mean and covariance of 65,536 starts of the law
    region   d(s) ≤ q                q: the (1 − share)-quantile of their d
    law      starts of the task, drawn again until they lie in the region

The region rests on draws of its own and on no seed of a measurement, so that the expectation over
this law is one number. It is one ellipsoid for all coordinates: boxes of quantiles would leave out
more the more coordinates there are. What lies beyond is left out, not moved to the edge (trimmed,
not winsorised: Huber & Ronchetti 2009, Robust Statistics, 3.3).
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.data.trajectories import child, stream
from gradlab.errors import InputError
from gradlab.systems.system import System, check_system
from gradlab.user_code import running

OTHER_BOUNDS = (
    "If actions have bounds of their own, as [0, 1], map them in the step: "
    "docs/own_task.md#actions-with-other-bounds."
)


@dataclass(frozen=True)
class _StartLaw:
    """(n, generator) → float64 [n, ds] on the CPU, of a function (n, generator) or (n)."""

    function: Callable[..., Any]
    state_dim: int
    seeded: bool

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        with running("starts"):
            if self.seeded:
                drawn = self.function(n, generator)
            else:
                with _streams(int(torch.randint(2**32, (), generator=generator))):
                    drawn = self.function(n)
        if isinstance(drawn, np.ndarray) and drawn.dtype.kind in "fiu":
            drawn = torch.from_numpy(drawn)
        shape = (n, self.state_dim)
        if not isinstance(drawn, Tensor) or drawn.shape != shape:
            raise validation.expected("what starts returns", drawn, f"a tensor {list(shape)}")
        values = drawn.clone() if drawn.is_inference() else drawn.detach()
        return values.cpu().double()


def _start_law(function: Callable[..., Any], state_dim: int) -> _StartLaw:
    """Raises InputError: the function takes neither (n, generator) nor (n)."""
    if isinstance(function, _StartLaw):
        return function
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return _StartLaw(function, state_dim, seeded=True)
    for given in (2, 1):
        try:
            signature.bind(*range(given))
        except TypeError:
            continue
        return _StartLaw(function, state_dim, seeded=given == 2)
    wanted = f"a function (n, generator) -> [n, {state_dim}]"
    raise InputError(f"starts takes {signature}, expected {wanted}")


@contextmanager
def _streams(seed: int) -> Iterator[None]:
    """The global streams of torch and numpy begin at `seed`, and go on as they were."""
    numpy = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy)


def nearest(word: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(names)) or sorted(names)
    return f": expected {', '.join(near)}" if near else ""


Starts = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Task:
    """What a gradient is measured on.

    Attributes:
        simulator: the truth.
        prior: a model of it, in the same state and action, or None.
        starts: (n, generator) -> [n, ds], the start law; called so, it gives float64. A function
            (n) of the user's is seeded from the generator (see `tasks.task`).
        discount: γ in (0, 1).
        horizon: largest horizon measured by default.
        state_names, action_names: one name per coordinate, with its unit where it has one.
        observation_scale: fixed factors [ds] of the first layer of policy and critic.
        reference_state: [ds], where the prior's Riccati gain is taken; None: zeros.
        exploration: standard deviation per action of exploratory noise.
        action_limit: largest |action| per action, beyond which the simulator clips. Other bounds,
            as [0, 1], are mapped in the step.
        alive: next_state [N, ds] -> bool [N], the termination that a learned model takes over;
            None: no state is terminal.
        parameters: how the task was built, as JSON.
    """

    name: str
    simulator: System
    prior: System | None
    starts: Starts
    discount: float
    horizon: int
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    observation_scale: tuple[float, ...] | None = None
    reference_state: tuple[float, ...] | None = None
    exploration: tuple[float, ...] | None = None
    action_limit: tuple[float, ...] | None = None
    alive: Callable[[Tensor], Tensor] | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        validation.instance("name", self.name, str, "text")
        check_system("simulator", self.simulator)
        ds, da = self.simulator.state_dim, self.simulator.action_dim
        if self.prior is not None:
            check_system("prior", self.prior)
            for name, width in (("state_dim", ds), ("action_dim", da)):
                if (other := getattr(self.prior, name)) != width:
                    raise InputError(
                        f"prior has {name} {other}, but the simulator has {width}: a model with "
                        f"latents of its own goes by gradlab.tasks.with_world_model(task, model)"
                    )
        # Settings may come from a command line: types are not certain.
        validation.number("discount", self.discount, above=0, below=1)
        validation.whole("horizon", self.horizon)
        validation.function("starts", self.starts, f"(n, generator) -> [n, {ds}]")
        object.__setattr__(self, "starts", _start_law(self.starts, ds))
        widths = {
            "state_names": ds,
            "action_names": da,
            "observation_scale": ds,
            "reference_state": ds,
            "exploration": da,
            "action_limit": da,
        }
        for name, width in widths.items():
            value = getattr(self, name)
            if isinstance(value, Tensor | np.ndarray):  # as env.action_space.high
                value = tuple(value.reshape(-1).tolist())
                object.__setattr__(self, name, value)
            kind = (tuple, list, type(None))
            validation.instance(name, value, kind, f"a tuple of {width}, or None")
            if value and len(value) != width:
                raise InputError(f"{name} has {len(value)} entries, expected {width}")


_POOL = 1 << 16  # starts that fix the region
_MOST = 0.5  # share from which on the middle is the smaller part
_ROUNDS = 100  # of drawing again what is missing


@dataclass(frozen=True, eq=False)
class _Trimmed:
    """(n, generator) → [n, ds], starts of `law` within the region."""

    law: Starts
    mean: Tensor
    precision: Tensor
    radius: float

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        kept = self._inside(self.law(n, generator))
        for _ in range(_ROUNDS):
            if len(kept) >= n:
                return kept[:n]
            more = self.law(max(2 * (n - len(kept)), 16), generator)
            kept = torch.cat([kept, self._inside(more)])
        raise InputError(
            f"starts gave {len(kept)} of {n} that are not trimmed: leave trim_starts out, or let "
            f"starts draw from the generator"
        )

    def _inside(self, states: Tensor) -> Tensor:
        return states[_distances(states, self.mean, self.precision) <= self.radius]


def _distances(states: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Mahalanobis distances [N] of states [N, ds]."""
    away = states - mean
    return ((away @ precision) * away).sum(dim=1).clamp(min=0.0).sqrt()


def spread(states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [ds] and inverse covariance [ds, ds] of states, 0 along what does not vary."""
    mean = states.mean(dim=0)
    away = states - mean
    return mean, torch.linalg.pinv(away.T @ away / len(states), hermitian=True)


def trimmed(task: Task, share: float) -> Task:
    """The task without the `share` of its starts that is farthest from their mean.

    Raises:
        InputError: the share is not above 0 and below ½, or the starts differ too little for it.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    wanted = f"a share above 0 and below {_MOST}"
    share = validation.number("trim_starts", share, wanted, above=0, below=_MOST)
    pool = task.starts(_POOL, stream(child(0, "trimmed starts"), "starts"))
    mean, precision = spread(pool)
    d = _distances(pool, mean, precision)
    radius = float(d.sort().values[int((1 - share) * _POOL) - 1])
    outside = float((d > radius).double().mean())
    if not outside > share / 2:
        raise InputError(
            f"trim_starts is {share:g}, but no such share of the starts of {task.name} is farther "
            f"from their mean than the others: leave it out"
        )
    law = _Trimmed(task.starts, mean, precision, radius)
    return replace(task, starts=law, parameters={**task.parameters, "trim_starts": share})
