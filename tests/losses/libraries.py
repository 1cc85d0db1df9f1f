"""Losses of public libraries and papers, written anew from their sources, as they hand them over.

SOUND     (name, source, make)       no law was written with these in sight
FAULTS    (name, make, code)         one fault in such a loss; the code is the first that is broken

Shapes, names of columns and ways to call networks are the sources': flat values, `not_done` in the
place of `done`, one module for all critics, targets of ten actions a row, logarithms of ratios.
"""

from __future__ import annotations

import copy
import functools
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from tests.losses.bank import ACTION, GAMMA, STATE, Agent, Policy, Q, batch, mlp, recorded

Arguments = dict[str, Any]
B = 48


class Deterministic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(STATE, ACTION)

    def forward(self, s: Tensor) -> Tensor:
        return torch.tanh(self.net(s))


class Gaussian(nn.Module):
    """IQL's: a distribution whose deviation does not depend on the state."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.log_std = mlp(STATE, ACTION), nn.Parameter(torch.zeros(ACTION))

    def forward(self, s: Tensor) -> Independent:
        return Independent(Normal(torch.tanh(self.net(s)), self.log_std.exp()), 1)


class Flat(Q):
    """Spinning Up's: values [B]."""

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        return super().forward(s, a).squeeze(-1)


class Ensemble(nn.Module):
    """CORL's: N critics as one module of weights [N, ·, ·], values [N, B]."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.one = nn.Parameter(0.4 * torch.randn(members, STATE + ACTION, 32))
        self.two = nn.Parameter(0.2 * torch.randn(members, 32, 1))

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        x = torch.cat([s, a], -1).unsqueeze(0).repeat_interleave(len(self.one), 0)
        return (torch.tanh(x @ self.one) @ self.two).squeeze(-1)


def discrete(rows: int = B, actions: int = 4) -> dict[str, Tensor]:
    b = batch(rows)
    return b | {"action": torch.randint(actions, (rows, 1), generator=torch.Generator())}


def ddpg_cleanrl() -> Arguments:
    Samples = namedtuple("Samples", "observations actions next_observations dones rewards")
    qf1, qf1_target, target_actor, b = Q(), Q(), Deterministic(), batch()

    def loss(data: Any) -> Tensor:
        with torch.no_grad():
            next_actions = target_actor(data.next_observations)
            qf1_next = qf1_target(data.next_observations, next_actions)
            next_q = data.rewards.flatten() + (1 - data.dones.flatten()) * GAMMA * qf1_next.view(-1)
        return F.mse_loss(qf1(data.observations, data.actions).view(-1), next_q)

    data = Samples(b["observation"], b["action"], b["next_observation"], b["terminated"],
                   b["reward"])  # fmt: skip
    names = {"observation": "observations", "action": "actions", "reward": "rewards",
             "next_observation": "next_observations", "terminated": "dones"}  # fmt: skip
    return dict(
        loss=loss, batch=data, kind="critic", critic=qf1, target=qf1_target,
        target_actor=target_actor, discount=GAMMA, columns=names,
    )  # fmt: skip


def sac_sb3() -> Arguments:
    class ContinuousCritic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_networks = nn.ModuleList([mlp(STATE + ACTION, 1) for _ in range(2)])

        def forward(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
            return tuple(net(torch.cat([obs, actions], 1)) for net in self.q_networks)

    critic, critic_target, actor = ContinuousCritic(), ContinuousCritic(), Policy()
    log_ent_coef = torch.tensor([-1.0], requires_grad=True)

    def loss(data: dict[str, Tensor]) -> Tensor:
        ent_coef = torch.exp(log_ent_coef.detach())
        with torch.no_grad():
            next_actions, next_log_prob = actor(data["next_observation"])
            next_q = torch.cat(critic_target(data["next_observation"], next_actions), dim=1)
            next_q, _ = torch.min(next_q, dim=1, keepdim=True)
            next_q = next_q - ent_coef * next_log_prob.reshape(-1, 1)
            target = data["reward"] + (1 - data["terminated"]) * GAMMA * next_q
        current = critic(data["observation"], data["action"])
        return 0.5 * sum(F.mse_loss(q, target) for q in current)

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=critic, target=critic_target, actor=actor,
        discount=GAMMA, temperature=log_ent_coef, draw=actor,
    )  # fmt: skip


def td3_fujimoto(fault: str = "") -> Arguments:
    """One module of two critics, `not_done` in the place of `done`, smoothed target actions."""

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q1, self.q2 = mlp(STATE + ACTION, 1), mlp(STATE + ACTION, 1)

        def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            sa = torch.cat([state, action], 1)
            return self.q1(sa), self.q2(sa)

    critic, critic_target, actor_target = Critic(), Critic(), Deterministic()
    b = batch()
    b["not_done"] = 1 - b.pop("terminated")

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            noise = (torch.randn_like(b["action"]) * 0.2).clamp(-0.5, 0.5)
            next_action = (actor_target(b["next_observation"]) + noise).clamp(-1, 1)
            target_q1, target_q2 = critic_target(b["next_observation"], next_action)
            target_q = torch.min(target_q1, target_q2)
            if fault == "gamma on reward":
                target_q = GAMMA * (b["reward"] + b["not_done"] * target_q)
            else:
                target_q = b["reward"] + b["not_done"] * GAMMA * target_q
        current_q1, current_q2 = critic(b["observation"], b["action"])
        return F.mse_loss(current_q1, target_q) + F.mse_loss(current_q2, target_q)

    return dict(
        loss=loss, batch=b, kind="critic", critic=critic, target=critic_target,
        target_actor=actor_target, discount=GAMMA,
    )  # fmt: skip


def redq(fault: str = "") -> Arguments:
    nets, targets, policy = [Q() for _ in range(5)], [Q() for _ in range(5)], Policy()
    log_alpha = torch.zeros(1, requires_grad=True)

    def loss(b: dict[str, Tensor]) -> Tensor:
        used = nets if fault == "online" else targets
        with torch.no_grad():
            sample = np.random.choice(5, 2, replace=False)
            a_next, log_prob = policy(b["next_observation"])
            preds = torch.cat([used[i](b["next_observation"], a_next) for i in sample], 1)
            alpha = log_alpha.exp()
            next_q = preds.min(1, keepdim=True)[0] - alpha * log_prob
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * next_q
        predictions = torch.cat([q(b["observation"], b["action"]) for q in nets], dim=1)
        return F.mse_loss(predictions, y.expand(-1, 5)) * 5

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=nets, target=targets, actor=policy,
        discount=GAMMA, temperature=log_alpha, draw=policy,
    )  # fmt: skip


class Quantiles(nn.Module):
    """TQC's: values [B, nets, quantiles]."""

    def __init__(self, nets: int = 3, quantiles: int = 7) -> None:
        super().__init__()
        self.nets = nn.ModuleList([mlp(STATE + ACTION, quantiles) for _ in range(nets)])

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        return torch.stack([net(torch.cat([s, a], 1)) for net in self.nets], 1)


