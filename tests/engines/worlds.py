"""Another engine's System beside the same system written in torch, its closed form.

Each function returns both and the relative error that the engine's precision allows.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradlab.systems import System, from_function

World = tuple[System, System, float]
Step = Callable[[Tensor, Tensor], Tensor]


def cost(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
    return -after.square().sum(1) - 0.1 * action.square().sum(1)


def closed_form(step: Step, state_dim: int, action_dim: int) -> System:
    def paid(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        after = step(state, action)
        return after, cost(state, action, after)

    return from_function(paid, state_dim, action_dim)


def sliding(substeps: int, dt: float, acceleration: float) -> System:
    """A body pushed along a line: v' = v + c a dt, x' = x + v' dt in every substep."""

    def step(state: Tensor, action: Tensor) -> Tensor:
        x, v = state[:, :1], state[:, 1:]
        for _ in range(substeps):
            v = v + dt * acceleration * action
            x = x + dt * v
        return torch.cat([x, v], 1)

    return closed_form(step, 2, 1)


CART = """
<mujoco>
  <option timestep="0.02" iterations="100" tolerance="1e-12" jacobian="dense"/>
  <worldbody>
    <body>
      <joint name="slide" type="slide" axis="1 0 0" range="-9 9" limited="true"/>
      <geom type="sphere" size="0.1" mass="10" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="100"/></actuator>
</mujoco>
"""


def jax() -> World:
    pytest.importorskip("jax")
    from gradlab.systems import from_jax

    def step(state, action):
        x, v = state
        for _ in range(2):
            v = v + 0.2 * action[0]
            x = x + 0.02 * v
        after = state.at[0].set(x).at[1].set(v)
        return after, -(after @ after) - 0.1 * action[0] ** 2

    return from_jax(step, 2, 1, rows=64), sliding(2, 0.02, 10.0), 1e-9


def mjx() -> World:
    mujoco = pytest.importorskip("mujoco")
    pytest.importorskip("mujoco.mjx")
    from gradlab.systems import from_mjx

    system = from_mjx(
        mujoco.MjModel.from_xml_string(CART),
        lambda s, a, after: -(after @ after) - 0.1 * a[0] ** 2,
        frame_skip=2,
        rows=64,
    )
    return system, sliding(2, 0.02, 10.0), 1e-9


def mujoco_torch() -> World:
    mujoco = pytest.importorskip("mujoco")
    pytest.importorskip("mujoco_torch")
    from gradlab.systems import from_mujoco_torch

    model = mujoco.MjModel.from_xml_string(CART)
    system = from_mujoco_torch(model, cost, frame_skip=2, iterations=3)
    return system, sliding(2, 0.02, 10.0), 1e-9


def warp() -> World:
    wp = pytest.importorskip("warp")
    from gradlab.systems import from_warp
    from tests.engines.kernels import slid

    middle = wp.zeros((64, 2), dtype=wp.float64, device="cpu", requires_grad=True)

    def step(state, action, after) -> None:
        for before, then in ((state, middle), (middle, after)):
            wp.launch(slid, 64, [before, action], [then], device="cpu")

    system = from_warp(step, 2, 1, cost, dtype="float64", rows=64)
    return system, sliding(2, 0.02, 10.0), 1e-9


def newton() -> World:
    """A particle in free flight, far above the ground."""
    newton = pytest.importorskip("newton")
    from gradlab.systems import from_newton

    world = newton.ModelBuilder(up_axis=newton.Axis.Z, gravity=(0.0, 0.0, -9.81))
    world.add_particle(pos=(0.0, 0.0, 1.0), vel=(0.0, 0.0, 0.0), mass=2.0, radius=0.1)

    def fallen(state: Tensor, action: Tensor) -> Tensor:
        x, v = state[:, :3], state[:, 3:]
        for _ in range(4):
            v = v + 0.01 * (action / 2.0 - action.new_tensor([0.0, 0.0, 9.81]))
            x = x + 0.01 * v
        return torch.cat([x, v], 1)

    return from_newton(world, cost, 0.04, 4, rows=64), closed_form(fallen, 6, 3), 1e-4


def vmas() -> World:
    """A lone agent: v' = (1 - 0.25) v + a dt, x' = x + v' dt; turning without a torque."""
    pytest.importorskip("vmas")
    from gradlab.systems import from_vmas

    def moved(state: Tensor, action: Tensor) -> Tensor:
        push = torch.cat([action.clamp(-1, 1), torch.zeros_like(action[:, :1])], 1)
        place, speed = state[:, [0, 1, 4]], state[:, [2, 3, 5]]
        speed = 0.75 * speed + 0.1 * push
        place = place + 0.1 * speed
        return torch.cat([place[:, :2], speed[:, :2], place[:, 2:], speed[:, 2:]], 1)

    return from_vmas("simple", cost), closed_form(moved, 6, 2), 1e-9


ALL = (jax, mjx, mujoco_torch, warp, newton, vmas)
