"""InvertedPendulum-v5, SAC's policies after 500, 1,000 and 2,000 updates, a model of 2×32 units."""

import tempfile
from pathlib import Path

import gradlab
from gradlab.measurement.update import Update
from gradlab.networks import checkpoint
from gradlab.networks.interface import double_copy
from gradlab.user_code.loading import load_object

STAGES = {"early": 500, "middle": 1_000, "late": 2_000}
UPDATE, STARTS, UPDATES, TERMINATION = Update("adam", 3e-4), 64, 25, "mask"
RUNS = Path(tempfile.gettempdir()) / "gradlab-board"
LEARNED = Path(__file__).parents[1] / "learned.py"


def sac(stage, seed):
    task = gradlab.tasks.mujoco("InvertedPendulum-v5")
    run = RUNS / f"pendulum-{seed}.h5"
    kept = run.with_name(f"{run.stem}-checkpoints") / f"{STAGES[stage]:06d}"
    files = [kept / f"seed{seed}-{kind}.safetensors" for kind in ("policy", "critic")]
    if not all(file.exists() for file in files):
        RUNS.mkdir(parents=True, exist_ok=True)
        gradlab.train(
            "sac", task, run, overwrite=True, first_seed=seed, iterations=max(STAGES.values())
        )
    return (task, *(double_copy("policy", checkpoint.load(file)) for file in files))


def make(stage, seed):
    return load_object(f"{LEARNED}:with_model")(*sac(stage, seed), (32, 32), seed)
