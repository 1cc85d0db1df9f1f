"""A MuJoCo model stepped and differentiated by MJX, MuJoCo's port to JAX, as a System.

The state is (qpos, qvel), the action `ctrl`; a step is `frame_skip` substeps. MJX differentiates
through its constraint solver: with one iteration there is no loop of unknown length in it, so that
reverse mode exists. One iteration is not the solver's limit wherever constraints are active: the
step may differ there from MuJoCo's own, while its Jacobians are those of the step that is made. On
a slider's limit it is MuJoCo's to rounding under Euler, and off by 1e-2 under Runge-Kutta, where
three iterations are MuJoCo's to rounding (`tests/engines/test_from_mjx.py`).

MuJoCo models that another engine steps: what every such engine asks of one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mujoco

from gradlab import validation
from gradlab.errors import InputError, required
from gradlab.systems.engines.bridge import ROWS
from gradlab.systems.engines.from_jax import JaxAlive, from_jax, in_float64
from gradlab.systems.system import System


def checked(model: Any, reward: Any, frame_skip: Any, iterations: Any) -> mujoco.MjModel:
    """A copy of the model with so many iterations of the constraint solver.

    Raises:
        InputError: an argument is wrong, or a state is more than (qpos, qvel).
    """
    validation.instance("model", model, mujoco.MjModel, "a mujoco.MjModel")
    validation.whole("frame_skip", frame_skip, 1)
    validation.whole("iterations", iterations, 1)
    validation.function("reward", reward, "(state, action, next_state)")
    for name, count in {"activations": model.na, "motion-capture bodies": model.nmocap}.items():
        if count:
            raise InputError(
                f"model has {count} {name}: a state is (qpos, qvel) here, without them"
            )
    shortened = copy.deepcopy(model)
    shortened.opt.iterations = iterations
    return shortened


_Reward = Callable[[Any, Any, Any], Any]


def from_mjx(
    model: mujoco.MjModel,
    reward: _Reward,
    frame_skip: int = 1,
    alive: JaxAlive | None = None,
    iterations: int = 1,
    rows: int = ROWS,
) -> System:
    """A System from a MuJoCo model; float64, CPU or wherever JAX computes.

    Args:
        model: without activations, motion-capture bodies, plugins or user data; it is copied.
        reward: JAX function (state [nq + nv], action [nu], next_state [nq + nv]) -> scalar.
        frame_skip: substeps per step.
        alive: JAX function next_state -> bool; None: every state is alive.
        iterations: of the constraint solver; beyond 1 there is no reverse mode.
        rows: states per call of the compiled program.

    Raises:
        InputError: MJX is not installed, does not support the model, or an argument is wrong.
    """
    limited = checked(model, reward, frame_skip, iterations)
    mjx = required("mujoco.mjx", "mjx", "mujoco-mjx")
    import jax

    nq = model.nq
    with in_float64():
        try:
            on_device = mjx.put_model(limited)
        except NotImplementedError as error:
            raise InputError(f"model is not supported by MJX: {error}") from error
        blank = mjx.make_data(on_device)

    def step(state: Any, action: Any) -> tuple[Any, Any]:
        def substep(data: Any, _: None) -> tuple[Any, None]:
            return mjx.step(on_device, data), None

        data = blank.replace(qpos=state[:nq], qvel=state[nq:], ctrl=action)
        data, _ = jax.lax.scan(substep, data, None, frame_skip)
        after = jax.numpy.concatenate([data.qpos, data.qvel])
        return after, reward(state, action, after)

    return from_jax(step, nq + model.nv, model.nu, alive=alive, rows=rows)
