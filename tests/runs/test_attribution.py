"""Attributions of measurements of a linear task, whose every mistake was planted."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.measurement.attribution import spread_horizons
from gradlab.networks.mlp import QCritic
from gradlab.runs.attribution import CANCELLING, CAUSES, SOURCES
from gradlab.statistics.shapley import shares
from gradlab.tasks import linear_quadratic
from gradlab.verdicts.attribution import sentences, source
from gradlab.verdicts.choice import chosen
from tests.linear_quadratic import ExactCritic

GAMMA, H = 0.8, 4
A, B = [[0.9, 0.1], [0.1, 0.8]], [[0.3, 0.1], [0.2, 0.4]]
WEIGHT = torch.tensor([[-0.6, -0.2], [-0.3, -0.8]], dtype=torch.float64)


def task(prior, noise=0.0, A=A, B=B):
    ds = len(A)
    return linear_quadratic(
        A, B, noise_covariance=noise * torch.eye(ds, dtype=torch.float64),
        start_mean=[1.0] * ds, discount=GAMMA, prior=prior,
    )  # fmt: skip


def policy(weight=WEIGHT):
    found = nn.Linear(*reversed(weight.shape), bias=False).double()
    found.weight.data = weight.clone()
    return found


ROUNDING = 1e-9  # of a share, in squared gradients: the truth itself leaves out 1e-6 of its norm


def measured(task, weight=WEIGHT, critic=None, starts=40, attribute=(1, H), **rest):
    critic = ExactCritic(task.simulator, weight, GAMMA) if critic is None else critic
    return gradlab.measure(
        task,
        policy(weight),
        critic,
        horizon=H,
        starts=starts,
        law="start",
        attribute=attribute,
        **rest,
    )


@pytest.fixture(scope="module")
def wrong_mass():
    """A cart of 1 kg with friction, pushed for 0.1 s, that the model takes for 1.4 kg."""
    systems = [([[1.0, 0.1], [0.0, 1 - 0.05 / m]], [[0.0], [0.1 / m]]) for m in (1.0, 1.4)]
    weight = torch.tensor([[-3.0, -3.0]], dtype=torch.float64)
    true_A, true_B = systems[0]
    return measured(task(systems[1], A=true_A, B=true_B), weight)


def ends(part):
    return [part.value, part.se, part.low, part.high]


def test_intervals_of_totals_are_those_of_the_table_also_where_a_file_was_read(tmp_path):
    torch.manual_seed(0)
    critics = [QCritic(2, 2, hidden=(4,)).double() for _ in range(3)]
    profile = measured(task((A, [[0.3, 0.1], [0.21, 0.4]]), noise=0.02), critic=critics)
    read = gradlab.load(profile.save(tmp_path / "run.h5"))
    for each in (profile, read):
        attribution = gradlab.attribute(each)
        parts = [(a, a.total, "bias2") for a in attribution.bias]
        parts += [(a, a.total, "variance") for a in attribution.variance]
        parts += [(a, a.rows("critics")[0], "variance_critics") for a in attribution.variance]
        assert {name for *_, name in parts} == {"bias2", "variance", "variance_critics"}
        table = each.table().set_index(["estimator", "horizon", "quantity"])
        for at, part, name in parts:
            row = table.loc[at.estimator, at.horizon, name]
            wanted = [row.value, row.se, row.ci_low, row.ci_high]
            np.testing.assert_allclose(ends(part), wanted, rtol=1e-6, err_msg=name)


def test_shares_sum_to_the_squared_bias_of_the_profile(wrong_mass):
    attribution = gradlab.attribute(wrong_mass)
    assert {(a.estimator, a.horizon) for a in attribution.bias} == {
        (name, n) for name in ("model", "mixed") for n in (1, H)
    }
    for account in attribution.bias:
        total = wrong_mass.estimate(account.estimator, "bias2", account.horizon).value
        size = sum(abs(part.value) for part in account.rows("shapley"))
        assert abs(sum(part.value for part in account.rows("shapley")) - total) <= 1e-12 * size
        assert account.total.value == pytest.approx(total, rel=1e-12)
        for cause in CAUSES:
            share = account.share(cause).value
            mine = [e.value for e in account.rows("entry") if e.name == cause]
            steps = [s.value for s in account.rows("step") if s.name == cause]
            for several in (mine, steps):
                assert abs(sum(several) - share) <= 1e-12 * (sum(map(abs, several)) + size)


class Pushed(nn.Module):
    """The exact critic and a slope c in the first state: ∂Q/∂s is off by c everywhere."""

    def __init__(self, exact, c):
        super().__init__()
        self.exact, self.c = exact, c

    def forward(self, state, action):
        return self.exact(state, action) + self.c * state[:, 0]


@pytest.mark.parametrize(
    ("gain", "L", "code", "unmet"),
    [
        (0.5, math.sqrt(0.5**2 + 0.4**2), "theory", ""),
        (0.95, math.sqrt(0.95**2 + 0.4**2), "theory_outside", ", not L_f < 1 (got 1.031)"),
    ],
)
def test_a_choice_has_the_papers_horizon_from_measured_constants(tmp_path, gain, L, code, unmet):
    """Model g s + b a for the simulator's .4 s + .3 a, both diagonal: ε_f = |g − .4| + |b − .3|."""
    eye, weight = torch.eye(2, dtype=torch.float64), -0.5 * torch.eye(2, dtype=torch.float64)
    simulator, model = (0.4 * eye, 0.3 * eye), (gain * eye, 0.4 * eye)
    given = task(tuple(x.tolist() for x in model), A=simulator[0].tolist(), B=simulator[1].tolist())
    critic = Pushed(ExactCritic(given.simulator, weight, GAMMA), 0.7)
    profile = gradlab.load(measured(given, weight, critic).save(tmp_path / "run.h5"))
    (found,) = (each for each in profile.sanity if each.title == "theory")
    epsilon_f, growth = gain - 0.4 + 0.1, gain - 0.5 * 0.4
    rate = math.log(1 / GAMMA)
    h = brentq(lambda h: h**3 * epsilon_f**2 - GAMMA ** (2 * h) * rate * 0.7**2, 0, 100)
    assert found.value == pytest.approx(h, rel=1e-4)
    assert math.sqrt(gain**2 + 0.4**2) == L
    at = f"ε_f {epsilon_f:.3g}, ε_v 0.7, growth {growth:.3g} a step{unmet}"
    assert (found.code, found.at, found.subject) == (code, at, "model")
    _, advice, *_ = chosen(profile)
    assert [each for each in advice.rest if each.title == "theory"] == [found]


