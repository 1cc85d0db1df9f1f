"""The probe of a training run: what it writes is right, and the run is the same without it."""

import contextlib
import math
import re
import shutil
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

import gradlab
from gradlab.cli.train import Train
from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.probe import sampler
from gradlab.probe.alarm_log import AlarmLog
from gradlab.probe.budget import Budget
from gradlab.progress import silent
from gradlab.storage.journal import Journal, read
from gradlab.systems import from_function
from gradlab.training.algorithms import find, with_horizons
from gradlab.training.health import Diverged
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.parts.weights import FixedWeights
from gradlab.training.probe import horizons, probe, seed_rows
from gradlab.training.probe import measurements as probe_measures
from gradlab.training.probe import signal as probe_signal
from gradlab.training.probe.signal import PAIRS, SeedSignals
from gradlab.training.probe.update_statistics import SeedStatistics
from gradlab.training.recording import tables
from gradlab.training.run import go
from gradlab.training.settings import Settings
from gradlab.training.state import begin

SMALL = dict(
    iterations=60, agents=8, interval=4, warmup=128, episode=20, evaluate_every=1000,
    evaluation_starts=4, log_every=5, checkpoint_every=40, termination="mask",
    at_end="restart", keep=(0.0, 1.0), seeds=2, gradient_every=0,
)  # fmt: skip
MODEL = LearnedModel(members=2, hidden=(8,), every=100, first_steps=15, steps=5, batch=16)
TABLES = ("updates", "evaluations", "events", "model")


def push(state, action, noise):
    moved = 0.9 * state + 0.2 * torch.sin(state.roll(1, 1)) + 0.1 * noise
    moved = moved + torch.stack([action[:, 0], action[:, 1], action[:, 0]], 1)
    return moved, -(state**2).sum(1) - 0.1 * (action**2).sum(1)


def task(far=4.0):
    world = from_function(
        push, state_dim=3, action_dim=2, noise_dim=3, alive=lambda state: state[:, 0].abs() < far
    )

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, world, starts, 0.9, 3, action_limit=(2.0, 1.0))


def row(name, **changes):
    found = find(name)
    if max(found.horizons):
        found = with_horizons(found, (0, 3))
    small = {"hidden": (8, 8), "batch": 16, "value_rate": (1e-2, 1e-3)}
    return replace(found, **(small | changes))


ARMS = {
    "mpg-v2": row("mpg-v2"),
    "learned": row("mpg-v2", model=MODEL),
    "td3": row("td3", clip=0.5),
    "sac": row("sac"),
    "spectral": row("mpg-v2", policy_spectral="all", critic_spectral="all"),
}


@pytest.fixture
def unhurried(monkeypatch):
    """A clock that stands still: everything is free, but for measurements, which are not made."""
    monkeypatch.setattr(probe, "Budget", lambda share, clock: Budget(share, lambda: 0.0))
    monkeypatch.setattr(probe_signal, "PART", 1.0)
    monkeypatch.setattr(probe.SeedMeasurements, "row", lambda self: None)


def state_of(path):
    """All that a run's next update would depend on, but for what a clock has said."""
    found = safetensors.torch.load_file(path.with_name(path.stem + ".resume.safetensors"))
    return {k: v for k, v in found.items() if k not in ("run/seconds", "window/taken")}


def same_runs(first, second):
    ours, theirs = state_of(first), state_of(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value.nan_to_num(7.5), theirs[name].nan_to_num(7.5)), name
    ours, theirs = read(first).groups, read(second).groups
    for table in (each for each in TABLES if each in ours):
        for column in (name for name in ours[table] if "seconds" not in name):
            np.testing.assert_array_equal(
                ours[table][column].values, theirs[table][column].values, column
            )


