"""Whole runs on a small world: records, divergence, refusals, and what a run leaves.

Every row of the table is described and listed.

Actions that are planned through a model at test.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import xarray

import gradlab
from gradlab.errors import Failure, InputError
from gradlab.networks import checkpoint
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training import ALGORITHMS
from gradlab.training.algorithms import find, measured
from gradlab.training.loop import describe, train
from gradlab.training.parts.context import Objective
from gradlab.training.parts.critics import nothing
from gradlab.training.recording import Planner, tables
from gradlab.training.run import Diverged, collect, next_batch
from gradlab.training.settings import Asynchronous, Planning, Settings
from gradlab.training.state import begin
from tests.training.small_runs import SMALL, numbers, push, row, task


def test_training_is_the_same_every_time_and_leaves_the_random_state_alone(tmp_path, small_run):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = train(row("mpg-v2"), task(), tmp_path / "again.h5", **SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(numbers(small_run(row("mpg-v2"), **SMALL)), numbers(again))


def test_a_finished_run_is_one_file_with_every_curve(tmp_path):
    path = train(row("mpg-v2"), task(), tmp_path / "run.h5", **SMALL, seeds=2, command="again")
    assert not (tmp_path / "run.h5.journal").exists()
    run = read(path)
    updates, evaluations = run.groups["updates"], run.groups["evaluations"]
    assert updates["iteration"].values.tolist() == list(range(10, 61, 10))
    assert evaluations["iteration"].values.tolist() == [0, 30, 60]
    assert updates["weight"].values.shape == (6, 2)
    assert updates["policy_norm"].values.shape == (6, 2)
    assert (updates["nonfinite"].values == 0).all()
    assert (evaluations["return_se"].values > 0).all()
    assert evaluations["rms"].values.shape == (3, 2, 3)
    config = json.loads(run.attributes["config"])
    assert config["settings"]["seeds"] == 2 and run.attributes["command"] == "again"


def says_what_it_is(units, description):
    return bool(units) and 0 < len(description.split()) <= 10


def test_every_array_of_a_run_has_its_units_and_says_what_it_is(td3_run):
    with xarray.open_datatree(td3_run, engine="h5netcdf") as tree:
        for table in ("updates", "evaluations", "events"):
            for name, array in tree[table].data_vars.items():
                about = array.attrs["units"], array.attrs["description"]
                assert says_what_it_is(*about), (table, name)


def test_every_column_of_every_row_has_a_unit_and_says_what_it_is():
    options = {"gradient_every": 10, "planning": Planning(3), "asynchronous": Asynchronous()}
    settings = replace(Settings(), **options)
    rows = [measured(find("mpg-v2"), weights="measured", by=by) for by in ("mse", "gain")]
    for algorithm in (*ALGORITHMS.values(), *rows):
        for name, table in tables(algorithm, task(), settings).items():
            for column, each in table.columns.items():
                assert says_what_it_is(each.unit, each.description), (name, column)


def test_what_stands_beside_a_run_named_by_a_link_stands_beside_the_file(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.h5"
    link.symlink_to(tmp_path / "there" / "run.h5")
    train(row("td3"), task(), link, **SMALL)
    assert link.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.h5", "there"]
    beside = {"run.h5", "run.resume.safetensors", "run-checkpoints"}
    assert {each.name for each in (tmp_path / "there").iterdir()} == beside
    train(row("td3"), task(), tmp_path / "there" / "run.h5", **SMALL, resume=True)


def test_a_folder_deleted_while_it_trains_ends_in_one_line(tmp_path):
    folder = tmp_path / "runs"

    def delete(stage, done, total):
        if done == 30:
            shutil.rmtree(folder)

    with pytest.raises(Failure, match=r"run\.h5\.journal was moved or removed by others"):
        train(row("td3"), task(), folder / "run.h5", **SMALL, progress=delete)


def test_kept_networks_can_be_measured(small_run):
    path = small_run(row("mpg-v2"), **SMALL)
    place = path.with_name("run-checkpoints") / "000060"
    policy, critic = (
        checkpoint.load(place / f"seed0-{k}.safetensors") for k in ("policy", "critic")
    )
    profile = gradlab.measure(
        task(), policy, critic, horizon=2, starts=16, judges=4, rehearse=False
    )
    assert np.isfinite(profile.table()["value"]).any()
    assert path.exists() and (place / "states.h5").exists()


def test_an_earlier_run_is_not_replaced_unasked(finished):
    with pytest.raises(InputError, match="resume=True, or replace it with overwrite=True"):
        train(row("td3"), task(), finished, **SMALL)
    train(row("td3"), task(), finished, **SMALL, overwrite=True)


def test_divergence_is_reported_with_what_went_first(tmp_path):
    wild = replace(row("td3"), value_rate=(1e300, 1e300))
    with pytest.raises(Diverged, match=r"seed 0 diverged: .* was not finite in update \d"):
        train(wild, task(), tmp_path / "run.h5", **SMALL)
    events = read(tmp_path / "run.h5").groups["events"]["message"].values
    assert len(events) == 1
    # The first critic step ruins the policy's loss in the same update; what came before is told.
    assert "policy loss was not finite in update 0" in events[0]
    assert re.search(r"just before: value .*, critic loss .*, critic gradient norm \d", events[0])
    state = safetensors.torch.load_file(tmp_path / "run.resume.safetensors")
    assert all(state[name].isfinite().all() for name in state if "learner" in name)


def test_one_seed_that_diverges_leaves_the_others_alone(tmp_path, monkeypatch, td3_run):
    from gradlab.training import learner

    made = learner.networks

    def spoiled(algorithm, chosen, seed, *more):
        policy, critics = made(algorithm, chosen, seed, *more)
        if seed == 1:
            with torch.no_grad():
                critics[0].network[0].weight.fill_(float("nan"))
        return policy, critics

    monkeypatch.setattr(learner, "networks", spoiled)
    path = train(row("td3"), task(), tmp_path / "two.h5", **SMALL, seeds=2)
    lost = read(path).groups["updates"]["nonfinite"].values
    assert (lost[:, 0] == 0).all() and (lost[:, 1] > 0).all()
    torch.testing.assert_close(numbers(path, 0), numbers(td3_run, 0), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["td3", "sac", "mpg-v2"])
def test_without_limits_actions_are_not_squashed(tmp_path, name):
    free = replace(task(), action_limit=None)
    train(row(name), free, tmp_path / "run.h5", **SMALL)
    place = tmp_path / "run-checkpoints" / "000060"
    policy = checkpoint.load(place / "seed0-policy.safetensors")
    far = 100 * torch.ones(1, 3, dtype=torch.float64)
    action = policy.double().mean_action(far) if name == "sac" else policy.double()(far)
    assert action.abs().max() > 2.5


def test_broken_transitions_are_counted_and_not_learned_from(tmp_path):
    def breaks(state, action, noise):
        after, reward = push(state, action, noise)
        gone = (noise[:, :1] > 1.3).expand_as(after)
        return after.masked_fill(gone, torch.nan), reward.masked_fill(gone[:, 0], torch.nan)

    world = from_function(breaks, state_dim=3, action_dim=2, noise_dim=3)
    fragile = replace(task(), simulator=world)
    path = train(row("td3"), fragile, tmp_path / "run.h5", **(SMALL | {"agents": 16}))
    updates = read(path).groups["updates"]
    assert updates["broken"].values.sum() > 10
    assert (updates["nonfinite"].values == 0).all()
    lost = "every environment of seed 0 left the finite numbers.*#actions-with-other-bounds"
    with pytest.raises(Failure, match=lost):
        train(row("td3"), fragile, tmp_path / "one.h5", **(SMALL | {"agents": 1}))


def test_a_batch_is_shared_by_as_many_updates_as_the_row_says():
    run = begin(row("mpg-v2"), task(), Settings(**(SMALL | {"interval": 1})))
    seen = []
    for k in range(25):
        run.iteration = k
        collect(run)
        seen.append(next_batch(run))
    assert all(seen[k] is seen[k - k % 10] for k in range(25))
    assert seen[0] is not seen[10] and not torch.equal(seen[10].state, seen[20].state)


def test_values_beyond_any_sum_of_rewards_are_told_once(tmp_path, td3_run):
    rising = replace(row("td3"), value_rate=(3.0, 3.0), tau=1.0)
    path = train(rising, task(), tmp_path / "run.h5", **SMALL)
    events = read(path).groups["events"]["message"].values
    assert len(events) == 1 and "its values diverge" in events[0]
    assert len(read(td3_run).groups["events"]["message"].values) == 0


def test_every_row_is_described_in_all_its_parts_and_none_as_another():
    described = {name: algorithm.described for name, algorithm in ALGORITHMS.items()}
    for name, parts in described.items():
        assert list(parts) == ["policy", "gradient", "target", "model", "data", "source"]
        assert all(parts.values()), name
    made_of = [tuple(list(parts.values())[:-1]) for parts in described.values()]
    assert len(set(made_of)) == len(made_of)
    assert described["maac-five-batch"]["data"].endswith("batches of 1280")
    assert described["ddppo"]["target"] == "clipped double soft Q, α automatic"
    assert described["rp-dr"]["target"] == "clipped double soft Q, 16 passes in 4 parts, no entropy"
    assert described["ddppo-double-parameters"]["model"] == "learned model: nll, hidden 96, 96"


def test_where_a_row_is_from_changes_nothing_that_it_computes():
    elsewhere = replace(row("td3"), paper="elsewhere")
    assert elsewhere == row("td3")
    assert "paper" not in describe(elsewhere, task(), Settings())["algorithm"]


A, B, COST, GAMMA = 0.9, 0.5, 0.3, 0.95


def column(path, table, name):
    return read(path).groups[table][name].values


def linear():
    """s' = a s + b u, reward −(s² + c u²)."""
    step = lambda s, u: (A * s + B * u, -(s[:, 0] ** 2 + COST * u[:, 0] ** 2))  # noqa: E731
    return from_function(step, state_dim=1, action_dim=1)


