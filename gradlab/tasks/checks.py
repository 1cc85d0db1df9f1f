"""Checks of the settings of task factories, which may come from a command line as any type."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

from gradlab import validation
from gradlab.errors import InputError


def nearest(word: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(names)) or sorted(names)
    return f": expected {', '.join(near)}" if near else ""


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in list(allowed):
        raise InputError(f"{name} is {value!r}, expected one of {list(allowed)}")


def check_number(name: str, value: float, least: float) -> None:
    expected = f"a finite number from {least:g}" if math.isfinite(least) else "a finite number"
    if validation.number(name, value, expected) < least:
        raise InputError(f"{name} is {value!r}, expected {expected}")
