"""The page of a probe's run: verdict, alarms, signal, health, errors on the task, price.

Which figures show what it saw, and what to look for in each; a section says in one line each what
this run has no numbers for, and how to get them.
"""

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
from gradlab.probe.alarms.evidence import fault
from gradlab.reporting import shell
from gradlab.reporting.page import NOWHERE, Page, PageSource, Panel, Section, method, panel
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.tables import WORDS, chains, choices, curves, profiles
from gradlab.verdicts.probe.screen import screen
from gradlab.wording import two, with_interval

_RETURN = "Does the return rise?"
SIGNAL = "Is there a signal in the noise?"
HEALTH = "Is the gradient sound?"
_ERROR = "Is it right? Bias and variance on the task"
DRIFT = "What the error comes from"
_COST = "What the probe cost"
_SECTIONS = {
    _RETURN: ("returns", "episodes", "value", "gains"),
    SIGNAL: ("signal_share",),
    HEALTH: (
        "grad_norm", "update_ratio", "critic_loss", "layer_norm", "saturation", "attenuation",
    ),
    _ERROR: ("errors", "parts", "cosine", "chosen", "weight_zero"),
    DRIFT: ("jacobian_ratio", "lyapunov", "chain"),
    _COST: ("share",),
}  # fmt: skip
ORDER = tuple(_SECTIONS)
_ROW = 0.16  # inches of a map per tensor
_TASK = "No task was given: gradlab.Probe(…, task=…, critic=…) measures bias and variance on it."
_WITHOUT = (
    "The return was not measured: gradlab.Probe(…, env=make_env) plays whole episodes, and "
    "note(episode_return=…) hands over the loop's own."
)
CAPTIONS = {
    "returns": "Mean of 16 whole episodes without noise, each of another iterate. One window below "
    "the one before is normal; three below the first are not.",
    "episodes": "Mean of at least 8 episodes of training, with their noise.",
    "gains": "Each window of 16 episodes less the one before (Welch, 95%). Above 0 the updates "
    "between raised the return.",
    "signal_share": "Near 1 every batch points the same way; the root is the cosine of one batch "
    "with the mean gradient. From products of successive gradients.",
    "grad_norm": "A largest norm far above the mean: single batches throw the policy. Falling to "
    "0: nothing is learned any more.",
    "update_ratio": "How far a step moves θ, relative to θ. Sudden rises are wild steps; next to "
    "nothing, and the policy stands still.",
    "critic_loss": "As the loop noted it. A loss that climbs with the gradient norm: the critic "
    "blows up, and the policy follows it.",
    "layer_norm": "A row much paler than its neighbours hardly learns; a hatched one is cut off.",
    "saturation": "At its limit an action passes no gradient on. Near 1 little is left to learn "
    "from, which a bang-bang policy may not need: returns decide.",
    "attenuation": "What comes back through a tanh at the end: near 0 the actor hardly learns.",
    "errors": "Whose gradient is nearest to the true one, and at which horizon?",
    "parts": "Where squared bias and variance / N′ cross, the error is near its least.",
    "cosine": "1 is the true direction; at 0 a step along the gradient gains nothing.",
    "chosen": "Set your horizon where the marks are; marks everywhere: these starts do not decide.",
    "weight_zero": "1: all on the critic's own gradient; 0: all on the longest horizon.",
    "jacobian_ratio": "At states that the policy visits now. Rising: refit the model there.",
    "lyapunov": "Above 0, errors multiply with every step of the horizon: shorten it.",
    "chain": "A straight rise is an explosion of what flows back through so many steps.",
    "value": "Beyond the dotted lines the critic promises more than all rewards together.",
    "share": "The probe's own seconds over all that have passed.",
}


def panels(run: ProbeRun) -> list[Panel]:
    """What the run has numbers for, in the order of the sections."""
    table = curves(run)
    # What is known at two steps or more: a single point is no curve.
    known = table[np.isfinite(table["value"])]
    steps = known.groupby("quantity")["step"].nunique()
    have = set(steps.index[steps > 1])
    curve = _over_steps(run.horizon)
    drawn = [_panel(name, draw, table) for name, draw in curve.items() if name in have]
    if "layer_norm" in have:
        height = max(SIZE[1], min(1.6 + _ROW * len(run.parameters), 2 * SIZE[1]))
        drawn.append(_panel("layer_norm", figures.layer_norms, table, high=height))
    drawn += _errors(run)
    if not (rows := chains(run)).empty:
        drawn.append(_panel("chain", figures.moved_chains, rows))
    if (rows := choices(run))["step"].nunique() > 1:
        drawn.append(_panel("chosen", figures.chosen_horizons, rows, longest=run.horizon))
    order = [name for names in _SECTIONS.values() for name in names]
    return sorted(drawn, key=lambda each: order.index(each.name))


