"""What a loop gave its policy and its critics, and the gradients that its losses sent back.

How actions come from a policy's outputs: as they are, squashed, and drawn from a Gaussian.

a = centre + half · tanh(u),   u = μ + σ ε
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from gradlab.probe.critics import by_row
from gradlab.probe.isolation import copied, unwrapped
from gradlab.probe.policy_calls import limits_of

if TYPE_CHECKING:
    from gradlab.probe.parts.recorder import Ring


ROWS = 64  # of the batch
_OF_MODULES = frozenset(vars(nn.Module()))
_FIXED = (bool, int, float, str, type(None), type, FunctionType, BuiltinFunctionType, torch.dtype)


@dataclass
class PolicyCall:
    """One of a module of the policy.

    Attributes:
        loose: an argument has a gradient, by an operation between the policy's modules.
        states: observations, of its first argument, or of that of a module around it which gives
            no tensors, a distribution for example, and may normalise them before.
        arrived: gradients of the loss in its outputs, by their places.
    """

    module: nn.Module
    args: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    loose: bool
    states: Tensor
    arrived: dict[int, Tensor] = field(default_factory=dict)

    def begin_at(self, args: Sequence[Any]) -> None:
        """With the observations of a module around this one, of as many rows."""
        if args and isinstance(args[0], Tensor) and args[0].shape[:1] == self.states.shape[:1]:
            self.states = args[0].detach()

    def flat(self, lead: Sequence[int]) -> PolicyCall:
        """With the axes of a sequence in one, of all tensors that have them."""

        def one(x: Tensor) -> Tensor:
            has = x.shape[: len(lead)] == lead
            return x.flatten(0, len(lead) - 1) if has else x

        args, outputs = (tuple(map(one, each)) for each in (self.args, self.outputs))
        arrived = {k: one(each) for k, each in self.arrived.items()}
        return PolicyCall(self.module, args, outputs, self.loose, one(self.states), arrived)


def joined(calls: Sequence[PolicyCall]) -> PolicyCall:
    """Those of one module to which a loss has sent its gradient, in one; the last, where it has
    sent others nothing."""
    last = calls[-1]

    def alike(call: PolicyCall) -> bool:
        shapes = [
            [x.shape for x in (each.states, *each.args, *each.outputs)] for each in (call, last)
        ]
        return last.arrived.keys() <= call.arrived.keys() and shapes[0] == shapes[1]

    kept = [call for call in calls if alike(call)]
    if len(kept) == 1 or not last.arrived:
        return last
    args, outputs = (
        tuple(map(torch.cat, zip(*each, strict=True)))
        for each in ((call.args for call in kept), (call.outputs for call in kept))
    )
    arrived = {k: torch.cat([call.arrived[k] for call in kept]) for k in last.arrived}
    states = torch.cat([call.states for call in kept])
    return PolicyCall(last.module, args, outputs, last.loose, states, arrived)


@dataclass
class Pass:
    """The actor's last differentiated pass: calls of the policy, or of its parts, one feeding the
    next, and those of the critics after it."""

    calls: list[PolicyCall] = field(default_factory=list)
    values: list[tuple[nn.Module, tuple[Tensor, ...]]] = field(default_factory=list)

    @property
    def states(self) -> Tensor:
        """Observations that the policy was called at."""
        return self.calls[0].states

    @property
    def ends(self) -> list[tuple[PolicyCall, int]]:
        """Outputs that feed no other call."""
        fed = {x.data_ptr() for call in self.calls for x in call.args}
        return [
            (call, k) for call in self.calls for k, x in enumerate(call.outputs)
            if x.data_ptr() not in fed
        ]  # fmt: skip

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(call.outputs[k] for call, k in self.ends)

    @property
    def arrived(self) -> dict[int, Tensor]:
        """By place among the outputs."""
        found = {n: call.arrived.get(k) for n, (call, k) in enumerate(self.ends)}
        return {n: each for n, each in found.items() if each is not None}

    def in_rows(self, ring: Ring) -> Pass:
        """With every observation in a row of its own, where the policy was called at sequences."""
        states = self.states
        rows = states.flatten(0, -2) if states.ndim > 2 else states
        if ring.fits(states) or not ring.fits(rows):
            return self
        return Pass([each.flat(states.shape[:-1]) for each in self.calls], self.values)

    def again(self, twin: Mapping[nn.Module, nn.Module]) -> tuple[Tensor, ...]:
        """Outputs of the same calls by copies of the modules, of the first rows."""
        made: dict[int, Tensor] = {}
        with torch.no_grad():
            for call in self.calls:
                args = (made.get(x.data_ptr(), x[:ROWS]) for x in call.args)
                outputs = several(twin[call.module](*args))
                made |= {x.data_ptr(): y for x, y in zip(call.outputs, outputs, strict=True)}
        return tuple(made[x.data_ptr()] for x in self.outputs)


@dataclass
class Heard:
    """A critic's call with gradients since the last step of any optimiser.

    Attributes:
        own: at what has a gradient, as the policy's actions have.
        arrived: gradients of the loss in its outputs, by their places.
    """

    module: nn.Module
    args: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    own: bool
    arrived: dict[int, Tensor] = field(default_factory=dict)

    def by_row(self) -> Tensor | None:
        """dL/dQ, [B], the sum of all outputs; None: no loss sent one, or rows are not known."""
        rows = [by_row(each, len(self.args[-1])) for each in self.arrived.values()]
        known = [x.sum(1) for x in rows if x is not None]
        return torch.stack(known).sum(0) if known and len(known) == len(rows) else None


@final
class Twin:
    """A copy of a module that takes its values when it is asked for; one that holds what may change
    beside its tensors, as a normaliser that is no module, is copied again."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._copy()
        own = [vars(x) for x in self.copy.modules() if not type(x).__module__.startswith("torch.")]
        held = [each for of in own for name, each in of.items() if name not in _OF_MODULES]
        flat = [x for each in held for x in (each if isinstance(each, tuple) else (each,))]
        self._fixed = all(isinstance(x, _FIXED) for x in flat)

    def _copy(self) -> None:
        self.copy = copied(self.module)
        self.copy.requires_grad_(False)
        inside = zip(unwrapped(self.module).modules(), self.copy.modules(), strict=True)
        self.parts = {self.module: self.copy} | dict(inside)

    def now(self) -> Twin:
        """With the values of this moment."""
        if not self._fixed:
            self._copy()
            return self
        with torch.no_grad():
            torch._foreach_copy_([*self.copy.parameters()], [*self.module.parameters()])
            for mine, its in zip(self.copy.buffers(), self.module.buffers(), strict=True):
                mine.copy_(its)
        return self


