"""The planar quadrotor of examples/quadrotor.py."""

from pathlib import Path

from gradlab.data.noise import child
from gradlab.fitting import fit_critic
from gradlab.measurement.update import Update
from gradlab.tools.board.stages import train_stages
from gradlab.user_code.loading import load_object

STAGES = {"early": 30, "middle": 45, "late": 120}
UPDATE = Update("adam", 3e-3)
EXAMPLE = Path(__file__).parents[3] / "examples" / "quadrotor.py"


def make(stage, seed):
    task = load_object(f"{EXAMPLE}:make_task")()
    policy = train_stages(task, STAGES, seed)[stage]
    return task, policy, fit_critic(task, policy, seed=child(seed, "board critic"))
