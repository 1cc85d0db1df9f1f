"""Files that a measurement and a training update visit, in the order of their first call.

    python -m benchmarks.walk

Imports are not calls: what a file defines is counted when it runs. The measurement is of the
analytic pendulum at the default settings but for size; the update is the 41st of mpg-v2 there.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import gradlab
from gradlab.fitting import fit_critic, stabilising_policy
from gradlab.training import run

PACKAGE = Path(gradlab.__file__).parent
UPDATE = 40


class Walk:
    """Files of the package in the order of their first call, while it is entered."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._known: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        name = frame.f_code.co_filename
        if event != "call" or name in self._known or _defines(frame):
            return
        self._known.add(name)
        if Path(name).is_relative_to(PACKAGE):
            self.files.append(str(Path(name).relative_to(PACKAGE)))

    def __enter__(self) -> Walk:
        sys.setprofile(self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)


def _defines(frame: FrameType) -> bool:
    """Whether the code is a module's or a class's body, which an import runs."""
    return not frame.f_code.co_flags & inspect.CO_OPTIMIZED


def measurement() -> list[str]:
    """Files that `gradlab.measure` visits."""
    task = gradlab.tasks.inverted_pendulum(engine="analytic")
    policy = stabilising_policy(task)
    critic, measure = fit_critic(task, policy), gradlab.measure
    with Walk() as walk:
        measure(task, policy, critic, horizon=5, starts=64)
    return walk.files


def update() -> list[str]:
    """Files that one iteration of the training loop visits: batch, targets, critic, policy."""
    walk, plain = Walk(), run.next_batch

    def first_of_update(state: run.Run) -> object:
        if state.iteration == UPDATE + 1:
            sys.setprofile(None)
        elif state.iteration == UPDATE:
            sys.setprofile(walk)
        return plain(state)

    changed: Callable[..., object] = first_of_update
    run.next_batch = changed  # type: ignore[assignment]
    try:
        with TemporaryDirectory() as folder:
            gradlab.train(
                "mpg-v2",
                gradlab.tasks.inverted_pendulum(engine="analytic"),
                Path(folder) / "run.h5",
                iterations=UPDATE + 2,
                log_every=1000,
            )
    finally:
        sys.setprofile(None)
        run.next_batch = plain
    return walk.files


if __name__ == "__main__":
    for title, files in (("gradlab.measure", measurement()), ("one update", update())):
        print(f"{title}: {len(files)} files")
        print("\n".join(f"  {file}" for file in files))