def _over_steps(horizon: int | None) -> dict[str, Callable[..., Axes]]:
    """What is drawn over the steps of a loop, by name."""

    def curve(name: str, title: str, unit: str, **more: Any) -> Callable[..., Axes]:
        return partial(figures.probe_curve, quantity=name, title=title, unit=unit, **more)

    def actions(name: str, title: str, unit: str) -> Callable[..., Axes]:
        return partial(figures.action_shares, quantity=name, title=title, unit=unit)

    return {
        "returns": curve("returns", "Return of the policy", "reward"),
        "episodes": curve("episodes", "Return in training", "reward"),
        "gains": curve("gains", "What the last updates brought", "reward",
                       level=(0.0, "no change")),
        "value": figures.critic_values,
        "signal_share": curve(
            "signal_share", "Share of signal in a batch's gradient", "|E g|² / E |g|²",
            level=(0.01, "cosine 0.1: no better than noise below"),
        ),
        "grad_norm": figures.gradient_norms,
        "update_ratio": curve("update_ratio", "Size of an update", "|Δθ| / |θ|", log=True),
        "critic_loss": curve("critic_loss", "The critic's loss", "as noted", log=True),
        "saturation": actions("saturation", "Saturated actions", "share at the limit"),
        "attenuation": actions("attenuation", "Gradient that passes a tanh",
                               "mean of 1 − (a / limit)²"),
        "weight_zero": curve(
            "weight_zero", f"Measured weight of horizon 0 beside horizon {horizon}", "weight",
            level=(0.5, "half"),
        ),
        "jacobian_ratio": curve(
            "jacobian_ratio", "Error of the model's Jacobians", "× the first measurement's",
            log=True, level=(1.0, "as at first"),
        ),
        "lyapunov": figures.growth_rates,
        "share": figures.probe_cost,
    }  # fmt: skip


def absent(run: ProbeRun) -> dict[str, list[str]]:
    """Section → a line for each thing that has no panel: because all is well, or how to get it."""
    reasons: dict[str, list[str]] = {name: [] for name in ORDER}
    if not run.vitals:
        why = "No row yet: the first comes after 100 updates."
        reasons |= {HEALTH: [why], _COST: [why]}
    else:
        # What was found that has no panel, and what could not be examined.
        drawn = []
        if run.successive and (most := int(np.nanmax(run.successive["dead_columns"], initial=0))):
            of = int(np.nanmax(run.successive["columns"]))
            drawn.append(
                f"Columns of weights without a gradient through a burst: up to {most} of {of}."
            )
        if not np.isfinite(run.vitals["update_ratio"]).any():
            drawn.append("No sizes of updates: give the probe the policy's optimizer.")
        if not np.isfinite(run.vitals.get("saturation", np.empty(0))).any():
            drawn.append(
                "No saturation: no limit of the actions is known, from the task's action_limit, "
                "the policy's action_scale or limit (policy.limit = 2.0), or a tanh at its end."
            )
        reasons[HEALTH] = drawn
    if not run.returns and not run.episodes:
        waits = _waits(run, "returns") if "returns: " in run.due else ""
        reasons[_RETURN] = [f"No episode yet{waits}" if waits else _WITHOUT]
    if not run.successive:
        reasons[SIGNAL] = [f"No burst of successive gradients yet{_waits(run, 'signal')}"]
    elif not np.isfinite(run.successive["share_se"]).any():
        reasons[SIGNAL] = ["No burst of successive gradients was finite."]
    reasons |= _absent_on_the_task(run)
    if run.measured and not np.isfinite(run.measured["value"]).any():
        reasons[_RETURN].append("No critic's value against the return: no critic was given.")
    table = curves(run)
    for section in reasons:
        reasons[section] = [*reasons[section], *_known_once(table, section)]
    return reasons


def _known_once(table: pd.DataFrame, section: str) -> list[str]:
    """One line of what is known at a single step, which a curve over time cannot show."""
    known = table[np.isfinite(table["value"])]
    values = []
    for name in _SECTIONS[section]:
        few = known[known["quantity"] == name]
        if len(few) == 1 and name in WORDS:
            row = few.iloc[0]
            value, low, high = (row[column] for column in ("value", "ci_low", "ci_high"))
            ends = np.isfinite([low, high]).all()
            text = with_interval(value, low, high) if ends else two(value)
            values.append(f"{WORDS[name]} {text}, step {row['step']:,.0f}")
    return [f"Known at one step so far: {'; '.join(values)}."] if values else []