def test_an_exact_model_has_no_horizon_in_theory():
    """The model is a twin of the simulator: (C.31) has no root."""
    profile = measured(task((A, B)), critic=QCritic(2, 2, hidden=(4,)).double())
    (found,) = (each for each in profile.sanity if each.title == "theory")
    assert found.code == "theory_none" and "no root" in found.at


def test_stored_rows_have_the_left_out_values_of_their_shares(wrong_mass):
    found = wrong_mass.attribution
    for cell in range(len(found.coalitions.cells)):
        split = shares(found.coalitions.game(cell))
        rounding = 1e-13 * np.abs(found.coalitions.left_out[cell]).max()
        for cause, share in zip(split.players, split.shapley, strict=True):
            rows = [
                found.rows.estimate(k)
                for k, label in enumerate(found.rows.labels)
                if (label.cell, label.cause, label.step) == (cell, cause, -1)
            ]
            if rows:
                size = max(np.abs(each.left_out).max() for each in rows)
                total = np.sum([each.left_out for each in rows], axis=0)
                assert np.abs(total - share.left_out).max() < 1e-6 * size + rounding


def test_a_wrong_critic_is_blamed_alone():
    torch.manual_seed(1)
    profile = measured(task((A, B)), critic=QCritic(2, 2, (8,)))
    for account in gradlab.attribute(profile).bias:
        assert not account.lost
        for cause in ("states", "A", "B", "reward"):
            assert abs(account.share(cause).fraction) < 1e-30
        parts = [account.share(cause).fraction for cause in ("critic_s", "critic_a")]
        assert sum(parts) == pytest.approx(1.0, rel=1e-9)


def test_with_nothing_wrong_everything_is_nothing():
    for account in gradlab.attribute(measured(task((A, B)))).bias:
        for parts in map(account.rows, ("shapley", "first", "last")):
            assert max(abs(part.value) for part in parts) < ROUNDING
        assert abs(account.total.value) < ROUNDING
        for cause in ("states", "A", "B", "reward"):
            assert abs(account.share(cause).value) < 1e-30
        assert not account.cancelling


