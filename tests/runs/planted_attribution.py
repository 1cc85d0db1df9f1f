"""A linear task with a planted mistake, and its policy."""

import torch
from torch import nn

from gradlab.tasks import linear_quadratic

GAMMA, H = 0.8, 4
A, B = [[0.9, 0.1], [0.1, 0.8]], [[0.3, 0.1], [0.2, 0.4]]
WEIGHT = torch.tensor([[-0.6, -0.2], [-0.3, -0.8]], dtype=torch.float64)


def task(prior, noise=0.0, A=A, B=B):
    ds = len(A)
    return linear_quadratic(
        A, B, noise_covariance=noise * torch.eye(ds, dtype=torch.float64),
        start_mean=[1.0] * ds, discount=GAMMA, prior=prior,
    )  # fmt: skip


def policy(weight=WEIGHT):
    found = nn.Linear(*reversed(weight.shape), bias=False).double()
    found.weight.data = weight.clone()
    return found
