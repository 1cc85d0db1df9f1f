"""A loop in the manner of TD3 and SAC on a linear world, whole, with a fault that can be planted.

s' = .9 s + .1 a,  r = −|s|² − .1 |a|²,  rows from a replay, episodes without an end
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

import gradlab

GAMMA, TAU, ROWS = 0.9, 0.02, 32


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.body(torch.cat([state, action], 1))


class Batched(nn.Module):
    """Several critics in one module, as ensembles are today.

    Args:
        axes: of the output, "nb", "bn" or "nb1", of n critics and b rows.
    """

    def __init__(self, axes: str, several: int) -> None:
        super().__init__()
        self.axes, self.critics = axes, nn.ModuleList(Critic() for _ in range(several))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        found = torch.stack([each(state, action) for each in self.critics])
        return (
            found if self.axes == "nb1" else found[..., 0].T if self.axes == "bn" else found[..., 0]
        )


def actor() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1), nn.Tanh())


class Loop:
    """Networks, targets and optimisers, and an update with what is planted.

    Args:
        fault: "" for a sound loop, else a name of `FAULTS`.
        rate: of both optimisers.
    """

    def __init__(self, fault: str = "", rate: float = 1e-3, twins: int = 2) -> None:
        torch.manual_seed(0)
        self.fault = fault
        self.policy = actor()
        self.critics = nn.ModuleList(Critic() for _ in range(twins))
        if fault == "twins of equal weights":
            self.critics = nn.ModuleList(copy.deepcopy(self.critics[0]) for _ in range(twins))
        self.target_policy, self.targets = copy.deepcopy((self.policy, self.critics))
        held = [*self.policy.parameters()]
        held += [*self.critics.parameters()] if fault == "critic in the actor's optimiser" else []
        one = fault == "one of twin critics in the actor's optimiser"
        held += [*self.critics[0].parameters()] if one else []
        still = 0.0 if fault == "policy at rest" else 1.0
        if "model" in fault:
            self.model = nn.Linear(3, 2)
            self.model_optimizer = torch.optim.Adam(self.model.parameters(), rate)
        if fault == "model in the actor's optimiser":
            held += self.model.parameters()
        self.actor_optimizer = torch.optim.Adam(held, still * rate)
        trained = self.critics[:1] if fault == "one of twins in no optimiser" else self.critics
        self.critic_optimizer = torch.optim.Adam(trained.parameters(), rate)

    def batch(self) -> dict[str, Tensor]:
        state = torch.randn(ROWS, 2)
        action = torch.rand(ROWS, 1) * 2 - 1
        reward = -(state**2).sum(1, keepdim=True) - 0.1 * action**2
        following = 0.9 * state + 0.1 * action
        ended = torch.zeros(ROWS, 1)
        return {
            "state": state, "action": action, "reward": reward, "next": following, "ended": ended
        }  # fmt: skip

    def target_values(self, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the critics are fitted to, and the value of the next states in it."""
        with torch.no_grad():
            action = self.target_policy(rows["next"])
            action = (action + 0.1 * torch.randn_like(action)).clamp(-1, 1)
            values = [target(rows["next"], action) for target in self.targets]
            value = torch.stack(values).min(0).values
        return rows["reward"] + GAMMA * (1 - rows["ended"]) * value, value

    def fit_critic(self, rows: dict[str, Tensor], goal: Tensor) -> None:
        critics = self.critics[: -1 if self.fault == "one of twins in no loss" else None]
        goal = goal[:, 0] if "of pairs" in self.fault else goal
        error = nn.functional.huber_loss if "Huber" in self.fault else nn.functional.mse_loss
        values = [critic(rows["state"], rows["action"]) for critic in critics]
        loss = sum(error(*torch.broadcast_tensors(value, goal)) for value in values)
        if self.fault != "actor's gradients in the critic":
            self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        if self.fault == "actor's gradients in the critic":
            self.critic_optimizer.zero_grad()

    def actor_loss(self, rows: dict[str, Tensor]) -> Tensor:
        value = self.critics[0](rows["state"], self.policy(rows["state"])).mean()
        if "model" in self.fault:  # one step of a learned model
            value = value + self.following(rows, self.policy(rows["state"])).sum(1).mean()
        return value if self.fault == "sign of the actor's loss" else -value

    def following(self, rows: dict[str, Tensor], action: Tensor) -> Tensor:
        return self.model(torch.cat([rows["state"], action], 1))

    def fit_model(self, rows: dict[str, Tensor]) -> None:
        loss = ((self.following(rows, rows["action"]) - rows["next"]) ** 2).mean()
        if self.fault != "actor's gradients in the model":
            self.model_optimizer.zero_grad()
        loss.backward()
        self.model_optimizer.step()
        self.model_optimizer.zero_grad()

    def follow(self) -> None:
        """The targets."""
        if self.fault == "frozen targets":
            return
        share = {"swapped tau": 1 - TAU, "copied at every step": 1.0}.get(self.fault, TAU)
        followed = [self.critics[0]] * 2 if self.fault == "crossed targets" else self.critics
        moved = self.targets[:1] if self.fault == "one frozen target" else self.targets
        pairs = [
            each for one, other in zip(moved, followed[: len(moved)], strict=True)
            for each in zip(one.parameters(), other.parameters(), strict=True)
        ]  # fmt: skip
        if self.fault != "frozen target of the policy":
            pairs += zip(self.target_policy.parameters(), self.policy.parameters(), strict=True)
        for target, online in pairs:
            if self.fault == "target into network":
                online.data.copy_(share * target.data + (1 - share) * online.data)
            else:
                target.data.copy_(share * online.data + (1 - share) * target.data)

    def run(
        self, probe: gradlab.Probe | None, updates: int,
        each: Callable[[dict[str, Tensor], Tensor, Tensor], None] | None = None,
    ) -> None:  # fmt: skip
        """Two steps of the critic to one of the actor; `each` hears of every batch."""
        for step in range(updates):
            if self.fault == "critic's gradients in the policy":
                self.actor_optimizer.zero_grad()
            for _ in range(2):
                rows = self.batch()
                goal, value = self.target_values(rows)
                if each is not None:
                    each(rows, goal, value)
                self.fit_critic(rows, goal)
            if "model" in self.fault:
                self.fit_model(rows)
            if self.fault not in ("gradients add up", "critic's gradients in the policy"):
                self.actor_optimizer.zero_grad()
            loss = self.actor_loss(rows)
            if probe is None:
                loss.backward()
            else:
                with probe(step):
                    loss.backward()
            self.actor_optimizer.step()
            if self.fault == "outside of steps":
                with torch.no_grad():
                    next(self.policy.parameters()).mul_(0.999)
            self.follow()

    def state(self) -> Iterator[Tensor]:
        """All that a run leaves behind."""
        for module in (self.policy, self.critics, self.target_policy, self.targets):
            yield from module.parameters()


