"""gradlab measure TASK --model model.py:step"""

import torch

WIDTHS = 2, 1  # of state and action


class Model(torch.nn.Module):  # yours: next state and reward, of every row by itself
    def __init__(self, state_dim, action_dim):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(state_dim + action_dim, 64),
            torch.nn.SiLU(),
            torch.nn.Linear(64, state_dim + 1),
        )

    def forward(self, state, action):
        change = self.net(torch.cat([state, action], 1))
        return state + change[:, :-1], change[:, -1]


model = Model(*WIDTHS).double()
# model.load_state_dict(torch.load("model.pt"))


def step(state, action):
    return model(state, action)
