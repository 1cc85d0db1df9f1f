"""Hopper-v5 by SAC's policies after 6,250, 12,500 and 25,000 updates; no model."""

from dataclasses import replace

import gradlab
from gradlab.measurement.update import Update
from gradlab.tools.board.stages import sac_stage

STAGES = {"early": 6_250, "middle": 12_500, "late": 25_000}
SEEDS = (0, 1, 2)
UPDATE, STARTS, UPDATES, TERMINATION = Update("adam", 3e-4), 64, 25, "mask"


def make(stage, seed):
    task, policy, critic = sac_stage("Hopper-v5", STAGES, stage, seed)
    simulator = gradlab.differentiable(task)
    return replace(task, simulator=simulator), policy, critic
