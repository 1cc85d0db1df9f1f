"""Scenes of the engines that are certified: what each one is like is said by its docstring.

What several engines can load stands once: three MuJoCo models. A scene is made where its engine is
installed, so that engines are imported where a scene is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gradlab
from gradlab.systems import System
from gradlab.systems.engines.from_jax import in_float64
from gradlab.tasks import Task

OPTIONS = '<option timestep="0.02" iterations="100" tolerance="1e-12" jacobian="dense"/>'
CART_POLE = f"""
<mujoco>
  {OPTIONS}
  <worldbody>
    <body>
      <joint name="slide" type="slide" axis="1 0 0" range="-1 1" limited="true" damping="1"/>
      <geom type="sphere" size="0.1" mass="10" contype="0" conaffinity="0"/>
      <body>
        <joint name="pole" type="hinge" axis="0 1 0" damping="0.1"/>
        <geom type="sphere" pos="0 0 0.6" size="0.05" mass="5" contype="0" conaffinity="0"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="100" ctrlrange="-3 3" ctrllimited="true"/></actuator>
</mujoco>
"""
REACHER = f"""
<mujoco>
  {OPTIONS}
  <worldbody>
    <body>
      <joint name="shoulder" type="hinge" axis="0 0 1" damping="0.2" armature="0.05"/>
      <geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.04" mass="1" contype="0"
        conaffinity="0"/>
      <body pos="0.5 0 0">
        <joint name="elbow" type="hinge" axis="0 0 1" range="-2 2" limited="true" damping="0.1"
          armature="0.05"/>
        <geom type="capsule" fromto="0 0 0 0.4 0 0" size="0.04" mass="0.7" contype="0"
          conaffinity="0"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="shoulder" gear="2" ctrlrange="-1 1" ctrllimited="true"/>
    <motor joint="elbow" gear="2" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>
</mujoco>
"""
HOPPING_BALL = f"""
<mujoco>
  {OPTIONS}
  <worldbody>
    <geom type="plane" size="5 5 0.1" friction="0.5 0 0"/>
    <body pos="0 0 0.1">
      <joint name="x" type="slide" axis="1 0 0" damping="0.5"/>
      <joint name="z" type="slide" axis="0 0 1" damping="0.1"/>
      <geom type="sphere" size="0.1" mass="1" solref="0.05 0.5" condim="3"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x" gear="10" ctrlrange="-1 1" ctrllimited="true"/>
    <motor joint="z" gear="10" ctrlrange="-1 1" ctrllimited="true"/>
  </actuator>
