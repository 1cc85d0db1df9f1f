"""Where gradients are taken: alive states, those that learned models have seen, tasks' starts."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.gradients.setting import Starts
from gradlab.gradients.start_laws import alive_counts, check_alive
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.runs.check_results import ALIVE, SEEN
from gradlab.systems import from_function
from gradlab.systems.learned import LearnedSystem
from gradlab.tasks import Task
from tests.checks.planted_faults import Quadratic

DISCOUNT = 0.9


def step(s, a):
    return 0.9 * s + 0.1 * a, -(s**2).sum(dim=1) - (a**2).sum(dim=1)


def draws(n, generator):
    return 1 + 0.1 * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def policy():
    made = nn.Linear(2, 2, bias=False).double()
    nn.init.eye_(made.weight)
    made.weight.data *= -0.5
    return made


def task(alive=None, prior=None):
    names = ("place", "speed")
    system = from_function(step, 2, 2, alive=alive)
    return Task("planted", system, prior, draws, DISCOUNT, 3, state_names=names)


def results(of, termination="mask", starts=64, **rest):
    profile = gradlab.measure(
        of, policy(), Quadratic(), horizon=2, starts=starts, termination=termination, **rest
    )
    return {each.check: each for each in profile.sanity}


def clocked(end):
    """The second coordinate counts steps, and ends the episode at `end`, whatever the policy."""

    def ticking(s, a):
        after, reward = step(s, a)
        return torch.stack([after[:, 0], s[:, 1] + 1], dim=1), reward + s[:, 1] ** 2

    def begin(n, generator):
        return torch.stack([draws(n, generator)[:, 0], torch.zeros(n).double()], dim=1)

    system = from_function(ticking, 2, 2, alive=lambda s: s[:, 1] < end)
    return Task("planted", system, None, begin, DISCOUNT, 3)


@pytest.mark.slow
def test_visited_states_past_an_end_are_counted_under_mask_alone():
    found = results(clocked(5))[ALIVE]
    alive = int(found.result.split()[0])
    assert found.passed and f"of {64 * 8} states are alive, in 64 of 64 groups" in found.result
    assert alive / 512 == pytest.approx(1 - DISCOUNT**5, abs=0.05)
    assert ALIVE not in results(clocked(5), termination="ignore")


@pytest.mark.slow
def test_a_policy_that_leaves_early_fails_the_check_and_one_that_leaves_at_once_is_refused():
    early = replace(clocked(1), discount=0.95)
    found = results(early, starts=256)[ALIVE]
    assert not found.passed and "of 2048 states are alive" in found.result
    assert int(found.result.split()[0]) / 2048 == pytest.approx(0.05, abs=0.02)
    with pytest.raises(InputError, match=r"of 32 visited states are alive, in [0-3] of 4 groups"):
        results(replace(early, discount=0.98), starts=4)
    with pytest.raises(InputError, match=r"of 8 visited states are alive"):
        results(replace(early, discount=0.98), starts=8, law="visited", truth="matched")


def test_groups_count_once_and_zero_weights_are_not_alive():
    weight = torch.tensor([1.0, 0, 0, 2, 0, 0], dtype=torch.float64)
    at = Starts(torch.zeros(6, 2), weight, torch.tensor([0, 0, 1, 2, 2, 3]))
    assert alive_counts(at) == (2, 2, 4)
    with pytest.raises(InputError, match="2 of 6 visited states are alive, in 2 of 4 groups"):
        check_alive(at)


def learned(center=(1.0, 1.0), spread=0.5, seed=0):
    """A model of states around `center`, actions around −center/2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ensemble = GaussianEnsemble(2, 2, 2, (4,), reward=True).double()
    mean = torch.tensor([*center, -0.5 * center[0], -0.5 * center[1]], dtype=torch.float64)
    std = torch.tensor([spread] * 4, dtype=torch.float64)
    outputs = ensemble.target_mean.shape[-1]
    ensemble.set_normalisers(mean, std, torch.zeros(outputs), torch.ones(outputs))
    return LearnedSystem(ensemble)


@pytest.mark.slow
def test_states_of_another_policy_than_the_datas_are_counted_with_the_furthest_coordinate():
    seen = results(task(prior=learned()), "ignore")[f"{SEEN}, prior model"]
    assert seen.passed and seen.result.startswith("0.0% of 512 states")
    far = results(task(prior=learned((1.0, 9.0))), "ignore")[f"{SEEN}, prior model"]
    assert not far.passed and far.result.startswith("100.0% of 512 states")
    assert "furthest: speed, " in far.result
    # Visited states go down to 0: those below 1 − 5 · 0.1 are unseen, some of the first steps not.
    part = results(task(prior=learned(spread=0.1)), "ignore")[f"{SEEN}, prior model"]
    share = float(part.result.split("%")[0])
    assert not part.passed and 30 < share < 90
    at_starts = results(task(prior=learned(spread=0.1)), "ignore", law="start")
    assert at_starts[f"{SEEN}, prior model"].passed


@pytest.mark.slow
def test_only_states_that_are_alive_and_models_that_know_their_data_are_judged():
    kept = results(task(lambda s: s[:, 0] > 0.6, learned(spread=0.1)), starts=256)
    assert kept[f"{SEEN}, prior model"].passed
    fresh = GaussianEnsemble(2, 2, 2, (4,), reward=True).double()
    assert not [name for name in results(task(prior=LearnedSystem(fresh)), "ignore")
                if name.startswith(SEEN)]  # fmt: skip