def riccati(horizon):
    """u = −k s, the best first action over the horizon."""
    value, gain = 0.0, 0.0
    for _ in range(horizon):
        gain = GAMMA * A * B * value / (COST + GAMMA * B**2 * value)
        value = 1 + COST * gain**2 + GAMMA * value * (A - B * gain) ** 2
    return gain


def planner(horizon, value=nothing, **changes):
    return Planner(
        Planning(horizon, **({"samples": 400, "elites": 40, "rounds": 8} | changes)),
        linear(),
        draw=lambda state, noise: noise,
        act=lambda state: -0.5 * state,
        value=value, objective=Objective(GAMMA), action_dim=1, limit=None,
    )  # fmt: skip


@pytest.mark.parametrize("horizon", [2, 4])
def test_a_plan_is_the_linear_quadratic_one(horizon):
    state = torch.tensor([[[1.0], [-2.0]], [[0.5], [3.0]]], dtype=torch.float64)
    action = planner(horizon)(state, 0)
    torch.testing.assert_close(action, -riccati(horizon) * state, rtol=0.02, atol=0.02)


def test_a_plan_ends_in_the_critic():
    def value(state, action=None, log_prob=None):
        return -4 * state[..., 0] ** 2

    state = torch.tensor([[[1.0], [-2.0]]], dtype=torch.float64)
    gain = GAMMA * A * B * 4 / (COST + GAMMA * B**2 * 4)
    torch.testing.assert_close(planner(1, value)(state, 0), -gain * state, rtol=0.02, atol=0.02)


SMALL_PLAN = Planning(2, samples=8, elites=3, rounds=2, starts=3)


def test_a_run_evaluates_with_and_without_a_plan_on_the_same_starts(tmp_path, small_run):
    plain = small_run(row("mpg-v2"), **SMALL)
    path = train(row("mpg-v2"), task(), tmp_path / "a.h5", **SMALL, planning=SMALL_PLAN)
    returns = [column(file, "evaluations", "return_mean") for file in (plain, path)]
    assert np.array_equal(*returns)
    assert np.isfinite(column(path, "evaluations", "planned_gain_mean")).all()
    assert (column(path, "evaluations", "planned_gain_se") > 0).all()
