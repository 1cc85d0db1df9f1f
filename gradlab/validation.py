"""Validation of arguments: the wrong type or range is refused in one line.

Each message has the argument, its value and the expected one; inside, values are trusted.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gradlab.errors import InputError

_LONGEST = 255  # bytes of a file's name
LARGEST = 2**63  # what a file and a generator can hold


def instance(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """
    Args:
        expected: description of a value of that kind.

    Raises:
        InputError: `value` is of another kind.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is {shown(value)}, expected {expected}")


def whole(name: str, value: object, least: int = 0) -> int:
    """An integer from `least`, of Python or of an array package.

    Raises:
        InputError: it is none, or one that no file can hold.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not least <= number < LARGEST:
        raise InputError(f"{name} is {shown(value)}, expected an integer ≥ {least}")
    return number


def number(name: str, value: object, expected: str) -> float:
    """A finite number.

    Raises:
        InputError: it is none.
    """
    try:
        found = math.nan if isinstance(value, bool | str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{name} is {shown(value)}, expected {expected}")
    return found


def word(name: str, value: object, known: Collection[str]) -> None:
    """
    Raises:
        InputError: it is none of the known ones.
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} is {shown(value)}, expected one of {', '.join(known)}")


def function(name: str, value: object, arguments: str) -> None:
    """
    Raises:
        InputError: it cannot be called.
    """
    if not callable(value):
        raise InputError(f"{name} is {shown(value)}, expected a function of {arguments}")


def path(name: str, value: object) -> Path:
    """A path that a file can have.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name} is {shown(value)}, expected a path")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(f"{name} is {shown(text)}, expected the path of a file")
    if len(os.fsencode(Path(text).name)) > _LONGEST:
        raise InputError(f"{name} is {shown(text)}: a file's name has at most {_LONGEST} bytes")
    if Path(text).name in ("", ".."):
        raise InputError(f"{name} is {shown(text)}, a folder: name a file")
    return Path(text)


def shown(value: Any) -> str:
    """A value in a message: plain ones as they are, others by their type, shape and dtype."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        text = repr(value) if not isinstance(value, int) or abs(value) < LARGEST else "beyond 2**63"
        return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
    shape = getattr(value, "shape", None)
    kind = type(value).__name__ if not isinstance(value, type) else f"class {value.__name__}"
    if isinstance(shape, tuple):
        return f"a {kind} of shape {tuple(shape)}, {getattr(value, 'dtype', '')}"
    return f"a {kind}"
