"""Alarms ring where their cause is planted, are silent where it is not, and seldom by chance."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.probe.alarm_log import Desk
from gradlab.probe.alarms import catalogue
from gradlab.probe.alarms.catalogue import ALPHA, Alarm, Look, examine
from gradlab.probe.alarms.task import jacobian_drift
from gradlab.probe.alarms.updates import noise, saturated
from gradlab.probe.row_sinks import Nowhere
from gradlab.statistics.successive import signal
from gradlab.tasks.learned import with_learned_prior

NAN = float("nan")


def vitals(**changed: Any) -> dict[str, Any]:
    zero = np.zeros(2)
    row = {"looked": 100, "nonfinite": zero, "nonfinite_updates": 0, "zero": zero, "watched": 100}
    return row | {"saturation": np.array([0.1, 0.2]), "update": 100, "step": 100} | changed


def bound(share: float, passed: float) -> dict[str, Any]:
    """Vitals whose second action is at its limit."""
    shares, through = np.array([0.1, share]), np.array([0.8, passed])
    return vitals(saturation=shares, attenuation=through)


def steps(**changed: Any) -> dict[str, Any]:
    """Vitals of a sound loop with a critic, 25 of 100 steps looked at."""
    row = {
        "stepped": 25, "still": np.zeros(2), "update_ratio": 2e-3, "learning_rate": 1e-3,
        "grad_norm": 1.0, "critic_steps": 200, "critic_looked": 200,
        "critic_stepped": 50, "critic_still": 0, "critic_norm": 1.0,
        "critic_ratio": 2e-3, "critic_rate": 1e-3,
    }  # fmt: skip
    return vitals(**row | changed)


def burst(size: float, seed: int, **changed: Any) -> dict[str, Any]:
    """32 pairs of gradients in 200 dimensions with |μ| = size, covariance I."""
    g = np.random.default_rng(seed).standard_normal((33, 200))
    g[:, 0] += size
    found = signal((g[1:] * g[:-1]).sum(1), (g**2).sum(1))
    return {
        "pairs": found.pairs, "energy": found.energy, "signal": found.signal,
        "root_squares": found.root_squares, "signal_share": found.share, "share_se": found.se,
        "dead_inputs": 0, "update": 100, "step": 100,
    } | changed  # fmt: skip


def measured(**changed: Any) -> dict[str, Any]:
    row = {
        "starts": 64, "variance": np.ones((4, 11)), "bias2": np.ones((4, 11)), "step": 7,
        "growth": 0.01, "growth_se": 0.01, "critic_gap": -1.0, "critic_gap_se": 0.3,
        "value": 5.0, "value_se": 0.1, "return_bound": 10.0, "reward_max": 1.0,
        "jacobian_error": -1.0, "jacobian_error_se": 0.1, "dead_action": np.zeros(2),
        "cosine": np.full((4, 11), 0.5), "cosine_se": np.full((4, 11), 0.1), "sign_reliable": 10.0,
        "over_data": 1.0, "over_data_se": 0.1, "kept_high": 10.0, "chosen_horizon": 3.0,
        "lyapunov": -0.1, "lyapunov_se": 0.05, "discount": 0.9, "float32_step": np.inf,
        "jacobian_states": 1600, "jacobian_nonfinite": 0, "starts_lost": 0, "nonfinite_where": "",
        "float32_error": 1e-5, "float32_cosine": 1.0, "sampling_error": 0.3, "batch": 256,
    }  # fmt: skip
    return row | changed


def rung(table: str, *rows: Mapping[str, Any]) -> set[str]:
    return {each.kind for each in examine(table, Look(list(rows), len(rows), ("0.weight", "b")))}


EXPONENTIAL = {"growth": 0.3, "growth_se": 0.03, "growth_evidence": 20.0}
SHORT = {"kept_high": 9.0, "over_data": -1.0}  # the longest horizon is not among the best
AWAY = np.where(np.arange(11) >= 6, -0.8, 0.5) * np.ones((4, 1))  # cosines from horizon 6 on
QUIET: list[tuple[str, list[dict[str, Any]]]] = [
    ("vitals", [vitals()]),
    ("vitals", [vitals(saturation=np.array([0.55, NAN]))]),
    ("vitals", [vitals(zero=np.array([99.0, NAN]))]),
    ("vitals", [vitals(looked=1, zero=np.array([1.0, 0.0]))]),
    ("vitals", [vitals(model_gradients=0, model_shared=0)]),
    ("vitals", [vitals(saturation=np.array([0.1, 0.9]))] * 15),
    ("vitals", [bound(0.86, 0.05), *[bound(1.0, 0.0)] * 14]),  # a young critic
    ("vitals", [bound(0.86, 0.05), *[bound(1.0, 0.0)] * 14, bound(0.4, 0.2)]),
    ("vitals", [bound(0.9, 0.2)] * 16),  # enough gradient is left
    ("vitals", [bound(0.99, 0.001), *[bound(0.1, 0.5)] * 4]),
    ("vitals", [steps()]),
    ("vitals", [steps(still=np.array([24.0, NAN]))]),
    ("vitals", [steps(still=np.array([25.0, 0.0]), zero=np.array([80.0, 0.0]))]),
    ("vitals", [steps(stepped=1, still=np.array([1.0, 1.0]))]),
    ("vitals", [steps(still=np.array([0.0, NAN]))]),
    ("vitals", [steps(critic_stepped=1, critic_still=1)]),
    ("vitals", [steps(update_ratio=0.01, critic_ratio=0.01)]),
    ("vitals", [steps(update_ratio=0.1, critic_ratio=0.1)]),  # θ begins near 0
    ("vitals", [steps(update_ratio=NAN, critic_ratio=NAN)]),
    ("successive", [burst(4.0, k) for k in range(64)]),
    ("successive", [burst(0.0, 0)]),
    ("successive", [burst(4.0, k, dead_inputs=3) for k in range(2)]),
    ("measured", [measured()]),
    ("measured", [measured(growth=0.08, growth_se=0.03)]),
    ("measured", [measured(kept_high=10, **EXPONENTIAL)]),
    ("measured", [measured(**SHORT | EXPONENTIAL | {"growth_evidence": 3.0})]),
    ("measured", [measured(lyapunov=0.2, lyapunov_se=0.05)]),
    ("measured", [measured(lyapunov=-float(np.log(0.9)) + 1e-9, lyapunov_se=0.0)]),
    ("measured", [measured(value=-12.0, lyapunov=0.05)]),
    ("measured", [measured(cosine=AWAY, cosine_se=np.full((4, 11), 0.5))]),
    ("measured", [measured(**SHORT | {"over_data": 0.2})]),
    ("measured", [measured(float32_error=0.2)]),
    ("measured", [measured(float32_error=0.005, sampling_error=0.001)]),
    ("measured", [measured(critic_gap=0.5, critic_gap_se=0.3)]),
    ("measured", [measured(value=10.1)]),
    ("measured", [measured(), measured(jacobian_error=-0.9)]),
    ("measured", [{"starts": 64, "step": 1, "variance": np.ones((4, 11))}]),
]
LOUD: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("non-finite gradient", "vitals",
     [vitals(nonfinite_updates=2, nonfinite=np.array([0.0, 2.0]))]),
    ("dead path", "vitals", [vitals(zero=np.array([100.0, 0.0]))]),
    ("saturated actor", "vitals", [vitals(saturation=np.array([0.1, 0.9]))] * 16),
    ("saturated actor", "vitals", [bound(0.99, 0.001)]),
    ("saturated actor", "vitals", [bound(0.1, 0.5), *[bound(0.99, 0.001)] * 16]),
    ("actor does not move", "vitals", [steps(still=np.array([25.0, 25.0]))]),
    ("actor does not move", "vitals", [steps(still=np.array([25.0, NAN]))]),
    ("actor moves in part", "vitals", [steps(still=np.array([25.0, 0.0]))]),
    ("actor moves in part", "vitals", [steps(still=np.array([NAN, 0.0, NAN]), zero=np.zeros(3))]),
    ("critic does not move", "vitals", [steps(critic_still=50)]),
    ("critic does not move", "vitals",
     [steps(critic_steps=0, critic_looked=0, critic_stepped=0, critic_ratio=NAN)]),
    ("learning rate too large", "vitals", [steps(update_ratio=0.03, learning_rate=0.03)]),
    ("critic's learning rate too large", "vitals", [steps(critic_ratio=0.03, critic_rate=0.03)]),
    ("θ leaks into the model", "vitals", [vitals(model_gradients=3)]),
    ("θ leaks into the model", "vitals", [vitals(model_shared=1)]),
    ("gradient no better than noise", "successive", [burst(0.0, k) for k in range(64)]),
    ("dead inputs", "successive", [burst(4.0, k, dead_inputs=3) for k in range(3)]),
    ("variance doubling time", "measured", [measured(**SHORT, **EXPONENTIAL)]),
    ("variance doubling time", "measured", [measured(kept_high=NAN, **EXPONENTIAL)]),
    ("diverging sensitivities", "measured",
     [measured(lyapunov=0.4, float32_step=230.0)]),
    ("wrong direction", "measured", [measured(cosine=AWAY, sign_reliable=5.0)]),
    ("worse than without a model", "measured", [measured(**SHORT | {"over_data": 1.0})]),
    ("non-finite Jacobian", "measured",
     [measured(jacobian_nonfinite=2, starts_lost=1, nonfinite_where="first at step 3 of start 5")]),
    ("precision-limited", "measured", [measured(float32_error=0.5)]),
    ("critic-dominated bias", "measured", [measured(critic_gap=2.0, critic_gap_se=0.3)]),
    ("critic beyond its bound", "measured", [measured(value=-12.0)]),
    ("drifting model Jacobian", "measured", [measured(), measured(jacobian_error=0.0)]),
    ("dead action", "measured", [measured(dead_action=np.array([0.0, 1.0]))]),
]  # fmt: skip


@pytest.mark.parametrize("table, rows", QUIET)
def test_sound_rows_are_silent(table: str, rows: list[dict[str, Any]]) -> None:
    assert rung(table, *rows) == set()


@pytest.mark.parametrize("kind, table, rows", LOUD)
def test_a_planted_cause_rings_its_alarm_alone(
    kind: str, table: str, rows: list[dict[str, Any]]
) -> None:
    assert rung(table, *rows) == {kind}
    (alarm,) = examine(table, Look(rows, len(rows), ("0.weight", "b")))
    assert "nan" not in alarm.message and ":" in alarm.message


@pytest.mark.parametrize(
    "away, words",
    [
        (slice(6, None), "at horizon 10 .* use horizons up to 5, or refit the model$"),
        (slice(1, 4), "at horizon 3 .* improve the critic, or use horizons above 3$"),
        (slice(0, None), "refit the model before any update follows it$"),
    ],
)
def test_the_way_back_from_a_wrong_direction_depends_on_where_it_is(
    away: slice, words: str
) -> None:
    cosine = np.full((4, 11), 0.5)
    cosine[:, away] = -0.8
    (alarm,) = examine("measured", Look([measured(cosine=cosine)], 1))
    assert re.search(words, alarm.message)


def test_every_alarm_has_a_planted_cause() -> None:
    tested = {kind for kind, _, _ in LOUD}
    assert len(tested) == sum(len(each) for each in catalogue.TESTS.values())


def test_levels_over_all_looks_sum_to_the_stated_rate() -> None:
    total = sum(Look([{}], k).level for k in range(1, 100_001))
    assert total == pytest.approx(ALPHA, rel=1e-4)


def test_noise_rings_falsely_in_at_most_the_stated_share_of_runs() -> None:
    """At the worst gradient of the hypothesis, whose cosine is exactly 0.1, over 40 looks."""
    size = (200 * 0.01 / 0.99) ** 0.5
    false = 0
    for run in range(200):
        rows = [burst(size, 1000 * run + k) for k in range(40)]
        looks = (Look(rows[:k], k) for k in range(1, 41))
        false += any(noise(look) is not None for look in looks)
    assert false <= 6  # 200 · 1% = 2 expected at most; 6 or more has probability 0.02


def test_saturation_rings_falsely_in_at_most_the_stated_share_of_runs() -> None:
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(500):
        shares = generator.binomial(100, 0.5, size=(40, 1)) / 100
        rows = [vitals(saturation=share) for share in shares]
        false += any(saturated(Look(rows[: k + 1], k + 1)) for k in range(len(rows)))
    assert false <= 12


def test_an_actor_that_saturates_late_in_a_long_run_rings() -> None:
    """Each row has 25 passes: alone, none could ring at the level of its ten-thousandth look."""
    rows = [vitals(saturation=np.array([0.1, 0.97]), watched=25)] * 16
    assert saturated(Look(rows[:1], 10_000)) is None
    assert saturated(Look(rows, 10_000)) is not None


def test_drift_rings_falsely_in_at_most_the_stated_share_of_runs() -> None:
    generator = np.random.default_rng(1)
    false = 0
    for _ in range(1000):
        errors = generator.normal(-1.0, 0.1, size=40)
        rows = [measured(jacobian_error=error) for error in errors]
        looks = (Look(rows[:k], k) for k in range(1, 41))
        false += any(jacobian_drift(look) is not None for look in looks)
    assert false <= 20


def test_an_alarm_is_told_again_only_after_twice_the_updates() -> None:
    ear, desk = io.StringIO(), Desk(Nowhere(), ())
    desk.ear = ear
    for update in range(1, 1001):
        desk.ring(Alarm("kind", "message"), update, update)
    assert [line.split(",")[1].split(":")[0] for line in ear.getvalue().splitlines()] == [
        f" step {2**k}" for k in range(10)
    ]
    desk.ring(Alarm("another", "message"), 1001, 1001)
    assert len(desk.alarms) == 11


class Tanh(nn.Module):
    """A policy that stops listening to its gradient, by what is planted."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.first, self.last, self.detached = nn.Linear(3, 8), nn.Linear(8, 1), detached

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(state))
        return self.last(hidden.detach() if self.detached else hidden)


