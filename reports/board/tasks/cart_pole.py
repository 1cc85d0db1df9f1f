"""Cart-pole swing-up with a learned model, fitted to 4,000 rows of the policy and at random."""

from dataclasses import replace

import gradlab
from gradlab.data import trajectories
from gradlab.data.noise import child
from gradlab.fitting import ModelSettings, collect, fit_critic, fit_model
from gradlab.fitting.collection import exploring
from gradlab.measurement.update import Update
from gradlab.tasks import with_learned_prior
from gradlab.tools.board.stages import train_stages

STAGES = {"early": 80, "middle": 140, "late": 220}
UPDATE = Update("adam", 3e-3)
MEMBERS = ModelSettings(members=3, hidden=(64, 64), epochs=60)


def make(stage, seed):
    task = gradlab.tasks.cart_pole_swing_up()
    policy = train_stages(task, STAGES, seed)[stage]
    rows = [
        collect(task, 2000, by, length=50, seed=child(seed, f"board rows {k}"))
        for k, by in enumerate((exploring(task, policy, [0.3] * task.simulator.action_dim), None))
    ]
    settings = replace(MEMBERS, seed=child(seed, "board model") >> 1)
    fitted = fit_model(trajectories.joined(rows), settings)
    task = with_learned_prior(task, fitted.ensemble)
    return task, policy, fit_critic(task, policy, seed=child(seed, "board critic"))
