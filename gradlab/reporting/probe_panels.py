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
from gradlab.reporting.page import Panel, panel
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.tables import WORDS, chains, choices, curves, profiles
from gradlab.wording import span, two

RETURN = "Does the return rise?"
SIGNAL = "Is there a signal in the noise?"
HEALTH = "Is the gradient sound?"
_ERROR = "Is it right? Bias and variance on the task"
DRIFT = "What the error comes from"
_COST = "What the probe cost"
ORDER = (RETURN, SIGNAL, HEALTH, _ERROR, DRIFT, _COST)
_ROW = 0.16  # inches of a map per tensor
_TASK = (
    "No task was given: gradlab.Probe(policy, optimizer, task=…, critic=…) measures bias and "
    "variance by horizon, the best horizon and its weights, Jacobians, growth and the critic."
)
_WITHOUT = (
    "Nobody looked at the return: gradlab.Probe(policy, optimizer, env=make_env) plays whole "
    "episodes, and note(episode_return=…) hands over the loop's own."
)
CAPTIONS = {
    "returns": "Mean of 16 whole episodes without noise, each of another iterate, from fresh "
    "resets. A window below the one before it is normal; three below the first are not.",
    "episodes": "Mean of 8 episodes of training, with its noise.",
    "gains": "Each window of 16 episodes less the one before, with its 95% interval (Welch). Above "
    "0 the updates between raised the return.",
    "episode_gains": "The same of windows of 8 training episodes.",
    "signal_share": "Near 1 every batch points the same way; the root is the cosine of one batch "
    "with the mean gradient. From products of successive gradients, whose batches are taken as "
    "independent.",
    "signal_to_noise": "One over it is the noise scale: the mean of so many batches has as much "
    "signal as noise. Falling through training is normal; at the bottom only larger batches help.",
    "grad_norm": "A largest norm far above the mean: single batches throw the policy; clip, or "
    "look at them. Falling to 0: nothing is learned any more.",
    "update_ratio": "How far a step moves θ, relative to θ. Sudden rises are wild steps; at next "
    "to nothing the policy stands still. The learning rate sets the level.",
    "critic_loss": "As the loop noted it. A loss that climbs with the gradient norm: the critic is "
    "what blows up, and the policy follows it.",
    "episode_return": "As the loop noted it. Falling while the gradient looks sound: the gradient "
    "points at something else than the return.",
    "layer_norm": "A row much paler than its neighbours hardly learns; a hatched one is cut off; "
    "all rows darkening together is an explosion.",
    "nonfinite": "Any bar is a fault: an alarm names the sample and the first operation.",
    "saturation": "At its limit an action passes no gradient on. Above one half the actor is "
    "stuck.",
    "attenuation": "The factor of every gradient that comes back through a tanh at the end: near "
    "0 the actor hardly learns, even though no action is at its limit.",
    "dead_columns": "Inputs that are always 0, or units that never fire; those of the first layer "
    "raise an alarm.",
    "errors": "Whose gradient is nearest to the true one, and at which horizon?",
    "parts": "Where squared bias and variance / N′ cross, the error is near its least.",
    "cosine": "1 is the true direction; at 0 a step along the gradient gains nothing.",
    "moved": "The same through training: a least that moves asks for another horizon.",
    "chosen": "Set your horizon where the marks are; marks everywhere: these starts do not decide.",
    "weight_zero": "1: all on the critic's own gradient; 0: all on the longest horizon.",
    "jacobian_ratio": "On states that the policy visits now. Rising: the model is wrong where the "
    "policy goes; refit it there.",
    "lyapunov": "Above 0, errors multiply with every step of the horizon: shorten it, or stabilise "
    "the policy.",
    "chain": "A straight rise is an explosion of what flows back through so many steps.",
    "value": "Beyond the dotted lines the critic promises more than all rewards together: refit "
    "it.",
    "share": "The probe's own seconds over all that have passed. Above the budget only where the "
    "first evaluations or a first measurement cost more than was foreseen.",
}


def panels(run: ProbeRun) -> list[Panel]:
    """What the run has numbers for, in the order of the sections."""
    return several({"": run})


def several(runs: Mapping[str, ProbeRun]) -> list[Panel]:
    """The same for several seeds of one training, whose curves are drawn thin; over the horizon
    only a single run is shown."""
    table = curves(runs)
    drawn = [
        *_return(table),
        *_signal(table),
        *_health(table, max(len(run.parameters) for run in runs.values())),
    ]
    alone = next(iter(runs.values())) if len(runs) == 1 else None
    drawn += _errors(alone) if alone is not None else []
    weights = partial(
        figures.probe_curve, table, quantity="weight_zero", unit="weight", level=(0.5, "half"),
        title=f"Measured weight of horizon 0 beside horizon {next(iter(runs.values())).horizon}",
    )  # fmt: skip
    jacobians = partial(
        figures.probe_curve, table, quantity="jacobian_ratio", log=True,
        title="Error of the model's Jacobians", unit="× the first measurement's",
        level=(1.0, "as at first"),
    )  # fmt: skip
    drift = {"jacobian_ratio": jacobians, "lyapunov": partial(figures.growth_rates, table)}
    drawn += [*_choices(runs), *_having(_ERROR, table, {"weight_zero": weights})]
    drawn += _having(DRIFT, table, drift)
    if alone is not None and not (rows := chains(alone)).empty:
        chain = partial(figures.moved_chains, rows)
        drawn.append(panel("chain", DRIFT, CAPTIONS["chain"], chain))
    return [*drawn, *_having(_COST, table, {"share": partial(figures.probe_cost, table)})]


