"""One run divided among processes; here they are in this one, and die at random.

Measurements of the gradient that a row follows: of every row, where the simulator allows it.

Rollouts that memory cannot hold are refused before anything is written.

Learned models end episodes where the task does; where nobody knows, nothing is begun.

RP-DR: windows of real steps, cut into paths of h that end in the critic.

Ray in one process: calls are pickled and may kill their actor, in an order that is drawn.

An actor that dies loses its object and makes another; its call is repeated, as Ray does.
"""

import pickle
import random
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.cli import main
from gradlab.errors import Failure, InputError
from gradlab.gradients.rollout import rollout
from gradlab.gradients.setting import as_starts
from gradlab.networks import checkpoint
from gradlab.runs.training.results import load
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.systems.system import System, Transition
from gradlab.tasks import double_integrator
from gradlab.training.algorithms import ALGORITHMS, find, with_horizons
from gradlab.training.asynchronous import execution
from gradlab.training.asynchronous.processes import ActorProcess, LearnerProcess
from gradlab.training.checkpoints import resume_file
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.measured import gradient_errors
from gradlab.training.parts.context import Newest
from gradlab.training.parts.critics import Soft
from gradlab.training.parts.policy_losses import Term
from gradlab.training.settings import Asynchronous, Settings
from gradlab.verdicts.training import verdict
from tests.training.small_runs import (
    SMALL,
    critics_of,
    numbers,
    other,
    row,
    same_tables,
    stopped,
    task,
)
from tests.training.test_svg import batch_of_windows as batch_of
from tests.training.test_svg import gradient


class RayTaskError(Exception):
    def __init__(self, cause):
        super().__init__(f"many\nlines\n{cause}")
        self.cause = cause


class RayActorError(Exception):
    pass


class Call:
    def __init__(self, actor, arguments):
        self.actor, self.request, self.ended, self.value, self.error = actor, arguments, 0, None, 0


class Actor:
    def __init__(self, ray, kind, options, arguments):
        self.ray, self.kind, self.made = ray, kind, pickle.dumps(arguments)
        self.attempts, self.object, self.calls, self.died = (
            options["max_task_retries"] + 1,
            0,
            [],
            0,
        )
        self.answer = SimpleNamespace(remote=self.called)

    def called(self, *arguments):
        self.ray.seen.append(arguments)
        self.calls.append(Call(self, pickle.dumps(arguments)))
        return self.calls[-1]

    def serve(self):
        """The next call."""
        call = self.calls.pop(0)
        for _ in range(self.attempts):
            self.object = self.object or self.kind(*pickle.loads(self.made))
            if not self.ray.dies():
                try:
                    call.value = pickle.dumps(self.object.answer(*pickle.loads(call.request)))
                except Exception as error:
                    call.error = RayTaskError(error)
                break
            self.object, self.died = None, self.died + 1
        else:
            call.error = RayActorError("the actor died")
        call.ended = True


class InlineRay:
    """Calls of an actor are served in their order, those of different ones in any.

    Args:
        deaths: chance that an actor dies of a call, of the first `most` deaths.
    """

    exceptions = SimpleNamespace(RayTaskError=RayTaskError, RayActorError=RayActorError)

    def __init__(self, seed=0, deaths=0.0, most=10**9):
        self.random, self.deaths, self.most = random.Random(seed), deaths, most
        self.died, self.lived, self.actors, self.seen = 0, 0, [], []

    def dies(self):
        self.lived += 1
        rested = self.lived > 3 or self.deaths == 1  # what is repeated does not die again
        dead = rested and self.died < self.most and self.random.random() < self.deaths
        self.died += dead
        self.lived *= not dead
        return dead

    def remote(self, kind):
        def options(**given):
            def made(*arguments):
                self.actors.append(Actor(self, kind, given, arguments))
                return self.actors[-1]

            return SimpleNamespace(remote=made)

        return SimpleNamespace(options=options)

    def get(self, call):
        while not call.ended:
            call.actor.serve()
        if call.error:
            raise call.error
        return pickle.loads(call.value)

    def wait(self, calls, num_returns=1, timeout=None):
        if timeout is None and not any(call.ended for call in calls):
            chosen = self.random.choice(calls)
            while not chosen.ended:
                chosen.actor.serve()
        ended = [call for call in calls if call.ended]
        return ended, [call for call in calls if not call.ended]

    def kill(self, actor):
        actor.calls.clear()

    @contextmanager
    def cluster(self, address):
        """In the place of `gradlab.machine.cluster`."""
        yield self