</mujoco>
"""
# Model, its coordinates, deviation of its starts, largest |action|.
_Model = tuple[str, tuple[str, ...], tuple[float, ...], tuple[float, ...]]
MODELS: dict[str, _Model] = {
    "cart-pole": (
        CART_POLE, ("slider [m]", "pole [rad]", "slider rate [m/s]", "pole rate [rad/s]"),
        (0.6, 0.3, 0.5, 0.5), (3.0,),
    ),
    "reacher": (
        REACHER, ("shoulder [rad]", "elbow [rad]", "shoulder rate", "elbow rate"),
        (1.0, 1.0, 1.0, 1.0), (1.0, 1.0),
    ),
    "ball": (HOPPING_BALL, ("x [m]", "z [m]", "ẋ", "ż"), (0.5, 0.05, 0.5, 0.5), (1.0, 1.0)),
}  # fmt: skip


def normal(mean: tuple[float, ...], deviation: tuple[float, ...]) -> Any:
    """A start law of independent normal coordinates."""

    def starts(n: int, generator: torch.Generator) -> Tensor:
        draws = torch.randn(n, len(mean), generator=generator, dtype=torch.float64)
        return draws * draws.new_tensor(deviation) + draws.new_tensor(mean)

    return starts


def around(
    name: str,
    system: System,
    deviation: tuple[float, ...],
    mean: tuple[float, ...] | None = None,
    limit: tuple[float, ...] | None = None,
    names: tuple[str, ...] = (),
) -> Task:
    """A task that starts around a state; 0 without one."""
    at = (0.0,) * len(deviation) if mean is None else mean
    return Task(
        name, system, None, normal(at, deviation), 0.99, 25, names,
        action_limit=limit,
    )  # fmt: skip


def quadratic(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
    """Minus the next state's first half, squared, and a little of the action."""
    place = after[:, : after.shape[1] // 2]
    return -place.square().sum(1) - 1e-3 * action.square().sum(1)


def mjx(scene: str) -> Task:
    import mujoco

    xml, names, deviation, limit = MODELS[scene]
    n = len(names) // 2
    system = gradlab.systems.from_mjx(
        mujoco.MjModel.from_xml_string(xml),
        lambda s, a, after: -(after[:n] @ after[:n]) - 1e-3 * (a @ a), frame_skip=2,
    )  # fmt: skip
    return around(f"{scene} in MJX", system, deviation, None, limit, names)


def mujoco_torch(scene: str) -> Task:
    import mujoco

    xml, names, deviation, limit = MODELS[scene]
    model = mujoco.MjModel.from_xml_string(xml)
    system = gradlab.systems.from_mujoco_torch(model, quadratic, frame_skip=2, iterations=3)
    return around(f"{scene} in mujoco-torch", system, deviation, None, limit, names)


def brax_system(
    scene: str, backend: str, reward: Callable[..., Any], alive: Any = None
) -> tuple[System, tuple[float, ...]]:
    """One step of Brax's environment from (q, q̇) to (q, q̇), and where it starts.

    Args:
        reward: JAX function (state before, action, state after, seconds between) → scalar.
        alive: JAX function of the next (q, q̇).
    """
    import jax
    from brax import envs

    with in_float64():
        env = envs.get_environment(scene, backend=backend)
    nq, nv = env.sys.q_size(), env.sys.qd_size()

    def step(state: Any, action: Any) -> tuple[Any, Any]:
        before = env.pipeline_init(state[:nq], state[nq:])
        after = env.pipeline_step(before, jax.numpy.clip(action, -1, 1))
        paid = reward(before, action, after, env.dt)
        return jax.numpy.concatenate([after.q, after.qd]), paid

    system = gradlab.systems.from_jax(step, nq + nv, env.action_size, alive=alive, rows=64)
    return system, (*(float(x) for x in jax.device_get(env.sys.init_q)), *(0.0,) * nv)


def brax(scene: str, backend: str) -> Task:
    system, middle = brax_system(scene, backend, lambda s, a, after, dt: -(after.q @ after.q))
    limit = (1.0,) * system.action_dim
    return around(f"{scene} in Brax ({backend})", system, (0.1,) * len(middle), middle, limit)


def vmas(scene: str, agents: int) -> Task:
    def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return -after[:, :2].square().sum(1) - 0.1 * action.square().sum(1)

    system = gradlab.systems.from_vmas(scene, reward, n_agents=agents)
    limit = (1.0,) * system.action_dim
    return around(f"{scene} in VMAS", system, (0.08,) * system.state_dim, None, limit)


def newton(scene: str) -> Task:
    """Particles thrown at the ground: one, two on a spring, three on a slack chain."""
    import newton as engine

    stiffness = dict(ke=1e3, kf=0.0, kd=10.0, mu=0.2)
    world = engine.ModelBuilder(up_axis=engine.Axis.Z)
    count = {"ball": 1, "spring": 2, "chain": 3}[scene]
    for k in range(count):
        world.add_particle(pos=(0.3 * k, 0.0, 1.0), vel=(0.0, 0.0, 0.0), mass=1.0, radius=0.1)
        if k:
            world.add_spring(k - 1, k, ke=50.0, kd=1.0, control=0.0)
    world.add_ground_plane(cfg=engine.ModelBuilder.ShapeConfig(**stiffness))

    def prepare(model: Any) -> None:
        for name, value in stiffness.items():
            setattr(model, f"soft_contact_{name}", value)

    system = gradlab.systems.from_newton(world, quadratic, 1 / 60, 4, prepare)
    places = tuple(x for k in range(count) for x in (0.3 * k, 0.0, 0.15))
    speeds = (0.0, 0.0, -0.5) * count
    spread = (*(0.1, 0.1, 0.1) * count, *(0.5,) * (3 * count))
    return around(f"{scene} in Newton", system, spread, (*places, *speeds))


def rewarped(scene: str) -> Task:
    """Rewarped's own environment, a step of it with the state set before (Warp 1.3.3, dFlex)."""
    import importlib

    module = importlib.import_module(f"rewarped.envs.dflex.{scene}")
    env = getattr(module, scene.capitalize())(
        num_envs=64, device="cpu", use_graph_capture=False, render=False, no_env_offset=True,
        episode_length=10**9, early_termination=False,
    )  # fmt: skip
    env.reset()

    def read(e: Any) -> Tensor:
        return torch.cat([t.view(e.num_envs, -1) for t in e.state_tensors], dim=1)

    q = env.state_tensors[0].numel() // env.num_envs

    def write(e: Any, state: Tensor) -> None:
        e.clear_grad()
        e.state.assign("joint_q", state[:, :q].float().contiguous().view(-1))
        e.state.assign("joint_qd", state[:, q:].float().contiguous().view(-1))
        e.progress_buf.zero_()

    system = gradlab.systems.from_environment(env, read, write, env.num_actions)
    ds = system.state_dim
    middle = (*(float(x) for x in read(env)[0, :q]), *(0.0,) * (ds - q))
    limit = (1.0,) * env.num_actions
    return around(f"{scene} in Rewarped", system, (0.1,) * ds, middle, limit)


def _pendulum(state: Tensor, action: Tensor) -> Tensor:
    return torch.stack([state[:, 1], action[:, 0] - 9.81 * state[:, 0].sin()], 1)


def _van_der_pol(state: Tensor, action: Tensor) -> Tensor:
    x, v = state.unbind(1)
    return torch.stack([v, 2 * (1 - x**2) * v - x + action[:, 0]], 1)


def _lorenz(state: Tensor, action: Tensor) -> Tensor:
    x, y, z = state.unbind(1)
    return torch.stack([10 * (y - x) + action[:, 0], x * (28 - z) - y, x * y - 8 / 3 * z], 1)


FIELDS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[float, ...]]] = {
    "pendulum": (_pendulum, (1.0, 1.0)),
    "van-der-pol": (_van_der_pol, (1.0, 1.0)),
    "lorenz": (_lorenz, (5.0, 5.0, 5.0)),
}


