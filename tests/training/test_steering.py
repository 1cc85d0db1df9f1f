"""Steering: rehearsed policies that are adopted or not, and policies that are taken back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from gradlab.data.noise import stream
from gradlab.storage.journal import read
from gradlab.training import loop
from gradlab.training.loop import train
from gradlab.training.measured import steering
from gradlab.training.measured.steering import LENGTHS, STARTS, steered
from gradlab.training.run import collect
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.small_runs import SMALL, numbers, row, same_tables, stopped, task

SHORT = SMALL | {"iterations": 24, "evaluate_every": 12, "log_every": 4, "checkpoint_every": 12}
MODES = ("rehearse", "accept")


def short(name: str):
    """The row up to five steps."""
    whole = row(name)
    terms = tuple(replace(term, horizon=min(term.horizon, 5)) for term in whole.terms)
    return replace(whole, terms=terms)


def run_of(name: str, steer: str, seeds: int = 2, k: int = 8):
    """A run whose critics have made some updates, at iteration k."""
    chosen = steered(short(name), steer, 8)
    run = begin(chosen, task(), Settings(**SHORT, seeds=seeds))
    collect(run)
    for iteration in range(k):
        run.learner.update(iteration, run.drawn(run.learner.draws, iteration))
    run.iteration = k
    return run


def policies(run) -> torch.Tensor:
    return torch.cat([p.detach().flatten(1) for p in run.learner.policy.parameters], dim=1)


def test_returns_are_those_of_each_policy_by_itself():
    run = run_of("mpg-v2", "rehearse")
    found = steering._returns(run, [run.learner.policy.copied()])
    world = task()
    for seed in range(2):
        act = partial(run.learner.acting.act, run.learner.policy.frozen())
        state = world.starts(STARTS, stream(seed, "steering starts", 8))
        total = torch.zeros(STARTS).double()
        for t in range(20):
            both = state.expand(2, -1, -1)
            noise = world.simulator.sample_noise(STARTS, stream(seed, "steering noise 8", t))
            out = world.simulator.step(state, act(both)[seed].detach(), noise)
            total, state = total + 0.9**t * out.reward, out.state
        assert torch.allclose(found[0, seed], total)


def test_what_is_adopted_is_the_best_of_explicit_updates():
    run = run_of("n-step-adp", "rehearse")
    before, twin = policies(run), run_of("n-step-adp", "rehearse")
    decided = steering.row(run)
    ends, changes = {}, {}
    for place, term in enumerate(twin.algorithm.terms):
        other = run_of("n-step-adp", "rehearse")
        draws = loop.begin(other.algorithm, task(), other.settings).learner.draws
        draws.use, draws.block = "steering", 1
        start = steering._returns(other, [other.learner.policy.copied()])
        weights = np.tile(np.eye(3)[place], (2, 1))
        other.learner.set_rates(8)
        for u in range(LENGTHS[-1]):
            number = 8 * LENGTHS[-1] + u
            loss, _ = other.learner.policy_loss(number, other.drawn(draws, number), weights, draws)
            other.learner.trained_policy.step(loss.sum())
            if u + 1 in LENGTHS:
                after = steering._returns(other, [other.learner.policy.copied()])
                changes[term.horizon, u + 1] = (after - start)[0].mean(dim=1)
                ends[term.horizon, u + 1] = policies(other).clone()
    for seed in range(2):
        best = max(changes, key=lambda key, s=seed: float(changes[key][s]))
        change = float(changes[best][seed])
        assert decided["change"][seed] == pytest.approx(change)
        expected = ends[best][seed] if change > 0 else before[seed]
        assert torch.allclose(policies(run)[seed], expected, rtol=1e-10, atol=1e-12)
        assert bool(decided["held"][seed]) is (change <= 0)
    assert (decided["held"] == 0).any()


def test_a_policy_that_cannot_be_bettered_is_held():
    """Rewards of the wrong sign in training: every update lowers the return."""
    run = run_of("n-step-adp", "rehearse")
    run.learner.objective = replace(run.learner.objective, reward_scale=-1.0)
    for p in run.learner.critic.parameters:
        p.data.zero_()
    before = policies(run)
    decided = steering.row(run)
    assert (decided["held"] == 1).all() and torch.equal(policies(run), before)
    assert (decided["updates"] == 0).all() and steering.due(run)


def test_a_lower_policy_is_taken_back_and_its_step_halved():
    run = run_of("mpg-v2", "accept")
    assert (steering.row(run)["held"] == 0).all()
    accepted = policies(run).clone()
    with torch.no_grad():
        for p in run.learner.trained_policy.raw.parameters:
            p[0] += 3.0  # the first seed's policy is ruined
    run.iteration = 16
    decided = steering.row(run)
    assert decided["held"].tolist()[0] == 1 and decided["step"][0] == 0.5
    assert torch.equal(policies(run)[0], accepted[0]) and run.steering.candidate[0] == 0
    assert run.learner.weights(16)[0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("steer", MODES)
def test_a_steered_run_that_was_killed_goes_on_bit_for_bit(tmp_path, steer):
    options = {**SHORT, "steer": steer, "steer_every": 8, "seeds": 2}
    whole = train(short("mpg-v2"), task(), tmp_path / "whole.h5", **options)
    decided = read(whole).groups["steering"]
    assert decided["iteration"].values.tolist() == [8, 16]
    path = stopped(partial(train, short("mpg-v2"), task(), tmp_path / "cut.h5"), 15, **options)
    same_tables(whole, path)
    assert torch.equal(numbers(whole), numbers(path))
