"""Three small world models with latents of their own: TD-MPC2's, Dreamer's and a JEPA's.

    python examples/world_models.py tdmpc pendulum world.pt     trains one, in minutes
    gradlab measure examples/world_models.py:make_task --policy examples/world_models.py:make_policy
        --critic examples/world_models.py:make_critic           is its imagination worth following?

after `export WORLD=world.pt`. They learn from observations and rewards of environments that they
step, never from their states or derivatives:

    tdmpc     z = E(o), z' = d(z, a), r(z, a), Q(z, a): consistency, reward and value over 5 steps
    dreamer   a recurrent state-space model, trained to reconstruct; actor and critic in imagination
    jepa      z = E(o), z' = d(z, a), predicted without a decoder, and kept from collapsing by
              variance and covariance; no policy: its reward is the distance to the goal's latent

Hansen et al. 2024 (TD-MPC2), Hafner et al. 2023 (DreamerV3), Sobal et al. 2025 (PLDM).
"""

import copy
import os
import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

import gradlab
from gradlab.networks.policies import GaussianPolicy

DZ, HIDDEN, ENVS = 16, 64, 8


def net(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
        nn.Linear(HIDDEN, outputs),
    )  # fmt: skip


def cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts, -1)


class Latent(nn.Module):
    """What gradlab needs of a world model: encode, step, reward, policy, and q or value."""

    def __init__(self, seen: int, limit: tuple[float, ...], gamma: float) -> None:
        super().__init__()
        self.seen, self.limit, self.gamma, da = seen, limit, gamma, len(limit)
        self.encoder, self.dynamics, self.paid = net(seen, DZ), net(DZ + da, DZ), net(DZ + da, 1)
        self.policy: nn.Module = GaussianPolicy(DZ, da, (HIDDEN,), "silu", squash=True, limit=limit)

    def scaled(self, action: Tensor) -> Tensor:
        return action / action.new_tensor(self.limit)

    def encode(self, seen: Tensor) -> Tensor:
        return self.encoder(seen)

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return z + self.dynamics(cat(z, self.scaled(action)))

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        return self.paid(cat(z, self.scaled(action)))[..., 0]

    def acting(self, z: Tensor) -> Tensor:
        return self.policy(z, torch.randn(*z.shape[:-1], len(self.limit)))


class TDMPC(Latent):
    """Latents are groups of softmax (SimNorm); losses over five steps, all of one optimiser."""

    def __init__(self, seen: int, limit: tuple[float, ...], gamma: float) -> None:
        super().__init__(seen, limit, gamma)
        self.critic = net(DZ + len(limit), 1)

    def q(self, z: Tensor, action: Tensor) -> Tensor:
        return self.critic(cat(z, self.scaled(action)))[..., 0] / (1 - self.gamma)

    def encode(self, seen: Tensor) -> Tensor:
        return self.grouped(self.encoder(seen))

    def step(self, z: Tensor, action: Tensor) -> Tensor:
        return self.grouped(self.dynamics(cat(z, self.scaled(action))))

    def grouped(self, z: Tensor) -> Tensor:
        return softmax(5 * z.unflatten(-1, (-1, 4)), -1).flatten(-2)

    def loss(self, target: "TDMPC", o: Tensor, a: Tensor, r: Tensor) -> Tensor:
        z, loss = self.encode(o[0]), torch.zeros(())
        for t in range(len(a)):
            with torch.no_grad():
                ahead = self.encode(o[t + 1])
                value = r[t] + self.gamma * target.q(ahead, self.acting(ahead))
            off = ((self.reward(z, a[t]) - r[t]) ** 2).mean()
            off = off + (0.1 * (self.q(z, a[t]) - value) ** 2).mean()
            z = self.step(z, a[t])
            loss = loss + 0.5**t * (off + 20 * ((z - ahead) ** 2).mean())
        with torch.no_grad():
            z = self.encode(o)
        frozen = copy.deepcopy(self.critic).requires_grad_(False)
        action, density = self.policy.with_log_prob(z, torch.randn(*z.shape[:-1], len(self.limit)))
        value = frozen(cat(z, self.scaled(action)))[..., 0]
        return loss + (1e-3 * density - value).mean()