def quantile_huber(quantiles: Tensor, samples: Tensor, axis: int = 0) -> Tensor:
    """quantiles [B, nets, N], samples [B, M]; `axis` 1 is a fault."""
    delta = samples[:, None, None, :] - quantiles[:, :, :, None]
    size = delta.abs()
    huber = torch.where(size > 1, size - 0.5, delta**2 * 0.5)
    n = samples.shape[1] if axis else quantiles.shape[2]
    tau = torch.arange(n).float() / n + 1 / 2 / n
    tau = tau[None, None, None, :] if axis else tau[None, None, :, None]
    return ((tau - (delta < 0).float()).abs() * huber).mean()


def tqc(fault: str = "") -> Arguments:
    critic, critic_target, actor = Quantiles(), Quantiles(), Policy()
    log_alpha = torch.tensor([-0.5], requires_grad=True)
    gamma = {"squared": GAMMA**2}.get(fault, GAMMA)

    def loss(b: dict[str, Tensor]) -> Tensor:
        alpha = torch.exp(log_alpha)
        with torch.no_grad():
            new_next_action, next_log_pi = actor(b["next_observation"])
            next_z = critic_target(b["next_observation"], new_next_action)
            sorted_z, _ = torch.sort(next_z.reshape(len(next_z), -1))
            part = sorted_z[:, 6:] if fault == "top" else sorted_z[:, :-6]
            target = b["reward"] + (1 - b["terminated"]) * gamma * (part - alpha * next_log_pi)
        axis = 1 if fault == "axis" else 0
        return quantile_huber(critic(b["observation"], b["action"]), target, axis)

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=critic, target=critic_target, actor=actor,
        discount=GAMMA, temperature=log_alpha, draw=actor,
    )  # fmt: skip


def sac_n() -> Arguments:
    critic, target, actor = Ensemble(6), Ensemble(6), Policy()
    log_alpha = torch.tensor([0.0], requires_grad=True)

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            next_action, log_prob = actor(b["next_observation"])
            q_next = target(b["next_observation"], next_action).min(0).values
            q_next = q_next - log_alpha.exp() * log_prob.squeeze(-1)
            q_target = b["reward"] + GAMMA * (1 - b["terminated"]) * q_next.unsqueeze(-1)
        q_values = critic(b["observation"], b["action"])
        return ((q_values - q_target.view(1, -1)) ** 2).mean(dim=1).sum(dim=0)

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=critic, target=target, actor=actor,
        discount=GAMMA, temperature=log_alpha, draw=actor,
    )  # fmt: skip


def cql_corl() -> Arguments:
    """CQL(H) with importance weights, in one sum: random, current and next actions."""
    q1, q2, t1, t2, actor, repeats = Flat(), Flat(), Flat(), Flat(), Policy(), 5

    def many(net: nn.Module, s: Tensor, a: Tensor) -> Tensor:
        wide = s.unsqueeze(1).repeat(1, repeats, 1).reshape(-1, STATE)
        return net(wide, a.reshape(-1, ACTION)).reshape(len(s), repeats)

    def drawn(s: Tensor) -> tuple[Tensor, Tensor]:
        wide = s.unsqueeze(1).repeat(1, repeats, 1).reshape(-1, STATE)
        a, log_pi = actor(wide)
        return a.reshape(len(s), repeats, ACTION).detach(), log_pi.reshape(len(s), -1).detach()

    def loss(b: dict[str, Tensor]) -> Tensor:
        s, s2, a = b["observation"], b["next_observation"], b["action"]
        q1_pred, q2_pred = q1(s, a), q2(s, a)
        new_next, _ = actor(s2)
        target_q = torch.min(t1(s2, new_next), t2(s2, new_next)).unsqueeze(-1)
        td_target = b["reward"] + (1 - b["terminated"]) * GAMMA * target_q.detach()
        td_target = td_target.squeeze(-1)
        td = F.mse_loss(q1_pred, td_target) + F.mse_loss(q2_pred, td_target)
        random = a.new_empty(len(s), repeats, ACTION).uniform_(-1, 1)
        (now, now_log), (then, then_log) = drawn(s), drawn(s2)
        total = td
        for q, pred in ((q1, q1_pred), (q2, q2_pred)):
            cat = torch.cat(
                [
                    many(q, s, random) - np.log(0.5**ACTION),
                    many(q, s, then) - then_log,
                    many(q, s, now) - now_log,
                ],
                1,
            )
            total = total + 5.0 * (torch.logsumexp(cat, dim=1) - pred).mean()
        return total

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=[q1, q2], target=[t1, t2], actor=actor,
        discount=GAMMA,
    )  # fmt: skip


def iql_q() -> Arguments:
    """Q on V of the next state: V is no copy of Q."""
    qf, vf = [Flat(), Flat()], mlp(STATE, 1)

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            next_v = vf(b["next_observation"]).squeeze(-1)
        rewards, terminals = b["reward"].squeeze(-1), b["terminated"].squeeze(-1)
        targets = rewards + (1.0 - terminals.float()) * GAMMA * next_v.detach()
        qs = [q(b["observation"], b["action"]) for q in qf]
        return sum(F.mse_loss(q, targets) for q in qs) / len(qs)

    return dict(loss=loss, batch=batch(), kind="critic", critic=qf, target=vf, discount=GAMMA)


def bcq(fault: str = "") -> Arguments:
    """Ten actions a next state, .75 of the least twin and .25 of the largest, the best of ten."""
    critic, critic_target = [Q(), Q()], [Q(), Q()]
    decoder, actor_target = Deterministic(), Deterministic()

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            s2 = torch.repeat_interleave(b["next_observation"], 10, 0)
            a2 = decoder(s2) + 0.1 * torch.randn(len(s2), ACTION).clamp(-0.5, 0.5)
            a2 = (0.05 * actor_target(s2) + a2).clamp(-1, 1)
            q1, q2 = (net(s2, a2) for net in critic_target)
            q = 0.75 * torch.min(q1, q2) + 0.25 * torch.max(q1, q2)
            q = q.reshape(len(b["reward"]), -1).max(1)[0].reshape(-1, 1)
            mask = 1 if fault == "no mask" else 1 - b["terminated"]
            target = b["reward"] + mask * GAMMA * q
        return sum(F.mse_loss(net(b["observation"], b["action"]), target) for net in critic)

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=critic, target=critic_target,
        target_actor=actor_target, discount=GAMMA,
    )  # fmt: skip


