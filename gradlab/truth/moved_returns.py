"""Returns of a policy and of copies moved in θ, from the same starts on the same noise.

    J_i(θ + d) = w_i Σ_{t<T} γᵗ r_t,      the moved policy in every action

All copies are rolled out at once; the simulator is only stepped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlab.gradients.starts import Starts
from gradlab.networks.interface import act
from gradlab.progress import Progress
from gradlab.systems.ended import step_running
from gradlab.systems.system import System, Transition
from gradlab.truth.oracles import perturbed


@dataclass(frozen=True)
class Rolled:
    """Discounted returns [1 + steps, n], weights included, what is alive at T, steps taken."""

    returns: Tensor
    alive: Tensor
    steps: int


@dataclass(frozen=True)
class Rolling:
    """Rollouts of a policy and of copies moved in θ."""

    simulator: System
    policy: nn.Module
    discount: float
    horizon: int
    termination: str
    seed: int
    progress: Progress

    def returns(self, judging: Starts, moved: list[Tensor], stage: str) -> Rolled:
        """Returns of the policy itself and of those at θ + step, from the same starts and noise."""
        policies = [self.policy, *(perturbed(self.policy, step) for step in moved)]
        copies, n = len(policies), len(judging.states)
        state = judging.states.repeat(copies, 1)
        alive = torch.ones(len(state), dtype=torch.bool, device=state.device)
        total, steps = torch.zeros_like(state[:, 0]), 0
        for t in range(self.horizon):
            out, running = self._step(policies, judging, state, alive, t)
            reward = torch.where(alive, out.reward, 0.0) if self._masked else out.reward
            total += self.discount**t * reward
            state, alive, steps = out.state, alive & out.alive, steps + running
            self.progress(stage, t + 1, self.horizon)
        weighted = judging.weight * total.reshape(copies, n)
        return Rolled(weighted, alive.reshape(copies, n), steps)

    @property
    def _masked(self) -> bool:
        return self.termination == "mask"

    def _step(
        self, policies: list[nn.Module], judging: Starts, state: Tensor, alive: Tensor, t: int
    ) -> tuple[Transition, int]:
        """All copies one step on, and how many of them were stepped."""
        e = judging.policy_noise(self.policy, self.seed, t)
        xi = judging.dynamics_noise(self.simulator, self.seed, t).repeat(len(policies), 1)
        with torch.no_grad():
            pieces = zip(policies, state.chunk(len(policies)), strict=True)
            action = torch.cat([act(each, rows, e) for each, rows in pieces])
            # What has left the finite numbers, or under "mask" has ended, is not stepped.
            running = torch.isfinite(action).all(dim=1) & torch.isfinite(state).all(dim=1)
            running = running & alive if self._masked else running
            state = torch.where(running[:, None], state, torch.nan)
            return step_running(self.simulator, state, action, xi), int(running.sum())
