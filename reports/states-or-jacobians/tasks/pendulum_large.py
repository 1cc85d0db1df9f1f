"""InvertedPendulum-v5, SAC's policies, and a model of 2×256 units."""

from pathlib import Path

from gradlab.user_code.loading import load_object

SMALL = Path(__file__).with_name("pendulum_small.py")
LEARNED = Path(__file__).parents[1] / "learned.py"
STAGES, UPDATE, STARTS, UPDATES, TERMINATION = (
    load_object(f"{SMALL}:{name}")
    for name in ("STAGES", "UPDATE", "STARTS", "UPDATES", "TERMINATION")
)


def make(stage, seed):
    made = load_object(f"{SMALL}:sac")(stage, seed)
    return load_object(f"{LEARNED}:with_model")(*made, (256, 256), seed)
