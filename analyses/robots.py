"""Two policies for MuJoCo tasks without a prior: random, and holding the initial posture.

random     a ~ U over the control range, independent of the state
posture    u = kp (q₀ − q) − kd q̇ per actuated joint, in units of the control limit, clipped
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from torch import Tensor, nn

from gradlab.systems.mujoco import MujocoEnvironment

# Held over a control step of 0.05 s, damping of 0.1 makes HalfCheetah chatter between the limits
# (λ = 0.45 per step instead of -0.11).
KP = 0.5  # control limits per radian
KD = 0.02  # control limits per radian per second


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
    model, built = simulator.physics.model, simulator.built
    root, nq = simulator.chart.root, model.nq
    low, high = simulator.physics.control_range
    gain = np.zeros((model.nu, simulator.state_dim))
    names, kp, kd = [], [], []
    for i in range(model.nu):
        joint = int(model.actuator_trnid[i, 0])
        place = model.jnt_qposadr[joint] - root
        speed = nq - root + model.jnt_dofadr[joint]
        sign = math.copysign(high[i], model.actuator_gear[i, 0])
        gain[i, place], gain[i, speed] = KP * sign, KD * sign
        names.append(mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, joint) or str(joint))
        kp.append(KP * sign)
        kd.append(KD * sign)
    target = np.concatenate([built.qpos[root:], built.qvel])
    reached = tuple(float(target[model.jnt_qposadr[model.actuator_trnid[i, 0]] - root])
                    for i in range(model.nu))  # fmt: skip
    parts = (torch.from_numpy(each.copy()) for each in (gain, target, low, high))
    return Posture(*parts), Gains(tuple(names), tuple(kp), tuple(kd), reached)
