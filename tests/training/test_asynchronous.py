"""One run divided among processes; here they are in this one, and die at random."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from gradlab.errors import Failure
from gradlab.storage.journal import read
from gradlab.training.asynchronous import execution
from gradlab.training.asynchronous.processes import ROLES
from gradlab.training.loop import train
from gradlab.training.settings import Asynchronous
from tests.training.inline_workers import InlinePool
from tests.training.small_runs import SMALL, numbers, row, same_tables, stopped, task

MANY = Asynchronous(learners=3, actors=2, buffers=2, queue=2, deterministic=True)
FREE = replace(MANY, deterministic=False)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train a row in processes of an inline pool."""

    def run(name, choice, pool=None, file="run.h5", **options):
        monkeypatch.setattr(execution, "pool_of", lambda *_: pool or InlinePool())
        options = SMALL | {"seeds": 2} | options
        return train(row(name), task(), tmp_path / file, asynchronous=choice, **options)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mpg-v1", "mpg-v2", "sac", "bptt"])
def test_one_learner_without_a_queue_is_the_loop_bit_for_bit(tmp_path, trained, name):
    here = train(row(name), task(), tmp_path / "here.h5", **SMALL, seeds=2)
    apart = trained(name, Asynchronous(queue=0, deterministic=True))
    assert torch.equal(numbers(here, 1), numbers(apart, 1))
    same_tables(here, apart)
    lags = read(apart).groups["asynchrony"]
    assert not lags["policy_lag"].values[:, 1:].any() and not lags["critic_lag"].values[:, 1:].any()


@pytest.mark.slow
def test_fifty_deaths_change_no_bit_of_a_run_with_a_fixed_schedule(trained):
    options = {"iterations": 120, "checkpoint_every": 50, "seeds": 1}
    pool = InlinePool(seed=3, deaths=0.5, most=50)
    alive = trained("mpg-v2", MANY, file="alive.h5", **options)
    dying = trained("mpg-v2", MANY, pool, file="dying.h5", **options)
    assert pool.died == 50
    assert {worker.role for worker in pool.workers if worker.died} == set(ROLES)
    assert torch.equal(numbers(alive), numbers(dying))
    same_tables(alive, dying)
    assert read(dying).groups["asynchrony"]["replaced"].values[-1] > 20


@pytest.mark.slow
def test_a_stopped_run_of_many_processes_goes_on_bit_for_bit(trained):
    whole = trained("mpg-v2", MANY, file="whole.h5")
    cut = stopped(partial(trained, "mpg-v2", MANY), 50, file="cut.h5")
    assert torch.equal(numbers(whole), numbers(cut))
    same_tables(whole, cut)


def test_gradients_are_of_the_parameters_so_many_steps_ago_as_their_lag_says(trained, monkeypatch):
    pool, steps = InlinePool(), []
    follow = execution.Optimiser._policy_step

    def noted(self, run, job, given):
        steps.append(run.learner.state()["policy.0"].clone())
        return follow(self, run, job, given)

    monkeypatch.setattr(execution.Optimiser, "_policy_step", noted)
    choice = Asynchronous(queue=4, deterministic=True)
    run = trained("ddpg", choice, pool, checkpoint_every=1000)
    asked = [
        networks["policy.0"]
        for method, networks, asked in (sent for sent in pool.seen if sent[0] == "gradient")
        if asked.role == "policy"
    ]
    lag = [
        next(k for k in range(t + 1) if np.array_equal(steps[t - k].numpy(), asked[t]))
        for t in range(len(steps))
    ]
    counted = read(run).groups["asynchrony"]["policy_lag"].values.sum(axis=0)
    assert np.array_equal(counted[: max(lag) + 1], np.bincount(lag))
    # Of the four gradients that wait before it, two are the policy's.
    assert set(lag[10:]) == {2} and counted.sum() == len(steps) == 60


@pytest.mark.slow
def test_in_order_of_arrival_no_transition_is_lost_and_the_ratio_of_updates_is_kept(trained):
    pool = InlinePool(seed=1, deaths=0.05)
    run = trained("td3", FREE, pool)
    table = read(run).groups
    assert table["updates"]["iteration"].values[-1] == 60
    assert table["evaluations"]["transitions"].values.tolist() == [0, 64 + 4 * 14, 64 + 4 * 29]
    lags, counts = table["asynchrony"], np.arange(11)
    applied = {role: lags[f"{role}_lag"].values.sum() for role in ("critic", "policy")}
    assert lags["learner_gradients"].values.sum() == sum(applied.values())
    assert abs(applied["critic"] - 60) <= 3 and abs(applied["policy"] - 30) <= 3
    assert counts @ lags["policy_lag"].values.sum(axis=0) > 0
    assert lags["actor_steps"].values.sum() * 4 == 64 + 4 * 29
    # What buffers hold is what actors have sent, each transition once.
    held = [w.held._object for w in pool.workers if w.role == "buffer" and w.held]
    stores = [each._replay for each in held if each]
    rows = torch.cat([store.rows[0, : store.added] for store in stores])
    assert len(stores) == 2
    assert len(rows.unique(dim=0)) == len(rows) > 100


def test_a_worker_that_dies_of_every_call_ends_the_run_with_its_name(trained):
    with pytest.raises(Failure, match=r"actor 0 died 5 times of one call.*resume=True"):
        trained("td3", FREE, InlinePool(deaths=1.0))
