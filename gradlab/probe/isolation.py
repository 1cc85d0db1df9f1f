"""Work beside a training loop that the loop cannot notice.

Random streams are put back as they were, whatever the user's modules draw in their forward pass;
autocast, inference mode and default devices of the loop do not reach inside. Networks are float64
copies without the loop's hooks, in eval mode: dropout off, statistics of batch norm fixed.

Where a number left the finite ones first: the operation, the module, the sample.

The policy's last forward pass is made again on a copy in eval mode, then its backward pass with the
gradient that arrived, each operation watched. A gradient that was lost before it arrived comes from
the loss, the critic or the model: there the operations of later marked passes are watched as they
run.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Hooks that make a module what it is, rather than look at it.
_ESSENTIAL = ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
OWN_WORK = ContextVar("OWN_WORK", default=False)  # hooks of all modules see copies, too


@contextmanager
def undisturbed() -> Iterator[None]:
    """Streams of torch, CUDA, numpy and python as before; gradients on, autocast off, CPU."""
    ready = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if ready else []
    python, numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.callback(OWN_WORK.reset, OWN_WORK.set(True))
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":  # the mode slows down every operation
            stack.enter_context(torch.device("cpu"))
        for kind in {"cpu", *(["cuda"] if devices else [])}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def copied(module: nn.Module) -> nn.Module:
    """A copy in eval mode, without hooks and gradients; dtype and device are the original's.

    Raises:
        RuntimeError: the module holds something that cannot be copied.
    """
    twin = copy.deepcopy(unwrapped(module)).eval()
    for each in twin.modules():
        for name in _HOOKS:
            hooks = getattr(each, name)
            for key, hook in list(hooks.items()):
                if not (getattr(type(hook), "__module__", "") or "").startswith(_ESSENTIAL):
                    del hooks[key]
    twin.zero_grad(set_to_none=True)
    return twin


def doubled(module: nn.Module) -> nn.Module:
    """The same in float64 on the CPU."""
    return copied(module).double().cpu()


def say(what: str) -> None:
    """Warn without raising, where warnings are errors, too: the loop goes on."""
    with suppress(Exception):
        warnings.warn(f"gradlab's probe {what}", RuntimeWarning, stacklevel=2)


def warn(what: str, error: Exception) -> None:
    """Warn of a failure."""
    say(f"{what}; training goes on ({type(error).__name__}: {error})")


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside torch.compile, DataParallel or DistributedDataParallel."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    original: nn.Module = getattr(module, "_orig_mod", module)
    return original


_UNSET = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
_SHOWN = 3


@dataclass(frozen=True)
class _Lost:
    """The first result with NaN (or inf) whose inputs had none.

    Attributes:
        what: "NaN" or "inf"; operation: its name; rows: samples, where the first axis is theirs.
    """

    what: str
    operation: str
    rows: tuple[int, ...]
    size: int

    def __str__(self) -> str:
        more = ", …" if len(self.rows) > _SHOWN else ""
        which = ", ".join(map(str, self.rows[:_SHOWN])) + more
        row = "row" if len(self.rows) == 1 else "rows"
        where = f" ({row} {which} of {self.size})" if self.rows else ""
        return f"{self.what} first out of {self.operation}{where}"


@final
class Finder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the first operation that makes NaN, and the first that makes inf, of finite input.

    It runs every operation as it would have run and hands its result on.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nan: _Lost | None = None
        self.inf: _Lost | None = None

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = None if self.nan is not None else _known(_kinds, (args, kwargs))
        out = func(*args, **kwargs)
        if before is not None:
            _known(self._look, func, before, out)
        return out

    @property
    def found(self) -> str:
        """In words; empty where everything was finite."""
        if self.nan is None:
            return "" if self.inf is None else str(self.inf)
        if self.inf is None:
            return str(self.nan)
        return f"{self.inf}; {self.nan}"

    def _look(self, func: Any, before: tuple[bool, bool], out: Any) -> None:
        if func.overloadpacket.__name__ in _UNSET:
            return
        for each in _floats(out):
            if not before[0] and bool(torch.isnan(each).any()):
                self.nan = _lost("NaN", func, torch.isnan(each))
                return
            if self.inf is None and not any(before) and bool(torch.isinf(each).any()):
                self.inf = _lost("inf", func, torch.isinf(each))


def replayed(policy: nn.Module, inputs: Sequence[Tensor], arrived: Tensor | None) -> str:
    """Where the policy's own passes lose the finite numbers, in words."""
    bad = [name for name, p in policy.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        return f"parameter {bad[0]} is not finite itself: an earlier update has spoilt it"
    if not inputs:
        return "the policy's forward pass was not seen"
    for each in inputs:
        if not bool(torch.isfinite(each).all()):
            return f"the policy's input is not finite ({rows_text(~torch.isfinite(each))})"
    if arrived is not None and not bool(torch.isfinite(arrived).all()):
        rows = rows_text(~torch.isfinite(arrived))
        return (
            f"the gradient was not finite when it reached the policy's output ({rows}): it comes "
            f"from the loss, the critic or the model"
        )
    with undisturbed():
        return _of_passes(copied(policy), inputs, arrived)


def _of_passes(policy: nn.Module, inputs: Sequence[Tensor], arrived: Tensor | None) -> str:
    calls: list[tuple[str, Tensor]] = []
    names = {each: name or "policy" for name, each in policy.named_modules()}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            calls.append((names[module], output))

    for each in policy.modules():
        if not any(True for _ in each.children()):
            each.register_forward_hook(note)
    finder = Finder()
    with finder:
        output = policy(*inputs)
    if finder.found:
        name = next((n for n, x in calls if not bool(torch.isfinite(x).all())), "policy")
        return f"{finder.found} in the forward pass of {name}"
    if arrived is None or arrived.shape != output.shape:
        return "the policy's last forward pass is finite: it comes from elsewhere"
    return _of_backward(policy, calls, output, arrived)


def _of_backward(
    policy: nn.Module, calls: Sequence[tuple[str, Tensor]], output: Tensor, arrived: Tensor
) -> str:
    arguments = [x for _, x in calls if x.requires_grad]
    finder = Finder()
    with finder:
        parameters = [p for p in policy.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(
            output, [*arguments, *parameters], arrived, allow_unused=True
        )
    if not finder.found:
        return "the policy's last backward pass is finite: another one of this update is not"
    labels = [name for name, x in calls if x.requires_grad]
    after = "policy"
    for name, gradient in reversed(list(zip(labels, gradients[: len(labels)], strict=True))):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            break
        after = name
    return f"{finder.found} in the backward pass through {after}"


def _known(work: Callable[..., Any], *given: Any) -> Any:
    """None where an operation or a dtype cannot be looked at: it is the user's, and goes on."""
    try:
        return work(*given)
    except Exception:
        return None


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


def _lost(what: str, func: Any, bad: Tensor) -> _Lost:
    rows = _rows(bad)
    return _Lost(what, func.overloadpacket.__name__, rows, len(bad) if bad.ndim else 0)


def _rows(bad: Tensor) -> tuple[int, ...]:
    if bad.ndim == 0:
        return ()
    return tuple(bad.reshape(len(bad), -1).any(dim=1).nonzero().flatten().tolist())


def rows_text(bad: Tensor) -> str:
    """Rows of a batch, by their number."""
    rows = _rows(bad)
    more = ", …" if len(rows) > _SHOWN else ""
    row = "row" if len(rows) == 1 else "rows"
    return f"{row} {', '.join(map(str, rows[:_SHOWN]))}{more} of {len(bad) if bad.ndim else 1}"
