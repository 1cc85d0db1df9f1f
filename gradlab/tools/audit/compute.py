"""`gradlab.audit`: one loss, its gradient in the actor by path, and what is wrong with it.

A last layer of zeros (as in Dreamer's and TD-MPC2's critics) passes no gradient on at the first
step: the loss is computed once more with such tensors moved, and what then has a gradient is no
dead path.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradlab import validation
from gradlab.tools.audit.checks import (
    AuditFinding,
    Kind,
    StepWeight,
    beside_a_score,
    scale_findings,
    scales,
    score_findings,
    surrogate_findings,
    surrogate_kind,
    value_findings,
    weighed,
    zero_findings,
)
from gradlab.tools.audit.evaluation import (
    REDRAWN,
    Audited,
    Differenced,
    Gradients,
    audited,
    by_path,
    by_step,
    differenced,
    differentiable,
    evaluated,
    gradient,
    moves,
    norms,
)
from gradlab.user_code import differentiating
from gradlab.wording import listed, percent, two

_WIDTH = 100  # columns
_ROWS = 14  # parameters, above which they are summed up by module
_TITLES = {
    "model": "model", "critic": "critic", "model and critic": "both", "neither": "neither",
}  # fmt: skip
_FOLDED: tuple[Kind, ...] = ("left behind", "dead rows")
_MARKS = {"wrong": "×", "note": "·"}

_Norms = Mapping[str, Mapping[str, Sequence[float]]]


def _filled(text: str, mark: str) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False
    )


def _table(parameters: Sequence[str], norms: _Norms) -> list[str]:
    """Norms of the gradient: a row for each parameter or module, a column for each path."""
    columns = {
        (term, path): values
        for term, paths in norms.items()
        for path, values in paths.items()
        if any(values) or len(norms) == 1
    }
    if not columns:
        return []
    groups = _groups(parameters)
    found: dict[str, list[str]] = {}
    for (term, path), values in columns.items():
        head = f"{term}: {_TITLES[path]}" if len(norms) > 1 else _TITLES[path]
        sizes = [sum(values[k] ** 2 for k in members) ** 0.5 for members in groups.values()]
        found[head] = ["0" if size == 0 else two(size) for size in sizes]
    frame = pd.DataFrame(found, index=list(groups))
    frame.columns.name = "gradient through"
    return frame.to_string(line_width=_WIDTH).split("\n")


def _groups(parameters: Sequence[str]) -> dict[str, list[int]]:
    """Parameters by name, or by as long a prefix as fits the screen."""
    for parts in (99, 3, 2, 1):
        groups: dict[str, list[int]] = {}
        for k, name in enumerate(parameters):
            pieces = name.split(".")
            short = ".".join(pieces[:parts]) + (".*" if len(pieces) > parts else "")
            groups.setdefault(short, []).append(k)
        if len(groups) <= _ROWS:
            return groups
    most = list(groups.items())
    rest = [k for _, members in most[_ROWS - 1 :] for k in members]
    return dict(most[: _ROWS - 1]) | {f"{len(most) - _ROWS + 1} more": rest}


def _leaks(audited: Audited, loss: Tensor, total: Gradients) -> list[AuditFinding]:
    """Gradients of the loss in model and critic, and what the actor's optimiser holds. `total`: the
    gradient of the loss in θ."""
    # One tensor in the actor and in another role, which gets a gradient.
    moved = [p for p, g in zip(audited.actor.values(), total, strict=True) if moves(g)]
    storages = {p.untyped_storage().data_ptr() for p in moved}
    findings = []
    for role, parameters in audited.others.items():
        names = [n for n, p in parameters.items() if p.untyped_storage().data_ptr() in storages]
        if names:
            text = (
                f"The actor shares {listed(names, _MOST)} with the {role}: its update changes the "
                f"{role}, too"
            )
            findings.append(AuditFinding("shared", "note", text, tuple(names), role))
    groups = [] if audited.optimizer is None else audited.optimizer.param_groups
    stepped = {id(p) for group in groups for p in group["params"]}
    actors = {id(p) for p in audited.actor.values()}
    for role, parameters in audited.others.items():
        apart = {name: p for name, p in parameters.items() if id(p) not in actors}
        gradients = gradient(loss, list(apart.values()))
        reached = [name for name, g in zip(apart, gradients, strict=True) if moves(g)]
        applied = [name for name in reached if id(apart[name]) in stepped]
        left = [name for name in reached if name not in applied]
        if applied:
            text = (
                f"The actor's optimiser holds {_count(applied)} of the {role} "
                f"({listed(applied, _MOST)}) that the actor's loss gives a gradient: its step "
                f"changes the {role} so that the actor's loss falls; leave them out of it"
            )
            findings.append(AuditFinding("leak", "wrong", text, tuple(applied), role))
        if left:
            text = (
                f"The actor's loss leaves gradients in {_count(left)} of the {role}, which the "
                f"actor's optimiser does not clear: zero them before the {role}'s own backward "
                f"pass, or freeze the {role} during the actor's"
            )
            findings.append(AuditFinding("left behind", "note", text, tuple(left), role))
    if audited.optimizer is not None:
        named = zip(audited.actor.items(), total, strict=True)
        missed = [name for (name, p), g in named if moves(g) and id(p) not in stepped]
        if missed:
            text = (
                f"The actor's optimiser does not hold {listed(missed, _MOST)}: the gradient there "
                f"is never applied; give the optimiser all of the actor's parameters"
            )
            findings.append(AuditFinding("not stepped", "wrong", text, tuple(missed)))
    return findings


def _count(names: Sequence[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


_MOVE = 0.01
_MOST = 3  # names in a sentence
_DEAD: tuple[Kind, ...] = ("dead actor", "dead path", "dead parameter")


def _without_zero_layers(
    findings: Sequence[AuditFinding], audited: Audited, length: int | None
) -> list[AuditFinding]:
    """The findings at moved parameters, where tensors of zeros explain those given."""
    # Weights alone: biases often are zero and stop nothing.
    roles = {"actor": audited.actor, **audited.others}
    zero = {
        f"{role}'s {name}": p
        for role, parameters in roles.items()
        for name, p in parameters.items()
        if p.ndim > 1 and not bool(p.detach().any())
    }
    if not zero or not any(finding.kind in _DEAD for finding in findings):
        return list(findings)
    generator = torch.Generator().manual_seed(0)
    try:
        for x in zero.values():
            x.data.copy_(_MOVE * torch.randn(x.shape, generator=generator))
        evaluation = evaluated(audited, length)
        total = gradient(evaluation.loss, evaluation.theta)
        again = zero_findings(audited, evaluation, total)
    finally:
        for x in zero.values():
            x.data.zero_()
    if {finding.sentence for finding in again} == {finding.sentence for finding in findings}:
        return list(findings)
    text = (
        f"Some gradients are zero only because a layer is: {listed(list(zero), _MOST)}; they come "
        f"as soon as it moves"
    )
    return [*again, AuditFinding("zero layer", "note", text, tuple(zero))]


_Modules = nn.Module | object


@dataclass(frozen=True)
class Audit:
    """What an actor loss does to the actor.

    Attributes:
        findings: what is wrong, then what is to be noted.
        parameters: names of the actor's trained tensors.
        norms: Euclidean norm of ∂(term)/∂(parameter) by term, path and parameter; paths are
            "model", "critic", "model and critic" and "neither" (log π, entropy, action costs).
        scales: weights of one step at two lengths; empty where `lengths` was not given.
        derivative: the gradient beside differences of the loss; None where it is wrong already,
            or was not compared.
        surrogate: why it is that of a surrogate, as far as the loss shows it.
    """

    findings: tuple[AuditFinding, ...]
    parameters: tuple[str, ...]
    norms: Mapping[str, Mapping[str, Sequence[float]]]
    scales: tuple[StepWeight, ...] = ()
    derivative: Differenced | None = None
    surrogate: str = ""

    @property
    def passed(self) -> bool:
        """No finding is "wrong"."""
        return not any(finding.severity == "wrong" for finding in self.findings)

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(finding.sentence for finding in self.findings)

    def table(self) -> pd.DataFrame:
        """One row for each term, path and parameter: `norm`, in units of loss per parameter."""
        rows = [
            {"term": term, "path": path, "parameter": name, "norm": norm}
            for term, paths in self.norms.items()
            for path, values in paths.items()
            for name, norm in zip(self.parameters, values, strict=True)
        ]
        return pd.DataFrame(rows, columns=["term", "path", "parameter", "norm"])

    def __str__(self) -> str:
        # What many sound losses do is left to `findings`.
        shown = tuple(each for each in self.findings if each.kind not in _FOLDED)
        wrong = sum(each.severity == "wrong" for each in shown)
        faults = "a fault" if wrong == 1 else f"{wrong} faults"
        verdict = f"Fix the actor's loss first: it has {faults}."
        if not wrong:
            verdict = "Keep this loss: no fault was found in the actor's gradient."
            if any(each.kind == "own draws" for each in shown):
                verdict = "Keep this loss: no fault was found, as far as it could be compared."
            if self.derivative is not None and self.derivative.surrogate:
                why = self.surrogate or "it has a backward pass of its own"
                verdict = (
                    f"Keep this loss if its surrogate is meant ({why}): about "
                    f"{percent(self.derivative.missing)} of its derivative is not in the gradient, "
                    f"by differences{self.derivative.words}."
                )
            verdict = _filled(verdict, "")
        marked = [_filled(f"{each.sentence}.", f"{_MARKS[each.severity]} ") for each in shown]
        parts = [verdict, *marked, "", *_table(self.parameters, self.norms)]
        if self.scales:
            words = "; ".join(dict.fromkeys(scale.words for scale in self.scales))
            parts += ["", _filled(f"One step's weight at the longer segment: {words}.", "")]
        return "\n".join(parts)


@differentiating
def audit(
    loss: Callable[..., Any],
    actor: _Modules,
    critic: _Modules | None = None,
    model: _Modules | None = None,
    *,
    inputs: Any = (),
    optimizer: Optimizer | None = None,
    lengths: tuple[int, int] | None = None,
    directions: int = 3,
    surrogate: bool = False,
    seed: int = 0,
) -> Audit:
    """Audit an actor loss: which parameters get gradient through which path, and what is lost.

    The loss is evaluated once, once more for the second length and for parameters whose gradient is
    exactly zero, and six times for each direction. Parameters, their `grad`, buffers and random
    generators are restored; an environment that the loss steps is not.

    Args:
        loss: loss(*inputs) → a scalar tensor, or named terms whose sum is the loss.
        actor: a module, or several in a list or dict.
        critic, model: modules, or objects whose methods the loss calls (an environment, a System);
            one, or several in a list or dict.
        inputs: of the loss: a batch, or a tuple of positional arguments.
        optimizer: the actor's; None: what its step moves is not checked.
        lengths: two lengths of a segment, as (8, 16), which the loss takes as `length=`, to compare
            the weights of one step. None: not compared.
        directions: random ones in θ, along which the loss is differenced, as along its gradient; 0:
            not at all.
        surrogate: the gradient is meant to differ from the derivative (straight-through, decayed):
            what is missing is a note.
        seed: of every random draw in the loss.

    Raises:
        InputError: an argument is of the wrong type, or the loss fails or is no scalar.
    """
    given = audited(loss, actor, critic, model, inputs, optimizer, lengths, seed)
    validation.whole("directions", directions)
    validation.flag("surrogate", surrogate)
    with differentiable(given):
        return _audit(given, directions, surrogate)


def _audit(given: Audited, directions: int, surrogate: bool) -> Audit:
    first = None if given.lengths is None else given.lengths[0]
    evaluation = evaluated(given, first)
    total = gradient(evaluation.loss, evaluation.theta)
    findings = zero_findings(given, evaluation, total)
    if evaluation.calls.densities:
        redrawn = evaluated(replace(given, seed=given.seed + 1), first)
        findings = score_findings(weighed(evaluation, redrawn), findings)
        findings = beside_a_score(evaluation, findings)
    findings = _without_zero_layers(findings, given, first)
    if all(finding.kind == "dead path" and finding.severity == "note" for finding in findings):
        findings += value_findings(given, evaluation, total, first)
    findings += _leaks(given, evaluation.loss, total)
    compared: list[StepWeight] = []
    if given.lengths is not None:
        short, long = given.lengths
        compared = scales(evaluation, evaluated(given, long), long / short)
        findings += scale_findings(compared, given.lengths)
    found, kind = None, ""
    if directions and not any(finding.severity == "wrong" for finding in findings):
        found = differenced(given, total, directions, first)
        if found is REDRAWN:
            found = None
            text = (
                "The loss has another value at each call although every random stream begins "
                "alike: it draws from a generator of its own, or moves on, and its gradient could "
                "not be compared with differences; hand it the draws as inputs"
            )
            findings.append(AuditFinding("own draws", "note", text))
        if found is not None and found.surrogate:
            found = replace(found, steps=by_step(given, evaluation, first))
        kind = surrogate_kind(evaluation)
        findings += surrogate_findings(found, bool(kind), surrogate)
    return Audit(
        tuple(sorted(findings, key=lambda finding: finding.severity, reverse=True)),
        tuple(given.actor),
        {
            name: norms(by_path(term, evaluation.theta, evaluation.calls))
            for name, term in evaluation.terms.items()
        },
        tuple(compared),
        found,
        kind,
    )