class Gaussian(nn.Module):
    """Mean and log σ, as in SAC; the action is squashed outside of it, to ± `scale`, if at all."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.squashed = 1.0, True
        self.body = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
        self.corrected = True

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.body(state).chunk(2, 1)
        return mean, log_std.clamp(-5, 2)

    def drawn(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """An action and its log π."""
        mean, log_std = self(state)
        inner = mean + log_std.exp() * torch.randn_like(mean)
        action = torch.tanh(inner)
        density = torch.distributions.Normal(mean, log_std.exp()).log_prob(inner)
        if not self.squashed:
            return inner, density.sum(1, keepdim=True)
        if self.corrected:
            density = density - torch.log(self.scale * (1 - action**2) + 1e-6)
        return self.scale * action, density.sum(1, keepdim=True)


class Soft(Loop):
    """The same in the manner of SAC, its temperature fixed."""

    ALPHA = 0.2

    def __init__(self, fault: str = "", rate: float = 1e-3, twins: int = 2) -> None:
        super().__init__(fault, rate, twins)
        self.policy = Gaussian()
        self.policy.corrected = fault != "no correction of the tanh"
        self.target_policy = copy.deepcopy(self.policy)
        self.actor_optimizer = torch.optim.Adam(self.policy.parameters(), rate)

    def target_values(self, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(self.fault.startswith("critic's gradients")):
            action, density = self.policy.drawn(rows["next"])
            values = [target(rows["next"], action) for target in self.targets]
            value = torch.stack(values).min(0).values - self.ALPHA * density
        return rows["reward"] + GAMMA * (1 - rows["ended"]) * value, value

    def actor_loss(self, rows: dict[str, Tensor]) -> Tensor:
        action, density = self.policy.drawn(rows["state"])
        values = [critic(rows["state"], action) for critic in self.critics]
        value = torch.stack(values).min(0).values
        sign = -1 if self.fault == "sign of the actor's loss" else 1
        return (self.ALPHA * density - sign * value).mean()


class InTurn(Loop):
    """One optimiser for actor and critics, which steps them in turn.

    Args:
        marked: the actor's backward pass; none: gradients are cleared to None, not to 0.
    """

    def __init__(self, fault: str = "", marked: bool = True, none: bool = True) -> None:
        super().__init__(fault)
        rates = {self.policy: fault == "actor at rest", self.critics: fault == "critic at rest"}
        groups = [{"params": [*m.parameters()], "lr": 0.0 if k else 1e-3} for m, k in rates.items()]
        self.actor_optimizer = self.critic_optimizer = torch.optim.Adam(groups)
        self.marked, self.none = marked, none

    def run(self, probe: gradlab.Probe | None, updates: int, each: object = None) -> None:
        both = self.actor_optimizer
        for step in range(updates):
            rows = self.batch()
            goal, _ = self.target_values(rows)
            both.zero_grad(set_to_none=self.none)
            for critic in self.critics:
                ((critic(rows["state"], rows["action"]) - goal) ** 2).mean().backward()
            both.step()
            self.critics.requires_grad_(self.fault == "critic moves along")
            both.zero_grad(set_to_none=self.none)
            loss = self.actor_loss(rows)
            loss = loss.detach().requires_grad_() if self.fault == "detached actor" else loss
            with probe(step) if probe and self.marked else nullcontext():
                loss.backward()
            both.step()
            self.critics.requires_grad_(True)
            self.follow()