def rebrac() -> Arguments:
    """A penalty for leaving the recorded next action, inside the target."""
    critic, target, actor_target, b = [Q(), Q()], [Q(), Q()], Deterministic(), batch()
    b["next_action"] = torch.tanh(torch.randn(B, ACTION))

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            a2 = actor_target(b["next_observation"])
            a2 = (a2 + (0.2 * torch.randn_like(a2)).clamp(-0.5, 0.5)).clamp(-1, 1)
            penalty = ((a2 - b["next_action"]) ** 2).sum(-1, keepdim=True)
            next_q = torch.min(*(net(b["next_observation"], a2) for net in target)) - 0.01 * penalty
            target_q = b["reward"] + (1 - b["terminated"]) * GAMMA * next_q
        return sum(((net(b["observation"], b["action"]) - target_q) ** 2).mean() for net in critic)

    return dict(
        loss=loss, batch=b, kind="critic", critic=critic, target=target, target_actor=actor_target,
        discount=GAMMA,
    )  # fmt: skip


def r2d2() -> Arguments:
    """Values are rescaled: h(r + γ h⁻¹(v))."""
    q, target, eps = mlp(STATE, 4), mlp(STATE, 4), 1e-3

    def h(x: Tensor) -> Tensor:
        return x.sign() * ((x.abs() + 1).sqrt() - 1) + eps * x

    def inverse(x: Tensor) -> Tensor:
        root = (1 + 4 * eps * (x.abs() + 1 + eps)).sqrt()
        return x.sign() * (((root - 1) / (2 * eps)) ** 2 - 1)

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            best = q(b["next_observation"]).argmax(1, keepdim=True)
            v = inverse(target(b["next_observation"]).gather(1, best))
            y = h(b["reward"] + GAMMA * (1 - b["terminated"]) * v)
        return 0.5 * (q(b["observation"]).gather(1, b["action"]) - y).pow(2).mean()

    return dict(
        loss=loss, batch=discrete(), kind="critic", critic=q, target=target, discount=GAMMA,
    )  # fmt: skip


def munchausen() -> Arguments:
    q, target, tau, alpha = mlp(STATE, 4), mlp(STATE, 4), 0.1, 0.9

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            next_q = target(b["next_observation"])
            log_pi = F.log_softmax(next_q / tau, 1)
            soft = (log_pi.exp() * (next_q - tau * log_pi)).sum(1, keepdim=True)
            here = F.log_softmax(target(b["observation"]) / tau, 1).gather(1, b["action"])
            bonus = alpha * (tau * here).clamp(-1, 0)
            y = b["reward"] + bonus + GAMMA * soft * (1 - b["terminated"])
        return F.mse_loss(q(b["observation"]).gather(1, b["action"]), y)

    return dict(
        loss=loss, batch=discrete(), kind="critic", critic=q, target=target, discount=GAMMA,
    )  # fmt: skip


def sac_discrete(fault: str = "") -> Arguments:
    """CleanRL's for Atari: the expectation over all actions."""
    qf, targets, actor = [mlp(STATE, 4), mlp(STATE, 4)], [mlp(STATE, 4), mlp(STATE, 4)], \
        mlp(STATE, 4)  # fmt: skip
    log_alpha = torch.tensor([-1.0], requires_grad=True)

    def loss(data: dict[str, Tensor]) -> Tensor:
        alpha = log_alpha if fault == "log α" else log_alpha.exp()
        alpha = -alpha if fault == "sign" else alpha
        with torch.no_grad():
            log_pi = F.log_softmax(actor(data["next_observation"]), dim=1)
            least = torch.min(*(net(data["next_observation"]) for net in targets))
            v = (log_pi.exp() * (least - alpha * log_pi)).sum(dim=1)
            y = data["reward"].flatten() + (1 - data["terminated"].flatten()) * GAMMA * v
        values = [net(data["observation"]).gather(1, data["action"].long()).view(-1) for net in qf]
        return sum(F.mse_loss(q, y) for q in values)

    return dict(
        loss=loss, batch=discrete(), kind="critic", critic=qf, target=targets, actor=actor,
        discount=GAMMA, temperature=log_alpha,
    )  # fmt: skip


def qmix(fault: str = "") -> Arguments:
    """The mixer of the chosen values of three agents; γ, ends and reward are the team's."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1, self.b1 = nn.Linear(STATE, 3 * 8), nn.Linear(STATE, 8)
            self.w2, self.v = nn.Linear(STATE, 8), mlp(STATE, 1)

        def forward(self, values: Tensor, state: Tensor) -> Tensor:
            w1 = self.w1(state).abs().view(-1, 3, 8)
            hidden = F.elu(values[:, None] @ w1 + self.b1(state)[:, None])
            found = hidden @ self.w2(state).abs()[:, :, None] + self.v(state)[:, :, None]
            return found.view(-1, 1)

    mixer, target_mixer, agent, target_agent = Mixer(), Mixer(), mlp(STATE, 4), mlp(STATE, 4)
    b = batch()
    b["obs"], b["next_obs"] = torch.randn(B, 3, STATE), torch.randn(B, 3, STATE)
    b["action"] = torch.randint(4, (B, 3, 1))

    def loss(b: dict[str, Tensor]) -> Tensor:
        chosen = agent(b["obs"]).gather(2, b["action"]).squeeze(2)
        best = agent(b["next_obs"]).detach().argmax(2, keepdim=True)
        following = target_agent(b["next_obs"]).gather(2, best).squeeze(2)
        state = b["observation"] if fault == "state" else b["next_observation"]
        y = b["reward"] + GAMMA * (1 - b["terminated"]) * target_mixer(following, state)
        error = mixer(chosen, b["observation"]) - y.detach()
        return (error**2).mean()

    return dict(
        loss=loss, batch=b, kind="critic", critic=mixer, target=target_mixer, discount=GAMMA,
    )  # fmt: skip


def iql_v() -> Arguments:
    """The expectile of twins at the recorded action: a value fitted to other networks' values."""
    vf, q_target = mlp(STATE, 1), [Flat(), Flat()]

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            target = torch.min(*(net(b["observation"], b["action"]) for net in q_target))
        u = target - vf(b["observation"]).squeeze(-1)
        return torch.mean(torch.abs(0.7 - (u < 0).float()) * u**2)

    return dict(loss=loss, batch=batch(), kind="fit", critic=vf, target=q_target)


def pqn() -> Arguments:
    """Q of the taken action, fitted to λ-returns that were computed beforehand."""
    q, b = nn.Sequential(nn.Linear(STATE, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 4)), \
        discrete()  # fmt: skip
    b = {"observation": b["observation"], "action": b["action"][:, 0], "return": torch.randn(B)}

    def loss(b: dict[str, Tensor]) -> Tensor:
        chosen = q(b["observation"]).gather(1, b["action"].unsqueeze(-1)).squeeze()
        return F.mse_loss(b["return"], chosen)

    return dict(loss=loss, batch=b, kind="fit", critic=q)


