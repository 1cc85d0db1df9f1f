"""Losses as published code has them, and one fault planted in each: rows of tables for the tests.

SOUND     (name, make)           make() → arguments of `gradlab.audit`; no law may be broken
FAULTS    (name, make, codes)    one of the codes has to be the first that is broken
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

STATE, ACTION, GAMMA = 3, 2, 0.98


def mlp(inputs: int, outputs: int, width: int = 32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


class Q(nn.Module):
    def __init__(self, *more: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(STATE + ACTION, 32), *more, nn.Tanh(), nn.Linear(32, 1))

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        value: Tensor = self.net(torch.cat([s, a], -1))
        return value


class Policy(nn.Module):
    """(action, log π) of a squashed Gaussian."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.net, self.fault = mlp(STATE, 2 * ACTION), fault

    def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.net(s).chunk(2, -1)
        normal = Normal(mean, (torch.tanh(raw) - 1).exp())
        u = normal.rsample()
        a = torch.tanh(u)
        log_pi = normal.log_prob(u)
        if self.fault != "uncorrected":
            log_pi = log_pi - torch.log(1 - a.pow(2) + 1e-6)
        if self.fault == "added":
            log_pi = log_pi + 2 * torch.log(1 - a.pow(2) + 1e-6)
        if self.fault == "averaged":
            return a, log_pi.mean(-1, keepdim=True)
        return (a, log_pi) if self.fault == "unsummed" else (a, log_pi.sum(-1, keepdim=True))


def batch(rows: int = 48, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).to(dtype)

    return {
        "observation": normal(rows, STATE),
        "action": torch.tanh(normal(rows, ACTION)),
        "reward": normal(rows, 1),
        "next_observation": normal(rows, STATE),
        "terminated": (torch.rand(rows, 1, generator=g) < 0.2).to(dtype),
        "truncated": (torch.rand(rows, 1, generator=g) < 0.2).to(dtype),
    }


Arguments = dict[str, Any]