def absent(run: ProbeRun) -> dict[str, list[str]]:
    """Section → a line for each thing that has no panel: because all is well, or how to get it."""
    reasons: dict[str, list[str]] = {name: [] for name in ORDER}
    if not run.vitals:
        why = "No row yet: the first comes after 100 updates."
        reasons |= {HEALTH: [why], _COST: [why]}
    else:
        reasons[HEALTH] = _sound(run)
    if not run.returns and not run.episodes:
        waits = _waits(run, "returns") if "returns: " in run.due else ""
        reasons[RETURN] = [f"No episode yet{waits}" if waits else _WITHOUT]
    if not run.successive:
        reasons[SIGNAL] = [f"No burst of successive gradients yet{_waits(run, 'signal')}"]
    elif not np.isfinite(run.successive["share_se"]).any():
        reasons[SIGNAL] = ["No burst of successive gradients was finite."]
    reasons |= _absent_on_the_task(run)
    if run.measured and not np.isfinite(run.measured["value"]).any():
        reasons[RETURN].append("No critic's value against the return: no critic was given.")
    table = curves({"": run})
    for section in reasons:
        reasons[section] = [*reasons[section], *_known_once(table, section)]
    return reasons


_ONCE = {
    RETURN: ("returns", "episodes", "episode_return", "value", "gains", "episode_gains"),
    SIGNAL: ("signal_share",),
    HEALTH: ("grad_norm", "update_ratio", "critic_loss"),
    _ERROR: ("weight_zero",),
    DRIFT: ("lyapunov",),
}


def _known_once(table: pd.DataFrame, section: str) -> list[str]:
    """One line of what is known at a single step, which a curve over time cannot show."""
    known = table[np.isfinite(table["value"])]
    rows = {name: known[known["quantity"] == name] for name in _ONCE.get(section, ())}
    values = []
    for name, few in rows.items():
        if len(few) == 1:
            row = few.iloc[0]
            text = f"{WORDS[name]} {two(row['value'])}"
            if np.isfinite([row["ci_low"], row["ci_high"]]).all():
                text += f" (CI {span(row['ci_low'], row['ci_high'])})"
            values.append(f"{text}, step {row['step']:,.0f}")
    return (
        [f"Known at one step, drawn over time from two on: {'; '.join(values)}."] if values else []
    )


def _sound(run: ProbeRun) -> list[str]:
    """What was searched for and not found, and what could not be examined."""
    drawn = []
    if not run.vitals["nonfinite_updates"].any():
        drawn.append("Every gradient that was examined is finite.")
    if run.successive and not run.successive["dead_columns"].any():
        drawn.append("No column of weights was without a gradient through a burst.")
    if not np.isfinite(run.vitals["update_ratio"]).any():
        drawn.append("No sizes of updates: give the probe the policy's optimizer.")
    if not np.isfinite(run.vitals.get("saturation", np.empty(0))).any():
        drawn.append(
            "No saturation: no limit of the actions is known. The probe takes it from the task's "
            "action_limit, from the policy's action_scale or limit, or from a tanh at its end."
        )
    return drawn


def _absent_on_the_task(run: ProbeRun) -> dict[str, list[str]]:
    if run.horizon is None:
        return {_ERROR: [_TASK]}
    if not run.measured:
        return {_ERROR: [f"No measurement yet{_waits(run, 'task')}"]}
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
    return {_ERROR: error, DRIFT: drift}


def _waits(run: ProbeRun, what: str) -> str:
    """Why not, and when: in the probe's own words where its version says them."""
    for each in run.due.split("; "):
        if each.startswith(f"{what}: "):
            return f" ({each.removeprefix(f'{what}: ')})."
    if not np.isfinite(run.seconds):
        return "."
    return (
        f": the budget of {run.budget:.2g} has not allowed one in {run.seconds:.0f} s and "
        f"{run.updates:,} updates; a larger overhead_budget would."
    )


def _return(table: pd.DataFrame) -> list[Panel]:
    draw = partial(figures.probe_curve, table)
    titles = {
        "returns": "Return of the policy",
        "episodes": "Return in training",
        "episode_return": "Return of an episode",
        "gains": "What the last updates brought",
        "episode_gains": "What they brought in training",
    }
    drawn = {
        name: partial(
            draw, quantity=name, title=title, unit="reward",
            level=(0.0, "no change") if name.endswith("gains") else None,
        )
        for name, title in titles.items()
    }  # fmt: skip
    drawn["value"] = partial(figures.critic_values, table)
    return _having(RETURN, table, {name: drawn[name] for name in WORDS if name in drawn})


