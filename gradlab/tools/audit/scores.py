"""What a loss has of model and critic and of log π, by second estimates.

A loss that moves when the values of a role are raised, while its gradient in θ does not, has lost
them: a pathwise gradient is linear in them, and so is a score's.

Terms w log π(a), by a second estimate of their weights:

    E[w ∇_θ log π(a)] = 0     for every w that does not depend on a

w = ∂L/∂log π is taken at two draws of all noise. Where the action is detached or sampled and w is
the same at both, the term has no gradient but noise: an entropy that was meant is missing (its
action has to be reparameterised). Where the action is alive and w is another at the other draw, the
path through the action and the score are both followed, and cancel in a location: such a score
wants the action detached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab.tools.audit.calls import JUDGES, Density, closed
from gradlab.tools.audit.evaluation import Audited, LossEvaluation, evaluated
from gradlab.tools.audit.findings import AuditFinding
from gradlab.tools.audit.gradients import Gradients, gradient
from gradlab.wording import listed

_CUTS = ("not reparameterised", "detached", "dead actor")
_MOVES = 1e-6  # of the loss, by more than which it does
_SAME = 1e-4  # of the weights' size, by which two draws differ in rounding alone


@dataclass(frozen=True)
class _Weighed:
    """A log-density of the loss; `redrawn`: is its weight another at another draw?"""

    density: Density
    redrawn: bool


def value_findings(
    audited: Audited, here: LossEvaluation, total: Gradients, length: int | None
) -> list[AuditFinding]:
    """Roles whose values of the actor's actions are in the loss and not in its gradient.

    Args:
        total: the gradient of the loss in θ.
    """
    found = []
    for role in JUDGES:
        if not here.calls.counts.get(role):
            continue
        with closed(here.calls.outlets[role]):
            apart = gradient(here.loss, here.theta)
        if not all(x is y or (x is not None and y is not None and torch.equal(x, y))
                   for x, y in zip(total, apart, strict=True)):  # fmt: skip
            continue  # a part of the gradient comes through it
        raised = evaluated(audited, length, role)
        by = float((raised.loss - here.loss).detach().abs())
        again = gradient(raised.loss, raised.theta)
        pairs = [(g, h) for g, h in zip(total, again, strict=True) if g is not None is not h]
        moved = not all(torch.equal(g, h) for g, h in pairs)  # nothing but these values did
        if by > _MOVES * float(here.loss.detach().abs()) and not moved:
            text = (
                f"The loss moves with the {role}'s values of the actor's actions, and its gradient "
                f"in the actor does not: all of that part is missing; leave out the detach or "
                f"no_grad between {role} and loss"
            )
            found.append(AuditFinding("detached", "wrong", text, path=role))
    return found


def beside_a_score(
    evaluation: LossEvaluation, findings: Sequence[AuditFinding]
) -> list[AuditFinding]:
    """The findings, with a critic apart from θ as a note where advantages, numbers of both signs,
    weigh log π: PPO's value loss stands in one sum with its surrogate."""
    signed = any(
        w is not None and bool((w > 0).any()) and bool((w < 0).any()) for w in _weights(evaluation)
    )
    text = (
        "The critic moves the loss apart from the actor, beside a score: right if that is its own "
        "loss"
    )
    return [
        replace(each, severity="note", sentence=text)
        if signed and each.kind == "dead path" and each.path == "critic" else each
        for each in findings
    ]  # fmt: skip


def weighed(here: LossEvaluation, there: LossEvaluation) -> list[_Weighed]:
    """The log-densities of actions that depend on θ and that the loss moves with.

    Args:
        here, there: the loss at two draws of its noise.
    """
    one, other = (_weights(each) for each in (here, there))
    pairs = zip(here.calls.densities, one, other, strict=False)
    return [
        _Weighed(
            density,
            w.shape != again.shape or bool((w - again).abs().max() > _SAME * w.abs().max()),
        )
        for density, w, again in pairs
        if density.action is not None and w is not None and again is not None and bool(w.any())
    ]


def _weights(evaluation: LossEvaluation) -> list[Tensor | None]:
    values = [density.value for density in evaluation.calls.densities]
    if not evaluation.loss.requires_grad:
        return [None] * len(values)
    return list(torch.autograd.grad(evaluation.loss, values, retain_graph=True, allow_unused=True))


def score_findings(
    scored: Sequence[_Weighed], findings: Sequence[AuditFinding]
) -> list[AuditFinding]:
    """The findings of a loss with scores that weigh nothing, and with the cause of parameters that
    a score leaves at exactly zero."""
    found, rest = [], list(findings)
    cut = any(finding.kind in _CUTS for finding in findings)  # which is said of the action already
    for each in () if cut else scored:
        tag, at = each.density.action, each.density.place
        where = f" ({at})" if at else ""
        if tag is not None and tag.cut is not None and not each.redrawn:
            text = (
                f"log π of an action without a path to θ{where} has a weight that does not depend "
                f"on the action, so that its gradient is 0 on average, and noise: an entropy wants "
                f"the reparameterised action there ({tag.cut.where} cut it)"
            )
            found.append(AuditFinding("idle score", "wrong", text, place=at))
    dead = [k for k, finding in enumerate(findings) if finding.kind == "dead parameter"]
    alive = [x for x in scored if x.density.action and not x.density.action.cut and x.redrawn]
    if dead and alive:
        at, names = alive[0].density.place, findings[dead[0]].parameters
        text = (
            f"log π of a reparameterised action ({at}) is weighed by a value of that action: the "
            f"path through the action cancels the score in {listed(names, 3)}; "
            f"detach the action there, or sample it"
        )
        rest[dead[0]] = AuditFinding("idle score", "wrong", text, names, place=at)
    return [*found, *rest]
