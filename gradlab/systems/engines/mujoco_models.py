"""MuJoCo models that another engine steps: what every such engine asks of one."""

from __future__ import annotations

import copy
from typing import Any

import mujoco

from gradlab import validation
from gradlab.errors import InputError


def checked(model: Any, reward: Any, frame_skip: Any, iterations: Any) -> mujoco.MjModel:
    """A copy of the model with so many iterations of the constraint solver.

    Raises:
        InputError: an argument is wrong, or a state is more than (qpos, qvel).
    """
    validation.instance("model", model, mujoco.MjModel, "a mujoco.MjModel")
    validation.whole("frame_skip", frame_skip, 1)
    validation.whole("iterations", iterations, 1)
    if not callable(reward):
        raise InputError(
            f"reward is {validation.shown(reward)}, expected a function (state, action, next_state)"
        )
    for name, count in {"activations": model.na, "motion-capture bodies": model.nmocap}.items():
        if count:
            raise InputError(
                f"model has {count} {name}: a state is (qpos, qvel) here, without them"
            )
    shortened = copy.deepcopy(model)
    shortened.opt.iterations = iterations
    return shortened
