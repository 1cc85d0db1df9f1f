"""Figures of the papers that training runs fill side by side, one axes for each group of runs.

    learning_curves    return over transitions         MAAC 1, 3, 5; DDPPO 1, 4, 5, 7; RP-PGM 1, 6
    by_horizon         the same, an axes for each h             RP-PGM 4
    by_loss            for each n, for each w, and variants     DDPPO 3
    loss_surface       of measurements, by h                    RP-PGM 3
    model_errors       of the two models, over transitions      DDPPO 6
    error_by_horizon   of the gradient by model and simulator   MAAC 2
    fit_errors         of Jacobians and predictions over fits   DDPPO 2
    gradient_horizons  variance and bias of the gradient by h   RP-PGM 2, 5

Curves are means over the seeds with one standard deviation on each side, as the papers draw them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from textwrap import fill

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import Look
from gradlab.runs.profile import Profile
from gradlab.runs.run import PlainRun
from gradlab.runs.training.results import Floats, Training
from gradlab.statistics.moments import Estimate
from gradlab.statistics.over_groups import ratio_of_means, student_mean

Groups = Mapping[str, Mapping[str, Training]]
_CELL, _WIDEST = (3.3, 2.7), 3  # inches of an axes; how many stand side by side
_COST = "transitions of a seed"
_ENDS = ("low", "high")
_ROLES = ("prediction", "gradient")  # of two models


def by_horizon(runs: Mapping[str, Training]) -> Groups:
    """A group for each longest horizon of the policy's gradient, where there are several."""
    longest = {name: max(run.horizons) for name, run in runs.items()}
    groups: dict[str, dict[str, Training]] = {}
    for h in sorted(set(longest.values())):
        own = {name: run for name, run in runs.items() if longest[name] == h}
        rows = [run.name for run in own.values()]
        named = rows if len(set(rows)) == len(rows) else list(own)  # one look for all h
        groups[f"h = {h}"] = dict(zip(named, own.values(), strict=True))
    return groups if len(groups) > 1 else {}


def by_loss(runs: Mapping[str, Training]) -> Groups:
    """Runs that differ in n alone from the first with directional derivatives, in w alone, and
    those of other losses and models beside it."""
    losses = {name: _directional(run) for name, run in runs.items()}
    own = {name: loss for name, loss in losses.items() if loss}
    if not own:
        return {}
    first = next(iter(own))
    found: dict[str, Mapping[str, Training]] = {}
    for title, letter, field in (
        ("neighbours n", "n", "neighbours"), ("weight w", "w", "weight"),
    ):  # fmt: skip
        rest = {name: {**loss, field: None} for name, loss in own.items()}
        same = [name for name in own if rest[name] == rest[first]]
        if len(same) > 1:
            same.sort(key=lambda name: float(own[name][field]))
            found[title] = {f"{letter} = {own[name][field]:g}": runs[name] for name in same}
    others = [name for name, loss in losses.items() if not loss]
    if others:
        found["variants"] = {name: runs[name] for name in (first, *others)}
    return found


def _directional(run: Training) -> Mapping[str, float]:
    """The settings of a second model's loss of directional derivatives; {} of other runs."""
    model = run.config["algorithm"].get("model") or {}
    loss: Mapping[str, float] = model.get("loss", {})
    return loss if model.get("two_models") and "neighbours" in loss else {}


def learning_curves(figure: Figure, groups: Groups) -> None:
    """Mean return of the evaluation over transitions, an axes for each group."""
    every = [run for each in groups.values() for run in each.values()]
    looks = style.looks(list(dict.fromkeys(name for each in groups.values() for name in each)))
    axes = _axes(figure, len(groups), shared=True)
    for ax, runs in zip(axes, groups.values(), strict=True):
        for name, run in runs.items():
            _curve(ax, run.evaluations["transitions"], run.returns, looks[name])
    lost = sum(int(np.isnan(run.returns[-1]).sum()) for run in every)
    note = f"; {lost} lost at the end" if lost else ""
    title = f"Return over transitions ({_seeds(every)}{note})"
    _dress(figure, axes, list(groups), title, "return of an episode", _COST)


