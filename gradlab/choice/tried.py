"""Without a truth: which step along a gradient gained most, by the return before and after it.

Realised gains need no derivative of the simulator; the best possible gain stays unknown, and cells
that were not stepped along are not judged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradlab.choice.candidates import Candidates
from gradlab.choice.values import Steps, Tried
from gradlab.runs.one_step import TRUE_CELL
from gradlab.runs.profile import Profile
from gradlab.runs.realised import Realised


def tried(profile: Profile, among: Candidates) -> tuple[Steps, Tried] | None:
    """None where no competitor was stepped along."""
    found = _only(profile.realised, among) if profile.realised is not None else None
    best = None if found is None else found.best()
    if found is None or best is None:
        return None
    steps = Steps(
        raises=tuple(cell for cell in found.stepped if found.helps(cell)),
        lowers=tuple(cell for cell in found.stepped if found.harms(cell)),
        realised=True,
    )
    return steps, Tried(best, found.not_excluded(), found.change(best).value, found.ends(best))


def _only(realised: Realised, among: Candidates) -> Realised:
    """Of the competitors' cells, and the truth's."""
    here = [
        k for k, cell in enumerate(realised.cells) if cell == TRUE_CELL or cell[0] in among.names
    ]
    return replace(
        realised,
        cells=tuple(realised.cells[k] for k in here),
        status=tuple(realised.status[k] for k in here),
        gain=realised.gain[np.array(here, dtype=int)],
        kept=realised.kept[np.array(here, dtype=int)],
    )
