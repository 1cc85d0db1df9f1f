"""Loops whose gradients are known, for `analyses.alarms.alarm_rates`.

The policy is x ↦ θ·x and its loss the mean answer, so that the gradient of a batch is the mean of
its rows: rows μ + ε with E ε = 0, Cov ε = I and |μ|² = share · d / (B (1 − share)) have the given
signal share in independent batches. `with_steps` adds ½ h |θ|², whose minimum SGD circles at
the step η:  θ ← (1 − ηh) θ − η ε,  E g·g′ / E |g|² = −ηh / 2 exactly.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gradlab
from gradlab.probe.alarms.evidence import AlarmEvidence
from gradlab.probe.alarms.gradients import noise, signal_of
from gradlab.probe.task_question import Question
from gradlab.probe.update_statistics import PAIRS, Repeats, columns_of, marks
from gradlab.statistics.successive import fresh, pooled, signal
from gradlab.tasks import Task

BATCH, WIDTH = 16, 20
PARTS, EPOCHS, REUSE = 4, 4, 10
REPLAY, ADDED = 800, 4
WANDER = 300.0  # updates in which a wandering mean turns once


def batches(name: str, share: float, seed: int) -> Iterator[Tensor]:
    """Minibatches [BATCH, WIDTH], drawn as loops draw them."""
    generator = torch.Generator().manual_seed(seed)

    def new(n: int, turn: float = 0.0) -> Tensor:
        # [n, WIDTH] rows; heavy: Student's t with 5 degrees of freedom, the covariance kept.
        noise = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
        if name == "heavy":
            normal = torch.randn(n, 5, generator=generator, dtype=torch.float64)
            noise *= (3 / normal.square().sum(1)).sqrt()[:, None]
        size = (share * WIDTH / (BATCH * (1 - share))) ** 0.5
        noise[:, 0] += size * np.cos(turn)
        noise[:, 1] += size * np.sin(turn)
        return noise

    def some(n: int, of: int) -> Tensor:
        return torch.randint(of, (n,), generator=generator)

    store, count = new(REPLAY), 0
    while True:
        if name == "partition":
            data = new(PARTS * BATCH)
            for _ in range(EPOCHS):
                yield from data[torch.randperm(len(data), generator=generator)].split(BATCH)
        elif name == "reuse":
            data = new(BATCH)
            yield from (data for _ in range(REUSE))
        elif name == "replay":
            store[some(ADDED, REPLAY)] = new(ADDED)
            yield store[some(BATCH, REPLAY)]
        else:
            turn = 2 * np.pi * count / WANDER if name == "wandering" else 0.0
            yield new(BATCH, turn)
        count += 1


def expected(name: str, share: float) -> float:
    """Of replay: the share of what it holds, whose mean has noise of its own."""
    signal = share / (1 - share) + (BATCH / REPLAY if name == "replay" else 0.0)
    return signal / (1 + signal)


class Rung(io.StringIO):
    """Listens to what is told, and remembers when each kind was told first."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, int] = {}

    def write(self, text: str) -> int:
        if ": " in text:
            where, kind = text.split(": ")[:2]
            step = where.rpartition(" ")[2]
            self.first.setdefault(kind, int(step) if step.isdigit() else 0)  # at the beginning
        return len(text)


def probed(policy: nn.Module, lr: float, **given: Any) -> tuple[gradlab.Probe, Any]:
    """With an unlimited budget, and told into a string."""
    optimizer = torch.optim.SGD(policy.parameters(), lr)
    probe = gradlab.Probe(policy, optimizer, overhead_budget=1.0, clock=lambda: 0.0, **given)
    probe.alarm_log.stream = Rung()
    return probe, optimizer


def answered(net: nn.Module, name: str, share: float, updates: int, seed: int) -> gradlab.Probe:
    """A run whose loss is the mean answer; θ stays, so that the law of the gradients does."""
    probe, optimizer = probed(net, 0.0)
    for update, x in zip(range(updates), batches(name, share, seed), strict=False):
        optimizer.zero_grad()
        with probe(update):
            net(x).mean().backward()
        optimizer.step()
    return probe


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, 1, bias=False, dtype=torch.float64)


def told(probe: gradlab.Probe) -> dict[str, int]:
    """Kind of alarm → the update at which it rang first."""
    assert not probe.off and isinstance(probe.alarm_log.stream, Rung)
    return probe.alarm_log.stream.first


def noisy(name: str, share: float, updates: int, seed: int) -> tuple[float, float, float]:
    """The pooled share of a run, its standard error, and when the noise alarm rang first."""
    return _outcome(answered(linear(), name, share, updates, seed))


def _outcome(probe: gradlab.Probe) -> tuple[float, float, float]:
    rang = float(told(probe).get("gradient no better than noise", np.inf))
    rows = [row for row in probe.alarm_log.rows[0]["successive"] if np.isfinite(row["share_se"])]
    if not rows:
        return np.nan, np.nan, rang
    found = pooled([signal_of(row) for row in rows])
    return found.share, found.se, rang


