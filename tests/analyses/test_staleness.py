"""Usable lags of planted ratios, learners of planted speed, and their predicted throughput."""

from math import factorial

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.harness.contrast_parts import asked_of
from analyses.harness.criteria import outcome
from analyses.harness.student import half_width
from analyses.mpg_table_1.runs import task_of
from analyses.staleness.__main__ import over_seeds, usable, verdict
from analyses.staleness.asynchronous import ONE, TWO, judged
from analyses.staleness.gradients import BATCH, gradients, moments, squared_mean, true_gradients
from analyses.staleness.networks import Place, recorded
from benchmarks.asynchronous import Costs, predicted
from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.measurement.assembly import shared_truth
from gradlab.networks.mlp import Policy, QCritic
from gradlab.statistics.intervals import interval
from gradlab.tasks import double_integrator
from gradlab.training.measured.row_errors import moments_of

COSTS = Costs(0.03, 0.001, 0.001, 0.0005, 0.0005, 0.001, 3e6)


def rows(ratios, spread=0.001, cosine=0.8):
    """Five seeds around each lag's ratio, and stale gradients that have turned a little."""
    found = pd.DataFrame(
        {"task": "t", "iteration": 500, "seed": seed, "lag": lag,
         "cosine": cosine * (ratio + (spread * (seed - 2) if lag else 0)),
         "bias2": 0.5 + lag / 100, "truth2": 1.0, "turned": 1 - lag / 100}
        for lag, ratio in ratios.items() for seed in range(5)
    )  # fmt: skip
    return found.assign(cosine_low=found["cosine"] - 0.1, cosine_high=found["cosine"] + 0.1)


@pytest.mark.parametrize(
    ("ratios", "spread", "sentence"),
    [
        ({0: 1, 4: 0.99, 8: 0.97, 16: 0.9}, 0.001, "Up to lag 8 .*iterations: 8, lost at 16"),
        ({0: 1, 4: 0.9, 8: 0.99}, 0.001, "Up to lag 0 .*iterations: 0, lost at 4"),
        ({0: 1, 4: 0.96, 8: 0.96}, 0.1, r"Up to lag 0 .*iterations: 0\)"),
    ],
)
def test_a_lag_is_usable_where_it_and_all_shorter_ones_are_shown_to_be(ratios, spread, sentence):
    assert pd.Series([verdict(rows(ratios, spread)).sentence]).str.match(sentence).all()


@pytest.mark.parametrize(
    ("ratio", "spread", "word"),
    [(0.99, 0.001, "holds"), (0.9, 0.001, "refuted"), (0.96, 0.1, "undecided")],
)
def test_the_shortest_lag_decides(ratio, spread, word):
    found = verdict(rows({0: 1, 4: ratio, 8: 0.5}, spread))
    parts = [part for row in found.table.to_dict("records") for part in asked_of(row)]
    assert outcome(parts) == word and found.holds == (word == "holds")


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_world_without_a_direction_decides_nothing(seeds):
    few = rows({0: 1, 8: 0.99}, cosine=0.05 if seeds == 5 else 0.8)
    found = verdict(few[few["seed"] < seeds])
    assert not found.holds and found.sentence.startswith("No world decides")
    assert found.table.empty and ("0.92 [0.92, 0.92] at lag 8" in found.sentence) == (seeds == 5)
    assert ("t at 500 1.160 [" in found.sentence) == (seeds == 5)


def test_ends_of_intervals_decide_about_a_lag():
    world = pd.DataFrame(
        {"ratio low": [np.nan, 0.951, 0.949], "ratio high": [1, 1, 0.9495]}, index=[0, 1, 2]
    )
    assert usable(world) == (1, 2)


def test_a_seed_without_a_direction_has_its_weight_in_the_ratio_and_no_ratio_of_its_own():
    """The means over seeds are 0.5 and 0.495, whatever the seed at 0.001 does alone."""
    found = rows({0: 1, 4: 0.99})
    base = np.array([0.001, 0.5, 0.6, 0.7, 0.699])
    found.loc[found["lag"] == 0, "cosine"] = base
    found.loc[found["lag"] == 4, "cosine"] = base - 0.005
    ratio = over_seeds(found).loc[("t", 500, 4)]
    assert ratio["ratio"] == pytest.approx(0.99)
    difference = base - 0.005 - ratio["ratio high"] * base
    edge = half_width(difference)
    assert abs(difference.mean()) == pytest.approx(edge)  # Fieller: the test that just rejects


def test_places_without_a_truth_tell_how_far_the_gradient_turns():
    found = rows({0: 1, 4: 0.99})
    found.loc[found["seed"] < 2, ["cosine", "bias2", "truth2"]] = np.nan
    world = over_seeds(found).loc[("t", 500, 4)]
    assert world["truths"] == 3 and world["seeds"] == 5
    assert world["ratio"] == pytest.approx(0.99 + 0.001)  # of the seeds 2, 3 and 4
    assert world["cosine with the fresh gradient"] == pytest.approx(0.96)


