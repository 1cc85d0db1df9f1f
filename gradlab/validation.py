"""Validation of arguments at the public boundary; inside, values are trusted.

Every function raises InputError with one wording: "beta is 2, expected a number in [0, 1]".
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


def expected(name: str, value: object, wanted: str) -> InputError:
    """The error of all arguments: `raise expected("beta", beta, "a number from 0 to 1")`."""
    return InputError(f"{name} is {shown(value)}, expected {wanted}")


def instance(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """Refuses a value of another kind; `wanted` describes one of that kind."""
    if not isinstance(value, kind):
        raise expected(name, value, wanted)


def flag(name: str, value: object) -> None:
    """Refuses all but True and False."""
    instance(name, value, bool, "True or False")


def whole(name: str, value: object, least: int = 0) -> int:
    """An integer from `least`, of Python or of an array package, that a file can hold."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not least <= number < LARGEST:
        raise expected(name, value, f"an integer ≥ {least}")
    return number


def number(
    name: str,
    value: object,
    wanted: str = "",
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """A finite number, least ≤ value ≤ most, above < value < below.

    Args:
        wanted: description in the place of "a number in (0, 1]".
    """
    try:
        found = math.nan if isinstance(value, bool | str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        found = math.nan
    if not (math.isfinite(found) and least <= found <= most and above < found < below):
        raise expected(name, value, wanted or _range(least, above, most, below))
    return found


def _range(least: float, above: float, most: float, below: float) -> str:
    low, high = max(least, above), min(most, below)
    if math.isinf(high):
        text = f" ≥ {low:g}" if least >= above else f" > {low:g}"
        return "a finite number" if math.isinf(low) else f"a number{text}"
    ends = "[" if least > above else "(", "]" if most < below else ")"
    return f"a number in {ends[0]}{low:g}, {high:g}{ends[1]}"


def word(name: str, value: object, known: Collection[str]) -> None:
    """Refuses what is none of the known words."""
    if not isinstance(value, str) or value not in known:
        raise expected(name, value, f"one of {', '.join(known)}")


def function(name: str, value: object, arguments: str) -> None:
    """Refuses what cannot be called."""
    if not callable(value):
        raise expected(name, value, f"a function of {arguments}")


def path(name: str, value: object) -> Path:
    """A path that a file can have."""
    instance(name, value, (str, os.PathLike), "a path")
    text = os.fspath(value)  # type: ignore[call-overload]
    if not isinstance(text, str) or not text or "\0" in text:
        raise expected(name, text, "the path of a file")
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
