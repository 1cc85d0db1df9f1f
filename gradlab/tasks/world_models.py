"""World models in a latent of their own, on the environment that they were trained in.

    simulator   s̃ = (s, z)     s' = f(s, a, ξ),   z' = E(o(s'), z, a),   r = r(s, a)
    model       s̃ = (s, z)     s' = s,            z' = D(z, a, ζ),       r̂ = R(z, a)
    policy, critic of z alone

E encodes an observation o(s), or filters with the latent and action before it, as a recurrent
state-space model does. Both are systems in one coordinate, so that every gradient through the model
is measured against the return that the environment pays:

    model       imagination: z_0 = E(o(s_0)), then D alone (TD-MPC2, Dreamer)
    mixed       latents of the environment's states, Jacobians of D along them: what is left of the
                error once states are true, that is, encoded again at every step
    simulator   through the environment and E

∂z'/∂s of the simulator is that of E along f; the model's ∂/∂s is 0.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.interface import check_critic, check_policy, check_rows, check_steady
from gradlab.systems.function import FunctionSystem, from_function
from gradlab.systems.stateful import Observe
from gradlab.systems.system import Linearization, Noise, System, Transition, Wrapped, check_step
from gradlab.tasks.memory import WithMemory, observed, remembering
from gradlab.tasks.task import Task
from gradlab.user_code import running

_NEEDS = {
    "encode": "encode(observation) or encode(observation, latent, action) → latent [N, dz]",
    "step": "step(latent, action) → next latent [N, dz]",
    "reward": "reward(latent, action) → [N]",
    "policy": "policy, a torch.nn.Module latent → action",
}


def with_world_model(task: Task, model: nn.Module, observe: Observe | None = None) -> WithMemory:
    """The task whose states hold the model's latent, with its policy and critic.

        task, policy, critic = gradlab.tasks.with_world_model(task, tdmpc, observe=camera)
        gradlab.measure(task, policy, critic, horizon=5)

    Args:
        task: of the environment; its own prior model is replaced.
        model: copied in float64, in eval mode; has
            encode(observation) → z [N, dz]; or encode(observation, z, action), which begins with
            zeros, and `latent_dim`;
            step(z, action) → z', with noise [N, noise_dim] as a third argument where it has
            `noise_dim`;
            reward(z, action) → [N];
            policy, a module z → action;
            q(z, action) → [N]; or value(z) → [N], and the critic is R(z, a) + γ value(step(z, a));
            alive(z') → bool [N], where episodes end in it.
        observe: state [N, ds] → observation; None: the simulator's own, or all of the state.

    Raises:
        InputError: what the model lacks, with its signature; an encoder or a step that mixes rows
            or returns another width.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    validation.instance("model", model, nn.Module, "a torch.nn.Module")
    if lacks := lacking(model):
        raise InputError(f"model has no {'; no '.join(lacks)}")
    validation.instance("model.policy", model.policy, nn.Module, "a torch.nn.Module")
    double: Any = copy.deepcopy(model).eval()
    policy = remembering(copy.deepcopy(double.policy), 0, _After(task.simulator.state_dim))
    double.double().requires_grad_(False)
    own = getattr(task.simulator, "observe", None)
    filtered = _Filter(double, observe if observe is not None else own)
    begin = task.starts(2, torch.Generator().manual_seed(0))
    ds, da = begin.shape[1], task.simulator.action_dim
    empty = begin.new_zeros(2, filtered.width), begin.new_zeros(2, da)
    first = filtered(begin, *empty)
    dz = first.shape[1]
    names = (*task.state_names, *(f"latent {k}" for k in range(dz)))
    prior = Imagined(_latent_system(double, dz, da), ds)
    wide = replace(
        task,
        simulator=_Encoded(task.simulator, filtered, dz),
        prior=prior,
        starts=_begun(task, filtered),
        state_names=names if task.state_names else (),
        observation_scale=None,
        reference_state=None,
        alive=None,
        parameters={**task.parameters, "latent_dim": dz},
    )
    critic = _Critic(double, ds, task.discount)
    state, action = torch.cat([begin, first], 1), begin.new_zeros(2, da)
    for name, part, inputs in (
        ("encode", filtered, (begin, *empty)),
        ("step", lambda s, a: prior.step(s, a, None).state, (state, action)),
        ("reward", lambda s, a: prior.step(s, a, None).reward, (state, action)),
        ("q" if hasattr(model, "q") else "value", critic, (state, action)),
    ):
        check_steady(f"model.{name}", part, *inputs)
    check_policy(copy.deepcopy(policy).double(), state, da)
    check_critic(critic, "Q", state, da)
    check_rows("model.encode", filtered, begin, *empty)
    check_rows("model.step", lambda s, a: prior.step(s, a, None).state, state, action)
    return WithMemory(wide, policy, critic)


def is_world_model(model: object) -> bool:
    """Whether a module has two or more of a world model's parts."""
    named = sum(hasattr(model, name) for name in (*_NEEDS, "q", "value"))
    return isinstance(model, nn.Module) and named > 1


def lacking(model: nn.Module) -> list[str]:
    """What a world model has to have and this one has not, with its signature."""
    value = "q(latent, action), or value(z), as value(latent) → [N]"
    valued = {} if hasattr(model, "q") else {"value": value}
    return [need for name, need in (_NEEDS | valued).items() if not hasattr(model, name)]


@dataclass(frozen=True)
class _After:
    """What a policy sees of (s, z): z."""

    state_dim: int

    def __call__(self, state: Tensor) -> Tensor:
        return state[:, self.state_dim :]


@dataclass(frozen=True, eq=False)
class _Filter:
    """(s', z, a) → z', the latent of a state that was reached by action a from latent z."""

    model: Any
    observe: Observe | None

    @property
    def width(self) -> int:
        """Of the latent before, which a filter needs; 0: encoded is the observation alone."""
        encode = self.model.encode
        parameters = inspect.signature(getattr(encode, "forward", encode)).parameters.values()
        needed = [p for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
        if len(needed) < 3:
            return 0
        if not hasattr(self.model, "latent_dim"):
            raise InputError("model.encode takes a latent: say its width, model.latent_dim")
        return int(self.model.latent_dim)

    def __call__(self, state: Tensor, latent: Tensor, action: Tensor) -> Tensor:
        seen = observed(self.observe, state)
        shape = list(seen.shape) if isinstance(seen, Tensor) else "of another kind"
        more = f": it was given observations {shape}; observe=state → observation makes others"
        with running("model.encode", lambda _: more):
            found = self.model.encode(seen, *((latent, action) if self.width else ()))
        n = len(state)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != n:
            raise validation.expected("what model.encode returns", found, f"a latent [{n}, dz]")
        return found


def _begun(task: Task, filtered: _Filter) -> Callable[[int, torch.Generator], Tensor]:
    starts, da = task.starts, task.simulator.action_dim

    def begin(n: int, generator: torch.Generator) -> Tensor:
        state = starts(n, generator)
        with torch.no_grad():
            empty = state.new_zeros(n, filtered.width), state.new_zeros(n, da)
            return torch.cat([state, filtered(state, *empty)], 1)

    return begin


@final
@dataclass(frozen=True, eq=False)
class _Encoded(Wrapped):
    """An environment beside the latent that a model's encoder makes of its states."""

    system: System
    filtered: _Filter
    latent_dim: int

    @property
    def state_dim(self) -> int:
        return self.system.state_dim + self.latent_dim

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        ds = self.system.state_dim
        plain = self.system.step(state[:, :ds], action, noise)
        latent = self.filtered(plain.state, state[:, ds:], action)
        return replace(plain, state=torch.cat([plain.state, latent], 1))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        """By the chain rule: (s, z, a) → (s', z, a) → (s', z')."""
        check_step(self, state, action, noise)
        ds, dz = self.system.state_dim, self.latent_dim
        plain = self.system.linearize(state[:, :ds], action, noise)
        with torch.no_grad():
            reached = self.system.step(state[:, :ds], action, noise).state

        def encode(after: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            latent = self.filtered(after[:, :ds], after[:, ds:], action)
            return torch.cat([after[:, :ds], latent], 1), 0 * after[:, 0]

        outer = from_function(encode, ds + dz, self.action_dim).linearize(
            torch.cat([reached, state[:, ds:]], 1), action
        )
        by_state, by_latent = outer.A[..., :ds], outer.A[..., ds:]
        return Linearization(
            torch.cat([by_state @ plain.A, by_latent], 2), by_state @ plain.B + outer.B,
            pad(plain.r_s, (0, dz)), plain.r_a, plain.certificate,
        )  # fmt: skip


@final
@dataclass(frozen=True, eq=False)
class Imagined(Wrapped):
    """A model's latent beside a state of the environment that stays where it is."""

    differentiable = True

    system: FunctionSystem
    width: int

    @property
    def state_dim(self) -> int:
        return self.system.state_dim + self.width

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        own = self.system.step(state[:, self.width :], action, noise)
        return replace(own, state=torch.cat([state[:, : self.width], own.state], 1))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        own = self.system.linearize(state[:, self.width :], action, noise)
        A, wide = pad(own.A, (self.width, 0, self.width, 0)), (self.width, 0)
        A[:, : self.width, : self.width] = torch.eye(self.width, dtype=A.dtype, device=A.device)
        return replace(own, A=A, B=pad(own.B, (0, 0, *wide)), r_s=pad(own.r_s, wide))


def _latent_system(model: Any, latent_dim: int, action_dim: int) -> FunctionSystem:
    def step(latent: Tensor, action: Tensor, *noise: Tensor) -> tuple[Tensor, Tensor]:
        return model.step(latent, action, *noise), model.reward(latent, action)

    width, alive = int(getattr(model, "noise_dim", 0)), getattr(model, "alive", None)
    return FunctionSystem(step, latent_dim, action_dim, width, alive)


@final
class _Critic(nn.Module):
    """Q(s̃, a) of the latent: the model's own, or one step of it and its value."""

    def __init__(self, model: Any, state_dim: int, discount: float) -> None:
        super().__init__()
        self.model, self.state_dim, self.discount = model, state_dim, discount

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        latent, own = state[:, self.state_dim :], self.model
        if hasattr(own, "q"):
            value: Tensor = own.q(latent, action)
            return value
        system = _latent_system(own, latent.shape[1], action.shape[1])
        after, paid, alive = system.step(latent, action)
        ahead: Tensor = own.value(after).reshape(-1)
        return paid + self.discount * alive.to(after) * ahead
