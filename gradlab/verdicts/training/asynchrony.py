"""How stale the gradients of an asynchronous training were, and how busy its processes."""

from __future__ import annotations

from gradlab.runs.training.asynchrony import asynchrony
from gradlab.runs.training.results import Training
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.wording import percent


def stale(run: Training, name: str) -> list[Sentence]:
    """One sentence of a run in several processes."""
    found = asynchrony(run)
    if found is None:
        return []
    choice = run.config["settings"]["asynchronous"]
    counts = ", ".join(
        f"{choice[role]} {role if choice[role] > 1 else role[:-1]}"
        for role in ("learners", "actors", "buffers")
    )
    busy = ", ".join(percent(share) for share in found.busy)
    dead = f"; {found.died} of its processes died and were replaced" if found.died else ""
    return [
        Sentence(
            "staleness",
            True,
            f"{name} trained with {counts}: {found.rate:.3g} updates per second; the policy had "
            f"made {found.mean:.3g} steps on average between the computation of its gradient and "
            f"the step along it, at most {found.at_most(0.95)} for 95% of them and "
            f"{found.largest} for all; learners computed {busy} of the time{dead}.",
        )
    ]
