"""Gradients that are exactly zero or not finite: of the actor, of some tensors, of a path.

Lost paths: values that depend on θ, move the loss, and have no gradient in θ.

A score-function loss loses the same paths and is sound: its sampled action, too, moves the
returns that weight log π. There the returns' weight in the loss, ∂L/∂(output), depends on θ,

    L = −E[log π(a) R(a)]:   ∂L/∂R = −log π        a pathwise loss, L = −E[R(a)]:   ∂L/∂R = −1

so outputs with such weights, and what leads to them, are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from gradlab.tools.audit.calls import JUDGES, Lost, Output, Role, closed
from gradlab.tools.audit.evaluation import Audited, LossEvaluation
from gradlab.tools.audit.findings import AuditFinding
from gradlab.tools.audit.gradients import Gradients, direct_weights, gradient, moves
from gradlab.tools.audit.tags import GradientCut
from gradlab.wording import listed

_Weighted = list[tuple[Output, Tensor]]

_REMEDY = {
    "discrete": "use a relaxed distribution, a straight-through estimate, or the score function",
    "detached": "leave the detach out",
    "no_grad": "compute it with gradients",
}
_INDEXED = ("Categorical", "OneHotCategorical", "Bernoulli", "torch.multinomial", "torch.bernoulli")


def _remedy(cut: GradientCut) -> str:
    """What to do about a cut."""
    if cut.how != "sampled":
        return _REMEDY[cut.how]
    discrete = cut.what.startswith(_INDEXED) or cut.what.startswith("OneHot")
    return _REMEDY["discrete"] if discrete else "use rsample, or mean + std * noise"


def _cause(cut: GradientCut) -> str:
    """How a value came to have no gradient, as the predicate of a sentence."""
    return {
        "sampled": f"is sampled without a path to θ ({cut.where})",
        "discrete": f"goes through a step that has no derivative ({cut.where})",
        "detached": f"is detached ({cut.where})",
        "no_grad": f"is computed without gradients ({cut.where})",
    }[cut.how]


def _lost_paths(evaluation: LossEvaluation) -> list[Lost]:
    """Where the loss moves with a value that has lost its gradient, once for each cut."""
    if not evaluation.calls.lost or not evaluation.loss.requires_grad:
        return []
    pathwise, scores = _split(evaluation)
    first: dict[GradientCut, Lost] = {}
    for lost in evaluation.calls.lost:
        assert lost.tag.cut is not None
        earlier = first.get(lost.tag.cut)
        if earlier is not None and not _is_state(earlier, evaluation):
            continue
        arrives = _enters(lost, pathwise) or _moves_the_loss(lost, evaluation)
        if arrives and not _enters(lost, scores):
            first[lost.tag.cut] = lost
    return list(first.values())


def _is_state(lost: Lost, evaluation: LossEvaluation) -> bool:
    """Whether a lost value is a state: of the model, or of a simulator that is not watched, beside
    an action that has its path. The policy gradient theorem needs no path through such a state."""
    if lost.tag.modelled:
        return True
    width = lost.value.shape[-1] if lost.value.ndim else 0
    return lost.beside and width not in evaluation.calls.widths


def _dead_roles(evaluation: LossEvaluation, losses: Sequence[Lost]) -> list[Role]:
    """Roles whose outputs move the loss, none of them with a gradient in θ; without those that a
    lost path explains."""
    if not evaluation.loss.requires_grad:
        return []
    pathwise, scores = _split(evaluation)
    dead = []
    for role in dict.fromkeys(output.role for output, _ in pathwise):
        outputs = [(output, weight) for output, weight in pathwise if output.role == role]
        scored = any(output.role == role for output, _ in scores)
        if scored or any(moves(g) for g in gradient(_together(outputs), evaluation.theta)):
            continue
        if not any(lost.role is None or _enters(lost, outputs) for lost in losses):
            dead.append(role)
    return dead


def surrogate_kind(evaluation: LossEvaluation) -> str:
    """What makes the gradient another one than the derivative, where the loss shows it; else ""."""
    if _split(evaluation)[1]:
        return "scored: values weigh log π of a sampled action"
    cuts = {lost.tag.cut for lost in evaluation.calls.lost} - {None}
    for cut in sorted(cuts, key=lambda each: each.where if each else ""):
        if cut is not None:
            return f"a value {_cause(cut)}"
    return "a value of θ is detached, sampled or rounded on its way" if evaluation.cut else ""


def _split(evaluation: LossEvaluation) -> tuple[_Weighted, _Weighted]:
    """Outputs of model and critic with their direct weights: fixed ones, and those of scores."""
    outputs = evaluation.calls.of("model", "critic")
    weights = direct_weights(evaluation.loss, outputs, evaluation.calls, again=True)
    fixed: _Weighted = []
    scores: _Weighted = []
    for output, weight in zip(outputs, weights, strict=True):
        if weight is not None and moves(weight):
            kind = scores if _depends(weight, evaluation) else fixed
            kind.append((output, weight.detach()))
    return fixed, scores


def _depends(weight: Tensor, evaluation: LossEvaluation) -> bool:
    """Whether a weight has a gradient in θ, other than through outputs of model and critic: those
    of a reward that is written in the loss, −s², change with the state."""
    # Fixed numbers of both signs, so that rows do not cancel.
    mixed = weight * torch.linspace(-1, 1.5, weight.numel()).to(weight).reshape(weight.shape)
    outlets = evaluation.calls.outlets
    with closed(*(outlets[role] for role in JUDGES if role in outlets)):
        try:
            return any(moves(g) for g in gradient(mixed.sum(), evaluation.theta))
        except RuntimeError:  # a custom derivative in the loss that has none of its own
            return False


def _together(outputs: _Weighted) -> Tensor:
    """Σ weight · output, whose gradient is that of the loss through these outputs."""
    parts = [(output.value * weight).sum().double() for output, weight in outputs]
    return torch.stack(parts).sum() if parts else torch.zeros(())


def _enters(lost: Lost, outputs: _Weighted) -> bool:
    """Whether a lost value moves these outputs."""
    return moves(gradient(_together(outputs), [lost.value])[0])


def _moves_the_loss(lost: Lost, evaluation: LossEvaluation) -> bool:
    """Whether the loss moves with what has entered no role, not as a score's weight: with what a
    discrete action has chosen among a critic's values."""
    if lost.role is not None:
        return False
    output = Output("critic", 0, 0, lost.value)
    weight = direct_weights(evaluation.loss, [output], evaluation.calls, again=True)[0]
    return weight is not None and moves(weight) and not _depends(weight, evaluation)


