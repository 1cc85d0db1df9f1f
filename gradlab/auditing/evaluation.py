"""One evaluation of a user's loss that leaves no trace.

Buffers (running statistics), random generators and parameters' `grad` are afterwards as before;
every evaluation draws the same numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.auditing.arguments import Audited
from gradlab.auditing.calls import LossCalls, Watching
from gradlab.auditing.tags import Tag
from gradlab.errors import InputError
from gradlab.user_code.calls import running

WHOLE = "loss"  # the name of a term that is the loss


@dataclass(frozen=True)
class LossEvaluation:
    """
    Attributes:
        terms: scalars by name; their sum is the loss.
        tags: of the terms that depend on θ.
        theta: the actor's parameters that are trained.
    """

    terms: Mapping[str, Tensor]
    calls: LossCalls
    tags: Mapping[str, Tag]
    theta: Sequence[Tensor]

    @property
    def loss(self) -> Tensor:
        return torch.stack([term.reshape(()).double() for term in self.terms.values()]).sum()


def evaluated(audited: Audited, length: int | None = None) -> LossEvaluation:
    """The loss with its calls.

    Args:
        length: of the segment, handed to the loss as `length=`; None: not handed.

    Raises:
        InputError: the loss fails, or returns no scalar tensor.
    """
    more = {} if length is None else {"length": length}
    theta = list(audited.actor.values())
    watching = Watching(audited.owners, theta)
    with _unchanged(audited.modules), _seeded(audited.seed), running("loss"):
        with watching.over(audited.objects), torch.enable_grad():
            value = audited.loss(*audited.inputs, **more)
        terms = _terms(value)
    tags = {name: tag for name, x in terms.items() if (tag := watching.tags.of(x)) is not None}
    return LossEvaluation(terms, watching.calls, tags, theta)


def _terms(value: Any) -> dict[str, Tensor]:
    named = value if isinstance(value, Mapping) else {WHOLE: value}
    if not named:
        raise InputError("loss returns no term, expected a scalar tensor or a dict of them")
    for name, term in named.items():
        what = "loss returns" if named is not value else f"loss returns for {name!r}"
        if not isinstance(term, Tensor):
            raise InputError(f"{what} a {type(term).__name__}, expected a scalar tensor")
        if term.numel() != 1 or not term.is_floating_point():
            raise InputError(
                f"{what} a tensor of shape {tuple(term.shape)} and {term.dtype}, expected a scalar "
                f"of floats: end it with mean() or sum()"
            )
    return {str(name): term for name, term in named.items()}


@contextmanager
def differentiable(audited: Audited) -> Iterator[None]:
    """Inside, the graph of a loss is gone through; `grad` of the parameters is kept.

    Raises:
        InputError: the graph is gone, because the loss has called backward or a step.
    """
    parameters = [p for named in (audited.actor, *audited.others.values()) for p in named.values()]
    before = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in parameters]
    try:
        yield
    except RuntimeError as error:
        words = " ".join(str(error).split())[:120]
        raise InputError(
            f"loss cannot be differentiated ({words}): return it before any backward() or step()"
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
