"""Gradients that are exactly zero or not finite: of the actor, of some tensors, of a path."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from gradlab.auditing.arguments import Audited
from gradlab.auditing.calls import Lost, Role
from gradlab.auditing.evaluation import Evaluation
from gradlab.auditing.findings import Finding
from gradlab.auditing.gradients import Gradients, moves
from gradlab.auditing.lost import cause, dead_roles, lost_findings, lost_paths, remedy
from gradlab.wording import listed

MOST = 3  # names in a sentence


def zero_findings(audited: Audited, evaluation: Evaluation, total: Gradients) -> list[Finding]:
    """What is dead, with its cause.

    Args:
        total: the gradient of the loss in θ.
    """
    losses, theta = lost_paths(evaluation), audited.actor
    if not any(moves(g) for g in total):
        return [_dead_actor(evaluation, losses)]
    findings = [
        *lost_findings(losses, evaluation),
        *map(_dead_path, dead_roles(evaluation, losses)),
    ]
    # What only a lost path has moved is dead with it.
    if not any(finding.severity == "wrong" for finding in findings):
        findings += _dead_parameters(theta, total, audited.apart)
    return findings + _not_finite(theta, total)


def _dead_path(role: Role) -> Finding:
    text = (
        f"The {role} moves the loss, but no input of it has a path to θ: the actor's gradient "
        f"through the {role} is exactly zero; hand it the actor's action, or leave the "
        f"term out, if it is the {role}'s own loss"
    )
    return Finding("dead path", "wrong", text, path=role)


def _dead_actor(evaluation: Evaluation, losses: Sequence[Lost]) -> Finding:
    begin = "The actor's gradient is exactly zero"
    cuts = [lost.tag.cut for lost in losses] + [tag.cut for tag in evaluation.tags.values()]
    cut = next((x for x in cuts if x is not None), None)
    if cut is not None:
        text = f"{begin}: its action {cause(cut)}; {remedy(cut)}"
        return Finding("dead actor", "wrong", text, place=cut.place)
    if not evaluation.tags:
        text = (
            f"{begin}: the loss does not depend on the actor; check that the loss calls this "
            f"actor, and that its action does not pass through NumPy"
        )
        return Finding("dead actor", "wrong", text)
    text = (
        f"{begin}: there is a path to θ, along which a derivative is zero everywhere; look for a "
        f"clamp, a saturated tanh, or a rounding"
    )
    return Finding("dead actor", "wrong", text)


def _not_finite(theta: Mapping[str, Tensor], total: Gradients) -> list[Finding]:
    names = [
        name
        for name, g in zip(theta, total, strict=True)
        if g is not None and not bool(torch.isfinite(g).all())
    ]
    if not names:
        return []
    text = (
        f"The gradient of {listed(names, MOST)} is not finite: look for a logarithm, root or "
        f"division at 0 (`gradlab.Probe` names the first such operation)"
    )
    return [Finding("not finite", "wrong", text, tuple(names))]


def _dead_parameters(
    theta: Mapping[str, Tensor], total: Gradients, wanted: Collection[str]
) -> list[Finding]:
    pairs = [(name, g) for name, g in zip(theta, total, strict=True) if name in wanted]
    apart = [name for name, g in pairs if g is None]
    zero = [name for name, g in pairs if g is not None and not moves(g)]
    findings = []
    if apart:
        text = (
            f"{_subject(apart)} of the actor gets no gradient: no path leads from the loss to it; "
            f"freeze what is meant to stay, or use it in the action"
        )
        findings.append(Finding("dead parameter", "wrong", text, tuple(apart)))
    if zero:
        text = (
            f"{_subject(zero)} of the actor gets a gradient of exactly zero: look for a detach, a "
            f"clamp, or a layer behind it that passes nothing"
        )
        findings.append(Finding("dead parameter", "wrong", text, tuple(zero)))
    return findings


def _subject(names: Sequence[str]) -> str:
    return f"{'Parameter' if len(names) == 1 else 'Each of'} {listed(names, MOST)}"
