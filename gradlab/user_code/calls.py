"""Calls of a user's functions in any grad mode; their errors become one line with file and line."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from gradlab.errors import InputError, in_short, one_line

_P = ParamSpec("_P")
_R = TypeVar("_R")


def differentiating(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` outside of the caller's `torch.no_grad()` and `torch.inference_mode()`."""
    inside: Callable[_P, _R] = torch.enable_grad()(function)
    return torch.inference_mode(False)(inside)


_INSTALLED = (
    str(Path(__file__).parent), "<frozen",
    sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"),
)  # fmt: skip


@contextmanager
def running(name: str, remedy: Callable[[str], str] | None = None) -> Iterator[None]:
    """Inside, an error of the user's function becomes one line; InputError passes as it is.

    Args:
        name: its role, as "step"; remedy: advice, from the error's words.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        words = in_short(one_line(f"{type(error).__name__}: {error}"), 300)
        more = "" if remedy is None else remedy(str(error))
        frames = traceback.extract_tb(error.__traceback__)
        users = [each for each in frames if not each.filename.startswith(_INSTALLED)]
        place = f"; {users[-1].filename}, line {users[-1].lineno}" if users else ""
        raise InputError(f"{name} failed ({words}{place}){more}") from error
