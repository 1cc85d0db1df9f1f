"""A pushed ball in Newton: `gradlab certify examples/engines/newton_ball.py:simulator`."""

import itertools

import newton
import warp as wp

import gradlab

ROWS, SUBSTEPS, DT, VECTORS, TABLE = 64, 4, 0.01, wp.array(dtype=wp.vec3), wp.array2d(dtype=float)


@wp.kernel
def entered(state: TABLE, action: TABLE, q: VECTORS, qd: VECTORS, force: VECTORS):
    i = wp.tid()  # a world is a row
    q[i] = wp.vec3(state[i, 0], state[i, 1], state[i, 2])
    qd[i] = wp.vec3(state[i, 3], state[i, 4], state[i, 5])
    force[i] = wp.vec3(action[i, 0], action[i, 1], action[i, 2])


@wp.kernel
def left(q: VECTORS, qd: VECTORS, after: TABLE):
    i, d = wp.tid()
    after[i, d] = q[i][d]
    after[i, 3 + d] = qd[i][d]


def simulator():
    world = newton.ModelBuilder(gravity=(0.0, 0.0, -9.81))
    for _ in range(ROWS):
        world.add_particle(pos=(0.0, 0.0, 1.0), vel=(0.0, 0.0, 0.0), mass=2.0, radius=0.1)
    model = world.finalize(device="cpu", requires_grad=True)
    model.particle_grid, solver = None, newton.solvers.SolverSemiImplicit(model)
    first, *_, last = at = [model.state() for _ in range(SUBSTEPS + 1)]

    def step(state, action, after):
        into = [first.particle_q, first.particle_qd, first.particle_f]
        wp.launch(entered, ROWS, [state, action], into, device="cpu")
        for now, then in itertools.pairwise(at):
            solver.step(now, then, None, None, DT)
            wp.copy(then.particle_f, now.particle_f)
        wp.launch(left, (ROWS, 3), [last.particle_q, last.particle_qd], [after], device="cpu")

    return gradlab.systems.from_warp(step, 6, 3, lambda s, a, z: -(z**2).sum(1), rows=ROWS)
