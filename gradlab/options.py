"""Configurations whose annotations say what their fields take: typed, given in Python, or stored.

    horizon: Annotated[int | None, named("H"), Within(least=1)] = None

The command line shows a field as it is named; `check` holds its value to type and bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import arg

from gradlab import validation


@dataclass(frozen=True)
class Within:
    """Bounds of a number: least ≤ value ≤ most, above < value < below; an integer's are from 0."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf


_ANY = Within()
COUNT = Annotated[int, Within(least=1)]


def named(metavar: str, text: str | None = None, name: str | None = None, default: str = "") -> Any:
    """An option whose words, or `default`, say what is taken without it."""
    return arg(metavar=metavar, help=text, name=name, help_behavior_hint=default)


def check(config: Any, name: Callable[[str], str] = str) -> None:
    """Hold every field of a configuration to its annotation.

    Args:
        name: of a field, as an error names it.

    Raises:
        InputError: names the field, its value and what is expected.
    """
    kind: Any = type(config)
    for field, hint in hints(kind).items():
        _hold(name(field), getattr(config, field), hint, _ANY)


@cache
def hints(kind: type) -> dict[str, Any]:
    """The annotations of a configuration's fields; what only type checkers know is an object."""
    unknown: dict[str, Any] = {}
    while True:
        try:
            found = get_type_hints(kind, localns=unknown, include_extras=True)
            return {each.name: found[each.name] for each in fields(kind)}
        except NameError as error:
            unknown[str(error.name)] = object


def _hold(name: str, value: Any, hint: Any, bounds: Within) -> None:
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is Annotated:
        own = next((each for each in hint.__metadata__ if isinstance(each, Within)), bounds)
        return _hold(name, value, kinds[0], own)
    if origin in (Union, UnionType):
        if value is None and NoneType in kinds:
            return None
        rest = [each for each in kinds if each is not NoneType]
        for each in rest:
            plain = get_origin(each) or each
            if len(rest) == 1 or (isinstance(plain, type) and isinstance(value, plain)):
                _hold(name, value, each, bounds)
    elif origin is tuple:
        count = None if kinds[-1] is Ellipsis else len(kinds)
        if not isinstance(value, tuple | list) or count not in (None, len(value)):
            raise validation.expected(name, value, f"{count or 'several'} values in a tuple")
        for each in value:
            _hold(name, each, kinds[0], bounds)
    elif origin is Literal:
        validation.word(name, value, kinds)
    elif hint is bool:
        validation.flag(name, value)
    elif hint is int:
        validation.whole(name, value, int(bounds.least) if bounds.least > -math.inf else 0)
    elif hint is float:
        validation.number(name, value, **asdict(bounds))
    return None
