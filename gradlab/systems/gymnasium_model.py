"""Model, frame skip, reset law and joint limits of a Gymnasium MuJoCo environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.systems.chart import Chart
from gradlab.systems.physics import BatchedPhysics, warnings_caught, without_restart

_Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GymnasiumModel:
    """Physics, chart of the state, and the reset around (qpos, qvel) with its noise's scale."""

    physics: BatchedPhysics
    chart: Chart
    limits: _JointLimits
    qpos: _Array
    qvel: _Array
    reset_scale: float


@dataclass(frozen=True, eq=False)
class _JointLimits:
    """Limits of the slides and hinges that have them: columns of qpos, lowest and highest [L]."""

    names: tuple[str, ...]
    columns: NDArray[np.int64]
    low: _Array
    high: _Array

    @staticmethod
    def of(model: mujoco.MjModel) -> _JointLimits:
        straight = [int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE)]
        limited = [
            j for j in range(model.njnt) if model.jnt_limited[j] and model.jnt_type[j] in straight
        ]
        names = tuple(str(model.joint(j).name) for j in limited)
        low, high = model.jnt_range[limited].reshape(-1, 2).T
        return _JointLimits(names, model.jnt_qposadr[limited].astype(np.int64), low, high)

    def excess(self, qpos: _Array) -> _Array:
        """How far each joint is beyond its limits, [N, L]; at most 0 inside."""
        q = qpos[:, self.columns]
        return np.maximum(self.low - q, q - self.high)

    def far(self, qpos: _Array) -> NDArray[np.bool_]:
        """Beyond by more than the whole range, [N, L]: no simulation comes there by itself."""
        return self.excess(qpos) > self.high - self.low


def load(env_id: str, root: int) -> GymnasiumModel:
    """The environment as Gymnasium makes it.

    Args:
        root: leading translations that the state leaves out.

    Raises:
        InputError: Gymnasium does not know it, it is not a MuJoCo environment, or its state is
            more than positions and velocities.
    """
    with warnings_caught:
        try:
            environment: Any = gymnasium.make(env_id).unwrapped
        except gymnasium.error.Error as error:
            raise InputError(f"Gymnasium cannot make {env_id!r}: {error}") from None
    missing = [
        name
        for name in ("model", "frame_skip", "init_qpos", "init_qvel", "_reset_noise_scale")
        if not hasattr(environment, name)
    ]
    if missing:
        raise InputError(f"{env_id} has no {missing[0]}: it is not a Gymnasium MuJoCo environment")
    model = without_restart(environment.model)
    hidden = {
        "actuator activations": model.na,
        "motion-capture bodies": model.nmocap,
        "plugin states": model.npluginstate,
        "user data": model.nuserdata,
        "delayed controls or sensors": model.nhistory,
    }
    unsettable = [f"{count} {name}" for name, count in hidden.items() if count]
    if unsettable:
        raise InputError(
            f"{env_id}: its state cannot be set exactly, the model has {', '.join(unsettable)} "
            f"beside positions and velocities"
        )
    return GymnasiumModel(
        physics=BatchedPhysics(model, environment.frame_skip),
        chart=Chart.of(model, root),
        limits=_JointLimits.of(model),
        qpos=environment.init_qpos.copy(),
        qvel=environment.init_qvel.copy(),
        reset_scale=float(environment._reset_noise_scale),
    )
