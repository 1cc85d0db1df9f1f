"""Which figures show what a probe saw, what to look for in each, and what is missing and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.probe.results import ProbeRun
from gradlab.probe.tables import curves, profiles
from gradlab.reporting.panels import Panel, panel

SIGNAL = "Is there a signal in the noise?"
HEALTH = "Is the gradient sound?"
ERROR = "Is it right? Bias and variance on the task"
DRIFT = "What the error comes from"
COST = "What the probe cost"
ORDER = (SIGNAL, HEALTH, ERROR, DRIFT, COST)
ROW = 0.16  # inches of a map per tensor
TASK = (
    "No task was given: gradlab.Probe(policy, optimizer, task=…, critic=…) measures bias and "
    "variance by horizon, the best horizon and its weights, Jacobians, growth and the critic."
)


def panels(run: ProbeRun) -> list[Panel]:
    """What the run has numbers for, in the order of the sections."""
    return several({"": run})


def several(runs: Mapping[str, ProbeRun]) -> list[Panel]:
    """The same for several seeds of one training, whose curves are drawn thin; profiles by horizon
    are those of a single run only."""
    table = curves(runs)
    have = set(table[np.isfinite(table["value"])]["quantity"])
    found = [*_signal(table, have), *_health(table, have, _tensors(runs))]
    if len(runs) == 1:
        found += _errors(next(iter(runs.values())))
    return [*found, *_choices(table, have, runs), *_drift(table, have), *_cost(table, have)]


def absent(run: ProbeRun) -> dict[str, list[str]]:
    """Section → a line for each thing that is missing, with how to get it."""
    found: dict[str, list[str]] = {name: [] for name in ORDER}
    if not run.vitals:
        why = "No row yet: the first comes after 100 updates."
        return found | {HEALTH: [why], COST: [why]}
    if not run.successive:
        found[SIGNAL].append(
            f"No burst of successive gradients yet: {_waits(run)} Products of successive "
            f"gradients tell signal from noise."
        )
    if not np.isfinite(run.vitals["update_ratio"]).any():
        found[HEALTH].append("No sizes of updates: give the probe the policy's optimizer.")
    if not np.isfinite(run.vitals.get("saturation", np.empty(0))).any():
        found[HEALTH].append(
            "No saturation: no limit of the actions is known. The probe takes it from the task's "
            "action_limit, from the policy's action_scale or limit, or from a tanh at its end."
        )
    return found | _absent_on_the_task(run)


def _absent_on_the_task(run: ProbeRun) -> dict[str, list[str]]:
    if run.horizon is None:
        return {ERROR: [TASK], DRIFT: []}
    if not run.measured:
        return {ERROR: [f"No measurement yet: {_waits(run)}"], DRIFT: []}
    error, drift = [], []
    if not np.isfinite(run.measured["variance"]).any():
        error.append("No gradients were measured: give the probe a critic, the tail of theirs.")
    elif not np.isfinite(run.measured["bias2"]).any():
        error.append(
            "No bias: the truth was admissible at no measurement (the simulator's own gradient did "
            "not converge, or did not agree with differences)."
        )
    elif not np.isfinite(run.measured["weight_zero"]).any():
        error.append("No weights: they need the gradient of a prior model beside the critic's.")
    if np.isnan(run.measured["jacobian_error"]).all():
        drift.append("No errors of Jacobians: the task has no prior model.")
    if not np.isfinite(run.measured["value"]).any():
        drift.append("No value against its bound: no critic was given.")
    return {ERROR: error, DRIFT: drift}


def _waits(run: ProbeRun) -> str:
    return (
        f"the budget of {run.budget:.2g} has not allowed one in {run.seconds:.0f} s and "
        f"{run.updates:,} updates; a larger overhead_budget would."
    )


def _signal(table: pd.DataFrame, have: set[str]) -> list[Panel]:
    draw = partial(figures.probe_curve, table)
    share = partial(
        draw, quantity="signal_share", title="Share of signal in a batch's gradient",
        unit="|E g|² / E |g|²", level=(0.01, "cosine 0.1: no better than noise below"),
    )  # fmt: skip
    ratio = partial(
        draw, quantity="signal_to_noise", title="Signal to noise of one batch", log=True,
        unit="|E g|² / tr Cov(g)", level=(1.0, "signal = noise"),
    )  # fmt: skip
    captions = {
        "signal_share": (
            "Near 1 every batch points the same way; its root is the cosine of one batch with the "
            "mean gradient. From products of successive gradients, whose batches are taken as "
            "independent.", share),
        "signal_to_noise": (
            "One over it is the noise scale: so many batches have as much signal as noise together."
            " Falling through training is normal; at the bottom only larger batches help.", ratio),
    }  # fmt: skip
    return _having(SIGNAL, have, captions)


def _health(table: pd.DataFrame, have: set[str], tensors: int) -> list[Panel]:
    norms = "A largest norm far above the mean: single batches throw the policy; clip, or look at "
    norms += "them. Falling to 0: nothing is learned any more."
    ratio = "How far a step moves θ, relative to θ. Far above 1e-2 steps are wild, far below 1e-5 "
    ratio += "nothing moves: the learning rate sets it."
    layers = "A row much paler than its neighbours hardly learns; an empty one is cut off; all "
    layers += "rows darkening together is an explosion."
    lost = "Any bar is a fault: the alarm beside it names the sample and the first operation."
    actions = "At its limit an action passes no gradient on. Above one half the actor is stuck."
    dead = "Inputs that are always 0, or units that never fire; those of the first layer ring."
    draw = partial(
        figures.probe_curve, table, quantity="update_ratio", title="Size of an update", log=True,
        unit="|Δθ| / |θ|",
    )  # fmt: skip
    found = {
        "grad_norm": (norms, partial(figures.gradient_norms, table)),
        "update_ratio": (ratio, draw),
    }
    drawn = _having(HEALTH, have, found)
    if "layer_norm" in have:
        drawn.append(_map("layer_norm", layers, table, tensors))
    more = {
        "nonfinite": (lost, partial(figures.lost_gradients, table)),
        "saturation": (actions, partial(figures.saturated_actions, table)),
        "dead_columns": (dead, partial(figures.dead_columns, table)),
    }
    return [*drawn, *_having(HEALTH, have, more)]


def _map(quantity: str, caption: str, table: pd.DataFrame, tensors: int) -> Panel:
    """As high as its tensors need."""
    height = max(SIZE[1], min(1.6 + ROW * tensors, 2 * SIZE[1]))
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    figures.layer_norms(table, figure.add_subplot(), quantity=quantity)
    return Panel(quantity, HEALTH, caption, figure)


def _errors(run: ProbeRun) -> list[Panel]:
    """Profiles by horizon: at the newest measurement, and how they moved."""
    rows = profiles(run)
    if rows.empty:
        return []
    step = rows["step"].max()
    newest = rows[rows["step"] == step]
    estimator = next((e for e in ("model", "true_dynamics") if e in set(rows["estimator"])), "data")
    batch = int(run.measured["batch"][-1])
    told = f"At step {step:,.0f}, {run.measured['starts'][-1]:.0f} starts"
    parts = partial(figures.bias_variance, newest, estimator=estimator, batch=batch)
    found = {
        "errors": (f"{told}: whose gradient is nearest to the true one, and at which horizon?",
                   partial(figures.mse, newest)),
        "parts": (f"{told}: where squared bias and variance / N′ cross, the error is near its "
                  f"least.", parts),
    }  # fmt: skip
    drawn = {name: panel(name, ERROR, *each) for name, each in found.items()}
    kinds = set(rows["quantity"])
    moved = next((quantity for quantity in ("mse", "variance") if quantity in kinds), None)
    if moved is not None:
        caption = "The same at several steps: a least that moves asks for another horizon."
        draw = partial(figures.moved_profiles, rows, estimator=estimator, quantity=moved)
        drawn["moved"] = panel("moved", ERROR, caption, draw)
    if "mse" not in kinds:
        del drawn["errors"]
    return list(drawn.values())


def _choices(table: pd.DataFrame, have: set[str], runs: Mapping[str, ProbeRun]) -> list[Panel]:
    longest = next(iter(runs.values())).horizon
    horizons = "Set your horizon inside the bars; a bar over everything: these starts do not tell."
    weight = "1: all on the critic's own gradient; 0: all on the longest horizon."
    draw = partial(
        figures.probe_curve, table, quantity="weight_zero", unit="weight", level=(0.5, "half"),
        title=f"Measured weight of horizon 0 beside horizon {longest}",
    )  # fmt: skip
    found = {
        "chosen_horizon": (horizons, partial(figures.chosen_horizons, table, longest=longest)),
        "weight_zero": (weight, draw),
    }
    return _having(ERROR, have, found)


def _drift(table: pd.DataFrame, have: set[str]) -> list[Panel]:
    jacobians = "On states that the policy visits now. Rising: the model is wrong where the policy "
    jacobians += "goes; refit it there."
    growth = "Where a curve is above 0, its quantity multiplies with every step of the horizon: "
    growth += "shorten it, or stabilise the policy."
    value = "Beyond the dotted lines the critic promises more than all rewards together: refit it."
    draw = partial(
        figures.probe_curve, table, quantity="jacobian_ratio", log=True,
        title="Error of the model's Jacobians", unit="× the first measurement's",
        level=(1.0, "as at first"),
    )  # fmt: skip
    found = {
        "jacobian_ratio": (jacobians, draw),
        "lyapunov": (growth, partial(figures.growth_rates, table)),
        "value": (value, partial(figures.critic_values, table)),
    }
    return _having(DRIFT, have, found)


def _cost(table: pd.DataFrame, have: set[str]) -> list[Panel]:
    caption = (
        "The probe's own seconds over all that have passed. Above the budget only where the first "
        "looks or a first measurement cost more than was foreseen."
    )
    return _having(COST, have, {"share": (caption, partial(figures.probe_cost, table))})


def _having(
    section: str, have: set[str], drawn: Mapping[str, tuple[str, Callable[..., Axes]]]
) -> list[Panel]:
    """Panels of the quantities that there are."""
    return [
        panel(name, section, caption, draw)
        for name, (caption, draw) in drawn.items()
        if name in have
    ]


def _tensors(runs: Mapping[str, ProbeRun]) -> int:
    return max(len(run.parameters) for run in runs.values())
