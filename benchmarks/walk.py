"""Files that a measurement and a training update visit, in the order of their first call.

    python -m benchmarks.walk

Imports are not calls: what a file defines is counted when it runs. A record is a dataclass of the
package that is made. The measurement is of the analytic pendulum at the default settings but for
size; the update is the 41st of mpg-v2 there. The seconds of processor that an import of the package
and a page of help take are of new processes, the least of three.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import gradlab
from gradlab import cli
from gradlab.fitting import fit_critic, stabilising_policy
from gradlab.training import run

PACKAGE = Path(gradlab.__file__).parent
UPDATE = 40


class Walk:
    """Files and records of the package in the order of their first call, while it is entered."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.records: list[str] = []
        self._known: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and frame.f_code.co_name == "__init__":
            self._made(type(frame.f_locals.get("self")))
        if event != "call" or name in self._known or _defines(frame):
            return
        self._known.add(name)
        if Path(name).is_relative_to(PACKAGE):
            self.files.append(str(Path(name).relative_to(PACKAGE)))

    def _made(self, kind: type) -> None:
        name = f"{kind.__module__}.{kind.__name__}"
        own = kind.__module__.startswith(f"{gradlab.__name__}.")
        if own and dataclasses.is_dataclass(kind) and name not in self.records:
            self.records.append(name)

    def __enter__(self) -> Walk:
        sys.setprofile(self)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)


def _defines(frame: FrameType) -> bool:
    """Whether the code is a module's or a class's body, which an import runs."""
    return not frame.f_code.co_flags & inspect.CO_OPTIMIZED


def measurement() -> Walk:
    """What `gradlab.measure` visits."""
    task = gradlab.tasks.inverted_pendulum(engine="analytic")
    policy = stabilising_policy(task)
    critic, measure = fit_critic(task, policy), gradlab.measure
    with Walk() as walk:
        measure(task, policy, critic, horizon=5, starts=64)
    return walk


def command() -> Walk:
    """What `gradlab measure` visits: fits of policy and critic, and the page, too."""
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()), Walk() as walk:
        words = ["measure", "inverted_pendulum", "--set", "engine=analytic", "--horizon", "5"]
        cli.main([*words, "--starts", "64", "--output", str(Path(folder) / "run.h5")])
    return walk


def update() -> Walk:
    """What one iteration of the training loop visits: batch, targets, critic, policy."""
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
    return walk


def processor(*words: str) -> float:
    """Seconds of processor that a new Python takes for these words."""
    taken = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        taken.append(sum(after[2:4]) - sum(before[2:4]))
    return min(taken)


if __name__ == "__main__":
    for words in (("-c", "import gradlab"), ("-m", "gradlab", "--help")):
        print(f"python {' '.join(words)}: {processor(*words):.2f} s of processor")
    walks = {"gradlab.measure": measurement, "gradlab measure": command, "one update": update}
    for title, walked in walks.items():
        walk = walked()
        print(f"{title}: {len(walk.files)} files, {len(walk.records)} records")
        print("\n".join(f"  {each}" for each in (*walk.files, *walk.records)))
