"""Starts that few samples hold: more returns flag what a sample does not cover.

A measurement tells where a few starts carry much; files without the index still load. Worlds where
few starts carry the variance:

far      a linear-quadratic task; 2% of its starts are six times farther
pole     a damped pole with saturated torque, of which 1 start in 150 falls
other    the former task from Gaussian, uniform, bimodal starts
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.findings import Finding
from gradlab.findings.checks import concentration
from gradlab.measurement.concentration import concentrated, largest_share
from gradlab.runs.decision_rules import heavy_horizons
from gradlab.systems import from_function
from gradlab.tasks import Task
from gradlab.verdicts.measurement.verdict import verdict
from tests.measurement.linear import networks, turning

H = 2
FAR, FARTHER = 0.02, 6.0
SLOW, DT, TORQUE, WIDE = 4.0, 0.1, 3.0, 0.285


@dataclass(frozen=True, eq=False)
class World:
    """A task with its networks."""

    task: Task
    policy: nn.Module
    critic: object


def far() -> World:
    task = turning()
    policy, critic = networks(task)
    centre, spread = torch.tensor([0.6, -0.3], dtype=torch.float64), 0.5**0.5

    def near(n: int, generator: torch.Generator) -> Tensor:
        return spread * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def starts(n: int, generator: torch.Generator) -> Tensor:
        x = near(n, generator)
        rare = torch.rand(n, 1, generator=generator, dtype=torch.float64) < FAR
        return centre + torch.where(rare, FARTHER * x, x)

    return World(replace(task, starts=starts), policy, critic)


def pole() -> World:
    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        torque = TORQUE * torch.tanh(a[..., 0] / TORQUE)
        speed = s[..., 1] * (1 - DT) + DT * (SLOW * torch.sin(s[..., 0]) + torque)
        reward = torch.cos(s[..., 0]) - 1 - 0.01 * torque**2
        return torch.stack([s[..., 0] + DT * speed, speed], dim=-1), reward

    def linear(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        speed = s[..., 1] + DT * (3.0 * s[..., 0] + a[..., 0])
        reward = -0.5 * s[..., 0] ** 2 - 0.01 * a[..., 0] ** 2
        return torch.stack([s[..., 0] + DT * s[..., 1], speed], dim=-1), reward

    def critic(s: Tensor, a: Tensor) -> Tensor:
        own = 3 * s[:, 0] ** 2 + s[:, 1] ** 2 + 0.3 * a[:, 0] ** 2
        return -own - 0.2 * s[:, 0] * a[:, 0]

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return WIDE * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    simulator = from_function(step, 2, 1, alive=lambda s: s[..., 0].abs() < 1.5)
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = torch.tensor([[-8.0, -3.0]], dtype=torch.float64)
    task = Task("pole", simulator, from_function(linear, 2, 1), starts, 0.9, H)
    return World(task, policy, critic)


def other(law: str) -> World:
    world = far()

    def starts(n: int, generator: torch.Generator) -> Tensor:
        x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        side = (torch.rand(n, 1, generator=generator, dtype=torch.float64) < 0.5).double() * 2 - 1
        laws = {
            "gaussian": 0.5**0.5 * x,
            "uniform": 1.5**0.5 * (2 * torch.special.ndtr(x) - 1),
            "bimodal": side * torch.tensor([0.9, 0.4], dtype=torch.float64) + 0.2 * x,
        }
        return torch.tensor([0.6, -0.3], dtype=torch.float64) + laws[law]

    return replace(world, task=replace(world.task, starts=starts))


TASK = turning()


def flagged(task, seed, starts=64, **given):
    policy, critic = networks(TASK)
    profile = gradlab.measure(
        task, policy, critic, horizon=1, starts=starts, seed=seed, judges=4, rehearse=False,
        **given,
    )  # fmt: skip
    return profile, concentration(profile.sanity)


@pytest.mark.parametrize("n", [64, 256])
@pytest.mark.parametrize("law", ["gaussian", "uniform", "bimodal"])
def test_a_law_without_rare_starts_is_not_flagged(law, n):
    world, drawn = other(law), torch.Generator().manual_seed(n)
    for _ in range(20):  # the return of linear feedback is a square of the start
        square = world.task.starts(10 * n, drawn).square().sum(dim=1).numpy()
        found = concentrated((square - np.median(square)) ** 2, n, "squared returns")
        assert found.decision == "pass" and found.value < 0.35


@pytest.mark.parametrize(
    ("ends", "n", "needed"),
    [(1 / 150, 256, 2048), (1 / 150, 2048, 0), (0.02, 64, 512), (0.2, 64, 0)],
)
def test_starts_from_which_on_ends_of_episodes_are_covered(ends, n, needed):
    x = np.zeros(3000)
    x[: round(3000 * ends)] = 1
    found = concentrated(x, n, "ends of episodes")
    assert (found.decision == "fail") == (needed > 0)
    assert not needed or found.threshold == needed


def test_a_rare_fall_at_64_starts_is_refused_by_name():
    world = pole()
    profile = gradlab.measure(
        world.task, world.policy, world.critic, horizon=1, starts=64, judges=4, rehearse=False
    )
    found = concentration(profile.sanity)
    assert found.decision == "fail" and found.at == "ends of episodes"
    assert 512 <= found.threshold <= 4096, "1 in 150 of 640"


def test_the_share_of_the_largest_hundredth():
    assert largest_share(np.ones(200)) == pytest.approx(0.01)
    assert largest_share(np.append(np.ones(99), 99.0)) == pytest.approx(0.5)
    one = np.append(np.zeros(49), 1.0)
    assert largest_share(one) == pytest.approx(0.5), "of 50 the largest counts half"


def test_where_few_starts_carry_the_variance_sentences_on_errors_decide_nothing():
    profile, found = flagged(far().task, 0)
    assert found.decision == "fail"
    told = {each.code: each for each in verdict(profile)}
    assert told["best_horizon"].decision == "undecided" and told["best_horizon"].more == -1
    others = [each for each in profile.sanity if each.code != "starts_carry"]
    passed = Finding("starts_carry", "pass")
    again = {each.code: each for each in verdict(replace(profile, sanity=(*others, passed)))}
    assert again["best_horizon"].value == told["best_horizon"].value
    assert again["best_horizon"].more >= 0, "samples that would decide it, as everywhere"
    assert "heavy_tails" not in told


def test_starts_that_were_given_have_no_law_to_ask():
    policy, critic = networks(TASK)
    states = TASK.starts(64, torch.Generator().manual_seed(0))
    states[7] *= 1e3  # gradients are linear in it
    given = gradlab.measure(TASK, policy, critic, horizon=1, starts=states)
    visited = gradlab.measure(TASK, policy, critic, horizon=1, starts=8, truth="matched")
    for profile in (given, visited):
        assert concentration(profile.sanity) is None
        instead = next(each for each in profile.sanity if each.code == "starts_undrawn")
        assert instead.decision == "skipped"
        assert (instead.value > 0.99) == (profile is given)


ONE = torch.eye(1, dtype=torch.float64)


class Quadratic(nn.Module):
    def forward(self, s, u):
        return -2 * s[:, 0] ** 2 - u[:, 0] ** 2 - 0.5 * s[:, 0] * u[:, 0]


def measured(power):
    """Starts whose size is a Gaussian to a power, 2 × which is that of the gradient."""
    task = gradlab.tasks.linear_quadratic(
        A=0.9 * ONE, B=0.5 * ONE, Q=ONE, R=ONE, noise_covariance=0.01 * ONE,
        start_mean=torch.zeros(1, dtype=torch.float64), start_covariance=ONE, discount=0.9,
    )  # fmt: skip
    policy = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(policy.weight, -0.3)
    z = np.random.default_rng(0).normal(size=(256, 1))
    starts = torch.tensor(np.sign(z) * abs(z) ** power)
    return gradlab.measure(task, policy, Quadratic(), horizon=2, starts=starts)


def test_heavy_starts_are_named_at_every_horizon_and_tame_ones_are_not():
    assert heavy_horizons(measured(1.5), "model") == [0, 1, 2]
    assert heavy_horizons(measured(0.3), "model") == []


def test_a_file_of_before_the_index_loads_and_flags_nothing(tmp_path):
    profile = measured(1.5)
    keep = [q for q, name in enumerate(profile.quantities) if name != "tail_index"]
    older = replace(
        profile,
        quantities=tuple(profile.quantities[q] for q in keep),
        columns={name: each[:, keep] for name, each in profile.columns.items()},
        count=profile.count[:, keep],
        method=profile.method[:, keep],
        left_out=profile.left_out[:, keep],
    )
    again = gradlab.load(older.save(tmp_path / "old.h5"))
    assert "tail_index" not in again.quantities
    assert heavy_horizons(again, "model") == []
