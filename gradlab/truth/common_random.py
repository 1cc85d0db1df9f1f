"""Gradients by differences of returns on common random numbers: no derivative of anything.

    D_ε(v) = (R(θ + εv) − R(θ − εv)) / 2ε   per start, the noise of both rollouts being the same

Along a smooth return D_ε is the derivative up to O(ε²), which D_2ε measures. Where episodes end,
the return jumps with the step at which they do: that flux is measured by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from gradlab.data.trajectories import stream
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import linear_layers, parameter_slices, policy_jacobian
from gradlab.gradients.setting import Setting, Starts
from gradlab.gradients.ways import WAYS
from gradlab.networks.interface import act, flat_parameters
from gradlab.progress import Progress, silent
from gradlab.systems.system import step_running
from gradlab.truth.oracles import perturbed

_DIRECTIONS = 8
_WIDER = 100.0  # step of the boundary term in units of the step of the differences
_MORE = 8  # starts of the boundary term per start of the differences


@dataclass(frozen=True)
class Differences:
    """Central differences of returns along directions of θ, on common random numbers.

    Attributes:
        narrow, wide: at step ε and 2ε, for every truncation, importance weights included,
            [T, directions, n].
        boundary: the part of a wider difference that changed ends of episodes make, which no
            pathwise gradient sees, [T, directions, n′ ≥ n]; None where termination is ignored.
        directions: [directions, P], unit length.
    """

    narrow: Tensor
    wide: Tensor
    boundary: Tensor | None
    directions: Tensor

    def at(self, T: int) -> Differences:
        """Those of truncation T, an axis of length 1."""
        rows = slice(T - 1, T)
        boundary = None if self.boundary is None else self.boundary[rows]
        return replace(self, narrow=self.narrow[rows], wide=self.wide[rows], boundary=boundary)


def common_random_differences(
    setting: Setting, *, actions: str = "first", n: int = 64, progress: Progress = silent
) -> Differences:
    """Differences of the T-step return for T = 1 … H along 8 random directions.

    The step ε moves actions by about a thousandth of their size. With `actions="first"` only the
    first action sees the perturbed parameters. Noise equals the rollouts' of the same seed, so
    that a difference is paired with the unrolled gradient of the same start.

    Under termination "mask" a difference at so small a step hardly ever sees an episode end
    elsewhere: of what it would see then, a jump of the return with a chance of order ε, the
    boundary term is measured by itself at a step WIDER times as large, as the return under the
    perturbed episodes' own ends less that under the unperturbed ends.
    """
    policy, starts, seed = setting.policy, setting.starts, setting.seed
    few = starts.block(slice(0, min(n, len(starts.states))))
    theta = flat_parameters(policy)
    draw = torch.randn(_DIRECTIONS, len(theta), generator=stream(seed, "directions")).to(theta)
    trained = torch.cat([p.new_full((p.numel(),), p.requires_grad) for p in policy.parameters()])
    directions = nn.functional.normalize(draw * trained, dim=1)
    size = own_size(policy, few.states, few.policy_noise(policy, seed, 0), directions)
    # θ, where s_0 has no say, moves by a hundredth.
    epsilon = min(1e-3 * size, 1e-2 * max(float(theta.norm()), 1.0))

    def rolled(rows: Starts, *steps: float) -> tuple[Tensor, Tensor]:
        """Weighted discounted rewards and alive, [horizon, directions, len(steps), rows]."""
        moved = [perturbed(policy, step * v) for v in directions for step in steps]
        n = len(rows.states)
        carrying = [(each, n) for each in moved]

        def first(state: Tensor, noise: Tensor, t: int) -> Tensor:
            there = carrying if WAYS[actions].carries(t) else [(policy, len(state))]
            return _acting_apart(there, state, noise, t)

        each = torch.arange(n).repeat(len(moved))
        here = Rolling(replace(setting, starts=rows), progress)
        going = here.steps([(rows, each)], first, rest=False)
        taken = list(here.counted(going, "finite differences"))
        shape = (setting.horizon, _DIRECTIONS, len(steps), len(rows.states))
        paid, alive = (
            torch.stack([getattr(step, name) for step in taken]).reshape(shape)
            for name in ("paid", "before")
        )
        return rows.weight * paid, alive

    rewards, alive = rolled(few, epsilon, -epsilon, 2 * epsilon, -2 * epsilon)
    counted = torch.where(alive, rewards, 0.0) if setting.termination == "mask" else rewards
    plus, minus, plus2, minus2 = counted.cumsum(dim=0).unbind(dim=2)
    boundary = None
    if setting.termination == "mask":
        more = starts.block(slice(0, min(_MORE * n, len(starts.states))))
        wide = _WIDER * epsilon
        paid, going = rolled(more, wide, -wide, 0.0)
        ends = going.to(paid.dtype) - going[:, :, 2:].to(paid.dtype)
        up, down, _ = torch.where(ends == 0, 0.0, paid * ends).unbind(dim=2)
        boundary = (up - down).cumsum(dim=0) / (2 * wide)
    narrow, wider = (plus - minus) / (2 * epsilon), (plus2 - minus2) / (4 * epsilon)
    return Differences(narrow, wider, boundary, directions)


def own_size(
    policy: nn.Module,
    states: Tensor,
    noise: Tensor,
    directions: Tensor,
    weight: Tensor | None = None,
) -> float:
    """Length of a step along unit directions [D, P] that moves actions by their own size, rms over
    states of these weights [N]; None: equal ones."""
    jacobian = policy_jacobian(policy, states, noise)
    with torch.no_grad():
        action = act(policy, states, noise)
    row = torch.ones_like(action[:, 0]) if weight is None else weight / weight.mean()
    reach, size = (
        float((row[:, None] * x.square()).mean().sqrt())
        for x in (gram.along(jacobian, directions), action)
    )
    return max(size, 1e-2) / max(reach, 1e-12)


def mean_and_error(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over samples [..., n] and its standard error, groups [n] being the independent units.

    The error of one group alone is unknown, 0 here.
    """
    n = values.shape[-1]
    labels, inverse = np.unique(group.cpu().numpy(), return_inverse=True)
    mean, groups = values.mean(dim=-1), len(labels)
    if groups < 2:
        return mean, torch.zeros_like(mean)
    deviations = values - mean[..., None]
    label = torch.from_numpy(inverse).to(values.device)
    sums = values.new_zeros(*values.shape[:-1], groups).index_add_(-1, label, deviations)
    return mean, (sums.square().sum(dim=-1) * groups / (groups - 1)).sqrt() / n


