"""Where a number left the finite ones first: the operation, the module, the sample.

In this order: a parameter or an input that is not finite itself; the declared losses, called again
on the last batch, each operation watched; a batch of one row; the gradient that the loss has sent
to a critic or to the policy; the policy's last passes, made again on a copy in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradlab.findings import Finding
from gradlab.probe.isolation import copied, undisturbed
from gradlab.probe.passes import Passes
from gradlab.user_code import graph_nodes

_UNSET = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
_NEGATIVE = {"log": "log", "log2": "log", "log10": "log", "sqrt": "sqrt", "rsqrt": "sqrt",
             "pow": "power"}  # fmt: skip
_SPREAD = ("std", "var", "var_mean", "std_mean")
_SHOWN = 3


def rows_text(bad: Tensor) -> str:
    """Rows of a batch that are True anywhere, by their number: "row 3 of 64"."""
    if not bad.ndim:
        return "the whole"
    rows = bad.reshape(len(bad), -1).any(dim=1).nonzero().flatten().tolist()
    more = ", …" if len(rows) > _SHOWN else ""
    row = "row" if len(rows) == 1 else "rows"
    return f"{row} {', '.join(map(str, rows[:_SHOWN]))}{more} of {len(bad)}"


@final
class Finder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the first operation that makes NaN, and the first that makes inf, of finite input.

    It runs every operation as it would have run and hands its result on.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nan: tuple[str, str, str] | None = None  # code, operation, rows
        self._of_inf = False  # whether it came of inf
        self.inf: tuple[str, str] | None = None

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, before = kwargs or {}, None
        with suppress(Exception):  # what cannot be looked at is the user's, and goes on
            before = None if self.nan else _kinds((args, kwargs))
        out = func(*args, **kwargs)
        if before is not None:
            with suppress(Exception):
                self._look(func.overloadpacket.__name__, args, before, out)
        return out

    def found(self, where: str) -> Finding | None:
        """What was lost first; where: the pass, in words."""
        if self.nan is not None and not (self._of_inf and self.inf is not None):
            code, name, rows = self.nan
            what = name if code == "nan.negative" else "NaN"
            return Finding(code, "fail", what, at=f"{name} ({rows}), {where}")
        if self.inf is not None:
            name, rows = self.inf
            return Finding("nan.operation", "fail", "inf", at=f"{name} ({rows}), {where}")
        return None

    def _look(self, name: str, args: Any, before: tuple[bool, bool], out: Any) -> None:
        if name in _UNSET:
            return
        for each in _floats(out):
            bad = torch.isnan(each)
            if not before[0] and bool(bad.any()):
                code = "nan.operation"
                first = args[0] if args and isinstance(args[0], Tensor) else None
                if name in _NEGATIVE and first is not None and bool((first < 0).any()):
                    code, name = "nan.negative", _NEGATIVE[name]
                elif name in _SPREAD:
                    code = "nan.one row"
                self.nan, self._of_inf = (code, name, rows_text(bad)), before[1]
                return
            if self.inf is None and not any(before) and bool(torch.isinf(each).any()):
                self.inf = name, rows_text(torch.isinf(each))


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
            made = _floats(call())
            if not all(bool(torch.isfinite(x).all()) for x in made):
                return finder.found(f"{name}'s loss, forward")
            finder.inf = None  # of a mask, say: what came of it is finite
            gradients = _gradients([x for x in made if x.requires_grad])
        lost = not all(bool(torch.isfinite(x).all()) for x in gradients)
        return finder.found(f"{name}'s loss, backward") if lost else None
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
    """The policy's last passes, made again."""
    policy = copied(module)
    calls: list[tuple[str, Tensor]] = []
    names = {each: name or "policy" for name, each in policy.named_modules()}

    def note(part: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            calls.append((names[part], output))

    for part in policy.modules():
        if not any(True for _ in part.children()):
            part.register_forward_hook(note)
    finder = Finder()
    with finder:
        output = policy(*inputs)
    lost = next((n for n, x in calls if not bool(torch.isfinite(x).all())), "the policy")
    found = finder.found(f"in the forward pass of {lost}")
    if found is not None:
        return found
    if arrived is None or not isinstance(output, Tensor) or arrived.shape != output.shape:
        return Finding("nan.unseen", "fail")
    return _of_backward(policy, calls, output, arrived)


def _of_backward(
    policy: nn.Module, calls: Iterable[tuple[str, Tensor]], output: Tensor, arrived: Tensor
) -> Finding:
    heard = [(name, x) for name, x in calls if x.requires_grad]
    finder = Finder()
    with finder:
        parameters = [p for p in policy.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(
            output, [*(x for _, x in heard), *parameters], arrived, allow_unused=True
        )
    after = "policy"
    for (name, _), gradient in reversed(list(zip(heard, gradients, strict=False))):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            break
        after = name
    found = finder.found(f"in the backward pass through {after}")
    return Finding("nan.unseen", "fail") if found is None else found


def _kinds(values: Any) -> tuple[bool, bool]:
    """Is there NaN, is there inf, among the inputs?"""
    tensors = _floats(values)
    nan = any(bool(torch.isnan(x).any()) for x in tensors)
    return nan, any(bool(torch.isinf(x).any()) for x in tensors)


def _floats(values: Any) -> list[Tensor]:
    return [
        x for x in tree_leaves(values)
        if isinstance(x, Tensor) and x.is_floating_point() and x.layout == torch.strided
    ]  # fmt: skip
