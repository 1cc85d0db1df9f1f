"""Paths: the states, actions and noise that rollouts and records return and measurements read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Path:
    """N trajectories of H steps from one start law, with the noise that made them.

    Attributes:
        states: [H + 1, N, ds].
        actions: [H + 1, N, da]; the last row is the action that the tail critic values.
        rewards: [H, N].
        policy_noise: [H + 1, N, policy.noise_dim] (width 0 for a deterministic policy).
        dynamics_noise: [H, N, system.noise_dim], standardised.
        alive: [H + 1, N] bool, the running product: False from the first terminal state on.
        weight: [N], importance of each start (1 for plain sampling).
        group: [N] integers; starts that share a group (one trajectory, several samples from one
            start) are one unit for every resampling statistic.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    policy_noise: Tensor
    dynamics_noise: Tensor
    alive: Tensor
    weight: Tensor
    group: Tensor

    @property
    def horizon(self) -> int:
        return self.states.shape[0] - 1

    def cut(self, horizon: int) -> Path:
        """The first `horizon` steps."""
        return replace(
            self,
            states=self.states[: horizon + 1],
            actions=self.actions[: horizon + 1],
            rewards=self.rewards[:horizon],
            policy_noise=self.policy_noise[: horizon + 1],
            dynamics_noise=self.dynamics_noise[:horizon],
            alive=self.alive[: horizon + 1],
        )

    def double(self) -> Path:
        """In float64."""
        names = ("states", "actions", "rewards", "policy_noise", "dynamics_noise", "weight")
        return replace(self, **{name: getattr(self, name).double() for name in names})

    def rows(self, rows: slice) -> Path:
        """Some of the trajectories."""
        return Path(
            states=self.states[:, rows],
            actions=self.actions[:, rows],
            rewards=self.rewards[:, rows],
            policy_noise=self.policy_noise[:, rows],
            dynamics_noise=self.dynamics_noise[:, rows],
            alive=self.alive[:, rows],
            weight=self.weight[rows],
            group=self.group[rows],
        )
