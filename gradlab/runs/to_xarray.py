"""A measurement as an xarray Dataset: labelled axes, names and units that xarray's users know.

One variable per quantity over (estimator, horizon), with three beside it:

    gain          value; `long_name`, `units` (CF: "1" for a plain number), `formula`, `source`
    gain_se       standard error
    gain_ci       ends of the 95% interval, over `ci_bound` = "lower", "upper" as ArviZ 1 has them
                  (0.x: `hdi`; `arviz.plot_hdi(x, hdi_data=…)` draws these, too)
    gain_n        samples; 0, and NaN in the others, where nothing was measured
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.errors import not_installed
from gradlab.statistics.quantities import QUANTITIES

if TYPE_CHECKING:
    import xarray

    from gradlab.runs.profile import Profile

DIMS = ("estimator", "horizon")
INTERVAL = "95%"


def dataset(profile: Profile) -> xarray.Dataset:
    """The Dataset of a profile.

    Raises:
        InputError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise not_installed("xarray", "xarray") from error
    variables: dict[str, Any] = {}
    for place, name in enumerate(profile.quantities):
        variables |= _variables(profile, name, place)
    coordinates = {
        "estimator": ("estimator", list(profile.estimators), {"long_name": "estimator"}),
        "horizon": (
            "horizon", list(profile.horizons), {"long_name": "horizon", "units": "steps"},
        ),
        "ci_bound": ("ci_bound", ["lower", "upper"], {"long_name": f"ends of the {INTERVAL}"}),
    }  # fmt: skip
    return xarray.Dataset(variables, coordinates, _attributes(profile))


def _variables(profile: Profile, name: str, place: int) -> dict[str, Any]:
    """A quantity with its standard error, interval and number of samples."""
    value, se, low, high = (
        profile.columns[column][:, place] for column in ("value", "se", "ci_low", "ci_high")
    )
    quantity = QUANTITIES.get(name)  # files of other versions may hold others
    title = name if quantity is None else quantity.title
    units = {} if quantity is None else {"units": quantity.unit or "1"}
    about = {} if quantity is None else {"formula": quantity.formula, "source": quantity.source}
    methods = sorted({str(each) for each in profile.method[:, place].ravel() if each})
    interval = {"long_name": f"{title}, {INTERVAL} interval", **units, "method": ", ".join(methods)}
    count = {"long_name": f"{title}, samples", "units": "1"}
    return {
        name: (DIMS, value, {"long_name": title, **units, **about}),
        f"{name}_se": (DIMS, se, {"long_name": f"{title}, standard error", **units}),
        f"{name}_ci": ((*DIMS, "ci_bound"), np.stack([low, high], axis=-1), interval),
        f"{name}_n": (DIMS, profile.count[:, place], count),
    }


def _attributes(profile: Profile) -> dict[str, Any]:
    """What was measured and by what, as text and numbers, which netCDF takes."""
    config, environment = profile.config, profile.environment
    return {
        "title": f"policy gradients on {config.get('task', 'a task')}",
        "inference_library": "gradlab",
        "inference_library_version": environment.get("gradlab", ""),
        "created_at": environment.get("created", ""),
        "batch": profile.batch,
        "seed": int(config.get("seed", 0)),
        "command": str(config.get("command", "")),
        "config": json.dumps(dict(config), default=str),
        "truth": json.dumps(dict(profile.truth), default=str),
    }