def _finding(lost: Lost, state: bool) -> AuditFinding:
    cut = lost.tag.cut
    assert cut is not None
    where = "" if lost.role is None else f" through the {lost.role}"
    into = "it goes on" if lost.role is None else f"it enters the {lost.role}"
    if state:
        text = (
            f"A state {_cause(cut)} before {into}: longer paths end there, as they should for "
            f"states that were visited; in a rollout it shortens the horizon of the gradient"
        )
        return AuditFinding("truncated", "note", text, path=lost.role, place=cut.place)
    text = (
        f"An action {_cause(cut)}, and the loss moves with it{where}: that part of the "
        f"actor's gradient is missing; {_remedy(cut)}"
    )
    drawn = cut.how in ("sampled", "discrete")
    kind = "not reparameterised" if drawn else "detached"
    return AuditFinding(kind, "wrong", text, path=lost.role, place=cut.place)  # type: ignore[arg-type]


_MOST = 3  # names in a sentence


def zero_findings(
    audited: Audited, evaluation: LossEvaluation, total: Gradients
) -> list[AuditFinding]:
    """What is dead, with its cause.

    Args:
        total: the gradient of the loss in θ.
    """
    losses, theta = _lost_paths(evaluation), audited.actor
    if not any(moves(g) for g in total):
        return [_dead_actor(evaluation, losses)]
    findings = [_finding(lost, _is_state(lost, evaluation)) for lost in losses]
    for role in _dead_roles(evaluation, losses):
        text = (
            f"The {role} moves the loss, but no input of it has a path to θ: the actor's gradient "
            f"through the {role} is exactly zero; hand it the actor's action, or leave the "
            f"term out, if it is the {role}'s own loss"
        )
        findings.append(AuditFinding("dead path", "wrong", text, path=role))
    # What only a lost path has moved is dead with it.
    if not any(finding.severity == "wrong" for finding in findings):
        findings += _dead_parameters(theta, total, audited.apart)
    pairs = zip(theta, total, strict=True)
    names = [name for name, g in pairs if g is not None and not bool(torch.isfinite(g).all())]
    if names:
        text = (
            f"The gradient of {listed(names, _MOST)} is not finite: look for a logarithm, root or "
            f"division at 0 (`gradlab.Probe` names the first such operation)"
        )
        findings.append(AuditFinding("not finite", "wrong", text, tuple(names)))
    return findings