@pytest.mark.slow
def test_causes_that_cancel_are_named():
    """Twice the push, and a critic of .55 of the truth: γ (2B)ᵀ(.55 q) errs by .1 γ Bᵀq."""
    given = task((A, [[2 * x for x in row] for row in B]))

    class Dull(nn.Module):
        exact = ExactCritic(given.simulator, WEIGHT, GAMMA)

        def forward(self, s, a):
            return 0.55 * self.exact(s, a)

    profile = measured(given, critic=Dull(), attribute=(1, H))
    attribution = gradlab.attribute(profile)
    account = attribution.account("mixed", 1)
    critic = account.share("critic_s").fraction + account.share("critic_a").fraction
    # |b|² with neither, B or all of the critic cured: .01, .2025, 1 of |γ Bᵀq|²; with both: 0.
    # So B would have 40.4 times the total if ∇_s and ∇_a of the critic were one player.
    assert 30 < account.share("B").fraction < 50
    assert critic == pytest.approx(1 - account.share("B").fraction, abs=1e-3)
    assert "B" in account.cancelling and "critic_s" in account.cancelling
    said = [(s.code, s.subject) for s in sentences(attribution, profile)]
    assert ("causes_cancel", "the mixed gradient (first action)") in said
    first = {part.name: part.fraction for part in account.rows("first")}
    assert first["B"] == pytest.approx((0.01 - 0.2025) / 0.01)  # curing it alone: 20 times worse
    advice = {(s.code, s.subject): s for s in source(profile, attribution, "mixed")}
    assert ("fix", "the model's derivatives") not in advice
    assert advice["fix_harms", "∂f/∂a"].value == pytest.approx(19.25)
    assert not attribution.account("mixed", H).cancelling  # where the critic hardly counts
    for each in attribution.bias:
        for part in each.rows("shapley"):
            large = part.clear and abs(part.value) > CANCELLING * each.total.high
            assert (part.name in each.cancelling) == large


@pytest.mark.slow
def test_variance_sums_to_what_was_measured_and_deterministic_sources_are_exactly_nothing():
    profile = measured(task((A, B), noise=0.01), starts=200)
    for spread in gradlab.attribute(profile).variance:
        total = profile.estimate(spread.estimator, "variance", spread.horizon).value
        assert sum(part.value for part in spread.rows("source")) == pytest.approx(total, rel=1e-12)
        assert spread.total.value == total and not spread.rows("critics")
        parts = dict(zip(SOURCES, spread.rows("source"), strict=True))
        assert parts["policy"].value == parts["member"].value == 0.0
        assert parts["policy"].low == parts["policy"].high == 0.0
        if spread.estimator == "data":
            assert parts["dynamics"].value == 0.0
        else:
            assert parts["dynamics"].low > 0


@pytest.mark.slow
def test_several_critics_stand_beside_the_sum():
    torch.manual_seed(2)
    several = [QCritic(2, 2, (4,)) for _ in range(3)]
    profile = measured(task((A, B)), critic=several, starts=16)
    for spread in gradlab.attribute(profile).variance:
        assert spread.rows("critics")[0].value > 0
        assert sum(p.value for p in spread.rows("source")) == pytest.approx(spread.total.value)


def test_what_cannot_be_attributed_is_said():
    given = task(None)
    simulator = given.simulator
    tail = gradlab.Tail(H, QCritic(2, 2, (4,)), GAMMA)
    chosen = {
        "all": gradlab.Estimator(simulator, simulator, "all", tail),
        "own": gradlab.Estimator(simulator, simulator, "first", tail),
    }
    profile = measured(given, starts=8, estimators=chosen)
    attribution = gradlab.attribute(profile)
    assert "first actions only" in attribution.skipped["all"]
    assert "all of its squared bias is the critic's" in attribution.skipped["own"]
    assert not attribution.bias and {s.estimator for s in attribution.variance} == {"all", "own"}
    said = [(s.code, s.subject) for s in sentences(attribution, profile)]
    assert ("no_causes", "simulator, BPTT") in said
    with pytest.raises(InputError, match=r"attribute is \[7\], expected 1 to 8 horizons"):
        measured(task(None), attribute=(7,))
    with pytest.raises(InputError, match=r"attribute is a PosixPath, expected 1 to 8 horizons"):
        measured(task(None), attribute=Path("run.h5"))
    with pytest.raises(InputError, match="attribute=True"):
        gradlab.attribute(replace(profile, attribution=None))


def test_the_horizons_are_spread_and_hold_the_best():
    assert spread_horizons(50) == (1, 2, 3, 5, 9, 16, 29, 50)
    assert spread_horizons(50, 20) == (1, 2, 3, 5, 9, 20, 29, 50)
    assert spread_horizons(50, 49) == (1, 2, 3, 5, 9, 16, 49, 50)
    assert spread_horizons(4) == (1, 2, 3, 4) and spread_horizons(0) == (0,)
    for longest in range(1, 60):
        for best in range(1, longest + 1):
            found = spread_horizons(longest, best)
            assert best in found and len(found) <= 8 and found[0] == 1 and found[-1] == longest


def test_a_file_gives_the_same_ledger_without_torch(wrong_mass, tmp_path):
    file = wrong_mass.save(tmp_path / "run.h5")
    one, other = (gradlab.attribute(p).table() for p in (wrong_mass, gradlab.load(file)))
    assert one.equals(other) and len(one)
    script = (
        "import sys; from gradlab.runs.attribution import attribute\n"
        "from gradlab.runs.profile import load\n"
        f"attribute(load({str(file)!r})).table(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
