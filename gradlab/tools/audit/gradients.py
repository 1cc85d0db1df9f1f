"""Gradients by path: sums of the products of derivatives along some paths of the graph alone.

    g(C)      the gradient with the outlets of the roles C closed: paths through none of them
    neither = g({model, critic})            model = g({critic}) − neither
    critic  = g({model}) − neither          both  = g({}) − model − critic − neither

What is left of a difference by rounding is zero.

How one step of a segment weighs in the loss at two lengths, L and k L.

    w = ∂L/∂(output) of the first step, everything fixed that is computed from it
    w(k L) / w(L) = kᵉ        e = 0: summed over the segment, e = −1: averaged

Rewards are weighed at the model's outputs, log π and entropy at the actor's. Where the exponents
differ, the balance of the two depends on the length of the segment. The first step has the same
state and noise at both lengths, and no discount: the ratio has no sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.tools.audit.calls import JUDGES, LossCalls, Output, Role, closed
from gradlab.tools.audit.evaluation import WHOLE, LossEvaluation
from gradlab.tools.audit.findings import AuditFinding
from gradlab.wording import two

_NEITHER, BOTH = "neither", "model and critic"
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
        return {_NEITHER: total}
    neither = _without(term, theta, calls, roles)
    if len(roles) == 1:
        return {roles[0]: _less(total, [neither]), _NEITHER: neither}
    without = {role: _without(term, theta, calls, [role]) for role in roles}
    model = _less(without["critic"], [neither])
    critic = _less(without["model"], [neither])
    both = _less(total, [model, critic, neither])
    return {"model": model, "critic": critic, BOTH: both, _NEITHER: neither}


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


_APART = 0.5  # of the exponents: half way between a sum and a mean


@dataclass(frozen=True)
class StepWeight:
    """How one step weighs.

    Attributes:
        term: its name, or "loss". role: whose output it is weighed at.
        ratio: of the weights, at the longer segment over the shorter one.
        exponent: of the ratio of lengths; 0: summed, −1: averaged.
    """

    term: str
    role: Role
    ratio: float
    exponent: float

    @property
    def words(self) -> str:
        what = "a reward" if self.role == "model" else "log π or entropy"
        name = what if self.term == WHOLE else f"{self.term!r}"
        rule = {0: "summed", -1: "averaged"}.get(round(self.exponent))
        how = f"scaled by the length to the {two(self.exponent)}" if rule is None else rule
        return f"{name} is {how} (×{two(self.ratio)})"


def scales(short: LossEvaluation, long: LossEvaluation, factor: float) -> list[StepWeight]:
    """One scale for each term and role that has a weight at both lengths.

    Args:
        factor: of the lengths.
    """
    ratios = []
    for term in short.terms:
        if term not in long.terms:
            continue
        for role in ("model", "actor"):
            one, other = (_weights(evaluation, term, role) for evaluation in (short, long))
            ratio = _ratio(one, other)
            if ratio is not None:
                ratios.append(StepWeight(term, role, ratio, math.log(ratio) / math.log(factor)))
        # What the loss has from parameters alone, as the entropy of a free log σ, it has once.
        sizes = []
        for evaluation in (short, long):
            with closed(*evaluation.calls.outlets.values()):
                values = gradient(evaluation.terms[term], evaluation.theta)
            squares = (float(g.double().square().sum()) for g in values if g is not None)
            sizes.append(math.sqrt(sum(squares)))
        if all(sizes):
            ratio = sizes[1] / sizes[0] / factor
            ratios.append(StepWeight(term, "actor", ratio, math.log(ratio) / math.log(factor)))
    return ratios


def scale_findings(ratios: Sequence[StepWeight], lengths: tuple[int, int]) -> list[AuditFinding]:
    """Terms that do not scale alike."""
    rewards = [scale for scale in ratios if scale.role == "model"]
    if not rewards:
        return []
    apart = [s for s in ratios if abs(s.exponent - rewards[0].exponent) > _APART]
    if not apart:
        return []
    others = "; ".join(dict.fromkeys(scale.words for scale in apart))
    text = (
        f"From a segment of {lengths[0]} steps to one of {lengths[1]}, one step's weight in the "
        f"loss changes unevenly: {rewards[0].words}, but {others}. Their balance depends on the "
        f"length: sum both, or average both"
    )
    return [AuditFinding("scale", "wrong", text)]


def _weights(evaluation: LossEvaluation, term: str, role: Role) -> list[tuple[Output, Tensor]]:
    """Outputs of a role that have a direct weight in a term, and the weights."""
    outputs = evaluation.calls.of(role)
    weights = direct_weights(evaluation.terms[term], outputs, evaluation.calls)
    pairs = zip(outputs, weights, strict=True)
    return [(output, w) for output, w in pairs if w is not None and moves(w)]


def _ratio(short: list[tuple[Output, Tensor]], long: list[tuple[Output, Tensor]]) -> float | None:
    """Of the first call that has a weight; of its first entry where all steps are one call."""
    if not short or not long:
        return None
    one, other = short[0][1].double(), long[0][1].double()
    if one.shape == other.shape:
        return float(other.abs().sum() / one.abs().sum())
    first = float(one.flatten()[0].abs()), float(other.flatten()[0].abs())
    if not all(first):
        first = float(one.abs().max()), float(other.abs().max())
    return first[1] / first[0]
