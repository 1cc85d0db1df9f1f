"""Starts that few samples hold: strata where a pilot asks for them, a flag for what none covers."""

from dataclasses import astuple, replace
from itertools import product

import numpy as np
import pytest
import torch

import gradlab
from gradlab.choice.best import at_batch, singles
from gradlab.measurement.problem import (
    FEW,
    MANY,
    MORE,
    MOST,
    SOME,
    Given,
    Pilot,
    PilotPlan,
    plan_pilot,
    problem,
)
from gradlab.measurement.rare_starts import largest_share, with_pilot
from gradlab.progress import silent
from gradlab.runs.check_results import RARE, UNDRAWN, CheckResult, rare_starts
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Strata
from gradlab.verdicts.measurement.verdict import verdict
from tests.measurement.rare_worlds import far, other, pole
from tests.measurement.turning_world import networks, turning

TASK = turning()


def posed(world, n, seed=0, strata=None, **changed):
    given = Given(world.task, world.policy, world.critic, None, 1, n, 8, None, "ignore", None, seed)
    plain = problem(replace(given, **changed))
    return plain, with_pilot(plain, strata, silent)


def flagged(task, seed, starts=64, **given):
    policy, critic = networks(TASK)
    profile = gradlab.measure(
        task, policy, critic, horizon=1, starts=starts, seed=seed, judges=4, rehearse=False,
        **given,
    )  # fmt: skip
    return profile, rare_starts(profile.sanity)


@pytest.mark.parametrize("law", ["gaussian", "uniform", "bimodal"])
def test_a_sample_without_rare_starts_is_the_plain_one(law):
    plain, piloted = posed(other(law), 64)
    assert piloted.setting is plain.setting
    pilot = piloted.pilot
    assert pilot.strata is None and not pilot.rare and pilot.unseen < 0.7 and pilot.shape < 0.5


def test_starts_six_times_farther_make_strata():
    world, n = far(), 64
    plain, piloted = posed(world, n)
    starts, strata = piloted.setting.starts, piloted.pilot.strata
    assert len(starts.states) == n and len(torch.unique(starts.states, dim=0)) == n
    assert strata.count.sum() == n and strata.count.min() >= FEW
    assert (strata.count % 2 == 0).all(), "halves have half of every stratum"
    assert float(starts.weight.sum()) == pytest.approx(n)
    share = strata.times * strata.count / n
    np.testing.assert_allclose(share, [0.5, 0.3, 0.15, 0.04, 0.007, 0.003], atol=0.001)
    distance = (starts.states - starts.states.mean(dim=0)).norm(dim=1).numpy()
    reach = [distance[strata.label == h].mean() for h in range(6)]
    assert reach[-1] > reach[-2] > 3 * reach[0]
    assert piloted.pilot.unseen < 0.3
    again = posed(world, n)[1].setting.starts
    assert torch.equal(starts.states, again.states)
    off = posed(world, n, strata=False)[1]
    assert torch.equal(off.setting.starts.states, plain.setting.starts.states)


def test_numbers_of_strata_have_on_reading_the_intervals_of_their_table(tmp_path):
    world, changed = far(), {}
    for batch in (8, 32):
        changed[batch] = gradlab.measure(
            world.task, world.policy, world.critic, horizon=1, starts=64, batch=batch, judges=4,
            rehearse=False,
        )  # fmt: skip
    read = gradlab.load(changed[8].save(tmp_path / "run.h5"))
    assert read.config["pilot"]["counts"]
    for quantity in ("variance", "snr", "mse", "relative_mse"):
        found = interval(quantity, read.estimate("data", quantity, 0))
        assert found == read.interval("data", quantity, 0), quantity
    cells = [("data", 0), ("true_dynamics", 1)]
    other = at_batch(read, 32, singles(read, cells))
    for cell, quantity in product(cells, ("mse", "relative_mse")):
        found, wanted = (each.interval(cell[0], quantity, cell[1]) for each in (other, changed[32]))
        np.testing.assert_allclose(astuple(found)[:3], astuple(wanted)[:3], rtol=1e-9)


@pytest.mark.slow
def test_weights_make_the_share_of_rare_starts_that_of_the_law():
    """2%, of which the pilots of 1,920 starts have 38 ± 6, the strata about a dozen."""
    found = []
    for seed in range(8):
        starts = posed(far(), 64, seed)[1].setting.starts
        rare = (starts.states - torch.tensor([0.6, -0.3])).norm(dim=1) > 4.5 * 0.5**0.5
        assert int(rare.sum()) >= 5
        found.append(float((rare * starts.weight).mean()))
    # Of 2% of six times wider Gaussians exp(-(4.5/6)²/2) are so far away.
    assert np.mean(found) == pytest.approx(0.02 * np.exp(-0.28), abs=0.004)


def test_episodes_that_end_rarely_are_a_stratum_of_their_own():
    piloted = posed(pole(), 256)[1]
    pilot, starts = piloted.pilot, piloted.setting.starts
    assert 1 / 200 < pilot.ends < 1 / 100
    assert pilot.strata.count[-1] >= 32
    assert pilot.strata.times[-1] * pilot.strata.count[-1] / 256 == pytest.approx(pilot.ends)
    last = starts.states[torch.from_numpy(pilot.strata.label == len(pilot.strata.count) - 1)]
    assert (last.abs().sum(dim=1) > 0.5).all(), "they begin far from upright"


