"""What `bias_variance` leaves behind: a figure and a table per task, key numbers, how it was made.

Errors are shown over |∇J|² of the noise-corrected truth, so that 1 is the error of a zero gradient.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analyses.harness.verdicts import put
from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import Look
from gradlab.runs.profile import Profile
from gradlab.statistics.intervals import Z, interval, jackknife_se

CRITICS = (1, 5, 25)  # n of the critics' targets; the models' gradients end in the last one
SEEDS = (0, 1, 2)  # of the critics
MODELS = {
    "prior": Look("prior model", style.BLUE, "-", "o"),
    "wrong": Look("wrong model", style.VERMILION, (0, (5, 1.6)), "s"),
    "true": Look("simulator itself", style.GREEN, (0, (1.2, 1.4)), "^"),
}
LEVELS = {
    1: Look("data, 1-step critics (thin: other seeds)", style.MUTED, (0, (1, 2.2)), ""),
    5: Look("data, 5-step critics", style.OCHRE, (0, (6, 1.5, 1.2, 1.5)), ""),
    25: Look("data, 25-step critics", style.INK, (0, (9, 2)), ""),
}
EARLY = {
    "early prior": Look("prior model, untrained critic", style.BLUE, "-", "o"),
    "early true": Look("simulator, untrained critic", style.GREEN, (0, (1.2, 1.4)), "^"),
}
TITLES = {
    "path-tracking": "Path tracking",
    "inverted-pendulum": "Inverted pendulum",
    "lqr": "LQR: two coupled double integrators",
    "double-integrator": "Double integrator",
}
AT_MOST = "open marker, arrow: not above 0, upper end of its interval"


def data_levels() -> Iterator[tuple[str, int, int]]:
    """Name, n and seed of every J_0."""
    for n in CRITICS:
        for seed in SEEDS:
            yield f"data {n}" + (f", seed {seed}" if seed else ""), n, seed


@dataclass(frozen=True)
class Ratio:
    """|bias| at one horizon over that at another; NaN where noise hides one of them."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not resolved"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bias_ratio(profile: Profile, name: str, later: int, earlier: int) -> Ratio:
    """|bias_later| / |bias_earlier| with a jackknife interval of its logarithm."""
    top, bottom = (profile.estimate(name, "bias2", n) for n in (later, earlier))
    if min(x.min() for x in (top.left_out, bottom.left_out)) <= 0:
        return Ratio(math.nan, math.nan, math.nan)
    half = Z * jackknife_se(0.5 * np.log(top.left_out / bottom.left_out))
    value = math.sqrt(top.value / bottom.value)
    return Ratio(value, value * math.exp(-half), value * math.exp(half))


def relative_bias(profile: Profile, name: str, horizon: int) -> str:
    """|bias|² / |∇J|² with its interval, the truth's own noise included."""
    bias, truth = profile.estimate(name, "bias2", horizon), _truth2(profile)
    found = interval("bias2", bias)
    if bias.value <= 0:
        return f"at most {found.high / truth:.2g}"
    return f"{bias.value / truth:.3g} [{found.low / truth:.2g}, {found.high / truth:.2g}]"


def largest_jump(profile: Profile, name: str) -> tuple[float, int]:
    """The largest factor between |bias| at neighbouring horizons ≥ 1, and the later of the two."""
    found = [_resolved(profile, name, n) for n in profile.horizons[1:]]
    steps = np.abs(np.diff(np.log(found))) / 2
    if not np.isfinite(steps).any():
        return math.nan, 0
    at = int(np.nanargmax(steps))
    return float(np.exp(steps[at])), at + 2


def _resolved(profile: Profile, name: str, horizon: int) -> float:
    """|bias|², NaN where its interval reaches 0."""
    bias = profile.estimate(name, "bias2", horizon)
    return bias.value if interval("bias2", bias).low > 0 else math.nan


def best(profile: Profile, name: str) -> int:
    """The horizon of the smallest mean squared error."""
    errors = [profile.estimate(name, "mse", n).value for n in profile.horizons]
    return int(np.argmin(errors))


def _truth2(profile: Profile) -> float:
    return float(profile.truth["norm"]) ** 2


def summary(profile: Profile) -> dict[str, object]:
    """The numbers of the report's table, as text and numbers."""
    H, gamma = profile.horizons[-1], float(profile.config["discount"])
    found: dict[str, object] = {
        "truth": profile.truth["reason"],
        "relative standard error of the truth": profile.truth["relative_se"],
        "norm of the truth": profile.truth["norm"],
        "γ to the H": gamma**H,
    }
    for name, *_ in data_levels():
        found[name] = relative_bias(profile, name, 0)
    for name in ("prior", "mixed prior", "wrong", "mixed wrong", "true"):
        jump, at = largest_jump(profile, name)
        # How often |bias| over n changes between rising and falling, where it is resolved.
        values = np.array([_resolved(profile, name, n) for n in profile.horizons])
        directions = np.sign(np.diff(values[np.isfinite(values)]))
        found |= {
            f"{name}: bias2 at 1": relative_bias(profile, name, 1),
            f"{name}: bias2 at H": relative_bias(profile, name, H),
            f"{name}: bias(H) / bias(1)": str(bias_ratio(profile, name, H, 1)),
            f"{name}: smallest MSE at": best(profile, name),
            f"{name}: largest jump": f"{jump:.2f} times, to n = {at}" if at else "not resolved",
            f"{name}: turns": int((np.diff(directions) != 0).sum()),
        }
    for name in EARLY:
        found[f"{name}: bias(H) / bias(0)"] = str(bias_ratio(profile, name, H, 0))
        found[f"{name}: bias(1) / bias(0)"] = str(bias_ratio(profile, name, 1, 0))
    return found


