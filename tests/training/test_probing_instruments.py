"""The instruments of a training's probe: statistics, signal, measurements in turn.

Alarms of a training's probe name their seed and their cause.

Short runs whose probe is tested, and what is compared of them.
"""

import contextlib
import math
import re
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

import gradlab
from gradlab.data.replay import Batch
from gradlab.probe import sampler
from gradlab.probe.budget import Budget
from gradlab.probe.row_sinks import AlarmLog
from gradlab.progress import silent
from gradlab.storage.journal import Journal, read
from gradlab.systems import from_function
from gradlab.training import probe, seed_rows
from gradlab.training import probe as probe_measures
from gradlab.training.algorithms import find, with_horizons
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.context import FixedWeights
from gradlab.training.recording import tables
from gradlab.training.run import Diverged, go
from gradlab.training.seed_rows import PAIRS, SeedSignals, SeedStatistics
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.small_runs import push, same_tables

SMALL = dict(
    iterations=60, agents=8, interval=4, warmup=128, episode=20, evaluate_every=1000,
    evaluation_starts=4, log_every=5, checkpoint_every=40, termination="mask",
    at_end="restart", keep=(0.0, 1.0), seeds=2, gradient_every=0,
)  # fmt: skip
MODEL = LearnedModel(members=2, hidden=(8,), every=50, first_steps=15, steps=5, batch=16)
TABLES = ("updates", "evaluations", "events", "model")


def task(far=4.0):
    def alive(state):
        return state[:, 0].abs() < far

    world = from_function(push, state_dim=3, action_dim=2, noise_dim=3, alive=alive)

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, world, starts, 0.9, 3, action_limit=(2.0, 1.0), alive=alive)


def row(name, **changes):
    found = find(name)
    if max(found.horizons):
        found = with_horizons(found, (0, 3))
    small = {"hidden": (8, 8), "batch": 16, "value_rate": (1e-2, 1e-3), "replay": 4096}
    return replace(found, **(small | changes))


ARMS = {
    "mpg-v2": row("mpg-v2"),
    "learned": row("mpg-v2", model=MODEL),
    "td3": row("td3", clip=0.5),
    "sac": row("sac"),
    "spectral": row("mpg-v2", policy_spectral="all", critic_spectral="all"),
}


def state_of(path):
    """All that a run's next update would depend on, but for what a clock has said."""
    found = safetensors.torch.load_file(path.with_name(path.stem + ".resume.safetensors"))
    return {k: v for k, v in found.items() if k not in ("run/seconds", "window/taken")}


def same_runs(first, second):
    ours, theirs = state_of(first), state_of(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value.nan_to_num(7.5), theirs[name].nan_to_num(7.5)), name
    same_tables(first, second, [table for table in TABLES if table in read(first).groups])


def filled(tmp_path, batch=16, **settings):
    """A run with a replay, somewhat trained."""
    chosen = Settings(**(SMALL | {"precision": "float64"} | settings))
    run = begin(row("td3", batch=batch), task(), chosen)
    with Journal(tmp_path / "run.h5", tables(run.algorithm, run.task, chosen), {}) as journal:
        go(run, tmp_path / "run.h5", journal, {}, silent)
    return run


def wild(monkeypatch, seed, change):
    """Another beginning for the policy of one seed."""
    from gradlab.training import learner

    made = learner.networks

    def changed(algorithm, chosen, number, *more):
        policy, critics = made(algorithm, chosen, number, *more)
        if number == seed:
            with torch.no_grad():
                change(policy)
        return policy, critics

    monkeypatch.setattr(learner, "networks", changed)


def learner_and_batch(clip, **settings):
    learner = Learner(row("td3", clip=clip), task(), Settings(seeds=2, **settings))
    generator = torch.Generator().manual_seed(3)
    parts = [torch.randn(2, 16, n, generator=generator) for n in (3, 2, 1, 3)]
    ended = torch.zeros(2, 16)
    return learner, Batch(parts[0], parts[1], parts[2][..., 0], parts[3], ended)


