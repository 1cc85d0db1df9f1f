"""One evaluation of a user's loss that leaves no trace.

Buffers (running statistics), random generators and parameters' `grad` are afterwards as before;
every evaluation draws the same numbers.

Arguments are checked once, with parameters and objects by role.

Gradients by path, and the loss itself against its gradient.

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
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradlab import validation
from gradlab.data.trajectories import stream
from gradlab.errors import InputError, in_short, one_line
from gradlab.tools.audit.calls import JUDGES, LossCalls, Output, Role, Watching, closed
from gradlab.tools.audit.tags import Tag
from gradlab.user_code import running

WHOLE = "loss"  # the name of a term that is the loss


@dataclass(frozen=True)
class LossEvaluation:
    """
    Attributes:
        terms: scalars by name; their sum is the loss.
        tags: of the terms that depend on θ.
        theta: the actor's parameters that are trained.
        cut: a value of θ was detached, sampled or made discrete.
    """

    terms: Mapping[str, Tensor]
    calls: LossCalls
    tags: Mapping[str, Tag]
    theta: Sequence[Tensor]
    cut: bool = False

    @property
    def loss(self) -> Tensor:
        return torch.stack([term.reshape(()).double() for term in self.terms.values()]).sum()


def evaluated(
    audited: Audited,
    length: int | None = None,
    raised: Role | None = None,
    shift: tuple[int, Tensor] | None = None,
) -> LossEvaluation:
    """The loss with its calls.

    Args:
        length: of the segment, handed to the loss as `length=`; None: not handed.
        raised: model or critic, whose values of what depends on θ are larger than they are.
        shift: a call of the actor, and what is added to its first result.
    """
    more = {} if length is None else {"length": length}
    theta = list(audited.actor.values())
    watching = Watching(audited.owners, theta, raised, shift)
    with _unchanged(audited.modules), _seeded(audited.seed), running("loss"):
        with watching.over(audited.objects), torch.enable_grad():
            value = audited.loss(*audited.inputs, **more)
        named = value if isinstance(value, Mapping) else {WHOLE: value}
        if not named:
            raise InputError("loss returns no term, expected a scalar tensor or a dict of them")
        for name, term in named.items():
            what = "loss returns" if named is not value else f"loss returns for {name!r}"
            if not isinstance(term, Tensor):
                raise InputError(f"{what} a {type(term).__name__}, expected a scalar tensor")
            if term.numel() != 1 or not term.is_floating_point():
                raise InputError(
                    f"{what} a tensor of shape {tuple(term.shape)} and {term.dtype}, expected a "
                    f"scalar of floats: end it with mean() or sum()"
                )
        terms = {str(name): term for name, term in named.items()}
    tags = {name: tag for name, x in terms.items() if (tag := watching.tags.of(x)) is not None}
    return LossEvaluation(terms, watching.calls, tags, theta, watching.tags.cut)


@contextmanager
def differentiable(audited: Audited) -> Iterator[None]:
    """Inside, the graph of a loss is gone through; `grad` of the parameters is kept."""
    parameters = [p for named in (audited.actor, *audited.others.values()) for p in named.values()]
    before = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in parameters]
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"loss cannot be differentiated ({in_short(one_line(error))}): return it before any "
            f"backward() or step()"
        ) from error
    finally:
        for p, gradient, value in before:
            p.grad = gradient
            if gradient is not None and value is not None:
                gradient.data.copy_(value)


@contextmanager
def _unchanged(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, modules have copies of their buffers, which may change and stay with the graph."""
    inner = {id(part): part for module in modules for part in module.modules()}
    before = [
        (part, name, x) for part in inner.values() for name, x in part.named_buffers(recurse=False)
    ]
    try:
        for part, name, x in before:
            setattr(part, name, x.detach().clone())
        yield
    finally:
        for part, name, x in before:
            setattr(part, name, x)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Inside, generators of torch, NumPy and Python begin at the seed."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)


_DEPTH = 3  # objects inside objects, in search of modules
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType)
_WRAP = (
    "put it into a torch.nn.Module or an object whose method the loss calls, so that its calls can "
    "be seen"
)


