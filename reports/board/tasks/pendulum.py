"""The pendulum's swing-up; the model's mass and length are wrong."""

import gradlab
from gradlab.data.noise import child
from gradlab.fitting import fit_critic
from gradlab.measurement.update import Update
from gradlab.tools.board.stages import train_stages

STAGES = {"early": 20, "middle": 60, "late": 180}
UPDATE = Update("adam", 3e-3)


def make(stage, seed):
    task = gradlab.tasks.pendulum(1.2, 0.9)
    policy = train_stages(task, STAGES, seed)[stage]
    return task, policy, fit_critic(task, policy, seed=child(seed, "board critic"))