def test_seeds_that_point_forward_and_backward_are_counted():
    found = rows({0: 1, 4: 0.99})
    found["cosine"] = found["seed"].map({0: -0.5, 1: 0.05, 2: 0.3, 3: 0.4, 4: 2.0})
    found = found.assign(cosine_low=found["cosine"] - 0.1, cosine_high=found["cosine"] + 0.1)
    found.loc[found["seed"] == 4, "cosine_low"] = -1.0  # too wide to tell anything
    said = verdict(found).sentence
    assert "t at 500 0.45 [-0.71, 1.61], 2 of 5 seeds shown above 0 and 1 below." in said


def test_places_that_were_recorded_are_found_in_the_order_of_their_seeds(tmp_path):
    for seed in (10, 2, 0):
        place = Place(tmp_path, "t", 500, seed)
        place.stage.mkdir(parents=True, exist_ok=True)
        np.save(place.file("states.npy"), np.full((3, 2), float(seed)))
    cut_off = Place(tmp_path, "t", 500, 4)  # before its states
    cut_off.file("lag0-policy.safetensors").touch()
    found = recorded(tmp_path, "t", 500)
    assert [place.seed for place in found] == [0, 2, 10]
    assert all((place.states() == place.seed).all() for place in found)
    assert recorded(tmp_path, "t", 2500) == []


def test_gradients_by_layers_are_those_of_every_parameter():
    task = task_of("path_tracking")
    torch.manual_seed(0)
    policies = [Policy(6, 2, hidden=(8, 5)).double() for _ in range(2)]
    critic = QCritic(6, 2, hidden=(8,)).double()
    states = task.starts(40, stream(0, "states")).double()
    tails = [(0.3, Tail(0, critic, 0.99)), (0.7, Tail(3, critic, 0.99))]
    found = [gradients(task.prior, policy, tails, states, "ignore") for policy in policies]
    explicit = [
        sum(
            w * Estimator(task.prior, task.prior, "first", tail).gradients(policy, states).numpy()
            for w, tail in tails
        )
        for policy in policies
    ]
    expected = moments_of(*explicit, BATCH)
    for name, estimate in moments(*found).items():
        assert estimate.value == pytest.approx(expected[name].value, rel=1e-9), name
        assert estimate.left_out == pytest.approx(expected[name].left_out, rel=1e-9), name
    away = interval("bias2", moments(*found)["bias2"]), interval("bias2", expected["bias2"])
    assert away[0].low == pytest.approx(away[1].low) and away[0].high == pytest.approx(away[1].high)


def test_true_gradients_by_layers_are_those_of_the_unrolled_simulator():
    """Against an estimator along the simulator with a critic of 0 after as many steps."""

    class Nothing(torch.nn.Module):
        def forward(self, state, action):
            return 0 * action.sum(dim=1)

    task = double_integrator()
    policy = Policy(2, 1, hidden=()).double()
    with torch.no_grad():
        next(policy.parameters()).fill_(-0.5)  # holds position and speed
    states = task.starts(20, stream(0, "states")).double()
    found, status = true_gradients(task, policy, states, "ignore")
    reference = shared_truth(task, policy, states, 25, BATCH, "ignore", check=False).reference
    tail = Tail(reference.horizon, Nothing(), task.discount)
    explicit = Estimator(task.simulator, task.simulator, "first", tail).gradients(policy, states)
    expected = moments_of(explicit.numpy(), explicit.numpy(), BATCH)["mean_norm"].value
    assert status == reference.status != "none" and expected > 0
    assert squared_mean(found) == pytest.approx(expected**2, rel=1e-9)
    assert found.own.own == pytest.approx((explicit**2).sum(dim=1).numpy(), rel=1e-9)


def rounds(two, machine):
    """Seven rounds of every arm, 10 updates per second alone."""
    rates = {ONE: 10, TWO: 10 * machine, "1 learner": 9, "2 learners": 9 * two, "4 learners": 12}
    return pd.DataFrame(
        {"round": k, "arm": arm, "rate": rate * (1 + 0.01 * (k % 2) * (arm == TWO)),
         "mean lag": 0.0, "lags": "1 3"}
        for k in range(7) for arm, rate in rates.items()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("two", "machine", "word"),
    [(1.9, 1.9, "holds"), (1.2, 1.9, "refuted"), (1.2, 1.1, "not tried")],
)
def test_two_learners_are_compared_with_one_where_the_machine_has_two_processors(
    two, machine, word
):
    found = judged(rounds(two, machine), COSTS)
    parts = [part for row in found.table.to_dict("records") for part in asked_of(row)]
    assert outcome(parts) == word
    assert "with 2 learners 0.8 on average, 95% at most 1" in found.sentence
    assert f"over 1 learner: {two:.2f}" in found.sentence


@pytest.mark.parametrize("learners", [1, 2, 5, 12, 40])
def test_predicted_throughput_is_that_of_the_machine_repair_model(learners):
    """M/M/1//L in closed form: X = (1 − p_0) / S, p_0⁻¹ = Σ_k L! / (L − k)! (S / Z)^k."""
    costs = COSTS
    ratio = costs.optimiser / costs.learner
    idle = sum(
        factorial(learners) / factorial(learners - k) * ratio**k for k in range(learners + 1)
    )
    assert predicted(costs, learners) == pytest.approx((1 - 1 / idle) / costs.optimiser)
