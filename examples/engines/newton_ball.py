"""A pushed ball in Newton: `gradlab certify examples/engines/newton_ball.py:simulator`."""

import newton
import warp as wp

import gradlab

ROWS, STEPS, DT, VECTORS, TABLE = 64, 4, 0.01, wp.array(dtype=wp.vec3), wp.array2d(dtype=float)


@wp.kernel
def entered(state: TABLE, action: TABLE, q: VECTORS, qd: VECTORS, force: VECTORS):
    i = wp.tid()  # a world is a row
    q[i] = wp.vec3(state[i, 0], state[i, 1], state[i, 2])
    qd[i] = wp.vec3(state[i, 3], state[i, 4], state[i, 5])
    force[i] = wp.vec3(action[i, 0], action[i, 1], action[i, 2])


@wp.kernel
def left(q: VECTORS, qd: VECTORS, after: TABLE):
    i, d = wp.tid()
    after[i, d] = wp.where(d < 3, q[i][d % 3], qd[i][d % 3])


def simulator():
    world = newton.ModelBuilder(gravity=(0.0, 0.0, -9.81))
    one = [(0.0, 0.0, 1.0)], [(0.0, 0.0, 0.0)], [2.0], [0.1]  # position, velocity, mass, radius
    world.add_particles(*(each * ROWS for each in one))
    model, model.particle_grid = world.finalize(device="cpu", requires_grad=True), None
    solver, at = newton.solvers.SolverSemiImplicit(model), [model.state() for _ in range(STEPS + 1)]
    into = [at[0].particle_q, at[0].particle_qd, at[0].particle_f]

    def step(state, action, after):
        wp.launch(entered, ROWS, [state, action], into, device="cpu")
        for k in range(STEPS):
            solver.step(at[k], at[k + 1], None, None, DT)
            wp.copy(at[k + 1].particle_f, at[k].particle_f)
        wp.launch(left, (ROWS, 6), [at[-1].particle_q, at[-1].particle_qd], [after], device="cpu")

    return gradlab.systems.from_warp(step, 6, 3, lambda s, a, z: -(z**2).sum(1), rows=ROWS)
