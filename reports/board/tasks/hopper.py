"""Hopper-v5 by SAC's policies after 6,250, 12,500 and 25,000 updates; no model."""

import tempfile
from pathlib import Path

import gradlab
from gradlab.measurement.update import Update
from gradlab.networks import checkpoint
from gradlab.networks.interface import double_copy

STAGES = {"early": 6_250, "middle": 12_500, "late": 25_000}
SEEDS = (0, 1, 2)
UPDATE, STARTS, UPDATES, TERMINATION = Update("adam", 3e-4), 64, 25, "mask"
RUNS = Path(tempfile.gettempdir()) / "gradlab-board"


def make(stage, seed):
    task = gradlab.tasks.mujoco("Hopper-v5")
    run = RUNS / f"hopper-{seed}.h5"
    kept = run.with_name(f"{run.stem}-checkpoints") / f"{STAGES[stage]:06d}"
    files = [kept / f"seed{seed}-{kind}.safetensors" for kind in ("policy", "critic")]
    if not all(file.exists() for file in files):
        RUNS.mkdir(parents=True, exist_ok=True)
        gradlab.train(
            "sac", task, run, overwrite=True, first_seed=seed, iterations=max(STAGES.values())
        )
    return (task, *(double_copy("policy", checkpoint.load(file)) for file in files))
