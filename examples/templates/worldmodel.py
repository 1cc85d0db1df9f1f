"""gradlab measure worldmodel.py:make_task --policy worldmodel.py:make_policy \
--critic worldmodel.py:make_critic"""

import torch
from torch import nn

import gradlab


def net(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, outputs))


class WorldModel(nn.Module):  # yours: load what you have trained
    def __init__(self, seen=2, latent=8, action=1):
        super().__init__()
        self.policy = nn.Sequential(net(latent, action), nn.Tanh())
        self.encode, self.dynamics = net(seen, latent), net(latent + action, latent)
        self.paid, self.critic = net(latent + action, 1), net(latent + action, 1)

    def step(self, z, a):
        return z + self.dynamics(torch.cat([z, a], 1))

    def reward(self, z, a):
        return self.paid(torch.cat([z, a], 1))[:, 0]

    def q(self, z, a):
        return self.critic(torch.cat([z, a], 1))[:, 0]


def made():
    torch.manual_seed(0)
    task = gradlab.tasks.pendulum()  # yours: that it was trained on
    return gradlab.tasks.with_world_model(task, WorldModel(), observe=lambda state: state)


make_task, make_policy, make_critic = (lambda k=k: made()[k] for k in range(3))
