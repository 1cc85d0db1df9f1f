"""Where the actor's loss leaves gradients beside the actor, and which of them are applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from gradlab.auditing.arguments import Audited
from gradlab.auditing.calls import Role
from gradlab.auditing.findings import Finding
from gradlab.auditing.gradients import Gradients, gradient, moves
from gradlab.wording import listed

MOST = 3  # names in a sentence


def leaks(audited: Audited, loss: Tensor, total: Gradients) -> list[Finding]:
    """Gradients of the loss in model and critic, and what the actor's optimiser holds.

    Args:
        total: the gradient of the loss in θ.
    """
    findings = _shared(audited, total)
    for role, parameters in audited.others.items():
        actors = {id(p) for p in audited.actor.values()}
        apart = {name: p for name, p in parameters.items() if id(p) not in actors}
        gradients = gradient(loss, list(apart.values()))
        reached = [name for name, g in zip(apart, gradients, strict=True) if moves(g)]
        findings += _reached(role, apart, reached, audited)
    return findings + _not_stepped(audited, total)


def _shared(audited: Audited, total: Gradients) -> list[Finding]:
    """One tensor in the actor and in another role, which gets a gradient."""
    pairs = zip(audited.actor.values(), total, strict=True)
    storages = {p.untyped_storage().data_ptr() for p, g in pairs if moves(g)}
    findings = []
    for role, parameters in audited.others.items():
        names = [n for n, p in parameters.items() if p.untyped_storage().data_ptr() in storages]
        if names:
            text = (
                f"The actor shares {listed(names, MOST)} with the {role}: its update changes the "
                f"{role}, too"
            )
            findings.append(Finding("shared", "note", text, tuple(names), role))
    return findings


def _reached(
    role: Role, parameters: Mapping[str, Tensor], reached: Sequence[str], audited: Audited
) -> list[Finding]:
    stepped = {id(p) for p in _held(audited)}
    applied = [name for name in reached if id(parameters[name]) in stepped]
    left = [name for name in reached if name not in applied]
    findings = []
    if applied:
        text = (
            f"The actor's optimiser holds {_count(applied)} of the {role} "
            f"({listed(applied, MOST)}) that the actor's loss gives a gradient: its step "
            f"changes the {role} so that the actor's loss falls; leave them out of that optimiser"
        )
        findings.append(Finding("leak", "wrong", text, tuple(applied), role))
    if left:
        text = (
            f"The actor's loss leaves gradients in {_count(left)} of the {role}, which the actor's "
            f"optimiser does not clear: zero them before the {role}'s own backward pass, or freeze "
            f"the {role} during the actor's"
        )
        findings.append(Finding("left behind", "note", text, tuple(left), role))
    return findings


def _not_stepped(audited: Audited, total: Gradients) -> list[Finding]:
    """Parameters of the actor that get a gradient which no step applies."""
    if audited.optimizer is None:
        return []
    stepped = {id(p) for p in _held(audited)}
    names = [
        name
        for (name, p), g in zip(audited.actor.items(), total, strict=True)
        if moves(g) and id(p) not in stepped
    ]
    if not names:
        return []
    text = (
        f"The actor's optimiser does not hold {listed(names, MOST)}: the gradient there is never "
        f"applied; give the optimiser all of the actor's parameters"
    )
    return [Finding("not stepped", "wrong", text, tuple(names))]


def _held(audited: Audited) -> list[Tensor]:
    groups = [] if audited.optimizer is None else audited.optimizer.param_groups
    return [p for group in groups for p in group["params"]]


def _count(names: Sequence[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