def with_steps(step: float, updates: int, seed: int) -> tuple[float, float, float]:
    """SGD around the minimum of ½ |θ|², at η = `step`, from its stationary law."""
    net, generator = linear(), torch.Generator().manual_seed(seed)
    start = torch.randn(1, WIDTH, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(start * (step / (2 - step) / BATCH) ** 0.5)
    probe, optimizer = probed(net, step)
    for update, x in zip(range(updates), batches("independent", 0.0, seed + 10_000), strict=False):
        optimizer.zero_grad()
        with probe(update):
            (net(x).mean() + net.weight.square().sum() / 2).backward()
        optimizer.step()
    return _outcome(probe)


def bursts(name: str, share: float, looks: int, seed: int) -> float:
    """The look at which the noise alarm rings first on burst after burst; inf: never."""
    source, rows = batches(name, share, seed), []
    for k in range(1, looks + 1):
        found = [next(source) for _ in range(PAIRS + 1)]
        again = Repeats.of([marks([x]).numpy() for x in found])  # type: ignore[union-attr]
        g = torch.stack(found).mean(1).numpy()
        kept = fresh(again.shared)
        each = signal((g[1:] * g[:-1]).sum(1), (g**2).sum(1), kept, again.distinct)
        rows.append(columns_of(each))
        if noise(AlarmEvidence(rows, k)) is not None:
            return k
    return np.inf


def saturated(name: str, share: float, updates: int, seed: int) -> float:
    """When the alarm rang where tanh(w x_0) is at its limit with the probability `share`."""
    first = linear()
    edge = float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(1 - share / 2)))
    with torch.no_grad():
        first.weight.zero_()[0, 0] = np.arctanh(0.999) / edge
    probe = answered(nn.Sequential(first, nn.Tanh()), name, 0.0, updates, seed)
    return float(told(probe).get("saturated actor", np.inf))


A = torch.tensor([[0.9, 0.2], [0.0, 0.8]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
GAIN = torch.tensor([[-0.05, -0.4]], dtype=torch.float64)
DISCOUNT = 0.8


def task(A: Tensor = A, prior_b: Tensor = 0.97 * B) -> Task:
    found = gradlab.tasks.linear_quadratic(
        A=A, B=B, Q=EYE, R=EYE[:1, :1], noise_covariance=0.01 * EYE,
        start_mean=torch.ones(2, dtype=torch.float64), start_covariance=EYE, discount=DISCOUNT,
        prior=(A, prior_b),
    )  # fmt: skip
    return replace(found, horizon=6)


class Critic(nn.Module):
    """`scale` times the true Q of GAIN (noise left out), plus `shift`."""

    def __init__(self, scale: float = 0.9, shift: float = 0.0) -> None:
        super().__init__()
        M, cost, P = A + B @ GAIN, EYE + GAIN.T @ GAIN, torch.zeros_like(EYE)
        for _ in range(200):
            P = cost + DISCOUNT * M.T @ P @ M
        self.scale, self.shift, self.P = scale, shift, nn.Buffer(P)

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        after = s @ A.to(s).T + a @ B.to(s).T
        cost = (s**2).sum(1) + (a**2).sum(1)
        cost = cost + DISCOUNT * ((after @ self.P.to(s)) * after).sum(1)
        return -self.scale * cost + self.shift


def loop(fault: str, size: float, looks: int, seed: int) -> dict[str, int]:
    """SGD on the critic from GAIN, one measurement per update; a drift begins half way."""
    net = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(GAIN)
    before, after, critic = _faulty(fault, size)
    probe, optimizer = probed(net, 1e-3, task=before, critic=critic, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for update in range(looks):
        measurements: Any = probe._updates.measurements
        if 2 * update >= looks:
            measurements.subject = lambda _: (Question(after, critic, seed), net)
        optimizer.zero_grad()
        s = torch.ones(2) + torch.randn(64, 2, generator=generator, dtype=torch.float64)
        with probe(update):
            (-critic(s, net(s)).mean()).backward()
        optimizer.step()
    assert probe._updates.measurements is not None
    return told(probe)


def _faulty(fault: str, size: float) -> tuple[Task, Task, Critic]:
    """The task at first, the task later, and the critic."""
    sound = task()
    if fault == "drift":  # of the model's error in B, `size` times as large
        return sound, task(prior_b=(1 - 0.03 * size) * B), Critic()
    if fault == "critic":
        return sound, sound, Critic(scale=size)
    if fault == "bound":
        # More than paths of these starts can have: 30 is about the largest of 10,000 first rewards,
        # of a few thousand rewards it is about 20.
        return sound, sound, Critic(shift=30.0 / (1 - DISCOUNT) * size)
    if fault == "sign":
        return task(prior_b=size * B), task(prior_b=size * B), Critic()
    if fault == "growth":  # spectral radius · γ of the uncontrolled loop
        grown = task(A=torch.diag(torch.tensor([size / DISCOUNT, 0.5], dtype=torch.float64)))
        return grown, grown, Critic()
    return sound, sound, Critic()
