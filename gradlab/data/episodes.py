"""Whole episodes of an environment that is reset and stepped, and nothing else.

    J = Σ_t γᵗ r_t        from one reset until the episode ends

Rewards and states may jump, observations be images or dictionaries. An environment with `num_envs`
plays as many episodes side by side, of each place the first one. Policies act without noise; a
recurrent one, `policy(observation, hidden) → (action, hidden)`, begins every episode with None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.networks.interface import noise_dim, tried
from gradlab.user_code import is_user_function, load_made, running

LONGEST = 10_000  # steps of an episode that does not end by itself
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)

_Act = Callable[[Any, int], Any]  # (observations, t) → actions, as the environment has both


@dataclass(frozen=True)
class Episode:
    """One episode.

    Attributes:
        total: its return, NaN where the policy's actions were lost; length: its steps.
        ended: by itself, not by the longest length.
    """

    total: float
    length: int
    ended: bool


def made(env: object, name: str = "env") -> Any:
    """The environment that an id of Gymnasium, PATH.py:FUNCTION, a function or an object gives.

    Raises:
        InputError: it fails, or has no reset or step.
    """
    environment = env
    with running(name):
        if isinstance(env, str) and not is_user_function(env):
            import gymnasium  # with all that it registers: where an id was given only

            environment = gymnasium.make(env)
        elif isinstance(env, str):
            environment = load_made(env)
        elif isinstance(env, type) or (callable(env) and not hasattr(env, "reset")):
            environment = env()
    for method in ("reset", "step"):
        if not callable(getattr(environment, method, None)):
            kind = type(environment).__name__
            raise InputError(
                f"{name} is a {kind} without {method}, expected an environment or what makes one"
            )
    return environment


def width(environment: Any) -> int:
    """Episodes that it plays side by side."""
    return int(getattr(environment, "num_envs", 1))


def takes_seed(environment: Any) -> bool:
    """Does its reset take a seed?"""
    try:
        names = inspect.signature(environment.reset).parameters
    except (TypeError, ValueError):
        return False
    return "seed" in names or any(p.kind is p.VAR_KEYWORD for p in names.values())


def begin(environment: Any, seed: int | None) -> Any:
    """The first observation; a reset without a seed has None."""
    first = environment.reset() if seed is None else environment.reset(seed=seed)
    return first[0] if isinstance(first, tuple) else first


def play(
    environment: Any, act: _Act, seed: int | None, length: int = LONGEST, discount: float = 1.0
) -> list[Episode]:
    """The first episode of every place, from one reset.

    Args:
        seed: of the reset; None: it takes none.
        length: steps after which an episode is cut.
    """
    observation = begin(environment, seed)
    n = width(environment)
    total, steps, live = np.zeros(n), np.zeros(n, dtype=int), np.ones(n, dtype=bool)
    for t in range(length):
        action = act(observation, t)
        if not np.isfinite(_array(action)).all():
            total[live] = np.nan
            break
        observation, reward, *ends = environment.step(action)
        total[live] += discount**t * np.broadcast_to(_array(reward).astype(float), (n,))[live]
        steps[live] += 1
        for end in ends[:2]:
            if not isinstance(end, Mapping):
                live = live & ~np.broadcast_to(_array(end).astype(bool), (n,))
        if not live.any():
            break
    whole = zip(total, steps, ~live, strict=True)
    return [Episode(float(each), int(made_), bool(end)) for each, made_, end in whole]


def _array(values: Any) -> NDArray[Any]:
    """What an environment or a policy gave, as an array of numpy's."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def rows(observation: Any, like: Tensor, batched: bool) -> Any:
    """An observation as a policy takes it: [n, …] of the dtype and device of `like`, part by
    part where it has parts."""
    if isinstance(observation, Mapping):
        return {key: rows(part, like, batched) for key, part in observation.items()}
    tensor = torch.as_tensor(
        observation if isinstance(observation, Tensor) else np.asarray(observation)
    ).to(like)
    return tensor if batched else tensor[None]


