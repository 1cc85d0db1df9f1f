# mypy: ignore-errors
# Warp reads annotations as array types, which no type checker knows.
"""Rows of a state array to Newton's particles of as many worlds, and back."""

import warp as wp


@wp.kernel
def placed(
    state: wp.array2d(dtype=wp.float32),
    particles: int,
    position: wp.array(dtype=wp.vec3),
    velocity: wp.array(dtype=wp.vec3),
):
    row, k = wp.tid()
    i, x, v = row * particles + k, 3 * k, 3 * (particles + k)
    position[i] = wp.vec3(state[row, x], state[row, x + 1], state[row, x + 2])
    velocity[i] = wp.vec3(state[row, v], state[row, v + 1], state[row, v + 2])


@wp.kernel
def pushed(action: wp.array2d(dtype=wp.float32), particles: int, force: wp.array(dtype=wp.vec3)):
    row, k = wp.tid()
    force[row * particles + k] = wp.vec3(
        action[row, 3 * k], action[row, 3 * k + 1], action[row, 3 * k + 2]
    )


@wp.kernel
def read(
    position: wp.array(dtype=wp.vec3),
    velocity: wp.array(dtype=wp.vec3),
    particles: int,
    state: wp.array2d(dtype=wp.float32),
):
    row, k = wp.tid()
    i = row * particles + k
    for d in range(3):
        state[row, 3 * k + d] = position[i][d]
        state[row, 3 * (particles + k) + d] = velocity[i][d]