def dreamer_critic() -> Arguments:
    """DreamerV3's: the cross-entropy of two-hot symlog bins, and a pull to a slow copy."""
    critic, slow, bins = mlp(STATE, 41), mlp(STATE, 41), torch.linspace(-20, 20, 41)
    b = {"observation": torch.randn(B, STATE), "return": 3 * torch.randn(B)}

    def two_hot(x: Tensor) -> Tensor:
        x = x.sign() * x.abs().add(1).log()
        place = (x - bins[0]) / (bins[1] - bins[0])
        low = place.floor().long().clamp(0, 39)
        up = (place - low)[:, None]
        return F.one_hot(low, 41) * (1 - up) + F.one_hot(low + 1, 41) * up

    def loss(b: dict[str, Tensor]) -> Tensor:
        log = F.log_softmax(critic(b["observation"]), -1)
        total = -(two_hot(b["return"]) * log).sum(-1)
        with torch.no_grad():
            near = F.softmax(slow(b["observation"]), -1)
        return (total - (near * log).sum(-1)).mean()

    return dict(loss=loss, batch=b, kind="fit", critic=critic, target=slow)


def iql_actor() -> Arguments:
    actor, vf, q_target = Gaussian(), mlp(STATE, 1), [Flat(), Flat()]

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            target = torch.min(*(net(b["observation"], b["action"]) for net in q_target))
            adv = target - vf(b["observation"]).squeeze(-1)
        exp_adv = torch.exp(3.0 * adv).clamp(max=100.0)
        bc = -actor(b["observation"]).log_prob(b["action"])
        return torch.mean(exp_adv * bc)

    return dict(loss=loss, batch=batch(), kind="actor", actor=actor, critic=[*q_target, vf])


def awac_actor() -> Arguments:
    actor, critic = Gaussian(), [Q(), Q()]

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            pi_action = actor(b["observation"]).sample()
            v = torch.min(*(net(b["observation"], pi_action) for net in critic))
            q = torch.min(*(net(b["observation"], b["action"]) for net in critic))
            weights = F.softmax((q - v) / 1.0, dim=0) * len(q)
        log_prob = actor(b["observation"]).log_prob(b["action"])
        return (-log_prob * weights.squeeze(-1)).mean()

    return dict(loss=loss, batch=batch(), kind="actor", actor=actor, critic=critic)


def redq_actor(fault: str = "") -> Arguments:
    nets, policy = [Q() for _ in range(5)], Policy()
    log_alpha = torch.tensor([0.0], requires_grad=True)

    def loss(b: dict[str, Tensor]) -> Tensor:
        a, log_prob = policy(b["observation"])
        with torch.set_grad_enabled(fault != "no_grad"):
            ave_q = torch.mean(torch.cat([q(b["observation"], a) for q in nets], 1), 1, True)
        return (log_alpha.exp().detach() * log_prob - ave_q).mean()

    return dict(
        loss=loss, batch=batch(), kind="actor", actor=policy, critic=nets, temperature=log_alpha,
        draw=policy,
    )  # fmt: skip


def mpo_policy() -> Arguments:
    """The M step: log π of 16 actions a state, weighed by softmax(Q / η) over them, and KL."""
    actor, q_target, n, eta = Gaussian(), Q(), 16, 0.5
    target_actor = copy.deepcopy(actor)

    def loss(b: dict[str, Tensor]) -> Tensor:
        s = b["observation"]
        with torch.no_grad():
            old = target_actor(s)
            a = old.sample((n,))
            q = q_target(s.expand(n, *s.shape), a).squeeze(-1)
            weights = torch.softmax(q / eta, dim=0)
        pi = actor(s)
        kl = torch.distributions.kl_divergence(old, pi).mean()
        return -(weights * pi.log_prob(a)).sum(0).mean() + 0.1 * kl

    return dict(loss=loss, batch=batch(), kind="actor", actor=actor, critic=q_target)


