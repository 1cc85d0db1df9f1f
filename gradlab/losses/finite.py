"""The first operation that makes a number that is not finite of finite ones, forward or back.

with Finder() as finder: loss(batch)      finder.where = "log, loss.py, line 12 (row 3 of 64)"
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_UNSET = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
_NEGATIVE = {"log": "log", "log2": "log", "log10": "log", "sqrt": "sqrt", "rsqrt": "sqrt",
             "pow": "power"}  # fmt: skip
_SPREAD = ("std", "var", "var_mean", "std_mean")
_SHOWN = 3
_OTHERS = (
    str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"),
    "<",
)  # fmt: skip
_PACKAGES = sysconfig.get_path("purelib")


def stack() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def place(frames: Iterable[FrameType] | None = None) -> str:
    """The line of the user's code that is being run, "loss.py, line 12", or ""."""
    for frame in stack() if frames is None else frames:
        file = frame.f_code.co_filename
        # An installed package may lie below the folder of the standard library.
        installed = file.startswith(_PACKAGES) and not file.startswith(_OTHERS[:2])
        if installed or not file.startswith(_OTHERS):
            return f"{Path(file).name}, line {frame.f_lineno}"
    return ""


def floats(values: Any) -> list[Tensor]:
    """Dense tensors of floats inside."""
    return [
        x for x in tree_leaves(values)
        if isinstance(x, Tensor) and x.is_floating_point() and x.layout == torch.strided
    ]  # fmt: skip


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
        self.nan: tuple[str, str, str] | None = None  # kind, operation, place and rows
        self._of_inf = False  # whether it came of inf
        self.inf: tuple[str, str, str] | None = None

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, before = kwargs or {}, None
        with suppress(Exception):  # what cannot be looked at is the user's, and goes on
            given = [] if self.nan else floats((args, kwargs))
            before = None if self.nan else [
                any(bool(test(x).any()) for x in given) for test in (torch.isnan, torch.isinf)
            ]  # fmt: skip
        out = func(*args, **kwargs)
        if before is not None:
            with suppress(Exception):
                self._look(func.overloadpacket.__name__, args, before, out)
        return out

    @property
    def found(self) -> tuple[str, str, str] | None:
        """Kind ("operation", "negative", "one row", "inf"), operation, place and rows."""
        return self.inf if self.nan is None or (self._of_inf and self.inf) else self.nan

    @property
    def where(self) -> str:
        """The operation, its place and its rows, in words; "" where nothing was lost."""
        return "{1}{2}".format(*self.found) if self.found else ""

    def _look(self, name: str, args: Any, before: list[bool], out: Any) -> None:
        for each in floats(out) if name not in _UNSET else ():
            bad = torch.isnan(each)
            if not before[0] and bool(bad.any()):
                kind = "operation"
                first = args[0] if args and isinstance(args[0], Tensor) else None
                if name in _NEGATIVE and first is not None and bool((first < 0).any()):
                    kind, name = "negative", _NEGATIVE[name]
                elif name in _SPREAD:
                    kind = "one row"
                self.nan, self._of_inf = (kind, name, _at(bad)), before[1]
                return
            if self.inf is None and not any(before) and bool(torch.isinf(each).any()):
                self.inf = "inf", name, _at(torch.isinf(each))


def _at(bad: Tensor) -> str:
    # In a backward pass no line of the user's is being run.
    line = place() if torch._C._current_graph_task_id() < 0 else ""
    return f"{line and f', {line}'} ({rows_text(bad)})"
