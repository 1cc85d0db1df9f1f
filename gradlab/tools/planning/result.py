"""What planning in a model gained, and what it is worth to plan with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradlab.verdicts.screen import Fact, Light, Screen, Sentence
from gradlab.wording import horizons, listed, percent, steps, two, with_ends

NONE, STEP = "none", "gradient step"
_NAMED = {
    "gradient": "gradient descent", "projected": "projected gradient descent", "cem": "CEM",
    "mppi": "MPPI",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plans:
    """What `compare_planners` found.

    Attributes:
        frame: a row for every planner and horizon, for "none", the policy alone, and for one
            "gradient step" at every horizon; see `table`.
        config: what was asked for; notes: what a reader must know, by topic.
    """

    frame: pd.DataFrame
    config: Mapping[str, Any]
    notes: Mapping[str, str]

    def table(self) -> pd.DataFrame:
        """Columns planner, horizon (steps of a plan), return (mean, of the simulator), promised
        (gain by the model's own score of the first plan), gain (of the return over the policy's own
        actions, or over the policy's plan for a gradient step), ci_low, ci_high (95%, whichever
        planner is chosen; of gradient steps all together), share_above (of the starts: gain > 0),
        seconds (of one plan of one start), n (starts), kept: whether it may be the
        best of all (95%)."""
        return self.frame.copy()

    @property
    def planned(self) -> pd.DataFrame:
        """The rows of planners."""
        return self.frame[~self.frame.planner.isin([NONE, STEP])]

    @property
    def best(self) -> pd.Series | None:
        """The planner of the largest gain, where one is shown to gain anything."""
        shown = self.planned[self.planned.ci_low > 0]
        return None if shown.empty else shown.iloc[int(shown.gain.argmax())]

    @property
    def recommendation(self) -> str:
        """What to plan with, or that planning is not worth it."""
        best, over = self.best, "the policy's own actions" if self.config["policy"] else "no action"
        if best is None:
            if (self.planned.ci_high < 0).all():
                return (
                    f"Do not plan with this model: every planner lowers the return, against {over}."
                )
            return f"Do not plan with this model yet: no planner is shown to gain over {over}."
        # What gradients, or samples, gain at the same number of roll-outs.
        instead, gradients = "", ("gradient", "projected")
        other = self.planned[self.planned.planner.isin(gradients) != (best.planner in gradients)]
        if not other.gain.isna().all():
            row = other.iloc[int(np.nanargmax(other.gain))]
            verb = "gives" if not row.kept else "may give as much:"
            what = f"{_NAMED[row.planner]} {verb} {_signed(row.gain)} at {steps(int(row.horizon))}"
            instead = f"; at as many roll-outs {what}"
        return (
            f"Plan with {_NAMED[best.planner]}, {steps(int(best.horizon))} ahead: "
            f"{_gained(best, ' return')} over {over}"
            f"{instead}."
        )

    def screen(self) -> Screen:
        """Green where a plan is shown to gain."""
        best = self.best
        light: Light = "act" if best is not None else "choose"
        sure = "shown (95%)" if best is not None else f"{self.config['starts']} starts"
        facts: list[Fact] = []
        if best is not None:
            how = "Gain by the model's own score of the first plan, and the return's."
            label = f"gain that the model promised {steps(int(best.horizon))} ahead"
            facts.append(Fact(label, _signed(best.promised), how))
            facts.append(Fact("starts where the plan pays", percent(best.share_above), how))
        plain = self.frame[self.frame.planner == NONE]["return"].iloc[0]
        facts.append(
            Fact("return without a plan", two(plain).replace("-", "−"), "Mean of all starts.")
        )
        along = self.frame[self.frame.planner == STEP]
        near, words = self.planned[self.planned.kept], []
        if len(near) > 1:
            names = (f"{_NAMED[str(name)]} at {horizons(list(rows.horizon))}"
                     for name, rows in near.groupby("planner", sort=False))  # fmt: skip
            words.append(f"May be best: {listed(list(names), len(_NAMED))}.")
        if not along.empty:
            open_ = (along.ci_low <= 0) & (along.ci_high >= 0)
            verbs = (
                ("raises the return at {} steps", along[along.ci_low > 0]),
                ("lowers it at {}", along[along.ci_high < 0]),
                ("is not shown to do either at {}", along[open_]),
            )
            parts = [
                verb.format(horizons(list(found.horizon)))
                for verb, found in verbs
                if not found.empty
            ]
            words.append(f"One step along the gradient of the plan's score {', '.join(parts)}.")
        for horizon in sorted(set(self.planned.horizon)):
            rows = self.planned[self.planned.horizon == horizon]
            gains = (f"{_NAMED[row.planner]} {_gained(row)}" for _, row in rows.iterrows())
            words.append(f"{steps(int(horizon))} ahead: {', '.join(gains)}.")
        words += [f"{topic}: {text}" for topic, text in self.notes.items()]
        rest = tuple(Sentence("plan", True, each) for each in words)
        return Screen(self.recommendation, light, sure, tuple(facts), rest=rest)


def _gained(row: Any, unit: str = "") -> str:
    """+0.31 return (0.25–0.37)"""
    if not np.isfinite(row.gain):
        return "unknown"
    value, ends = with_ends(row.gain, row.ci_low, row.ci_high)
    return f"{'+' if row.gain >= 0 else ''}{value}{unit} ({ends})".replace("-", "−")


def _signed(value: float) -> str:
    if not np.isfinite(value):
        return "unknown"
    return f"{'+' if value >= 0 else '−'}{two(abs(value))}"