def test_vitals_are_those_of_each_policy_on_its_own():
    learner, batch = learner_and_batch(clip=1e-3, precision="float64")
    batch = replace(batch, **{k: v.double() for k, v in vars(batch).items() if v is not None})
    with torch.no_grad():  # half of the first action beyond its limit
        learner.policy.parameters[2][:, :, 0] *= 40
    before = [learner.policy_of(seed).double() for seed in range(2)]
    theta = learner.policy.copied().parameters
    vitals = SeedStatistics(learner)
    learner.watch = vitals.see
    vitals.before(0)
    learner.update(0, batch)
    vitals.after()
    together, rows = vitals.rows()
    assert together["looked"] == together["watched"] == 1
    for seed, policy in enumerate(before):
        critic = learner.critic_of(seed).double()
        action = policy(batch.state[seed])
        (-critic(batch.state[seed], action).mean()).backward()
        named = dict(policy.named_parameters())
        order = [named[name] for name in probe.names(learner)]
        norms = np.array([p.grad.norm().item() for p in order])
        np.testing.assert_allclose(rows[seed]["layer_norm"], norms, rtol=1e-6)
        assert rows[seed]["grad_norm"] == pytest.approx(math.hypot(*norms), rel=1e-6)
        assert rows[seed]["grad_norm"] > 1e-2  # not the clipped one
        pairs = zip(learner.policy.parameters, theta, strict=True)
        ratios = [float((p.detach()[seed] - q[seed]).norm() / q[seed].norm()) for p, q in pairs]
        np.testing.assert_allclose(rows[seed]["layer_ratio"], ratios, rtol=1e-8)
        limit = torch.tensor([2.0, 1.0])
        share = (action.abs() >= 0.999 * limit).double().mean(0)
        np.testing.assert_allclose(rows[seed]["saturation"], share, rtol=1e-12)
        assert 0 < share[0] < 1


@pytest.mark.slow
def test_the_signal_is_that_of_the_mean_gradient_over_replay(tmp_path):
    run = filled(tmp_path, batch=3)
    everything = run.replay.sample(
        (torch.arange(len(run.replay)) + 0.5).expand(2, -1) / len(run.replay)
    )
    mean = run.learner.policy_gradients(60, everything, run.learner.draws)
    true = torch.cat([g.flatten(1) for g in mean], 1).square().sum(1).numpy()
    signals = SeedSignals(run, ["one", "two", "three"], Budget(1.0, lambda: 0.0))
    found = []
    for iteration in range(100):
        run.iteration = iteration
        found.append([[each["signal"], each["energy"]] for each in signals.rows(0.0)])
    found = np.array(found)
    error = found.std(0) / math.sqrt(len(found))
    assert (abs(found.mean(0) - true[:, None])[:, 0] < 4 * error[:, 0]).all()
    # There is noise to be told from it: the squares alone are far too large.
    assert ((found.mean(0) - true[:, None])[:, 1] > 8 * error[:, 1]).all()


def test_a_signal_is_worked_out_from_each_seeds_own_products(tmp_path, monkeypatch):
    run, generator = filled(tmp_path), torch.Generator().manual_seed(1)
    shapes = [(2, 4, 6), (2, 6, 2), (2, 1, 6), (2, 1, 2)]
    fed = [
        [0.3 + torch.randn(*shape, generator=generator) for shape in shapes]
        for _ in range(PAIRS + 1)
    ]
    for gradients in fed:
        gradients[0][1, 2] = 0.0
    queue = iter(fed)
    monkeypatch.setattr(SeedSignals, "_gradients", lambda self, j: next(queue))
    rows = SeedSignals(run, ["one", "two"], Budget(1.0, lambda: 0.0)).rows(0.0)
    flat = torch.stack([torch.cat([g.flatten(1) for g in each], 1).double() for each in fed])
    x, y = (flat[:-1] * flat[1:]).sum(2).mean(0), flat.square().sum(2).mean(0)
    for seed in range(2):
        assert rows[seed]["signal"] == pytest.approx(float(x[seed]), rel=1e-9)
        assert rows[seed]["energy"] == pytest.approx(float(y[seed]), rel=1e-9)
        assert (rows[seed]["pairs"], rows[seed]["columns"]) == (PAIRS, 10)
    assert [each["dead_inputs"] for each in rows] == [0, 1]
    assert rows[1]["dead_where"] == "one: 2"


