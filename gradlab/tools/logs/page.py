"""The page of logs and a model: what the data support, how noisy they are."""

from __future__ import annotations

from gradlab import figures
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
from gradlab.tools.logs.findings import advice
from gradlab.tools.logs.result import LogsRun

_SUPPORT = "What the data support"
_NOISE = "How much the data can tell"
_MODEL = "The model by itself, on these data"
_NUMBERS = "Numbers"
_SECTIONS = {
    "agreement": "The model's gradient against scores",
    "gradient": "Every gradient by itself",
    "policy": "The policy's own noise in the recorded actions",
    "critic": "Critics",
    "direction": "Derivatives against neighbours",
    "prediction": "Prediction errors",
}
_HEADINGS = {
    "block": "gradient",
    "output": "coordinate",
    "step": "horizon or step",
    "quantity": "quantity",
    "value": "value",
    "ci_low": "95 % from",
    "ci_high": "to",
    "n": "n",
    "method": "interval by",
}
_WORDS = """<p>Without a simulator there is no truth, and no bias of the whole gradient. The mean
of a <em>score</em> (likelihood ratio) is the gradient of the recorded return, whatever model and
critic are worth; its noise is large. The <em>model's</em> gradient takes the model's Jacobians at
the recorded states: what it differs by from the score of the same return is their doing. These
data cannot tell what the model would do along its own predictions, nor what the policy would earn
after a step.</p>"""


def panels(run: LogsRun) -> list[Panel]:
    """The figures, those without numbers left out."""
    table, drawn = run.table(), []
    if run.config["stochastic"] and run.config["model"] is not None:
        caption = "Up to where the upper end stays below the line, the data support the model."
        drawn.append(panel("agreement", _SUPPORT, caption, figures.logged_agreement, table))
    if run.config["stochastic"] or run.config["model"] is not None:
        referee = "Below the line the mean of these trajectories is too noisy to judge by."
        noise = "The score's price for being unbiased; a straight rise is an explosion."
        drawn += [
            panel("referee", _NOISE, referee, figures.logged_referee, table),
            panel("noise", _NOISE, noise, figures.logged_noise, table),
        ]
    if run.config["model"] is None:
        return drawn
    if int(run.config["critics"]) > 1:
        critics = "The same data with another critic."
        drawn.append(panel("critics", _NOISE, critics, figures.logged_critics, table))
    direction = "Of the model's slopes, per output; grey: how much of the evidence is noise."
    ahead = "States that differ have other Jacobians: beyond 100 % predictions say nothing."
    return [
        *drawn,
        panel("direction", _MODEL, direction, figures.logged_direction, table),
        panel("prediction", _MODEL, ahead, figures.logged_prediction, table),
    ]


def page(run: LogsRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of logs shows; `name` is its title where no task is known."""
    drawn = tuple(panels(run))
    numbers = "<p>Click a heading to sort.</p>" + by_section(run.table(), _SECTIONS, _HEADINGS)
    sections = (
        *folded(_NUMBERS, drawn),
        Section("How to read it", body=_WORDS),
        Section(
            _NUMBERS,
            body=numbers,
        ),
        method_of(run.config, run.environment, {"What was left out": run.notes}),
    )
    title = str(run.config.get("task") or name)
    question = "What do logs say of this policy gradient?"
    config, environment = run.config, run.environment
    facts = {
        "task": config.get("task"),
        "policy": shell.short(config.get("policy_hash")),
        "model": config.get("model_file") or config.get("model") or "none",
        "critics": config.get("critics"),
        "trajectories": config.get("trajectories"),
        "transitions": config.get("transitions"),
        "discount": config.get("discount"),
        "seed": config.get("seed"),
        "precision": environment.get("precision"),
        "wall time": shell.seconds(environment.get("wall_seconds")),
    }
    return Page(title, question, facts, advice(run), drawn, sections, source)


KIND = Kind(LogsRun.load, page, advice)
