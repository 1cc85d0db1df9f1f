"""Hopper-v5, SAC's policies, and a model of 2×32 units."""

from pathlib import Path

from gradlab.user_code.loading import load_object

BOARD = Path(__file__).parents[2] / "board/tasks/hopper.py"
LEARNED = Path(__file__).parents[1] / "learned.py"
STAGES, SEEDS, UPDATE, STARTS, UPDATES, TERMINATION = (
    load_object(f"{BOARD}:{name}")
    for name in ("STAGES", "SEEDS", "UPDATE", "STARTS", "UPDATES", "TERMINATION")
)


def make(stage, seed):
    made = load_object(f"{BOARD}:make")(stage, seed)
    return load_object(f"{LEARNED}:with_model")(*made, (32, 32), seed)