def _dead_actor(evaluation: LossEvaluation, losses: Sequence[Lost]) -> AuditFinding:
    begin = "The actor's gradient is exactly zero"
    cuts = [lost.tag.cut for lost in losses] + [tag.cut for tag in evaluation.tags.values()]
    cut = next((x for x in cuts if x is not None), None)
    if cut is not None:
        text = f"{begin}: its action {_cause(cut)}; {_remedy(cut)}"
        return AuditFinding("dead actor", "wrong", text, place=cut.place)
    if not evaluation.tags:
        text = (
            f"{begin}: the loss does not depend on the actor; check that the loss calls this "
            f"actor, and that its action does not pass through NumPy"
        )
        return AuditFinding("dead actor", "wrong", text)
    text = (
        f"{begin}: there is a path to θ, along which a derivative is zero everywhere; look for a "
        f"clamp, a saturated tanh, or a rounding"
    )
    return AuditFinding("dead actor", "wrong", text)


def _dead_parameters(
    theta: Mapping[str, Tensor], total: Gradients, wanted: Collection[str]
) -> list[AuditFinding]:
    pairs = [(name, g) for name, g in zip(theta, total, strict=True) if name in wanted]
    apart = [name for name, g in pairs if g is None]
    zero = [name for name, g in pairs if g is not None and not moves(g)]
    findings = []
    if apart:
        text = (
            f"{_subject(apart)} of the actor gets no gradient: no path leads from the loss to it; "
            f"freeze what is meant to stay, or use it in the action"
        )
        findings.append(AuditFinding("dead parameter", "wrong", text, tuple(apart)))
    if zero:
        text = (
            f"{_subject(zero)} of the actor gets a gradient of exactly zero: look for a detach, a "
            f"clamp, or a layer behind it that passes nothing"
        )
        findings.append(AuditFinding("dead parameter", "wrong", text, tuple(zero)))
    # Of the last layer: outputs of the actor's with which the loss does not move.
    last = [(name, g) for name, g in pairs if g is not None and g.ndim == 2][-1:]
    for name, g in last:
        rows = [str(k) for k, row in enumerate(g) if not moves(row)]
        if rows and moves(g):
            text = (
                f"{'Row' if len(rows) == 1 else 'Rows'} {listed(rows, _MOST)} of {name} get a "
                f"gradient of exactly zero: the loss does not move with that output of the actor"
            )
            findings.append(AuditFinding("dead rows", "note", text, (name,)))
    return findings


def _subject(names: Sequence[str]) -> str:
    return f"{'Parameter' if len(names) == 1 else 'Each of'} {listed(names, _MOST)}"