MANY = Asynchronous(learners=3, actors=2, queue=2, deterministic=True)
FREE = replace(MANY, deterministic=False)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train a row with the classes of its processes in this one."""

    def run(name, choice, ray=None, file="run.h5", **options):
        monkeypatch.setattr(execution, "cluster", (ray or InlineRay()).cluster)
        options = SMALL | {"seeds": 2} | options
        return train(row(name), task(), tmp_path / file, asynchronous=choice, **options)

    return run


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["mpg-v2", "mpg-v1", "sac", "bptt"])
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
    ray = InlineRay(seed=3, deaths=0.5, most=50)
    alive = trained("mpg-v2", MANY, file="alive.h5", **options)
    dying = trained("mpg-v2", MANY, ray, file="dying.h5", **options)
    assert ray.died == 50
    kinds = {actor.kind for actor in ray.actors if actor.died}
    assert kinds == {ActorProcess, LearnerProcess}
    assert torch.equal(numbers(alive), numbers(dying))
    same_tables(alive, dying)


@pytest.mark.slow
def test_a_stopped_run_of_many_processes_goes_on_bit_for_bit(trained):
    whole = trained("mpg-v2", MANY, file="whole.h5")
    cut = stopped(partial(trained, "mpg-v2", MANY), 50, file="cut.h5")
    assert torch.equal(numbers(whole), numbers(cut))
    same_tables(whole, cut)


def test_gradients_are_of_the_parameters_so_many_steps_ago_as_their_lag_says(trained, monkeypatch):
    ray, steps = InlineRay(), []
    follow = execution.Optimiser._policy_step

    def noted(self, run, job, given):
        steps.append(run.learner.state()["policy.0"].clone())
        return follow(self, run, job, given)

    monkeypatch.setattr(execution.Optimiser, "_policy_step", noted)
    choice = Asynchronous(queue=4, deterministic=True)
    run = trained("ddpg", choice, ray, checkpoint_every=1000)
    asked = [
        networks["policy.0"]
        for method, networks, job, weights in (sent for sent in ray.seen if sent[0] == "gradient")
        if job.role == "policy"
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
    ray = InlineRay(seed=1, deaths=0.05)
    run = trained("td3", FREE, ray)
    table = read(run).groups
    assert table["updates"]["iteration"].values[-1] == 60
    assert table["evaluations"]["transitions"].values.tolist() == [0, 64 + 4 * 14, 64 + 4 * 29]
    lags, counts = table["asynchrony"], np.arange(11)
    applied = {role: lags[f"{role}_lag"].values.sum() for role in ("critic", "policy")}
    assert lags["learner_gradients"].values.sum() == sum(applied.values())
    assert abs(applied["critic"] - 60) <= 3 and abs(applied["policy"] - 30) <= 3
    assert counts @ lags["policy_lag"].values.sum(axis=0) > 0
    assert lags["actor_steps"].values.sum() * 4 == 64 + 4 * 29
    saved, _ = checkpoint.read(resume_file(run), "gradlab.training")
    rows = saved["replay/rows"][0]  # what actors have sent, each transition once
    assert len(rows.unique(dim=0)) == len(rows) == 64 + 4 * 29


def test_an_actor_that_dies_of_every_call_ends_the_run_with_its_name(trained):
    with pytest.raises(Failure, match=r"actor 0 died 5 times of one call.*resume=True"):
        trained("td3", FREE, InlineRay(deaths=1.0))


def test_an_error_in_a_process_is_one_line_with_its_name(trained, monkeypatch):
    def broken(*_):
        raise KeyError("a mistake")

    monkeypatch.setattr(LearnerProcess, "gradient", broken)
    with pytest.raises(Failure, match=r"gradient failed in learner \d with KeyError: .a mistake.$"):
        trained("td3", FREE)


def test_without_ray_a_run_in_processes_is_refused_and_replaces_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    path = tmp_path / "run.h5"
    path.write_bytes(b"an earlier run")
    with pytest.raises(InputError, match=r"^ray is not installed: pip install .*'\.\[ray\]'"):
        train(row("td3"), task(), path, asynchronous=FREE, overwrite=True, **SMALL)
    assert path.read_bytes() == b"an earlier run"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_has_a_table_of_its_gradient_where_it_is_asked_for(name):
    algorithm, settings = find(name), Settings(gradient_every=5)
    gradient_errors.check(algorithm, settings, double_integrator())
    table = gradient_errors.table(algorithm, settings, (0,))
    assert set(algorithm.horizons) <= set(table.scales["horizon"])
    assert "bias2_tail" in table.columns and gradient_errors.law(algorithm)


MEASURED = SMALL | {"iterations": 40, "gradient_every": 20, "gradient_starts": 8}


def endless():
    """The world of the small runs, in which no episode ends before its last step."""
    world = task()
    simulator = gradlab.systems.from_function(
        lambda s, a, xi: (0.5 * s + 0.1 * a[:, :1] + 0.1 * xi, -(s**2).sum(1)),
        state_dim=3, action_dim=2, noise_dim=3,
    )  # fmt: skip
    return replace(world, simulator=simulator, prior=simulator)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maac", "svg-inf"])
def test_measuring_changes_no_bit_and_a_stopped_run_measures_the_same(tmp_path, name):
    algorithm, world = row(name), endless()
    if algorithm.source.steps:
        algorithm = replace(algorithm, source=Newest(4))
    whole = train(algorithm, world, tmp_path / "a.h5", **MEASURED)
    plain = train(algorithm, world, tmp_path / "b.h5", **MEASURED | {"gradient_every": 0})
    cut = stopped(partial(train, algorithm, world, tmp_path / "c.h5"), 30, **MEASURED)
    assert torch.equal(numbers(whole), numbers(plain))
    same_tables(whole, plain)
    first, second = (read(path).groups["gradients"] for path in (whole, cut))
    assert first["iteration"].values.tolist() == [20, 40]
    for column in (name for name in first if name != "seconds"):
        np.testing.assert_array_equal(first[column].values, second[column].values, column)
    for text, [status] in zip(first["truth_reason"].values, first["truth"].values, strict=True):
        assert (str(text) == "") == (status >= 2)  # cut, or converged
    assert np.isfinite(first["bias2"].values).all() and (first["seconds"].values > 0).all()
    [found] = [each for each in verdict(load(whole)) if each.code == "training gradient"]
    assert ("states of its batches" if name == "maac" else "newest paths") in found.at


def test_the_reason_of_a_missing_truth_is_in_the_record_and_in_the_verdict(tmp_path):
    # In this world most episodes end within a few steps: too few paths are whole.
    options = MEASURED | {"iterations": 20, "evaluate_every": 20, "checkpoint_every": 20}
    path = train(row("svg-inf"), task(), tmp_path / "run.h5", **options)
    [reason] = read(path).groups["gradients"]["truth_reason"].values
    assert "within one episode, 4 are needed" in reason
    unknown = [each for each in verdict(load(path)) if each.code == "training gradient unknown"]
    assert unknown[0].at.endswith(str(reason))


def test_a_horizon_beyond_memory_is_refused_before_anything_is_written(tmp_path, capsys):
    path, long = tmp_path / "run.h5", with_horizons(row("rp-dp"), (10_000_000,))
    path.write_bytes(b"an earlier run")
    message = "numbers of a step take at least .* GB, but the machine has .* GB: lower"
    with pytest.raises(InputError, match=message) as refused:
        train(long, task(), path, **SMALL, overwrite=True)
    assert "\n" not in str(refused.value) and path.read_bytes() == b"an earlier run"
    command = ["train", "rp-dp", "double_integrator", "--horizons", "100000000", "--output"]
    assert main([*command, str(tmp_path / "other.h5")]) == 2
    assert "lower the horizon" in capsys.readouterr().err
    assert not (tmp_path / "other.h5").exists()


MASKED = SMALL | {"termination": "mask"}
MESSAGE = "termination is 'mask', but push has no termination function for a learned model: give"


def alive(state):
    return state[:, 0].abs() < 2.5


@pytest.mark.parametrize("name", ["rp-dp", "ddppo", "mbpo"])
def test_a_task_without_a_termination_function_is_refused_and_nothing_overwritten(tmp_path, name):
    path = tmp_path / "run.h5"
    path.write_bytes(b"an earlier run")
    with pytest.raises(InputError, match=MESSAGE) as refused:
        train(row(name), task(), path, **MASKED, overwrite=True)
    assert "\n" not in str(refused.value) and path.read_bytes() == b"an earlier run"
    # The prior ends its own rollouts, and what is ignored needs no end.
    chosen = replace(row("rp-dp"), model=None)
    train(chosen, task(), tmp_path / "prior.h5", **(MASKED | {"iterations": 1}))
    known = replace(task(), alive=alive)
    train(row(name), known, tmp_path / "known.h5", **(MASKED | {"iterations": 1}))


@dataclass(frozen=True)
class Opaque:
    """A simulator that does not show where its episodes end."""

    inner: System
    differentiable = True

    def __getattr__(self, name):
        if name == "alive":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def step(self, state, action, noise=None) -> Transition:
        return self.inner.step(state, action, noise)


def test_a_simulator_that_ends_an_episode_unannounced_is_refused_before_a_model_is_fitted(tmp_path):
    world = Opaque(task().simulator)
    hidden = replace(task(), simulator=world, prior=None)
    with pytest.raises(InputError, match=MESSAGE):
        train(row("rp-dp"), hidden, tmp_path / "run.h5", **MASKED)

    def never(state):
        return torch.ones(len(state), dtype=torch.bool)

    endless = Opaque(replace(task().simulator, alive=never))
    endless = replace(hidden, simulator=endless)
    train(row("rp-dp"), endless, tmp_path / "endless.h5", **(MASKED | {"iterations": 1}))


AGENTS, ALPHA = 5, 0.2


class Drawn:
    """The noise of the last actions; that of the model deals members, of which there are none."""

    def __init__(self, noise):
        self.noise = noise

    def normal(self, name, iteration, shape):
        if name == "model noise":
            return torch.full((2, *shape), torch.nan)
        assert name == "last actions" and self.noise.shape[1:] == shape
        return self.noise


def learner_of(horizon, windows, alpha, termination="ignore"):
    model = from_function(other, state_dim=3, action_dim=2, noise_dim=3)
    chosen = replace(
        row("rp-dr"), terms=(Term(horizon, "all"),), source=Newest(horizon * windows),
        activation="tanh", model=None, target=Soft(alpha),
    )  # fmt: skip
    settings = Settings(precision="float64", seeds=2, termination=termination, agents=AGENTS)
    return Learner(chosen, replace(task(), prior=model), settings)


def path_of(learner, seed, steps, number):
    """Paths of the simulator by the policy of one seed."""
    policy = learner.policy_of(seed).double()
    generator = torch.Generator().manual_seed(number)
    starts = as_starts(torch.randn(AGENTS, 3, generator=generator, dtype=torch.float64), 3)
    return policy, rollout(learner.task.simulator, policy, starts, steps, seed=number)


def estimated(learner, seed, policy, path, number):
    """By the estimator, from real states with the model's Jacobians."""
    tail = gradlab.Tail(path.horizon, critics_of(learner, seed), learner.task.discount)
    alpha = learner.algorithm.target.temperature
    estimator = gradlab.Estimator(
        learner.task.simulator, learner.task.prior, "all", tail, entropy=alpha
    )
    return estimator.mean_gradient(policy, path.states[0], seed=number)


