"""InvertedPendulum-v5, SAC's policies after 500, 1,000 and 2,000 updates, a 2×256 model."""

from pathlib import Path

from gradlab.measurement.update import Update
from gradlab.tools.board.stages import sac_stage
from gradlab.user_code.loading import load_object

STAGES = {"early": 500, "middle": 1_000, "late": 2_000}
UPDATE, STARTS, UPDATES, TERMINATION = Update("adam", 3e-4), 64, 25, "mask"
LEARNED = Path(__file__).parents[1] / "learned.py"


def make(stage, seed):
    made = sac_stage("InvertedPendulum-v5", STAGES, stage, seed)
    return load_object(f"{LEARNED}:with_model")(*made, (256, 256), seed)
