"""What became of the runs of a sweep, in sentences."""

from __future__ import annotations

from statistics import median

from gradlab.runs.sweep import Sweep
from gradlab.verdicts.screen import Fact, Light, Screen, Sentence
from gradlab.wording import duration

_SURE: dict[Light, str] = {
    "act": "every run has its result",
    "choose": "not every run has been executed",
    "none": "see the errors of the runs that failed",
}


def screen(sweep: Sweep) -> Screen:
    """How many runs are done, and what to do about the others."""
    done, total = sweep.count("done"), len(sweep.rows)
    failed, missing = sweep.count("failed"), sweep.count("waiting", "running", "interrupted")
    text = f"{done} of {runs(total)} {'is' if done == 1 else 'are'} done."
    if failed:
        text += f" {runs(failed)} failed: `--resume` executes what is missing again."
    elif missing:
        text += " `--resume` does what is missing."
    light: Light = "none" if failed else "choose" if missing else "act"
    return Screen(text.replace("`", ""), light, _SURE[light], _facts(sweep), None, _rest(sweep))


def runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _facts(sweep: Sweep) -> tuple[Fact, ...]:
    seconds = [row.seconds for row in sweep.rows if row.state == "done" and row.seconds is not None]
    if not seconds:
        return ()
    how = "wall time between a run's start in its worker and its end"
    return (
        Fact("a run, the median", duration(median(seconds)), how),
        Fact("all runs, one after another", duration(sum(seconds)), f"Sum of the {how}."),
    )


def _rest(sweep: Sweep) -> tuple[Sentence, ...]:
    """A sentence per run that failed; the results of the others are in the table of runs."""
    return tuple(
        Sentence("run", True, f"{row.name} failed: {row.error}")
        for row in sweep.rows
        if row.state == "failed"
    )
