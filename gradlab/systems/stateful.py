"""A batched torch environment whose state lives in it, as a System.

    write(env, s);  (…, r, …) = env.step(a);  s' = read(env)

The graph passes through `env.step` as the environment builds it. What a state must hold is tried
once, from the state that the environment has when it is given: written and read it is the same, a
second step from it ends where the first did, as does one after many, and no row moves another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.function import AliveFunction, from_function, survivors
from gradlab.systems.system import (
    Linearization,
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
_MIXES = "env.step mixes rows: {}; look for a mean over dim 0, or batch statistics"
_STEPS, _SECONDS = 200, 2.0  # from one state, to find what it does not hold, clocks among it


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
        given = validation.shown(env)
        raise InputError(f"env is {given}, expected an object with step(action [n, da])")
    if action_dim is None:
        shape = getattr(getattr(env, "action_space", None), "shape", None)
        if not shape:
            raise InputError("env has no action_space with a shape: give action_dim")
        action_dim = int(shape[-1])
    width = validation.whole("action_dim", action_dim, 1)
    for name, function, like in (
        ("read", read, "env → its state [n, ds], such as lambda env: env.state"),
        ("write", write, "(env, state) that sets it: lambda env, s: setattr(env, 'state', s)"),
        ("observe", observe, "state [n, ds] → what policy and critic see"),
    ):
        if name != "observe" or function is not None:
            validation.function(name, function, like)
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

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        check_step(self, state, action, noise)
        after, reward, alive = self._stepped(state, action)
        return Transition(
            after, reward, alive if self.alive is None else survivors(self.alive, after)
        )

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            return self._stepped(state, action)[:2]

        return from_function(step, self.state_dim, self.action_dim).linearize(state, action, noise)

    sample_noise = sample_normal

    def try_out(self) -> None:
        """Raises InputError: what `from_environment` says."""
        state = self._state().detach().clone()
        generator = torch.Generator().manual_seed(0)
        draw = torch.rand(len(state), self.action_dim, generator=generator, dtype=torch.float64)
        action = (draw - 0.5).to(state)
        with running("env.step"), torch.random.fork_rng(devices=[]):
            self.env.step(action)  # so that there is something to write back
        self.write(self.env, state.clone())
        if not _alike(self._state(), state):
            raise InputError(
                "write does not set what read gives: after a step, a state that is written is read "
                "back otherwise"
            )
        with torch.random.fork_rng(devices=[]):
            torchs = torch.get_rng_state()
            numpys: Any = np.random.get_state()
            first, elsewhere, begun = self._stepped(state, action)[:2], 0, time.monotonic()
            for k in range(1, _STEPS):
                again = self._stepped(state, action)[:2]
                if not all(_alike(x, y) for x, y in zip(first, again, strict=True)):
                    elsewhere = k
                    break
                if k > 2 and time.monotonic() - begun > _SECONDS:
                    break
            drawn = [] if torch.equal(torchs, torch.get_rng_state()) else ["torch"]
            now: Any = np.random.get_state()
            same = np.array_equal(numpys[1], now[1]) and bool(numpys[2:] == now[2:])
            drawn += [] if same else ["numpy"]
            np.random.set_state(numpys)
        if elsewhere:
            left = ", ".join(f"env.{name}" for name in self._left_by_write(state, action))
            why = "read and write leave something out, such as velocities, a clock, the last action"
            if drawn:
                stream = f"{' and '.join(drawn)}'s random stream"
                why = f"the step draws from {stream}: switch its noise off"
            elif left:
                why = f"write leaves {left} as a step left it: put it into read and write, or set "
                why += "it back in write (a clock, a generator)"
            times = "each time" if elsewhere == 1 else f"after {elsewhere} steps"
            raise InputError(f"env.step ends elsewhere {times} from one state and action: {why}")
        if len(state) > 1:
            turned = self._stepped(state.roll(1, 0), action.roll(1, 0))[:2]
            if not all(_alike(x.roll(1, 0), y) for x, y in zip(first, turned, strict=True)):
                raise InputError(
                    _MIXES.format("turned by one, they end elsewhere, as with noise for each row")
                )
            ahead = first[0].detach()  # where rows differ, though they begin alike
            beside, alone = (
                self._stepped(s, a)
                for s, a in ((ahead, action), (_repeated(ahead), _repeated(action)))
            )
            goes_on = bool(beside[2].all() and alone[2].all())  # without a reset inside a step
            pairs = zip(beside[:2], alone[:2], strict=True)
            if goes_on and not all(_alike(x[:1], y[:1]) for x, y in pairs):
                raise InputError(_MIXES.format("beside other rows, a row ends elsewhere"))
        leaf = action.clone().requires_grad_()
        after, reward, _ = self._stepped(state, leaf)
        if not (after.requires_grad or reward.requires_grad):
            raise InputError(
                "no gradient passes through env.step from the action: switch its gradients on (its "
                "requires_grad option; no torch.no_grad, detach or numpy in between)"
            )

    def _left_by_write(self, state: Tensor, action: Tensor) -> list[str]:
        """The environment's numbers that a step changes and `write` does not set back."""
        self.write(self.env, state.clone())
        before = _numbers(self.env)
        self.env.step(action)
        self.write(self.env, state.clone())
        after = _numbers(self.env)
        return [
            name for name, x in before.items()
            if name in after and (x.shape != after[name].shape or not torch.equal(x, after[name]))
        ]  # fmt: skip

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
        if not isinstance(returned, tuple | list) or len(returned) < 2:
            raise InputError(
                f"env.step returned {validation.shown(returned)}, expected (…, reward [n], …)"
            )
        reward, n = returned[1], len(state)
        if not isinstance(reward, Tensor) or reward.numel() != n:
            raise InputError(f"env.step gave the reward {validation.shown(reward)}, expected [{n}]")
        given = [torch.as_tensor(x).reshape(-1) for x in returned[2:4] if not isinstance(x, dict)]
        ends = [flag != 0 for flag in given if flag.numel() == n]
        if len(ends) == 2 and bool(ends[1].any()):
            raise InputError(
                "env.step cut an episode (truncated) although its state was just written: let "
                "write set the environment's clock to 0, too"
            )
        alive = ~ends[0] if ends else torch.ones(n, dtype=torch.bool)
        return self._state(), flat_reward(reward, state).reshape(n), alive


def _numbers(env: Any) -> dict[str, Tensor]:
    """Numbers, tensors and random generators of the environment's own, by name."""
    found: dict[str, Tensor] = {}
    for name, x in getattr(env, "__dict__", {}).items():
        if isinstance(x, Tensor):
            found[name] = x.detach().clone()
        elif isinstance(x, bool | int | float | np.ndarray | np.number):
            found[name] = torch.as_tensor(np.array(x, dtype=np.float64))
        elif isinstance(x, torch.Generator):
            found[name] = x.get_state()
        elif isinstance(x, np.random.Generator):
            words = repr(x.bit_generator.state).encode()
            found[name] = torch.frombuffer(bytearray(words), dtype=torch.uint8)
    return found


def _repeated(x: Tensor) -> Tensor:
    """The first row in the place of every other."""
    return x[:1].expand_as(x).clone()


def _alike(x: Tensor, y: Tensor) -> bool:
    if x.shape != y.shape:
        return False
    size = float(torch.maximum(x.detach().abs().max(), y.detach().abs().max()))
    return bool((x - y).detach().abs().max() <= _ALIKE * max(size, 1e-30))