def _signal(table: pd.DataFrame) -> list[Panel]:
    draw = partial(figures.probe_curve, table)
    drawn = {
        "signal_share": partial(
            draw, quantity="signal_share", title="Share of signal in a batch's gradient",
            unit="|E g|² / E |g|²", level=(0.01, "cosine 0.1: no better than noise below"),
        ),
        "signal_to_noise": partial(
            draw, quantity="signal_to_noise", title="Signal to noise of one batch", log=True,
            unit="|E g|² / tr Cov(g)", level=(1.0, "signal = noise"),
        ),
    }  # fmt: skip
    return _having(SIGNAL, table, drawn)


def _health(table: pd.DataFrame, tensors: int) -> list[Panel]:
    ratio = partial(
        figures.probe_curve, table, quantity="update_ratio", title="Size of an update", log=True,
        unit="|Δθ| / |θ|",
    )  # fmt: skip
    first = {"grad_norm": partial(figures.gradient_norms, table), "update_ratio": ratio}
    first["critic_loss"] = partial(
        figures.probe_curve, table, quantity="critic_loss", title="The critic's loss", log=True,
        unit="as noted",
    )  # fmt: skip
    more = {
        "nonfinite": partial(figures.lost_gradients, table),
        "saturation": partial(
            figures.action_shares, table, quantity="saturation", title="Saturated actions",
            unit="share at the limit",
        ),
        "attenuation": partial(
            figures.action_shares, table, quantity="attenuation", title="Gradient that passes a "
            "tanh", unit="mean of 1 − (a / limit)²",
        ),
        "dead_columns": partial(figures.dead_columns, table),
    }  # fmt: skip
    counted = table[table["quantity"].isin(["nonfinite", "dead_columns"])]
    never = counted.groupby("quantity")["value"].max() == 0
    seen = table[~table["quantity"].isin(never.index[never])]
    maps = [_map(table, tensors)] if "layer_norm" in _over_time(table) else []
    return [*_having(HEALTH, table, first), *maps, *_having(HEALTH, seen, more)]


def _map(table: pd.DataFrame, tensors: int) -> Panel:
    """As high as its tensors need."""
    height = max(SIZE[1], min(1.6 + _ROW * tensors, 2 * SIZE[1]))
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    figures.layer_norms(table, figure.add_subplot())
    return Panel("layer_norm", HEALTH, CAPTIONS["layer_norm"], figure)


def _errors(run: ProbeRun) -> list[Panel]:
    """Over the horizon: at the newest measurement, and how that moved."""
    rows = profiles(run)
    if rows.empty:
        return []
    kinds, names = set(rows["quantity"]), set(rows["estimator"])
    newest = rows[rows["step"] == rows["step"].max()]
    name = next((each for each in ("model", "true_dynamics") if each in names), "data")
    batch = int(run.measured["batch"][-1])
    moved = "mse" if "mse" in kinds else "variance"
    drawn = {"errors": partial(figures.mse, newest)} if "mse" in kinds else {}
    drawn["parts"] = partial(figures.bias_variance, newest, estimator=name, batch=batch)
    if rows["step"].nunique() > 1:
        drawn["moved"] = partial(figures.moved_profiles, rows, estimator=name, quantity=moved)
    if "cosine" in kinds:
        drawn["cosine"] = partial(figures.cosine, newest)
    when = f"Step {newest['step'].iloc[0]:,.0f}, {run.measured['starts'][-1]:.0f} starts."
    dated = {each: f"{CAPTIONS[each]} {'' if each == 'moved' else when}".strip() for each in drawn}
    return [panel(each, _ERROR, dated[each], draw) for each, draw in drawn.items()]


def _choices(runs: Mapping[str, ProbeRun]) -> list[Panel]:
    rows, longest = choices(runs), next(iter(runs.values())).horizon
    draw = partial(figures.chosen_horizons, rows, longest=longest)
    several_steps = rows["step"].nunique() > 1
    return [panel("chosen", _ERROR, CAPTIONS["chosen"], draw)] if several_steps else []


def _over_time(table: pd.DataFrame) -> set[str]:
    """Quantities known at two steps or more: a single point is no curve."""
    known = table[np.isfinite(table["value"])]
    steps = known.groupby("quantity")["step"].nunique()
    return set(steps.index[steps > 1])


def _having(
    section: str, table: pd.DataFrame, drawn: Mapping[str, Callable[..., Axes]]
) -> list[Panel]:
    """Panels of the quantities that the table has at several steps."""
    have = _over_time(table)
    return [
        panel(name, section, CAPTIONS[name], draw) for name, draw in drawn.items() if name in have
    ]
