"""Derivatives by hand of a clipped command that reads its limit from another actuator's slot.

Right: `cart(slot=1)` is named in ∂s′/∂s, and with it in ∂r/∂s, where the fan's command is cut off;
`cart(slot=2)` passes.
"""

import torch

import gradlab
from gradlab.systems import Certificate, Linearization, Transition

DT = 0.05
HIGH = torch.tensor([2.0, 2.0, 0.3]).double()
DAMPING, GAIN, COUPLING, FAN, LOSS = 0.5, 1.5, 0.4, 3.0, 1.2


class Cart:
    state_dim, action_dim, noise_dim, differentiable = 2, 3, 0, False

    def __init__(self, slot):
        self.slot = slot

    def step(self, state, action, noise=None):
        x, v = state.unbind(1)
        drive, tilt, fan = action.clamp(-HIGH, HIGH).unbind(1)
        force = GAIN * drive + COUPLING * tilt * x + fan * (FAN - LOSS * v)
        v = v + DT * (force - DAMPING * v)
        x = x + DT * v
        return Transition(torch.stack([x, v], 1), -(x**2) - 0.1 * v**2, torch.ones(len(x)).bool())

    def linearize(self, state, action, noise=None):
        x, v = state.unbind(1)
        tilt = action[:, 1].clamp(-HIGH[1], HIGH[1])
        free = (action.abs() < HIGH).to(state)
        fan = action[:, 2].clamp(-HIGH[self.slot], HIGH[self.slot])
        by_state = torch.stack([DT * COUPLING * tilt, 1 - DT * (LOSS * fan + DAMPING)], 1)
        gains = torch.stack([GAIN + 0 * x, COUPLING * x, FAN - LOSS * v], 1)
        by_action = DT * free * gains
        A = torch.stack([torch.tensor([1.0, 0.0]).to(state) + DT * by_state, by_state], 1)
        B = torch.stack([DT * by_action, by_action], 1)
        slope = self.step(state, action).state * torch.tensor([-2.0, -0.2]).to(state)
        r_s, r_a = ((slope[:, None] @ J)[:, 0] for J in (A, B))
        return Linearization(A, B, r_s, r_a, Certificate.exact(state))

    def sample_noise(self, n, generator, dtype=torch.float64):
        return torch.zeros(n, 0, dtype=dtype)


def cart(slot):
    def starts(n, generator):
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    return gradlab.Task(
        "cart", Cart(slot), None, starts, discount=0.97, horizon=10, action_limit=(2.0, 2.0, 2.0)
    )