def model_errors(figure: Figure, runs: Mapping[str, Training]) -> None:
    """Held-out share of the variance that each of the two models leaves, after every fit."""
    axes = _axes(figure, len(runs))
    for ax, run in zip(axes, runs.values(), strict=True):
        lowest = np.inf
        for role, look in zip(_ROLES, _PAIR, strict=True):
            left = 1 - run.model[f"{role}_explained"].mean(axis=2)
            label = f"{role} model ({run.config['model_losses'][role]})"
            _curve(ax, run.model["rows"], left, look, label)
            lowest = min(lowest, float(np.nanmin(left.mean(axis=1))))
        ax.set_yscale("log", nonpositive="clip")
        if lowest > 0:
            ax.set_ylim(bottom=lowest / 4)
    title = f"Prediction error of both models ({_seeds(runs.values())})"
    _dress(figure, axes, list(runs), title, "share of variance not predicted", _COST)


def error_by_horizon(figure: Figure, runs: Mapping[str, Training]) -> None:
    """|E g − ∇J| / |∇J| over the horizon at the last measurement, of the model's gradient g and of
    the same on the simulator with the same critic, from the parts of the squared bias:

    |S − T|² = |G − T|² − 2 (G − T)·(G − S) + |G − S|²     (`training.measured.row_errors`)

    with 95% of the ratio of means over the seeds (Fieller).
    """
    axes = _axes(figure, len(runs))
    for ax, run in zip(axes, runs.values(), strict=True):
        found = {column: values[-1] for column, values in run.gradients.items() if values.ndim == 3}
        horizons = run.gradients["horizon"]
        doing = found["dynamics_bias2"] - 2 * (found["bias2_states"] + found["bias2_jacobians"])
        true = found["bias2"] + np.where(horizons > 0, doing, 0.0)  # the critic alone: no model
        for square, look, label in (
            (found["bias2"], _PAIR[0], "learned model"), (true, _PAIR[1], "true dynamics"),
        ):  # fmt: skip
            # Estimates without bias may be negative: an arrow from the upper end is shown there.
            shares = np.clip(_of_means(square, found["truth2"]), 0.0, None)
            line = Curve(horizons.astype(float), *np.sqrt(shares))
            drawing.draw(ax, line, replace(look, label=label), drawing.log_floor([line]))
        ax.set_yscale("log")
    last = sorted({f"{int(run.gradients['iteration'][-1]):,}" for run in runs.values()})
    where = f"{_counted(runs.values())} after {' or '.join(last)} iterations"
    title = f"Error of the expected gradient ({where}; Euclidean norm, the paper's is L1)"
    _dress(figure, axes, list(runs), title, "error / norm of ∇J", "horizon H [steps]")


def _of_means(above: Floats, below: Floats) -> Floats:
    """mean(above) / mean(below) over seeds [seeds, horizons], with its ends: [3, horizons]."""
    ratios = []
    for parts in zip(above.T, below.T, strict=True):
        over, under = (Estimate(x.mean(), (x.sum() - x) / max(len(x) - 1, 1)) for x in parts)
        ends = ratio_of_means(over, under) if len(above) > 1 else None
        low, high = (ends.low, ends.high) if ends else (np.nan, np.nan)
        ratios.append((over.value / under.value, low, high))
    return np.array(ratios).T


