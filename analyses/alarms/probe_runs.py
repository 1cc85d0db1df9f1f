"""What a probe sees of a plain DDPG loop: on two tasks as it should be, and with planted faults.

    python -m analyses.alarms.probe_runs [--only NAME] [--updates 20000] [--output reports/probe]

The loop is the user's: torch alone, two lines of gradlab. Faults of the third run, which its page
has to name: an input that is always 0, an actor that begins at its limit, a critic a hundred times
too large (as the probe is told it), and from half-way on a sample that is not a number.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn

import gradlab
from gradlab.data.noise import child, stream
from gradlab.runs.probe.results import load
from gradlab.storage.journal import journal_of
from gradlab.tasks import Task
from gradlab.verdicts.probe.findings import verdict

RUNS = {
    "path-tracking": (gradlab.tasks.path_tracking, False),
    "inverted-pendulum": (gradlab.tasks.inverted_pendulum, False),
    "faults": (gradlab.tasks.path_tracking, True),
}
UPDATES = 20_000
BATCH, ROWS, AGENTS, EPISODE = 256, 100_000, 16, 200
TAU, CLIP = 0.005, 10.0
BUDGET = 0.4
LOST = 7  # updates from one planted NaN to the next
OFF = 100.0  # what the planted critic is too large by


class Actor(nn.Module):
    """limit · tanh of a network of c ⊙ s."""

    def __init__(self, task: Task, dead: bool) -> None:
        super().__init__()
        scale = torch.tensor(task.observation_scale or [1.0] * task.simulator.state_dim)
        scale[-1] = 0.0 if dead else scale[-1]
        self.register_buffer("scale", scale)
        self.register_buffer("action_scale", torch.tensor(task.action_limit or (1.0,)))
        self.register_buffer("action_bias", torch.zeros(task.simulator.action_dim))
        self.network = net(task.simulator.state_dim, task.simulator.action_dim)

    def forward(self, state: Tensor) -> Tensor:
        return self.action_scale * torch.tanh(self.network(self.scale * state))


class Critic(nn.Module):
    """Q(s, a), in units of reward."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        scale = torch.tensor(task.observation_scale or [1.0] * task.simulator.state_dim)
        limit = torch.tensor(task.action_limit or (1.0,))
        self.register_buffer("scale", torch.cat([scale, 1 / limit]))
        self.network = net(len(self.scale), 1)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.network(self.scale * torch.cat([state, action], dim=1))[:, 0]


class TooLarge(nn.Module):
    """A critic in the wrong units."""

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return OFF * self.critic(state, action)


def net(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, outputs)
    )