_HELD = 500_000  # parameters of moved policies at once: what a processor's cache holds

_LOOKED_AT = 2  # rows on which layers that move along a line are compared with moved modules

_Acting = Callable[[Tensor, Tensor, int], Tensor]  # states, noise, step → actions


class _Step(NamedTuple):
    """What a step pays with its γᵗ [R], what is alive before and after it [R], rows stepped."""

    paid: Tensor
    before: Tensor
    alive: Tensor
    running: int


@dataclass(frozen=True)
class Rolled:
    """Discounted returns [policies, n], weights included, what of them the second half of the T
    steps paid, what is alive at T, steps taken."""

    returns: Tensor
    late: Tensor
    alive: Tensor
    steps: int


@dataclass(frozen=True)
class StartRollouts:
    """Rollouts of single starts: γᵗ r_t [T, R], weights included, alive [T, R] after each step,
    steps taken."""

    rewards: Tensor
    alive: Tensor
    steps: int

    @property
    def returns(self) -> Tensor:
        """[R]"""
        return self.rewards.sum(dim=0)


@dataclass(frozen=True)
class Rolling:
    """Rollouts of a policy and of copies moved in θ; returns are summed in the starts' dtype.

    Attributes:
        dtype: of states and policies; None: that of the starts.
    """

    setting: Setting
    progress: Progress
    dtype: torch.dtype | None = None

    def returns(self, judging: Starts, moved: Sequence[Tensor], stage: str) -> Rolled:
        """Returns of the policy itself and of those at θ + step, from the same starts and noise."""
        return Rollouts(self, [(judging, self.policies(moved))], stage).until(self.setting.horizon)[
            0
        ]

    def policies(self, moved: Sequence[Tensor]) -> list[nn.Module]:
        """The policy itself and those at θ + step, in the dtype of these rollouts."""
        own = self.setting.policy
        policies = [own, *(perturbed(own, step) for step in moved)]
        return [copy.deepcopy(each).to(self.dtype) for each in policies] if self.dtype else policies

    def along(
        self, starts: Starts, direction: Tensor, rows: Tensor, lengths: Tensor, stage: str
    ) -> StartRollouts:
        """From start rows[j] with the policy at θ + lengths[j] · direction, for j = 1 … R."""
        acting = Along(self.setting.policy, direction, lengths)
        steps = list(self.counted(self.steps([(starts, rows)], acting), stage))
        paid = torch.stack([step.paid for step in steps])
        alive = torch.stack([step.alive for step in steps])
        return StartRollouts(starts.weight[rows] * paid, alive, sum(step.running for step in steps))

    def counted(self, steps: Iterator[_Step], stage: str) -> Iterator[_Step]:
        """As many as the horizon has."""
        for t, step in enumerate(islice(steps, self.setting.horizon)):
            yield step
            self.progress(stage, t + 1, self.setting.horizon)

    def steps(
        self, draws: Sequence[tuple[Starts, Tensor]], acting: _Acting, rest: bool = True
    ) -> Iterator[_Step]:
        """The rollouts of chosen rows of starts, each on the noise of its own start, step by step,
        without an end.

        Args:
            rest: what has left the finite numbers, or under "mask" has ended, is not stepped, and
                what has ended is not paid.
        """
        setting = self.setting
        state = torch.cat([starts.states[rows] for starts, rows in draws]).to(self.dtype)
        masked = rest and setting.termination == "mask"
        alive = torch.ones(len(state), dtype=torch.bool, device=state.device)
        for t in count():
            policy, system, seed = setting.policy, setting.simulator, setting.seed
            e, xi = (
                torch.cat([draw(starts)[rows] for starts, rows in draws]).to(state)
                for draw in (
                    partial(Starts.policy_noise, policy=policy, seed=seed, step=t),
                    partial(Starts.dynamics_noise, system=system, seed=seed, step=t),
                )
            )
            with torch.no_grad():
                action = acting(state, e, t)
                running = torch.isfinite(action).all(dim=1) & torch.isfinite(state).all(dim=1)
                running = running & alive if masked else running
                if rest:
                    state = torch.where(running[:, None], state, torch.nan)
                out = step_running(system, state, action, xi)
            reward = torch.where(alive, out.reward, 0.0) if masked else out.reward
            before, state, alive = alive, out.state, alive & out.alive
            yield _Step(setting.discount**t * reward, before, alive, int(running.sum()))


