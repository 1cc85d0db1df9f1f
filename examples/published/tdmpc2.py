"""TD-MPC2 as its authors publish it, in gradlab, from a checkpoint of theirs.

git clone https://github.com/nicklashansen/tdmpc2; pip install tensordict omegaconf
PYTHONPATH=tdmpc2/tdmpc2 CHECKPOINT=agent.pt gradlab measure tdmpc2.py:make_task \
    --policy tdmpc2.py:make_policy --critic tdmpc2.py:make_critic
"""

import os

import torch
from common.math import two_hot_inv
from common.world_model import WorldModel
from omegaconf import OmegaConf
from torch import nn

import gradlab


class TDMPC2(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.policy = model, nn.Sequential(model._pi, Mean())

    def encode(self, observation):
        return self.model.encode(observation, None)

    def step(self, z, a):
        return self.model.next(z, a, None)

    def reward(self, z, a):
        return two_hot_inv(self.model.reward(z, a, None), self.model.cfg)[:, 0]

    def q(self, z, a):
        return two_hot_inv(self.model.Q(z, a, None, "all"), self.model.cfg).mean(0)[:, 0]


class Mean(nn.Module):
    def forward(self, parameters):
        return torch.tanh(parameters.chunk(2, dim=-1)[0])


def made():
    task = gradlab.tasks.pendulum()  # yours, actions in [-1, 1], as TD-MPC2 has them
    cfg = OmegaConf.load(os.environ.get("CONFIG", "config.yaml"))
    model = WorldModel(cfg)
    if "CHECKPOINT" in os.environ:
        model.load_state_dict(torch.load(os.environ["CHECKPOINT"])["model"])
    return gradlab.tasks.with_world_model(task, TDMPC2(model))


make_task, make_policy, make_critic = (lambda k=k: made()[k] for k in range(3))
