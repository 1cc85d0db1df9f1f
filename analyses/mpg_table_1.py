"""MPG's Table I at the scale that fits: final return, and iterations to each goal.

    python -m analyses.mpg_table_1 train --algorithm mpg-v2 --task path_tracking [--iterations N]
    python -m analyses.mpg_table_1 table        from the run files to reports/mpg-table-1

Every algorithm of MPG's Table I on its two tasks, several seeds side by side in one program. Goals
are reached when the mean return over the fixed evaluation starts first passes them; the paper's
numbers stand beside ours, medians and each seed beside the means.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import subcommand

from gradlab import tasks
from gradlab.progress import bars
from gradlab.tasks import Task
from gradlab.training.loop import train

ROWS = ("mpg-v1", "mpg-v2", "n-step-dpg", "n-step-adp", "td3", "sac")
FOLDER = Path("reports/mpg-table-1")


def task_of(name: str) -> Task:
    """The papers' tasks; the pendulum without a slider stop, as in the authors' own XML."""
    if name == "path_tracking":
        return tasks.path_tracking()
    return tasks.inverted_pendulum(engine="analytic", slider="wide")


@dataclass(frozen=True)
class Train:
    """Train one algorithm on one task; goes on where a run was stopped."""

    algorithm: str
    task: str
    iterations: int = 20_000
    seeds: int = 5
    evaluate_every: int = 500
    threads: int = 1
    folder: Path = FOLDER / "runs"

    def run(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        path = self.folder / f"{self.algorithm}-{self.task}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        resume = path.with_name(path.stem + ".resume.safetensors").exists()
        with bars() as progress:
            train(
                self.algorithm,
                task_of(self.task),
                path,
                resume=resume,
                progress=progress,
                seeds=self.seeds,
                iterations=self.iterations,
                evaluate_every=self.evaluate_every,
                command=f"python -m analyses.mpg_table_1 train --algorithm {self.algorithm} "
                f"--task {self.task} --iterations {self.iterations} --seeds {self.seeds}",
            )


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(Annotated[Train, subcommand("train")]).run()


if __name__ == "__main__":
    main()
