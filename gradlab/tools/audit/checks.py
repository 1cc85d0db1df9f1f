"""Findings of an audit: dead and lost paths, idle scores, uneven weights, surrogates.

A lost path is a value that depends on θ, moves the loss and has no gradient in θ. A score-function
loss loses the same paths and is sound: there ∂L/∂(output) depends on θ,

    L = −E[log π(a) R(a)]:   ∂L/∂R = −log π        pathwise, L = −E[R(a)]:   ∂L/∂R = −1

A term w log π(a) is judged by w = ∂L/∂log π at two draws of all noise, since E[w ∇_θ log π(a)] = 0
for every w that does not depend on a: an entropy of a detached action has no gradient but noise.

One step of a segment weighs w = ∂L/∂(output) of the first step; w(k L) / w(L) = kᵉ, e = 0 summed,
e = −1 averaged: without sampling error, since that step has the same state and noise at both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gradlab.tools.audit.calls import JUDGES, Density, Lost, Output, Role, closed
from gradlab.tools.audit.evaluation import (
    WHOLE,
    Audited,
    Differenced,
    Gradients,
    LossEvaluation,
    direct_weights,
    evaluated,
    gradient,
    moves,
)
from gradlab.tools.audit.tags import GradientCut
from gradlab.wording import listed, percent, two

Kind = Literal[
    "dead actor", "dead path", "dead parameter", "not reparameterised", "detached", "truncated",
    "leak", "left behind", "not stepped", "shared", "scale", "not finite", "zero layer",
    "surrogate", "idle score", "own draws", "dead rows",
]  # fmt: skip


@dataclass(frozen=True)
class AuditFinding:
    """
    Attributes:
        severity: "wrong": the gradient is not that of the loss, or is applied where it should not
            be; "note": right, if it is meant.
        parameters: names of parameters that it is about.
        path: "model", "critic", or None.
        place: file and line of the cause, or "".
    """

    kind: Kind
    severity: Literal["wrong", "note"]
    sentence: str
    parameters: tuple[str, ...] = ()
    path: str | None = None
    place: str = ""


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
    """One scale for each term and role that has a weight at both lengths. `factor`: of the
    lengths."""
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


def surrogate_findings(
    found: Differenced | None, explained: bool, declared: bool
) -> Iterator[AuditFinding]:
    """A gradient that is another one than the derivative, where nothing that the loss says
    explains it.

    Args:
        explained: a value on the way to the loss is sampled, detached or scored.
        declared: the caller says that it is a surrogate.
    """
    if found is None or not found.surrogate or (explained and not declared):
        return
    text = (
        f"The gradient is not the derivative of the loss: about {percent(found.missing)} of it is "
        f"missing or added, and along the gradient the loss changes {found.change:.2g} times as "
        f"much as it says{found.words}"
    )
    if not declared:
        text += (
            "; nothing is detached on the way: look for a backward pass of its own, a hook, or a "
            "straight-through estimate, and declare it by surrogate=True if it is meant"
        )
    yield AuditFinding("surrogate", "note" if declared else "wrong", text)


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
    """What is dead, with its cause. `total`: the gradient of the loss in θ."""
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
    """Roles whose values of the actor's actions are in the loss and not in its gradient. `total`:
    the gradient of the loss in θ."""
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
        w is not None and bool((w > 0).any()) and bool((w < 0).any())
        for w in _score_weights(evaluation)
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
    """The log-densities of actions that depend on θ and that the loss moves with. `here, there`:
    the loss at two draws of its noise."""
    one, other = (_score_weights(each) for each in (here, there))
    pairs = zip(here.calls.densities, one, other, strict=False)
    return [
        _Weighed(
            density,
            w.shape != again.shape or bool((w - again).abs().max() > _SAME * w.abs().max()),
        )
        for density, w, again in pairs
        if density.action is not None and w is not None and again is not None and bool(w.any())
    ]


def _score_weights(evaluation: LossEvaluation) -> list[Tensor | None]:
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
