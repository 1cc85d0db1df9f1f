"""Runs of known rows, written as training and a probe write them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.runs.probe import schema
from gradlab.storage.journal import Journal, journal_of
from gradlab.storage.journal_tables import Column, Table

ATTACK = "<img src=x onerror=\"document.title='broken'\">\x1b]0;pwned\x07\u202e</script>"
TOTAL = 1000
SEED = ("seed",)


def training_tables(seeds: int = 2) -> dict[str, Table]:
    numbers = tuple(range(seeds))
    updates = {
        "policy_norm": Column(SEED),
        "critic_loss": Column(SEED, "scaled reward²"),
        "nonfinite": Column(SEED, "updates"),
        "weight": Column(("horizon",)),
        "seconds": Column(unit="s"),
    }
    evaluations = {"return_mean": Column(SEED, "reward"), "return_se": Column(SEED, "reward")}
    return {
        "updates": Table("iteration", updates, {"seed": numbers, "horizon": (0, 25)}),
        "evaluations": Table("iteration", evaluations, {"seed": numbers}),
        "events": Table("number", {"message": Column(text=True)}),
    }


def training_attributes(task: str = "pendulum", seeds: int = 2) -> dict[str, Any]:
    settings = {
        "iterations": TOTAL, "seeds": seeds, "first_seed": 0, "evaluation_starts": 50,
        "episode": 100, "device": "cpu", "precision": "float32",
    }  # fmt: skip
    config = {"algorithm": {"name": "mpg-v2"}, "task": task, "settings": settings}
    return {"kind": "training", "config": json.dumps(config)}


def training(path: Path, task: str = "pendulum", seeds: int = 2) -> Journal:
    """The open journal of a run of training without rows."""
    return Journal(path, training_tables(seeds), training_attributes(task, seeds))


def update_row(k: int, seeds: int = 2) -> dict[str, Any]:
    """Iteration 10 k: norms k + 1, k + 3, …; 20 iterations a second."""
    norms = k + 1.0 + 2.0 * np.arange(seeds)
    return {
        "iteration": 10 * k, "policy_norm": norms, "critic_loss": 1 / norms, "seconds": 0.5 * k,
        "nonfinite": np.zeros(seeds), "weight": np.array([0.25, 0.75]),
    }  # fmt: skip


def evaluation_row(k: int, seeds: int = 2) -> dict[str, Any]:
    returns = -100.0 + k - 4.0 * np.arange(seeds)
    return {"iteration": 10 * k, "return_mean": returns, "return_se": np.full(seeds, 0.5)}


def probed(path: Path, names: tuple[str, ...] = ("w", "b"), task: str = "pendulum") -> Journal:
    """The open journal of a probe's run with three actions and horizons 0 … 4."""
    config = {"seed": 0, "overhead_budget": 0.05}
    about = schema.attributes(names, task, config, {})
    return Journal(path, schema.tables(len(names), 3, 4), about)


def vitals_row(k: int, tensors: int = 2) -> dict[str, Any]:
    """Update 100 k, at 50 updates a second."""
    return {
        "update": 100 * k, "step": 100 * k, "looked": 100, "grad_norm": 2.0 + k,
        "grad_norm_max": 5.0 + k, "update_ratio": 1e-3, "layer_norm": np.arange(tensors) + 1.0,
        "layer_ratio": np.full(tensors, 2e-3), "nonfinite": np.zeros(tensors),
        "nonfinite_updates": 0, "zero": np.zeros(tensors), "saturation": np.array([0.1, 0.2, 0.3]),
        "watched": 25, "own_seconds": 0.1 * k, "elapsed": 2.0 * k, "spent": 0.04,
    }  # fmt: skip


def measured_row(k: int) -> dict[str, Any]:
    cells = np.arange(20.0).reshape(4, 5) + 1.0
    return {
        "update": 100 * k, "step": 100 * k, "starts": 64, "mse": cells, "mse_low": cells / 2,
        "mse_high": cells * 2, "chosen_horizon": 3, "kept_low": 2, "kept_high": 4,
    }  # fmt: skip


def alarm_row(number: int, update: int, kind: str, message: str) -> dict[str, Any]:
    return {"number": number, "update": update, "step": update, "alarm": kind, "message": message}


def killed(path: Path, rows: int = 5) -> None:
    """A run of training whose writer was killed after so many rows."""
    code = (
        "import sys, time; from pathlib import Path; from tests.watching import grown\n"
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
