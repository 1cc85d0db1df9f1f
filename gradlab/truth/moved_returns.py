"""Returns of a policy and of copies moved in θ, from the same starts on the same noise.

    J_i(θ + d) = w_i Σ_{t<T} γᵗ r_t,      the moved policy in every action

All copies are rolled out at once; the simulator is only stepped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts
from gradlab.networks.interface import act
from gradlab.progress import Progress
from gradlab.systems.ended import step_running
from gradlab.systems.system import Transition
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

    setting: Setting
    progress: Progress

    def returns(self, judging: Starts, moved: list[Tensor], stage: str) -> Rolled:
        """Returns of the policy itself and of those at θ + step, from the same starts and noise."""
        policy, horizon = self.setting.policy, self.setting.horizon
        policies = [policy, *(perturbed(policy, step) for step in moved)]
        copies, n = len(policies), len(judging.states)
        state = judging.states.repeat(copies, 1)
        alive = torch.ones(len(state), dtype=torch.bool, device=state.device)
        total, steps = torch.zeros_like(state[:, 0]), 0
        for t in range(horizon):
            out, running = self._step(policies, judging, state, alive, t)
            reward = torch.where(alive, out.reward, 0.0) if self._masked else out.reward
            total += self.setting.discount**t * reward
            state, alive, steps = out.state, alive & out.alive, steps + running
            self.progress(stage, t + 1, horizon)
        weighted = judging.weight * total.reshape(copies, n)
        return Rolled(weighted, alive.reshape(copies, n), steps)

    @property
    def _masked(self) -> bool:
        return self.setting.termination == "mask"

    def _step(
        self, policies: list[nn.Module], judging: Starts, state: Tensor, alive: Tensor, t: int
    ) -> tuple[Transition, int]:
        """All copies one step on, and how many of them were stepped."""
        simulator, seed = self.setting.simulator, self.setting.seed
        e = judging.policy_noise(self.setting.policy, seed, t)
        xi = judging.dynamics_noise(simulator, seed, t).repeat(len(policies), 1)
        with torch.no_grad():
            pieces = zip(policies, state.chunk(len(policies)), strict=True)
            action = torch.cat([act(copy, rows, e) for copy, rows in pieces])
            # What has left the finite numbers, or under "mask" has ended, is not stepped.
            running = torch.isfinite(action).all(dim=1) & torch.isfinite(state).all(dim=1)
            running = running & alive if self._masked else running
            state = torch.where(running[:, None], state, torch.nan)
            return step_running(simulator, state, action, xi), int(running.sum())