class Rollouts:
    """Draws of starts, each under policies of its own, all in one pass, which can go on."""

    def __init__(
        self,
        rolling: Rolling,
        draws: Sequence[tuple[Starts, Sequence[nn.Module]]],
        stage: str,
    ) -> None:
        self._draws, self._stage, self._progress = draws, stage, rolling.progress
        each = [
            (starts, torch.arange(len(starts.states)).repeat(len(policies)))
            for starts, policies in draws
        ]
        acting = [(one, len(starts.states)) for starts, policies in draws for one in policies]
        self._steps = rolling.steps(each, partial(_acting_apart, acting))
        self._rows = [len(rows) for _, rows in each]
        self._total = draws[0][0].states.new_zeros(sum(self._rows))
        self._alive = torch.ones(sum(self._rows), dtype=torch.bool)
        self._done = self._taken = 0

    def until(self, T: int) -> list[Rolled]:
        """Returns of T steps by draw, those of fewer asked for before being gone on with."""
        late = torch.zeros_like(self._total)
        for step in islice(self._steps, T - self._done):
            self._total += step.paid
            late += step.paid if self._done >= T // 2 else 0.0
            self._alive, self._done = step.alive, self._done + 1
            self._taken += step.running
            self._progress(self._stage, self._done, T)
        found: list[Rolled] = []
        numbers = (torch.split(x, self._rows) for x in (self._total, late, self._alive))
        for (starts, _), total, last, alive in zip(self._draws, *numbers, strict=True):
            paid, since = (starts.weight * x.view(-1, len(starts.states)) for x in (total, last))
            steps = self._taken if not found else 0  # of all draws
            found.append(Rolled(paid, since, alive.view(-1, len(starts.states)), steps))
        return found