def noise_of(made, horizon):
    """Of the last actions, at the step of its path in which each one is drawn."""
    return torch.stack(
        [
            torch.stack([paths[k].policy_noise[horizon] for k in range(len(paths))])
            .flatten(0, 1)
            .expand(horizon, -1, -1)
            for paths in made
        ]
    )


@pytest.mark.parametrize(
    ("horizon", "windows", "alpha"), [(3, 1, 0.0), (3, 2, ALPHA), (1, 3, 0.0), (5, 1, ALPHA)]
)
def test_the_gradient_is_that_of_the_estimator_on_real_states_to_the_critic(
    horizon, windows, alpha
):
    learner = learner_of(horizon, windows, alpha)
    made = [[path_of(learner, seed, horizon, 7 + k) for k in range(windows)] for seed in range(2)]
    paths = [[path for _, path in pieces] for pieces in made]
    batch = batch_of(paths)
    learner.draws = Drawn(noise_of(paths, horizon))
    for seed in range(2):
        wanted = sum(
            estimated(learner, seed, policy, path, 7 + k)
            for k, (policy, path) in enumerate(made[seed])
        )
        torch.testing.assert_close(
            gradient(learner, batch, seed), wanted / windows, rtol=1e-9, atol=1e-11
        )


def test_paths_of_one_episode_are_cut_where_the_window_has_them():
    # One path of 4 steps as two of 2: no derivative crosses, whatever joins the states.
    learner = learner_of(2, 2, 0.0)
    paths = [[path_of(learner, seed, 4, 7)[1]] for seed in range(2)]
    batch = batch_of(paths)
    learner.draws = Drawn(
        torch.stack([torch.cat([p.policy_noise[2], p.policy_noise[4]]) for (p,) in paths])[:, None]
        .expand(-1, 2, -1, -1)
    )  # fmt: skip
    shifted = batch.next_state.clone()
    whole = gradient(learner, batch, 0)
    shifted[:, AGENTS : 2 * AGENTS] += (
        1e-9  # what the second step led to is not where the third began
    )
    torch.testing.assert_close(gradient(learner, replace(batch, next_state=shifted), 0), whole)