def vmpo() -> Arguments:
    """The better half, weighed by a softmax of its advantages."""
    agent = Agent()
    b = recorded(agent, 40)

    def loss(b: dict[str, Tensor]) -> Tensor:
        top, at = torch.topk(b["advantage"], len(b["advantage"]) // 2)
        weights = torch.softmax(top / 1.0, 0)
        return -(weights * agent.log_prob(b)[at]).sum()

    return dict(
        loss=loss, batch=b, kind="policy", actor=agent, log_prob=agent.log_prob, monotone=True,
    )  # fmt: skip


def impala(fault: str = "") -> Arguments:
    """V-trace inside, batches [T, B], sums in the place of means, the value loss beside."""
    agent = Agent(discrete=True)
    T, E = 10, 4
    b = {
        "observation": torch.randn(T + 1, E, STATE), "action": torch.randint(3, (T, E)),
        "reward": torch.randn(T, E), "done": (torch.rand(T, E) < 0.1).float(),
        "behaviour": torch.randn(T, E, 3),
    }  # fmt: skip

    def loss(b: dict[str, Tensor]) -> Tensor:
        logits, value = agent.actor(b["observation"][:-1]), agent.critic(b["observation"])[..., 0]
        policy = Categorical(logits=logits)
        log_pi = policy.log_prob(b["action"])
        with torch.no_grad():
            log_mu = Categorical(logits=b["behaviour"]).log_prob(b["action"])
            rho = (log_pi - log_mu).exp().clamp(max=1.0)
            discounts = GAMMA * (1 - b["done"])
            deltas = rho * (b["reward"] + discounts * value[1:] - value[:-1])
            acc, found = torch.zeros(E), []
            for t in reversed(range(T)):
                acc = deltas[t] + discounts[t] * rho[t] * acc
                found.append(acc)
            vs = torch.stack(found[::-1]) + value[:-1]
            after = torch.cat([vs[1:], value[-1:]])
            pg = rho * (b["reward"] + discounts * after - value[:-1])
        entropy = policy.entropy().sum()
        return -(log_pi * pg).sum() + 0.5 * 0.5 * (vs - value[:-1]).pow(2).sum() - 0.01 * entropy

    return dict(loss=loss, batch=b, kind="actor", actor=agent.actor, critic=agent.critic)


class Atari(nn.Module):
    """CleanRL's agent for Atari: one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(STATE, 32), nn.ReLU())
        self.actor, self.critic = nn.Linear(32, 3), nn.Linear(32, 1)

    def get_action_and_value(self, x: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        hidden = self.network(x)
        probs = Categorical(logits=self.actor(hidden))
        return action, probs.log_prob(action), probs.entropy(), self.critic(hidden)


def ppo_cleanrl(fault: str = "") -> Arguments:
    agent = Atari()
    b = recorded(Agent(discrete=True))

    def loss(b: dict[str, Tensor]) -> Tensor:
        out = agent.get_action_and_value(b["observation"], b["action"].long())
        _, newlogprob, entropy, newvalue = out
        logratio = newlogprob - b["old_log_prob"]
        ratio = logratio if fault == "log" else logratio.exp()
        adv = b["advantage"]
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        pg_loss = torch.max(-adv * ratio, -adv * torch.clamp(ratio, 0.8, 1.2)).mean()
        newvalue = newvalue.view(-1)
        target = b["advantage"] if fault == "value" else b["return"]
        unclipped = (newvalue - target) ** 2
        v_clipped = b["value"] + torch.clamp(newvalue - b["value"], -0.2, 0.2)
        v_loss = 0.5 * torch.max(unclipped, (v_clipped - target) ** 2).mean()
        return pg_loss - 0.01 * entropy.mean() + v_loss * 0.5

    of = lambda k: lambda b: agent.get_action_and_value(b["observation"], b["action"].long())[k]  # noqa: E731
    return dict(
        loss=loss, batch=b, kind="policy", actor=agent, critic=agent.critic, log_prob=of(1),
        entropy=of(2), clip=0.2,
    )  # fmt: skip


class Language(nn.Module):
    """A policy of tokens: logits of the next one."""

    def __init__(self, vocabulary: int = 7) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, 16), nn.Linear(16, vocabulary)
        self.cell = nn.GRU(16, 16, batch_first=True)

    def log_probs(self, ids: Tensor) -> Tensor:
        """[B, T]"""
        hidden, _ = self.cell(self.embedding(F.pad(ids[:, :-1], (1, 0))))
        log = torch.log_softmax(self.head(hidden), -1)
        return log.gather(2, ids[:, :, None]).squeeze(2)


def completions(model: Language) -> dict[str, Tensor]:
    ids = torch.randint(7, (16, 6))
    lengths = torch.randint(3, 7, (16, 1))
    b = {"completion_ids": ids, "advantage": torch.randn(16)}
    b["completion_mask"] = (torch.arange(6)[None] < lengths).float()
    with torch.no_grad():
        b["old_log_prob"] = model.log_probs(ids)
    return b


def grpo(fault: str = "") -> Arguments:
    """TRL's: ratios by token, an advantage for each completion, the mean over its tokens."""
    model = Language()
    reference = copy.deepcopy(model)

    def loss(b: dict[str, Tensor]) -> Tensor:
        log_pi, mask, adv = model.log_probs(b["completion_ids"]), b["completion_mask"], \
            b["advantage"]  # fmt: skip
        with torch.no_grad():
            ref = reference.log_probs(b["completion_ids"])
        kl = torch.exp(ref - log_pi) - (ref - log_pi) - 1
        coef_1 = torch.exp(log_pi - b["old_log_prob"])
        coef_2 = torch.clamp(coef_1, 0.8, 1.2)
        sign = -1 if fault == "sign" else 1
        token = -torch.min(coef_1 * sign * adv[:, None], coef_2 * sign * adv[:, None])
        token = token + 0.04 * kl
        return ((token * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()

    return of_tokens(loss, model)


def of_tokens(loss: Callable[..., Any], model: Language) -> Arguments:
    return dict(
        loss=loss, batch=completions(model), kind="policy", actor=model, clip=0.2,
        log_prob=lambda b: model.log_probs(b["completion_ids"]),
        columns={"mask": "completion_mask"},
    )  # fmt: skip


# The second set: looked at once, after the first has been mended.


def sac_spinningup(fault: str = "") -> Arguments:
    q1, q2, t1, t2, pi = Flat(), Flat(), Flat(), Flat(), Policy()
    if fault == "unsqueezed":
        q1, q2, t1, t2 = Q(), Q(), Q(), Q()
    b = batch()
    data = dict(
        obs=b["observation"], act=b["action"], rew=b["reward"][:, 0], obs2=b["next_observation"],
        done=b["terminated"][:, 0],
    )  # fmt: skip

    def loss(data: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        o, a, r, o2, d = (data[k] for k in ("obs", "act", "rew", "obs2", "done"))
        v1, v2 = q1(o, a), q2(o, a)
        with torch.no_grad():
            a2, logp_a2 = pi(o2)
            q_pi_targ = torch.min(t1(o2, a2), t2(o2, a2))
            backup = r + GAMMA * (1 - d) * (q_pi_targ - 0.2 * logp_a2.sum(-1))
        loss_q = ((v1 - backup) ** 2).mean() + ((v2 - backup) ** 2).mean()
        return loss_q, dict(Q1Vals=v1.detach().numpy(), Q2Vals=v2.detach().numpy())

    names = {"observation": "obs", "action": "act", "reward": "rew", "next_observation": "obs2",
             "terminated": "done"}  # fmt: skip
    return dict(
        loss=loss, batch=data, kind="critic", critic=[q1, q2], target=[t1, t2], actor=pi,
        discount=GAMMA, columns=names,
    )  # fmt: skip


def droq() -> Arguments:
    """Dropout and layer norms in training mode, in critics and targets."""

    def net() -> nn.Module:
        return Q(nn.Dropout(0.01), nn.LayerNorm(32))

    critic, target, actor = [net(), net()], [net(), net()], Policy()
    log_alpha = torch.zeros(1, requires_grad=True)

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            a2, log_pi = actor(b["next_observation"])
            v = torch.min(*(net(b["next_observation"], a2) for net in target))
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * (v - log_alpha.exp() * log_pi)
        return sum(F.mse_loss(net(b["observation"], b["action"]), y) for net in critic)

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=critic, target=target, actor=actor,
        discount=GAMMA, temperature=log_alpha, draw=actor,
    )  # fmt: skip


def edac() -> Arguments:
    """SAC-N and a penalty of alike action gradients of the members, in one sum."""
    critic, target, actor, n = Ensemble(4), Ensemble(4), Policy(), 4

    def loss(b: dict[str, Tensor]) -> Tensor:
        s, a = b["observation"], b["action"]
        with torch.no_grad():
            next_action, log_prob = actor(b["next_observation"])
            q_next = target(b["next_observation"], next_action).min(0).values
            q_next = (q_next - 0.2 * log_prob.squeeze(-1))[:, None]
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * q_next
        td = ((critic(s, a) - y.view(1, -1)) ** 2).mean(dim=1).sum(dim=0)
        s, a = (x.unsqueeze(0).repeat_interleave(n, 0) for x in (s, a))
        a = a.detach().clone().requires_grad_()
        wide = torch.cat([s, a], -1)
        value = (torch.tanh(wide @ critic.one) @ critic.two).squeeze(-1).sum()
        slope = torch.autograd.grad(value, a, create_graph=True)[0]
        slope = (slope / (slope.norm(p=2, dim=2, keepdim=True) + 1e-10)).transpose(0, 1)
        alike = (slope @ slope.permute(0, 2, 1)) * (1 - torch.eye(n))
        return td + 1.0 * alike.sum(dim=(1, 2)).mean() / (n - 1)

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=critic, target=target, actor=actor,
        discount=GAMMA,
    )  # fmt: skip


def td7() -> Arguments:
    """Both twins in one output [B, 2], targets kept in the range seen so far, LAP's Huber."""

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q1, self.q2 = mlp(STATE + ACTION, 1), mlp(STATE + ACTION, 1)

        def forward(self, s: Tensor, a: Tensor) -> Tensor:
            sa = torch.cat([s, a], 1)
            return torch.cat([self.q1(sa), self.q2(sa)], 1)

    critic, target, actor_target = Twins(), Twins(), Deterministic()

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            noise = (torch.randn_like(b["action"]) * 0.2).clamp(-0.5, 0.5)
            a2 = (actor_target(b["next_observation"]) + noise).clamp(-1, 1)
            q = target(b["next_observation"], a2).min(1, keepdim=True)[0]
            y = b["reward"] + (1 - b["terminated"]) * GAMMA * q.clamp(-100, 100)
        error = (critic(b["observation"], b["action"]) - y).abs()
        return torch.where(error < 1.0, 0.5 * error.pow(2), error).sum(1).mean()

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=critic, target=target,
        target_actor=actor_target, discount=GAMMA,
    )  # fmt: skip


def iqn(fault: str = "") -> Arguments:
    """Quantiles at drawn fractions, [B, N, actions]."""

    class Implicit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.cosine = nn.Linear(STATE, 32), nn.Linear(8, 32)
            self.head = nn.Linear(32, 4)

        def forward(self, s: Tensor, tau: Tensor) -> Tensor:
            angles = torch.cos(torch.pi * torch.arange(1, 9) * tau[:, :, None])
            out: Tensor = self.head(torch.relu(self.body(s))[:, None] * self.cosine(angles).relu())
            return out

    q, target = Implicit(), Implicit()

    def loss(b: dict[str, Tensor]) -> Tensor:
        rows = len(b["reward"])
        tau, tau2 = torch.rand(rows, 8), torch.rand(rows, 6)
        at = b["action"][:, None].expand(-1, 8, 1)
        z = q(b["observation"], tau).gather(2, at)
        with torch.no_grad():
            following = target(b["next_observation"], tau2)
            best = following.mean(1).argmax(1)[:, None, None].expand(-1, 6, 1)
            v = following.gather(2, best).squeeze(2)
            mask = 1.0 if fault == "no mask" else 1 - b["terminated"]
            y = (b["reward"] + GAMMA * mask * v)[:, None]
        u = y - z
        huber = torch.where(u.abs() <= 1, 0.5 * u.pow(2), u.abs() - 0.5)
        weight = (tau[:, :, None] - (u.detach() < 0).float()).abs()
        return (weight * huber).sum(1).mean(1).mean()

    return dict(
        loss=loss, batch=discrete(), kind="critic", critic=q, target=target, discount=GAMMA,
    )  # fmt: skip


def drqv2(fault: str = "") -> Arguments:
    """Images that are shifted at random, one encoder for both, n steps with their own discount."""
    encoder = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, STATE))
    critic, target, actor, b = [Q(), Q()], [Q(), Q()], Deterministic(), batch()
    b["observation"], b["next_observation"] = torch.randn(B, 2, 8, 8), torch.randn(B, 2, 8, 8)
    b["discount"] = GAMMA ** (1.0 + torch.arange(B) % 3)[:, None] * (1 - b.pop("terminated"))

    def shifted(x: Tensor) -> Tensor:
        by = int(torch.randint(-1, 2, ()))
        return F.pad(x, (1, 1, 1, 1), "replicate")[:, :, 1 + by : 9 + by, 1:9]

    def loss(b: dict[str, Tensor]) -> Tensor:
        obs = encoder(shifted(b["observation"]))
        with torch.no_grad():
            next_obs = encoder(shifted(b["next_observation"]))
            mean = actor(next_obs)
            a2 = (mean + (0.2 * torch.randn_like(mean)).clamp(-0.3, 0.3)).clamp(-1, 1)
            v = torch.min(*(net(next_obs, a2) for net in target))
            twice = GAMMA if fault == "twice" else 1.0
            target_q = b["reward"] + twice * b["discount"] * v
        return sum(F.mse_loss(net(obs, b["action"]), target_q) for net in critic)

    return dict(
        loss=loss, batch=b, kind="critic", critic=critic, target=target, actor=actor,
    )  # fmt: skip