class Dreamer(Latent):
    """z = (h, s): h of a GRU, s Gaussian, from h alone (prior) or with the observation (posterior).

    Imagined by gradlab with s at its mean for noise 0.
    """

    def __init__(self, seen: int, limit: tuple[float, ...], gamma: float) -> None:
        super().__init__(seen, limit, gamma)
        self.latent_dim, self.noise_dim, da = DZ, DZ // 4, len(limit)
        self.gru = nn.GRUCell(self.noise_dim + da, DZ - self.noise_dim)
        self.prior = net(DZ - self.noise_dim, 2 * self.noise_dim)
        self.posterior = net(DZ - self.noise_dim + seen, 2 * self.noise_dim)
        self.decoder, self.valued = net(DZ, seen), net(DZ, 1)

    def ahead(self, z: Tensor, action: Tensor) -> Tensor:
        h, s = z.split([DZ - self.noise_dim, self.noise_dim], -1)
        return self.gru(cat(s, self.scaled(action)), h)

    def normal(self, parts: Tensor) -> torch.distributions.Normal:
        mean, raw = parts.chunk(2, -1)
        return torch.distributions.Normal(mean, 0.1 + 0.9 * torch.sigmoid(raw))

    def encode(self, seen: Tensor, z: Tensor, action: Tensor) -> Tensor:
        h = self.ahead(z, action)
        return cat(h, self.normal(self.posterior(cat(h, seen))).mean)

    def step(self, z: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        h = self.ahead(z, action)
        s = self.normal(self.prior(h))
        return cat(h, s.mean + s.stddev * noise)

    def value(self, z: Tensor) -> Tensor:
        return self.valued(z)[..., 0] / (1 - self.gamma)

    def loss(self, target: "Dreamer", o: Tensor, a: Tensor, r: Tensor) -> Tensor:
        z, off, latents = torch.zeros(o.shape[1], DZ), torch.zeros(()), []
        before = torch.zeros_like(a[0])
        for t in range(len(o)):
            h = self.ahead(z, before)
            prior, posterior = self.normal(self.prior(h)), self.normal(self.posterior(cat(h, o[t])))
            z = cat(h, posterior.rsample())
            off = off + ((self.decoder(z) - o[t]) ** 2).sum(-1).mean()
            off = off + 0.1 * torch.distributions.kl_divergence(posterior, prior).sum(-1).mean()
            if t < len(a):
                off, before = off + ((self.reward(z, a[t]) - r[t]) ** 2).mean(), a[t]
            latents.append(z.detach())
        rows = torch.randint(o.shape[0] * o.shape[1], (256,))
        return off / len(o) + self.imagined(target, torch.cat(latents)[rows])

    def imagined(
        self, target: "Dreamer", z: Tensor, steps: int = 10, trace: float = 0.95
    ) -> Tensor:
        """Actor by backpropagation through the latents (`actor_grad` dynamics), critic by TD(λ)."""
        world = copy.deepcopy(self).requires_grad_(False)
        seen, paid, entropy = [z], [], torch.zeros(())
        for _ in range(steps):
            noise = torch.randn(len(z), len(self.limit))
            action, density = self.policy.with_log_prob(seen[-1], noise)
            paid.append(world.reward(seen[-1], action))
            entropy = entropy - density.mean()
            seen.append(world.step(seen[-1], action, torch.randn(len(z), self.noise_dim)))
        values = [target.value(each) for each in seen]
        returns, later = [], values[-1]
        for t in reversed(range(steps)):
            later = paid[t] + self.gamma * ((1 - trace) * values[t + 1] + trace * later)
            returns.append(later)
        scale = 1 - self.gamma
        actor = -scale * returns[-1].mean() - 1e-3 * entropy / steps
        off = [
            (self.value(s.detach()) - g.detach()) * scale
            for s, g in zip(seen, returns[::-1], strict=False)
        ]
        return actor + (torch.stack(off) ** 2).mean()


class Nothing(nn.Module):
    """No policy: a planner's model."""

    def __init__(self, da: int) -> None:
        super().__init__()
        self.zero = nn.Linear(DZ, da)
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, z: Tensor) -> Tensor:
        return self.zero(z)


class JEPA(Latent):
    """Predicts its own latents; pays the distance to the latent of a goal."""

    def __init__(self, seen: int, limit: tuple[float, ...], gamma: float) -> None:
        super().__init__(seen, limit, gamma)
        self.policy = Nothing(len(limit))
        self.register_buffer("goal", torch.zeros(seen))

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        price = 0.001 * (self.scaled(action) ** 2).sum(-1)
        return -((z - self.encode(self.goal[None])) ** 2).mean(-1) - price

    def q(self, z: Tensor, action: Tensor) -> Tensor:
        return self.reward(z, action) / (1 - self.gamma)  # it stays where it is

    def acting(self, z: Tensor) -> Tensor:
        return (2 * torch.rand(*z.shape[:-1], len(self.limit)) - 1) * torch.tensor(self.limit)

    def loss(self, target: "JEPA", o: Tensor, a: Tensor, r: Tensor) -> Tensor:
        z, all_of_them, off = self.encode(o[0]), self.encode(o), torch.zeros(())
        for t in range(len(a)):
            z = self.step(z, a[t])
            off = off + ((z - all_of_them[t + 1]) ** 2).mean() / len(a)
        flat = all_of_them.flatten(0, 1)
        apart = (flat - flat.mean(0)).T @ (flat - flat.mean(0)) / len(flat)
        spread = (1 - apart.diagonal().clamp(min=1e-6).sqrt()).clamp(min=0).mean()
        return off + spread + 0.04 * (apart - torch.diag(apart.diagonal())).square().sum() / DZ


