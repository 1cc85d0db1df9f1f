"""Starts that few samples hold: a pilot flags what a sample does not cover.

A measurement tells where a few starts carry much; files without the index still load. Worlds where
few starts carry the variance:

far      a linear-quadratic task; 2% of its starts are six times farther
pole     a damped pole with saturated torque, of which 1 start in 150 falls
other    the former task from Gaussian, uniform, bimodal starts, or Student's t with 5 degrees
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.findings import Finding, failed
from gradlab.findings.checks import rare_starts
from gradlab.measurement.config import MeasureConfig
from gradlab.measurement.rare_starts import (
    MANY,
    MOST,
    SOME,
    Pilot,
    PilotPlan,
    largest_share,
    made_pilot,
    plan_pilot,
)
from gradlab.measurement.resolve import resolve
from gradlab.progress import silent
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
        chi2 = torch.randn(n, 5, generator=generator, dtype=torch.float64).square().sum(dim=1)
        laws = {
            "gaussian": 0.5**0.5 * x,
            "uniform": 1.5**0.5 * (2 * torch.special.ndtr(x) - 1),
            "bimodal": side * torch.tensor([0.9, 0.4], dtype=torch.float64) + 0.2 * x,
            "t5": 0.5**0.5 * x * (3 / chi2[:, None]) ** 0.5,
        }
        return torch.tensor([0.6, -0.3], dtype=torch.float64) + laws[law]

    return replace(world, task=replace(world.task, starts=starts))


TASK = turning()


def pilot_of(world, n, seed=0):
    config = MeasureConfig(horizon=1, starts=n, batch=8, seed=seed)
    return made_pilot(resolve(config, world.task, world.policy, world.critic), silent)


def flagged(task, seed, starts=64, **given):
    policy, critic = networks(TASK)
    profile = gradlab.measure(
        task, policy, critic, horizon=1, starts=starts, seed=seed, judges=4, rehearse=False,
        **given,
    )  # fmt: skip
    return profile, rare_starts(profile.sanity)


@pytest.mark.parametrize("law", ["gaussian", "uniform", "bimodal"])
def test_a_law_without_rare_starts_is_not_flagged(law):
    pilot = pilot_of(other(law), 64)
    assert not pilot.rare and pilot.unseen < 0.7 and pilot.shape < 0.5


@pytest.mark.parametrize(
    ("ends", "n", "needed"), [(1 / 150, 256, 2048), (1 / 150, 2048, 0), (0.0, 64, 0), (0.2, 64, 0)]
)
def test_starts_from_which_on_ends_of_episodes_are_covered(ends, n, needed):
    assert Pilot(100, 0.1, 0.1, ends).needed(n) == needed


def test_a_rare_fall_at_64_starts_is_refused_by_name_and_never_said_twice_differently():
    world = pole()
    for seed in range(2):
        profile = gradlab.measure(
            world.task, world.policy, world.critic, horizon=1, starts=64, seed=seed, judges=4,
            rehearse=False,
        )  # fmt: skip
        assert rare_starts(profile.sanity).decision == "fail"
        (ends,) = failed(profile.sanity, "starts_ending")
        assert 100 < ends.value < 200 and ends.threshold == 2048


def test_the_share_of_the_largest_hundredth():
    assert largest_share(np.ones(200)) == pytest.approx(0.01)
    assert largest_share(np.append(np.ones(99), 99.0)) == pytest.approx(0.5)
    one = np.append(np.zeros(49), 1.0)
    assert largest_share(one) == pytest.approx(0.5), "of 50 the largest counts half"


@pytest.mark.slow
def test_where_rare_starts_are_seen_sentences_on_errors_decide_nothing():
    profile, _ = next(
        one for one in (flagged(far().task, s) for s in range(9)) if one[1].decision == "fail"
    )
    told = {each.code: each for each in verdict(profile)}
    (of_variance,) = (code for code in told if code.startswith("variance_"))
    assert told[of_variance].decision == "undecided"
    others = [each for each in profile.sanity if not each.code.startswith("starts_")]
    passed = Finding("starts_enough", "pass")
    again = {each.code: each for each in verdict(replace(profile, sanity=(*others, passed)))}
    assert again[of_variance].value == told[of_variance].value
    assert "heavy_tails" not in told


def test_starts_that_were_given_have_no_law_to_ask():
    policy, critic = networks(TASK)
    states = TASK.starts(64, torch.Generator().manual_seed(0))
    states[7] *= 1e3  # gradients are linear in it
    given = gradlab.measure(TASK, policy, critic, horizon=1, starts=states)
    visited = gradlab.measure(TASK, policy, critic, horizon=1, starts=8, truth="matched")
    for profile in (given, visited):
        assert rare_starts(profile.sanity) is None
        instead = next(each for each in profile.sanity if each.code == "starts_undrawn")
        assert instead.decision == "skipped"
        assert (instead.value > 0.99) == (profile is given)


@pytest.mark.slow
def test_heavy_tails_without_a_component_of_their_own_are_seen_by_their_shape():
    seen = [pilot_of(other("t5"), 256, seed) for seed in range(4)]
    assert sum(pilot.rare or pilot.shape > 0.5 for pilot in seen) >= 3


def test_a_pilot_is_as_large_and_as_sharp_as_its_price_allows():
    cheap = TASK.simulator

    class Dear:
        state_dim, action_dim, linearization_price = 4, 1, 2e-3

    assert plan_pilot(cheap, 4, 256, 5, 0.9) == PilotPlan(MANY * 256, 44, True)
    assert plan_pilot(cheap, 4, 256, 60, 0.99) == PilotPlan(MANY * 256, 120, True)
    assert plan_pilot(cheap, 5_000, 256, 5, 0.99) == PilotPlan(SOME * 256, 100, True)
    assert plan_pilot(cheap, 70_000, 256, 5, 0.99) == PilotPlan(SOME * 256, 100, False)
    assert plan_pilot(Dear(), 4, 256, 5, 0.99) == PilotPlan(SOME * 256, 100, False)
    assert plan_pilot(cheap, 4, 10_000, 5, 0.99).size == MOST
    assert plan_pilot(cheap, 4, 100_000, 5, 0.99).size == 200_000


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
