"""Systems whose Jacobians and growth are known, with a policy and starts."""

import torch
from torch import nn

from gradlab.data.noise import stream
from gradlab.systems.closed_form import LinearQuadratic

A = torch.tensor([[1.05, 0.1, 0.0], [0.0, 0.9, 0.2], [0.1, 0.0, 0.7]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.5], [0.3]], dtype=torch.float64)
GAIN = torch.tensor([[-0.3, -0.2, 0.1]], dtype=torch.float64)


def linear(A=A, B=B, noise=0.01):
    eye = torch.eye(len(A), dtype=torch.float64)
    return LinearQuadratic(A, B, eye, 0.1 * eye[: B.shape[1], : B.shape[1]], noise * eye)


def feedback(gain=GAIN):
    policy = nn.Linear(gain.shape[1], gain.shape[0], bias=False, dtype=torch.float64)
    policy.weight.data.copy_(gain)
    return policy


def starts(n=40, ds=3):
    return torch.randn(n, ds, generator=stream(0, "test"), dtype=torch.float64)


def value(run, section, quantity, **where):
    (found,) = run.rows(section, quantity=quantity, **where)["value"]
    return found