@final
class Actor:
    """A policy's actions without noise, as an environment takes them.

    A [n, A] output for A discrete actions is their logits, of which the largest is taken; actions
    beyond a box are moved to its edge.
    """

    def __init__(self, policy: nn.Module, environment: Any) -> None:
        # Observations, rewards and actions of several environments have an axis for these.
        self.policy, self.batched = policy, hasattr(environment, "num_envs")
        name = "single_action_space" if hasattr(environment, "single_action_space") else ""
        self.space = getattr(environment, name or "action_space", None)
        floating = (p for p in policy.parameters() if p.is_floating_point())
        self.like: Tensor = next(floating, torch.zeros(0))
        self.recurrent = _takes_hidden(policy)
        self._hidden: Any = None
        # A reset() of a policy that keeps no state may be anything, such as of its weights.
        stateful = not self.recurrent and _remembers(policy)
        self._resets = stateful and callable(getattr(policy, "reset", None))

    def __call__(self, observation: Any, t: int) -> Any:
        """Actions at the observations of step t; at t = 0 the hidden state begins anew."""
        if t == 0:
            self._hidden = None
            if self._resets:
                self.policy.reset()  # type: ignore[operator]
        inputs = rows(observation, self.like, self.batched)
        with torch.no_grad():
            out = self._forward(inputs)
        action = self._shaped(out)
        return action if isinstance(observation, Tensor) else action.cpu().numpy()

    def check(self, observation: Any) -> None:
        """Raises InputError: it cannot take the observation, draws inside, or keeps a state that is
        not begun anew with an episode.
        """
        inputs = rows(observation, self.like, self.batched)
        if isinstance(inputs, Tensor) and not self.recurrent and not noise_dim(self.policy):
            tried("policy", self.policy, inputs)  # whose refusals name the remedy
        found = self._repeated(observation)
        if not np.array_equal(found[0], found[1], equal_nan=True) and not self._resets:
            self._resets = callable(getattr(self.policy, "reset", None))
            found = self._repeated(observation)
        if not np.array_equal(found[0], found[1], equal_nan=True):
            raise InputError(
                "policy keeps a state when an episode begins again: give it reset(), or "
                "forward(observation, hidden) → (action, hidden)"
            )
        if not np.array_equal(found[1], found[2], equal_nan=True):
            raise InputError(
                "policy draws inside forward: make its noise an argument, with noise_dim"
            )

    def _repeated(self, observation: Any) -> list[NDArray[Any]]:
        """First actions of three episodes, two of them on the same random numbers."""
        found = []
        with running("policy"), torch.random.fork_rng(devices=[]):
            for seed in (0, 0, 1):
                torch.manual_seed(seed)
                found.append(_array(self(observation, 0)))
        return found

    def _forward(self, inputs: Any) -> Any:
        if width_ := noise_dim(self.policy):
            first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
            return self.policy(inputs, first.new_zeros(len(first), width_))
        if not self.recurrent:
            return self.policy(inputs)
        out = self.policy(inputs, self._hidden)
        if not isinstance(out, tuple) or len(out) != 2:
            raise InputError(
                f"policy takes a hidden state and returns a {type(out).__name__}, expected "
                f"(action, hidden)"
            )
        self._hidden = out[1]
        return out[0]

    def _shaped(self, out: Tensor) -> Tensor:
        choices = getattr(self.space, "n", None)
        if choices is not None and getattr(self.space, "shape", None) == ():
            chosen = out.argmax(-1) if out.is_floating_point() else out.reshape(len(out))
            chosen = chosen + int(getattr(self.space, "start", 0)) * out.is_floating_point()
            return chosen if self.batched else chosen[0]
        shape = getattr(self.space, "shape", None)
        if shape is not None and out[0].numel() != int(np.prod(shape)):
            raise InputError(
                f"policy returns actions of shape {tuple(out.shape[1:])}, env takes {tuple(shape)}"
            )
        action = out if shape is None else out.reshape(len(out), *shape)
        low, high = (getattr(self.space, end, None) for end in ("low", "high"))
        if low is not None and high is not None:
            action = action.clamp(*(torch.as_tensor(end).to(action) for end in (low, high)))
        dtype = getattr(self.space, "dtype", None)
        if dtype is not None and np.issubdtype(dtype, np.floating):
            action = action.to(torch.as_tensor(np.zeros(0, dtype=dtype)).dtype)
        return action if self.batched else action[0]


def _takes_hidden(policy: nn.Module) -> bool:
    """Does forward take a hidden state beside the observation?"""
    if noise_dim(policy):
        return False
    given: list[inspect.Parameter] = []
    with suppress(TypeError, ValueError):
        given = list(inspect.signature(policy.forward).parameters.values())
    given = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in given if p.default is p.empty]
    return len(required) > 1 or (len(given) > 1 and _remembers(policy))


def _remembers(policy: nn.Module) -> bool:
    return any(isinstance(module, _RECURRENT) for module in policy.modules())