def test_seeds_take_turns_and_wait_for_what_a_measurement_costs(tmp_path, monkeypatch):
    run, now = filled(tmp_path, seeds=3), [0.0]
    budget = Budget(0.1, lambda: now[0])
    budget.begin()
    run.lost[1] = True

    def slow(question, policy, batch, update, past):
        now[0] += 2.0 if past.checks else 1.0
        return {"starts": 64.0}, replace(past, count=past.count + 1, sound=True)

    monkeypatch.setattr(sampler, "trial_price", lambda question, policy: 0.0)
    monkeypatch.setattr(sampler, "first_price", lambda question, policy: 2.0)
    monkeypatch.setattr(sampler, "measured", slow)
    measurements = probe_measures.SeedMeasurements(run, budget)
    made = []
    for _ in range(1000):
        now[0] += 0.1
        found = measurements.row()
        assert budget.own <= 0.1 * now[0] + 1e-9
        if found is not None:
            made.append((round(now[0]), found[0], found[1]["seconds"]))
    assert [member for _, member, _ in made] == [0, 2] * 3
    # The first two of either seed are checked, 2 s, a tenth of 20; the next is expected to cost as
    # much, the one after it 1 s.
    assert [at for at, _, _ in made] == [20, 40, 60, 80, 99, 100]
    assert [seconds for *_, seconds in made] == pytest.approx([2.0] * 4 + [1.0] * 2)


# A probe that fails, a kill and Ctrl-C leave the training and its rows whole.


BROKEN = [
    (probe._Instruments, "__init__"), (probe._Instruments, "over"), (SeedStatistics, "see"),
    (SeedSignals, "rows"), (seed_rows.SeedRows, "file"), (AlarmLog, "report"),
    (probe.SeedMeasurements, "row"),
]  # fmt: skip


@pytest.fixture
def untouched(small_run):
    return small_run(row("td3"), task, **SMALL)


@pytest.mark.parametrize(("place", "name"), BROKEN)
@pytest.mark.sampled(3)
def test_a_probe_that_fails_says_so_once_and_training_goes_on(
    tmp_path, monkeypatch, untouched, place, name
):
    def fails(*given, **more):
        raise ZeroDivisionError("planted")

    if name == "report":  # an alarm is needed to see it fail
        saturated = lambda policy: policy.network[-3].bias.fill_(50.0)  # noqa: E731
        wild(monkeypatch, 0, saturated)
        untouched = train(row("td3"), task(), tmp_path / "plain.h5", **SMALL)
    if place is not probe.SeedMeasurements:
        monkeypatch.setattr(probe.SeedMeasurements, "row", lambda self: None)
    monkeypatch.setattr(place, name, fails)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    ours = [str(each.message) for each in told if "planted" in str(each.message)]
    assert len(ours) == 1 and "training goes on" in ours[0]
    same_runs(untouched, path)
    if place is probe.SeedMeasurements:  # all else goes on
        assert read(path).groups["probe_vitals"]["looked"].values.sum() == 30


@pytest.mark.usefixtures("unhurried")
def test_a_killed_run_goes_on_and_loses_nothing_that_was_logged(tmp_path, monkeypatch):
    wild(monkeypatch, 1, lambda policy: policy.network[-3].bias.fill_(50.0))
    options = SMALL | {"iterations": 120, "probe_budget": 1.0}

    def copy(stage, done, total):  # what a kill after iteration 115 would leave
        if done == 115:
            for end in (".h5.journal", ".resume.safetensors"):
                shutil.copy(tmp_path / f"whole{end}", tmp_path / f"dead{end}")

    whole = train(row("td3"), task(), tmp_path / "whole.h5", **options, progress=copy)
    dead = tmp_path / "dead.h5"
    before = read(dead).groups
    assert before["probe_vitals"]["update"].values.tolist() == [40, 50, 80, 100]
    train(row("td3"), task(), dead, **options, resume=True)
    same_runs(whole, dead)
    after = read(dead).groups
    for table in ("vitals", "successive", "horizons"):
        numbers, kept = (
            groups[f"probe_{table}"]["update"].values.tolist() for groups in (after, before)
        )
        assert set(kept) <= set(numbers)
    looked = dict(
        zip(
            after["probe_vitals"]["update"].values.tolist(),
            after["probe_vitals"]["looked"].values.tolist(),
            strict=True,
        )
    )
    assert looked == {40: 20, 50: 5, 80: 15, 100: 10, 120: 10}
    first, second = (groups["probe_alarms"] for groups in (before, after))
    count = len(first["number"].values)
    assert count and second["number"].values.tolist()[:count] == list(range(count))
    assert second["message"].values.tolist()[:count] == first["message"].values.tolist()


