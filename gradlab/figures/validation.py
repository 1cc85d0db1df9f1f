"""Validation of what a figure is given: a table of another kind is refused by what it lacks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import pandas as pd
from matplotlib.axes import Axes

from gradlab import validation
from gradlab.errors import InputError

_P = ParamSpec("_P")
R = TypeVar("R")


def of_table(draw: Callable[_P, R]) -> Callable[_P, R]:
    """The figure `draw`, whose first argument is a table, with its arguments checked.

    Raises:
        InputError: no table, one without a column that the figure needs, or axes that are none.
    """
    first, *_ = inspect.signature(draw).parameters
    texts = [
        each.name
        for each in inspect.signature(draw).parameters.values()
        if (each.annotation in ("str", str))
    ]

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> R:
        given: Any = args[0] if args else kwargs.get(first)
        name = getattr(draw, "__name__", "figure")
        validation.instance(first, given, pd.DataFrame, f"the table of figures.{name}")
        validation.instance("ax", kwargs.get("ax"), (Axes, type(None)), "matplotlib Axes, or None")
        for each in texts:
            validation.instance(each, kwargs.get(each, ""), str, "text")
        try:
            return draw(*args, **kwargs)
        except KeyError as error:
            if error.args[0] in given.columns:
                raise
            raise InputError(
                f"{first} has no column {error.args[0]!r}, which figures.{name} draws: it takes "
                f"another kind of table (help(gradlab.figures))"
            ) from error

    return drawn
