"""Gradients by path, and the loss itself against its gradient.

    g(C)      the gradient with the outlets of the roles C closed: paths through none of them
    neither = g({model, critic})            model = g({critic}) − neither
    critic  = g({model}) − neither          both  = g({}) − model − critic − neither

    D_u = (L(θ + h u) − L(θ − h u)) / 2h     against     g · u,     every random draw the same

D along g and random directions u, at several h: where a loss has kinks (PPO's clip) only the
smaller steps may be free of them, and the h counts at which both agree best. Where they differ, g
is the gradient of a surrogate; missing² = Σ_u (D_u − g · u)² / Σ_u D_u² over the random u.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.tools.audit.calls import JUDGES, LossCalls, Output, Role, closed
from gradlab.tools.audit.evaluation import Audited, LossEvaluation, evaluated

_NEITHER, _BOTH = "neither", "model and critic"
_UNITS = 16  # units in the last place of what was subtracted

Gradients = list[Tensor | None]


def gradient(
    value: Tensor, variables: Sequence[Tensor], weight: Tensor | None = None, again: bool = False
) -> Gradients:
    """∂value/∂variables; None where no path leads to a variable. `weight`: of the entries of
    `value`. again: the result can be differentiated."""
    if not value.requires_grad or not variables:
        return [None] * len(variables)
    gradients = torch.autograd.grad(
        value, variables, weight, retain_graph=True, create_graph=again, allow_unused=True
    )
    return list(gradients)


def by_path(term: Tensor, theta: Sequence[Tensor], calls: LossCalls) -> dict[str, list[Tensor]]:
    """The gradient of a term in θ by path; the values of all paths sum to it."""
    roles = [role for role in JUDGES if calls.counts.get(role)]
    total = _filled(gradient(term, theta), theta)
    if not roles:
        return {_NEITHER: total}
    neither = _without(term, theta, calls, roles)
    if len(roles) == 1:
        return {roles[0]: _less(total, [neither]), _NEITHER: neither}
    without = {role: _without(term, theta, calls, [role]) for role in roles}
    model = _less(without["critic"], [neither])
    critic = _less(without["model"], [neither])
    both = _less(total, [model, critic, neither])
    return {"model": model, "critic": critic, _BOTH: both, _NEITHER: neither}


def _without(
    term: Tensor, theta: Sequence[Tensor], calls: LossCalls, roles: Sequence[Role]
) -> list[Tensor]:
    """The gradient along paths through none of the roles."""
    with closed(*(calls.outlets[role] for role in roles)):
        return _filled(gradient(term, theta), theta)


def _filled(gradients: Gradients, like: Sequence[Tensor]) -> list[Tensor]:
    return [
        torch.zeros_like(x) if g is None else g.detach()
        for g, x in zip(gradients, like, strict=True)
    ]


def _less(total: Sequence[Tensor], parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """total − Σ parts, 0 where that is rounding."""
    results = []
    for k, whole in enumerate(total):
        terms = [part[k] for part in parts]
        rest = whole - torch.stack(terms).sum(0)
        size = torch.stack([whole.abs(), *(term.abs() for term in terms)]).sum()
        unit = torch.finfo(whole.dtype).eps * size
        results.append(torch.where(rest.abs() <= _UNITS * unit, 0.0, rest))
    return results


def direct_weights(
    term: Tensor, outputs: Sequence[Output], calls: LossCalls, again: bool = False
) -> Gradients:
    """∂term/∂output with everything fixed that actor, model and critic compute from it. `again`:
    the weights can be differentiated in θ."""
    with closed(*calls.inlets.values()):
        return gradient(term, [output.value for output in outputs], again=again)


def moves(g: Tensor | None) -> bool:
    """A gradient that is not exactly zero."""
    return g is not None and bool((g != 0).any())


def norms(paths: Mapping[str, Sequence[Tensor]]) -> dict[str, list[float]]:
    """Euclidean norm of every parameter's gradient, by path."""
    return {path: [float(g.double().norm()) for g in values] for path, values in paths.items()}


_STEPS = (2e-2, 1e-2, 5e-3, 2e-3, 5e-4)  # of the size of every tensor
_ROUNDING = 8.0  # units of ε in a value of the loss
_SAFETY, _LEAST = 4.0, 0.02  # errors of D, and a share of it, that are no difference
_CALLS = 64  # of the actor, whose steps are told apart
_MISSING = 0.05  # of the derivative, from which it is named