def outputs_by_row(module: nn.Module, *args: Tensor) -> list[Tensor] | None:
    """Of a critic, [B, K] each; of two axes as long as the batch, it is the one that follows it
    where that is given twice. None: none does."""
    rows = len(args[-1])
    found = [by_row(x, rows) for x in several(module(*args))]
    if any(x is None for x in found):
        twice = several(module(*(torch.cat([x, x]) for x in args)))
        found = [None if (y := by_row(x, 2 * rows)) is None else y[:rows] for x in twice]
    known = [x for x in found if x is not None]
    return known if len(known) == len(found) else None


def alone(values: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(x.detach() for x in values)


def several(output: Any) -> tuple[Any, ...]:
    return output if isinstance(output, tuple) else (output,)


def heard_by(into: dict[int, Tensor], outputs: Sequence[Tensor]) -> None:
    """Keep what a loss will send to these outputs, by their places; a hidden state may have no
    gradient."""

    def keeper(k: int) -> Callable[[Tensor], None]:
        def keep(gradient: Tensor) -> None:
            into[k] = gradient.detach()

        return keep

    for k, each in enumerate(outputs):
        if each.requires_grad:
            each.register_hook(keeper(k))  # type: ignore[no-untyped-call]


_DRAWN = (0.3, 0.7, 1.4)  # |mean| and standard deviations of what passes for standard noise


@dataclass(frozen=True)
class Squash:
    """a = centre + half · tanh(u), or without the tanh; half None: a = u."""

    half: Tensor | None = None
    centre: Tensor | float = 0.0
    bent: bool = True

    def inner(self, action: Tensor) -> Tensor:
        """u; NaN where no u gives the action."""
        if self.half is None:
            return action
        unit = ((action - self.centre) / self.half).double()
        found = torch.atanh(unit.clamp(-1 + 1e-7, 1 - 1e-7))
        return torch.where(unit.abs() > 1 + 1e-6, torch.nan, found).to(action)


@dataclass(frozen=True)
class Action:
    """Actions of a policy at its own states.

    Attributes:
        value: [N, da]; noise: ε of a Gaussian one, None where the action is the output itself.
        log_density: its mean, up to a constant.
    """

    value: Tensor
    squash: Squash = field(default_factory=Squash)
    noise: Tensor | None = None
    log_density: Tensor | None = None

    def again(self, outputs: Sequence[Tensor]) -> Action:
        """With the same noise, by other outputs of the policy."""
        with torch.no_grad():
            if self.noise is not None:
                return gaussian_action(outputs[0], outputs[1], self.noise, self.squash)
            return Action(squashed(outputs[0], self.squash), self.squash)


def action_of(made: Pass, policy: nn.Module, low: Any = None, high: Any = None) -> Action | None:
    """How the critic's action comes from the policy's outputs; None where it is not known.

    Args:
        low, high: of the environment's actions, which a loop may squash to by itself.
    """
    given = made.values[0][1][-1]
    outputs = made.outputs
    width = outputs[0].shape[-1]
    if given.ndim != 2 or given.shape[-1] < width or len(given) != len(outputs[0]):
        return None
    given = given[:ROWS, -width:]
    known = squashes(made, policy, given, low, high)
    with torch.no_grad():
        for squash in [*known, _line(outputs[0][:ROWS], given)]:
            if torch.allclose(squashed(outputs[0][:ROWS], squash), given, atol=1e-6):
                return Action(given, squash)
        if len(outputs) > 1 and outputs[1].shape == outputs[0].shape:
            for squash in reversed(known):
                noise = noise_of(outputs[0][:ROWS], outputs[1][:ROWS], given, squash)
                if noise is not None:
                    return gaussian_action(outputs[0][:ROWS], outputs[1][:ROWS], noise, squash)
    return None


def squashes(
    made: Pass, policy: nn.Module, given: Tensor, low: Any = None, high: Any = None
) -> list[Squash]:
    """What actions [N, da] may be squashed by: nothing, the limits that are known, or ±1."""
    actors = policy, *(call.module for call in made.calls)
    known = next((each for actor in actors if (each := limits_of(actor, None))), None)
    unit = torch.ones_like(given[0])
    found = [Squash(), Squash(unit)]
    if known is not None:
        edge = known.edge.to(given) / (1 - 1e-3)
        found.insert(1, Squash(edge * unit, known.centre.to(given)))
    ends = [torch.as_tensor(x).to(given) for x in (low, high) if x is not None]
    if len(ends) == 2 and all(x.shape == unit.shape and bool(x.isfinite().all()) for x in ends):
        found.insert(1, Squash((ends[1] - ends[0]) / 2, (ends[1] + ends[0]) / 2))
    return found


def squashed(output: Tensor, squash: Squash) -> Tensor:
    if squash.half is None:
        return output
    return squash.centre + squash.half * (torch.tanh(output) if squash.bent else output)


def _line(output: Tensor, action: Tensor) -> Squash:
    """The line that fits best, of every action: where the loop scales outputs by itself."""
    x, y = output - output.mean(0), action - action.mean(0)
    half = (x * y).sum(0) / (x * x).sum(0).clamp_min(1e-12)
    return Squash(half, action.mean(0) - half * output.mean(0), bent=False)


def noise_of(mean: Tensor, log_std: Tensor, action: Tensor, squash: Squash) -> Tensor | None:
    """ε of these actions, None where it does not look like standard noise.

    Where a tanh is flat ε is lost: what is left, of |u| < 4, is drawn from a normal cut at both
    ends, and is taken back to a whole one by its distribution function.
    """
    action = squash.inner(action)
    if bool(action.isnan().any()):
        return None
    noise = (action - mean) / log_std.exp()
    inner = noise.reshape(-1)
    if squash.half is not None:
        scale = log_std.double().exp()
        low, high = (torch.special.ndtr((x - mean.double()) / scale) for x in (-4.0, 4.0))
        share = (torch.special.ndtr(noise.double()) - low) / (high - low)
        inner = torch.special.ndtri(share.clamp(1e-6, 1 - 1e-6))[action.abs() < 4]
    if len(inner) < 16:
        return None
    shift, least, most = _DRAWN
    shift = max(shift, 3 / len(inner) ** 0.5)  # of few samples
    drawn = abs(float(inner.mean())) < shift and least < float(inner.std()) < most
    return noise.clamp(-5, 5) if drawn else None


def gaussian_action(mean: Tensor, log_std: Tensor, noise: Tensor, squash: Squash) -> Action:
    inner = mean + log_std.exp() * noise
    density = -log_std.sum(-1)
    if squash.half is not None:
        density = density - torch.log(squash.half * (1 - torch.tanh(inner) ** 2) + 1e-6).sum(-1)
    return Action(squashed(inner, squash), squash, noise, density.mean())


def opened(made: Pass, old: Action) -> Action:
    """The same actions as those of a Gaussian without a tanh."""
    if old.noise is None:
        return old
    mean, log_std = (x[:ROWS] for x in made.outputs[:2])
    return gaussian_action(mean, log_std, (old.value - mean) / log_std.exp(), Squash())