def write(profiles: Mapping[str, Profile], output: Path) -> None:
    """{task}.csv and .png, numbers.json, and the table in README.md where there is one."""
    output.mkdir(parents=True, exist_ok=True)
    made = {}
    for name, profile in profiles.items():
        table = profile.table().drop(columns=["method", "n"])
        table.to_csv(output / f"{name}.csv", index=False, float_format="%.6g")
        shown = figure(profile, name)
        FigureCanvasAgg(shown)
        shown.savefig(output / f"{name}.png", dpi=110)
        made[name] = {
            "numbers": summary(profile),
            "command": profile.config["command"],
            "starts": profile.config["starts"],
            "environment": dict(profile.environment),
        }
    text = json.dumps(made, indent=2, ensure_ascii=False)
    (output / "numbers.json").write_text(text + "\n")
    # Tasks as columns, numbers as rows.
    columns = {name: summary(profile) for name, profile in profiles.items()}
    rows = [key for key in next(iter(columns.values())) if key != "truth"]
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for key in rows:
        cells = (_cell(column[key]) for column in columns.values())
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    put(output / "README.md", "numbers", "\n".join(lines))


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def figure(profile: Profile, title: str) -> Figure:
    """Squared bias, variance / N′ and MSE over the horizon; below right, an untrained critic."""
    shown = Figure(figsize=(10.5, 8.4), layout="constrained")
    shown.suptitle(TITLES.get(title, title), x=0.01, ha="left", fontweight="bold", color=style.INK)
    panels = shown.subplots(2, 2)
    table, batch = profile.table(), profile.batch
    cells = (
        (panels[0, 0], "bias2", 1.0, "squared bias"),
        (panels[0, 1], "variance", 1 / batch, f"variance / {batch}"),
        (panels[1, 0], "mse", 1.0, f"squared bias + variance / {batch}"),
    )
    for axes, quantity, factor, label in cells:
        _panel(axes, table, quantity, factor / _truth2(profile), label)
    _early(panels[1, 1], profile)
    for axes in panels.flat:
        if axes.get_legend() is not None and axes is not panels[1, 1]:
            axes.get_legend().remove()
    handles, labels = panels[1, 0].get_legend_handles_labels()
    shown.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return shown


def _panel(axes: Axes, table: pd.DataFrame, quantity: str, factor: float, label: str) -> None:
    end = drawing.last_horizon(table)
    lines = {name: drawing.curve(table, name, quantity) for name in MODELS}
    levels = {n: drawing.curve(table, f"data {n}", quantity) for n in LEVELS}
    scaled = [None if x is None else x.scaled(factor) for x in (*lines.values(), *levels.values())]
    floor = drawing.log_floor(scaled)
    for line, look in zip(scaled, (*MODELS.values(), *LEVELS.values()), strict=True):
        if line is None:
            continue
        if len(line.value) == 1:
            drawing.level(axes, line, look, end, floor)
        else:
            drawing.draw(axes, line, look, floor)
    _other_seeds(axes, table, quantity, factor, end)
    if quantity != "variance":
        axes.axhline(
            1, color=style.PURPLE, lw=1.2, ls=(0, (2, 2)), label="zero gradient: worse above"
        )
    axes.set(yscale="log", ylim=(floor, None))
    notes = [AT_MOST] if drawing.has_bounds(scaled) else []
    style.dress(axes, label, "over the squared norm of the truth", notes)


def _other_seeds(axes: Axes, table: pd.DataFrame, quantity: str, factor: float, end: float) -> None:
    """The levels of critics of other seeds, as thin lines without an interval."""
    for name, n, seed in data_levels():
        line = drawing.curve(table, name, quantity)
        if seed and line is not None and line.value[0] > 0:
            height, look = factor * line.value[0], LEVELS[n]
            axes.plot([0, end], [height] * 2, color=look.colour, ls=look.dash, lw=0.8)


def _early(axes: Axes, profile: Profile) -> None:
    """|bias_n| / |bias_0| with an untrained critic, beside γⁿ."""
    n, gamma = np.array(profile.horizons), float(profile.config["discount"])
    for name, look in EARLY.items():
        ratios = [bias_ratio(profile, name, int(h), 0) for h in n]
        columns = (np.array([getattr(r, key) for r in ratios]) for key in ("value", "low", "high"))
        drawing.draw(axes, Curve(n.astype(float), *columns), look)
    axes.plot(n, gamma**n, color=style.INK, lw=1.4, label=f"γⁿ, γ = {gamma:g}")
    axes.set(yscale="log")
    style.dress(axes, "with an untrained critic", "|bias at n| / |bias at 0|")
