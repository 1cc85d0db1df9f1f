"""Replay with a leading member axis: one ring of transitions per seed, all of one length.

The caller draws the uniform numbers that choose a batch's rows, so that sampling is reproducible
from the iteration alone and no member's draw depends on the number of members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gradlab.errors import InputError


@dataclass(frozen=True)
class Batch:
    """state [E, N, ds], action [E, N, da], reward [E, N], next_state [E, N, ds],
    terminated [E, N] (1 where the next state is terminal; a truncated episode is not).

    log_prob [E, N], where it is kept: of the action, by the policy that collected it.
    policy_noise [E, N, da] and dynamics_noise [E, N, noise_dim], where they are kept: those with
    which the policy acted and the simulator stepped.
    slopes [E, N, ds + 1, ds + da], where they are at hand: ∂(s′, r)/∂(s, a) of the simulator.
    starts [E, N, ds], where the batch is of several stores: of the environments' replay, from which
    policies are rolled out.
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    next_state: Tensor
    terminated: Tensor
    log_prob: Tensor | None = None
    starts: Tensor | None = None
    policy_noise: Tensor | None = None
    dynamics_noise: Tensor | None = None
    slopes: Tensor | None = None

    @property
    def visited(self) -> Tensor:
        """States that the environments visited, [E, N, ds]."""
        return self.state if self.starts is None else self.starts

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, for a saved state."""
        return {name: value for name, value in vars(self).items() if value is not None}


@final
class Replay:
    """The last `capacity` transitions of every member.

    Args:
        densities: whether log_prob is kept.
        noises: widths of the noise that is kept, the policy's and the simulator's.
    """

    def __init__(
        self,
        members: int,
        capacity: int,
        state_dim: int,
        action_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        densities: bool = False,
        noises: tuple[int, int] = (0, 0),
    ) -> None:
        if capacity < 1:
            raise InputError(f"capacity is {capacity}, expected at least 1 transition")
        # One row of memory per transition: a batch is one gather, not five.
        self.densities, self.noises = densities, noises
        self.widths = (state_dim, action_dim, 1, state_dim, 1) + densities * (1,) + noises
        self.rows = torch.zeros(members, capacity, sum(self.widths), dtype=dtype, device=device)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self.rows.shape[1])

    def add(
        self, state: Tensor, action: Tensor, reward: Tensor, next_state: Tensor, terminated: Tensor,
        log_prob: Tensor | None = None, policy_noise: Tensor | None = None,
        dynamics_noise: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Store n transitions per member: [E, n, ·], reward, terminated and log_prob [E, n].

        `log_prob` and noises are left out where they are not kept.
        """
        last = [reward[..., None], next_state, terminated[..., None].to(reward)]
        if self.densities:
            assert log_prob is not None
            last.append(log_prob[..., None])
        for width, noise in zip(self.noises, (policy_noise, dynamics_noise), strict=True):
            if width:
                assert noise is not None
                last.append(noise)
        self.put(torch.cat([state, action, *last], dim=2))

    def put(self, rows: Tensor) -> None:
        """Store n transitions per member as they lie in `rows`, [E, n, sum of widths]."""
        new = rows.to(self.rows)
        capacity = self.rows.shape[1]
        self.added += new.shape[1]
        new = new[:, -capacity:]  # no place is written twice: which write stays is not defined
        at = torch.arange(self.added - new.shape[1], self.added, device=new.device) % capacity
        self.rows[:, at] = new

    def sample(self, uniform: Tensor, newest: int | None = None) -> Batch:
        """The batch that `uniform` [E, N] in [0, 1) selects, of all rows or of the newest.

        Raises:
            InputError: nothing has been stored.
        """
        if self.added == 0:
            raise InputError("replay is empty: collect before sampling")
        count = len(self) if newest is None else min(newest, len(self))
        at = (uniform.double() * count).long().to(self.rows.device)
        if newest is not None:
            at = (at + self.added - count) % self.rows.shape[1]
        rows = self.rows.gather(1, at[..., None].expand(-1, -1, self.rows.shape[2]))
        return self._batch(rows)

    def newest(self, count: int) -> Batch:
        """The last `count` transitions of every member, in the order in which they were stored.

        Raises:
            InputError: fewer are stored.
        """
        if count > len(self):
            raise InputError(f"replay holds {len(self)} transitions, but a batch is {count}")
        at = torch.arange(self.added - count, self.added, device=self.rows.device)
        return self._batch(self.rows[:, at % self.rows.shape[1]])

    def largest_reward(self) -> Tensor:
        """max |r| of the stored transitions, [E]."""
        column = self.widths[0] + self.widths[1]
        return self.rows[:, : len(self), column].abs().amax(dim=1)

    def terminations(self) -> int:
        """Stored transitions into a terminal state, of all members."""
        column = sum(self.widths[:4])
        return int((self.rows[:, : len(self), column] > 0.5).sum())

    def state(self) -> dict[str, Tensor]:
        """The stored transitions, for `load`."""
        return {"rows": self.rows[:, : len(self)], "added": torch.tensor(self.added)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Raises InputError: the numbers do not fit this replay."""
        stored, added = state["rows"], int(state["added"])
        members, capacity, width = self.rows.shape
        if stored.shape != (members, min(added, capacity), width):
            got = tuple(stored.shape)
            raise InputError(f"stored replay has shape {got} after {added} transitions")
        self.rows[:, : stored.shape[1]] = stored.to(self.rows)
        self.added = added

    def _batch(self, rows: Tensor) -> Batch:
        """The columns of [E, N, width]."""
        parts = torch.split(rows, list(self.widths), dim=2)
        state, action, reward, next_state, terminated = parts[:5]
        log_prob = parts[5][..., 0] if self.densities else None
        policy, dynamics = (x if x.shape[2] else None for x in parts[-2:])
        return Batch(
            state, action, reward[..., 0], next_state, terminated[..., 0], log_prob,
            policy_noise=policy, dynamics_noise=dynamics,
        )  # fmt: skip