def mpo_critic() -> Arguments:
    """The mean of the target over 8 actions of the target policy."""
    q, target, target_actor, n = Q(), Q(), Gaussian(), 8

    def loss(b: dict[str, Tensor]) -> Tensor:
        s2 = b["next_observation"]
        with torch.no_grad():
            a2 = target_actor(s2).sample((n,))
            v = target(s2[None].expand(n, -1, -1), a2).mean(0)
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * v
        return F.mse_loss(q(b["observation"], b["action"]), y)

    return dict(
        loss=loss, batch=batch(), kind="critic", critic=q, target=target, target_actor=target_actor,
        discount=GAMMA,
    )  # fmt: skip


def xql() -> Arguments:
    """Gumbel regression, exp(z) − z − 1, with its guard."""
    vf, q_target = mlp(STATE, 1), [Flat(), Flat()]

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            q = torch.min(*(net(b["observation"], b["action"]) for net in q_target))
        z = ((q - vf(b["observation"]).squeeze(-1)) / 1.0).clamp(max=7.0)
        top = z.max().clamp(min=-1.0).detach()
        return ((z - top).exp() - z * (-top).exp() - (-top).exp()).mean()

    return dict(loss=loss, batch=batch(), kind="fit", critic=vf, target=q_target)


def ppg() -> Arguments:
    """The auxiliary phase: two values and a KL to the old policy."""
    agent, auxiliary = Agent(discrete=True), mlp(STATE, 1)
    b = recorded(agent)
    b = {"observation": b["observation"], "return": b["return"], "logits": torch.randn(32, 3)}

    def loss(b: dict[str, Tensor]) -> Tensor:
        pi = agent.policy(b["observation"])
        kl = torch.distributions.kl_divergence(Categorical(logits=b["logits"]), pi).mean()
        value = agent.critic(b["observation"]).view(-1)
        aux = auxiliary(b["observation"]).view(-1)
        real = 0.5 * ((value - b["return"]) ** 2).mean()
        return kl + real + 0.5 * ((aux - b["return"]) ** 2).mean()

    return dict(loss=loss, batch=b, kind="fit", critic=[agent.critic, auxiliary], actor=agent.actor)


