"""One evaluation of a user's loss that leaves no trace.

Buffers (running statistics), random generators and parameters' `grad` are afterwards as before;
every evaluation draws the same numbers.

Arguments are checked once, with parameters and objects by role.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradlab import validation
from gradlab.errors import InputError, in_short, one_line
from gradlab.tools.audit.calls import JUDGES, LossCalls, Role, Watching
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
