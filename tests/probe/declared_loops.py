"""A loop in the manner of TD3 and SAC on a linear world, whole, with a fault that can be planted.

s' = .9 s + .1 a,  r = −|s|² − .1 |a|²,  rows from a replay, one in ten ends
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import gradlab

GAMMA, TAU, ROWS = 0.9, 0.02, 32
Batch = dict[str, Tensor]


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.body(torch.cat([state, action], 1))


def actor() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1), nn.Tanh())


class Loop:
    """Networks, targets and optimisers, losses of a batch, and an update with what is planted.

    Args:
        fault: "" for a sound loop.
        rate: of both optimisers.
    """

    def __init__(self, fault: str = "", rate: float = 1e-3, twins: int = 2) -> None:
        torch.manual_seed(0)
        self.fault = fault
        self.policy = actor()
        self.critics = [Critic() for _ in range(twins)]
        if fault == "twins of equal weights":
            self.critics = [copy.deepcopy(self.critics[0]) for _ in range(twins)]
        self.slow_policy, self.targets = copy.deepcopy((self.policy, self.critics))
        held = [*self.policy.parameters()]
        if fault == "critic in the actor's optimiser":
            held += [p for each in self.critics for p in each.parameters()]
        still = 0.0 if fault == "policy at rest" else 1.0
        self.moves = torch.optim.Adam(held, still * rate)
        trained = self.critics[:1] if fault == "one of twins in no optimiser" else self.critics
        self.fits = torch.optim.Adam([p for each in trained for p in each.parameters()], rate)

    def batch(self) -> Batch:
        state, action = torch.randn(ROWS, 2), torch.rand(ROWS, 1) * 2 - 1
        return {
            "observation": state, "action": action,
            "reward": -(state**2).sum(1, keepdim=True) - 0.1 * action**2,
            "next_observation": 0.9 * state + 0.1 * action,
            "terminated": (torch.rand(ROWS, 1) < 0.1).float(),
        }  # fmt: skip

    def next_value(self, state: Tensor) -> Tensor:
        action = self.slow_policy(state)
        action = (action + 0.1 * torch.randn_like(action)).clamp(-1, 1)
        values = torch.stack([target(state, action) for target in self.targets])
        return values.max(0).values if self.fault == "largest of twins" else values.min(0).values

    def critic_loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            value = self.next_value(batch["next_observation"])
            mask = 1.0 if self.fault == "no mask" else 1 - batch["terminated"]
            gamma = GAMMA**2 if self.fault == "discount twice" else GAMMA
            paid = -batch["reward"] if self.fault == "reward of the wrong sign" else batch["reward"]
            goal = paid + gamma * mask * value
        goal = goal[:, 0] if self.fault == "pairs" else goal
        values = [critic(batch["observation"], batch["action"]) for critic in self.critics]
        return sum(((value - goal) ** 2).mean() for value in values) + torch.zeros(())

    def actor_loss(self, batch: Batch) -> Tensor:
        state = batch["observation"]
        value = self.critics[0](state, self.policy(state)).mean()
        return value if self.fault == "sign of the actor's loss" else -value

    def follow(self) -> None:
        """The targets."""
        if self.fault == "frozen targets":
            return
        share = {"swapped tau": 1 - TAU, "copied at every step": 1.0}.get(self.fault, TAU)
        followed = [self.critics[0]] * 2 if self.fault == "crossed targets" else self.critics
        moved = self.targets[:1] if self.fault == "one frozen target" else self.targets
        pairs = [*zip(moved, followed, strict=False)]
        if self.fault != "frozen target of the policy":
            pairs += [(self.slow_policy, self.policy)]
        with torch.no_grad():
            for slow, online in pairs:
                for t, p in zip(slow.parameters(), online.parameters(), strict=True):
                    if self.fault == "target into network":
                        p.copy_(share * t + (1 - share) * p)
                    else:
                        t.lerp_(p, share)

    def declare(self, probe: gradlab.Probe) -> None:
        probe.networks(
            critic=self.critics, target=self.targets, target_actor=self.slow_policy,
            optimizers={"critic": self.fits},
        )  # fmt: skip
        probe.losses(critic=self.critic_loss, actor=self.actor_loss, discount=GAMMA)

    def probed(self, **given: Any) -> gradlab.Probe:
        """A probe of all that is declared, which looks at every update unless told otherwise."""
        probe = gradlab.Probe(self.policy, self.moves, **{"every": 1} | given)
        self.declare(probe)
        return probe

    def run(self, probe: gradlab.Probe | None, updates: int) -> None:
        """Two steps of the critic to one of the actor."""
        for step in range(updates):
            for _ in range(2):
                batch = self.batch()
                if self.fault == "a lost reward" and step == 30:
                    batch["reward"][5] = torch.nan
                if probe is not None:
                    probe.look(batch)
                left = self.fault == "actor's gradients in the critic"
                if not left:
                    self.fits.zero_grad()
                self.critic_loss(batch).backward()
                self.fits.step()
                if left:
                    self.fits.zero_grad()
            if self.fault != "gradients add up":
                self.moves.zero_grad()
            loss = self.actor_loss(batch)
            if probe is None:
                loss.backward()
            else:
                with probe(step):
                    loss.backward()
            self.moves.step()
            if self.fault == "outside of steps":
                with torch.no_grad():
                    next(self.policy.parameters()).mul_(0.999)
            self.follow()

    def state(self) -> Iterator[Tensor]:
        """All that a run leaves behind."""
        for module in (self.policy, *self.critics, self.slow_policy, *self.targets):
            yield from module.parameters()


class Gaussian(nn.Module):
    """Mean and log σ, as in SAC; the action is squashed outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
        self.corrected = True

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.body(state).chunk(2, 1)
        return mean, log_std.clamp(-5, 2)

    def drawn(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """An action and its log π, [B, 1]."""
        mean, log_std = self(state)
        inner = mean + log_std.exp() * torch.randn_like(mean)
        action = torch.tanh(inner)
        density = torch.distributions.Normal(mean, log_std.exp()).log_prob(inner)
        if self.corrected:
            density = density - torch.log(1 - action**2 + 1e-6)
        return action, density.sum(1, keepdim=True)


class Soft(Loop):
    """The same in the manner of SAC."""

    def __init__(self, fault: str = "", rate: float = 1e-3, twins: int = 2) -> None:
        super().__init__(fault, rate, twins)
        self.policy = Gaussian()
        self.policy.corrected = fault != "no correction of the tanh"
        self.slow_policy = self.policy
        self.moves = torch.optim.Adam(self.policy.parameters(), rate)
        self.log_alpha = torch.tensor(-1.6)

    def next_value(self, state: Tensor) -> Tensor:
        action, density = self.policy.drawn(state)
        values = torch.stack([target(state, action) for target in self.targets])
        bonus = 0 if self.fault == "no entropy in the target" else self.log_alpha.exp() * density
        return values.min(0).values - bonus

    def actor_loss(self, batch: Batch) -> Tensor:
        action, density = self.policy.drawn(batch["observation"])
        values = [critic(batch["observation"], action) for critic in self.critics]
        return (self.log_alpha.exp() * density - torch.stack(values).min(0).values).mean()

    def follow(self) -> None:
        self.fault, fault = "frozen target of the policy", self.fault
        super().follow()
        self.fault = fault

    def declare(self, probe: gradlab.Probe) -> None:
        probe.networks(critic=self.critics, target=self.targets, optimizers={"critic": self.fits})
        probe.losses(
            critic=self.critic_loss, actor=self.actor_loss, discount=GAMMA,
            temperature=self.log_alpha, draw=self.policy.drawn,
        )  # fmt: skip
