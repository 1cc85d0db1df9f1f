"""Linear tasks of one and two dimensions under linear feedback."""

import torch

from gradlab.tasks import linear_quadratic
from gradlab.truth.lqr import second_moment
from tests.gradients.worlds import linear, matrix
from tests.measurement.turned import GAMMA

ONE = torch.eye(1, dtype=torch.float64)


def planar():
    world, mean = linear(), torch.tensor([1.0, -0.5], dtype=torch.float64)
    covariance = matrix((0.5, 0.1), (0.1, 0.3))
    task = linear_quadratic(
        A=world.A, B=world.B, Q=world.Q, R=world.R, noise_covariance=world.noise_covariance,
        start_mean=mean, start_covariance=covariance, discount=GAMMA,
        prior=(world.A, 0.8 * world.B),
    )  # fmt: skip
    return task, -matrix((0.4, 0.6)), second_moment(mean, covariance)