@pytest.mark.parametrize("termination", ["ignore", "mask"])
def test_an_episode_that_ends_is_valued_there_but_for_a_masked_terminal_state(termination):
    learner = learner_of(3, 1, 0.0, termination)
    made = [[path_of(learner, seed, n, 7 + n) for n in (1, 2)] for seed in range(2)]
    paths = [[path for _, path in pieces] for pieces in made]
    batch = batch_of(paths)
    ended = batch.terminated.clone()
    ended[:, :AGENTS] = 1.0
    batch = replace(batch, terminated=ended)
    noise = torch.stack([torch.stack([a.policy_noise[1], b.policy_noise[1], b.policy_noise[2]])
                         for a, b in paths])  # fmt: skip
    learner.draws = Drawn(noise)
    for seed in range(2):
        first, second = (
            estimated(learner, seed, policy, path, 7 + n)
            for n, (policy, path) in zip((1, 2), made[seed], strict=True)
        )
        if termination == "mask":
            policy, path = made[seed][0]
            tail = gradlab.Tail(1, None, learner.task.discount)
            alone = gradlab.Estimator(learner.task.simulator, learner.task.prior, "all", tail)
            first = alone.mean_gradient(policy, path.states[0], seed=8)
        torch.testing.assert_close(
            gradient(learner, batch, seed), (first + second) / 2, rtol=1e-9, atol=1e-11
        )
