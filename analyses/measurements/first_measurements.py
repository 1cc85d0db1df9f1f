"""How good are the gradients of MPG's two tasks under a stabilising policy?

    python -m analyses.measurements.first_measurements [--small] [--kept] [--tasks …]

Gradients are judged at the states that the policy visits, against the gradient of the return.
Runs the command line as a user would, and freezes what a reader needs: report, figures, numbers,
policy and critic, and the command with the commit that made them.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tyro

import gradlab
from gradlab import cli
from gradlab.cli.arguments import beside
from gradlab.verdicts.measurement.verdict import verdict

TASKS = {"inverted-pendulum": "inverted_pendulum", "path-tracking": "path_tracking"}
STARTS = 1024
NETWORKS = ("policy", "critic")
LAW = "visited"  # what an update of the policy does to the return


def main(
    small: bool = False,
    kept: bool = False,
    output: Path = Path("reports"),
    tasks: Sequence[str] = tuple(TASKS),
) -> None:
    """Measure and freeze.

    Args:
        small: a few starts and steps only, to see that it runs.
        kept: measure the policy and the critic that the folder has, in the place of fitted ones.
        output: folder that gets one folder per task.
        tasks: inverted-pendulum, path-tracking.
    """
    size = ["--starts", "32", "--horizon", "3"] if small else ["--starts", str(STARTS)]
    for folder in tasks:
        task = TASKS[folder]
        place = (output / folder).resolve()
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            run = Path(f"{task}.h5")
            given = [word for kind in NETWORKS if kept for word in _given(kind, place, run)]
            words = ["measure", task, *size, "--law", LAW, *given, "--output", str(run)]
            code = cli.main(words)
            if code:
                raise SystemExit(code)
            freeze(run, place, fitted(place) if kept else None)


def _given(kind: str, folder: Path, run: Path) -> tuple[str, str]:
    """The option that names a network of the folder, copied beside the run."""
    network = beside(run, kind)
    shutil.copy(folder / network.name, network)
    return f"--{kind}", network.name


def fitted(folder: Path) -> dict[str, str] | None:
    """Command and commit that fitted the networks of a folder; None where there are none."""
    place = folder / "made.json"
    if not place.is_file():
        return None
    made = json.loads(place.read_text())
    first = made.get("networks") or made
    return {name: first[name] for name in ("command", "commit")}


def freeze(run: Path, folder: Path, networks: dict[str, str] | None = None) -> None:
    """Copy what lasts from a run into `folder`; the .h5 itself can be made again.

    Args:
        networks: what fitted the run's policy and critic; None: the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    profile = gradlab.load(run)
    profile.table().to_csv(folder / "numbers.csv", index=False)
    shutil.copy(run.with_suffix(".html"), folder / "report.html")
    shutil.rmtree(folder / "figures", ignore_errors=True)  # of an earlier page
    shutil.copytree(run.with_name(f"{run.stem}_figures"), folder / "figures")
    for kind in NETWORKS:
        shutil.copy(beside(run, kind), folder)
    made = {
        "command": profile.config["command"],
        "networks": networks,
        "law": profile.config["law"],
        "commit": profile.environment["commit"],
        "verdict": [sentence.text for sentence in verdict(profile)],
        "truth": dict(profile.truth),
        "environment": dict(profile.environment),
    }
    (folder / "made.json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
