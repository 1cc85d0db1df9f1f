"""Where a value that depends on θ loses its gradient: how, by which call, in which line.

sampled      Distribution.sample, torch.normal, multinomial, bernoulli
discrete     argmax, a rounding, any integer result
detached     detach, .data
no_grad      computed while gradients are off
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch.distributions import Distribution

How = Literal["sampled", "discrete", "detached", "no_grad"]

# These have the derivative zero in autograd, where they have one.
SAMPLING = frozenset({"normal", "multinomial", "bernoulli", "poisson", "binomial"})
STEPWISE = frozenset(
    {"round", "floor", "ceil", "trunc", "sign", "sgn", "heaviside", "argmax", "argmin", "one_hot"}
)
WITHOUT_DERIVATIVE = SAMPLING | STEPWISE

_TORCH = str(Path(torch.__file__).parent)
_OTHERS = (_TORCH, str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"), "<")
_CALLS = str(Path(__file__).parent / "calls.py")
_PACKAGES = sysconfig.get_path("purelib")
_DISTRIBUTIONS = str(Path(_TORCH) / "distributions")


@dataclass(frozen=True)
class Cut:
    """One place.

    Attributes:
        what: the call, as "Normal.sample", "argmax", "detach".
        place: "loss.py, line 12", or "" where the line is not known.
    """

    how: How
    what: str
    place: str

    @property
    def where(self) -> str:
        """As in "Normal.sample, loss.py, line 12"."""
        return f"{self.what}, {self.place}" if self.place else self.what


def name_of(function: Callable[..., Any]) -> str:
    """The name of a torch function; of a tensor's attribute, the attribute's."""
    name = getattr(function, "__name__", "")
    if name != "__get__":
        return name.removesuffix("_") if not name.startswith("__") else name
    return getattr(getattr(function, "__self__", None), "__name__", name)


def cut_by(function: Callable[..., Any], floating: bool) -> Cut:
    """The cut that a call of a torch function has just made, on the stack of its caller.

    Args:
        floating: the result has a floating type.
    """
    name, frames = name_of(function), [*_frames()]
    place = next(map(_place, filter(_users, frames)), "")
    drawn = [frame for frame in frames if _samples(frame)]
    if drawn:
        distribution = drawn[-1].f_locals.get("self")
        return Cut("sampled", f"{type(distribution).__name__}.sample", place)
    if name in SAMPLING:
        return Cut("sampled", f"torch.{name}", place)
    if name in STEPWISE or not floating:
        return Cut("discrete", name, place)
    if name in ("detach", "data"):
        return Cut("detached", name, place)
    if torch.is_grad_enabled():
        return Cut("discrete", name, place)
    # Gradients are off around the call of the actor, not in the line of its last layer.
    calls = [k for k, frame in enumerate(frames) if frame.f_code.co_filename == _CALLS]
    outside = frames[calls[-1] :] if calls else frames
    return Cut("no_grad", "torch.no_grad", next(map(_place, filter(_users, outside)), place))


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    # An installed package may lie below the folder of the standard library.
    inside = file.startswith(_PACKAGES) and not file.startswith(_OTHERS[:2])
    return inside or not file.startswith(_OTHERS)


def _place(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"


def _samples(frame: FrameType) -> bool:
    """A frame of torch's `sample`, of any distribution."""
    code = frame.f_code
    return (
        code.co_name in ("sample", "sample_n")
        and code.co_filename.startswith(_DISTRIBUTIONS)
        and isinstance(frame.f_locals.get("self"), Distribution)
    )