def _absent_on_the_task(run: ProbeRun) -> dict[str, list[str]]:
    if run.horizon is None:
        return {_ERROR: [_TASK]}
    if not run.measured:
        return {_ERROR: [f"No measurement yet{_waits(run, 'task')}"]}
    error, drift = [], []
    if not np.isfinite(run.measured["variance"]).any():
        error.append("No gradients were measured: give the probe a critic, the tail of theirs.")
    elif not np.isfinite(run.measured["bias2"]).any():
        error.append("No bias: the true gradient was admissible at no measurement.")
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


def _errors(run: ProbeRun) -> list[Panel]:
    """Over the horizon, at the newest measurement."""
    rows = profiles(run)
    if rows.empty:
        return []
    kinds, names = set(rows["quantity"]), set(rows["estimator"])
    newest = rows[rows["step"] == rows["step"].max()]
    name = next((each for each in ("model", "true_dynamics") if each in names), "data")
    batch = int(run.measured["batch"][-1])
    drawn: dict[str, Callable[..., Axes]] = {"errors": figures.mse} if "mse" in kinds else {}
    drawn["parts"] = partial(figures.bias_variance, estimator=name, batch=batch)
    if "cosine" in kinds:
        drawn["cosine"] = figures.cosine
    when = f" Step {newest['step'].iloc[0]:,.0f}, {run.measured['starts'][-1]:.0f} starts."
    return [_panel(each, draw, newest, when) for each, draw in drawn.items()]


def _panel(
    name: str, draw: Callable[..., Axes], table: pd.DataFrame, more: str = "", **settings: Any
) -> Panel:
    section = next(each for each, names in _SECTIONS.items() if name in names)
    return panel(name, section, CAPTIONS[name] + more, draw, table, **settings)


def page(run: ProbeRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a probe shows; `name` is its title where no task was given."""
    missing = absent(run)
    sections = (
        _alarms(run),
        *(Section(each, lines=tuple(missing[each])) for each in ORDER),
        _method(run),
    )
    question, drawn = "Are the gradients of this loop any good?", tuple(panels(run))
    source = replace(source, command="")  # a loop of the user's: no command makes it again
    spent = run.spent
    facts = {
        "task": run.task or "none given",
        "step": f"{run.step:,}",
        "updates": f"{run.updates:,}",
        "budget": f"{100 * run.budget:.3g}% of the time",
        "spent": f"{100 * spent:.2g}%" if np.isfinite(spent) else "",
        "due": "" if run.abandoned else run.due,
        "wall time": shell.seconds(run.seconds) if np.isfinite(run.seconds) else "",
        "seed": run.attributes.get("seed"),
    }
    title = run.task or name
    return Page(title, question, facts, screen(run), drawn, sections, source, apart=False)


def _alarms(run: ProbeRun) -> Section:
    """Every fault in the order in which they were first seen, with their last message."""
    if not run.alarms:
        return Section("Alarms")
    rows: dict[tuple[str, str], list[int]] = {}
    message, kinds = run.alarms["message"], map(str, run.alarms["alarm"])
    for k, kind in enumerate(kinds):
        rows.setdefault((kind, fault(kind, str(message[k]))), []).append(k)
    about = "A fault is reported again when it is seen after twice as many updates."
    if any("last look at update" in str(proof) for proof in run.checks.get("proof", ())):
        about += " Under Why, the line of the check says when its last look was."
    step = run.alarms["step"]
    raised = [
        (kind, "", "step", [f"{step[k]:,.0f}" for k in own], str(message[own[-1]]))
        for (kind, _), own in rows.items()
    ]
    return Section("Alarms", body=shell.alarms(about, raised), name="alarms", opened=True)


def _method(run: ProbeRun) -> Section:
    rest = {key: value for key, value in run.config.items() if key not in ("parameters", "shapes")}
    rest["tensors"] = list(run.parameters)
    counted = {
        "rows of vitals": len(run.vitals.get("update", ())),
        "bursts of successive gradients": len(run.successive.get("update", ())),
        "measurements on the task": len(run.measured.get("update", ())),
        "alarms": len(run.alarms.get("number", ())),
    }
    columns = {
        "Settings": rest,
        "Rows in the file": counted,
        "Versions and machine": run.environment,
    }
    return method(None, columns)