def her_actor() -> Arguments:
    """Baselines' DDPG: a penalty of large actions."""
    actor, q = Deterministic(), Q()

    def loss(b: dict[str, Tensor]) -> Tensor:
        pi = actor(b["observation"])
        return -q(b["observation"], pi).mean() + 1.0 * (pi / 1.0).pow(2).mean()

    return dict(loss=loss, batch=batch(), kind="actor", actor=actor, critic=q)


def bcq_actor() -> Arguments:
    """A perturbation of a decoder's actions."""

    class Perturbation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(STATE + ACTION, ACTION)

        def forward(self, s: Tensor, a: Tensor) -> Tensor:
            return (a + 0.05 * torch.tanh(self.net(torch.cat([s, a], 1)))).clamp(-1, 1)

    actor, decoder, q = Perturbation(), Deterministic(), Q()

    def loss(b: dict[str, Tensor]) -> Tensor:
        sampled = decoder(b["observation"])
        return -q(b["observation"], actor(b["observation"], sampled)).mean()

    return dict(loss=loss, batch=batch(), kind="actor", actor=actor, critic=q)


def crossq_actor() -> Arguments:
    """Batch norms, of which the critics' are put in evaluation mode by the loss."""
    actor, critics = Policy(), [Q(nn.BatchNorm1d(32)), Q(nn.BatchNorm1d(32))]
    log_alpha = torch.tensor(0.0, requires_grad=True)

    def loss(b: dict[str, Tensor]) -> Tensor:
        a, log_pi = actor(b["observation"])
        for net in critics:
            net.train(False)
        q = torch.min(*(net(b["observation"], a) for net in critics))
        for net in critics:
            net.train(True)
        return (log_alpha.exp().detach() * log_pi - q).mean()

    return dict(
        loss=loss, batch=batch(), kind="actor", actor=actor, critic=critics, draw=actor,
        temperature=log_alpha,
    )  # fmt: skip


def tqc_actor() -> Arguments:
    """The mean over all quantiles of all critics."""
    critic, actor = Quantiles(), Policy()
    log_alpha = torch.tensor([-0.5], requires_grad=True)

    def loss(b: dict[str, Tensor]) -> Tensor:
        new_action, log_pi = actor(b["observation"])
        value = critic(b["observation"], new_action).mean(2).mean(1, keepdim=True)
        return (torch.exp(log_alpha).detach() * log_pi - value).mean()

    return dict(
        loss=loss, batch=batch(), kind="actor", actor=actor, critic=critic, draw=actor,
        temperature=log_alpha,
    )  # fmt: skip