class Environments:
    """A few simulations side by side, and their last transitions."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed, self.count, self.filled = task, seed, 0, 0
        self.state, self.age = self._starts(), torch.zeros(AGENTS)
        ds, da = task.simulator.state_dim, task.simulator.action_dim
        self.rows = [torch.zeros(ROWS, width) for width in (ds, da, 1, ds)]

    def step(self, actor: nn.Module) -> None:
        """Every simulation goes on by one step, with exploration."""
        limit = torch.tensor(self.task.action_limit or (1.0,))
        noise = torch.randn(AGENTS, len(limit), generator=stream(self.seed, "explore", self.count))
        with torch.no_grad():
            action = actor(self.state.float()) + 0.1 * limit * noise
        action = torch.minimum(torch.maximum(action, -limit), limit).double()
        after = self.task.simulator.step(self.state, action)
        self._store(action, after.reward, after.state)
        self.age += 1
        over = ~after.alive | (self.age >= EPISODE)
        self.count += 1
        self.state = torch.where(over[:, None], self._starts(), after.state)
        self.age = torch.where(over, 0.0, self.age)

    def drawn(self, update: int) -> list[Tensor]:
        """A batch: state, action, reward, next state."""
        known = min(self.filled, ROWS)
        at = torch.randint(known, (BATCH,), generator=stream(self.seed, "batch", update))
        return [each[at] for each in self.rows]

    def _starts(self) -> Tensor:
        return self.task.starts(AGENTS, stream(self.seed, "begin", self.count)).double()

    def _store(self, action: Tensor, reward: Tensor, after: Tensor) -> None:
        at = (self.filled + torch.arange(AGENTS)) % ROWS
        new = (self.state, action, reward[:, None], after)
        for kept, values in zip(self.rows, new, strict=True):
            kept[at] = values.float()
        self.filled += AGENTS


def train(task: Task, log: Path, updates: int, faulty: bool, seed: int = 0) -> None:
    """DDPG with target networks; the two lines of the probe are marked."""
    torch.manual_seed(child(seed, "networks"))
    actor, critic = Actor(task, dead=faulty), Critic(task)
    if faulty:
        nn.init.constant_(actor.network[-1].bias, 5.0)
    targets = [copy.deepcopy(each) for each in (actor, critic)]
    of_actor = torch.optim.Adam(actor.parameters(), 3e-4)
    of_critic = torch.optim.Adam(critic.parameters(), 1e-3)
    shown = TooLarge(critic) if faulty else critic
    probe = gradlab.Probe(  # the first line
        actor, of_actor, task, shown, log=log, overhead_budget=BUDGET, seed=seed
    )
    environments = Environments(task, seed)
    for _ in range(BATCH // AGENTS):
        environments.step(actor)
    for update in range(updates):
        environments.step(actor)
        batch = environments.drawn(update)
        learn(critic, of_critic, targets, batch, task.discount)
        state = batch[0]
        if faulty and update > updates // 2 and update % LOST == 0:
            state = state.clone()
            state[LOST, 0] = torch.nan
        of_actor.zero_grad()
        with probe(update):  # the second line
            (-critic(state, actor(state)).mean()).backward()
        if faulty:
            for p in actor.parameters():
                p.grad = torch.nan_to_num(p.grad) if p.grad is not None else None
        nn.utils.clip_grad_norm_(actor.parameters(), CLIP)
        of_actor.step()
        follow(targets, (actor, critic))
    probe.close()


def learn(
    critic: nn.Module, optimizer: Any, targets: list[Any], batch: list[Tensor], discount: float
) -> None:
    """One step of temporal differences. A terminal state starts afresh but is no end to the critic:
    where all rewards are below 0, the loop would learn to end its episodes."""
    state, action, reward, after = batch
    with torch.no_grad():
        later = targets[1](after, targets[0](after))
        wanted = reward[:, 0] + discount * later
    optimizer.zero_grad()
    nn.functional.mse_loss(critic(state, action), wanted).backward()
    nn.utils.clip_grad_norm_(critic.parameters(), 100 * CLIP)
    optimizer.step()


@torch.no_grad()
def follow(targets: list[Any], networks: tuple[nn.Module, ...]) -> None:
    for target, network in zip(targets, networks, strict=True):
        for mine, theirs in zip(target.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, TAU)


def main(
    only: str | None = None, updates: int = UPDATES, output: Path = Path("reports/probe")
) -> None:
    """Train, probe and report.

    Args:
        only: one of the runs; default: all.
        updates: of each run.
        output: folder that gets a run file, a page and what it says for each.
    """
    for name in RUNS if only is None else (only,):
        make, faulty = RUNS[name]
        run = output / f"{name}.h5"
        for old in (run, journal_of(run)):
            old.unlink(missing_ok=True)
        train(make(), run, updates, faulty)
        freeze(run)


def freeze(run: Path) -> None:
    """The page without its figures, which it holds, and its sentences beside it."""
    gradlab.report(run)
    shutil.rmtree(run.with_name(f"{run.stem}_figures"), ignore_errors=True)
    found = load(run)
    made = {
        "command": "python -m analyses.alarms.probe_runs"
        f" --only {run.stem} --updates {found.updates}",
        "commit": found.environment["commit"],
        "verdict": [sentence.text for sentence in verdict(found)],
        "alarms": dict(Counter(map(str, found.alarms.get("alarm", ())))),
    }
    text = json.dumps(made, indent=1, ensure_ascii=False)
    run.with_suffix(".json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
