"""Where a number left the finite ones first: the operation, the module, the sample.

In this order: a parameter or an input that is not finite itself; the declared losses, called again
on the last batch, each operation watched; a batch of one row; the gradient that the loss has sent
to a critic or to the policy; the policy's last passes, made again on a copy in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.findings import Finding
from gradlab.losses.finite import Finder, floats, rows_text
from gradlab.probe.isolation import copied, undisturbed
from gradlab.probe.passes import Passes
from gradlab.user_code import graph_nodes


def lost_column(batch: Mapping[str, Any]) -> Finding | None:
    """A column of a batch with numbers that are not finite."""
    for name, x in batch.items():
        if isinstance(x, Tensor) and x.is_floating_point() and not bool(torch.isfinite(x).all()):
            return Finding("nan.column", "fail", str(name), at=rows_text(~torch.isfinite(x)))
    return None


def origin(
    policy: Passes | None, critics: Mapping[str, Passes],
    losses: Mapping[str, Callable[[], Any]], batch: Mapping[str, Any] | None = None,
) -> Finding:  # fmt: skip
    """The origin of a gradient that is not finite.

    Args:
        policy: None: the gradient is a critic's.
        losses: calls each declared loss on the last batch.
    """
    column = lost_column(batch or {})
    if column is not None:
        return column
    heard = {**critics, **({} if policy is None else {"the policy": policy})}
    for name, each in heard.items():
        for key, p in each.watched.module.named_parameters():
            if not bool(torch.isfinite(p).all()):
                return Finding("nan.parameter", "fail", name, at=key)
        for x in each.inputs:
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                return Finding("nan.input", "fail", name, at=rows_text(~torch.isfinite(x)))
    for name, call in losses.items():
        found = _of_loss(name, call)
        if found is not None:
            return found
    if policy is not None and policy.batch == 1:
        return Finding("nan.one row", "fail", "NaN", at="the policy's last pass")
    for name, each in heard.items():
        bad = each.lost()
        if bad is not None:
            every = 2 * int(bad.sum()) >= len(bad)
            code = "nan.loss of all rows" if every else "nan.loss of rows"
            return Finding(code, "fail", name, at=rows_text(bad))
    if policy is None or not policy.inputs:
        return Finding("nan.unseen", "fail")
    with undisturbed():
        return _of_passes(policy.watched.module, policy.inputs, policy.arrived)


def _of_loss(name: str, call: Callable[[], Any]) -> Finding | None:
    """The operation of a declared loss, forward and back, that loses the finite numbers."""
    finder = Finder()
    try:
        with undisturbed(), finder:
            made = floats(call())
            if not all(bool(torch.isfinite(x).all()) for x in made):
                return _told(finder, f"{name}'s loss, forward")
            finder.inf = None  # of a mask, say: what came of it is finite
            gradients = _gradients([x for x in made if x.requires_grad])
        lost = not all(bool(torch.isfinite(x).all()) for x in gradients)
        return _told(finder, f"{name}'s loss, backward") if lost else None
    except Exception:  # a loss that cannot be called here tells nothing
        return None


def _gradients(made: Sequence[Tensor]) -> list[Tensor]:
    """In all leaves of a graph; none is left behind."""
    nodes = (node for node in graph_nodes(*made) if hasattr(node, "variable"))
    leaves = {id(node.variable): node.variable for node in nodes}
    if not leaves:
        return []
    total: Any = sum(each.sum() for each in made)
    found = torch.autograd.grad(total, [*leaves.values()], allow_unused=True)
    return [each for each in found if each is not None]


def _of_passes(module: nn.Module, inputs: Sequence[Tensor], arrived: Tensor | None) -> Finding:
    """The policy's last passes, made again: the operation, and the module whose output, or the
    gradient at whose output, was lost first."""
    policy = copied(module)
    calls: list[tuple[str, Tensor]] = []
    for name, part in policy.named_modules():
        if not any(True for _ in part.children()):
            note = partial(_note, calls, name or "policy")
            part.register_forward_hook(note)
    with Finder() as finder:
        output = policy(*inputs)
    lost = next((n for n, x in calls if not bool(torch.isfinite(x).all())), "the policy")
    where = f"in the forward pass of {lost}"
    if finder.found is None and isinstance(output, Tensor) and arrived is not None:
        heard = [(name, x) for name, x in calls if x.requires_grad]
        parameters = [p for p in policy.parameters() if p.requires_grad]
        with Finder() as finder:
            found = torch.autograd.grad(
                output, [*(x for _, x in heard), *parameters], arrived, allow_unused=True
            )
        named = [name for (name, _), g in zip(heard, found, strict=False)
                 if g is None or bool(torch.isfinite(g).all())]  # fmt: skip
        where = f"in the backward pass through {named[0] if named else 'policy'}"
    return _told(finder, where) or Finding("nan.unseen", "fail")


def _note(calls: list[tuple[str, Tensor]], name: str, _: Any, __: Any, output: Any) -> None:
    if isinstance(output, Tensor):
        calls.append((name, output))


def _told(finder: Finder, where: str) -> Finding | None:
    """What was lost first, if anything; where: the pass, in words."""
    if finder.found is None:
        return None
    kind, name, place = finder.found
    code = "nan.operation" if kind == "inf" else f"nan.{kind}"
    what = {"inf": "inf", "negative": name}.get(kind, "NaN")
    return Finding(code, "fail", what, at=f"{name}{place}, {where}")