@pytest.mark.parametrize("detached", [True, False])
def test_a_detached_layer_in_a_loop_is_a_dead_path(detached: bool) -> None:
    torch.manual_seed(0)
    policy = Tanh(detached)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, overhead_budget=1.0, clock=lambda: 0.0)
    for step in range(100):
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 3)).sum().backward()
        optimizer.step()
    told = [each.message for each in probe.alarms if each.kind == "dead path"]
    assert bool(told) == detached
    assert all("first.weight, first.bias" in each for each in told)


@pytest.mark.parametrize("planted", [True, False])
def test_an_input_that_is_always_zero_is_told_with_its_column(planted: bool) -> None:
    torch.manual_seed(0)
    policy = Tanh(detached=False)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, overhead_budget=1.0, clock=lambda: 0.0)
    for step in range(200):
        optimizer.zero_grad()
        state = torch.randn(8, 3)
        state[:, 1] *= not planted
        with probe(step):
            (policy(state) - 1).square().sum().backward()
        optimizer.step()
    told = [each.message for each in probe.alarms if each.kind == "dead inputs"]
    assert bool(told) == planted and all("first.weight: 1" in each for each in told)


@pytest.mark.parametrize("leak, quiet", [("optimizer", False), ("own", True), ("shared", False)])
def test_policy_updates_that_train_the_model_are_told(leak: str, quiet: bool) -> None:
    torch.manual_seed(0)
    ensemble = GaussianEnsemble(2, 1, hidden=(8,), members=2, reward=True)
    task = with_learned_prior(linear_task(), ensemble.double())
    policy = nn.Linear(2, 1, dtype=torch.float64)
    weights = list(ensemble.parameters())
    if leak == "shared":
        policy.register_parameter("extra", weights[0])
    held = [*policy.parameters(), *(weights if leak == "optimizer" else [])]
    optimizer = torch.optim.SGD(held, 0.0)
    probe = gradlab.Probe(policy, optimizer, task=task, overhead_budget=1e-9)
    for step in range(100):
        optimizer.zero_grad()
        s = torch.randn(4, 2, dtype=torch.float64)
        with probe(step):
            assert task.prior is not None
            task.prior.step(s, policy(s), None).reward.sum().backward()
        optimizer.step()
    probe.close()  # without a budget the window ends here
    told = [each for each in probe.alarms if each.kind == "θ leaks into the model"]
    assert (told == []) == quiet


def linear_task() -> gradlab.Task:
    eye = torch.eye(2, dtype=torch.float64)
    return gradlab.tasks.linear_quadratic(
        A=0.9 * eye, B=eye[:, :1], Q=eye, R=eye[:1, :1], noise_covariance=0.01 * eye,
        start_mean=torch.zeros(2, dtype=torch.float64), start_covariance=eye, discount=0.8,
    )  # fmt: skip
