"""Particles of a Newton world, stepped and differentiated by its semi-implicit solver, as a System.

The state is the positions of all particles, then their velocities, the action a force on every
particle, constant over the substeps. One world is one row. Contacts with the world's shapes are
found anew in every substep, on the tape. Contacts among particles are left out: by Newton's own
documentation they may corrupt gradients, and they do not keep worlds apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradlab import validation
from gradlab.errors import InputError, required
from gradlab.systems.engines.from_warp import Reward, from_warp, warp_on
from gradlab.systems.function import AliveFunction
from gradlab.systems.system import System

_CONTACT_GAP = 10.0  # m, within which contacts are kept, so that none begins between two states


def from_newton(
    world: Any,
    reward: Reward,
    dt: float,
    substeps: int = 8,
    prepare: Callable[[Any], None] | None = None,
    alive: AliveFunction | None = None,
    device: str = "cpu",
    rows: int = 64,
) -> System:
    """A System from a `newton.ModelBuilder`; float32, as Newton is.

    Args:
        world: one world: particles, springs among them, and shapes that do not move.
        reward: of tensors (state [N, 6 P], action [N, 3 P], next_state [N, 6 P]) -> [N].
        dt: seconds per step; substeps: of the solver in it.
        prepare: called with the finished `newton.Model` of all rows, as to set its contacts'
            stiffness (`soft_contact_ke`, …).
        alive: next_state [N, 6 P] -> bool [N]; None: every state is alive.
        device: "cpu" or "cuda:0".
        rows: worlds of the model; other batches are cut and filled up.

    Raises:
        InputError: Newton is not installed, the world has no particles or has bodies that move,
            or an argument is wrong.
    """
    newton = required("newton", "newton")
    wp = warp_on(device)
    validation.instance("world", world, newton.ModelBuilder, "a newton.ModelBuilder")
    validation.whole("substeps", substeps, 1)
    validation.whole("rows", rows, 1)
    if validation.number("dt", dt, "seconds above 0") <= 0:
        raise InputError(f"dt is {dt!r}, expected seconds above 0")
    if not world.particle_count or world.body_count:
        got = f"{world.particle_count} particles and {world.body_count} bodies"
        raise InputError(f"world has {got}, expected particles, and no body that moves")
    step = _step(newton, wp, world, dt / substeps, substeps, prepare, rows, device)
    particles = world.particle_count
    return from_warp(
        step, 6 * particles, 3 * particles, reward, alive, device=device, rows=rows
    )  # fmt: skip


def _step(
    newton: Any, wp: Any, world: Any, dt: float, substeps: int, prepare: Any, rows: int, device: str
) -> Callable[[Any, Any, Any], None]:
    from gradlab.systems.engines import newton_rows

    all_worlds = newton.ModelBuilder(up_axis=world.up_axis, gravity=world.gravity)
    all_worlds.replicate(world, rows)
    model = all_worlds.finalize(device=device, requires_grad=True)
    model.particle_grid = None
    if prepare is not None:
        prepare(model)
    solver = newton.solvers.SolverSemiImplicit(model)
    states = [model.state() for _ in range(substeps + 1)]
    pipeline = newton.CollisionPipeline(
        model, broad_phase="explicit", soft_contact_gap=_CONTACT_GAP, requires_grad=True
    )
    contacts = [pipeline.contacts() for _ in range(substeps)]
    control, particles = model.control(), world.particle_count

    def launched(kernel: Any, inputs: list[Any], outputs: list[Any]) -> None:
        wp.launch(kernel, (rows, particles), inputs, outputs, device=device)

    def step(state: Any, action: Any, after: Any) -> None:
        first, last = states[0], states[-1]
        launched(newton_rows.placed, [state, particles], [first.particle_q, first.particle_qd])
        for now, then, touching in zip(states, states[1:], contacts, strict=False):
            launched(newton_rows.pushed, [action, particles], [now.particle_f])
            pipeline.collide(now, touching)
            solver.step(now, then, control, touching, dt)
        launched(newton_rows.read, [last.particle_q, last.particle_qd, particles], [after])

    return step