@dataclass(frozen=True)
class Audited:
    """
    Attributes:
        actor: θ by name, those that are trained.
        others: parameters of model and critic by role and name, those that are trained.
        owners: roles by the id of each object whose calls are seen.
        objects, modules: what is watched, and the modules among it.
        optimizer: the actor's, or None.
    """

    loss: Callable[..., Any]
    inputs: tuple[Any, ...]
    actor: Mapping[str, nn.Parameter]
    others: Mapping[Role, Mapping[str, nn.Parameter]]
    owners: Mapping[int, Role]
    objects: Sequence[object]
    modules: Sequence[nn.Module]
    optimizer: Optimizer | None
    lengths: tuple[int, int] | None
    seed: int

    @property
    def apart(self) -> dict[str, nn.Parameter]:
        """θ without what is the critic's or model's, too, as a value head inside an actor."""
        shared = {id(p) for parameters in self.others.values() for p in parameters.values()}
        return {name: p for name, p in self.actor.items() if id(p) not in shared}


def audited(
    loss: object,
    actor: object,
    critic: object,
    model: object,
    inputs: object,
    optimizer: object,
    lengths: object,
    seed: object,
) -> Audited:
    if not callable(loss):
        raise InputError(f"loss is {validation.shown(loss)}, expected a function of the inputs")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        got = validation.shown(optimizer)
        raise InputError(f"optimizer is {got}, expected the actor's torch.optim.Optimizer")
    given: dict[Role, dict[str, Any]] = {"actor": _named("actor", actor)}
    for name, module in given["actor"].items():
        if not isinstance(module, nn.Module):
            got = validation.shown(module)
            raise InputError(f"actor{name} is {got}, expected a torch.nn.Module")
    given |= {
        role: _named(role, value)
        for role, value in zip(JUDGES, (model, critic), strict=True)
        if value is not None
    }
    roots = {
        role: {
            f"{name}{'.' if path else ''}{path}".strip(): module
            for name, item in objects.items()
            for path, module in _held(item, "", _DEPTH)
        }
        for role, objects in given.items()
    }
    parameters = {
        role: {
            f"{name}{'.' if name else ''}{path}": parameter
            for name, module in modules.items()
            for path, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        for role, modules in roots.items()
    }
    if not parameters["actor"]:
        raise InputError("actor has no parameter that requires a gradient: nothing is trained")
    compared: tuple[int, int] | None = None
    if lengths is not None:
        if not isinstance(lengths, tuple | list) or len(lengths) != 2:
            raise validation.expected("lengths", lengths, "two of a segment, as (8, 16)")
        short, long = (validation.whole("lengths", length, 1) for length in lengths)
        if long < 1.5 * short:
            wanted = "a second of at least 1.5 times"
            raise InputError(f"lengths is ({short}, {long}), expected {wanted}")
        compared = short, long
    owners, watched = _owners(given, roots)
    return Audited(
        loss=loss,
        inputs=tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,),
        actor=parameters.pop("actor"),
        others=parameters,
        owners=owners,
        objects=watched,
        modules=[module for modules in roots.values() for module in modules.values()],
        optimizer=optimizer,
        lengths=compared,
        seed=validation.whole("seed", seed),
    )


def _named(role: Role, value: object) -> dict[str, Any]:
    """Objects of a role by the name that goes before their parameters'."""
    if isinstance(value, Mapping):
        objects = {f" {name}": item for name, item in value.items()}
    elif isinstance(value, tuple | list):
        objects = {f" {k}": item for k, item in enumerate(value, 1)}
    else:
        objects = {"": value}
    if not objects:
        raise InputError(f"{role} is empty, expected a torch.nn.Module or several")
    for name, item in objects.items():
        if isinstance(item, _FUNCTIONS):
            raise InputError(f"{role}{name} is a function: {_WRAP}")
        if item is None or isinstance(item, str | bytes | int | float | Tensor):
            raise InputError(
                f"{role}{name} is {validation.shown(item)}, expected a torch.nn.Module"
            )
    return objects


def _held(item: object, path: str, depth: int) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(item, nn.Module):
        yield path, item
    elif depth and hasattr(item, "__dict__") and not isinstance(item, type):
        for name, value in vars(item).items():
            yield from _held(value, f"{path}.{name}".strip("."), depth - 1)


def _owners(
    given: Mapping[Role, Mapping[str, Any]], roots: Mapping[Role, Mapping[str, nn.Module]]
) -> tuple[dict[int, Role], list[object]]:
    """Roles by object; what actor and critic share, as an encoder, is the actor's."""
    owners: dict[int, Role] = {}
    watched: list[object] = []
    for role, objects in given.items():
        inner = [part for module in roots[role].values() for part in module.modules()]
        for item in (*objects.values(), *inner):
            if id(item) not in owners:
                owners[id(item)] = role
                watched.append(item)
    return owners, watched


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
