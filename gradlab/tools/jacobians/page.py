"""The page of a comparison of Jacobians: verdict, where the model is wrong, how far one may chain.

The numbers of every singular value would fill a book: the page keeps those that a reader decides
from, the file has all of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from matplotlib.figure import Figure

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.reporting import shell
from gradlab.reporting.kinds import Kind
from gradlab.reporting.numbers import by_section
from gradlab.reporting.page import (
    NOWHERE,
    Page,
    PageSource,
    Panel,
    Section,
    folded,
    method_of,
    panel,
)
from gradlab.tools.jacobians.findings import screen
from gradlab.tools.jacobians.result import JacobianRun

_ERROR = "Where the model's derivatives are wrong"
_SIMULATOR = "The simulator's derivatives"
_GROWTH = "How far they can be chained"
_NUMBERS = "Numbers"
_TABLES = {
    "block": "Errors of blocks",
    "certificate": "Certificate of the simulator's Jacobians",
    "horizon": "What follows",
    "exponent": "Lyapunov exponents",
    "distance": "Errors by distance from the data",
}
_HEADINGS = {
    "block": "block",
    "output": "direction",
    "quantity": "quantity",
    "x": "distance",
    "value": "value",
    "ci_low": "95 % from",
    "ci_high": "to",
    "n": "n",
    "method": "interval by",
}
_SIDE = 0.42  # inches per row of a large map


def panels(run: JacobianRun) -> list[Panel]:
    """The figures of a comparison; those of a model only where there was one."""
    table, H = run.table(), int(run.config["horizon"])
    size = "Which input moves which output at all, on the simulator."
    time = "Constant: the model. Falling or rising: where on the way it is wrong."
    growth = "A gradient through h steps grows like the upper curve at h."
    exponents = "Each direction's growth per step; the first decides."
    drawn = [
        _map_panel("entries-size", _SIMULATOR, size, run, "size"),
        panel("growth", _GROWTH, growth, partial(figures.product_growth, table)),
        panel("exponents", _GROWTH, exponents, partial(figures.lyapunov, table)),
    ]
    if run.config.get("model") is None:
        flags = "Where contacts or limits spoil the differences, and where rollouts have ended."
        flags_panel = panel("time", _SIMULATOR, flags, partial(figures.jacobian_time, table))
        return [drawn[0], flags_panel, *drawn[1:]]
    error = "Full colour: what the model should learn first, and which data would teach it."
    chain = f"Beyond the line at 1 the model's Jacobians say nothing after so many of {H} steps."
    caption = "Along the dashed line the error grows linearly, as Condition 1 of MPG supposes."
    effect = "Full colour: the errors that move the gradient; the others cost nothing here."
    errors = [
        _map_panel("entries-effect", _ERROR, effect, run, "effect"),
        _map_panel("entries-error", _ERROR, error, run, "error"),
        replace(drawn[0], section=_ERROR),
        panel("time", _ERROR, time, partial(figures.jacobian_time, table)),
    ]
    if not run.rows("distance").empty:
        away = "Rising: more data would help where the policy goes; flat: they would not."
        errors.append(panel("distance", _ERROR, away, partial(figures.jacobian_distance, table)))
    chains = [
        panel("chain-error", _GROWTH, chain, partial(figures.chain_error, table)),
        panel("model-error", _GROWTH, caption, partial(figures.model_error, table)),
    ]
    return [*errors, *drawn[1:], *chains]


def page(run: JacobianRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a comparison shows; `name` is its title where no task is known."""
    drawn = tuple(panels(run))
    numbers = (
        "<p>Click a heading to sort. Every entry, step and singular value is in the file.</p>"
        + by_section(run.table(), _TABLES, _HEADINGS)
    )
    sections = (
        *folded(_NUMBERS, drawn),
        Section(_NUMBERS, body=numbers),
        method_of(run.config, run.environment, {"What was masked": run.notes}),
    )
    title = str(run.config.get("task") or name)
    question = "How good are these Jacobians?"
    config, environment = run.config, run.environment
    facts = {
        "task": config.get("task"),
        "simulator": config.get("simulator"),
        "model": config.get("model") or "none",
        "policy": config.get("policy") or shell.short(config.get("policy_hash")),
        "starts": config.get("starts"),
        "steps": config.get("horizon"),
        "seed": config.get("seed"),
        "precision": environment.get("precision"),
        "wall time": shell.seconds(environment.get("wall_seconds")),
    }
    return Page(title, question, facts, screen(run), drawn, sections, source)


def _map_panel(name: str, section: str, caption: str, run: JacobianRun, quantity: str) -> Panel:
    """A map as high as its rows need."""
    height = max(SIZE[1], min(_SIDE * (len(run.state_names) + 3), 2 * SIZE[1]))
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    figures.jacobian_entries(run.table(), figure.add_subplot(), quantity=quantity)
    return Panel(name, section, caption, figure)


KIND = Kind(JacobianRun.load, page, screen)
