"""Steering: exact worlds, and the page that tells of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from analyses.steering import linear_quadratic as lq
from analyses.steering import report, training
from analyses.steering.linear_quadratic import ACTION, ARMS, GAMMA, HORIZONS, STATE, Arm, Policy
from gradlab import Estimator, Tail
from gradlab.truth.lqr import lqr_gradient, lqr_return


class Quadratic(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, s, a):
        both = torch.cat([s, a], dim=1)
        return -((both @ self.matrix) * both).sum(dim=1)


@pytest.fixture(scope="module")
def worlds():
    return lq.Worlds(tuple(lq.world_of(seed) for seed in (3, 4, 7)))


@pytest.mark.parametrize("place", range(len(HORIZONS)))
def test_a_closed_form_gradient_is_that_of_the_estimator(worlds, place):
    critic, _ = lq.fit_critic(worlds, worlds.weight, 2)
    states = torch.randn(16, STATE, generator=torch.Generator().manual_seed(0)).double()
    horizon = torch.full((1, 3), HORIZONS[place])
    moments = (states.T @ states / 16).expand(3, -1, -1)
    found = lq.model_gradient(worlds, worlds.weight[None], critic, horizon, moments)
    for i, world in enumerate(worlds.each):
        policy = nn.Linear(STATE, ACTION, bias=False).double()
        policy.weight.data = world.weight.clone()
        tail = Tail(HORIZONS[place], Quadratic(critic[i]), GAMMA)
        estimator = Estimator(world.prior, world.prior, "all", tail)
        expected = estimator.mean_gradient(policy, states)
        assert torch.allclose(found[0, i].flatten(), expected)


def test_exact_returns_and_gradients_are_those_of_closed_forms(worlds):
    value, true = lq.compute_value(worlds, worlds.weight), lq.true_gradient(worlds, worlds.weight)
    unit = torch.eye(STATE).double()
    for i, world in enumerate(worlds.each):
        assert torch.allclose(value[i], lqr_return(world.system, world.weight, unit, GAMMA))
        expected = lqr_gradient(world.system, world.weight, unit, GAMMA, "all")
        assert torch.allclose(true[i].flatten(), expected)
    wild = worlds.weight + 100.0
    assert (lq.compute_value(worlds, wild) == -torch.inf).all()


def test_judged_returns_are_those_of_rollouts(worlds):
    states = torch.randn(lq.JUDGES, STATE, generator=torch.Generator().manual_seed(1)).double()
    moments = (states.T @ states / lq.JUDGES).expand(3, -1, -1)
    weight = torch.zeros_like(worlds.weight)
    weight[:, 0, 0] = 0.1
    found = lq.judged_return(worlds, weight, moments)
    for i, world in enumerate(worlds.each):
        state, total = states, torch.zeros(lq.JUDGES).double()
        for t in range(lq.T):
            out = world.system.step(state, state @ weight[i].T)
            total, state = total + GAMMA**t * out.reward, out.state
        assert torch.allclose(found[i], total.mean(), rtol=1e-10)


def test_updates_are_those_of_torchs_adam(worlds):
    theta = worlds.weight.clone().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.01)
    none = torch.zeros_like(worlds.weight)
    policy = Policy(worlds.weight, none, none)
    for k in range(4):
        gradient = torch.sin(k + worlds.weight)
        theta.grad = -gradient
        optimizer.step()
        policy = lq.ascend(policy, gradient, torch.full((3,), 0.01).double())
    assert torch.allclose(policy.weight, theta.detach())


def test_a_candidate_among_others_takes_its_own_updates(worlds):
    critic, _ = lq.fit_critic(worlds, worlds.weight, 0)
    none = torch.zeros_like(worlds.weight)
    policy, batches = Policy(worlds.weight, none, none), worlds.draws(0).batches
    places = torch.tensor([[0, 1, 2], [3, 3, 3]])
    both = lq.follow(worlds, policy, critic, places, worlds.rate, batches, (1, 5))
    alone = lq.follow(worlds, policy, critic, places[:1], worlds.rate, batches, (5,))
    assert torch.allclose(both.weight[1], alone.weight[0])
    assert torch.equal(both.picked(torch.tensor([1, 1, 3])).weight[2], both.weight[3, 2])


def test_a_policy_is_held_where_the_judges_see_it_fall():
    worlds = lq.Worlds(tuple(lq.world_of(seed) for seed in range(8)))
    none = torch.zeros_like(worlds.weight)
    policy, draws = Policy(worlds.weight, none, none), worlds.draws(0)
    critic, _ = lq.fit_critic(worlds, worlds.weight, 0)
    place = torch.full((1, 8), HORIZONS.index(1))
    tried = lq.follow(worlds, policy, critic, place, worlds.rate, draws.batches, (25,)).weight[0]
    before, after = (
        lq.judged_return(worlds, each, draws.judges[0]) for each in (policy.weight, tried)
    )
    falls = after <= before
    assert 0 < falls.sum() < 8
    shares, refused = lq.run_arm(worlds, Arm("fixed", hold=True, horizon=1), 1)
    assert refused.tolist() == falls.double().tolist()
    expected = torch.where(falls, 0.0, lq.share_of(worlds, tried))
    assert torch.allclose(torch.from_numpy(shares[0]), expected)


def test_a_policy_without_a_return_stays(worlds):
    lost = tuple(
        lq.World(w.seed, w.system, w.prior, w.weight + 100.0, w.error, w.rate) for w in worlds.each
    )
    shares, refused = lq.run_arm(lq.Worlds(lost), Arm("fixed"), 1)
    assert (refused == 1).all()
    assert not (shares == shares).any()  # −∞ − (−∞)


def test_prices_count_fits_gains_and_judged_policies():
    assert ARMS["fixed 5"].price == 5760
    assert ARMS["gain 5"].price == 5760 * 6
    assert ARMS["rehearse"].price == 5760 + 13 * 1440
    assert ARMS["rehearse, no hold"].price == 5760 + 12 * 1440
    assert ARMS["accept"].price == 5760 + 5 * 2 * 1440
    assert lq.fits_of(ARMS["fixed 5"]) == 34 and lq.fits_of(ARMS["rehearse"]) == lq.FITS
    better = lq.KINDS["better critics"]
    assert better.price == ARMS["rehearse"].price and lq.fits_of(better) == lq.FITS


def test_a_rate_that_falls_makes_smaller_steps_and_better_critics_err_less(worlds):
    critic, _ = lq.fit_critic(worlds, worlds.weight, 0)
    better, _ = lq.fit_critic(worlds, worlds.weight, 0, better=2.0)
    exact, _ = lq.fit_critic(worlds, worlds.weight, 0, better=1e12)
    assert torch.allclose(better - exact, (critic - exact) / 2)
    whole, _ = lq.run_arm(worlds, Arm("fixed", (1,), horizon=25), 1)
    falling, _ = lq.run_arm(worlds, Arm("fixed", (1,), horizon=25, decay=True), 1)
    assert not (falling == whole).any()


def planted(ahead: float, ahead_at_equal_steps: float) -> list[dict]:
    """Worlds in which every arm has the share .5 and rehearse and accept are ahead."""
    rows = []
    for family in ("mild", "hard"):
        for seed in range(20):
            for arm in lq.ARMS:
                better = arm in ("rehearse", "accept")
                noise = 0.01 * np.sin(seed)
                share = 0.5 + better * (ahead + noise)
                equal = 0.5 + better * (ahead_at_equal_steps + noise)
                rows.append({
                    "family": family, "seed": seed, "arm": arm, "share": [0.1, 0.2, 0.3, share],
                    "equal_steps": equal, "held": 0.5,
                })  # fmt: skip
    return rows


def test_an_arm_pays_where_it_is_ahead_at_both_budgets():
    said = report.judge(planted(0.2, -0.1)).splitlines()[2:]
    assert ["pays" in line for line in said] == [True, False, True, False]
    assert ["refuted" in line for line in said] == [False, True, False, True]


def test_worlds_below_their_start_do_not_pay():
    rows = planted(0.2, 0.2)
    for row in rows:
        if row["arm"] == "rehearse" and row["seed"] < 2:
            row["share"] = [0.0, 0.0, 0.0, -0.01]
    assert "undecided" in report.judge(rows).splitlines()[2]


def test_the_best_fixed_is_that_of_each_world():
    rows = planted(0.2, 0.2)
    for row in rows:
        if row["arm"] == f"fixed {lq.HORIZONS[row['seed'] % 4]}":
            row["share"][-1] = 0.9
    wide = report.shares_of(rows, "mild", steps=False)
    assert (wide[report.BEST] == 0.9).all() and (wide["fixed 0"] == 0.9).sum() == 5


def test_an_interval_of_worlds_covers_a_mean():
    generator = np.random.default_rng(1)
    drawn = [report.interval_of(1 + generator.normal(size=30), 400) for _ in range(200)]
    met = [low < 1.0 < high for _, low, high in drawn]
    assert np.mean(met) > 0.88


def test_a_return_is_averaged_up_to_where_it_is_asked_for():
    row = {"seconds": [0.0, 10.0, 20.0], "returns": [0.0, 10.0, 10.0]}
    assert report.averaged(row, "seconds", 20.0) == pytest.approx(7.5)
    assert report.averaged(row, "seconds", 15.0) == pytest.approx((50 + 50) / 15)


def trained(ahead: float, ahead_late: float, arms=training.ARMS) -> list[dict]:
    """Hopper: at equal iterations both steered arms are ahead by `ahead`; they take twice the
    seconds, and at those of the fixed ones they are ahead by `ahead_late`."""
    rows = []
    for arm in arms:
        better = arm in training.STEERED
        for seed in range(6):
            early, late = (0.5 * ahead_late, ahead_late) if better else (0.0, 0.0)
            end = 4 * ahead - 2 * early - 2 * late + 0.01 * np.sin(seed) if better else late
            returns = [0.0, 2 * early, 2 * early, end]
            rows.append({
                "task": "Hopper-v5", "arm": arm, "seed": seed, "iterations": [0, 1, 2, 3],
                "returns": [each + 0.01 * np.sin(seed + 7 * better) for each in returns],
                "seconds": [(1 + better) * k for k in range(4)], "transitions": [0, 1, 2, 3],
                "judged": [0] * 4, "held": 0.5 if better else None,
            })  # fmt: skip
    return rows


@pytest.mark.parametrize(
    ("ahead", "late", "word"),
    [(9.0, 5.0, "**pays**"), (9.0, -5.0, "**refuted**"), (9.0, 0.0, "only at equal iterations")],
)
def test_learned_models_are_judged_at_equal_seconds(ahead, late, word):
    said = report.judge_learned(trained(ahead, late)).splitlines()
    hopper = [line for line in said if line.startswith("Hopper-v5 | ")]
    assert len(hopper) == 2 and all(word in line for line in hopper)


def test_what_is_not_over_is_not_judged():
    said = report.judge_learned(trained(1.0, 1.0, arms=("rule", "h0")))
    assert "Hopper-v5 |  | not over, 2 of 6 arms |" in said and "**" not in said


def test_seeds_that_end_below_their_start_are_counted():
    rows = trained(1.0, 1.0, arms=("h0",))
    rows[0]["returns"][-1] = rows[0]["returns"][0] - 1
    assert report.below([rows[0]]) == 1 and report.below(rows[1:2]) == 0