@pytest.mark.parametrize(
    ("ends", "n", "random", "stratified", "needed"),
    [
        (1 / 150, 64, False, True, 256),
        (1 / 30, 64, False, True, 0),
        (1 / 150, 256, False, True, 0),
        (1 / 500, 256, False, True, 1024),
        (1 / 150, 256, True, True, 2048),
        (1 / 150, 2048, True, True, 0),
        (1 / 150, 256, False, False, 256),
        (0.0, 64, False, False, 0),
    ],
)
def test_starts_from_which_on_ends_of_episodes_are_covered(ends, n, random, stratified, needed):
    strata = Strata(np.zeros(4, dtype=np.int64), np.ones(1), 100) if stratified else None
    pilot = Pilot(PilotPlan(100, 100, 10, True), 100, 0.1, 0.1, ends, random, 0.0, strata)
    assert pilot.needed(n) == needed


def test_a_rare_fall_at_64_starts_is_refused_by_name_and_never_said_twice_differently():
    world = pole()
    for seed in range(2):
        profile = gradlab.measure(
            world.task, world.policy, world.critic, horizon=1, starts=64, seed=seed, judges=4,
            rehearse=False,
        )  # fmt: skip
        check = rare_starts(profile.sanity)
        assert not check.passed
        assert "episodes end in 1 of" in check.result
        assert "variance, error and SNR need N ≥ 256" in check.result
        assert "gain and returns hold" in check.meaning


def test_the_share_of_the_largest_hundredth():
    assert largest_share(np.ones(200)) == pytest.approx(0.01)
    assert largest_share(np.append(np.ones(99), 99.0)) == pytest.approx(0.5)
    one = np.append(np.zeros(49), 1.0)
    assert largest_share(one) == pytest.approx(0.5), "of 50 the largest counts half"


@pytest.mark.slow
def test_where_rare_starts_are_seen_sentences_on_errors_decide_nothing():
    profile, found = next(
        one for one in (flagged(far().task, s, strata=False) for s in range(9)) if not one[1].passed
    )
    told = {each.about: each for each in verdict(profile)}
    assert not told["variance"].decided and told["variance"].text.startswith("Not reliable at N =")
    assert "variance, error and SNR are not decided at N = 64" in found.meaning
    passed = CheckResult(RARE, "", "", True)
    others = [each for each in profile.sanity if each.check != RARE]
    again = {each.about: each for each in verdict(replace(profile, sanity=(*others, passed)))}
    assert again["variance"].text in told["variance"].text
    assert "tails" not in told


def test_strata_decide_what_the_plain_sample_does_not():
    profile, found = flagged(far().task, 0)
    assert found.passed and "strata" in found.result
    recorded = profile.config["pilot"]
    assert sum(recorded["counts"]) == 64 and sum(recorded["shares"]) == pytest.approx(1)
    assert recorded["starts"] == MORE * MANY * 64 and recorded["score"] == "differences"


def test_starts_that_were_given_have_no_law_to_ask():
    policy, critic = networks(TASK)
    states = TASK.starts(64, torch.Generator().manual_seed(0))
    states[7] *= 1e3  # gradients are linear in it
    given = gradlab.measure(TASK, policy, critic, horizon=1, starts=states)
    visited = gradlab.measure(TASK, policy, critic, horizon=1, starts=8, truth="matched")
    for profile, why in ((given, "they were given"), (visited, "each is a visited state")):
        assert rare_starts(profile.sanity) is None
        instead = next(each for each in profile.sanity if each.check == UNDRAWN)
        assert instead.passed and why in instead.result
        assert ("carries up to 100%" in instead.meaning) == (profile is given)


@pytest.mark.slow
def test_heavy_tails_without_a_component_of_their_own_are_seen_by_their_shape():
    seen = [posed(other("t5"), 256, seed)[1].pilot for seed in range(4)]
    assert sum(pilot.rare or pilot.shape > 0.5 for pilot in seen) >= 3


def test_what_has_no_strata_stays_plain():
    world = far()
    assert posed(world, 24)[1].pilot.strata is None, "too few starts"
    repeated = replace(
        pole().task, starts=lambda n, g: 0.3 * torch.randint(-2, 3, (n, 2), generator=g).double()
    )
    piloted = posed(replace(pole(), task=repeated), 64, strata=True)[1]
    assert piloted.pilot.strata is None, "equal starts are one, and weigh more"


def test_a_pilot_is_as_large_and_as_sharp_as_its_price_allows():
    cheap = TASK.simulator

    class Dear:
        state_dim, action_dim, linearization_price = 4, 1, 2e-3

    assert plan_pilot(cheap, 4, 256, 5, 0.9) == PilotPlan(MANY * 256, 4 * MANY * 256, 44, True)
    assert plan_pilot(cheap, 4, 256, 60, 0.99) == PilotPlan(MANY * 256, 4 * MANY * 256, 120, True)
    assert plan_pilot(cheap, 5_000, 256, 5, 0.99) == PilotPlan(SOME * 256, SOME * 256, 100, True)
    assert plan_pilot(cheap, 70_000, 256, 5, 0.99) == PilotPlan(SOME * 256, SOME * 256, 100, False)
    assert plan_pilot(Dear(), 4, 256, 5, 0.99) == PilotPlan(SOME * 256, SOME * 256, 100, False)
    assert plan_pilot(cheap, 4, 10_000, 5, 0.99).size == MOST
    assert plan_pilot(cheap, 4, 100_000, 5, 0.99).size == 200_000