def ppo_spinningup() -> Arguments:
    agent = Agent()
    b = recorded(agent)
    data = dict(obs=b["observation"], act=b["action"], adv=b["advantage"], logp=b["old_log_prob"])

    def loss(data: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        pi = agent.policy(data["obs"])
        logp = pi.log_prob(data["act"]).sum(axis=-1)
        ratio = torch.exp(logp - data["logp"])
        clip_adv = torch.clamp(ratio, 0.8, 1.2) * data["adv"]
        loss_pi = -(torch.min(ratio * data["adv"], clip_adv)).mean()
        approx_kl = (data["logp"] - logp).mean().item()
        return loss_pi, dict(kl=approx_kl, ent=pi.entropy().mean().item())

    log_prob = lambda data: agent.policy(data["obs"]).log_prob(data["act"]).sum(-1)  # noqa: E731
    names = {"observation": "obs", "action": "act", "advantage": "adv", "old_log_prob": "logp"}
    return dict(
        loss=loss, batch=data, kind="policy", actor=agent.actor, log_prob=log_prob, clip=0.2,
        columns=names,
    )  # fmt: skip


def a2c_sb3() -> Arguments:
    agent = Agent()
    b = recorded(agent)
    del b["old_log_prob"]

    def loss(data: dict[str, Tensor]) -> Tensor:
        values = agent.critic(data["observation"]).flatten()
        advantages = data["advantage"]
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = -(advantages * agent.log_prob(data)).mean()
        value_loss = F.mse_loss(data["return"], values)
        return policy_loss + 0.01 * -torch.mean(agent.entropy(data)) + 0.5 * value_loss

    return dict(
        loss=loss, batch=b, kind="policy", actor=agent, critic=agent.critic,
        log_prob=agent.log_prob, entropy=agent.entropy,
    )  # fmt: skip


def gspo() -> Arguments:
    """TRL's at the level of sequences: one ratio of a completion, of its mean log ratio."""
    model = Language()

    def loss(b: dict[str, Tensor]) -> Tensor:
        mask = b["completion_mask"]
        log_ratio = model.log_probs(b["completion_ids"]) - b["old_log_prob"]
        mean = (log_ratio * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)
        coef = torch.exp(mean)[:, None]
        a = b["advantage"][:, None]
        token = -torch.min(coef * a, torch.clamp(coef, 0.8, 1.2) * a)
        return ((token * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()

    return of_tokens(loss, model)


def c51_atari(fault: str = "") -> Arguments:
    """CleanRL's: the loss as a whole [B, actions, atoms], γ on the support."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(STATE, 4 * 21)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).view(len(x), 4, 21)

    q, target = Network(), Network()
    atoms = torch.linspace(-10, 10, 21)
    gamma = {"squared": GAMMA**2, "typo": 0.9, "left out": 1.0}.get(fault, GAMMA)

    def loss(b: dict[str, Tensor]) -> Tensor:
        rows = torch.arange(len(b["reward"]))
        with torch.no_grad():
            pmfs = torch.softmax(target(b["next_observation"]), 2)
            best = (pmfs * atoms).sum(2).argmax(1)
            next_pmfs = pmfs[rows, best]
            next_atoms = b["reward"] + gamma * atoms * (1 - b["terminated"])
            place = (next_atoms.clamp(-10, 10) + 10) / 1.0
            low, up = place.floor().clamp(0, 20), place.ceil().clamp(0, 20)
            d_m_l = (up + (low == up).float() - place) * next_pmfs
            d_m_u = (place - low) * next_pmfs
            m = torch.zeros_like(next_pmfs)
            for i in range(len(m)):
                m[i].index_add_(0, low[i].long(), d_m_l[i])
                m[i].index_add_(0, up[i].long(), d_m_u[i])
        old = torch.softmax(q(b["observation"]), 2)[rows, b["action"][:, 0]]
        return -(m * old.clamp(1e-5, 1 - 1e-5).log()).sum(-1).mean()

    return dict(
        loss=loss, batch=discrete(), kind="critic", critic=q, target=target, discount=GAMMA,
    )  # fmt: skip


def double_dqn(fault: str = "") -> Arguments:
    q, target = mlp(STATE, 4), mlp(STATE, 4)

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            chooser = target if fault == "target's argmax" else q
            best = chooser(b["next_observation"]).argmax(1, keepdim=True)
            if fault == "target's argmax":
                q(b["next_observation"])
            v = target(b["next_observation"]).gather(1, best)
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * v
        return F.smooth_l1_loss(q(b["observation"]).gather(1, b["action"]), y)

    return dict(
        loss=loss, batch=discrete(), kind="critic", critic=q, target=target, discount=GAMMA,
    )  # fmt: skip


def per_twice() -> Arguments:
    """The weights of priorities are applied to the error before it is squared."""
    q, target, b = mlp(STATE, 4), mlp(STATE, 4), discrete()
    b["weight"] = torch.linspace(0.2, 1, B)[:, None]

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            v = target(b["next_observation"]).amax(1, keepdim=True)
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * v
        return ((b["weight"] * (q(b["observation"]).gather(1, b["action"]) - y)) ** 2).mean()

    return dict(loss=loss, batch=b, kind="critic", critic=q, target=target, discount=GAMMA)


def gae_same_value() -> Arguments:
    """δ with V of the same step in the place of the next."""

    def gae(r: Tensor, v: Tensor, ended: Tensor, last: Tensor, final: Tensor) -> Tensor:
        found, acc = torch.zeros_like(r), torch.zeros_like(last)
        for t in reversed(range(len(r))):
            delta = r[t] + 0.97 * ((1 - ended[t]) * v[t] + final[t]) - v[t]
            acc = delta + 0.97 * 0.9 * (1 - ended[t]) * acc
            found[t] = acc
        return found

    return dict(loss=gae, kind="gae", discount=0.97, trace=0.9)


P = functools.partial
SOUND: tuple[tuple[str, Callable[[], Arguments]], ...] = (
    ("vwxyzjn/cleanrl, ddpg_continuous_action.py", ddpg_cleanrl),
    ("DLR-RM/stable-baselines3, sac.py", sac_sb3),
    ("sfujim/TD3, TD3.py", td3_fujimoto),
    ("watchernyu/REDQ, redq_sac.py", redq),
    ("SamsungLabs/tqc_pytorch, trainer.py", tqc),
    ("tinkoff-ai/CORL, sac_n.py", sac_n),
    ("tinkoff-ai/CORL, cql.py", cql_corl),
    ("gwthomas/IQL-PyTorch, iql.py: Q", iql_q),
    ("sfujim/BCQ, BCQ.py: critic", bcq),
    ("tinkoff-ai/ReBRAC: critic", rebrac),
    ("Kapturowski 2019 (R2D2)", r2d2),
    ("Vieillard 2007.14430 (Munchausen)", munchausen),
    ("vwxyzjn/cleanrl, sac_atari.py", sac_discrete),
    ("oxwhirl/pymarl, q_learner.py (QMIX)", qmix),
    ("gwthomas/IQL-PyTorch, iql.py: V", iql_v),
    ("vwxyzjn/cleanrl, pqn.py", pqn),
    ("danijar/dreamerv3: critic", dreamer_critic),
    ("gwthomas/IQL-PyTorch, iql.py: actor", iql_actor),
    ("tinkoff-ai/CORL, awac.py: actor", awac_actor),
    ("watchernyu/REDQ: actor", redq_actor),
    ("Abdolmaleki 1806.06920 (MPO): M step", mpo_policy),
    ("Song 1909.12238 (V-MPO)", vmpo),
    ("facebookresearch/torchbeast, monobeast.py", impala),
    ("vwxyzjn/cleanrl, ppo_atari.py", ppo_cleanrl),
    ("huggingface/trl, grpo_trainer.py", grpo),
)  # fmt: skip
SECOND: tuple[tuple[str, Callable[[], Arguments]], ...] = (
    ("openai/spinningup, sac.py: Q", sac_spinningup),
    ("Hiraoka 2110.02034 (DroQ)", droq),
    ("tinkoff-ai/CORL, edac.py", edac),
    ("sfujim/TD7, TD7.py", td7),
    ("Dabney 1806.06923 (IQN)", iqn),
    ("facebookresearch/drqv2, drqv2.py", drqv2),
    ("Abdolmaleki 1806.06920 (MPO): critic", mpo_critic),
    ("Div99/XQL: V", xql),
    ("openai/phasic-policy-gradient: auxiliary", ppg),
    ("openai/baselines, her/ddpg.py: actor", her_actor),
    ("sfujim/BCQ, BCQ.py: actor", bcq_actor),
    ("adityab/CrossQ: actor", crossq_actor),
    ("SamsungLabs/tqc_pytorch: actor", tqc_actor),
    ("openai/spinningup, ppo.py", ppo_spinningup),
    ("DLR-RM/stable-baselines3, a2c.py", a2c_sb3),
    ("huggingface/trl: GSPO", gspo),
)  # fmt: skip
# Not seen: a double DQN that takes its target's argmax is a DQN; which quantiles, and along which
# axis; numbers of bins.
OUTSIDE: tuple[tuple[str, Callable[[], Arguments]], ...] = (
    ("double DQN: the target's argmax", P(double_dqn, "target's argmax")),
    ("TQC: the largest quantiles are kept", P(tqc, "top")),
    ("TQC: τ along the targets", P(tqc, "axis")),
    ("C51: γ²", P(c51_atari, "squared")),
)
FAULTS: tuple[tuple[str, Callable[[], Arguments], str], ...] = (
    ("TD3: γ (r + v)", P(td3_fujimoto, "gamma on reward"), "critic.reward"),
    ("discrete SAC: log α for α", P(sac_discrete, "log α"), "critic.entropy"),
    ("DrQ-v2: γ times the discount", P(drqv2, "twice"), "critic.discount"),
    ("PPO: log of the ratio", P(ppo_cleanrl, "log"), "policy."),
    ("PPO: values fitted to advantages", P(ppo_cleanrl, "value"), "policy.value"),
    ("Spinning Up: values not squeezed", P(sac_spinningup, "unsqueezed"), "critic.rows"),
    ("PER: weights squared", per_twice, "critic.weights"),
    ("GAE: V of the same step", gae_same_value, "gae."),
    ("REDQ: actor without gradients of Q", P(redq_actor, "no_grad"), "actor."),
    ("REDQ: online critics as targets", P(redq, "online"), "critic.targets"),
    ("QMIX: mixed at the same state", P(qmix, "state"), "critic.next_value"),
)  # fmt: skip
