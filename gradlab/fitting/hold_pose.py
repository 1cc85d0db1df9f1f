"""Holding a MuJoCo body's initial posture: proportional-derivative control of its actuated joints.

    u = kp (q₀ − q) − kd q̇      in units of the control limit, with the sign of the actuator's gear

It needs no model and no reward, and damps the chained Jacobians of every environment that it can
balance; an unactuated pole falls nevertheless.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradlab.systems.mujoco import MujocoEnvironment

# Held over a control step of 0.05 s, damping of 0.1 makes HalfCheetah chatter between the limits
# (λ = 0.45 per step instead of -0.11).
KP = 0.5  # control limits per radian
KD = 0.02  # control limits per radian per second


def posture_gain(system: MujocoEnvironment) -> Tensor:
    """K [da, ds] of a = −K (s − s*), float64, with s* the initial posture at rest."""
    model, root = system.physics.model, system.chart.root
    high = system.physics.control_range[1]
    gain = torch.zeros(model.nu, system.state_dim, dtype=torch.float64)
    for i in range(model.nu):
        joint = int(model.actuator_trnid[i, 0])
        limit = math.copysign(high[i], model.actuator_gear[i, 0])
        gain[i, model.jnt_qposadr[joint] - root] = KP * limit
        gain[i, model.nq - root + model.jnt_dofadr[joint]] = KD * limit
    return gain
