"""A batched torch environment whose state lives in it, as a System.

    write(env, s);  (…, r, …) = env.step(a);  s' = read(env)

The graph passes through `env.step` as the environment builds it. `read` and `write` are tried once,
from the state that the environment has when it is given: written and read it is the same, a second
step from it ends where the first did, and no row moves another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.interface import check_rows
from gradlab.systems.function import AliveFunction, from_function, survivors
from gradlab.systems.system import (
    Linearization,
    Noise,
    System,
    Transition,
    check_step,
    flat_reward,
    sample_normal,
)
from gradlab.user_code import running

Read = Callable[[Any], Tensor]
Write = Callable[[Any, Tensor], object]
Observe = Callable[[Tensor], Tensor]
_ALIKE = 1e-5  # of rounding, relative to the largest number


def from_environment(
    env: Any,
    read: Read,
    write: Write,
    action_dim: int | None = None,
    observe: Observe | None = None,
    alive: AliveFunction | None = None,
) -> System:
    """A System from an environment that steps n simulations at once.

    Args:
        env: has `step(action [n, da])`, which returns Gymnasium's five, four with one `done`, or a
            pair: anything, then the reward [n]. n is its own; other batches are cut and padded.
        read: env → its state [n, ds], with all that the next step depends on.
        write: (env, state [n, ds]): the state is this one now. It keeps the tensor, whose gradient
            is wanted, and sets clocks and counters back.
        action_dim: da; None: that of `env.action_space`.
        observe: state [n, ds] → what policy and critic see of it; `tasks.with_memory` gives it to
            them. None: all of it.
        alive: next_state [N, ds] → bool [N]; None: where the environment says `terminated`, it is
            not; all are, where it says nothing.

    Raises:
        InputError: a state that cannot be written or is not all of it, a step that draws, that
            mixes rows or through which no gradient passes; later, episodes that end by a clock.
    """
    if not callable(getattr(env, "step", None)):
        raise validation.expected("env", env, "an object with step(action [n, da])")
    if action_dim is None:
        shape = getattr(getattr(env, "action_space", None), "shape", None)
        if not shape:
            raise InputError("env has no action_space with a shape: give action_dim")
        action_dim = int(shape[-1])
    width = validation.whole("action_dim", action_dim, 1)
    validation.function("read", read, "env → its state [n, ds]: lambda env: env.state")
    validation.function("write", write, "(env, state): lambda env, s: setattr(env, 'state', s)")
    if observe is not None:
        validation.function("observe", observe, "state [n, ds] → what policy and critic see")
    system = EnvironmentSystem(env, read, write, width, alive, observe)
    system.try_out()
    return system


@final
@dataclass(frozen=True, eq=False)
class EnvironmentSystem:
    """See `from_environment`; computes in the environment's dtype and on its device."""

    differentiable: ClassVar[bool] = True
    noise_dim: ClassVar[int] = 0

    env: Any
    read: Read
    write: Write
    action_dim: int
    alive: AliveFunction | None = None
    observe: Observe | None = None

    @property
    def state_dim(self) -> int:
        return self._state().shape[1]

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        after, reward, alive = self._stepped(state, action)
        alive = alive if self.alive is None else survivors(self.alive, after)
        return Transition(after, reward, alive)

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        ds, da = self.state_dim, self.action_dim
        system = from_function(lambda s, a: self._stepped(s, a)[:2], ds, da)
        return system.linearize(state, action, noise)

    sample_noise = sample_normal

    def try_out(self) -> None:
        """Raises InputError: what `from_environment` says."""
        state = self._state().detach().clone()
        shape = len(state), self.action_dim
        draw = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        action = (draw - 0.5).to(state)

        def ends(*at: Tensor) -> Tensor:
            after, reward, _ = self._stepped(*at)
            return torch.cat([after, reward[:, None]], 1)

        with torch.random.fork_rng(devices=[]):
            ends(state, action)  # so that there is something to write back
            self.write(self.env, state.clone())
            if not _alike(self._state(), state):
                raise InputError(
                    "write does not set what read gives: written and read, a state is another one"
                )
            if not _alike(ends(state, action), ends(state, action)):
                raise InputError(
                    "env.step ends elsewhere the second time from one state and action: switch its "
                    "noise off, or put what is left out (a clock, velocities, the last action) "
                    "into read and write"
                )
            check_rows("env.step", ends, state, action)
            if not ends(state, action.clone().requires_grad_()).requires_grad:
                raise InputError(
                    "no gradient passes through env.step from the action: set its requires_grad, "
                    "and leave out no_grad, detach and numpy"
                )

    def _state(self) -> Tensor:
        with running("read"):
            state = self.read(self.env)
        if not isinstance(state, Tensor) or state.ndim != 2 or not state.is_floating_point():
            raise InputError(f"read gave {validation.shown(state)}, expected floats [n, ds]")
        return state

    def _stepped(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next state, reward and alive of any number of rows."""
        like = self._state()
        n, rows = len(like), len(state)
        spare = -rows % n
        inputs = [torch.cat([x, x[-1:].expand(spare, -1)]).to(like) for x in (state, action)]
        parts = [
            self._once(s, a)
            for s, a in zip(*(x.view(-1, n, x.shape[1]) for x in inputs), strict=True)
        ]
        after, reward, alive = (torch.cat(part)[:rows] for part in zip(*parts, strict=True))
        return after.to(state), reward.to(state), alive.to(state.device)

    def _once(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with running("write"):
            self.write(self.env, state)
        with running("env.step"):
            returned = self.env.step(action)
        n = len(state)
        reward = returned[1] if isinstance(returned, tuple | list) and len(returned) > 1 else None
        if not isinstance(reward, Tensor) or reward.numel() != n:
            got = returned if reward is None else reward
            raise validation.expected("what env.step returns", got, f"(…, reward [{n}], …)")
        given = [torch.as_tensor(x).reshape(-1) for x in returned[2:4] if not isinstance(x, dict)]
        ends = [flag != 0 for flag in given if flag.numel() == n]
        if len(ends) == 2 and bool(ends[1].any()):
            raise InputError(
                "env.step truncated an episode whose state was just written: let write set the "
                "environment's clock to 0"
            )
        alive = ~ends[0] if ends else torch.ones(n, dtype=torch.bool)
        return self._state(), flat_reward(reward, state).reshape(n), alive


def _alike(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape:
        return False
    size = float(torch.maximum(x.detach().abs().max(), y.detach().abs().max()))
    return bool((x - y).detach().abs().max() <= _ALIKE * max(size, 1e-30))
