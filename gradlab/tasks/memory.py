"""Policies that remember, or see less than the state: feed-forward policies of a larger task.

    state  s̃ = (s, m)      s̃' = (f(s, a, ξ), m')          m: memory, 0 at the start of a path
    action ã = (a, m')      (a, m') = π(o(s), m)            o: what the policy observes of a state

A recurrent network's hidden state is a part of the path. Its gradients by backpropagation through
time are those of every action of a feed-forward policy of this task:

    Ã = [[A, 0], [0, 0]],   B̃ = [[B, 0], [0, I]],   r_s̃ = (r_s, 0),   r_ã = (r_a, 0)

so that every estimator, truth and gain applies. GRU: m is its hidden state; LSTM: hidden and cell
state side by side; stacked frames, or a transformer's window: the last k − 1 observations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.interface import noise_dim, tried
from gradlab.networks.policies import is_stochastic
from gradlab.systems.stateful import Observe
from gradlab.systems.system import Linearization, Noise, System, Transition, Wrapped, check_step
from gradlab.tasks.task import Task
from gradlab.user_code import running


class WithMemory(NamedTuple):
    """`task.simulator` has states (s, m) and actions (a, m'), which `policy` and `critic` take."""

    task: Task
    policy: nn.Module
    critic: nn.Module | None


def with_memory(
    task: Task,
    policy: nn.Module,
    memory_dim: int = 0,
    observe: Observe | None = None,
    critic: nn.Module | None = None,
) -> WithMemory:
    """The task whose states hold the policy's memory, with a policy that gradlab can measure.

        task, policy, critic = gradlab.tasks.with_memory(task, gru_policy, memory_dim=64)
        gradlab.measure(task, policy, critic or gradlab.fitting.fit_critic(task, policy))

    Args:
        policy: (observation [N, do], memory [N, dm]) → (action [N, da], next memory [N, dm]), with
            the noise [N, noise_dim] as a third argument where it has an attribute `noise_dim`.
            Without memory (`memory_dim` 0): observation → action.
        memory_dim: dm.
        observe: state [N, ds] → what policy and critic see of it [N, do]; None: the simulator's own
            `observe` (see `systems.from_environment`), or all of it.
        critic: Q(observation, action) of a user's own, which does not know the memory; None: fit
            one to the task that is returned.

    Raises:
        InputError: a policy or `observe` of other shapes; a hidden state of another batch size.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    validation.whole("memory_dim", memory_dim)
    validation.instance("policy", policy, nn.Module, "a torch.nn.Module")
    policy = _in_linear_layers(policy)
    see = observe if observe is not None else getattr(task.simulator, "observe", None)
    remembers = remembering(policy, memory_dim, see)
    _try_out(remembers, task)
    seen = None if critic is None else _Seeing(critic, see, task.simulator)
    return WithMemory(_with_memory(task, memory_dim), remembers, seen)


class Remembering(nn.Module):
    """(s, m) → (a, m') of a policy with memory; its parameters are the user's own."""

    def __init__(self, policy: nn.Module, memory_dim: int, observe: Observe | None) -> None:
        super().__init__()
        self.policy, self.memory_dim, self.observe = policy, memory_dim, observe
        if width := noise_dim(policy):
            self.noise_dim = width

    def forward(self, state: Tensor, *noise: Tensor) -> Tensor:
        ds = state.shape[1] - self.memory_dim
        seen = observed(self.observe, state[:, :ds])
        if self.memory_dim == 0:
            action: Tensor = self.policy(seen, *noise)
            return action
        returned = self.policy(seen, state[:, ds:], *noise)
        pair = returned if isinstance(returned, tuple | list) else (returned,)
        width = list(getattr(pair[-1], "shape", ()))
        wanted = [len(state), self.memory_dim]
        if len(pair) != 2 or width != wanted:
            got = " and ".join(map(validation.shown, pair))
            raise InputError(
                f"policy returned {got}, expected (action, next memory), the memory {wanted}"
            )
        action, memory = pair
        return torch.cat([action, memory], dim=1)


def _of_seen(name: str) -> Callable[..., Any]:
    """The policy's method of what it sees of a state."""

    def method(self: Remembering, state: Tensor, *given: Tensor) -> Any:
        return getattr(self.policy, name)(observed(self.observe, state), *given)

    return method


@final
class _WithDensity(Remembering):
    """One without memory that has a density, of what it sees; see `networks.policies`."""

    log_prob, infer_noise = _of_seen("log_prob"), _of_seen("infer_noise")

    def __getattr__(self, name: str) -> Any:
        if name in ("with_log_prob", "log_prob_of_draw", "mean_action", "normal", "slope"):
            own = getattr(self.policy, name)
            return own if name == "slope" else partial(_of_seen(name), self)
        return super().__getattr__(name)


def remembering(policy: nn.Module, memory_dim: int, observe: Observe | None) -> Remembering:
    """The policy of states beside its memory, with a density where it has one and no memory."""
    scored = memory_dim == 0 and is_stochastic(policy)
    return (_WithDensity if scored else Remembering)(policy, memory_dim, observe)


@final
class _Cell(nn.Module):
    """torch's GRU, LSTM or plain cell in two linear layers, which have factors of ∂π/∂θ."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        gates = cell.weight_ih.shape[0]
        self.of_input = nn.Linear(cell.input_size, gates, cell.bias, device="meta")
        self.of_hidden = nn.Linear(cell.hidden_size, gates, cell.bias, device="meta")
        self.of_input.weight, self.of_hidden.weight = cell.weight_ih, cell.weight_hh
        if cell.bias:
            self.of_input.bias, self.of_hidden.bias = cell.bias_ih, cell.bias_hh
        self.plain = getattr(torch, getattr(cell, "nonlinearity", "tanh"))
        self.lstm, self.gru = isinstance(cell, nn.LSTMCell), isinstance(cell, nn.GRUCell)

    def forward(self, x: Tensor, memory: Any) -> Any:
        """As the cell's: of one tensor, or hidden and cell state of an LSTM."""
        if self.lstm:
            hidden, cell = memory
            i, f, g, o = (self.of_input(x) + self.of_hidden(hidden)).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            return o.sigmoid() * cell.tanh(), cell
        x, h = self.of_input(x), self.of_hidden(memory)
        if not self.gru:
            return self.plain(x + h)
        (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, 1), h.chunk(3, 1)
        new = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
        z = (x_z + h_z).sigmoid()
        return (1 - z) * new + z * memory


def _in_linear_layers(policy: nn.Module) -> nn.Module:
    """The policy, of the same parameters, with its recurrent cells as linear layers."""
    cells = [name for name, part in policy.named_modules() if isinstance(part, nn.RNNCellBase)]
    if not cells:
        return policy
    alike = copy.deepcopy(policy, {id(x): x for x in (*policy.parameters(), *policy.buffers())})
    for name in cells:
        cell = _Cell(cast(nn.RNNCellBase, alike.get_submodule(name)))
        if name == "":
            return cell
        alike.set_submodule(name, cell)
    return alike


@final
class _Seeing(nn.Module):
    """Q(s̃, ã) of a critic that sees observations and actions, without the memory."""

    def __init__(self, critic: nn.Module, observe: Observe | None, system: System) -> None:
        super().__init__()
        self.critic, self.observe = critic, observe
        self.widths = system.state_dim, system.action_dim

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        ds, da = self.widths
        value: Tensor = self.critic(observed(self.observe, state[:, :ds]), action[:, :da])
        return value


@final
@dataclass(frozen=True, eq=False)
class _SystemWithMemory(Wrapped):
    """A system beside a memory, which is what the last action wrote into it."""

    system: System
    memory_dim: int

    @property
    def state_dim(self) -> int:
        return self.system.state_dim + self.memory_dim

    @property
    def action_dim(self) -> int:
        return self.system.action_dim + self.memory_dim

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        check_step(self, state, action, noise)
        ds, da = self.system.state_dim, self.system.action_dim
        plain = self.system.step(state[:, :ds], action[:, :da], noise)
        return replace(plain, state=torch.cat([plain.state, action[:, da:]], dim=1))

    def linearize(self, state: Tensor, action: Tensor, noise: Noise = None) -> Linearization:
        check_step(self, state, action, noise)
        ds, da, dm = self.system.state_dim, self.system.action_dim, self.memory_dim
        plain = self.system.linearize(state[:, :ds], action[:, :da], noise)
        B = pad(plain.B, (0, dm, 0, dm))
        B[:, ds:, da:] = torch.eye(dm, dtype=B.dtype, device=B.device)
        return Linearization(
            pad(plain.A, (0, dm, 0, dm)), B, pad(plain.r_s, (0, dm)), pad(plain.r_a, (0, dm)),
            plain.certificate,
        )  # fmt: skip


def _with_memory(task: Task, width: int) -> Task:
    """Starts with an empty memory, and everything that has an entry per coordinate wider."""
    if width == 0:
        return task
    ds, alive, starts = task.simulator.state_dim, task.alive, task.starts
    prior = task.prior

    def begin(n: int, generator: torch.Generator) -> Tensor:
        return pad(starts(n, generator), (0, width))

    memory = tuple(f"memory {k}" for k in range(width))
    return replace(
        task,
        simulator=_SystemWithMemory(task.simulator, width),
        prior=None if prior is None else _SystemWithMemory(prior, width),
        starts=begin,
        state_names=(*task.state_names, *memory) if task.state_names else (),
        action_names=(*task.action_names, *memory) if task.action_names else (),
        observation_scale=_wider(task.observation_scale, width, 1.0),
        reference_state=_wider(task.reference_state, width, 0.0),
        exploration=None,  # critics are fitted by the spread of the policy's own actions
        action_limit=_wider(task.action_limit, width, torch.inf),
        alive=None if alive is None else lambda state: alive(state[:, :ds]),
        parameters={**task.parameters, "memory_dim": width},
    )


def _wider(values: tuple[float, ...] | None, width: int, by: float) -> tuple[float, ...] | None:
    return None if values is None else (*values, *(by,) * width)


def observed(observe: Observe | None, state: Tensor) -> Tensor:
    if observe is None:
        return state
    with running("observe"):
        seen = observe(state)
    n = len(state)
    if not isinstance(seen, Tensor) or seen.ndim < 2 or len(seen) != n:
        raise validation.expected("what observe returns", seen, f"a tensor [{n}, …]")
    return seen


def _try_out(policy: Remembering, task: Task) -> None:
    """Raises InputError: what `with_memory` says."""
    state = pad(task.starts(2, torch.Generator().manual_seed(0)), (0, policy.memory_dim))
    state = state.to(next(policy.parameters(), state))
    width = noise_dim(policy)
    action = tried("policy", policy, state, *([state.new_zeros(2, width)] if width else []))
    found, wanted = action.shape[-1] - policy.memory_dim, task.simulator.action_dim
    if action.shape[:-1] != (2,) or found != wanted:
        raise InputError(f"policy gives {found} actions for an observation, the task has {wanted}")
