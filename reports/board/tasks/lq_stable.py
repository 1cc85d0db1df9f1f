"""A linear-quadratic world whose A contracts, a new one for each seed; its model is wrong by a
tenth."""

import torch

import gradlab
from gradlab.data.noise import child, stream
from gradlab.fitting import fit_critic
from gradlab.measurement.update import Update
from gradlab.tools.board.stages import train_stages

STAGES = {"early": 5, "middle": 20, "late": 80}
UPDATE = Update("adam", 1e-2)
RADII = 0.7, 0.95


def world(seed, radii):
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    generator = stream(seed, "board world")
    A = torch.linalg.qr(draw(3, 3)).Q * torch.tensor([1.0, 0.8, 0.6], dtype=torch.float64)
    B = draw(3, 2)
    low, high = radii
    radius = low + (high - low) * torch.rand((), generator=generator).item()
    A *= radius / torch.linalg.eigvals(A).abs().max()
    wrong = [x + 0.1 * x.norm() / x.numel() ** 0.5 * draw(*x.shape) for x in (A, B)]
    R = 0.3 * torch.eye(2, dtype=torch.float64)
    prior = tuple(x.tolist() for x in wrong)
    return gradlab.tasks.linear_quadratic(A.tolist(), B.tolist(), R=R.tolist(), prior=prior)


def make(stage, seed, radii=RADII, stages=STAGES):
    task = world(seed, radii)
    policy = train_stages(task, stages, seed, rate=1e-2, hidden=())[stage]
    return task, policy, fit_critic(task, policy, seed=child(seed, "board critic"))