def gradient_horizons(figure: Figure, runs: Mapping[str, Training]) -> None:
    """Variance and squared bias of the gradient over the horizon, pale at the first measurement of
    a run and full at its last: means over the seeds, with 95% at the last (Student)."""
    axes = _axes(figure, 2)
    for ax, quantity in zip(axes, ("variance", "bias2"), strict=True):
        lines: list[tuple[Curve, Look, float]] = []
        for name, look in style.looks(list(runs)).items():
            found, last = runs[name].gradients, len(runs[name].gradients["iteration"]) - 1
            for place, shade in zip(sorted({0, last // 2, last}), (0.3, 0.6, 1.0), strict=False):
                seeds = found[quantity][place]
                value = seeds.mean(axis=0)
                ends = np.full((2, len(value)), np.nan)
                if place == last and len(seeds) == 1:
                    ends = np.array([found[f"{quantity}_{end}"][place, 0] for end in _ENDS])
                elif place == last:
                    means = [student_mean(each) for each in seeds.T]
                    ends = np.array([[getattr(mean, end) for mean in means] for end in _ENDS])
                line = Curve(found["horizon"].astype(float), value, *ends)
                at = f"{look.label}, {int(found['iteration'][place]):,} iterations"
                lines.append((line, replace(look, label=at), shade if last else 1.0))
        floor = drawing.log_floor([line for line, _, _ in lines])
        for line, look, shade in lines:
            before = len(ax.lines)
            drawing.draw(ax, line, look, floor)
            for drawn in ax.lines[before:]:
                drawn.set_alpha(shade)
        ax.set_yscale("log")
    titles = ("Variance of one sample", "Squared bias")
    head = f"Gradients by horizon ({_counted(runs.values())}; pale: early)"
    _dress(figure, axes, titles, head, "in squared reward units", "horizon h [steps]")


def fit_errors(figure: Figure, fits: Mapping[str, PlainRun]) -> None:
    """Held-out squared errors over a fit's epochs, an axes for each task: of Jacobians against the
    simulator's, and of predictions (dotted); means over the members."""
    tasks = list(dict.fromkeys(str(fit.attributes["task"]) for fit in fits.values()))
    names = {name: str(fit.attributes["loss"]) for name, fit in fits.items()}
    told = {(names[name], fit.attributes["task"]) for name, fit in fits.items()}
    if len(told) < len(fits):  # the loss does not tell them apart
        names = {name: name for name in fits}
    axes = dict(zip(tasks, _axes(figure, len(tasks)), strict=True))
    looks = style.looks(list(dict.fromkeys(names.values())))
    for name, fit in fits.items():
        ax, columns = axes[str(fit.attributes["task"])], fit.record.groups["curves"]
        look = looks[names[name]]
        for column, own, what in (
            ("jacobian_error", look, "Jacobians"),
            ("squared_error", replace(look, dash=(0, (1, 1.5)), marker=""), "predictions"),
        ):  # fmt: skip
            label = f"{look.label}, {what}"
            _curve(ax, columns["epoch"].values, columns[column].values, own, label)
    for ax in axes.values():
        ax.set_yscale("log", nonpositive="clip")
    head = "Errors over a fit (dotted: predictions)"
    _dress(figure, list(axes.values()), tasks, head, "squared error, standardised", "epoch")


def loss_surface(figure: Figure, runs: Mapping[str, Profile]) -> None:
    """−V_h over two random directions in θ, an axes for each run and h."""
    cells = [
        (f"{name}, h = {h}" if len(runs) > 1 else f"h = {h}", run.surface, k)
        for name, run in runs.items() if run.surface is not None
        for k, h in enumerate(run.surface.unrolled)
    ]  # fmt: skip
    axes = _axes(figure, len(cells))
    for ax, (_, found, k) in zip(axes, cells, strict=True):
        rough = float(found.roughness()[k])
        mesh = ax.pcolormesh(
            found.alpha, found.beta, found.loss[k].T, cmap="viridis", shading="nearest"
        )
        ax.contour(found.alpha, found.beta, found.loss[k].T, 8, colors=style.PAPER, linewidths=0.5)
        bar = figure.colorbar(mesh, ax=ax, label="" if len(cells) > 1 else "−V")
        bar.ax.tick_params(labelsize=8)
        box = {"facecolor": style.PAPER, "edgecolor": "none", "pad": 1}
        place, text = (0.03, 0.03), f"roughness {rough:.3f}"
        ax.annotate(text, place, xycoords="axes fraction", fontsize=8, color=style.INK, bbox=box)
    titles = [title for title, _, _ in cells]
    head = "Loss −V over two random directions (roughness of a parabola: 0.010)"
    _dress(figure, axes, titles, head, "along v", "along u")


_PAIR = (Look("", style.BLUE, "-", "o"), Look("", style.VERMILION, (0, (5, 1.6)), "s"))


def _curve(ax: Axes, x: Floats, values: Floats, look: Look, label: str = "") -> None:
    """Mean of `values` [K, E] over the seeds that have one; a gap where none has."""
    values = np.ma.masked_invalid(values)
    mean = values.mean(axis=1).filled(np.nan)
    ax.plot(x, mean, color=look.colour, linestyle=look.dash, marker=look.marker, markersize=4,
            markevery=max(1, len(x) // 8), label=label or look.label)  # fmt: skip
    if values.shape[1] > 1:
        spread = values.std(axis=1, ddof=1).filled(np.nan)
        ax.fill_between(x, mean - spread, mean + spread, color=look.colour, alpha=0.15, linewidth=0,
                        label=f"_{label or look.label}")  # fmt: skip


def _axes(figure: Figure, count: int, shared: bool = False) -> list[Axes]:
    """`count` axes, at most three side by side, `shared`: of one scale; one alone has the size of a
    page's figure."""
    columns = min(count, _WIDEST)
    rows = -(-count // columns)
    if count > 1:
        figure.set_size_inches(max(style.SIZE[0], _CELL[0] * columns), _CELL[1] * rows + 0.9)
    made = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).ravel()
    for ax in made:
        ax.tick_params(labelbottom=True, labelleft=True)
    for spare in made[count:]:
        spare.set_visible(False)
    return list(made[:count])


def _dress(
    figure: Figure, axes: Sequence[Axes], titles: Sequence[str], head: str, ylabel: str, along: str
) -> None:
    """One axes as any figure; of several the title above all and each entry of the legend once."""
    if len(axes) == 1:
        style.dress(
            axes[0], head.partition(" (")[0], ylabel, [titles[0], head.partition(" (")[2][:-1]]
        )
        axes[0].set_xlabel(along, color=style.INK)
        if along == _COST:
            axes[0].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
            axes[0].xaxis.set_major_formatter(style.THOUSANDS)
        return
    handles: dict[str, Artist] = {}
    for ax, title in zip(axes, titles, strict=True):
        style.dress(ax, style.plain(title), "")
        ax.set_title(style.plain(title), loc="left", fontsize=9, color=style.INK)
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
        if along == _COST:
            ax.xaxis.set_major_formatter(style.THOUSANDS)
        ax.set_xlabel(along, color=style.INK, fontsize=9)
        for artist, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, artist)
        if legend := ax.get_legend():
            legend.remove()
    figure.legend(
        [*handles.values()], [*handles], loc="outside lower center", ncols=2, frameon=False,
        fontsize=9, labelcolor=style.INK, handlelength=3.2,
    )  # fmt: skip
    figure.supylabel(ylabel, fontsize=9, color=style.INK)
    words = fill(head, int(figure.get_figwidth() / 0.078))
    figure.suptitle(words, x=0.01, ha="left", fontsize=10, color=style.INK)


def _counted(runs: Iterable[Training]) -> str:
    counts = sorted({len(run.seeds) for run in runs})
    return "one seed" if counts == [1] else f"{' or '.join(map(str, counts))} seeds"


def _seeds(runs: Iterable[Training]) -> str:
    count = _counted(runs)
    return count if count == "one seed" else f"mean ± deviation of {count}"
