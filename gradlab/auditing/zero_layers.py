"""Gradients that are zero because a layer is: at the first step of a training, not later.

A last layer of zeros (as in Dreamer's and TD-MPC2's critics) passes no gradient on. The loss is
computed once more with such tensors moved; what has a gradient there is no dead path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from gradlab.auditing.arguments import Audited
from gradlab.auditing.evaluation import evaluated
from gradlab.auditing.findings import Finding, Kind
from gradlab.auditing.gradients import gradient
from gradlab.auditing.zeros import zero_findings
from gradlab.wording import listed

MOVE = 0.01
MOST = 3  # names in a sentence
_DEAD: tuple[Kind, ...] = ("dead actor", "dead path", "dead parameter")


def without_zero_layers(
    findings: Sequence[Finding], audited: Audited, length: int | None
) -> list[Finding]:
    """The findings at moved parameters, where tensors of zeros explain those given."""
    zero = _zero_tensors(audited)
    if not zero or not any(finding.kind in _DEAD for finding in findings):
        return list(findings)
    with _moved(list(zero.values())):
        evaluation = evaluated(audited, length)
        total = gradient(evaluation.loss, evaluation.theta)
        again = zero_findings(audited, evaluation, total)
    if {finding.sentence for finding in again} == {finding.sentence for finding in findings}:
        return list(findings)
    text = (
        f"Some gradients are zero only because a layer is: {listed(list(zero), MOST)}; they come "
        f"as soon as it moves"
    )
    return [*again, Finding("zero layer", "note", text, tuple(zero))]


def _zero_tensors(audited: Audited) -> dict[str, Tensor]:
    """Weights that are zero; biases often are and stop nothing."""
    roles = {"actor": audited.actor, **audited.others}
    return {
        f"{role}'s {name}": p
        for role, parameters in roles.items()
        for name, p in parameters.items()
        if p.ndim > 1 and not bool(p.detach().any())
    }


@contextmanager
def _moved(tensors: Sequence[Tensor]) -> Iterator[None]:
    generator = torch.Generator().manual_seed(0)
    try:
        for x in tensors:
            x.data.copy_(MOVE * torch.randn(x.shape, generator=generator))
        yield
    finally:
        for x in tensors:
            x.data.zero_()
