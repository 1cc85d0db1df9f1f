"""The page of a probe's run: fields, findings, and figures of return, gradients, task and price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.reporting import shell
from gradlab.reporting.page import NOWHERE, Page, PageSource, Panel, Section, method, panel
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.tables import chains, choices, curves, profiles
from gradlab.verdicts.probe.screen import screen

RETURN, SIGNAL, HEALTH = "Does the return rise?", "Is there a signal in the noise?", "Gradients"
ERROR, DRIFT, COST = "Bias and variance on the task", "What the error comes from", "Cost"
# Section → what is lacking where it has no figure.
SECTIONS = {
    RETURN: "No two windows of returns yet: gradlab.Probe(…, env=make_env) plays whole episodes, "
    "and note(episode_return=…) hands over the loop's own.",
    SIGNAL: "No two bursts of successive gradients yet.",
    HEALTH: "No two rows yet: one comes at every look.",
    ERROR: "No measurement: gradlab.Probe(…, task=…, critic=…) measures bias and variance.",
    DRIFT: "No two measurements with a prior model yet.",
    COST: "No two rows yet.",
}
_ROW = 0.16  # inches of a map per tensor
_CLIPPED = "Before clipping, where the backward pass is marked by `with probe(step)`."


def _curve(section: str, title: str, unit: str, *names: str, caption: str = "", **more: Any) -> Any:
    labels = {name: label for name, _, label in (each.partition(": ") for each in names)}
    draw = partial(figures.probe_curves, quantities=labels, title=title, unit=unit, **more)
    return section, draw, caption


# Panel → section, figure, caption; over the steps of a loop.
_CURVES = {
    "returns": _curve(RETURN, "Return of the policy", "reward", "returns: 16 episodes"),
    "episodes": _curve(RETURN, "Return in training", "reward", "episodes: 8 episodes or more"),
    "value": _curve(RETURN, "Critic against the bound of its return", "reward", "value: critic",
                    "return_bound: bound by the largest |reward|", "-return_bound: −bound"),
    "gains": _curve(RETURN, "What the last updates brought", "reward", "gains: window",
                    level=(0.0, "no change")),
    "signal_share": _curve(SIGNAL, "Share of signal in a batch's gradient", "|E g|² / E |g|²",
                           "signal_share: burst", level=(0.01, "cosine 0.1")),
    "grad_norm": _curve(HEALTH, "Norm of the gradient", "loss per parameter unit",
                        "grad_norm: mean of a window", "grad_norm_max: largest of a window",
                        log=True, lost="nonfinite", caption=_CLIPPED),
    "update_ratio": _curve(HEALTH, "Size of an update", "|Δθ| / |θ|", "update_ratio: mean",
                           log=True),
    "layer_norm": (HEALTH, figures.layer_norms, "An empty row is cut off."),
    "saturation": _curve(HEALTH, "Saturated actions", "share at the limit", "saturation",
                         level=(0.5, "half")),
    "attenuation": _curve(HEALTH, "Gradient that passes a tanh", "mean of 1 − (a / limit)²",
                          "attenuation"),
    "weight_zero": _curve(ERROR, "Measured weight of h = 0 beside the longest horizon", "weight",
                          "weight_zero: weight", level=(0.5, "half")),
    "jacobian_ratio": _curve(DRIFT, "Error of the model's Jacobians", "× the first measurement's",
                             "jacobian_ratio: error", log=True, level=(1.0, "as at first")),
    "lyapunov": _curve(DRIFT, "Growth per step of the horizon", "per step",
                       "growth: log of the gradient's variance",
                       "lyapunov: Lyapunov exponent λ of the closed loop", level=(0.0, "none")),
    "share": _curve(COST, "What the probe took", "share of the time so far", "share: probe"),
}  # fmt: skip
PANELS = (*_CURVES, "errors", "parts", "cosine", "chain", "chosen")


def panels(run: ProbeRun) -> list[Panel]:
    """What the run has numbers for, in the order of the sections; one point is no curve."""
    table = curves(run)
    known = table[np.isfinite(table["value"])]
    steps = known.groupby("quantity")["step"].nunique()
    bound = table[table["quantity"] == "return_bound"]
    below = bound.assign(quantity="-return_bound", value=-bound["value"])
    table = pd.concat([table, below], ignore_index=True)
    high = {"layer_norm": max(SIZE[1], min(1.6 + _ROW * len(run.parameters), 2 * SIZE[1]))}
    drawn = [
        panel(name, section, caption, draw, table, high=high.get(name, SIZE[1]))
        for name, (section, draw, caption) in _CURVES.items()
        if steps.get(name, 0) > 1
    ]
    drawn += _errors(run)
    if not (rows := chains(run)).empty:
        drawn.append(panel("chain", DRIFT, "", figures.moved_chains, rows))
    if (rows := choices(run))["step"].nunique() > 1:
        draw = partial(figures.chosen_horizons, longest=run.horizon)
        drawn.append(panel("chosen", ERROR, "", draw, rows))
    return drawn


def _errors(run: ProbeRun) -> list[Panel]:
    """Over the horizon, at the newest measurement."""
    rows = profiles(run)
    if rows.empty:
        return []
    kinds, names = (set(rows[each]) for each in ("quantity", "estimator"))
    newest = rows[rows["step"] == rows["step"].max()]
    name = next((each for each in ("model", "true_dynamics") if each in names), "data")
    batch = int(run.measured["batch"][-1])
    drawn: dict[str, Callable[..., Axes]] = {"errors": figures.mse} if "mse" in kinds else {}
    drawn["parts"] = partial(figures.bias_variance, estimator=name, batch=batch)
    if "cosine" in kinds:
        drawn["cosine"] = figures.cosine
    when = f"Step {newest['step'].iloc[0]:,.0f}, {run.measured['starts'][-1]:.0f} starts."
    return [panel(each, ERROR, when, draw, newest) for each, draw in drawn.items()]


def page(run: ProbeRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a probe shows; `name` is its title where no task was given."""
    facts = {
        "task": run.task or "none given", "step": f"{run.step:,}", "updates": f"{run.updates:,}",
        "looks": f"every {run.every} updates",
        "spent": f"{100 * run.spent:.2g}% of the time" if np.isfinite(run.spent) else "",
        "wall time": shell.seconds(run.seconds) if np.isfinite(run.seconds) else "",
        "seed": run.attributes.get("seed"),
    }  # fmt: skip
    shown = screen(run)
    return Page(
        run.task or name, "Are the gradients of this loop any good?", facts,
        replace(shown, rest=()), tuple(panels(run)),
        (*(Section(each, missing=lacking) for each, lacking in SECTIONS.items()), _method(run)),
        replace(source, command=""),  # a loop of the user's: no command makes it again
        findings=shown.rest, apart=False,
    )  # fmt: skip


def _method(run: ProbeRun) -> Section:
    rest = {key: value for key, value in run.config.items() if key not in ("parameters", "shapes")}
    counted = {
        "rows of vitals": len(run.vitals.get("update", ())),
        "bursts of successive gradients": len(run.successive.get("update", ())),
        "measurements on the task": len(run.measured.get("update", ())),
        "checks": len(run.reported),
    }
    settings = rest | {"tensors": list(run.parameters)}
    return method(None, {
        "Settings": settings, "Rows in the file": counted, "Versions and machine": run.environment,
    })  # fmt: skip
