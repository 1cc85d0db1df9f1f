"""Two policies for MuJoCo tasks without a prior: random, and holding the initial posture.

random     a ~ U over the control range, independent of the state
posture    u = kp (q₀ − q) − kd q̇ per actuated joint, clipped (`gradlab.fitting.policies`)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.fitting.policies import hold_pose_gain
from gradlab.systems.mujoco import MujocoEnvironment


@dataclass(frozen=True)
class Gains:
    """What a posture controller is made of; stored with its results."""

    joints: tuple[str, ...]
    kp: tuple[float, ...]
    kd: tuple[float, ...]
    target: tuple[float, ...]


class Random(nn.Module):
    """Uniform over [low, high] [da]; does not see the state."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.noise_dim = len(low)

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        share = 0.5 * (1 + torch.erf(noise / math.sqrt(2)))
        return self.low + (self.high - self.low) * share + 0.0 * state[:, :1]


class Posture(nn.Module):
    """a = clip(G (s₀ − s)) with one proportional and one derivative gain per actuated joint."""

    def __init__(self, gain: Tensor, target: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        for name, value in (("gain", gain), ("target", target), ("low", low), ("high", high)):
            self.register_buffer(name, value)

    def forward(self, state: Tensor) -> Tensor:
        wanted = (self.target - state) @ self.gain.T
        return torch.maximum(torch.minimum(wanted, self.high), self.low)


def random(simulator: MujocoEnvironment) -> Random:
    low, high = simulator.physics.control_range
    return Random(torch.from_numpy(low), torch.from_numpy(high))


def posture(simulator: MujocoEnvironment) -> tuple[Posture, Gains]:
    """The controller and its gains, in control units."""
    model, chart, built = simulator.physics.model, simulator.chart, simulator.built
    low, high = (torch.from_numpy(each.copy()) for each in simulator.physics.control_range)
    gain = hold_pose_gain(simulator)
    target = torch.from_numpy(np.concatenate([built.qpos[chart.root :], built.qvel]))
    joints = model.actuator_trnid[:, 0]
    places = (model.jnt_qposadr[joints] - chart.root).tolist()
    speeds = (chart.nq - chart.root + model.jnt_dofadr[joints]).tolist()
    rows = range(model.nu)
    told = Gains(
        joints=tuple(str(model.joint(int(each)).name) for each in joints),
        kp=tuple(gain[rows, places].tolist()),
        kd=tuple(gain[rows, speeds].tolist()),
        target=tuple(target[places].tolist()),
    )
    return Posture(gain, target, low, high), told