def _acting_apart(
    policies: Sequence[tuple[nn.Module, int]], state: Tensor, noise: Tensor, t: int
) -> Tensor:
    """Actions of several policies, the rows of one after those of another, so many of each."""
    sizes = [rows for _, rows in policies]
    pieces = zip(policies, torch.split(state, sizes), torch.split(noise, sizes), strict=True)
    return torch.cat([act(policy, s, e) for (policy, _), s, e in pieces])


class Along:
    """Actions [R, da] of policies at θ + lengths[j] · direction, each at a state of its own.

    A linear layer along a line is W x + ℓ U x: two products of all rows, no weights of a row's own.
    Parameters outside of linear layers, or layers that are not called on rows, are moved one row
    after another; the first step finds out by comparing rows.
    """

    def __init__(self, policy: nn.Module, direction: Tensor, lengths: Tensor) -> None:
        self._policy, self._direction, self._lengths = policy, direction, lengths
        slices, layers = parameter_slices(policy), linear_layers(policy)
        owned = [id(p) for layer in layers for p in (layer.weight, layer.bias) if p is not None]
        self._layers = layers if sorted(owned) == sorted(slices) else []
        self._by_layer = bool(self._layers)
        self._slices = slices

    def __call__(self, state: Tensor, noise: Tensor, t: int) -> Tensor:
        if self._by_layer and t == 0:
            far = self._lengths.abs().topk(min(_LOOKED_AT, len(state))).indices
            expected = self._by_row(self._lengths[far], state[far], noise[far])
            with suppress(RuntimeError):
                action = self._of_layers(state, noise)
                self._by_layer = torch.allclose(action[far], expected, rtol=1e-9, atol=1e-12)
                return action if self._by_layer else self._by_row(self._lengths, state, noise)
            self._by_layer = False
        if self._by_layer:
            return self._of_layers(state, noise)
        return self._by_row(self._lengths, state, noise)

    def _of_layers(self, state: Tensor, noise: Tensor) -> Tensor:
        def moved(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            pieces = {
                name: self._direction[self._slices[id(p)]].view_as(p)
                for name, p in layer.named_parameters()
            }
            slope = nn.functional.linear(inputs[0], pieces["weight"], pieces.get("bias"))
            return output + self._lengths[:, None] * slope

        hooks = [layer.register_forward_hook(moved) for layer in self._layers]
        try:
            return act(self._policy, state, noise)
        finally:
            for hook in hooks:
                hook.remove()

    def _by_row(self, lengths: Tensor, state: Tensor, noise: Tensor) -> Tensor:
        policy, direction = self._policy, self._direction
        theta = {name: p.detach() for name, p in policy.named_parameters()}
        pieces = torch.split(direction, [p.numel() for p in theta.values()])
        line = {
            name: piece.view_as(p) for (name, p), piece in zip(theta.items(), pieces, strict=True)
        }

        def one(length: Tensor, s: Tensor, e: Tensor) -> Tensor:
            moved = {name: p + length * line[name] for name, p in theta.items()}
            inputs = (s[None], e[None]) if e.shape[0] else (s[None],)
            action: Tensor = functional_call(policy, moved, inputs)
            return action[0]

        together = max(1, _HELD // max(len(direction), 1))
        return vmap(one, chunk_size=together)(lengths, state, noise)
