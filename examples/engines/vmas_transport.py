"""A package pushed in VMAS: `gradlab certify examples/engines/vmas_transport.py:simulator`.

The state is position, velocity, angle and turn rate of all that moves; the reward is a function of
it, unlike the scenario's own, which remembers the last step.
"""

import torch
import vmas

import gradlab


class Transport:
    def __init__(self, n):
        given = dict(grad_enabled=True, clamp_actions=True, seed=0, n_agents=2)
        self.env = vmas.make_env("transport", n, "cpu", **given)
        self.moving = [each for each in self.env.world.entities if each.movable]

    def step(self, action):
        self.env.step(list(torch.split(action, 2, 1)))
        after = read(self)
        return after, -after[:, :2].square().sum(1) - 0.1 * action.square().sum(1)


def read(env):
    states = [each.state for each in env.moving]
    return torch.cat([x for s in states for x in (s.pos, s.vel, s.rot, s.ang_vel)], 1)


def write(env, state):
    for each, part in zip(env.moving, torch.split(state, 6, 1), strict=True):
        pos, vel, rot, spin = torch.split(part, [2, 2, 1, 1], 1)
        each.state.pos, each.state.vel, each.state.rot, each.state.ang_vel = pos, vel, rot, spin


def simulator():
    return gradlab.systems.from_environment(Transport(64), read, write, action_dim=4)
