"""Runs of known rows, written as training and a probe write them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.storage.journal import Journal, journal_of
from gradlab.storage.journal_tables import Column, Table

ATTACK = "<img src=x onerror=\"document.title='broken'\">\x1b]0;pwned\x07\u202e</script>"
TOTAL = 1000
SEED = ("seed",)


def training_tables(seeds: int = 2) -> dict[str, Table]:
    numbers = tuple(range(seeds))
    names = ("policy_norm", "critic_norm", "critic_loss", "value", "nonfinite")
    updates = {name: Column(SEED) for name in names} | {"weight": Column(("horizon",))}
    updates |= {
        name: Column()
        for name in ("seconds", "realised_horizon", "policy_seconds", "critic_seconds")
    }
    evaluations = {name: Column(SEED) for name in ("return_mean", "return_se", "ends")}
    evaluations |= {"rms": Column(("seed", "coordinate")), "seconds": Column()}
    return {
        "updates": Table("iteration", updates, {"seed": numbers, "horizon": (0, 25)}),
        "evaluations": Table("iteration", evaluations, {"seed": numbers, "coordinate": (0,)}),
        "events": Table("number", {"message": Column(text=True)}),
    }


def training_attributes(task: str = "pendulum", seeds: int = 2) -> dict[str, Any]:
    settings = {
        "iterations": TOTAL, "seeds": seeds, "first_seed": 0, "evaluation_starts": 50,
        "episode": 100, "device": "cpu", "precision": "float32", "termination": "ignore",
        "at_end": "restart", "reward_scale": 1.0,
    }  # fmt: skip
    config = {"algorithm": {"name": "mpg-v2"}, "task": task, "settings": settings}
    return {"kind": "training", "config": json.dumps(config), "environment": "{}"}


def training(path: Path, task: str = "pendulum", seeds: int = 2) -> Journal:
    """The open journal of a run of training without rows."""
    return Journal(path, training_tables(seeds), training_attributes(task, seeds))


def update_row(k: int, seeds: int = 2) -> dict[str, Any]:
    """Iteration 10 k: norms k + 1, k + 3, …; 20 iterations a second."""
    norms = k + 1.0 + 2.0 * np.arange(seeds)
    return {
        "iteration": 10 * k, "policy_norm": norms, "critic_loss": 1 / norms, "seconds": 0.5 * k,
        "nonfinite": np.zeros(seeds), "weight": np.array([0.25, 0.75]), "value": -norms,
        "critic_norm": norms, "realised_horizon": 25, "policy_seconds": 0.1, "critic_seconds": 0.1,
    }  # fmt: skip


def evaluation_row(k: int, seeds: int = 2) -> dict[str, Any]:
    returns = -100.0 + k - 4.0 * np.arange(seeds)
    return {
        "iteration": 10 * k, "return_mean": returns, "return_se": np.full(seeds, 0.5),
        "ends": np.zeros(seeds), "rms": np.ones((seeds, 1)), "seconds": 0.5 * k,
    }  # fmt: skip


def trained(path: Path, task: str = "pendulum", seeds: int = 2) -> Path:
    """A run of 400 iterations, evaluated at every hundredth, in which a seed diverged at 300."""
    with training(path, task, seeds) as writer:
        for k in range(41):
            writer.append("updates", update_row(k, seeds))
            if k % 10 == 0:
                writer.append("evaluations", evaluation_row(k, seeds))
        writer.append("events", {"number": 2 * 300 * seeds + 1, "message": f"{task} diverged"})
    return path


def killed(path: Path, rows: int = 5) -> None:
    """A run of training whose writer was killed after so many rows."""
    code = (
        "import sys, time; from pathlib import Path; from tests.reporting import grown\n"
        "writer = grown.training(Path(sys.argv[1]))\n"
        f"for k in range({rows}): writer.append('updates', grown.update_row(k))\n"
        "print('written', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "written\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert journal_of(path).exists()
