"""Jacobians by closed forms and autodiff, compared with central differences of the step.

    J e_i ≈ (f(z + h_i e_i) − f(z − h_i e_i)) / 2 h_i,      z = (s, a),   f = (s', r)

A state agrees where one of two step sizes comes within 0.1% of the block's largest entry, rounding
allowed for; steps that compute in float32 are moved farther. Columns that are 0 in every state are
a dead path; entries that are, though their differences are not, a detached one. Jacobians by
differences are flagged where a contact or limit switches inside their stencil and a thousandth of
the step did not help: such samples stay, in estimators and truth alike, and are counted.

A few of the starts, and the estimators' paths and Jacobians from them, shared by all checks.

Every path and every linearization is made once and shared between the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import torch
from torch import Tensor, nn

from gradlab.data.trajectories import Path
from gradlab.findings import Finding, within
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import Trajectory
from gradlab.gradients.setting import Setting, Starts
from gradlab.gradients.trajectory import TermRequest
from gradlab.networks.interface import act
from gradlab.statistics.moments import Moments
from gradlab.systems.system import (
    BLOCKS,
    Entropic,
    Linearization,
    Recorded,
    System,
    by_differences,
    linearize_running,
    machine_epsilon,
    step_running,
    whole,
)
from gradlab.tasks import Task
from gradlab.truth.truth import Truth


@dataclass(frozen=True)
class CheckContext:
    """A measurement, what it was made from, and a few of its starts, on which checks run.

    Attributes:
        setting: as it was measured (without entropy: see `with_entropy`), with a few of its starts.
        estimators: as they were measured, likewise; begin: all of its starts.
        policy, critics: the user's own, before they were copied.
        truth: what biases are measured against.
        at: the states at which first-action gradients were taken.
        cells: the moments of every estimator and horizon.
    """

    task: Task
    setting: Setting
    begin: Starts
    policy: nn.Module
    critics: Sequence[nn.Module]
    estimators: Mapping[str, Estimator]
    truth: Truth
    at: Starts
    cells: Mapping[tuple[str, int], Moments]

    @cached_property
    def asked(self) -> TermRequest:
        """The trajectories of the few starts."""
        here = self.setting
        return TermRequest(here.policy, here.starts, (), here.seed, here.termination)

    def along(self, estimator: Estimator) -> Trajectory:
        """The estimator's path with Jacobians, at its own horizon."""
        return self.asked.trajectory(estimator)

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
        if plain is self.task.simulator:
            return "simulator"
        return "prior model" if plain is self.task.prior else type(plain).__name__

    def action(self, j: int) -> str:
        """What action j is called."""
        if j < len(self.task.action_names):
            return f"{self.task.action_names[j]} (action {j})"
        return f"action {j}"


STATES = 96  # whose Jacobians are compared, over all starts and steps
_STEPS = (1e-5, 1e-6)  # times the size of each coordinate
_FARTHER = 1e3  # times as far where float64 states are stepped in float32
_TOLERANCE = 1e-3
_KINKS = 0.1  # share of the states where contacts and kinks may explain what is off
_GROSS = 0.1  # by over 10% in most states: not the derivative of this step
_ROUNDING = 1e2  # units of machine epsilon in a difference of two steps
_VANISHING = 1e-12  # of the largest column
_CLIPPED = 0.5  # share of the states where some action moves nothing
_Differences = tuple[Tensor, Tensor]  # and their error


def jacobians(context: CheckContext) -> list[Finding]:
    """Of every system that some estimator differentiates, and of the policy."""
    results = _policy_detached(context)
    for name, (system, path) in context.differentiated().items():
        s, a = sampled(path, STATES)
        if not len(s):
            results.append(Finding("jacobians_unknown", "fail", name))
            continue
        linear = linearize_running(system, s, a)
        central = [_central(system, s, a, step) for step in _STEPS]
        lost = [] if by_differences(system) else _detached(name, linear, *central[0])
        results += [_differences(name, linear, central, not lost), *lost]
        results += _columns(name, linear, context)
    return results


def sampled(path: Path, most: int) -> tuple[Tensor, Tensor]:
    """Finite states and actions, `most` at most, spread over the steps and starts of a path."""
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    finite = torch.isfinite(s).all(dim=1) & torch.isfinite(a).all(dim=1)
    s, a = s[finite], a[finite]
    rows = torch.linspace(0, len(s) - 1, min(most, len(s))).long()
    return s[rows], a[rows]


