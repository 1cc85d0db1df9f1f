"""Whether the first call of a step decides what later ones give, as where it fills a cache.

    python -P -m gradlab.tools.certify.anew FILE.py:NAME FOLDER WHICH

Two fresh processes load the same file at the same seeds. The one steps the given points at once,
the other steps points that are moved and fewer before: what it then gives at the given ones is the
same, unless something of a first call was kept.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradlab.systems.system import System
from gradlab.tasks.task import Task
from gradlab.tools.certify.arguments import simulator_of
from gradlab.tools.certify.evaluation import Points, at_once
from gradlab.tools.certify.repeats import gap, kept_from_calls
from gradlab.tools.certify.result import Finding
from gradlab.tools.certify.sampling import labelled, law

_LONGEST = 120.0  # s of a process
_NAMES = ("z", "noise")
_ORDERS = ("first", "after")


def first_call_findings(
    name: str, made: System | Task, seed: int, epsilon: float
) -> list[Finding] | str:
    """What a first call leaves behind, or why that was not tried.

    Args:
        name: FILE.py:NAME of the system or task; its file is executed.
        epsilon: precision of the step.
    """
    task = made if isinstance(made, Task) else None
    system = made.simulator if isinstance(made, Task) else made
    drawn = law(system, task, None, None, seed)
    action = drawn.action_size * drawn.draw("anew", len(drawn.starts), system.action_dim)
    points = labelled(system, torch.cat([drawn.starts, action], 1), "given", seed, None).points
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"z": points.z, "noise": points.noise}, Path(folder) / "points.pt")
        try:
            first, after = (_run(name, folder, orders) for orders in (_ORDERS[:1], _ORDERS[1:]))
            size = gap(first, after)
            if not kept_from_calls(size, epsilon):
                return []
            again = gap(first, _run(name, folder, _ORDERS[:1]))
        except (OSError, subprocess.SubprocessError) as error:
            return f"not tried: {str(error).splitlines()[0][:90]}"
    if kept_from_calls(again, epsilon):
        return "not tried: the file gives another system each time that it is loaded"
    text = (
        f"The step depends on its first call (by {size:.2g} of its size): what that one had is kept"
    )
    return [Finding("stale", None, None, None, None, max(size, 1.0), None, "wrong", f"{text}.")]


def _run(name: str, folder: str, orders: tuple[str, ...]) -> Tensor:
    command = [sys.executable, "-P", "-m", __name__, name, folder, *orders]
    subprocess.run(command, check=True, capture_output=True, timeout=_LONGEST)
    found: Tensor = torch.load(Path(folder) / f"{orders[0]}.pt", weights_only=True)
    return found


def main(name: str, folder: str, order: str) -> None:
    """Load, step in this order, and write what the given points end at."""
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    made = simulator_of(name)
    system = made.simulator if isinstance(made, Task) else made
    kept = torch.load(Path(folder) / "points.pt", weights_only=True)
    points = Points(*(kept[each] for each in _NAMES))
    if order == "after":
        few = points.at(slice(0, max(len(points) // 2, 1)))
        at_once(system, Points(few.z.flip(0) * 1.1 + 0.1, few.noise))
    torch.save(at_once(system, points), Path(folder) / f"{order}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