@pytest.mark.usefixtures("unhurried")
def test_an_alarm_names_its_seed_and_is_told_on_the_terminal(tmp_path, monkeypatch, capsys):
    def saturate(policy):
        last = [m for m in policy.network if isinstance(m, torch.nn.Linear)][-1]
        last.bias[1] = 50.0

    wild(monkeypatch, 1, saturate)
    path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    alarms = read(path).groups["probe_alarms"]
    told = [
        message
        for kind, message in zip(alarms["alarm"].values, alarms["message"].values, strict=True)
        if kind == "saturated actor"
    ]
    assert told and all("action 1 is at its limit in 100%" in each for each in told)
    seeds = alarms["seed"].values[alarms["alarm"].values == "saturated actor"]
    assert (seeds == 1).all()
    assert "gradlab probe, td3, seed 1, step 40: saturated actor" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_a_horizon_that_is_never_rolled_out_is_told_of_the_run_not_of_a_seed(tmp_path):
    lazy = replace(row("mpg-v2"), weights=FixedWeights((1.0, 0.0)))
    told, groups = (
        read(train(chosen, task(), tmp_path / f"{k}.h5", **SMALL, probe_budget=1.0)).groups
        for k, chosen in enumerate((row("mpg-v2"), lazy))
    )
    assert "horizon never rolled out" not in told["probe_alarms"]["alarm"].values.tolist()
    assert told["probe_horizons"]["updates"].values[-1] == 30
    np.testing.assert_array_equal(groups["probe_horizons"]["made"].values[-1], [1.0, 0.0])
    alarms = groups["probe_alarms"]
    at = alarms["alarm"].values.tolist().index("horizon never rolled out")
    assert np.isnan(alarms["seed"].values[at]) and alarms["update"].values[at] == 40
    assert "horizon 3 is asked for, but none of 20" in alarms["message"].values[at]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(("far", "early"), [(0.4, True), (50.0, False)])