UPDATES = {"pendulum": 0.25, "cart-pole": 1.0}  # of a transition
KINDS = {"tdmpc": TDMPC, "dreamer": Dreamer, "jepa": JEPA}
# Task, what is seen of its states, steps of an episode, and the goal's observation.
TASKS = {
    "pendulum": (
        gradlab.tasks.pendulum,
        lambda s: torch.stack([s[:, 0].cos(), s[:, 0].sin(), s[:, 1] / 8], 1), 200, (1.0, 0.0, 0.0),
    ),
    "cart-pole": (
        gradlab.tasks.cart_pole_swing_up, lambda s: s / s.new_tensor([1.0, 1, 1, 3, 8]), 50,
        (0.0, 1.0, 0.0, 0.0, 0.0),
    ),
}  # fmt: skip


def train(kind: str, name: str, transitions: int, seed: int = 0, report=print):
    """Yields the model after every episode of its environments."""
    torch.manual_seed(seed)
    make, observe, length, goal = TASKS[name]
    task = make()
    limit, generator = task.action_limit, torch.Generator().manual_seed(seed)
    model = KINDS[kind](len(goal), limit, task.discount)
    if kind == "jepa":
        model.goal.copy_(torch.tensor(goal))
    target = copy.deepcopy(model).requires_grad_(False)
    adam = torch.optim.Adam(model.parameters(), 1e-3 if kind == "tdmpc" else 6e-4)
    episodes: list[tuple[Tensor, Tensor, Tensor]] = []
    bound = torch.tensor(limit)
    steps = 5 if kind != "dreamer" else 15
    for count in range(-(-transitions // (ENVS * length))):
        state, z = task.starts(ENVS, generator), torch.zeros(ENVS, DZ)
        o, a, r = [observe(state).float()], [], []
        action = torch.zeros(ENVS, len(limit))
        for _ in range(length):
            with torch.no_grad():
                z = model.encode(o[-1], z, action) if kind == "dreamer" else model.encode(o[-1])
                action = model.acting(z) if count else JEPA.acting(model, z)
                action = (action + 0.3 * bound * torch.randn_like(action)).clamp(-bound, bound)
            after = task.simulator.step(state, action.double())
            state = after.state
            o.append(observe(state).float())
            a.append(action)
            r.append(after.reward.float())
        episodes.append((torch.stack(o), torch.stack(a), torch.stack(r)))
        for _ in range(int(UPDATES[name] * ENVS * length)):
            model_step(model, target, adam, episodes, steps)
        report(
            f"{(count + 1) * ENVS * length} transitions, return {torch.stack(r).sum(0).mean():.1f}"
        )
        yield (count + 1) * ENVS * length, model


def model_step(model, target, adam, episodes, steps: int, batch: int = 64) -> None:
    """One update of everything, on pieces of recorded episodes."""
    which = torch.randint(len(episodes), (batch,))
    env, begin = torch.randint(ENVS, (batch,)), torch.randint(len(episodes[0][1]) - steps, (batch,))
    rows = list(zip(which.tolist(), env.tolist(), begin.tolist(), strict=True))
    o, a, r = (
        torch.stack([episodes[i][k][t : t + steps + (k == 0), e] for i, e, t in rows], 1)
        for k in range(3)
    )
    loss = model.loss(target, o, a, r)
    adam.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 20.0)
    adam.step()
    with torch.no_grad():
        for old, new in zip(target.parameters(), model.parameters(), strict=True):
            old.lerp_(new, 0.01)


def loaded(path: str | None = None):
    """Task, policy and critic for gradlab, of a model that was trained and saved."""
    kept = torch.load(path or os.environ["WORLD"], weights_only=True)
    make, observe, _, goal = TASKS[kept["task"]]
    task = make()
    model = KINDS[kept["kind"]](len(goal), task.action_limit, task.discount)
    model.load_state_dict(kept["model"])
    return gradlab.tasks.with_world_model(task, model, observe=observe)


def make_task():
    return loaded()[0]


def make_policy():
    return loaded()[1]


def make_critic():
    return loaded()[2]


if __name__ == "__main__":
    kind, name, path = sys.argv[1:4]
    for _, model in train(kind, name, int((sys.argv[4:] or ["20000"])[0])):
        torch.save({"kind": kind, "task": name, "model": model.state_dict()}, path)