def torchdiffeq(scene: str) -> Task:
    """dopri5 at its default tolerances; every row integrated by itself would cost too much, so
    that the rows of a batch share their steps."""
    from torchdiffeq import odeint

    field, deviation = FIELDS[scene]

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        times = torch.tensor([0.0, 0.05], dtype=state.dtype)
        after: Tensor = odeint(lambda t, s: field(s, action), state, times)[-1]
        return after, -after.square().sum(1) - 1e-3 * action.square().sum(1)

    system = gradlab.systems.from_function(step, len(deviation), 1)
    return around(f"{scene} in torchdiffeq", system, deviation)


def cvxpylayers(scene: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A controller or a projection at its solution, as a function, and its inputs."""
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    generator = torch.Generator().manual_seed(0)
    parameter = cp.Parameter({"mpc": 2, "simplex": 4, "cone": 3}[scene])
    constraints, answer = [], cp.Variable(parameter.size)
    if scene == "mpc":  # ten steps of a double integrator with |u| ≤ 1
        A, B = torch.tensor([[1.0, 0.1], [0.0, 1.0]]).numpy(), torch.tensor([[0.0], [0.1]]).numpy()
        x, u = cp.Variable((11, 2)), cp.Variable((10, 1))
        constraints = [x[0] == parameter, cp.abs(u) <= 1]
        constraints += [x[t + 1] == A @ x[t] + B @ u[t] for t in range(10)]
        cost, answer = cp.sum_squares(x) + 0.1 * cp.sum_squares(u), u
    else:
        cost = cp.sum_squares(answer - parameter)
        constraints = [cp.norm(answer) <= 1, answer[0] >= 0]
        if scene == "simplex":
            constraints = [answer >= 0, cp.sum(answer) == 1]
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cost), constraints), parameters=[parameter], variables=[answer]
    )

    def solved(rows: Tensor) -> Tensor:
        return layer(rows, solver_args={"eps": 1e-12})[0].flatten(1)[:, :4]

    inputs = torch.randn(256, parameter.size, generator=generator, dtype=torch.float64)
    solved.__name__ = f"{scene} by cvxpylayers"
    return solved, inputs


def genesis(scene: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Where a rigid body is after three steps, as a function of where it was, how fast and what
    pushes it: Genesis reads no velocity with a gradient."""
    import genesis as gs

    gs.init(backend=gs.cpu, precision="64", logging_level="error")
    world = gs.Scene(
        sim_options=gs.options.SimOptions(dt=0.02, requires_grad=True), show_viewer=False
    )
    world.add_entity(gs.morphs.Plane())
    box = scene == "box"
    shape = gs.morphs.Box(size=(0.2,) * 3) if box else gs.morphs.Sphere(radius=0.1)
    body, rows = world.add_entity(shape), 64
    world.build(n_envs=rows)
    height = 1.0 if scene == "flight" else 0.1  # one flies, two lie on the ground or just above

    def moved(x: Tensor) -> Tensor:
        steps = partial(_genesis_steps, world, body, rows=rows)
        return torch.cat([Again.apply(steps, block) for block in x.split(rows)])

    middle = x_of(0.0, 0.0, height, 0.3, 0.0, -0.3, 0.0, 0.0, 0.0)
    spread = x_of(0.3, 0.3, 0.02, 0.3, 0.3, 0.2, 1.0, 1.0, 1.0)
    draws = torch.randn(256, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved.__name__ = f"{scene} in Genesis"
    return moved, middle + spread * draws


class Again(torch.autograd.Function):
    """A function that is run once more by its backward pass: a scene has one roll-out at a time."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(x)
        with torch.enable_grad():  # the scene's own buffers are made for it
            return function(x.detach().clone().requires_grad_()).detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor]:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().clone().requires_grad_()
            return None, torch.autograd.grad(ctx.function(x), x, g)[0]


def x_of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _genesis_steps(world: Any, body: Any, x: Tensor, rows: int) -> Tensor:
    n = len(x)
    full = torch.cat([x, x[-1:].detach().expand(rows - n, -1)])
    world.reset()
    body.set_pos(full[:, :3])
    zeros = torch.zeros_like(full[:, :3])
    body.set_dofs_velocity(torch.cat([full[:, 3:6], zeros], 1))
    for _ in range(3):
        body.control_dofs_force(torch.cat([full[:, 6:], zeros], 1))
        world.step()
    after: Tensor = body.get_state().pos[:n]
    return after


def own(scene: str) -> Task:
    task: Task = gradlab.tasks.TASKS[scene]()
    return task


def gymnasium(scene: str) -> Task:
    return gradlab.tasks.mujoco(scene)


def several(make: Callable[..., Any], *scenes: str, **settings: Any) -> dict[str, Any]:
    """Scenes by name."""
    return {scene.replace("_", "-"): partial(make, scene, **settings) for scene in scenes}
