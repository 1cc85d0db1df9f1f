"""A model that was fitted to the action before the one that moved the state.

Right: its ∂s′/∂a is wrong and has the largest error of all blocks; fitted to the action itself the
same model's error is a small share of that.
"""

import torch

import gradlab

DT, FEATURES = 0.1, 200


def step(state, action):
    x, v = state.unbind(1)
    v = v + DT * (2 * torch.tanh(action[:, 0]) - 1.5 * torch.sin(x) - 0.3 * v)
    x = x + DT * v
    return torch.stack([x, v], 1), -((x - 0.8) ** 2) - 0.05 * v**2 - 0.01 * action[:, 0] ** 2


def starts(n, generator):
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def _recorded(generator, episodes=64, length=60):
    s, a = starts(episodes, generator), torch.zeros(episodes, 1).double()
    states, actions = [s], []
    for _ in range(length):
        a = 0.9 * a + 0.45 * torch.randn(episodes, 1, generator=generator, dtype=torch.float64)
        s, _ = step(s, a)
        actions.append(a)
        states.append(s)
    return torch.stack(states), torch.stack(actions)


def spring(late):
    """A task whose model is linear in random features of state and action, by least squares."""
    generator = torch.Generator().manual_seed(0)
    s, a = _recorded(generator)
    weights, offsets = torch.randn(4, FEATURES, generator=generator).double().split([3, 1])

    def features(s, a):
        z = torch.cat([s, a], 1)
        return torch.cat([torch.tanh(0.5 * (z @ weights + offsets)), z], 1)

    given = features(s[1:-1].flatten(0, 1), (a[:-1] if late else a[1:]).flatten(0, 1))
    change = (s[2:] - s[1:-1]).flatten(0, 1)
    ridge = 1e-3 * torch.eye(given.shape[1]).double()
    fitted = torch.linalg.solve(given.T @ given + ridge, given.T @ change)

    def model(state, action):
        return state + features(state, action) @ fitted, step(state, action)[1]

    systems = (gradlab.systems.from_function(each, 2, 1) for each in (step, model))
    return gradlab.Task("spring", *systems, starts, discount=0.97, horizon=12, exploration=(1.0,))
