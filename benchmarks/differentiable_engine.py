"""One engine's differentiable step in a process of its own, for `benchmarks.differentiable`.

    python -m benchmarks.differentiable_engine NAME STATES.npz

After a first call, which compiles, each line on standard input makes one call; wall-clock and
processor seconds are the answer, on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

Call = Callable[[], object]


def gradlab_call(arrays: dict[str, Tensor], env_id: str) -> Call:
    import gradlab

    env = gradlab.differentiable(env_id, batch=len(arrays["action"]))
    return autograd(env, arrays["state"], arrays)


def mjx_call(arrays: dict[str, Tensor], env_id: str) -> Call:
    """The compiled vector–Jacobian product, which steps, too; one iteration of the solver."""
    from examples.engines.mjx_cart import system_of

    model, skip = described(env_id)
    system: Any = system_of(
        model, reward(model, skip, lambda a: (a**2).sum()), skip, rows=len(arrays["action"])
    )
    cotangents = [arrays["weight"], torch.ones(len(arrays["action"]), dtype=torch.float64)]
    inputs = [arrays["physical"], arrays["action"], *cotangents]
    return lambda: [x.sum().item() for x in system.engine.pullback(inputs)]


def mujoco_torch_call(arrays: dict[str, Tensor], env_id: str, iterations: int) -> Call:
    from examples.engines.mujoco_torch_cart import system_of

    model, skip = described(env_id)
    gained = reward(model, skip, lambda a: (a**2).sum(1))
    system = system_of(model, gained, skip, iterations=iterations)
    return autograd(system, arrays["physical"], arrays)


def described(env_id: str) -> tuple[Any, int]:
    environment: Any = gymnasium.make(env_id).unwrapped
    return environment.model, int(environment.frame_skip)


def reward(model: Any, skip: int, square: Callable[[Any], Any]) -> Callable[..., Any]:
    """Hopper's and Walker2d's: forward velocity of the root and control cost."""
    dt = model.opt.timestep * skip
    return lambda s, a, after: (after[..., 0] - s[..., 0]) / dt - 1e-3 * square(a)


def autograd(system: Any, state: Tensor, arrays: dict[str, Tensor]) -> Call:
    weight = arrays["weight"][:, -state.shape[1] :]

    def call() -> object:
        s, a = (x.clone().requires_grad_() for x in (state, arrays["action"]))
        out = system.step(s, a)
        return torch.autograd.grad((weight * out.state).sum() + out.reward.sum(), (s, a))

    return call


CALLS: dict[str, Callable[[dict[str, Tensor], str], Call]] = {
    "gradlab": gradlab_call,
    "MJX": mjx_call,
    "mujoco-torch": lambda arrays, env_id: mujoco_torch_call(arrays, env_id, 10),
    "mujoco-torch, one iteration": lambda arrays, env_id: mujoco_torch_call(arrays, env_id, 1),
}


def main(name: str, file: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with np.load(file) as loaded:
        env_id = str(loaded["env_id"])
        names = ("state", "physical", "action", "weight")
        arrays = {key: torch.from_numpy(loaded[key]) for key in names}
    call = CALLS[name](arrays, env_id)
    out, sys.stdout = sys.stdout, sys.stderr  # what an engine prints is no answer
    begun = time.perf_counter()
    call()
    print(json.dumps({"first": time.perf_counter() - begun}), file=out, flush=True)
    for _ in sys.stdin:
        begun, used = time.perf_counter(), time.process_time()
        call()
        took = [time.perf_counter() - begun, time.process_time() - used]
        print(json.dumps(took), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
