"""One step of a Markov decision process, batch-first: the protocol of every simulator and model.

    step       (s, a, ξ) → s', r, alive'
    linearize  (s, a, ξ) → A = ∂s'/∂s, B = ∂s'/∂a, r_s = ∂r/∂s, r_a = ∂r/∂a

Noise ξ is standardised and explicit; `None` is the mean transition. `state` is the task's one
coordinate, the same for policy, critic and models, so that any system's Jacobians can be chained
along any other system's states.

Steps and linearizations of batches in which some simulations have diverged.

A system refuses states that are not finite. Loops over many samples therefore step and linearize
the finite rows only. The other rows are carried along as NaN, not alive and flagged.

The results carry no graph: a model's parameters may require gradients, but nothing here is
differentiated in them.

Recorded trajectories in the place of a simulator: they have states, but no step.

An estimator whose `states` is `Recorded` reads the path that it is given, with the policy's and
the model's noise inferred from each transition (RP-DR, SVG).

A system whose last action is log π, with the entropy bonus in its reward.

    s' = f(s, a, ξ),   r̃ = r(s, a) − α log π,   B̃ = [B, 0],   r̃_ã = (r_a, −α)

It takes the actions of `networks.policies.WithLogProb`; its return is the soft return of
maximum-entropy methods, so that every estimator and every oracle of plain returns applies.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.policies import temperature

BLOCKS = ("A", "B", "r_s", "r_a")
Noise = Tensor | None  # [N, noise_dim]; None: the mean transition


@dataclass(frozen=True)
class Transition:
    """state [N, ds], reward [N], alive [N] (bool: is the *next* state outside the terminal set).

    Also by `state, reward, alive = system.step(…)`.
    """

    state: Tensor
    reward: Tensor
    alive: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.state, self.reward, self.alive))


@dataclass(frozen=True)
class Certificate:
    """How far a linearization can be trusted.

    Attributes:
        flags: [N] bool, True where the Jacobian failed its test (a contact or a limit switched).
        error: estimated relative error per block "A", "B", "r_s", "r_a", each [N].
        step: finite-difference step used for each sample, [N], or None for closed forms and
            automatic differentiation.
    """

    flags: Tensor
    error: Mapping[str, Tensor]
    step: Tensor | None = None

    @staticmethod
    def exact(state: Tensor) -> Certificate:
        """Certificate of a closed form or of automatic differentiation: rounding error only."""
        n = state.shape[0]
        rounding = torch.full((n,), torch.finfo(state.dtype).eps, dtype=state.dtype)
        flags = torch.zeros(n, dtype=torch.bool, device=state.device)
        return Certificate(flags, {block: rounding.to(state.device) for block in BLOCKS})


@dataclass(frozen=True)
class Linearization:
    """A [N, ds, ds], B [N, ds, da], r_s [N, ds], r_a [N, da], and their certificate."""

    A: Tensor
    B: Tensor
    r_s: Tensor
    r_a: Tensor
    certificate: Certificate


def whole(linear: Linearization) -> Tensor:
    """∂(s', r)/∂(s, a), [N, ds + 1, ds + da]."""
    rewards = torch.cat([linear.r_s, linear.r_a], dim=1)[:, None]
    return torch.cat([torch.cat([linear.A, linear.B], dim=2), rewards], dim=1)


@runtime_checkable
class System(Protocol):
    """A simulator or a model. Final classes implement it; nothing inherits from them.

    `differentiable` says whether automatic differentiation may be taken through `step`.
    A system whose noise can be recovered from a transition also has
    `infer_noise(state, action, next_state) -> [N, noise_dim]`. One whose `linearize` has formulas,
    and takes about as long as a step, says `closed_form = True`: training then follows it by them.
    """

    @property
    def state_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    @property
    def noise_dim(self) -> int: ...
    @property
    def differentiable(self) -> bool: ...

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition: ...

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization: ...

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor: ...


_MEMBERS = (
    "state_dim", "action_dim", "noise_dim", "differentiable", "step", "linearize", "sample_noise",
)  # fmt: skip


def machine_epsilon(values: Tensor) -> float:
    """ε of the precision that computed float64 values: float32's where all are float32 numbers."""
    finite = values[torch.isfinite(values)]
    fractions = finite[finite != finite.round()]
    single = len(fractions) > 0 and torch.equal(fractions.float().to(values), fractions)
    return torch.finfo(torch.float32 if single else values.dtype).eps


def by_differences(system: System) -> bool:
    """Are its Jacobians differences of its steps, also where autograd passes through them?"""
    return not system.differentiable or getattr(system, "linearization_price", 0.0) > 0


def standard_normal(
    n: int, dim: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Tensor:
    """[n, dim] standard normal draws, drawn in float64 so that a dtype never changes the draw."""
    return torch.randn(n, dim, generator=generator, dtype=torch.float64).to(dtype)


def sample_normal(
    self: System, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Tensor:
    """`System.sample_noise` of systems whose noise is all standard normal, or that have none."""
    return standard_normal(n, self.noise_dim, generator, dtype)


def inner(name: str, of: str = "system") -> Any:
    """An attribute of the system inside another one, and none where that has none."""
    return property(operator.attrgetter(f"{of}.{name}"))


class Wrapped:
    """A system around another one, `system`: what it has no other of is that one's."""

    state_dim = inner("state_dim")
    action_dim = inner("action_dim")
    noise_dim = inner("noise_dim")
    differentiable = inner("differentiable")
    member_column = inner("member_column")
    linearization_price = inner("linearization_price")
    sample_noise = inner("sample_noise")


def check_system(name: str, system: object) -> None:
    """Raises InputError: it is no System; says what it lacks."""
    if isinstance(system, System) and not isinstance(system, type):
        return
    lacking = [member for member in _MEMBERS if not hasattr(system, member)]
    without = f" without {', '.join(lacking)}" if 0 < len(lacking) < len(_MEMBERS) else ""
    raise InputError(
        f"{name} is {validation.shown(system)}{without}, expected a System, as of "
        f"systems.from_function(step, state_dim, action_dim) or tasks.with_world_model(task, model)"
    )


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A vector in the dtype and on the device of `like`, made once: a step of few rows takes about
    as long to make one as to use it. Not to be changed in place."""
    return _constant(values, like.dtype, like.device)


@cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else autograd could not keep it
        return torch.tensor(values, dtype=dtype, device=device)


def check_widths(state_dim: int, action_dim: int, noise_dim: int) -> None:
    """Raises InputError: one is none."""
    validation.whole("state_dim", state_dim, 1)
    validation.whole("action_dim", action_dim, 1)
    validation.whole("noise_dim", noise_dim)


def check_step(system: System, state: Tensor, action: Tensor, noise: Noise) -> None:
    """Check shapes and dtypes of the arguments of `step` and `linearize`.

    Raises:
        InputError: names the argument, its shape or dtype and what was expected.
    """
    rows: int | str = state.shape[0] if state.ndim == 2 else "N"
    wanted = {"state": (state, system.state_dim), "action": (action, system.action_dim)}
    if noise is not None:
        wanted["noise"] = (noise, system.noise_dim)
    for name, (value, width) in wanted.items():
        if value.shape != (rows, width):
            got = tuple(value.shape)
            raise InputError(f"{name} has shape {got}, expected [{rows}, {width}]")
        if value.dtype != state.dtype:
            raise InputError(f"{name} is {value.dtype} but state is {state.dtype}: convert one")


def flat_reward(reward: Tensor, state: Tensor) -> Tensor:
    """[N, 1] as [N]: beside [N] it would broadcast to [N, N]."""
    if reward.shape != (len(state), 1):
        return reward
    warnings.warn("rewards of shape [N, 1] are taken as [N]", stacklevel=1)
    return reward[:, 0]


def step_running(system: System, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
    """`system.step` of the rows that are finite; NaN and not alive for the others."""
    running = torch.isfinite(state).all(dim=1)
    if bool(running.all()):
        return Transition(*(x.detach() for x in system.step(state, action, noise)))
    finite = system.step(state[running], action[running], None if noise is None else noise[running])
    filled = zip(finite, (torch.nan, torch.nan, False), strict=True)
    return Transition(*(_spread(x.detach(), running, fill) for x, fill in filled))


def lost_step(state: Tensor, action: Tensor, after: Transition) -> tuple[int, str] | None:
    """The first row whose next state or reward is NaN or infinite, and where that is, in words."""
    made = {"state": after.state, "reward": after.reward[:, None]}
    lost = ~torch.stack([torch.isfinite(rows).all(1) for rows in made.values()]).all(0)
    if not bool(lost.any()):
        return None
    k = int(lost.int().argmax())
    what = " and ".join(
        f"{name} is {'NaN' if bool(torch.isnan(rows[k]).any()) else 'infinite'}"
        for name, rows in made.items()
        if not bool(torch.isfinite(rows[k]).all())
    )
    at = " and ".join(
        f"{name} ({', '.join(f'{x:.3g}' for x in rows[k].tolist())})"
        for name, rows in (("state", state), ("action", action))
    )
    return k, f"its next {what} at {at}"


def linearize_running(
    system: System, state: Tensor, action: Tensor, noise: Noise = None
) -> Linearization:
    """`system.linearize` of the rows that are finite; NaN and flagged for the others."""
    running = torch.isfinite(state).all(dim=1) & torch.isfinite(action).all(dim=1)
    if bool(running.all()):
        linear = system.linearize(state, action, noise)
        return replace(linear, **{name: getattr(linear, name).detach() for name in BLOCKS})
    given = None if noise is None else noise[running]
    finite = system.linearize(state[running], action[running], given)
    blocks = {name: _spread(getattr(finite, name).detach(), running, torch.nan) for name in BLOCKS}
    certified = finite.certificate
    certificate = Certificate(
        _spread(certified.flags, running, True),
        {name: _spread(error, running, torch.nan) for name, error in certified.error.items()},
        None if certified.step is None else _spread(certified.step, running, torch.nan),
    )
    return Linearization(**blocks, certificate=certificate)


def _spread(values: Tensor, rows: Tensor, fill: float) -> Tensor:
    """Values of the chosen rows among rows of `fill`."""
    whole = values.new_full((len(rows), *values.shape[1:]), fill)
    whole[rows] = values
    return whole


@dataclass(frozen=True)
class Recorded:
    """Dimensions of the recorded states and actions; neither steps nor linearizes."""

    state_dim: int
    action_dim: int
    noise_dim: int = 0
    differentiable: bool = False

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> NoReturn:
        raise InputError("states are recorded and cannot be stepped: use a simulator or a model")

    linearize, sample_noise = step, sample_normal


_Inference = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Entropic(Wrapped):
    """The system above; alpha in reward units per nat.

    States and Jacobians from one system must share one `Entropic`: two wrappers of it count as
    two systems, and noise that cannot be inferred is then left out.
    """

    system: System
    alpha: float

    def __post_init__(self) -> None:
        temperature(self.alpha)

    @property
    def action_dim(self) -> int:
        return self.system.action_dim + 1

    @property
    def infer_noise(self) -> _Inference:
        """(state, ã, next_state) → [N, noise_dim]; AttributeError where the system has none."""
        infer: _Inference = self.system.infer_noise  # type: ignore[attr-defined]
        return lambda state, action, next_state: infer(state, action[:, :-1], next_state)

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        plain = self.system.step(state, action[:, :-1], noise)
        return replace(plain, reward=plain.reward - self.alpha * action[:, -1])

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        plain = self.system.linearize(state, action[:, :-1], noise)
        price = torch.full_like(plain.r_a[:, :1], -self.alpha)
        return replace(
            plain,
            B=torch.nn.functional.pad(plain.B, (0, 1)),
            r_a=torch.cat([plain.r_a, price], dim=1),
        )