@dataclass(frozen=True)
class OwnDerivatives:
    """A system's own derivatives against differences of its step.

    Attributes:
        states: that were looked at; off: in how many of them a derivative is.
        block, row, column: the one that is off the most, of (s', r) by (s, a).
    """

    states: int
    off: int
    block: str
    row: int
    column: int

    @property
    def wrong(self) -> bool:
        """Is it off in more states than contacts and kinks would explain?"""
        return self.off >= _KINKS * self.states


def own_derivatives(system: System, path: Path) -> OwnDerivatives | None:
    """None where the path has no finite state."""
    s, a = sampled(path, STATES)
    if not len(s):
        return None
    linear = linearize_running(system, s, a)
    central = [_central(system, s, a, step) for step in _STEPS]
    errors = torch.minimum(*(_relative(linear, *each)[1] for each in central))
    off = (errors > _TOLERANCE).any(dim=1) & ~linear.certificate.flags
    block = int(errors[off].sum(dim=0).argmax()) if off.any() else 0
    gaps = [((whole(linear) - J).abs() - error).clamp_min(0.0) for J, error in central]
    gap = torch.minimum(*gaps)[off].nan_to_num(posinf=1e300, nan=1e300).sum(dim=0)
    halves, inside = (slice(0, linear.A.shape[1]), slice(linear.A.shape[1], None)), gap * 0
    inside[halves[block // 2], halves[block % 2]] = 1
    row, column = divmod(int((gap * inside).argmax()), gap.shape[1])
    return OwnDerivatives(len(s), int(off.sum()), BLOCKS[block], row, column)


def _differences(
    name: str, linear: Linearization, central: Sequence[_Differences], whole: bool
) -> Finding:
    """`central`: of both step sizes. `whole`: no derivative is lost, which would be the reason of
    all that is off here."""
    states = len(linear.A)
    # Per state and block, [M, 4], by the better of two step sizes: as it is, and beyond what the
    # rounding of the differences explains.
    sizes = [_relative(linear, *each) for each in central]
    raw, errors = (torch.minimum(*each) for each in zip(*sizes, strict=True))
    known = torch.stack([J.isfinite().flatten(1).all(dim=1) for J, _ in central]).any(dim=0)
    trusted = ~linear.certificate.flags & known
    off = (errors > _TOLERANCE).any(dim=1)
    wrong = int((off & trusted).sum())
    if not known.any():
        return Finding("jacobians_unknown", "fail", name)
    if not wrong:
        largest = float(torch.where(trusted[:, None], raw, 0.0).max())
        return Finding("jacobians", "pass", name, largest, n=int(known.sum()))
    at = int((off & trusted).int().argmax())
    block = _LABELS[BLOCKS[int(errors[at].argmax())]]
    far = int(((errors > _GROSS).any(dim=1) & trusted).sum())
    if name == "simulator" and whole and far > states / 2:
        return Finding("simulator_wrong", "fail", name, far, n=states, at=block)
    code = "jacobians_kinked" if wrong / states < _KINKS else "jacobians_wrong"
    return Finding(code, "fail", name, wrong, n=states, at=block)


def _detached(name: str, linear: Linearization, J: Tensor, rounding: Tensor) -> list[Finding]:
    """Derivatives of a step that are exactly 0 in every state, though it moves in most of them."""
    cut, ds = _cut(whole(linear), J, rounding), linear.A.shape[1]
    who = "simulator" if name == "simulator" else "model"
    what, code = ("step", who) if cut[:ds].any() else ("reward", f"{who}_reward")
    inputs = {"state": cut[:, :ds].any(), "action": cut[:, ds:].any()}
    by = " and ".join(k for k in inputs if inputs[k])
    return _lost(f"{code}_detached", f"{name}'s {what}", by, cut, len(J))


def _policy_detached(context: CheckContext) -> list[Finding]:
    """The same of the policy's actions, at the starts."""
    setting, starts = context.setting, context.setting.starts
    whole = next((each for each in context.pathwise().values() if not each.cut), None)
    if whole is None or not (linear := context.along(whole)).path.horizon:
        return []
    noise = starts.policy_noise(setting.policy, setting.seed, 0)

    def acted(rows: Tensor) -> Tensor:
        several = noise.repeat(len(rows) // len(noise), 1)
        with torch.no_grad():
            return act(setting.policy, rows, several).to(rows)

    J, rounding = _differenced(acted, starts.states, _STEPS[0])
    cut = _cut(linear.K[0][:, : J.shape[1]], J, rounding)
    return _lost("policy_detached", "policy's action", "state", cut, len(starts.states))


def _cut(given: Tensor, J: Tensor, rounding: Tensor) -> Tensor:
    """[outputs, inputs]: is the derivative lost?"""
    moved = J.abs() - rounding > _TOLERANCE * J.abs().amax(dim=(0, 2), keepdim=True)
    return (given == 0).all(dim=0) & (moved.double().mean(dim=0) > 0.5)


def _lost(code: str, what: str, by: str, cut: Tensor, states: int) -> list[Finding]:
    count = float(cut.sum())
    found = Finding(code, "fail", what, count, threshold=cut.numel(), n=states, at=by)
    return [found] if count else []


_LABELS = {"A": "∂f/∂s", "B": "∂f/∂a", "r_s": "∂r/∂s", "r_a": "∂r/∂a"}


def _central(system: System, s: Tensor, a: Tensor, step: float) -> _Differences:
    """Differences [M, ds + 1, ds + da] of (s', r), and their error, of the same shape."""

    def stepped(rows: Tensor) -> Tensor:
        out = step_running(system, rows[:, : s.shape[1]], rows[:, s.shape[1] :])
        return torch.cat([out.state, out.reward[:, None]], dim=1)

    return _differenced(stepped, torch.cat([s, a], dim=1), step)


def _differenced(f: Callable[[Tensor], Tensor], z: Tensor, step: float) -> _Differences:
    """Differences [M, outputs, inputs] of f [M, inputs] → [M, outputs], and their error: rounding,
    and half of what f bends within h, by which a kink there leaves the slopes of both sides."""
    size, here = z.square().mean(dim=0).sqrt(), f(z)
    epsilon = machine_epsilon(here)
    step *= _FARTHER if epsilon > torch.finfo(z.dtype).eps else 1.0
    # A coordinate that is 0 in every state has no size of its own.
    h = step * torch.where(size > 0, size, torch.ones_like(size))
    moves = torch.diag(h)
    m, width = z.shape
    rows = torch.cat([z[None] + moves[:, None], z[None] - moves[:, None]]).reshape(-1, width)
    y, twice = f(rows).reshape(2, width, m, -1), 2 * h[:, None, None]
    J = (y[0] - y[1]) / twice
    rounding = _ROUNDING * epsilon * y[0].abs() / twice
    error = rounding + (y[0] - 2 * here + y[1]).abs() / twice
    return J.permute(1, 2, 0), error.permute(1, 2, 0)


def _relative(linear: Linearization, J: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """|given − J| of each block over its largest entry, [M, 4]: as it is, and beyond rounding."""
    ds, every = linear.A.shape[1], whole(linear)
    first, last = slice(0, ds), slice(ds, None)  # (s', r) and (s, a) are cut at the same place
    raw: list[Tensor] = []
    beyond: list[Tensor] = []
    for rows, columns in product((first, last), repeat=2):  # in the order of `BLOCKS`
        given, wanted, noise = (each[:, rows, columns] for each in (every, J, rounding))
        gap, size = (given - wanted).abs(), torch.maximum(given.abs(), wanted.abs())
        scale = size.flatten(1).amax(dim=1).clamp_min(torch.finfo(J.dtype).tiny)
        for found, difference in ((raw, gap), (beyond, (gap - noise).clamp_min(0.0))):
            found.append((difference.flatten(1).amax(dim=1) / scale).nan_to_num(nan=torch.inf))
    return torch.stack(raw, dim=1), torch.stack(beyond, dim=1)


def _columns(name: str, linear: Linearization, context: CheckContext) -> list[Finding]:
    """Actions that move no state, exactly (dead) or in effect (vanishing); else the share of the
    states where one does not."""
    size = linear.B.abs().amax(dim=(0, 1))
    relative, states = size / size.max(), len(linear.B)
    dead, faint = size == 0, (relative <= _VANISHING) & (size > 0)
    found = [
        Finding("action_dead", "fail", context.action(j), n=states, at=name)
        for j in dead.nonzero().flatten().tolist()
    ]
    found += [
        Finding("action_faint", "fail", context.action(j), float(relative[j]),
                threshold=_VANISHING, n=states, at=name)
        for j in faint.nonzero().flatten().tolist()
    ]  # fmt: skip
    if found:
        return found
    share = float((linear.B == 0).all(dim=1).any(dim=1).double().mean())
    return [within("actions_clipped", share, _CLIPPED, name, n=states)]


def switches(context: CheckContext) -> list[Finding]:
    """Of every estimator that differentiates a system by differences."""
    found = []
    for name, estimator in context.pathwise().items():
        if estimator.jacobians is None or not by_differences(estimator.jacobians):
            continue
        flags = context.along(estimator).flags
        count = flags.numel()
        if flags.any():
            at = f"step {int(flags.any(dim=1).int().argmax())}"
            share = float(flags.double().mean())
            found.append(Finding("jacobians_flagged", "fail", name, share, n=count, at=at))
        elif count:
            found.append(Finding("jacobians_certified", "pass", name, n=count))
    return found
