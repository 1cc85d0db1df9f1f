"""The papers' tables from training runs, with the printed numbers beside.

table-returns    last returns, iterations to each goal       MPG, Table I
table-times      seconds of 1,000 transitions by part        MAAC, Table 1
table-planning   returns with and without a plan             MAAC, Table 2
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab.errors import InputError
from gradlab.runs.training.results import GOALS, Floats, Training, first_reached
from gradlab.tools.papers.published import RETURNS, printed

_EPOCH = 1000  # transitions of one row of seconds
_LOGS_PLANS = "gradlab train --plan-horizon H"


def returns(runs: Iterable[Training]) -> pd.DataFrame:
    """Ours beside the paper's, a row for every run.

    Returns:
        row, iterations, seeds, hours; median and every seed's last return; iterations to each goal
        (median of the seeds that reach it, and how many do); the paper's cells as "paper: …".
    """
    rows = []
    for run in runs:
        last = np.sort(run.returns[-1])[::-1]
        found: dict[str, object] = {
            "row": run.name, "iterations": int(run.iteration[-1]), "seeds": len(run.seeds),
            "hours": round(float(run.seconds[-1]) / 3600, 2),
            "return": f"{np.median(last):.3g}",
            "every seed": ", ".join(f"{value:.3g}" for value in last),
        }  # fmt: skip
        for goal in GOALS.get(run.task, ()):
            found[f"to {goal:g}"] = reached(run, goal)
        rows.append(found | printed(RETURNS, run.task, run.name))
    return pd.DataFrame(rows)


def reached(run: Training, goal: float) -> str:
    """Median iteration over the seeds that reach the goal, with their number; – for none."""
    first = first_reached(run, goal)
    met = first[np.isfinite(first)]
    return f"{np.median(met):.0f} ({len(met)} of {len(first)})" if len(met) else "–"


def times(runs: Iterable[Training]) -> pd.DataFrame:
    """Seconds of one seed and 1,000 transitions where it ran: whole, fits of the model, roll-outs
    that fill a replay, updates of critic and policy, and the rest (environments, evaluations)."""
    rows = []
    for run in runs:
        transitions, updates = run.evaluations.get("transitions"), run.updates
        if transitions is None or "critic_seconds" not in updates:
            raise InputError(
                f"table-times needs the seconds of every part, and the run of {run.name} was "
                f"written before they were logged: make it again with `gradlab train`"
            )
        made = np.diff(updates["iteration"], prepend=0)
        delay = int(run.config["algorithm"]["delay"])
        parts = {
            "fits": float(np.sum(run.model.get("seconds", 0.0))),
            "roll-outs": float(np.sum(run.rollouts.get("seconds", 0.0))),
            "critic": float(made @ np.nan_to_num(updates["critic_seconds"])),
            "policy": float(made @ np.nan_to_num(updates["policy_seconds"])) / delay,
        }
        whole = float(run.seconds[-1])
        of = _EPOCH / float(transitions[-1]) / len(run.seeds)
        cells = {"whole": whole} | parts | {"rest": max(whole - sum(parts.values()), 0.0)}
        shown = {f"{part} [s]": f"{of * value:.3g}" for part, value in cells.items()}
        rows.append(
            {"row": run.name, "task": run.task} | shown | printed("table-times", run.task, run.name)
        )
    return pd.DataFrame(rows)


def planning(runs: Iterable[Training]) -> pd.DataFrame:
    """Last returns with and without a plan from the same starts, mean and standard deviation of
    the seeds, and the gain with its standard error."""
    rows = []
    for run in runs:
        columns = run.evaluations
        if not np.isfinite(columns.get("planned_return_mean", np.array([np.nan]))[-1]).any():
            raise InputError(
                f"table-planning needs returns with a plan, which the run of {run.name} has not: "
                f"{_LOGS_PLANS} logs them"
            )
        planned, gain = columns["planned_return_mean"][-1], columns["planned_gain_mean"][-1]
        own = columns["planned_gain_se"][-1]
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else float(own[0])
        found = {
            "row": run.name, "task": run.task, "seeds": len(run.seeds),
            "with plan": _spread(planned), "without": _spread(planned - gain),
            "gain": f"{gain.mean():.3g} ± {error:.2g}",
        }  # fmt: skip
        rows.append(found | printed("table-planning", run.task, run.name))
    return pd.DataFrame(rows)


TABLES: Mapping[str, Callable[[Iterable[Training]], pd.DataFrame]] = {
    RETURNS: returns, "table-times": times, "table-planning": planning,
}  # fmt: skip


def _spread(values: Floats) -> str:
    return (
        f"{values.mean():.3g} ± {values.std(ddof=1):.2g}" if len(values) > 1 else f"{values[0]:.3g}"
    )


def write(table: pd.DataFrame, target: Path, title: str, note: str = "") -> list[str]:
    """As Markdown, LaTeX (booktabs) and CSV beside each other, the note below the first and above
    the second; the names of the files."""
    table = table.fillna("–")
    below, title = (f"\n{note}\n", f"{title}; {note}") if note else ("", title)
    texts = {
        ".md": markdown(table) + below,
        ".tex": latex(table, title),
        ".csv": table.to_csv(index=False),
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            target.with_suffix(suffix).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"output is {target}, which cannot be written ({error})") from error
    return [str(target.with_suffix(suffix)) for suffix in texts]


def markdown(table: pd.DataFrame) -> str:
    """As a table of Markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def latex(table: pd.DataFrame, title: str) -> str:
    """As a table of LaTeX (booktabs)."""
    named: Mapping[str, str] = {"–": "--", "±": r"$\pm$", "_": r"\_"}

    def cell(value: object) -> str:
        text = str(value)
        for symbol, command in named.items():
            text = text.replace(symbol, command)
        return text

    lines = [" & ".join(map(cell, line)) + r" \\" for line in table.values.tolist()]
    head = " & ".join(map(cell, table.columns)) + r" \\"
    body = "\n".join([r"\toprule", head, r"\midrule", *lines, r"\bottomrule"])
    return (
        f"% {title}\n\\begin{{tabular}}{{{'l' * len(table.columns)}}}\n{body}\n\\end{{tabular}}\n"
    )