def test_model_paths_that_end_early_are_told(tmp_path, far, early):
    wide = replace(row("mpg-v2"), batch=256)
    path = train(wide, task(far), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    groups = read(path).groups
    reached = groups["probe_horizons"]["reached"].values
    lasted = groups["probe_horizons"]["lasted"].values
    assert (reached[:, :, 0] == 1).all()
    assert (reached[:, :, 1] < 0.4).all() if early else (reached[:, :, 1] == 1).all()
    assert (lasted < 2).all() if early else (lasted == 3).all()
    assert (lasted >= 3 * reached[:, :, 1] - 1e-6).all()
    kinds = groups["probe_alarms"]["alarm"].values.tolist()
    assert ("model paths end early" in kinds) is early


@pytest.mark.usefixtures("unhurried")
def test_what_an_event_of_the_run_tells_is_not_told_twice(tmp_path, monkeypatch):
    wild(monkeypatch, 1, lambda policy: next(policy.parameters()).fill_(float("nan")))
    path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    groups = read(path).groups
    assert any("seed 1 diverged" in text for text in groups["events"]["message"].values)
    assert (groups["probe_vitals"]["nonfinite_updates"].values[:, 1] > 0).all()
    assert (groups["probe_vitals"]["nonfinite_updates"].values[:, 0] == 0).all()
    assert not (groups["probe_alarms"]["seed"].values == 1).any()


def lossy():
    """A task whose model takes a logarithm that an action below −0.5 makes NaN."""

    def fragile(state, action, noise):
        after, reward = push(state, action, noise)
        return after, reward + 0 * torch.log(action[:, 0] + 0.5)

    world = from_function(
        fragile, state_dim=3, action_dim=2, noise_dim=3, alive=lambda s: s[:, 0].abs() < 4
    )
    return replace(task(), prior=world)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("seeds", [1, 2])
def test_the_operation_that_lost_a_seed_is_named(tmp_path, monkeypatch, seeds):
    def decline(policy):  # actions near 0, which fall as it learns
        last = [m for m in policy.network if isinstance(m, torch.nn.Linear)][-1]
        last.weight.mul_(0.01)

    wild(monkeypatch, 0, decline)
    falling = row("mpg-v2", policy_rate=(3e-2, 3e-2), value_rate=(1e-3, 1e-3))
    options = SMALL | {"seeds": seeds, "log_every": 20, "probe_budget": 1.0}
    path = tmp_path / "run.h5"
    with contextlib.suppress(Diverged):
        train(falling, lossy(), path, **options)
    groups = read(path).groups
    event = next(text for text in groups["events"]["message"].values if "seed 0" in text)
    update = re.search(r"not finite in update (\d+)", event)[1]
    alarms = groups["probe_alarms"]
    origin = [
        message
        for kind, message in zip(alarms["alarm"].values, alarms["message"].values, strict=True)
        if kind == "origin of a non-finite gradient"
    ]
    assert int(update) > 0
    assert any("NaN first out of log (rows" in text for text in origin)
    assert any(f"of 16), in update {update}: fix" in text for text in origin)


def measured_once(value):
    def row_of(self):
        bound = dict(value_se=0.1, return_bound=1.0, reward_max=0.1, seconds=0.0)
        return 0, dict(starts=64.0, batch=16.0, value=value) | bound

    return row_of


@pytest.mark.parametrize("excessive", [True, False])
def test_a_critic_beyond_its_bound_is_told_once(tmp_path, monkeypatch, excessive):
    monkeypatch.setattr(probe, "Budget", lambda share, clock: Budget(share, lambda: 0.0))
    monkeypatch.setattr(probe.SeedMeasurements, "row", measured_once(30.0))
    if excessive:
        report = probe.Probing.before

        def before(self):
            self.run.excessive[0] = True
            report(self)

        monkeypatch.setattr(probe.Probing, "before", before)
    path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    kinds = read(path).groups["probe_alarms"]["alarm"].values.tolist()
    assert ("critic beyond its bound" in kinds) is not excessive


# A probed run is the run without a probe, and every seed's columns are those of the seed alone.


@pytest.mark.parametrize("updates", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arm", list(ARMS))
@pytest.mark.sampled(2)
def test_a_probed_run_is_bit_for_bit_the_run_without_a_probe(tmp_path, monkeypatch, arm, updates):
    monkeypatch.setattr(probe, "Budget", lambda share, clock: Budget(share, lambda: 0.0))
    monkeypatch.setattr(seed_rows, "PART", 1.0)
    two = iter([True, True])  # one of each seed, whatever they cost
    monkeypatch.setattr(sampler.Measurements, "due", lambda self, seed: next(two, False))
    options = SMALL | {"iterations": updates, "log_every": 20, "checkpoint_every": updates // 2}
    plain = train(ARMS[arm], task(), tmp_path / "plain.h5", **options)
    probed = train(ARMS[arm], task(), tmp_path / "probed.h5", **options, probe_budget=1.0)
    same_runs(plain, probed)
    groups = read(probed).groups
    assert groups["probe_vitals"]["looked"].values.sum() == updates / ARMS[arm].delay
    assert len(groups["probe_successive"]["update"].values) == updates / 20
    assert len(groups["probe_measured"]["update"].values) == 2
    assert not any(name.startswith("probe") for name in read(plain).groups)


@pytest.mark.slow
@pytest.mark.usefixtures("unhurried")
def test_seeds_together_show_what_seeds_apart_show(tmp_path):
    options = SMALL | {"precision": "float64", "probe_budget": 1.0}
    together = read(train(ARMS["mpg-v2"], task(), tmp_path / "all.h5", **options)).groups
    alone = options | {"seeds": 1, "first_seed": 1}
    apart = read(train(ARMS["mpg-v2"], task(), tmp_path / "apart.h5", **alone)).groups
    for table, column in (
        ("vitals", "layer_norm"), ("vitals", "layer_ratio"), ("vitals", "saturation"),
        ("successive", "signal_share"), ("horizons", "reached"),
    ):  # fmt: skip
        ours, theirs = (groups[f"probe_{table}"][column].values for groups in (together, apart))
        assert len(ours) and np.isfinite(ours).all()
        assert not np.array_equal(ours[:, 0], ours[:, 1]) or column in ("saturation", "reached")
        np.testing.assert_allclose(ours[:, 1], theirs[:, 0], rtol=1e-6, atol=1e-12)