def td(fault: str = "", error: Callable[..., Tensor] = F.mse_loss, **changes: Any) -> Arguments:
    """TD3's and SAC's critics with a switch for every fault."""
    q, targets = [Q(), Q()], [Q(), Q()]
    policy = Policy()
    log_alpha = torch.tensor(-1.0, requires_grad=True)
    entropy = changes.pop("entropy", 0.0)
    means = torch.tensor([0.5, -0.5, 0.2])

    def loss(b: dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        s, s2, r, d = (b[k] for k in ("observation", "next_observation", "reward", "terminated"))
        if fault == "time_limit":
            d = torch.maximum(d, b["truncated"])
        with torch.set_grad_enabled(fault == "undetached"):
            a2, log_pi = policy(s2)
            if fault == "noise_after_clip":
                a2 = a2 + 0.5 * torch.randn_like(a2)
            nets = q if fault == "online" else targets
            x2 = (s2 - means) * 3 if fault == "normalised_one" else s2
            if fault in ("stored_state", "stored_action"):
                x2, a2 = (s, a2) if fault == "stored_state" else (s2, b["action"])
            values = torch.cat([net(x2, a2) for net in nets], 1)
            v = values.amin(1, keepdim=True)
            if fault == "largest":
                v = values.amax(1, keepdim=True)
            if fault == "batch_least":
                v = values.min().expand(len(s), 1)
            alpha = log_alpha.exp() * entropy
            if fault not in ("no_entropy", "entropy_ends"):
                v = v + alpha * log_pi * (1 if fault == "entropy_sign" else -1)
            gamma = {"squared": GAMMA**2, "left_out": 1.0, "typo": 0.9}.get(fault, GAMMA)
            mask = {"no_mask": torch.ones_like(d), "inverted": d}.get(fault, 1 - d)
            reward = {"negated": -r, "lost": 0 * r, "reward_masked": r * (1 - d)}.get(fault, r)
            if fault == "clipped_reward":
                reward = r.clamp(-0.5, 0.5)
            if fault == "standardised":
                reward = (r - r.mean()) / (r.std() + 1e-6)
            y = reward + gamma * mask * v
            if fault == "entropy_ends":
                y = y - alpha * log_pi
        if fault == "flat":
            y = y.squeeze(1)
        if fault == "other_row":
            y = y.roll(1, 0)
        fitted = q[:1] if fault == "one_twin" else q
        if fault == "fitted_at_other":
            b = {**b, "action": b["action"].flip(0)}
        if fault == "weights":
            w = torch.linspace(0.1, 2, len(s))[:, None]
            return sum((w * error(net(s, b["action"]), y, reduction="none")).mean() for net in q)
        total = sum(error(net(s, b["action"]), y) for net in fitted)
        total = -total if fault == "maximised" else total
        return total if isinstance(total, Tensor) else torch.zeros(())

    declared = dict(
        critic=q, target=targets, actor=policy, discount=GAMMA, kind="critic",
    )  # fmt: skip
    if entropy:
        declared |= dict(temperature=log_alpha, draw=policy)
    return dict(loss=loss, batch=batch()) | declared | changes


def dqn(fault: str = "", double: bool = False) -> Arguments:
    q, target, b = mlp(STATE, 4), mlp(STATE, 4), batch()
    b["action"] = torch.arange(48)[:, None] % 4

    def loss(b: dict[str, Tensor]) -> Tensor:
        d = 0 if fault == "no_mask" else b["terminated"]
        with torch.no_grad():
            values = target(b["next_observation"])
            best = q(b["next_observation"]).argmax(1, keepdim=True)
            v = values.gather(1, best) if double else values.amax(1, keepdim=True)
            if fault == "flat":
                v = v.squeeze(1)
            y = b["reward"] + (GAMMA**2 if fault == "squared" else GAMMA) * (1 - d) * v
        return F.smooth_l1_loss(q(b["observation"]).gather(1, b["action"]), y)

    return dict(loss=loss, batch=b, critic=q, target=target, discount=GAMMA, kind="critic")


def quantile(fault: str = "") -> Arguments:
    """TQC / QR: 8 quantiles of (s, a)."""
    q, target, policy = mlp(STATE + ACTION, 8), mlp(STATE + ACTION, 8), Policy()
    tau = (torch.arange(8) + 0.5) / 8

    def loss(b: dict[str, Tensor]) -> Tensor:
        d = 0 if fault == "no_mask" else b["terminated"]
        with torch.no_grad():
            a2, _ = policy(b["next_observation"])
            z2 = target(torch.cat([b["next_observation"], a2], 1))
            y = b["reward"] + (0.9 if fault == "typo" else GAMMA) * (1 - d) * z2
        z = q(torch.cat([b["observation"], b["action"]], 1))
        u = y[:, None, :] - z[:, :, None]
        huber = F.smooth_l1_loss(u, torch.zeros_like(u), reduction="none")
        return ((tau[None, :, None] - (u.detach() < 0).float()).abs() * huber).sum(1).mean()

    return dict(
        loss=loss, batch=batch(), critic=q, target=target, actor=policy, discount=GAMMA,
        kind="critic",
    )  # fmt: skip


def c51(fault: str = "") -> Arguments:
    q, target = mlp(STATE, 11), mlp(STATE, 11)
    support = torch.linspace(-5, 5, 11)

    def loss(b: dict[str, Tensor]) -> Tensor:
        d = 0 if fault == "no_mask" else b["terminated"]
        with torch.no_grad():
            p = torch.softmax(3 * target(b["next_observation"]), 1)
            y = (b["reward"] + GAMMA * (1 - d) * support).clamp(-5, 5)
            place = y + 5
            low, high = place.floor().long(), place.ceil().long()
            m = torch.zeros_like(p)
            m.scatter_add_(1, low, p * (high.float() - place + (low == high).float()))
            m.scatter_add_(1, high, p * (place - low.float()))
        return -(m * torch.log_softmax(q(b["observation"]), 1)).sum(1).mean()

    return dict(loss=loss, batch=batch(), critic=q, target=target, discount=GAMMA, kind="critic")


def n_step(fault: str = "") -> Arguments:
    """A row's γⁿ is a column."""
    q, target, policy, b = Q(), Q(), Policy(), batch()
    b["discount"] = GAMMA ** (1.0 + torch.arange(48) % 3)[:, None]

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            v = target(b["next_observation"], policy(b["next_observation"])[0])
            gamma = GAMMA if fault == "one_step" else b["discount"]
            y = b["reward"] + gamma * (1 - b["terminated"]) * v
        return F.mse_loss(q(b["observation"], b["action"]), y)

    return dict(loss=loss, batch=b, critic=q, target=target, actor=policy, kind="critic")


def cql(terms: bool = True) -> Arguments:
    q, target, policy = Q(), Q(), Policy()

    def loss(b: dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        s = b["observation"]
        with torch.no_grad():
            v = target(b["next_observation"], policy(b["next_observation"])[0])
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * v
        value = q(s, b["action"])
        others = torch.cat([q(s, torch.rand_like(b["action"]) * 2 - 1) for _ in range(4)], 1)
        parts = {
            "td": F.mse_loss(value, y),
            "conservative": (torch.logsumexp(others, 1) - value[:, 0]).mean(),
        }
        return parts if terms else parts["td"] + 5 * parts["conservative"]

    return dict(
        loss=loss, batch=batch(), critic=q, target=target, actor=policy, discount=GAMMA,
        kind="critic",
    )  # fmt: skip


def crossq() -> Arguments:
    """(s, a) and (s', a') in one pass through BatchNorm, no target network."""
    q, policy = Q(nn.BatchNorm1d(32)), Policy()

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            a2, _ = policy(b["next_observation"])
        s = torch.cat([b["observation"], b["next_observation"]])
        value, following = q(s, torch.cat([b["action"], a2])).chunk(2)
        y = b["reward"] + GAMMA * (1 - b["terminated"]) * following.detach()
        return F.mse_loss(value, y)

    return dict(loss=loss, batch=batch(), critic=q, actor=policy, discount=GAMMA, kind="critic")


def iql(fault: str = "") -> Arguments:
    """The expectile of given targets."""
    v, b = mlp(STATE, 1), batch()
    b["target"] = torch.randn(48, 1, generator=torch.Generator().manual_seed(3))

    def loss(b: dict[str, Tensor]) -> Tensor:
        y = b["target"].squeeze(1) if fault == "flat" else b["target"]
        u = y - v(b["observation"])
        total = ((0.7 - (u < 0).float()).abs() * u.pow(2)).mean()
        return -total if fault == "maximised" else total

    return dict(loss=loss, batch=b, critic=v, kind="fit")


def per() -> Arguments:
    """Weights of priorities as a column."""
    given = td()
    q, targets, policy = given["critic"], given["target"], given["actor"]
    given["batch"]["weight"] = torch.linspace(0.2, 1, 48)[:, None]

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            a2, _ = policy(b["next_observation"])
            v = torch.min(*(t(b["next_observation"], a2) for t in targets))
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * v
        parts = [(b["weight"] * (q_(b["observation"], b["action"]) - y) ** 2).mean() for q_ in q]
        return torch.stack(parts).sum()

    return given | {"loss": loss}


def scaled() -> Arguments:
    """Rewards × .1 on the way in."""
    given = td()
    inner = given["loss"]
    return given | {"loss": lambda b: inner({**b, "reward": 0.1 * b["reward"]})}


def vmapped() -> Arguments:
    """An ensemble in one call, as LeanRL."""
    q, targets, policy = [Q(), Q()], [Q(), Q()], Policy()
    bases = copy.deepcopy(q[0]), copy.deepcopy(targets[0])
    stacked = [torch.func.stack_module_state(nets)[0] for nets in (q, targets)]

    def values(which: int, s: Tensor, a: Tensor) -> Tensor:
        call = functools.partial(torch.func.functional_call, bases[which])
        found: Tensor = torch.vmap(lambda p: call(p, (s, a)))(stacked[which])
        return found

    def loss(b: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            v = values(1, b["next_observation"], policy(b["next_observation"])[0]).amin(0)
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * v
        return (values(0, b["observation"], b["action"]) - y).pow(2).mean(1).sum()

    return dict(
        loss=loss, batch=batch(), critic=bases[0], target=bases[1], actor=policy, discount=GAMMA,
        kind="critic",
    )  # fmt: skip


def sac_actor(fault: str = "") -> Arguments:
    density = fault if fault in ("uncorrected", "added", "averaged", "unsummed") else ""
    policy, q = Policy(density), [Q(), Q()]
    log_alpha = torch.tensor(-1.0, requires_grad=True)

    def loss(b: dict[str, Tensor]) -> Tensor:
        s = b["observation"]
        a, log_pi = policy(s)
        a = b["action"] if fault == "replayed" else a
        a = torch.cat([a[:, :1], a[:, 1:].detach()], 1) if fault == "half_detached" else a
        log_pi = log_pi.detach() if fault == "log_pi_detached" else log_pi
        seen = s.roll(1, 0) if fault == "other_state" else s
        values = torch.cat([net(seen, a) for net in q], 1)
        v = values.amax(1, keepdim=True) if fault == "largest" else values.amin(1, keepdim=True)
        v = values.amin() if fault == "batch_least" else v
        v = v / v.abs().mean() if fault == "scale_undetached" else v
        alpha = log_alpha.exp().detach() * (fault != "no_entropy")
        sign = -1 if fault == "entropy_sign" else 1
        total = (sign * alpha * log_pi - v).mean()
        return -total if fault == "maximised" else total

    return dict(
        loss=loss, batch=batch(), actor=policy, critic=q, temperature=log_alpha, draw=policy,
        kind="actor",
    )  # fmt: skip


def temperature(fault: str = "") -> Arguments:
    given = sac_actor()
    log_alpha, sign = given["temperature"], -1 if fault == "negated" else 1
    of = lambda log_pi: sign * -(log_alpha.exp() * (log_pi - ACTION).detach()).mean()  # noqa: E731
    return given | {"temperature_loss": of}


def td3_bc() -> Arguments:
    policy, q = nn.Sequential(mlp(STATE, ACTION), nn.Tanh()), Q()

    def loss(b: dict[str, Tensor]) -> Tensor:
        a = policy(b["observation"])
        v = q(b["observation"], a)
        return -2.5 * (v / v.abs().mean().detach()).mean() + F.mse_loss(a, b["action"])

    return dict(loss=loss, batch=batch(), actor=policy, critic=q, kind="actor")


class Agent(nn.Module):
    """Actor and critic of PPO."""

    def __init__(self, discrete: bool = False) -> None:
        super().__init__()
        self.actor, self.critic = mlp(STATE, 3 if discrete else ACTION), mlp(STATE, 1)
        self.log_std = nn.Parameter(torch.zeros(ACTION))
        self.discrete = discrete

    def policy(self, s: Tensor) -> Any:
        out = self.actor(s)
        return Categorical(logits=out) if self.discrete else Normal(out, self.log_std.exp())

    def log_prob(self, b: dict[str, Tensor]) -> Tensor:
        found: Tensor = self.policy(b["observation"]).log_prob(b["action"])
        return found if self.discrete else found.sum(1)

    def entropy(self, b: dict[str, Tensor]) -> Tensor:
        found: Tensor = self.policy(b["observation"]).entropy()
        return found if self.discrete else found.sum(1)


def recorded(agent: Agent, rows: int = 32) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(5)
    s = torch.randn(rows, STATE, generator=g)
    a = torch.randint(3, (rows,), generator=g) if agent.discrete else torch.randn(rows, ACTION)
    b = {"observation": s, "action": a}
    with torch.no_grad():
        b["old_log_prob"] = agent.log_prob(b) + 0.1 * torch.randn(rows)
        b["value"] = agent.critic(s)[:, 0]
    b["return"] = torch.randn(rows, generator=g)
    return b | {"advantage": b["return"] - b["value"]}


def ppo(fault: str = "", discrete: bool = False, **changes: Any) -> Arguments:
    agent = Agent(discrete)
    clip, normalise, value_clip = 0.2, changes.pop("normalise", True), changes.pop("vclip", False)

    def loss(b: dict[str, Tensor]) -> Tensor:
        log_pi = agent.log_prob(b)
        if fault == "summed":
            log_pi = log_pi.sum()
        old = log_pi.detach() if fault == "anew" else b["old_log_prob"]
        ratio = (log_pi - old).exp()
        ratio = 1 / ratio if fault == "inverted" else ratio
        a = b["advantage"].roll(1) if fault == "other_row" else b["advantage"]
        if normalise:
            a = (a - a.mean()) / (a.std() + 1e-8)
        a = a[:, None] if fault == "broadcast" else a
        one, two = -a * ratio, -a * ratio.clamp(1 - clip, 1 + clip)
        surrogate = (torch.min if fault == "wrong_side" else torch.max)(one, two)
        surrogate = one if fault == "unclipped" else surrogate
        surrogate = surrogate.mean() * (-1 if fault == "maximised" else 1)
        v = agent.critic(b["observation"])
        v = v if fault == "value_pairs" else v[:, 0]
        target = b["return"].roll(1) if fault == "value_of_other" else b["return"]
        error = (v - target) ** 2
        if value_clip:
            near = b["value"] + (v - b["value"]).clamp(-clip, clip)
            error = torch.max(error, (near - target) ** 2)
        bonus = agent.entropy(b).mean() * (-1 if fault == "bonus_sign" else 1)
        return surrogate - 0.01 * bonus + 0.25 * error.mean()

    return dict(
        loss=loss, batch=recorded(agent), actor=agent, critic=agent.critic, clip=clip,
        log_prob=agent.log_prob, entropy=agent.entropy, kind="policy",
    ) | changes  # fmt: skip


def awr(fault: str = "") -> Arguments:
    agent = Agent()

    def loss(b: dict[str, Tensor]) -> Tensor:
        w = (b["advantage"] * (-1 if fault == "negated" else 1)).exp().clamp(max=20)
        return -(agent.log_prob(b) * w).mean()

    return dict(
        loss=loss, batch=recorded(agent), actor=agent, log_prob=agent.log_prob, monotone=True,
        kind="policy",
    )  # fmt: skip


def a2c(fault: str = "") -> Arguments:
    """No ratio."""
    agent, b = Agent(), recorded(Agent())
    del b["old_log_prob"], b["value"]

    def loss(b: dict[str, Tensor]) -> Tensor:
        a = b["advantage"] * (-1 if fault == "negated" else 1)
        return -(agent.log_prob(b) * a).mean()

    return dict(loss=loss, batch=b, actor=agent, log_prob=agent.log_prob, kind="policy")


def vtrace() -> Arguments:
    """ρ is detached."""
    given = a2c()
    agent = given["actor"]
    given["batch"] = recorded(agent)

    def loss(b: dict[str, Tensor]) -> Tensor:
        log_pi = agent.log_prob(b)
        rho = (log_pi - b["old_log_prob"]).exp().clamp(max=1).detach()
        return -(rho * log_pi * b["advantage"]).mean()

    return given | {"loss": loss}


def masked(fault: str = "") -> Arguments:
    """Padding that a mask leaves out, as in recurrent PPO."""
    given = ppo(normalise=False)
    agent, b = given["actor"], given["batch"]
    b["mask"] = (torch.arange(32) % 5 != 0).float()

    def loss(b: dict[str, Tensor]) -> Tensor:
        ratio, m = (agent.log_prob(b) - b["old_log_prob"]).exp(), b["mask"]
        one = -b["advantage"] * ratio
        two = -b["advantage"] * ratio.clamp(0.8, 1.2)
        value = (agent.critic(b["observation"])[:, 0] - b["return"]) ** 2
        return ((torch.max(one, two) + value) * m).sum() / m.sum()

    return given | {"loss": loss}


def gae(fault: str = "") -> Arguments:
    g, lam = 0.97, 0.9
    g, lam = (lam, g) if fault == "swapped" else (g, lam)

    def advantages(
        reward: Tensor, value: Tensor, ended: Tensor, last: Tensor, final: Tensor
    ) -> Tensor:
        found, running = torch.zeros_like(reward), torch.zeros_like(last)
        flags = ended.roll(1, 0) if fault == "late" else ended
        for t in reversed(range(len(reward))):
            going = 1 - flags[t] if fault != "no_ends" else torch.ones_like(last)
            following = value[t + 1] if t + 1 < len(reward) else last
            following = torch.zeros_like(last) if fault == "no_last" and t + 1 == len(reward) \
                else following  # fmt: skip
            bootstrap = going * following + (0 if fault == "no_final" else final[t])
            delta = reward[t] * (-1 if fault == "sign" else 1) + g * bootstrap - value[t]
            running = delta + g * lam * going * running
            found[t] = running
        return found - found.mean() if fault == "normalised" else found

    return dict(loss=advantages, kind="gae", discount=0.97, trace=0.9)


# Forms that one law or another has once called a fault.


def td_form(form: str) -> Arguments:
    given = td()
    q, targets, policy = given["critic"], given["target"], given["actor"]
    given["batch"] |= {"reward": -(given["batch"]["reward"] > 0).float()}
    head = (torch.arange(48)[:, None] % 3 > 0).float()

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nets = nn.ModuleList([Q(), Q()])

        def forward(self, s: Tensor, a: Tensor) -> tuple[Tensor, ...]:
            return tuple(net(s, a) for net in self.nets)

    both = Both()

    def loss(b: dict[str, Tensor]) -> Tensor:
        s, a = b["observation"], b["action"]
        with torch.no_grad():
            a2, _ = policy(b["next_observation"])
            used = targets[:1] if form == "some targets" else targets
            v = torch.cat([net(b["next_observation"], a2) for net in used], 1).amin(1, True)
            v = 2.5 * v + 3 if form == "normalised values" else v
            y = b["reward"] + GAMMA * (1 - b["terminated"]) * v
            y = y.clamp(-0.9, -0.1) if form == "clipped targets" else y
            y = (y - 3) / 2.5 if form == "normalised values" else y
        values = both(s, a) if form == "a tuple of values" else [net(s, a) for net in q]
        weight = head if form == "masked rows" else torch.ones_like(head)
        total = torch.stack([(weight * (value - y) ** 2).mean() for value in values]).sum()
        others = torch.stack([net(s, torch.tanh(s[:, :2])).mean() for net in q]).sum()
        return total + (0.5 * (others - values[0].mean()) if form == "conservative" else 0)

    return given | {"loss": loss, "critic": both if form == "a tuple of values" else q}


def policy_form(form: str) -> Arguments:
    given = ppo(normalise=False)
    agent = given["actor"]

    def loss(b: dict[str, Tensor]) -> Tensor:
        log_pi, a = agent.log_prob(b), b["advantage"]
        ratio = (log_pi - b["old_log_prob"]).exp()
        if form == "CISPO":
            return -(ratio.clamp(max=1.2).detach() * a * log_pi).mean()
        value = (agent.critic(b["observation"])[:, 0] - b["return"]).square().mean()
        if form == "A2C with a column of old log π":
            return value - (log_pi * a).mean()
        gain = torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a)
        if form == "dual clip":
            gain = torch.where(a < 0, torch.max(gain, 3 * a), gain)
        k3 = ratio - 1 - (log_pi - b["old_log_prob"])
        return value + (0.2 * k3 - gain).mean() - 0.01 * agent.entropy(b).mean()

    form_clip = None if form.startswith("A2C") else given["clip"]
    return given | {"loss": loss, "clip": form_clip}


P = functools.partial
LOGCOSH = lambda x, y: torch.log(torch.cosh(x - y)).mean()  # noqa: E731
SOUND: tuple[tuple[str, Callable[[], Arguments]], ...] = (
    ("TD3", td), ("SAC", P(td, entropy=1.0)), ("Huber", P(td, error=F.smooth_l1_loss)),
    ("log-cosh", P(td, error=LOGCOSH)), ("DQN", dqn), ("double DQN", P(dqn, double=True)),
    ("QR", quantile), ("C51", c51), ("n steps", n_step), ("CQL by terms", cql),
    ("CQL in one sum", P(cql, False)), ("CrossQ", crossq), ("IQL", iql), ("PER", per),
    ("scaled rewards", scaled), ("vmap", vmapped), ("SAC's actor", sac_actor),
    ("SAC's temperature", temperature), ("TD3+BC", td3_bc), ("PPO", ppo),
    ("PPO, discrete", P(ppo, discrete=True)), ("PPO, raw advantages", P(ppo, normalise=False)),
    ("PPO, clipped values", P(ppo, vclip=True)), ("AWR", awr), ("A2C", a2c), ("V-trace", vtrace),
    ("masked PPO", masked), ("GAE", gae),
    *(
        (form, P(td_form, form))
        for form in ("some targets", "clipped targets", "normalised values", "a tuple of values",
                     "masked rows", "conservative")
    ),
    *(
        (form, P(policy_form, form))
        for form in ("CISPO", "A2C with a column of old log π", "dual clip", "KL to the old policy")
    ),
)  # fmt: skip
FAULTS: tuple[tuple[str, Callable[[], Arguments], str], ...] = (
    *(
        (f"TD: {fault}", P(td, fault), codes)
        for fault, codes in (
            ("squared", "critic.discount.squared"), ("left_out", "critic.discount.left_out"),
            ("typo", "critic.discount.other"), ("no_mask", "critic.mask.left_out"),
            ("inverted", "critic.mask.inverted"), ("negated", "critic.reward.negated"),
            ("lost", "critic.reward.lost"), ("reward_masked", "critic.reward.masked"),
            ("standardised", "critic.rows.mixed"),
            ("time_limit", "critic.time_limits.moves"), ("online", "critic.targets.unused"),
            ("undetached", "critic.detached.target"), ("largest", "critic.twins.largest"),
            ("batch_least", "critic.rows.mixed"), ("flat", "critic.rows.mixed"),
            ("other_row", "critic.rows.mixed"), ("one_twin", "critic.predictions.unused"),
            ("maximised", "critic.descends.rises"), ("weights", "critic.weights.uneven"),
            ("stored_state", "critic.next_value.here"), ("stored_action", "critic.next_value.here"),
        )
    ),
    *(
        (f"SAC: {fault}", P(td, fault, entropy=1.0), code)
        for fault, code in (
            ("no_entropy", "critic.entropy.left_out"), ("entropy_sign", "critic.entropy.negated"),
            ("entropy_ends", "critic.entropy.ends"),
        )
    ),
    ("DQN: no mask", P(dqn, "no_mask"), "critic.mask.left_out"),
    ("DQN: flat", P(dqn, "flat"), "critic.rows.mixed"),
    ("DQN: γ²", P(dqn, "squared"), "critic.discount.squared"),
    ("QR: no mask", P(quantile, "no_mask"), "critic.mask.left_out"),
    ("QR: γ", P(quantile, "typo"), "critic.discount.other"),
    ("C51: no mask", P(c51, "no_mask"), "critic.beyond.moves"),
    ("n steps: γ of one", P(n_step, "one_step"), "critic.discount"),
    ("IQL: flat", P(iql, "flat"), "critic.rows.mixed"),
    ("IQL: maximised", P(iql, "maximised"), "critic.descends.rises"),
    *(
        (f"SAC's actor: {fault}", P(sac_actor, fault), code)
        for fault, code in (
            ("maximised", "actor.sign.rises"), ("replayed", "actor.reached.apart"),
            ("half_detached", "actor.lost.detached"), ("log_pi_detached", "actor.entropy.detached"),
            ("largest", "actor.twins.largest"), ("batch_least", "actor.sign.rises"),
            ("no_entropy", "actor.entropy.left_out"), ("entropy_sign", "actor.entropy.negated"),
            ("uncorrected", "actor.density.other"), ("added", "actor.density.other"),
            ("averaged", "actor.density.other"), ("unsummed", "actor.density.several"),
            ("scale_undetached", "actor."),
        )
    ),
    ("SAC's temperature: negated", P(temperature, "negated"), "actor.temperature.negated"),
    *(
        (f"PPO: {fault}", P(ppo, fault), code)
        for fault, code in (
            ("maximised", "policy.weights.negated"), ("summed", "policy.weights"),
            ("anew", "policy.ratio.anew"), ("inverted", "policy.weights.negated"),
            ("other_row", "policy.weights.other_row"), ("broadcast", "policy.weights"),
            ("wrong_side", "policy.clip.other_side"), ("unclipped", "policy.clip.unclipped"),
            ("value_pairs", "policy.value.mixed"), ("value_of_other", "policy.value"),
            ("bonus_sign", "policy.bonus.negated"),
        )
    ),
    ("AWR: negated", P(awr, "negated"), "policy.weights.negated"),
    ("A2C: negated", P(a2c, "negated"), "policy.weights.negated"),
    *(
        (f"GAE: {fault}", P(gae, fault), code)
        for fault, code in (
            ("swapped", "gae.value.swapped"), ("late", "gae.ends.late"),
            ("no_ends", "gae.ends.left_out"), ("no_last", "gae.last_value.lost"),
            ("no_final", "gae.time_limits.lost"), ("sign", "gae.reward.negated"),
            ("normalised", "gae."),
        )
    ),
)  # fmt: skip
