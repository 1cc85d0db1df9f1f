"""Any torch function as a System.

The function takes a batch, and its rows do not depend on one another, so one reverse sweep with
the cotangent e_i on every row yields row i of every Jacobian of [s', r]: ds + 1 sweeps in all,
never more than the ds + da that forward mode would need.

A system whose angles are points on a circle: (cos φ, sin φ) in the place of φ.

    z = E(s),   z' = E(f(D(z), a)),   D: φ = atan2(sin φ, cos φ)

Angles that differ by a turn are one state, and no network sees a jump at ±π. The price is that the
chart has more coordinates than the system: the derivative along the radius is 0 here, but a model
that is learned from points on the circle may have any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.system import (
    Certificate,
    Linearization,
    Noise,
    System,
    Transition,
    check_step,
    check_widths,
    flat_reward,
    sample_normal,
)
from gradlab.user_code import running

_StepFunction = Callable[..., tuple[Tensor, Tensor]]
AliveFunction = Callable[[Tensor], Tensor]  # also of contacts and limits


class RowStep(torch.autograd.Function):
    """A step of rows that do not depend on one another, with a pullback of its own.

    values(*inputs) → s', r[, flags];  pullback(*inputs, λ, ρ) → a gradient of every input. A
    vectorised call is one of more rows. The pullback is a `RowStep`, too, which has none.
    """

    @staticmethod
    def forward(values: Any, pullback: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(values(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.pullback, *given = inputs
        ctx.save_for_backward(*given)
        ctx.mark_non_differentiable(*(y for y in output if not y.is_floating_point()))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.pullback is None:
            raise InputError("a step is differentiated a second time: it has first derivatives")
        given = (ctx.pullback, None, *ctx.saved_tensors, *cotangents[:2])
        return None, None, *RowStep.apply(*given)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, dims: Any, values: Any, pullback: Any, *inputs: Tensor) -> Any:
        """[b, N, …] → [b N, …] and back."""
        b = info.batch_size
        rows = [
            x.expand(b, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(inputs, dims[2:], strict=True)
        ]
        given = (values, pullback, *(x.flatten(0, 1) for x in rows))
        out = RowStep.apply(*given)  # type: ignore[no-untyped-call]
        return tuple(y.unflatten(0, (b, len(y) // b)) for y in out), (0,) * len(out)


def from_function(
    step: _StepFunction,
    state_dim: int,
    action_dim: int,
    noise_dim: int = 0,
    alive: AliveFunction | None = None,
    contacts: AliveFunction | None = None,
    beyond_limits: AliveFunction | None = None,
) -> System:
    """A System from `(state, action[, noise]) -> (next_state, reward)`.

    Args:
        step: torch function of [N, ds], [N, da] and, if noise_dim > 0, standard normal noise
            [N, noise_dim]; returns [N, ds] and [N]. Each row depends on its own inputs only.
            Without noise it is called with zeros, the mean transition where noise is additive.
        state_dim: ds.
        action_dim: da.
        noise_dim: width of the noise argument, 0 for a function without one.
        alive: next_state [N, ds] -> bool [N]; None: every state is alive.
        contacts: state [N, ds] -> bool [N], where bodies touch; `gradlab.certify` judges these
            states apart. None: no state is known to.
        beyond_limits: the same of a joint beyond its limit.

    Raises:
        InputError: a dimension or a function is none; later, when it is called, a function fails
            or returns something else. A reward [N, 1] is taken for [N].
    """
    return FunctionSystem(
        step, state_dim, action_dim, noise_dim, alive,
        _tested("contacts", contacts), _tested("beyond_limits", beyond_limits),
    )  # fmt: skip


@dataclass(frozen=True)
class FunctionSystem:
    """See `from_function`."""

    differentiable: ClassVar[bool] = True

    function: _StepFunction
    state_dim: int
    action_dim: int
    noise_dim: int
    alive: AliveFunction | None
    contacts: AliveFunction | None = None
    beyond_limits: AliveFunction | None = None

    def __post_init__(self) -> None:
        check_widths(self.state_dim, self.action_dim, self.noise_dim)
        validation.function("step", self.function, "(state, action[, noise])")
        if self.alive is not None:
            validation.function("alive", self.alive, "next_state [N, ds]")

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        after, reward = self._call(state, action, noise)
        return Transition(after, reward, survivors(self.alive, after))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)

        n, width = state.shape[0], self.state_dim + 1
        basis = torch.eye(width, dtype=state.dtype, device=state.device)
        cotangents = basis[:, None, :].expand(width, n, width)
        # Not torch.func.vjp: a step that converts its network in it, as in net.double()(x), would
        # leave wrapped tensors in the network's parameters, which end the process when next used.
        with torch.inference_mode(False), torch.enable_grad():
            s, a = (x.detach().clone().requires_grad_() for x in (state, action))
            outputs = self._outputs(s, a, noise)
            sweeps: Sequence[Tensor] | None = None
            with suppress(RuntimeError):  # backward passes in plain Python know no batches
                sweeps = torch.autograd.grad(outputs, (s, a), cotangents, is_grads_batched=True)
            if sweeps is None or not all(bool(torch.isfinite(rows).all()) for rows in sweeps):
                sweeps = self._apart(s, a, noise)
        by_state, by_action = (columns.transpose(0, 1) for columns in sweeps)
        return Linearization(
            A=by_state[:, :-1],
            B=by_action[:, :-1],
            r_s=by_state[:, -1],
            r_a=by_action[:, -1],
            certificate=Certificate.exact(state),
        )

    def _apart(self, s: Tensor, a: Tensor, noise: Noise) -> tuple[Tensor, ...]:
        """Sweeps of next state and reward apart: 0 times an infinite slope of the one would be NaN
        in the other."""
        after, reward = self._call(s, a, noise)
        unused = 0 * (s.sum() + a.sum())
        each = [
            torch.autograd.grad(column.sum() + unused, (s, a), retain_graph=True)
            for column in (*after.unbind(1), reward)
        ]
        return tuple(torch.stack(rows) for rows in zip(*each, strict=True))

    sample_noise = sample_normal

    def _outputs(self, state: Tensor, action: Tensor, noise: Noise) -> Tensor:
        """[s', r], [N, ds + 1]."""
        after, reward = self._call(state, action, noise)
        # A dead control or a constant reward is no part of the graph: its derivative is 0.
        unused = 0 * (state.sum(1, keepdim=True) + action.sum(1, keepdim=True))
        return torch.cat([after, reward[:, None]], 1) + unused

    def _call(self, state: Tensor, action: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        inputs = [state, action]
        if self.noise_dim:
            zeros = state.new_zeros(state.shape[0], self.noise_dim)
            inputs.append(zeros if noise is None else noise)
        returned = _tried("step", self.function, inputs)
        given = returned if isinstance(returned, tuple | list) else (returned,)
        if len(given) != 2 or not all(isinstance(x, Tensor) for x in given):
            raise InputError(
                f"step returned {', '.join(map(validation.shown, given))}, expected two tensors, "
                f"next_state and reward, made by torch operations"
            )
        after, reward = given[0], flat_reward(given[1], state)
        other = [(x.is_floating_point() and x.dtype != state.dtype) or x.is_complex()
                 for x in (after, reward)]  # fmt: skip
        if after.shape != state.shape or reward.shape != state.shape[:1] or any(other):
            raise InputError(
                f"step returned next_state {list(after.shape)} in {after.dtype} and reward "
                f"{list(reward.shape)} in {reward.dtype}, expected {list(state.shape)} and "
                f"[{len(state)}] in {state.dtype} (a network: .to(state.dtype))"
            )
        return after.to(state), reward.to(state)


def survivors(alive: AliveFunction | None, after: Tensor) -> Tensor:
    """`alive` of the next states, checked; all of them without it. bool [N]."""
    if alive is None:
        return torch.ones_like(after[:, 0], dtype=torch.bool)
    return _truths("alive", alive, after)


def _tested(name: str, function: AliveFunction | None) -> AliveFunction | None:
    """The user's function of a state, what it returns checked."""
    if function is None:
        return None
    validation.function(name, function, "state [N, ds]")
    return partial(_truths, name, function)


def _truths(name: str, function: AliveFunction, state: Tensor) -> Tensor:
    found = _tried(name, function, [state])
    n = len(state)
    fits = isinstance(found, Tensor) and found.dtype == torch.bool
    if not fits or found.shape not in ((n,), (n, 1)):
        raise validation.expected(f"what {name} returns", found, f"torch.bool [{n}]")
    truths: Tensor = found.reshape(n).to(state.device)
    return truths


def _tried(name: str, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
    """What a user's function returns; what it raises, in one line with what to do."""
    with running(name, lambda words: remedy(_REMEDIES, words).format(inputs[0])):
        return function(*inputs)


_POSITIONAL = ": step takes (state, action), and noise where noise_dim > 0; alive takes next_state"
_REMEDIES = {
    "numpy|data pointer": ": write it with torch operations, without numpy",
    "device": ": its states are on {0.device}; bring the rest there, by .to({0.device})",
    "in-?place": ": write it without changing a tensor in place, batch norm in .eval()",
    "dtype": ": its states are {0.dtype}; convert its network with .to(state.dtype)",
}


def remedy(remedies: Mapping[str, str], words: str) -> str:
    """The first one whose pattern is found in an error's words."""
    known = {**remedies, "positional argument": _POSITIONAL}
    return next((cure for cause, cure in known.items() if re.search(cause, words)), "")


def on_circle(system: System, angles: Sequence[int], alive: AliveFunction | None = None) -> System:
    """`system` with each angle replaced by its cosine and sine, where it stood.

    Args:
        angles: coordinates of the state that are angles, in rad.
        alive: next state on the circle [N, ds + angles] → bool [N]; None: every state is alive.

    Raises:
        InputError: an angle that is no coordinate, or a system that is not differentiable.
    """
    turned, last = sorted(set(angles)), system.state_dim - 1
    if not turned or turned[0] < 0 or turned[-1] > last:
        raise InputError(f"angles are {tuple(angles)}, expected coordinates from 0 to {last}")
    if not system.differentiable:
        raise InputError("system is not differentiable: take one in torch")

    def step(state: Tensor, action: Tensor, noise: Noise = None) -> tuple[Tensor, Tensor]:
        after = system.step(off_circle(state, turned), action, noise)
        return to_circle(after.state, turned), after.reward

    return from_function(
        step, system.state_dim + len(turned), system.action_dim, system.noise_dim, alive
    )


def to_circle(state: Tensor, angles: Sequence[int]) -> Tensor:
    """[N, ds] → [N, ds + angles]."""
    columns = []
    for k, column in enumerate(state.unbind(dim=1)):
        columns += [column.cos(), column.sin()] if k in angles else [column]
    return torch.stack(columns, dim=1)


def off_circle(state: Tensor, angles: Sequence[int]) -> Tensor:
    """[N, ds + angles] → [N, ds], angles within ±π; of any radius but 0."""
    columns, at = [], iter(state.unbind(dim=1))
    for k in range(state.shape[1] - len(angles)):
        first = next(at)
        columns.append(torch.atan2(next(at), first) if k in angles else first)
    return torch.stack(columns, dim=1)