@dataclass(frozen=True)
class Differenced:
    """
    Attributes:
        missing: share of the derivative that the gradient has not, over the random directions.
        change: D_u over g · u along the gradient; 1 where g is the derivative.
        off: share of the directions, the gradient's among them, in which they differ.
        steps: share of ∂L/∂a_t that the gradient has, for the actions of every call of the actor;
            NaN where differences do not decide. Empty where it is called once.
    """

    missing: float
    change: float
    off: float
    steps: tuple[float, ...] = ()

    @property
    def words(self) -> str:
        """The shares by step."""
        known = [f"{100 * x:.0f}%" for x in self.steps if math.isfinite(x)]
        if len(known) < 2:
            return ""
        return f"; of the loss's derivative by the action of each step it has {', '.join(known)}"

    @property
    def surrogate(self) -> bool:
        """Is the gradient another one than the derivative?"""
        return self.off >= 0.5 and self.missing >= _MISSING


def by_step(audited: Audited, here: LossEvaluation, length: int | None) -> tuple[float, ...]:
    """`Differenced.steps`: the action of one call moved along its own gradient."""
    outputs = [x for x in here.calls.outputs if x.role == "actor" and x.position == 0]
    if not 2 <= len(outputs) <= _CALLS:
        return ()
    values = [output.value for output in outputs]
    slopes = torch.autograd.grad(here.loss, values, retain_graph=True, allow_unused=True)
    shares = []
    for output, slope in zip(outputs, slopes, strict=True):
        g = torch.zeros_like(output.value) if slope is None else slope.detach()
        u = g if bool(g.any()) else torch.ones_like(g)
        u = u / u.square().mean().sqrt() * output.value.detach().square().mean().sqrt()
        by = []
        for h in _STEPS[1:3]:
            ends = (
                float(evaluated(audited, length, shift=(output.call, sign * h * u)).loss.detach())
                for sign in (1.0, -1.0)
            )
            by.append((next(ends) - next(ends)) / (2 * h))
        certain = abs(by[1]) > _SAFETY * abs(by[0] - by[1])
        shares.append(float((g * u).sum()) / by[1] if certain else math.nan)
    return tuple(shares)


REDRAWN = Differenced(0.0, 1.0, 0.0)  # nothing to compare: another value at each call


def differenced(
    audited: Audited, total: Gradients, directions: int, length: int | None
) -> Differenced | None:
    """The comparison; `REDRAWN` where the loss is another one at each call, None where differences
    are lost in rounding.

    Args:
        total: the gradient of the loss in θ.
        directions: random ones.
    """
    theta = list(audited.actor.values())

    def loss() -> float:
        return float(evaluated(audited, length).loss.detach())

    here = loss()
    if not math.isfinite(here):
        return None
    if loss() != here:
        return REDRAWN
    g = [
        torch.zeros_like(p) if x is None else x.detach() for p, x in zip(theta, total, strict=True)
    ]
    size = [p.detach().square().mean().sqrt().clamp_min(1e-2) for p in theta]
    generator = stream(audited.seed, "audit directions")
    random = [
        [
            s * torch.randn(p.shape, generator=generator).to(p)
            for p, s in zip(theta, size, strict=True)
        ]
        for _ in range(directions)
    ]
    norm, reach = (sum(float(x.square().sum()) for x in xs) ** 0.5 for xs in (g, random[0]))
    along = [x * (reach / norm) for x in g] if norm > 0 else random[0]
    epsilon = max(torch.finfo(p.dtype).eps for p in theta)
    found = []
    for u in (along, *random):
        given = sum(float((x * y).sum()) for x, y in zip(g, u, strict=True))
        values = []
        for h in _STEPS:
            ends = []
            for sign in (1.0, -1.0):
                with _moved(theta, u, sign * h):
                    ends.append(loss())
            values.append((ends[0] - ends[1]) / (2 * h))
        errors = [
            abs(one - other) + _ROUNDING * epsilon * abs(here) / h
            for (one, other), h in zip(pairwise(values), _STEPS[1:], strict=True)
        ]
        best = min(range(len(errors)), key=lambda k: abs(values[k + 1] - given))
        found.append((given, values[best + 1], errors[best]))
    certain = [each for each in found if abs(each[1]) > _SAFETY * each[2] or
               abs(each[0]) > _SAFETY * each[2]]  # fmt: skip
    if not certain:
        return None
    off = [abs(D - given) > _SAFETY * error + _LEAST * abs(D) for given, D, error in certain]
    true = sum(D**2 for _, D, _ in found[1:])
    gap = sum((D - given) ** 2 for given, D, _ in found[1:])
    given, D, _ = found[0]
    missing = min((gap / true) ** 0.5, 1.0) if true > 0 else 1.0
    return Differenced(missing, D / given if given else 0.0, sum(off) / len(off))


@contextmanager
def _moved(theta: Sequence[Tensor], u: Sequence[Tensor], by: float) -> Iterator[None]:
    before = [p.detach().clone() for p in theta]
    try:
        for p, x in zip(theta, u, strict=True):
            p.data.add_(x, alpha=by)
        yield
    finally:
        for p, x in zip(theta, before, strict=True):
            p.data.copy_(x)
