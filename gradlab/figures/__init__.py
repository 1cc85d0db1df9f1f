"""Figures: functions of a long table and an Axes that return the Axes, `figures.gain(table, ax)`.

    any long table             lines, bars, matrix
    Profile.table()            gain, bias_variance, mse, cosine, sign_agreement, snr, sample_norm
    Realised.table()           realised_gains
    Attribution.table()        ledger, entries
    Certification.table()      certified_errors
    tools.remedies             remedy_*
    Race, Rehearsal, Step      return_over_updates, step_changes
    runs.training              returns, training_curve, mixture_weights, gradient_errors,
                               update_times, weights_against_rule, error_over_rule
    runs.probe.tables          probe_*, layer_norms, moved_chains, chosen_horizons

The table of a profile has a row per estimator, horizon and quantity, with value, ci_low and
ci_high. `column` sets any figure to the width of a paper's column.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import pandas as pd
from matplotlib.axes import Axes

from gradlab import validation
from gradlab.errors import InputError, imported
from gradlab.figures.style import column

_P = ParamSpec("_P")
_R = TypeVar("_R")
_HERE = {  # by gradlab.figures.NAME
    "error": "bias_variance cosine entries ledger mse sample_norm sign_agreement snr",
    "gains": "gain realised_gains",
    "plots": "bars lines matrix",
    "probe": "chosen_horizons layer_norms moved_chains probe_curves",
    "training": "error_over_rule gradient_errors mixture_weights return_over_updates returns "
    "step_changes training_curve update_times weights_against_rule",
}
_OF_TOOLS = {  # by gradlab.tools.NAME
    "certify.page": "certified_errors",
    "remedies.figures": "remedy_effects remedy_horizons remedy_jacobians remedy_levels",
}
_HOMES = {name: f"gradlab.figures.{here}" for here, x in _HERE.items() for name in x.split()}
_HOMES |= {name: f"gradlab.tools.{x}" for x, y in _OF_TOOLS.items() for name in y.split()}

__all__ = ["column", *_HOMES]


def _checked(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """The figure `draw`, which refuses no table, one without a column, and axes that are none."""
    first, *_ = inspect.signature(draw).parameters
    texts = [
        each.name
        for each in inspect.signature(draw).parameters.values()
        if (each.annotation in ("str", str))
    ]

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradlab.figures' has no attribute {name!r}")
    figure = globals()[name] = _checked(imported(f"{_HOMES[name]}:{name}"))
    return figure


def __dir__() -> list[str]:
    return sorted(__all__)
