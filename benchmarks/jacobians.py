"""How near are simulator Jacobians to the speed of the simulator itself?

    python -m benchmarks.jacobians [--samples 64] [--rounds 5] [--threads 1]

A, B, r_s, r_a and their certificate (`MujocoEnvironment.linearize`, retries included) at states
that random actions visit, against `mujoco.rollout` (MuJoCo's own C loop over mj_step, the same
number of threads) making as many mj_step calls from the same states: once with the environment's
solver tolerance, once with the sharper one that differences need. 1 is the speed of raw stepping;
each ratio is given by the wall clock and by processor time, which a busy machine does not disturb.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import torch
import tyro
from mujoco import rollout
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.side_by_side import clocks
from gradlab import tasks
from gradlab.systems.mujoco import MujocoEnvironment

Array = NDArray[np.float64]
ENVIRONMENTS = ("Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Humanoid-v5")
STEPS = 20  # of random actions before the states are taken


def main(
    samples: int = 64,
    rounds: int = 5,
    threads: int = 1,
    environments: tuple[str, ...] = ENVIRONMENTS,
) -> None:
    """Print a row per environment."""
    torch.set_num_threads(threads)
    print(f"{'raw / Jacobians':>20}  mj_steps    seconds  wall, processor  at 1e-12     flagged")
    for env_id in environments:
        print(row(env_id, samples, rounds, threads), flush=True)


def row(env_id: str, samples: int, rounds: int, threads: int) -> str:
    """One environment's counts, time and ratios."""
    system = tasks.mujoco(env_id).simulator
    assert isinstance(system, MujocoEnvironment)
    state, action = visited(env_id, samples)
    rows = counted_rows(system, state, action)
    contestants = {
        "Jacobians": lambda: system.linearize(state, action),
        "raw": raw(system.physics.model, system, state, action, rows, threads),
        "sharp": raw(system._precise.model, system, state, action, rows, threads),
    }
    taken = clocks(contestants, rounds)
    wall, processor = taken["Jacobians"]
    plain, sharp = (
        f"{taken[name][0] / wall:5.2f}  {taken[name][1] / processor:5.2f}"
        for name in ("raw", "sharp")
    )
    flagged = float(system.linearize(state, action).certificate.flags.double().mean())
    return (
        f"{env_id:>20}  {rows * system.physics.frame_skip:8d}  {wall:8.3f} s"
        f"     {plain}  {sharp}  {flagged:7.3f}"
    )


def visited(env_id: str, samples: int) -> tuple[Tensor, Tensor]:
    """States after `STEPS` random actions, and one more action."""
    task, generator = tasks.mujoco(env_id), torch.Generator().manual_seed(0)
    limit = torch.tensor(task.action_limit, dtype=torch.float64)

    def act() -> Tensor:
        uniform = torch.rand(samples, len(limit), generator=generator, dtype=torch.float64)
        return limit * (2 * uniform - 1)

    state = task.starts(samples, generator)
    for _ in range(STEPS):
        state = task.simulator.step(state, act()).state
    return state, act()


def counted_rows(system: MujocoEnvironment, state: Tensor, action: Tensor) -> int:
    """Environment steps that one `linearize` takes, retries included."""
    physics, taken = system._precise, 0
    step = physics.step

    def counting(rows: Array, control: Array) -> Array:
        nonlocal taken
        taken += len(rows)
        return step(rows, control)

    physics.step = counting  # type: ignore[method-assign]
    system.linearize(state, action)
    del physics.step
    return taken


def raw(
    model: mujoco.MjModel,
    system: MujocoEnvironment,
    state: Tensor,
    action: Tensor,
    rows: int,
    threads: int,
) -> Callable[[], object]:
    """`rows` environment steps by `mujoco.rollout`, everything allocated beforehand."""
    repeats = -(-rows // len(state))
    physical = np.tile(system.chart.physical(state.numpy()), (repeats, 1))[:rows]
    initial = np.concatenate([np.zeros((rows, 1)), physical], 1)  # time first
    skip = system.physics.frame_skip
    control = np.repeat(np.tile(action.numpy(), (repeats, 1))[:rows, None], skip, axis=1)
    after = np.empty((rows, skip, initial.shape[1]))
    runner = rollout.Rollout(nthread=threads if threads > 1 else 0)
    data = [mujoco.MjData(model) for _ in range(threads)]
    return lambda: runner.rollout(
        model, data, initial, np.ascontiguousarray(control), nstep=skip, state=after
    )


if __name__ == "__main__":
    tyro.cli(main)
