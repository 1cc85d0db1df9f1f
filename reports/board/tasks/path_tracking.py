"""MPG's path tracking, its prior model."""

import gradlab
from gradlab.data.noise import child
from gradlab.fitting import fit_critic
from gradlab.measurement.update import Update
from gradlab.tools.board.stages import train_stages

STAGES = {"early": 10, "middle": 30, "late": 90}
UPDATE = Update("adam", 3e-3)


def make(stage, seed):
    task = gradlab.tasks.path_tracking()
    policy = train_stages(task, STAGES, seed)[stage]
    return task, policy, fit_critic(task, policy, seed=child(seed, "board critic"))
