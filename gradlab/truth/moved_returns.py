"""Returns of a policy and of copies moved in θ, from the same starts on the same noise.

    J_i(θ + d) = w_i Σ_{t<T} γᵗ r_t,      the moved policy in every action

All copies are rolled out at once; the simulator is only stepped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from gradlab.gradients.starts import Starts
from gradlab.gradients.tail import Setting
from gradlab.networks.interface import act
from gradlab.progress import Progress
from gradlab.systems.system import step_running
from gradlab.truth.oracles import perturbed

_ROWS = 200_000  # copies of starts that are rolled out at once
_HELD = 500_000  # parameters of moved policies at once: what a processor's cache holds

_Acting = Callable[[Tensor, Tensor], Tensor]


class _Step(NamedTuple):
    """What a step pays with its γᵗ [R], what is alive after it [R], rows that were stepped."""

    paid: Tensor
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
    """Rollouts of a policy and of copies moved in θ."""

    setting: Setting
    progress: Progress

    def returns(self, judging: Starts, moved: Sequence[Tensor], stage: str) -> Rolled:
        """Returns of the policy itself and of those at θ + step, from the same starts and noise."""
        own = self.setting.policy
        return self.of_policies(judging, [own, *(perturbed(own, step) for step in moved)], stage)

    def of_policies(self, judging: Starts, policies: Sequence[nn.Module], stage: str) -> Rolled:
        """Returns of several policies [policies, n], from the same starts and noise."""
        n, size = len(judging.states), max(1, _ROWS // len(policies))
        if n <= size:
            return self._summed(judging, policies, stage)
        parts = [self._summed(block, policies, stage) for block in judging.blocks(size)]
        judging.draws.clear()
        return Rolled(
            torch.cat([part.returns for part in parts], dim=1),
            torch.cat([part.late for part in parts], dim=1),
            torch.cat([part.alive for part in parts], dim=1),
            sum(part.steps for part in parts),
        )

    def along(
        self, starts: Starts, direction: Tensor, rows: Tensor, lengths: Tensor, stage: str
    ) -> StartRollouts:
        """From start rows[j] with the policy at θ + lengths[j] · direction, for j = 1 … R."""
        acting = partial(_acting, self.setting.policy, direction, lengths)
        steps = list(self._steps(starts, rows, acting, stage))
        paid = torch.stack([step.paid for step in steps])
        alive = torch.stack([step.alive for step in steps])
        return StartRollouts(starts.weight[rows] * paid, alive, sum(step.running for step in steps))

    def _summed(self, judging: Starts, policies: Sequence[nn.Module], stage: str) -> Rolled:
        copies, n = len(policies), len(judging.states)

        def acting(state: Tensor, noise: Tensor) -> Tensor:
            pieces = zip(policies, state.chunk(copies), noise.chunk(copies), strict=True)
            return torch.cat([act(copy, s, e) for copy, s, e in pieces])

        rows = torch.arange(n, device=judging.states.device).repeat(copies)
        total, steps = judging.states.new_zeros(copies * n), 0
        late = total.clone()
        alive = torch.ones(copies * n, dtype=torch.bool, device=total.device)
        for t, step in enumerate(self._steps(judging, rows, acting, stage)):
            total += step.paid
            late += step.paid if t >= self.setting.horizon // 2 else 0.0
            alive, steps = step.alive, steps + step.running
        paid, last = (judging.weight * each.reshape(copies, n) for each in (total, late))
        return Rolled(paid, last, alive.reshape(copies, n), steps)

    @property
    def _masked(self) -> bool:
        return self.setting.termination == "mask"

    def _steps(self, starts: Starts, rows: Tensor, acting: _Acting, stage: str) -> Iterator[_Step]:
        """The rollouts of chosen starts, each on the noise of its own start, step by step."""
        setting, state = self.setting, starts.states[rows]
        alive = torch.ones(len(state), dtype=torch.bool, device=state.device)
        for t in range(setting.horizon):
            e = starts.policy_noise(setting.policy, setting.seed, t)[rows]
            xi = starts.dynamics_noise(setting.simulator, setting.seed, t)[rows]
            with torch.no_grad():
                action = acting(state, e)
                # What has left the finite numbers, or under "mask" has ended, is not stepped.
                running = torch.isfinite(action).all(dim=1) & torch.isfinite(state).all(dim=1)
                running = running & alive if self._masked else running
                state = torch.where(running[:, None], state, torch.nan)
                out = step_running(setting.simulator, state, action, xi)
            reward = torch.where(alive, out.reward, 0.0) if self._masked else out.reward
            state, alive = out.state, alive & out.alive
            yield _Step(setting.discount**t * reward, alive, int(running.sum()))
            self.progress(stage, t + 1, setting.horizon)


def _acting(
    policy: nn.Module, direction: Tensor, lengths: Tensor, state: Tensor, noise: Tensor
) -> Tensor:
    """Actions [R, da] of policies at θ + lengths[j] · direction, each at a state of its own."""
    theta = {name: p.detach() for name, p in policy.named_parameters()}
    pieces = torch.split(direction, [p.numel() for p in theta.values()])
    along = {name: piece.view_as(p) for (name, p), piece in zip(theta.items(), pieces, strict=True)}

    def one(length: Tensor, s: Tensor, e: Tensor) -> Tensor:
        moved = {name: p + length * along[name] for name, p in theta.items()}
        inputs = (s[None], e[None]) if e.shape[0] else (s[None],)
        action: Tensor = functional_call(policy, moved, inputs)
        return action[0]

    together = max(1, _HELD // max(len(direction), 1))
    return vmap(one, chunk_size=together)(lengths, state, noise)
