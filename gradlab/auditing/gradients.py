"""Gradients by path: sums of the products of derivatives along some paths of the graph alone.

    g(C)      the gradient with the outlets of the roles C closed: paths through none of them
    neither = g({model, critic})            model = g({critic}) − neither
    critic  = g({model}) − neither          both  = g({}) − model − critic − neither

What is left of a difference by rounding is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradlab.auditing.calls import JUDGES, LossCalls, Output, Role, closed

NEITHER, BOTH = "neither", "model and critic"
_ROUNDING = 16  # units in the last place of what was subtracted

Gradients = list[Tensor | None]


def gradient(
    value: Tensor, variables: Sequence[Tensor], weight: Tensor | None = None, again: bool = False
) -> Gradients:
    """∂value/∂variables; None where no path leads to a variable.

    Args:
        weight: of the entries of `value`. again: the result can be differentiated.
    """
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
        return {NEITHER: total}
    neither = _without(term, theta, calls, roles)
    if len(roles) == 1:
        return {roles[0]: _less(total, [neither]), NEITHER: neither}
    without = {role: _without(term, theta, calls, [role]) for role in roles}
    model = _less(without["critic"], [neither])
    critic = _less(without["model"], [neither])
    both = _less(total, [model, critic, neither])
    return {"model": model, "critic": critic, BOTH: both, NEITHER: neither}


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
        results.append(torch.where(rest.abs() <= _ROUNDING * unit, 0.0, rest))
    return results


def direct_weights(
    term: Tensor, outputs: Sequence[Output], calls: LossCalls, again: bool = False
) -> Gradients:
    """∂term/∂output with everything fixed that actor, model and critic compute from it.

    Args:
        again: the weights can be differentiated in θ.
    """
    with closed(*calls.inlets.values()):
        return gradient(term, [output.value for output in outputs], again=again)


def moves(g: Tensor | None) -> bool:
    """A gradient that is not exactly zero."""
    return g is not None and bool((g != 0).any())


def norms(paths: Mapping[str, Sequence[Tensor]]) -> dict[str, list[float]]:
    """Euclidean norm of every parameter's gradient, by path."""
    return {path: [float(g.double().norm()) for g in values] for path, values in paths.items()}
