"""gradlab measure env.py:make_task"""

import torch

import gradlab


class Env:  # yours: n simulations at once, their state in tensors, gradients through step
    def __init__(self, n):
        self.state = torch.zeros(n, 2, dtype=torch.float64)  # position, speed

    def step(self, action):
        position, speed = self.state.unbind(1)
        speed = speed + 0.1 * action[:, 0]
        self.state = torch.stack([position + 0.1 * speed, speed], 1)
        return self.state, -(position**2) - 0.1 * speed**2 - 0.01 * action[:, 0] ** 2


def make_task():
    read, write = (lambda env: env.state), (lambda env, state: setattr(env, "state", state))
    simulator = gradlab.systems.from_environment(Env(64), read, write, action_dim=1)

    def starts(n, generator):
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    return gradlab.Task("env", simulator, None, starts, discount=0.95, horizon=20)