@pytest.mark.parametrize("updates", [200, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arm", list(ARMS))
def test_a_probed_run_is_bit_for_bit_the_run_without_a_probe(tmp_path, monkeypatch, arm, updates):
    monkeypatch.setattr(probe, "Budget", lambda share, clock: Budget(share, lambda: 0.0))
    monkeypatch.setattr(probe_signal, "PART", 1.0)
    two = iter([True, True])  # one of each seed, whatever they cost
    monkeypatch.setattr(sampler.Measurements, "due", lambda self, seed: next(two, False))
    options = SMALL | {"iterations": updates, "log_every": 50, "checkpoint_every": updates // 2}
    plain = train(ARMS[arm], task(), tmp_path / "plain.h5", **options)
    probed = train(ARMS[arm], task(), tmp_path / "probed.h5", **options, probe_budget=1.0)
    same_runs(plain, probed)
    groups = read(probed).groups
    assert groups["probe_vitals"]["looked"].values.sum() == updates / ARMS[arm].delay
    assert len(groups["probe_successive"]["update"].values) == updates / 50
    assert len(groups["probe_measured"]["update"].values) == 2
    assert not any(name.startswith("probe") for name in read(plain).groups)


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


def test_a_batch_that_is_used_again_is_one_look_at_the_actions():
    learner, batch = learner_and_batch(clip=None)
    vitals = SeedStatistics(learner)
    learner.watch = vitals.see
    for iteration in range(8):
        if iteration % 2 == 0:
            vitals.before(iteration // 4)
        learner.update(iteration, batch)
        if iteration % 2 == 0:
            vitals.after()
    together, _ = vitals.rows()
    assert (together["looked"], together["watched"]) == (4, 2)


def filled(tmp_path, batch=16, **settings):
    """A run with a replay, somewhat trained."""
    chosen = Settings(**(SMALL | {"precision": "float64"} | settings))
    run = begin(row("td3", batch=batch), task(), chosen)
    with Journal(tmp_path / "run.h5", tables(run.algorithm, run.task, chosen), {}) as journal:
        go(run, tmp_path / "run.h5", journal, {}, silent)
    return run


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


def test_no_more_than_its_part_of_the_budget_goes_into_signals(tmp_path, monkeypatch):
    run, now = filled(tmp_path), [0.0]
    budget = Budget(0.1, lambda: now[0])
    budget.begin()
    signals = SeedSignals(run, ["one", "two"], budget)

    def gradients(self, j):
        now[0] += 0.5 / (PAIRS + 1)
        return [torch.ones(2, 2, 2)] * 2

    monkeypatch.setattr(SeedSignals, "_gradients", gradients)
    asked = 0
    for _ in range(2000):
        now[0] += 0.1
        asked += signals.rows(0.5 / (PAIRS + 1)) is not None
        assert signals.own <= 0.25 * 0.1 * now[0] + 1e-9
    assert asked == 10  # of 0.5 s, in 205 s


@pytest.mark.usefixtures("unhurried")
def test_seeds_together_show_what_seeds_apart_show(tmp_path):
    options = SMALL | {"precision": "float64", "probe_budget": 1.0}
    together = read(train(ARMS["mpg-v2"], task(), tmp_path / "all.h5", **options)).groups
    for seed in range(2):
        alone = options | {"seeds": 1, "first_seed": seed}
        apart = read(train(ARMS["mpg-v2"], task(), tmp_path / f"{seed}.h5", **alone)).groups
        for table, column in (
            ("vitals", "layer_norm"), ("vitals", "layer_ratio"), ("vitals", "saturation"),
            ("successive", "signal_share"), ("horizons", "reached"),
        ):  # fmt: skip
            ours, theirs = (groups[f"probe_{table}"][column].values for groups in (together, apart))
            assert len(ours) and np.isfinite(ours).all()
            np.testing.assert_allclose(ours[:, seed], theirs[:, 0], rtol=1e-6, atol=1e-12)


def test_seeds_are_measured_in_turn_on_the_model_that_they_have_learned(tmp_path):
    options = SMALL | {"iterations": 30, "warmup": 300, "log_every": 15}
    path = train(
        ARMS["learned"], replace(task(), prior=None), tmp_path / "run.h5", **options,
        probe_budget=1.0,
    )  # fmt: skip
    found = read(path).groups["probe_measured"]
    error = found["jacobian_error"].values
    assert np.isfinite(error).tolist() == [[True, False], [False, True]]
    assert (error[np.isfinite(error)] > math.log(1e-3)).all()  # it is no copy of the world
    assert np.isfinite(found["bias2"].values[0, 0, 1]).all()  # "model", all horizons
    assert np.isfinite(found["lyapunov"].values).sum() == 2


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


def wild(monkeypatch, seed, change):
    """Another beginning for the policy of one seed."""
    from gradlab.training import learner

    made = learner.networks

    def changed(algorithm, chosen, number):
        policy, critics = made(algorithm, chosen, number)
        if number == seed:
            with torch.no_grad():
                change(policy)
        return policy, critics

    monkeypatch.setattr(learner, "networks", changed)


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
    assert told and all("100% of action 1 is at its limit" in each for each in told)
    seeds = alarms["seed"].values[alarms["alarm"].values == "saturated actor"]
    assert (seeds == 1).all()
    assert "gradlab probe, td3, seed 1, step 40: saturated actor" in capsys.readouterr().err


@pytest.mark.usefixtures("unhurried")
def test_a_horizon_that_is_never_rolled_out_is_told_of_the_run_not_of_a_seed(tmp_path):
    lazy = replace(row("mpg-v2"), weights=FixedWeights((1.0, 0.0)))
    groups = read(train(lazy, task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)).groups
    np.testing.assert_array_equal(groups["probe_horizons"]["made"].values[-1], [1.0, 0.0])
    alarms = groups["probe_alarms"]
    at = alarms["alarm"].values.tolist().index("horizon never rolled out")
    assert np.isnan(alarms["seed"].values[at]) and alarms["update"].values[at] == 40
    assert "horizon 3 is asked for, but none of 20" in alarms["message"].values[at]


@pytest.mark.usefixtures("unhurried")
def test_a_mixture_that_is_rolled_out_gives_no_such_alarm(tmp_path):
    groups = read(train(row("mpg-v2"), task(), tmp_path / "r.h5", **SMALL, probe_budget=1.0)).groups
    assert "horizon never rolled out" not in groups["probe_alarms"]["alarm"].values.tolist()
    assert groups["probe_horizons"]["updates"].values[-1] == 30


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
def test_where_ends_are_not_valued_no_path_is_followed(tmp_path):
    options = SMALL | {"termination": "ignore"}
    groups = read(train(row("mpg-v2"), task(), tmp_path / "r.h5", **options, probe_budget=1)).groups
    assert np.isnan(groups["probe_horizons"]["reached"].values).all()


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
    assert any(f"of 16), in update {update}: mend" in text for text in origin)


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


BROKEN = [
    (probe._Instruments, "__init__"), (probe._Instruments, "before"),
    (probe._Instruments, "see"), (probe._Instruments, "over"), (SeedStatistics, "see"),
    (probe._Instruments, "file_window"), (SeedStatistics, "rows"), (SeedSignals, "rows"),
    (seed_rows.SeedRows, "file"), (AlarmLog, "report"),
    (horizons.Made, "add"), (probe.SeedMeasurements, "row"), (Budget, "look"),
]  # fmt: skip


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return train(row("td3"), task(), tmp_path_factory.mktemp("plain") / "run.h5", **SMALL)


@pytest.mark.parametrize(("place", "name"), BROKEN)
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
def test_a_row_of_a_wrong_shape_switches_the_probe_off_and_leaves_the_run_readable(
    tmp_path, monkeypatch, untouched
):
    rows = SeedStatistics.rows

    def misshapen(self):
        together, own = rows(self)
        return together, [each | {"layer_norm": np.zeros(3)} for each in own]

    monkeypatch.setattr(SeedStatistics, "rows", misshapen)
    with pytest.warns(RuntimeWarning, match="gradlab's probe is off"):
        path = train(row("td3"), task(), tmp_path / "run.h5", **SMALL, probe_budget=1.0)
    same_runs(untouched, path)


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
def test_ctrl_c_keeps_the_open_window_and_the_run_goes_on(tmp_path, monkeypatch, untouched):
    update = Learner.update

    def pressed(self, iteration, batch):
        if iteration == 44:
            signal.raise_signal(signal.SIGINT)
        return update(self, iteration, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "update", pressed)
        with pytest.raises(KeyboardInterrupt, match="after 45 iterations is saved"):
            train(row("td3"), task(), tmp_path / "cut.h5", **SMALL, probe_budget=1.0)
    cut = train(row("td3"), task(), tmp_path / "cut.h5", **SMALL, probe_budget=1.0, resume=True)
    same_runs(untouched, cut)
    found = read(cut).groups["probe_vitals"]
    assert found["update"].values.tolist() == [40, 45, 50, 60]
    assert found["looked"].values.tolist() == [20, 3, 2, 5]


@pytest.mark.parametrize("share", [0, -0.1, 1.5, math.nan, "0.1"])
def test_a_budget_is_a_share(share):
    with pytest.raises(InputError, match=r"probe_budget is .*, expected a share in"):
        Settings(probe_budget=share)


def test_the_command_line_takes_a_budget(tmp_path):
    command = Train(
        "td3", "double_integrator", iterations=2, probe_budget=0.05, no_report=True,
        output=tmp_path / "run.h5",
    )  # fmt: skip
    command.run("gradlab train td3 double_integrator --probe-budget 0.05")
    assert read(tmp_path / "run.h5").groups["probe_vitals"]["looked"].values.tolist() == [1]
